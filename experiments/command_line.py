"""Flag parsing for all programs, and one-line errors for wrong input."""

import functools
import math
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from absl import app, flags, logging
from ml_collections import config_flags

T = TypeVar("T")
CONFIG_MODULE = "config_config"  # the module name that ml_collections gives the file of --config


def parse_flags(arguments: list[str]) -> list[str]:
    """Parse all flags and return the remaining arguments.

    A wrong flag, or an error in the file of ``--config``, ends the program with a one-line error.
    ``--help`` ends it with exit status 0, where absl alone would exit with 1.

    Args:
      arguments: the command line, program name first.
    """
    logging.set_verbosity(logging.ERROR)
    try:
        return flags.FLAGS(arguments)
    except SystemExit as end:
        *_, (frame, _) = traceback.walk_tb(end.__traceback__)
        asked_for_help = frame.f_globals.get("__name__") == app.__name__
        sys.exit(0 if asked_for_help else end.code)
    except (flags.Error, OSError) as error:
        fail(error)
    except Exception as error:  # a configuration file runs arbitrary code
        if getattr(error, "name", None) == "get_config":
            sys.exit("error: --config: the file has no function get_config.")
        place = _place(error)
        if place or not isinstance(error, AttributeError | KeyError):
            sys.exit(f"error: --config: {place}{type(error).__name__}: {last_line(error)}")
        sys.exit(f"error: --config has no such setting: {_missing(error)}")


def fail(error: Exception) -> NoReturn:
    """End the program with a one-line error and exit status 1."""
    sys.exit(f"error: {last_line(error)}")


def last_line(error: Exception) -> str:
    """Return the last line of an error's message: config_flags puts a traceback before it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip().removeprefix("ValueError: ")


@functools.cache
def config_file() -> flags.FlagHolder[Any]:
    """Define ``--config``, a file of `experiments.configs` or a user's own, and return it."""
    return config_flags.DEFINE_config_file(
        "config", None, "FILE.py:NETWORK or FILE.py:NETWORK,tiny, from experiments/configs."
    )


def path_of(config: flags.FlagHolder[Any]) -> Path | None:
    """Return the file that ``--config`` names, without what follows the colon; None if unset."""
    if config.value is None:
        return None
    name = config_flags.get_config_filename(flags.FLAGS[config.name])
    return Path(name.partition(":")[0])


@functools.cache  # several programs may be imported in one process
def allow_code_change() -> flags.FlagHolder[bool]:
    """Define ``--allow_code_change`` and return it; a program declares it as a key flag."""
    return flags.DEFINE_bool(
        "allow_code_change",
        False,
        "Let rows of other code stand in one table with those of this code; the table's settings "
        "and the column code_version tell them apart.",
    )


def given(flag: flags.FlagHolder[T]) -> T:
    """Return the value of a flag, a string or a list.

    Raises:
      ValueError: if the value is empty.
    """
    if not flag.value:
        raise ValueError(f"--{flag.name} is empty, expected: {flags.FLAGS[flag.name].help}")
    return flag.value


def refuse_nan(*holders: flags.FlagHolder[Any]) -> None:
    """Make flags reject NaN, which passes every bound check."""
    for holder in holders:
        flags.register_validator(
            holder, lambda value: value is None or not math.isnan(value), "expected a number."
        )


def _place(error: Exception) -> str:
    """Return the place of an error in a configuration file; empty if it was raised elsewhere."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: "
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if frame.f_globals.get("__name__") == CONFIG_MODULE:
            return f"{frame.f_code.co_filename}, line {line}: "
    return ""


def _missing(error: Exception) -> str:
    """Return the message of ml_collections about an unknown setting, as one line."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    return "; ".join(line.strip() for line in str(error.args[0]).splitlines())
