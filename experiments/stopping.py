"""Stopping on SIGTERM or Ctrl-C: at once, or at a chunk boundary, where the state can be saved.

Importing this module imports no package, so that signals are handled while packages are imported.
"""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: the same command resumes the run
NOTHING_DONE = b"stopped before anything was done; run the same command to start\n"

_asked_to_stop = False


class Stopped(Exception):
    """A signal asked the program to stop, and its state is on disk."""


def exit_on_signals() -> None:
    """Make SIGTERM and Ctrl-C end the program at once, until `stop_on_signals`."""
    _handle(_exit)


def stop_on_signals() -> None:
    """Make SIGTERM and Ctrl-C stop at the next chunk boundary; a second Ctrl-C stops at once."""
    _handle(_ask_to_stop)


def is_asked() -> bool:
    """Return whether any process was asked to stop; all processes must call this."""
    from experiments import processes

    return processes.any_of(_asked_to_stop)


def check_stop() -> None:
    """Raise `Stopped` if a signal asked any process to stop; all processes must call this.

    Raises:
      Stopped: if a signal asked for it.
    """
    if is_asked():
        raise Stopped


def _handle(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)


def _exit(number: int, frame: FrameType | None) -> None:
    os.write(2, NOTHING_DONE)  # not print, which the signal may have interrupted
    os._exit(EXIT_CODE)


def _ask_to_stop(number: int, frame: FrameType | None) -> None:
    global _asked_to_stop
    _asked_to_stop = True
    signal.signal(signal.SIGINT, signal.default_int_handler)
    name = signal.Signals(number).name
    print(f"{name}: saving at the next chunk boundary, then stopping", file=sys.stderr)
