"""An orderly stop: SIGTERM and Ctrl-C take effect where the state can be saved."""

import signal
import sys
from types import FrameType

from experiments import processes

EXIT_CODE = 75  # "temporary failure": the same command continues

_asked_to_stop = False


class Stopped(Exception):
    """A signal asked the program to stop, and what it had is on disk."""


def stop_on_signals() -> None:
    """Let SIGTERM and Ctrl-C stop the program at the next border; a second Ctrl-C at once."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ask_to_stop)


def is_asked() -> bool:
    """Whether any process was asked to stop; all of them must call this."""
    return processes.any_of(_asked_to_stop)


def check_stop() -> None:
    """Stop here if a signal asked for it.

    Raises:
      Stopped: if so.
    """
    if is_asked():
        raise Stopped


def _ask_to_stop(number: int, frame: FrameType | None) -> None:
    global _asked_to_stop
    _asked_to_stop = True
    signal.signal(signal.SIGINT, signal.default_int_handler)
    name = signal.Signals(number).name
    print(f"{name}: saving at the next border of the training, then stopping", file=sys.stderr)
