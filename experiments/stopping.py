"""Stopping on SIGTERM or Ctrl-C at a chunk boundary, where the training state can be saved."""

import signal
import sys
from types import FrameType

from experiments import processes

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: the same command resumes the run

_asked_to_stop = False


class Stopped(Exception):
    """A signal asked the program to stop, and its state is on disk."""


def stop_on_signals() -> None:
    """Make SIGTERM and Ctrl-C stop at the next chunk boundary; a second Ctrl-C stops at once."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ask_to_stop)


def is_asked() -> bool:
    """Return whether any process was asked to stop; all processes must call this."""
    return processes.any_of(_asked_to_stop)


def check_stop() -> None:
    """Raise `Stopped` if a signal asked any process to stop; all processes must call this.

    Raises:
      Stopped: if a signal asked for it.
    """
    if is_asked():
        raise Stopped


def _ask_to_stop(number: int, frame: FrameType | None) -> None:
    global _asked_to_stop
    _asked_to_stop = True
    signal.signal(signal.SIGINT, signal.default_int_handler)
    name = signal.Signals(number).name
    print(f"{name}: saving at the next chunk boundary, then stopping", file=sys.stderr)
