"""Timed objects, each in its own process with its own devices."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import jax

_timed: Any = None


def _make(devices: int, kind: Callable[..., Any], arguments: tuple) -> None:
    global _timed
    jax.config.update("jax_num_cpu_devices", devices)  # before the first use of a device
    _timed = kind(*arguments)
    _timed.turn()  # compiles, and warms caches


def _turn() -> Any:
    return _timed.turn()


def _ask(name: str) -> Any:
    return getattr(_timed, name)


class Worker:
    """An object with a method `turn`, in a process that sleeps between turns."""

    def __init__(self, devices: int, kind: Callable[..., Any], *arguments: Any) -> None:
        """Make the object `kind(*arguments)` in a process with `devices` XLA devices."""
        spawn = multiprocessing.get_context("spawn")
        self._process = ProcessPoolExecutor(1, mp_context=spawn)
        try:
            self._process.submit(_make, devices, kind, arguments).result()
        except BaseException:
            self.close()
            raise

    def turn(self) -> Any:
        """Run a turn of the object and return its result."""
        return self._process.submit(_turn).result()

    def ask(self, name: str) -> Any:
        """Return an attribute of the object."""
        return self._process.submit(_ask, name).result()

    def close(self) -> None:
        """End the process."""
        self._process.shutdown()
