"""The settings of experiments: each is declared once, with its type, its check and its role.

A kind of experiments has a dataclass of `Annotated` fields. Their annotations hold the checks, each
of which raises a `ValueError` in one line that says what is wrong and what is allowed, and `SWEEP`
where no member's numbers depend on the setting.
"""

import dataclasses
import enum
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar, get_type_hints

from supermask_jax.checks import lookup, shown

PRECISIONS = ("default", "bfloat16", "tensorfloat32", "float32")
Check = Callable[[str, Any], None]
S = TypeVar("S", bound="Settings")


class Role(enum.Enum):
    """What a setting is for, if not for the numbers of single members."""

    SWEEP = "which members there are, when they are saved, how they are shown"


SWEEP = Role.SWEEP


def text(name: str, value: Any) -> None:
    """A text that is not empty."""
    if not (isinstance(value, str) and value):
        raise ValueError(f"config.{name} is {shown(value)}, expected a text.")


def boolean(name: str, value: Any) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"config.{name} is {shown(value)}, expected a bool.")


def integer(least: int) -> Check:
    """An integer of `least` or more."""

    def check(name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(
                f"config.{name} has {shown(value)}, expected an integer of {least} or more."
            )

    return check


def positive(name: str, value: Any) -> None:
    """A finite number above 0."""
    if not (_is_finite(value) and value > 0):
        raise ValueError(f"config.{name} is {shown(value)}, expected a finite number above 0.")


def finite(name: str, value: Any) -> None:
    """A finite number."""
    if not _is_finite(value):
        raise ValueError(f"config.{name} has {shown(value)}, expected a finite number.")


def fraction(name: str, value: Any) -> None:
    """A number from 0 to below 1."""
    if not (_is_finite(value) and 0 <= value < 1):
        raise ValueError(f"config.{name} is {shown(value)}, expected from 0 to below 1.")


def one_of(kind: str, registry: Mapping[str, Any]) -> Check:
    """A name of a registry."""
    return lambda name, value: lookup(kind, value, registry) and None


def list_of(*checks: Check) -> Check:
    """A list of at least one, without repetitions, whose entries pass some checks."""

    def check(name: str, values: Any) -> None:
        if not isinstance(values, Sequence) or isinstance(values, str | bytes) or not values:
            raise ValueError(f"config.{name} is {shown(values)}, expected a list of at least one.")
        refuse_repetitions(name, values)
        for value in values:
            for check_value in checks:
                check_value(name, value)

    return check


def refuse_repetitions(name: str, values: Sequence[Any]) -> None:
    """No value is there twice."""
    twice = sorted({str(value) for value in values if list(values).count(value) > 1})
    if twice:
        raise ValueError(f"config.{name} has {', '.join(twice)} more than once.")


def seed(name: str, value: Any) -> None:
    """An integer from 0 to 2**32 - 1."""
    integer(0)(name, value)
    if value >= 2**32:
        raise ValueError(f"config.{name} has {shown(value)}, expected less than 2**32.")


def precision(name: str, value: Any) -> None:
    """One of `PRECISIONS`."""
    if value not in PRECISIONS:
        raise ValueError(
            f"config.{name} is {shown(value)}, expected one of {', '.join(PRECISIONS)}."
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What every kind of experiments has; `experiments.configs.base` has the values."""

    runner: Annotated[str, SWEEP]
    experiment: Annotated[str, text, SWEEP]
    figure: Annotated[str, SWEEP]
    network: str
    dataset: str
    seeds: Annotated[Sequence[int], list_of(seed), SWEEP]
    learning_rate: Annotated[float, positive]
    epochs: Annotated[int, integer(1)]
    batch_size: Annotated[int, integer(1)]
    eval_every: Annotated[int, integer(1)]
    matmul_precision: Annotated[str, precision]
    members_at_once: Annotated[int, integer(0)]
    chunk_evals: Annotated[int, integer(1), SWEEP]

    def of_a_member(self) -> dict[str, Any]:
        """The settings that the numbers of a single member depend on, for `results.row_id`."""
        return {
            name: getattr(self, name) for name, marks in _marks(type(self)) if SWEEP not in marks
        }


def read(kind: type[S], config: Mapping[str, Any]) -> S:
    """The settings of a configuration.

    Args:
      kind: `Settings` of a kind of experiments.
      config: all of its fields and no others.

    Raises:
      ValueError: if a setting is missing, unknown or wrong.
    """
    _check_names(config, [field.name for field in dataclasses.fields(kind)])
    for name, marks in _marks(kind):
        for check in marks:
            if check is not SWEEP:
                check(name, config[name])
    return kind(**config)


def _marks(kind: type[Settings]) -> list[tuple[str, tuple[Any, ...]]]:
    """The checks and roles of every field."""
    hints = get_type_hints(kind, include_extras=True)
    return [(name, getattr(hint, "__metadata__", ())) for name, hint in hints.items()]


def _check_names(config: Mapping[str, Any], names: Iterable[str]) -> None:
    names = list(names)
    if missing := [name for name in names if name not in config]:
        raise ValueError(f"config has no {', '.join(missing)}, expected {', '.join(names)}.")
    if unknown := [str(name) for name in config if name not in names]:
        raise ValueError(f"config has {', '.join(unknown)}, expected only {', '.join(names)}.")


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # of an int that no float reaches
        return False
