"""What all programs share: how flags are read, and how a user's mistake ends in one line."""

import math
import sys
import traceback
from typing import Any, NoReturn, TypeVar

from absl import flags, logging

T = TypeVar("T")
CONFIG_MODULE = "config_config"  # as ml_collections names the file of a flag --config


def parse_flags(arguments: list[str]) -> list[str]:
    """What is left of the arguments when all flags are read; a wrong one ends the program."""
    logging.set_verbosity(logging.ERROR)
    try:
        return flags.FLAGS(arguments)
    except (flags.Error, OSError) as error:
        fail(error)
    except Exception as error:  # whatever a configuration's file does
        if getattr(error, "name", None) == "get_config":
            sys.exit("error: --config: the file has no function get_config.")
        place = _place(error)
        if place or not isinstance(error, AttributeError | KeyError):
            sys.exit(f"error: --config: {place}{type(error).__name__}: {last_line(error)}")
        sys.exit(f"error: --config has no such setting: {_missing(error)}")


def fail(error: Exception) -> NoReturn:
    """End with an error in one line."""
    sys.exit(f"error: {last_line(error)}")


def last_line(error: Exception) -> str:
    """What happened: config_flags puts tracebacks in front of it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip().removeprefix("ValueError: ")


def given(flag: flags.FlagHolder[T]) -> T:
    """What a flag holds, a text or a list.

    Raises:
      ValueError: if that is empty.
    """
    if not flag.value:
        raise ValueError(f"--{flag.name} is empty, expected: {flags.FLAGS[flag.name].help}")
    return flag.value


def refuse_nan(*holders: flags.FlagHolder[Any]) -> None:
    """Let NaN, which no bound refuses, be no value of some flags."""
    for holder in holders:
        flags.register_validator(
            holder, lambda value: value is None or not math.isnan(value), "expected a number."
        )


def _place(error: Exception) -> str:
    """Where in a configuration's file an error came up; empty if it was elsewhere."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: "
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if frame.f_globals.get("__name__") == CONFIG_MODULE:
            return f"{frame.f_code.co_filename}, line {line}: "
    return ""


def _missing(error: Exception) -> str:
    """What ml_collections says of a setting that is not there."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    return "; ".join(line.strip() for line in str(error.args[0]).splitlines())
