"""Cases of wrong input, by kind of mistake, and the check that each gets a clear one-line error."""

import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = tuple(str(ROOT / folder) for folder in ("supermask_jax", "experiments", "tools"))

KINDS = (
    "types",
    "names",
    "ranges",
    "shapes",
    "dtypes",
    "paths",
    "empty lists",
    "duplicates",
    "repeated seeds",
    "precision",  # trees of bfloat16, float16, float64
    "empty leaves",
    "scalars",
)


class Case(NamedTuple):
    """One mistake.

    Attributes:
      kind: one of `KINDS`.
      call: makes the mistake.
      error: the type of error that it must raise.
      pattern: a regular expression that the message must contain.
    """

    kind: str
    call: Callable[[], Any]
    error: type[Exception]
    pattern: str


def check_one_line(error: Exception) -> None:
    """Check that the message is one non-empty line."""
    assert len(str(error).strip().splitlines()) == 1, str(error)


def check_error(case: Case) -> None:
    """Check that the call raises the error in the project's own code, with a one-line message."""
    with pytest.raises(case.error) as caught:
        case.call()
    message = str(caught.value)
    assert re.search(case.pattern, message), message
    check_one_line(caught.value)
    assert traceback.extract_tb(caught.tb)[-1].filename.startswith(OURS)
