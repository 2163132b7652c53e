"""The members of iterative pruning: a method of pruning, a seed, and numbers of the sweep."""

from typing import NamedTuple

from experiments.runners.hyperparameters import Numbers
from supermask_jax.actions import MASK_ONE, MASK_ZERO
from supermask_jax.checks import lookup, shown
from supermask_jax.criteria import CRITERIA


class Variant(NamedTuple):
    """A method of pruning: names in `CRITERIA`, `MASK_ONE` and `MASK_ZERO`."""

    criterion: str
    mask_one: str
    mask_zero: str

    @classmethod
    def parse(cls, text: str) -> "Variant":
        """Parse ``criterion[:mask_one[:mask_zero]]``; the actions default to rewind and zero.

        Raises:
          ValueError: if a name is unknown, or if there are too many parts.
        """
        names = str(text).split(":")
        if len(names) > 3:
            raise ValueError(
                f"variant {shown(text)} has more parts than criterion:mask_one:mask_zero."
            )
        variant = cls(*names, *("rewind", "zero")[len(names) - 1 :])
        lookup("criterion", variant.criterion, CRITERIA)
        lookup("mask-1 action", variant.mask_one, MASK_ONE)
        lookup("mask-0 action", variant.mask_zero, MASK_ZERO)
        return variant

    def __str__(self) -> str:
        """Return the shortest text that `parse` reads as this variant."""
        return ":".join(self).removesuffix(":zero").removesuffix(":rewind")


class Member(NamedTuple):
    """One member of the population; a dense network has neither a variant nor a pruning rate."""

    variant: Variant | None
    seed: int
    numbers: Numbers

    @property
    def dense(self) -> "Member":
        """The dense network that it comes from."""
        return Member(None, self.seed, self.numbers._replace(default_rate=None))
