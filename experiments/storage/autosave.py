"""Autosaves of the training in progress, so that a killed run resumes from the last one."""

import shutil
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from experiments import processes, stopping
from experiments.storage import locks
from experiments.storage.checkpoints import DAMAGED, Checkpoints
from experiments.storage.identity import RunFolder

PyTree = Any

SAVE_EVERY = 600.0  # seconds


class Autosave:
    """Saves the state of one training at chunk boundaries, at regular intervals.

    Only the newest state of each group of members is kept.

    Args:
      folder: the folder of the run, which has one training at a time. Other versions of the code do
        not find the state and start over.
      name: the name of the training.
      save_every: seconds between two saves; a save waits for the next chunk boundary.
    """

    def __init__(self, folder: RunFolder, name: str, save_every: float = SAVE_EVERY) -> None:
        self._under_way = folder.below("under_way")
        self._folder = self._under_way.below(folder.code_version).below(name)
        self._save_every = save_every
        self._last = time.monotonic()

    def expect(self, names: Iterable[str]) -> None:
        """Report saved groups that are useless because the population is now split differently.

        Args:
          names: the groups of the present split.
        """
        for folder in sorted(self._folder.path.glob("*")):
            if folder.name.removesuffix(DAMAGED) not in names:
                processes.say(f"{folder} is ignored: the population is now split differently")

    def load(self, name: str, like: PyTree) -> tuple[int, PyTree] | None:
        """Return the number of evaluations done and the newest state; None if nothing was saved.

        Args:
          name: the group of members.
          like: the shapes and types of the state.
        """
        checkpoints = Checkpoints(self._folder.below(name), keep=1)
        return checkpoints.load_newest(sys.maxsize, lambda done: like)

    def save_if_due(
        self, name: str, done: int, make_tree: Callable[[], PyTree], *, due: bool
    ) -> None:
        """Save the state if the interval is over, if it is due, or before a requested stop.

        Args:
          name: the group of members.
          done: the number of evaluations done.
          make_tree: returns the state, as numpy arrays.
          due: save regardless of the interval.

        Raises:
          Stopped: if a signal asked for a stop; the state is on disk.
          OSError: if the state cannot be saved.
        """
        stop = stopping.is_asked()
        late = time.monotonic() - self._last >= self._save_every
        if processes.any_of(late) or due or stop:
            Checkpoints(self._folder.below(name), keep=1).save(done, make_tree())
            self._last = time.monotonic()
        if stop:
            raise stopping.Stopped

    def clear(self) -> None:
        """Delete all saved states of the run, once the results of its training are on disk."""
        if processes.is_first():
            locks.check(self._under_way.path)
            shutil.rmtree(self._under_way.path, ignore_errors=True)
