"""Checks of settings, each with one line that says what is wrong and what is allowed."""

import math
from collections.abc import Sequence
from typing import Any

PRECISIONS = ("default", "bfloat16", "tensorfloat32", "float32")


def check_integer(name: str, value: Any, least: int) -> None:
    """An integer of `least` or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"config.{name} has {value!r}, expected an integer of {least} or more.")


def check_positive(name: str, value: Any) -> None:
    """A finite number above 0."""
    if not (_is_number(value) and value > 0 and math.isfinite(value)):
        raise ValueError(f"config.{name} is {value}, expected more than 0.")


def check_finite(name: str, value: Any) -> None:
    """A finite number."""
    if not (_is_number(value) and math.isfinite(value)):
        raise ValueError(f"config.{name} has {value!r}, expected a finite number.")


def check_list(name: str, values: Sequence[Any]) -> None:
    """A list of at least one, without repetitions."""
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise ValueError(f"config.{name} is {values!r}, expected a list of at least one.")
    twice = sorted({str(value) for value in values if list(values).count(value) > 1})
    if twice:
        raise ValueError(f"config.{name} has {', '.join(twice)} more than once.")


def check_seeds(seeds: Sequence[Any]) -> None:
    """A list of different integers from 0 to 2**32 - 1."""
    check_list("seeds", seeds)
    for seed in seeds:
        check_integer("seeds", seed, 0)
        if seed >= 2**32:
            raise ValueError(f"config.seeds has {seed}, expected less than 2**32.")


def check_precision(value: Any) -> None:
    """One of `PRECISIONS`."""
    if value not in PRECISIONS:
        raise ValueError(
            f"config.matmul_precision is {value!r}, expected one of {', '.join(PRECISIONS)}."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
