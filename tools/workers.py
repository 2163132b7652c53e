"""Contenders of a benchmark in processes of their own."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from tools import contenders

_contender: Any = None


def _make(devices: int, name: str, arguments: tuple) -> None:
    global _contender
    contenders.use_devices(devices)
    _contender = getattr(contenders, name)(*arguments)
    _contender.turn()  # compiles, and warms caches


def _turn() -> Any:
    return _contender.turn()


def _ask(name: str) -> Any:
    return getattr(_contender, name)


class Worker:
    """A contender in a process of its own, which sleeps between turns."""

    def __init__(self, devices: int, name: str, *arguments: Any) -> None:
        """Start a class of `contenders` by its name, with so many XLA devices."""
        spawn = multiprocessing.get_context("spawn")
        self._process = ProcessPoolExecutor(1, mp_context=spawn)
        try:
            self._process.submit(_make, devices, name, arguments).result()
        except BaseException:
            self.close()
            raise

    def turn(self) -> Any:
        """What the contender's turn returns."""
        return self._process.submit(_turn).result()

    def ask(self, name: str) -> Any:
        """An attribute of the contender."""
        return self._process.submit(_ask, name).result()

    def close(self) -> None:
        """End the process."""
        self._process.shutdown()
