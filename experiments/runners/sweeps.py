"""The members of a sweep: their variants, their seeds, and the part that one machine takes."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from experiments.problems.seeds import places
from experiments.runners.settings import refuse_repetitions
from supermask_jax.checks import shown


class HasSeed(Protocol):
    """A member of a sweep, as far as this module looks at it."""

    @property
    def seed(self) -> int:
        """Its seed."""
        ...


NUMBER = "0|[1-9][0-9]{0,8}"
M = TypeVar("M", bound=HasSeed)
V = TypeVar("V")


def parse_variants(parse: Callable[[str], V], texts: Sequence[str]) -> list[V]:
    """The variants that a setting names.

    Args:
      parse: reads one.
      texts: ``config.variants``.

    Raises:
      ValueError: a text that `parse` refuses, or two that mean the same.
    """
    variants = [parse(text) for text in texts]
    refuse_repetitions("variants", [str(variant) for variant in variants])
    return variants


def seeds_of(members: Sequence[HasSeed]) -> list[int]:
    """The seeds of members, each once, in order of first appearance."""
    return list(dict.fromkeys(member.seed for member in members))


def seed_places(members: Sequence[HasSeed], seeds: Sequence[int]) -> np.ndarray:
    """The place of every member's seed among the seeds, int32 `[P]`."""
    return places([member.seed for member in members], seeds)


def take_part(part: str | None, members: Sequence[M]) -> tuple[M, ...]:
    """The members of a slice ``i/n``; all of them for None.

    Raises:
      ValueError: a text that `Slice.parse` refuses, or more slices than members.
    """
    return Slice.parse("0/1" if part is None else part).take(members)


class Slice(NamedTuple):
    """A part of a sweep: the `index`-th of `count`, its members in the order of their seeds.

    With as many slices as seeds each has one seed and all variants, so that no dense network
    is trained twice.
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Slice":
        """Read ``i/n``, for example 0/4 to 3/4.

        Raises:
          ValueError: anything else.
        """
        match = re.fullmatch(f"({NUMBER})/({NUMBER})", text)
        if not match or not int(match[1]) < int(match[2]):
            raise ValueError(f"--slice is {shown(text)}, expected i/n with i from 0 to n - 1.")
        return cls(int(match[1]), int(match[2]))

    def take(self, members: Sequence[M]) -> tuple[M, ...]:
        """The slice's members of a sweep, in the sweep's order.

        Raises:
          ValueError: if there are more slices than members.
        """
        if self.count > len(members):
            raise ValueError(
                f"--slice asks for {self.count} parts of {len(members)} members, "
                "expected as many parts or fewer."
            )
        by_seed = sorted(range(len(members)), key=lambda i: members[i].seed)
        first, stop = (len(members) * i // self.count for i in (self.index, self.index + 1))
        return tuple(members[i] for i in sorted(by_seed[first:stop]))
