"""The kinds of experiments by the name that configurations give them."""

import csv
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from experiments import iterative, learned, mask_analysis, one_shot, results
from supermask_jax.trees import lookup, shown

# Each has COLUMNS, LISTS, FIGURES (names in `plots.FIGURES`), make_plan, run, row_key and alone.
RUNNERS: dict[str, ModuleType] = {
    "iterative": iterative,
    "learned": learned,
    "one_shot": one_shot,
}


def find_runner(config: Any) -> ModuleType:
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
