"""The registry of runners, by the name that configurations use."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ml_collections import ConfigDict

from experiments.engine.work import Work
from experiments.problems.problem import Problem
from experiments.runners import (
    connectivity,
    iterative,
    learned,
    mask_analysis,
    one_shot,
    pruning_at_init,
)
from experiments.runners.settings import Settings
from experiments.storage import results
from experiments.storage.autosave import SAVE_EVERY
from experiments.storage.identity import RunFolder
from experiments.storage.tickets import Ticket
from supermask_jax.checks import lookup, shown


class Plan(Protocol):
    """A checked configuration; every runner has its own class."""

    @property
    def config(self) -> Settings:
        """The settings."""
        ...

    @property
    def problem(self) -> Problem:
        """The network and the data set."""
        ...


class Runner(Protocol):
    """The interface of a runner, the module of one kind of experiments."""

    @property
    def COLUMNS(self) -> results.Columns:
        """The columns of its table."""
        ...

    @property
    def Settings(self) -> type[Settings]:
        """The settings of its configurations."""
        ...

    @property
    def LISTS(self) -> tuple[str, ...]:
        """The settings that list members; runs that differ only in these can be joined."""
        ...

    @property
    def NUMBERS(self) -> tuple[str, ...]:
        """The settings that may list several numbers; runs that differ in them can be joined."""
        ...

    def make_plan(
        self,
        config: ConfigDict,
        data_dir: str | None = None,
        part: str | None = None,
        devices: Sequence[Any] | None = None,
    ) -> Plan:
        """Check a configuration and load its data.

        Args:
          config: from a file in `experiments.configs`.
          data_dir: the folder of prepared data sets.
          part: the slice ``i/n`` of the sweep to run; None for the whole sweep.
          devices: where it will run, of all processes; None for all that JAX finds.

        Raises:
          ValueError: if a setting is wrong; the message says what is allowed.
          FileNotFoundError: if the data set is missing; the message says how to get it.
        """
        ...

    def run(
        self,
        plan: Any,
        folder: RunFolder,
        command: str,
        max_memory: float | None = None,
        save_every: float = SAVE_EVERY,
    ) -> list[results.Row]:
        """Run the parts of a plan that are not complete on disk, and return all rows.

        Args:
          plan: from `make_plan`.
          folder: the folder for all files of the run.
          command: the command that was typed, for the table.
          max_memory: the memory limit of this process in bytes; None for what is free now.
          save_every: seconds between autosaves of the training in progress.

        Raises:
          Stopped: if a signal asked for a stop; see `stopping`.
          MemoryError: if even the smallest group of members does not fit.
          OSError: if a file cannot be written.
        """
        ...

    def work(self, plan: Any) -> Work:
        """Return what a run of a plan computes on its devices.

        Args:
          plan: from `make_plan`, also for devices that only compile.
        """
        ...

    def ticket(self, plan: Any, folder: RunFolder, row: results.Row) -> Ticket:
        """Return the mask and the weights of a row, from what the run left.

        Args:
          plan: of the run.
          folder: the folder of the run.
          row: one of its rows.

        Raises:
          FileNotFoundError: if the run keeps no checkpoint that it takes.
          ValueError: if the checkpoint is damaged, or if the member diverged.
        """
        ...

    def row_key(self, config: Mapping[str, Any]) -> Callable[[results.Row], tuple]:
        """Return a sort key for rows.

        Args:
          config: the settings of the run, which give the order.
        """
        ...

    def alone(self, config: ConfigDict, row: results.Row) -> ConfigDict:
        """Return the configuration that computes one row and as little else as possible.

        Args:
          config: the configuration of the run that made the row.
          row: the row.
        """
        ...


RUNNERS: dict[str, Runner] = {
    "connectivity": connectivity,
    "iterative": iterative,
    "learned": learned,
    "one_shot": one_shot,
    "pruning_at_init": pruning_at_init,
}


def find_runner(config: Any) -> Runner:
    """Return the runner that a configuration names.

    Args:
      config: the value of ``--config``.

    Raises:
      OSError: if the file of ``--config`` could not be read.
      TypeError: if the value is not a ConfigDict.
      ValueError: if the runner is unknown.
    """
    name = getattr(config, "runner", None)  # raises the OSError of a file that could not be read
    if not isinstance(config, ConfigDict):
        raise TypeError(f"--config: get_config returns {shown(config)}, expected a ConfigDict.")
    if name is None:
        raise ValueError(
            "--config: the configuration names no runner; make it by a function of "
            "experiments/configs/base.py, such as base.iterative."
        )
    return lookup("runner", name, RUNNERS)


def read_table(path: Path) -> list[results.Row]:
    """Read a table of any runner, or of `mask_analysis`, identified by its columns.

    Raises:
      FileNotFoundError: if the file is missing.
      ValueError: if no runner writes a table with these columns, or if the table is damaged.
    """
    names = results.read_header(path)
    kinds = [source.COLUMNS for source in (*RUNNERS.values(), mask_analysis)]
    closest = max(kinds, key=lambda columns: len(columns.keys() & names))
    return results.read_rows(path, closest)
