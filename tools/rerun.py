"""Compute one row of a committed table again and compare.

    python -m tools.rerun ID [--results=results] [--data_dir=DIR]

Trains the one member from its dense network to the row's round, by the settings beside the
table. On the machine and the versions that made the row, every number must come out equal to
the last digit; elsewhere floating point may differ, and the differences are shown.
"""

import sys
import tempfile
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from experiments import iterative, results

RESULTS = flags.DEFINE_string("results", "results", "Folder of tables written by tools.collect.")
DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of prepared data sets, as for a run.")

MEASURED = (
    "density",
    "early_stop_step",
    "validation_loss",
    "validation_accuracy",
    "test_accuracy",
    "final_test_accuracy",
)


def main(arguments: list[str]) -> None:
    """Rerun the row named on the command line; exit status 1 if a number differs."""
    if len(arguments) != 2:
        raise app.UsageError("name the id of one row.")
    logging.set_verbosity(logging.WARNING)
    try:
        row, config = find(arguments[1], Path(RESULTS.value))
        plan = iterative.make_plan(config, DATA_DIR.value)
    except (ValueError, TypeError, OSError) as error:
        sys.exit(f"error: {error}")
    with tempfile.TemporaryDirectory() as folder:
        again = recompute(row, plan, Path(folder))
    Console().print(comparison(row, again))
    differing = [name for name in MEASURED if not _equal(row[name], again[name])]
    if differing:
        versions = f"row by {row['code_version']}, now {again['code_version']}"
        sys.exit(f"{', '.join(differing)} differ ({versions})")
    print("every number is equal")


def find(row_id: str, folder: Path) -> tuple[results.Row, ConfigDict]:
    """A row by its id, with the configuration that computes it alone.

    Raises:
      ValueError: if no table has it.
    """
    for path in sorted(folder.glob("*.config.json")):
        table = path.with_name(path.name.replace(".config.json", ".csv"))
        for row in results.read_rows(table):
            if row["id"] == row_id:
                config = ConfigDict(results.read_json(path))
                variants = config.variants if row["round"] == 0 else [row["variant"]]
                config.update(variants=variants, seeds=[row["seed"]], num_rounds=row["round"])
                return row, config
    raise ValueError(f"no table in {folder} has a row {row_id!r}.")


def recompute(row: results.Row, plan: iterative.Plan, workdir: Path) -> results.Row:
    """Train the row's member from the start and return its row as computed now."""
    rows = iterative.run(plan, workdir, row["command"])
    return next(
        new for new in rows if (new["variant"], new["round"]) == (row["variant"], row["round"])
    )


def comparison(row: results.Row, again: results.Row) -> Table:
    """The numbers of both rows side by side."""
    member = f"{row['variant']}, seed {row['seed']}, round {row['round']}"
    table = Table("column", "table", "now", "equal", title=f"row {row['id']}: {member}")
    for name in MEASURED:
        table.add_row(name, str(row[name]), str(again[name]), str(_equal(row[name], again[name])))
    return table


def _equal(one: float, other: float) -> bool:
    """Equal to the last digit; of a diverged member, NaN equals NaN."""
    return repr(one) == repr(other)


if __name__ == "__main__":
    app.run(main)
