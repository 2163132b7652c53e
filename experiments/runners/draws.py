"""The draws of learned supermasks, by name: how trained logits become masks."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from supermask_jax import rates, supermasks
from supermask_jax.checks import lookup, shown
from supermask_jax.supermasks import Draw

PyTree = Any


class Training(NamedTuple):
    """What a draw may depend on besides its number.

    Attributes:
      params: the shapes and types of the parameters.
      prunable: from `trees.prunable_leaves`.
      num_steps: the steps of the training.
      step: the steps done so far, an integer `[]`.
    """

    params: PyTree
    prunable: PyTree
    num_steps: int
    step: int | jax.Array


class Range(NamedTuple):
    """The numbers that a draw takes, and the same in words."""

    holds: Callable[[float], bool]
    words: str


class Kind(NamedTuple):
    """A kind of draws.

    Attributes:
      make: (number, training) -> draw.
      number: the default of its number.
      range: the numbers that it takes; None if it takes none.
      is_unequal: whether logits start from `supermasks.init_scores`, because equal ones would tie,
        or hide all weights.
    """

    make: Callable[[float, Training], Draw]
    number: float = 0.0
    range: Range | None = None
    is_unequal: bool = False


def _top_k(density: float, training: Training) -> Draw:
    params, prunable = training.params, training.prunable
    counts = rates.layer_counts(params, density, "uniform", prunable=prunable)
    return supermasks.top_k(counts, by="size")


def _continuous(final: float, training: Training) -> Draw:
    temperature = supermasks.temperature_at(training.step, training.num_steps, final)
    return supermasks.continuous(temperature)


ANY = Range(math.isfinite, "a finite number")
POSITIVE = Range(lambda number: 0 < number < math.inf, "a finite number above 0")
DENSITY = Range(lambda number: 0 < number <= 1, "the density of every layer, above 0 and at most 1")

DRAWS: dict[str, Kind] = {
    "bernoulli": Kind(lambda number, training: supermasks.bernoulli()),
    "top_k": Kind(_top_k, 0.5, DENSITY, is_unequal=True),
    "threshold": Kind(lambda at, training: supermasks.threshold(at), 0.0, ANY, is_unequal=True),
    "ternary": Kind(lambda at, training: supermasks.ternary(at), 0.01, POSITIVE, is_unequal=True),
    "gumbel": Kind(lambda temperature, _: supermasks.gumbel(temperature), 2 / 3, POSITIVE),
    "hard_concrete": Kind(
        lambda temperature, _: supermasks.hard_concrete(temperature), 2 / 3, POSITIVE
    ),
    "continuous": Kind(_continuous, 200.0, POSITIVE),  # the last temperature
}


@dataclasses.dataclass(frozen=True)
class NamedDraw:
    """A draw by the name of its kind, a key of `DRAWS`, and its number."""

    name: str
    number: float

    @classmethod
    def parse(cls, text: str) -> "NamedDraw":
        """Parse ``name[:number]``; without a number, it is the default of the kind.

        Raises:
          ValueError: for any other text.
        """
        name, colon, cell = text.partition(":")
        kind = lookup("draw", name, DRAWS)
        if not colon:
            return cls(name, kind.number)
        if kind.range is None:
            raise ValueError(f"draw {shown(text)}, expected {name} alone: it takes no number.")
        try:
            number = float(cell)
        except ValueError:
            number = math.nan
        if not kind.range.holds(number):
            raise ValueError(f"draw {shown(text)}, expected {kind.range.words} after '{name}:'.")
        return cls(name, number)

    @property
    def is_unequal(self) -> bool:
        """Whether its logits start unequal."""
        return DRAWS[self.name].is_unequal

    def make(self, training: Training) -> Draw:
        """Return the draw at a step of a training."""
        return DRAWS[self.name].make(self.number, training)


def check_draw(name: str, value: Any) -> None:
    """Check that a setting is a text that `NamedDraw.parse` understands."""
    if not isinstance(value, str):
        raise ValueError(f"config.{name} is {shown(value)}, expected the name of a draw.")
    NamedDraw.parse(value)
