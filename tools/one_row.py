"""Finds one row of a table, and computes it alone."""

from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from experiments.additions import brings_own
from experiments.command_line import define_config, define_folder
from experiments.runners.registry import RUNNERS, Plan, Runner, read_table
from experiments.storage import results, run_folder
from experiments.storage.code import Code, of_package
from experiments.storage.environment import processor, read_environments
from experiments.storage.files import read_json
from supermask_jax.checks import lookup
from tools.table_files import Files, of_all

DATA_DIR = define_folder("data_dir", None, "Folder of prepared data sets, as for a run.")
CONFIG = define_config("config", "FILE.py with the code that the row's configuration brought.")


class Found(NamedTuple):
    """A row, and what it takes to compute it alone.

    Attributes:
      row: the row.
      runner: its runner.
      table: the files of its table.
      config: the configuration that trains only its member.
      data: the checksum of its data set; None if its table does not tell.
      processors: the processors on which its code ran for that table.
    """

    row: results.Row
    runner: Runner
    table: Files
    config: ConfigDict
    data: str | None
    processors: list[str]


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
                return Found(row, runner, table, alone, config.get("data"), machines)
    missing = "" if folder.is_dir() else ": there is no such folder"
    raise ValueError(f"no table in {folder} has a row {row_id!r}{missing}.")


def check_config(found: Found, own: Path | None) -> None:
    """Check that code which the configuration of a row brought is given again.

    Args:
      found: the row.
      own: the file of ``--config``; None if none is given.

    Raises:
      ValueError: if it is not.
    """
    row, config = found.row, found.config
    is_told = own or brings_own(config.to_dict())  # by --config, or by the settings
    if of_package(row["code_version"]) != row["code_version"] and not is_told:
        raise ValueError(
            f"row {row['id']} needs the code that its configuration brought: add --config=FILE.py "
            f"(it was made by: {row['command']})."
        )


def check_data(found: Found, plan: Plan) -> None:
    """Check that the data of a plan are those of a row.

    Raises:
      ValueError: if they are not; the message has both checksums.
    """
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


def differing(row: results.Row, again: results.Row) -> list[str]:
    """Return the columns whose numbers differ between a row and the same row computed again."""
    return [name for name in measured(row) if not is_equal(row[name], again[name])]


def is_equal(one: float, other: float) -> bool:
    """Compare to the last digit; NaN, from a diverged member, equals NaN."""
    return repr(one) == repr(other)
