"""Functions of one's own, which settings name as ``MODULE:FUNCTION``.

Python finds the module as for an import: in the folder that one stands in, or among the installed
packages.
"""

import contextlib
import importlib
import re
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from supermask_jax.checks import check_function, lookup, shown

_WORD = r"[^\W\d]\w*"
PATTERN = rf"{_WORD}(?:\.{_WORD})*:{_WORD}"
FORM = "MODULE:FUNCTION"  # in the lists of what a setting may be


def is_named(value: Any) -> bool:
    """Return whether the value of a setting is meant to name a function."""
    return isinstance(value, str) and ":" in value


def module_of(name: str) -> str:
    """Return the module of a function.

    >>> module_of("my_lab.nets:small_resnet")
    'my_lab.nets'
    """
    return name.partition(":")[0]


def with_colon(name: str) -> str:
    """Return the name of a function with a colon before it, where it is written with a dot.

    >>> with_colon("optax.contrib.muon")
    'optax.contrib:muon'
    """
    return name if ":" in name else ":".join(filter(None, name.rpartition(".")[::2]))


def find(kind: str, name: str, arguments: tuple[str, ...] | None = None) -> Callable[..., Any]:
    """Import a function.

    Args:
      kind: what the function makes, for the message.
      name: ``MODULE:FUNCTION``.
      arguments: the names of its arguments, in order; None if they may be any.

    Raises:
      ValueError: if there is no such module or function, or if importing the module fails.
      TypeError: if it is not a function of these arguments.
    """
    if not re.fullmatch(PATTERN, name):
        raise ValueError(f"the {kind} {shown(name)} is not {FORM}, such as my_lab.things:{kind}.")
    module = _import(kind, name)
    _, _, wanted = name.partition(":")
    if not hasattr(module, wanted):
        own = {key: x for key, x in vars(module).items()
               if callable(x) and getattr(x, "__module__", None) == module.__name__}  # fmt: skip
        lookup(f"function of {module.__name__}", wanted, own)
    function = getattr(module, wanted)
    if arguments is None and not callable(function):
        raise TypeError(f"the {kind} {name} is {shown(function)}, expected a function.")
    if arguments is not None:
        check_function(kind, function, f"def {wanted}({', '.join(arguments)})", arguments)
    return function


def _import(kind: str, name: str) -> ModuleType:
    module = module_of(name)
    with explained(f"the {kind} {name}: importing {module}", module):
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not f"{module}.".startswith(f"{error.name}."):
                raise
            missing = error.name
    raise ValueError(
        f"the {kind} {name} is in no module: {missing} is neither in {Path.cwd()} nor installed; "
        f"stand in the folder that has {module.partition('.')[0]}."
    )


@contextlib.contextmanager
def explained(what: str, module: str) -> Iterator[None]:
    """Turn whatever a function of one's own raises into one line that names its place.

    Args:
      what: what is run, at the start of the line.
      module: the module of the function.

    Raises:
      ValueError: for any error, and if the code ends the program.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        said = next(iter(str(error).strip().splitlines()), "")
        parts = f"{what} raises {type(error).__name__}:", said, _place(error, module)
        raise ValueError(" ".join(filter(None, parts))) from error


def _place(error: BaseException, module: str) -> str:
    """Return the last place of an error in a package; empty if it was raised elsewhere."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"({error.filename}, line {error.lineno})"
    package = module.partition(".")[0]
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if frame.f_globals.get("__name__", "").partition(".")[0] == package:
            return f"({frame.f_code.co_filename}, line {line})"
    return ""
