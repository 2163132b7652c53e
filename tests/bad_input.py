"""What a table of wrong input promises: kinds of mistakes, and one clear line for each."""

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
      call: makes it.
      error: what it raises.
      pattern: regular expression that its message has somewhere.
    """

    kind: str
    call: Callable[[], Any]
    error: type[Exception]
    pattern: str


def check_one_line(error: Exception) -> None:
    """The message is one line, and not an empty one."""
    assert len(str(error).strip().splitlines()) == 1, str(error)


def check_error(case: Case) -> None:
    """The call raises the error, in the project's own code, with the message in one line."""
    with pytest.raises(case.error) as caught:
        case.call()
    message = str(caught.value)
    assert re.search(case.pattern, message), message
    check_one_line(caught.value)
    assert traceback.extract_tb(caught.tb)[-1].filename.startswith(OURS)
