"""Listeners: functions that hear of every part of a run's tables, to log it elsewhere.

They hear of the parts that are complete on disk when a run starts, then of each that it completes.
Nothing of a run depends on them.
"""

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments import processes
from experiments.storage import results


class Part(NamedTuple):
    """A part of a table that is complete on disk: a round, a seed or a training.

    Attributes:
      table: the CSV file of the table, ``results.csv`` or ``analysis.csv``.
      name: the name of the part, for example ``round_03``.
      rows: its rows.
      so_far: all rows of the table at this time, sorted.
      files: whole files that go with the part: its learning curves, if it has any.
      is_new: whether this process completed the part; it found the others when it started.
    """

    table: Path
    name: str
    rows: list[results.Row]
    so_far: list[results.Row]
    files: tuple[Path, ...]
    is_new: bool

    def curves(self) -> dict[str, np.ndarray]:
        """Read the learning curves: one entry per row of the part and evaluation, row by row.

        Returns:
          The columns by name; an empty dict if the part has no curves.
        """
        return results.read_curves(self.files[0]) if self.files else {}


Listener = Callable[[Part], None]


def tell(listeners: Iterable[Listener], part: Part) -> None:
    """Tell listeners of a part, on process 0 only; one that fails is reported, and no more."""
    for listener in listeners if processes.is_first() else ():
        try:
            listener(copy.deepcopy(part))  # what it changes is not in the table
        except Exception as error:
            said = " ".join(str(error).split()) or type(error).__name__
            processes.say(f"warning: {said}; {part.name} of {part.table} is not logged")
