"""Parts of a sweep for many machines: each takes some of its members."""

import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

from supermask_jax.checks import shown


class HasSeed(Protocol):
    """A member of a sweep, as far as slices look at it."""

    @property
    def seed(self) -> int:
        """Its seed."""
        ...


NUMBER = "0|[1-9][0-9]{0,8}"
M = TypeVar("M", bound=HasSeed)


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
