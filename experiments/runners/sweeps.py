"""The members of a sweep: their variants, their seeds, and slices for several machines."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from experiments.problems.seeds import places
from experiments.runners.settings import refuse_repetitions
from supermask_jax.checks import shown


class HasSeed(Protocol):
    """A member of a sweep."""

    @property
    def seed(self) -> int:
        """The seed of the member."""
        ...


NUMBER = "0|[1-9][0-9]{0,8}"
M = TypeVar("M", bound=HasSeed)
V = TypeVar("V")


def parse_variants(parse: Callable[[str], V], texts: Sequence[str]) -> list[V]:
    """Parse the variants of a configuration.

    Args:
      parse: parses one variant.
      texts: ``config.variants``.

    Raises:
      ValueError: if `parse` raises it, or if two texts mean the same variant.
    """
    variants = [parse(text) for text in texts]
    refuse_repetitions("variants", [str(variant) for variant in variants])
    return variants


def seeds_of(members: Sequence[HasSeed]) -> list[int]:
    """Return the distinct seeds of members, in order of first appearance."""
    return list(dict.fromkeys(member.seed for member in members))


def seed_places(members: Sequence[HasSeed], seeds: Sequence[int]) -> np.ndarray:
    """Return the index of every member's seed in `seeds`, int32 `[P]`."""
    return places([member.seed for member in members], seeds)


def take_part(part: str | None, members: Sequence[M]) -> tuple[M, ...]:
    """Return the members of a slice.

    Args:
      part: the slice ``i/n``; None for all members.
      members: the members of the whole sweep.

    Raises:
      ValueError: if `part` is not ``i/n``, or if there are more slices than members.
    """
    return Slice.parse("0/1" if part is None else part).take(members)


class Slice(NamedTuple):
    """One of `count` parts of a sweep, with consecutive members in the order of seeds.

    With one slice per seed, each slice has one seed and all variants, so no dense network is
    trained twice.

    Attributes:
      index: the index of the slice, from 0.
      count: the number of slices.
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Slice":
        """Parse ``i/n``, for example 0/4 to 3/4.

        Raises:
          ValueError: for any other text.
        """
        match = re.fullmatch(f"({NUMBER})/({NUMBER})", text)
        if not match or not int(match[1]) < int(match[2]):
            raise ValueError(f"--slice is {shown(text)}, expected i/n with i from 0 to n - 1.")
        return cls(int(match[1]), int(match[2]))

    def take(self, members: Sequence[M]) -> tuple[M, ...]:
        """Return the members of the slice, in the order of the sweep.

        Args:
          members: the members of the whole sweep.

        Raises:
          ValueError: if there are more slices than members.
        """
        if self.count > len(members):
            raise ValueError(
                f"--slice asks for {self.count} parts of {len(members)} members, "
                "expected no more parts than members."
            )
        by_seed = sorted(range(len(members)), key=lambda i: members[i].seed)
        first, stop = (len(members) * i // self.count for i in (self.index, self.index + 1))
        return tuple(members[i] for i in sorted(by_seed[first:stop]))
