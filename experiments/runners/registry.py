"""The kinds of experiments by the name that configurations give them."""

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ml_collections import ConfigDict

from experiments.problems.problem import Problem
from experiments.runners import iterative, learned, mask_analysis, one_shot
from experiments.storage import results
from experiments.storage.autosave import SAVE_EVERY
from supermask_jax.checks import lookup, shown


class Plan(Protocol):
    """A checked configuration; each runner has its own."""

    @property
    def problem(self) -> Problem:
        """What is learned."""
        ...


class Runner(Protocol):
    """What the module of a kind of experiments has."""

    @property
    def COLUMNS(self) -> results.Columns:
        """Of its table."""
        ...

    @property
    def LISTS(self) -> tuple[str, ...]:
        """Settings that list members; runs of different lists may be joined into one table."""
        ...

    def make_plan(
        self, config: ConfigDict, data_dir: str | None = None, part: str | None = None
    ) -> Plan:
        """Check a configuration and load its data."""
        ...

    def run(
        self,
        plan: Any,
        workdir: Path,
        command: str,
        max_memory: float | None = None,
        save_every: float = SAVE_EVERY,
    ) -> list[results.Row]:
        """Do what of a plan is not on disk yet; the rows of all."""
        ...

    def row_key(self, config: Mapping[str, Any]) -> Callable[[results.Row], tuple]:
        """The order of a table's rows."""
        ...

    def alone(self, config: ConfigDict, row: results.Row) -> ConfigDict:
        """The configuration that computes one row and as little else as possible."""
        ...


RUNNERS: dict[str, Runner] = {
    "iterative": iterative,
    "learned": learned,
    "one_shot": one_shot,
}


def find_runner(config: Any) -> Runner:
    """The runner that a configuration asks for.

    Raises:
      OSError: if its file could not be read.
      TypeError: if it is no configuration.
      ValueError: if there is no such runner.
    """
    name = getattr(config, "runner", None)  # an OSError if the file could not be read
    if not isinstance(config, ConfigDict):
        raise TypeError(f"--config: get_config returns {shown(config)}, expected a ConfigDict.")
    return lookup("runner", name, RUNNERS)


def read_table(path: Path) -> list[results.Row]:
    """The rows of a runner's table, or of one of `mask_analysis`; its columns tell which.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if no runner writes such a table.
    """
    with path.open(newline="") as file:
        header = next(csv.reader(file), [])
    for source in (*RUNNERS.values(), mask_analysis):
        if header == list(source.COLUMNS):
            return results.read_rows(path, source.COLUMNS)
    raise ValueError(f"{path} is not a table of this version: its columns are {header}.")
