"""Compute one row of a committed table again and compare.

    python -m tools.rerun ID [--results=results] [--data_dir=DIR]

This trains the member of the row alone, from its initialisation, with the settings beside the
table. On the machine and with the versions that made the row, every number must be equal to the
last digit. Elsewhere floating-point results may differ, and the differences are shown.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from experiments.command_line import fail, parse_flags
from experiments.runners.registry import RUNNERS, Runner, read_table
from experiments.storage import results, run_folder
from experiments.storage.files import read_json
from supermask_jax.checks import lookup
from tools.table_files import of_tables

RESULTS = flags.DEFINE_string("results", "results", "Folder of tables written by tools.collect.")
DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of prepared data sets, as for a run.")


def main(arguments: list[str]) -> None:
    """Rerun the row named on the command line; exit status 1 if a number differs."""
    logging.set_verbosity(logging.WARNING)
    try:
        if len(arguments) != 2:
            raise ValueError("name the id of one row.")
        row, runner, config = find(arguments[1], Path(RESULTS.value))
        plan = runner.make_plan(config, DATA_DIR.value)
    except (ValueError, TypeError, OSError) as error:
        fail(error)
    with tempfile.TemporaryDirectory() as folder:
        again = recompute(row, runner, plan, Path(folder))
    Console().print(comparison(row, again))
    differing = [name for name in measured(row) if not _equal(row[name], again[name])]
    if differing:
        versions = f"row by {row['code_version']}, now {again['code_version']}"
        sys.exit(f"{', '.join(differing)} differ ({versions})")
    print("every number is equal")


def find(row_id: str, folder: Path) -> tuple[results.Row, Runner, ConfigDict]:
    """Return the row with an id, and the runner and the configuration that compute it alone.

    Raises:
      ValueError: if no table has such a row.
    """
    for table in of_tables(folder):
        for row in read_table(table.rows):
            if row["id"] == row_id:
                settings = run_folder.settings(read_json(table.config))
                runner = lookup("runner", settings.get("runner"), RUNNERS)
                return row, runner, runner.alone(ConfigDict(settings), row)
    raise ValueError(f"no table in {folder} has a row {row_id!r}.")


def recompute(row: results.Row, runner: Runner, plan: Any, workdir: Path) -> results.Row:
    """Train the row's member from the start and return its new row."""
    names = results.columns_between(row, "dataset", "density")
    rows = runner.run(plan, workdir, row["command"])
    return next(new for new in rows if all(new[name] == row[name] for name in names))


def measured(row: results.Row) -> list[str]:
    """Return the columns whose numbers a run computes."""
    return ["density", *results.columns_between(row, "density", "code_version")]


def comparison(row: results.Row, again: results.Row) -> Table:
    """Return a table with the numbers of both rows side by side."""
    names = results.columns_between(row, "dataset", "density")
    member = ", ".join(f"{name} {row[name]}" for name in names if row[name] != "")
    table = Table("column", "table", "now", "equal", title=f"row {row['id']}: {member}")
    for name in measured(row):
        table.add_row(name, str(row[name]), str(again[name]), str(_equal(row[name], again[name])))
    return table


def _equal(one: float, other: float) -> bool:
    """Compare to the last digit; NaN, from a diverged member, equals NaN."""
    return repr(one) == repr(other)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
