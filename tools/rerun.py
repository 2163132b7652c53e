"""Compute one row of a table again and compare.

    python -m tools.rerun ID [--results=results] [--data_dir=DIR] [--config=FILE.py]

This trains the member of the row alone, from its initialisation, with the settings beside the
table. With the code and on the processor that made the row, every number must be equal to the last
digit. Elsewhere floating-point results may differ, and the differences are shown.

The table may be one that tools.collect wrote, or that of a run: --results=WORKDIR. A row whose
configuration brought code of its own, for example a criterion, needs that file: --config. A row
whose settings name functions of a local module needs that module in the folder where one stands.
"""

import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from absl import logging
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from experiments.additions import brings_own, identify_with
from experiments.command_line import (
    config_file,
    define_config,
    define_folder,
    fail,
    run_program,
)
from experiments.runners.registry import RUNNERS, Plan, Runner, read_table
from experiments.storage import results, run_folder
from experiments.storage.code import Code, of_package
from experiments.storage.environment import processor, read_environments
from experiments.storage.files import read_json
from supermask_jax.checks import lookup
from tools.table_files import of_all

RESULTS = define_folder(
    "results", "results", "Folder of tables written by tools.collect, or of a run or several runs."
)
DATA_DIR = define_folder("data_dir", None, "Folder of prepared data sets, as for a run.")
CONFIG = define_config("config", "FILE.py with the code that the row's configuration brought.")


class Found(NamedTuple):
    """A row, and what it takes to compute it alone.

    Attributes:
      row: the row.
      runner: its runner.
      config: the configuration that trains only its member.
      data: the checksum of its data set; None if its table does not tell.
      processors: the processors on which its code ran for that table.
    """

    row: results.Row
    runner: Runner
    config: ConfigDict
    data: str | None
    processors: list[str]


def main(arguments: list[str]) -> None:
    """Rerun the row named on the command line; exit status 1 if a number differs."""
    logging.set_verbosity(logging.WARNING)
    own = config_file(CONFIG)
    try:
        if len(arguments) != 2:
            raise ValueError("name the id of one row.")
        found = find(arguments[1], Path(RESULTS.value))
        _check_config(found, own)
        plan = found.runner.make_plan(found.config, DATA_DIR.value)
        code = identify_with(own, plan.config.recorded(), plan.problem.dataset)
        _check_data(found, plan)
    except (ValueError, TypeError, OSError) as error:
        fail(error)
    with tempfile.TemporaryDirectory() as folder:
        again = recompute(found, plan, folder, code)
    Console().print(comparison(found.row, again))
    differing = [name for name in measured(found.row) if not _equal(found.row[name], again[name])]
    if differing:
        sys.exit(f"{', '.join(differing)} differ ({reason(found, code.version)})")
    print("every number is equal")


def find(row_id: str, folder: Path) -> Found:
    """Return the row with an id, and what it takes to compute it alone.

    Args:
      row_id: the id.
      folder: has tables, runs or one run.

    Raises:
      ValueError: if no table has such a row.
    """
    for table in of_all(folder):
        for row in read_table(table.rows) if table.rows.exists() else []:
            if row["id"] == row_id:
                config = read_json(table.config)
                settings = run_folder.settings(config)
                runner = lookup("runner", settings.get("runner"), RUNNERS)
                machines = [
                    machine["processor"]
                    for machine in read_environments(table.environment)
                    if machine.get("code_version") == row["code_version"]
                ]
                alone = runner.alone(ConfigDict(settings), row)
                return Found(row, runner, alone, config.get("data"), machines)
    raise ValueError(f"no table in {folder} has a row {row_id!r}.")


def _check_config(found: Found, own: Path | None) -> None:
    row, config = found.row, found.config
    is_told = own or brings_own(config.to_dict())  # by --config, or by the settings
    if of_package(row["code_version"]) != row["code_version"] and not is_told:
        raise ValueError(
            f"row {row['id']} needs the code that its configuration brought: add --config=FILE.py "
            f"(it was made by: {row['command']})."
        )


def _check_data(found: Found, plan: Plan) -> None:
    here = plan.problem.dataset.checksum()
    if found.data not in (None, here):
        raise ValueError(
            f"row {found.row['id']} was made with other data: {plan.problem.dataset.name} has the "
            f"checksum {here} here and {found.data} in its table; see --data_dir."
        )


def recompute(found: Found, plan: Plan, folder: str, code: Code) -> results.Row:
    """Train the row's member from the start and return its new row.

    Args:
      found: the row.
      plan: that of the row alone.
      folder: an empty folder for the run.
      code: the code of this process.
    """
    row = found.row
    names = results.columns_between(row, "dataset", "density")
    workdir = run_folder.open_workdir(folder, plan.config.recorded(), code=code)
    rows = found.runner.run(plan, workdir, row["command"])
    # A table that is older than its columns has None there.
    told = [name for name in names if row[name] is not None]
    return next(new for new in rows if all(new[name] == row[name] for name in told))


def reason(found: Found, version: str) -> str:
    """Return a text on why the numbers of a row may differ: its code or its processor."""
    made_by, here = found.row["code_version"], processor()
    if made_by != version:
        return f"row by {made_by}, now {version}"
    if found.processors and here not in found.processors:
        others = " and ".join(dict.fromkeys(found.processors))
        return f"the code is equal, {version}, but the row was made on {others}, now {here}"
    return f"the code is equal, {version}; the processor too, as far as is known: {here}"


def measured(row: results.Row) -> list[str]:
    """Return the columns whose numbers a run computes."""
    return ["density", *results.columns_between(row, "density", "code_version")]


def comparison(row: results.Row, again: results.Row) -> Table:
    """Return a table with the numbers of both rows side by side."""
    names = results.columns_between(row, "dataset", "density")
    member = ", ".join(f"{name} {row[name]}" for name in names if row[name] not in ("", None))
    table = Table("column", "table", "now", "equal", title=f"row {row['id']}: {member}")
    for name in measured(row):
        table.add_row(name, str(row[name]), str(again[name]), str(_equal(row[name], again[name])))
    return table


def _equal(one: float, other: float) -> bool:
    """Compare to the last digit; NaN, from a diverged member, equals NaN."""
    return repr(one) == repr(other)


if __name__ == "__main__":
    run_program(main)
