"""Trainings under way on disk: a kill costs no more than one interval."""

import shutil
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from experiments import processes, stopping
from experiments.storage.checkpoints import DAMAGED, Checkpoints

PyTree = Any

SAVE_EVERY = 600.0  # seconds


class Autosave:
    """The newest state of one training, saved at its borders every now and then.

    Args:
      workdir: of the run, which has one training at a time.
      code_version: that trains; any other starts the training anew.
      name: of the training.
      save_every: seconds between two states on disk.
    """

    def __init__(
        self, workdir: Path, code_version: str, name: str, save_every: float = SAVE_EVERY
    ) -> None:
        self._under_way = workdir / "under_way"
        self._folder = self._under_way / code_version / name
        self._save_every = save_every
        self._last = time.monotonic()

    def expect(self, names: Iterable[str]) -> None:
        """Say which groups on disk are of no use, for the population was split otherwise.

        Args:
          names: of the groups that will be asked for.
        """
        for folder in sorted(self._folder.glob("*")):
            if folder.name.removesuffix(DAMAGED) not in names:
                processes.say(f"{folder} is left out: the population is split otherwise now")

    def load(self, name: str, like: PyTree) -> tuple[int, PyTree] | None:
        """The newest state and how many evaluations are done; None if nothing was saved.

        Args:
          name: of a group of members.
          like: shapes and types.
        """
        checkpoints = Checkpoints(self._folder / name, keep=1)
        return checkpoints.load_newest(sys.maxsize, lambda done: like)

    def save_if_due(
        self, name: str, done: int, make_tree: Callable[[], PyTree], *, due: bool
    ) -> None:
        """Save if the interval is over, the state is due or a stop was asked for.

        Args:
          name: of a group of members.
          done: evaluations that are done.
          make_tree: gives the state, as numpy arrays.
          due: save in any case.

        Raises:
          Stopped: if a stop was asked for.
        """
        stop = stopping.is_asked()
        late = time.monotonic() - self._last >= self._save_every
        if processes.any_of(late) or due or stop:
            Checkpoints(self._folder / name, keep=1).save(done, make_tree())
            self._last = time.monotonic()
        if stop:
            raise stopping.Stopped

    def clear(self) -> None:
        """Forget all trainings under way: their results are saved elsewhere."""
        if processes.is_first():
            shutil.rmtree(self._under_way, ignore_errors=True)
