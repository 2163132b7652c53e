"""Flags for all programs, and one-line errors for wrong input."""

import ast
import functools
import math
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, FieldReference, config_flags

from supermask_jax.checks import shown

PACKAGE = Path(__file__).resolve().parent
CONFIG_MODULE = "config_config"  # the module name that ml_collections gives the file of --config
NUMBERS: Any = (float, tuple)  # the type of settings that are a number, or list several

flags.disclaim_key_flags()  # --help shows flags in the module that calls a function of this one


def run_program(main: Callable[[list[str]], None]) -> None:
    """Parse the flags and run a program; Ctrl-C ends it in one line, with exit status 1.

    Args:
      main: gets the program name and the arguments that are no flags.
    """
    try:
        app.run(main, flags_parser=parse_flags)
    except KeyboardInterrupt:
        sys.exit("stopped by Ctrl-C")


def parse_flags(arguments: list[str]) -> list[str]:
    """Parse all flags and return the remaining arguments.

    A wrong flag, or an error in the file of ``--config``, ends the program with a one-line error.
    ``--help`` ends it with exit status 0, where absl alone would exit with 1.

    Args:
      arguments: the command line, program name first.
    """
    logging.set_verbosity(logging.ERROR)
    try:
        _refuse_unreadable(arguments)
        left = flags.FLAGS(arguments)
        _check_given()
        return left
    except SystemExit as end:
        if place := _place(end):
            sys.exit(f"error: --config: {place}it ends the program.")
        *_, (frame, _) = traceback.walk_tb(end.__traceback__)
        asked_for_help = frame.f_globals.get("__name__") == app.__name__
        sys.exit(0 if asked_for_help else end.code)
    except flags.DuplicateFlagError:  # the settings of the first --config are flags already
        sys.exit("error: --config is given more than once.")
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


