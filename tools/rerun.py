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

from absl import flags, logging
from rich.console import Console
from rich.table import Table

from experiments.additions import identify_with
from experiments.command_line import config_file, define_folder, fail, run_program
from experiments.storage import results
from tools.one_row import (
    CONFIG,
    DATA_DIR,
    check_config,
    check_data,
    differing,
    find,
    is_equal,
    measured,
    reason,
    recompute,
)

RESULTS = define_folder(
    "results", "results", "Folder of tables written by tools.collect, or of a run or several runs."
)
flags.declare_key_flag(DATA_DIR.name)
flags.declare_key_flag(CONFIG.name)


def main(arguments: list[str]) -> None:
    """Rerun the row named on the command line; exit status 1 if a number differs."""
    logging.set_verbosity(logging.WARNING)
    own = config_file(CONFIG)
    try:
        if len(arguments) != 2:
            raise ValueError("name the id of one row.")
        found = find(arguments[1], Path(RESULTS.value))
        check_config(found, own)
        plan = found.runner.make_plan(found.config, DATA_DIR.value)
        code = identify_with(own, plan.config.recorded(), plan.problem.dataset)
        check_data(found, plan)
        with tempfile.TemporaryDirectory() as folder:
            again = recompute(found, plan, folder, code)
    except (ValueError, TypeError, OSError, MemoryError) as error:
        fail(error)
    Console().print(comparison(found.row, again))
    if names := differing(found.row, again):
        sys.exit(f"{', '.join(names)} differ ({reason(found, code.version)})")
    print("every number is equal")


def comparison(row: results.Row, again: results.Row) -> Table:
    """Return a table with the numbers of both rows side by side."""
    names = results.columns_between(row, "dataset", "density")
    member = ", ".join(f"{name} {row[name]}" for name in names if row[name] not in ("", None))
    table = Table("column", "table", "now", "equal", title=f"row {row['id']}: {member}")
    for name in measured(row):
        table.add_row(name, str(row[name]), str(again[name]), str(is_equal(row[name], again[name])))
    return table


if __name__ == "__main__":
    run_program(main)
