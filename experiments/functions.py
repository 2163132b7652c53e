"""Functions that settings name as ``module:function``, and their errors in one line."""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

from supermask_jax.checks import shown


def is_function(text: Any) -> bool:
    """Return whether a setting is written as ``module:function`` or ``module.function``."""
    return isinstance(text, str) and bool({".", ":"} & set(text))


def module_of(text: str) -> str:
    """Return the name of the module in ``module:function`` or ``module.function``."""
    return _parts(text)[0]


def find_function(setting: str, text: str) -> Callable[..., Any]:
    """Import the function that a setting names.

    Args:
      setting: the name of the setting, for the message.
      text: ``module:function`` or ``module.function``, of a module that is installed or lies in the
        folder where the program was started.

    Raises:
      ValueError: if the text is not of this form, the module is missing or fails, or has no such
        function.
    """
    module, name = _parts(text)
    if not all(word.isidentifier() for word in (*module.split("."), name)):
        raise ValueError(f"config.{setting} is {shown(text)}, expected module:function.")
    with errors_in_one_line(setting, f"importing {module}"):
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            raise ModuleNotFoundError(
                f"no module {module} is in the folder where the program was started, or installed"
            )
        found = getattr(importlib.import_module(module), name, None)
    if not callable(found):
        raise ValueError(
            f"config.{setting} is {shown(text)}, but the module {module} has no function {name}."
        )
    return found


@contextlib.contextmanager
def errors_in_one_line(setting: str, what: str) -> Iterator[None]:
    """Raise any error of a setting's code again, as one line.

    Args:
      setting: the name of the setting.
      what: what the code inside does; it is said to fail.

    Raises:
      ValueError: if the code inside raises an error, or ends the program.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        first, *_ = [*str(error).strip().splitlines(), ""]
        raise ValueError(
            f"config.{setting}: {what} fails: {type(error).__name__}: {first}"
        ) from error


def _parts(text: str) -> tuple[str, str]:
    module, _, name = text.replace(":", ".").rpartition(".")
    return module, name