def last_line(error: BaseException) -> str:
    """Return the last line of an error's message; all of a wrong flag, whose value it quotes."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(lines) if isinstance(error, flags.Error) else lines[-1].strip()


def define_config(name: str, text: str) -> flags.FlagHolder[Any]:
    """Define the flag of a configuration file, whose settings become flags: ``--config.epochs=3``.

    Args:
      name: the name of the flag.
      text: its help.
    """
    try:
        config = config_flags.DEFINE_config_file(name, None, text)
    except flags.Error as error:  # it reads the file of --flagfile already
        sys.exit(f"error: {last_line(error).removeprefix('ERROR:: ')}")
    flags.FLAGS[name].parser = _ConfigParser(flags.FLAGS[name].parser)
    return config


def config_file(flag: flags.FlagHolder[Any]) -> Path | None:
    """Return the file of a configuration, without what follows the colon; None if none is given.

    Args:
      flag: from `define_config`.
    """
    if flag.value is None:
        return None
    name = config_flags.get_config_filename(flags.FLAGS[flag.name])
    return _path_of_config(name.partition(":")[0])


@functools.cache  # several programs may be imported in one process
def define_allow_code_change() -> flags.FlagHolder[bool]:
    """Define ``--allow_code_change``; a program also declares it as a key flag."""
    return flags.DEFINE_bool(
        "allow_code_change",
        False,
        "Let rows of other code stand in one table with those of this code; the table's settings "
        "and the column code_version tell them apart.",
    )


def define_folder(
    name: str, default: str | None, text: str, *, required: bool = False
) -> flags.FlagHolder[str]:
    """Define a flag whose value is the path of a folder, or of one that can be made.

    Args:
      name: the name of the flag.
      default: its value if it is not given.
      text: its help.
      required: refuse a command without it.
    """
    return _define_path(name, default, text, check_folder, required)


def define_file(
    name: str, default: str | None, text: str, *, required: bool = False
) -> flags.FlagHolder[str]:
    """Define a flag whose value is the path of a file to write, in a folder that can be made.

    Args:
      name: the name of the flag.
      default: its value if it is not given.
      text: its help.
      required: refuse a command without it.
    """
    return _define_path(name, default, text, lambda path: check_folder(path.parent), required)


def path_of(text: str) -> Path:
    """Return the path that a word of a command line names; ``~`` and ``~user`` are home folders.

    Raises:
      ValueError: if it is empty, a flag, or more than a line, or if there is no such user.
    """
    if not text:
        raise ValueError("the path is empty.")
    if text.startswith("-") or len(text.splitlines()) > 1:
        raise ValueError(f"{shown(text)} is not a path.")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"{text} is in no user's home; ./{text} is a path from here.") from None


def check_folder(path: Path) -> None:
    """Check that a path is a folder, or that it can be made.

    Raises:
      ValueError: if it, or what would contain it, is a file or a broken symbolic link.
    """
    there = next((place for place in (path, *path.parents) if os.path.lexists(place)), None)
    if there and not there.is_dir():
        kind = "a broken symbolic link" if there.is_symlink() else "a file"
        raise ValueError(f"{there} is {kind}, expected a folder.")


def refuse_nan(*holders: flags.FlagHolder[Any]) -> None:
    """Make flags reject NaN, which passes every bound check."""
    for holder in holders:
        flags.register_validator(
            holder, lambda value: value is None or not math.isnan(value), "expected a number."
        )


def _define_path(
    name: str, default: str | None, text: str, check: Callable[[Path], None], required: bool
) -> flags.FlagHolder[str]:
    holder = flags.DEFINE(_PathParser(), name, default, text, required=required)

    def is_valid(value: str | None) -> bool:
        try:
            check(Path(value or "."))
        except ValueError as error:
            raise flags.ValidationError(str(error)) from None
        return True

    flags.register_validator(holder, is_valid)
    return holder  # pyright: ignore


class _PathParser(flags.ArgumentParser[str]):
    def parse(self, argument: str) -> str:
        return str(path_of(argument)) if argument else ""

    def flag_type(self) -> str:
        return "path"


def _path_of_config(text: str) -> Path:
    """Return the path of a configuration; outside a checkout, its own stand in the package."""
    path = path_of(text)
    ours = PACKAGE.parent / path
    is_ours = ours.is_relative_to(PACKAGE / "configs") and ours.is_file()
    return ours if is_ours and not path.exists() else path


class _ConfigParser(flags.ArgumentParser):
    """Checks the path in ``FILE.py:ARGUMENT``, and tells errors in the file in one line."""

    def __init__(self, parser: flags.ArgumentParser) -> None:
        self._parser = parser

    def parse(self, argument: str) -> Any:
        name, *rest = argument.split(":", 1)
        file = _path_of_config(name)
        if not file.is_file():
            kind = "a folder" if file.is_dir() else "not there"
            raise ValueError(f"{file} is {kind}, expected a file of Python.")
        try:
            config = self._parser.parse(":".join([str(file), *rest]))
            getattr(config, "runner", None)  # raises the OSError of a file that was not loaded
        except (TypeError, ValueError, OSError) as error:
            first = error.__cause__ or error.__context__ or error
            if isinstance(first, ValueError):
                raise flags.Error(str(first)) from None  # get_config is told what is wrong
            kind = type(first).__name__
            raise flags.Error(f"--config: {_place(first)}{kind}: {first}") from None
        if isinstance(config, ConfigDict):
            _let_numbers_be_lists(config)
        return config

    def flag_type(self) -> str:
        return self._parser.flag_type()


class _ListParser(flags.ArgumentParser[Sequence]):
    """Parses a setting that is a list: ``a,b`` as well as ``('a','b')``."""

    syntactic_help = "a,b or ('a','b')"

    def parse(self, argument: Any) -> tuple:
        if isinstance(argument, tuple):
            return argument
        value = _literal(argument) if argument else ()
        if not isinstance(value, str):
            return tuple(value) if isinstance(value, tuple | list) else (value,)
        if value == argument and set(value) & set("()[]{}'\""):
            raise ValueError("expected a list such as a,b or ('a','b').")
        words = value.strip().removesuffix(",").split(",") if value == argument else [value]
        return tuple(_literal(word.strip()) for word in words)

    def flag_type(self) -> str:
        return "list"


class _NumbersParser(flags.ArgumentParser):
    """Parses a setting that is a number, ``1e-3``, or lists several, ``(1e-3,3e-3)``."""

    syntactic_help = "1e-3 or (1e-3,3e-3)"

    def parse(self, argument: Any) -> float | tuple[float, ...]:
        if not isinstance(argument, str):
            return argument
        text = argument.strip()
        is_list = text[:1] + text[-1:] in ("()", "[]")
        words = (text[1:-1] if is_list else text).split(",")
        if len(words) == 1 and not is_list:
            return float(text)
        if not words[-1].strip():  # after a last comma, or in an empty list
            words.pop()
        return tuple(map(float, words))

    def flag_type(self) -> str:
        return "number or list"


config_flags.register_flag_parser_for_type(tuple, _ListParser())  # pyright: ignore
config_flags.register_flag_parser_for_type(NUMBERS, _NumbersParser())  # pyright: ignore


def _let_numbers_be_lists(config: ConfigDict) -> None:
    """Let every number of a configuration be replaced by a list; runners refuse wrong ones."""
    with config.unlocked():
        for name, value in list(config.items(preserve_field_references=True)):
            if isinstance(value, float):
                del config[name]
                config[name] = FieldReference(value, field_type=NUMBERS)


def _literal(text: str) -> Any:
    """Return the value of a Python literal, or the text itself if it is none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


def _refuse_unreadable(words: Sequence[str]) -> None:
    """Refuse what is not UTF-8 text: neither tables nor JSON can hold it, and `print` fails."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise flags.Error(f"{shown(word)} is not UTF-8 text.") from None


def _check_given() -> None:
    """Refuse flags that are given more than once, or with an empty text or list."""
    for name in flags.FLAGS:
        flag = flags.FLAGS[name]
        if flag.present > 1:
            raise flags.Error(f"--{name} is given more than once.")
        if flag.present and flag.value in ("", []):
            raise flags.Error(f"--{name} is empty, expected: {flag.help}")


def _place(error: BaseException) -> str:
    """Return the place of an error in a configuration file; empty if it was raised elsewhere."""
    if isinstance(error, SyntaxError) and error.filename:
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
