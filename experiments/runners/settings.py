"""Checks of settings, each with one line that says what is wrong and what is allowed."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from supermask_jax.checks import shown

PRECISIONS = ("default", "bfloat16", "tensorfloat32", "float32")


def check_names(config: Mapping[str, Any], names: Iterable[str]) -> None:
    """All of the named settings and no other."""
    names = list(names)
    if missing := [name for name in names if name not in config]:
        raise ValueError(f"config has no {', '.join(missing)}, expected {', '.join(names)}.")
    if unknown := [str(name) for name in config if name not in names]:
        raise ValueError(f"config has {', '.join(unknown)}, expected only {', '.join(names)}.")


def check_text(name: str, value: Any) -> None:
    """A text that is not empty."""
    if not (isinstance(value, str) and value):
        raise ValueError(f"config.{name} is {shown(value)}, expected a text.")


def check_integer(name: str, value: Any, least: int) -> None:
    """An integer of `least` or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(
            f"config.{name} has {shown(value)}, expected an integer of {least} or more."
        )


def check_positive(name: str, value: Any) -> None:
    """A finite number above 0."""
    if not (_is_finite(value) and value > 0):
        raise ValueError(f"config.{name} is {shown(value)}, expected a finite number above 0.")


def check_finite(name: str, value: Any) -> None:
    """A finite number."""
    if not _is_finite(value):
        raise ValueError(f"config.{name} has {shown(value)}, expected a finite number.")


def check_share(name: str, value: Any) -> None:
    """A number from 0 to below 1."""
    if not (_is_finite(value) and 0 <= value < 1):
        raise ValueError(f"config.{name} is {shown(value)}, expected from 0 to below 1.")


def check_list(name: str, values: Sequence[Any]) -> None:
    """A list of at least one, without repetitions."""
    if not isinstance(values, Sequence) or isinstance(values, str | bytes) or not values:
        raise ValueError(f"config.{name} is {shown(values)}, expected a list of at least one.")
    twice = sorted({str(value) for value in values if list(values).count(value) > 1})
    if twice:
        raise ValueError(f"config.{name} has {', '.join(twice)} more than once.")


def check_seeds(seeds: Sequence[Any]) -> None:
    """A list of different integers from 0 to 2**32 - 1."""
    check_list("seeds", seeds)
    for seed in seeds:
        check_integer("seeds", seed, 0)
        if seed >= 2**32:
            raise ValueError(f"config.seeds has {shown(seed)}, expected less than 2**32.")


def check_precision(value: Any) -> None:
    """One of `PRECISIONS`."""
    if value not in PRECISIONS:
        raise ValueError(
            f"config.matmul_precision is {shown(value)}, expected one of {', '.join(PRECISIONS)}."
        )


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # of an int that no float reaches
        return False
