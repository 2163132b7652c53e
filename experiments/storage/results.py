"""Tables of results and learning curves, as CSV and Parquet files.

Every row holds what is needed to compute it again. Accuracies are fractions, losses are in nats,
density is kept / prunable weights. Every runner has its own columns, in this order: what the row is
about, the density, the measurements, and the provenance.
"""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.storage.files import replace_file

Row = dict[str, Any]

Columns = Mapping[str, Callable[[str], Any]]

ALL_LAYERS = "all"  # in the column `layer`: all layers together


def row_id(settings: Mapping[str, Any], member: Mapping[str, Any], code_version: str) -> str:
    """Return twelve hexadecimal digits that identify a row by everything its numbers depend on.

    Args:
      settings: the settings that the numbers of a single member depend on.
      member: what distinguishes the row, for example its criterion, actions, seed and round.
      code_version: see `experiments.storage.code`.
    """
    text = json.dumps([settings, member, code_version], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def columns_between(row: Row, after: str, before: str) -> list[str]:
    """Return the names of the columns between two columns of a row, both excluded."""
    names = list(row)
    return names[names.index(after) + 1 : names.index(before)]


def measured(table: Mapping[str, np.ndarray], index: int, columns: Columns) -> Row:
    """Return a member's entries of those columns that a table of arrays `[P]` has.

    Args:
      table: float32 or integer arrays `[P]` by name.
      index: the place of the member.
      columns: the columns of the results; those not in `table` are left out.
    """
    # str gives the shortest decimal that reads back as the same float32.
    return {name: read(str(table[name][index])) for name, read in columns.items() if name in table}


def write_rows(path: Path, rows: Iterable[Row], columns: Columns) -> None:
    """Write a table as a CSV file, atomically."""
    text = format_rows(rows, columns)
    replace_file(path, lambda temporary: temporary.write_text(text, newline=""))


def read_rows(path: Path, columns: Columns) -> list[Row]:
    """Read a table that `write_rows` wrote, with the types of its columns.

    Returns:
      The rows; an empty list if the file is missing.

    Raises:
      ValueError: if the table has other columns or is damaged.
    """
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return parse_rows(file.read(), columns, path)


def format_rows(rows: Iterable[Row], columns: Columns) -> str:
    """Return a table as the text of a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def parse_rows(text: str, columns: Columns, path: Path) -> list[Row]:
    """Parse the text that `format_rows` returned, with the types of its columns.

    Args:
      text: the text of a CSV file.
      columns: the expected columns.
      path: the file, for error messages.

    Raises:
      ValueError: if the table has other columns or is damaged.
    """
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if list(reader.fieldnames or ()) != list(columns):
        raise ValueError(
            f"{path} is not a table of this version: its columns are {reader.fieldnames}."
        )
    try:
        return [{name: kind(row[name]) for name, kind in columns.items()} for row in reader]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged in line {reader.line_num}: {error}") from error


def write_curves(
    path: Path,
    members: Sequence[Row],
    names: Sequence[str],
    steps: np.ndarray,
    curves: dict[str, Any],
) -> None:
    """Write learning curves as a Parquet file, atomically, one row per member and evaluation.

    Args:
      path: the file.
      members: the results of the P members.
      names: the columns of `members` to repeat beside the curves.
      steps: int `[E]`, the step of every evaluation.
      curves: arrays `[P, E]` by name. ``train_*`` are means over the steps from an evaluation to
        the next one, and NaN for the last evaluation.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = len(steps)
    columns: dict[str, Any] = {
        name: np.repeat([member[name] for member in members], count) for name in names
    }
    columns["step"] = np.tile(steps, len(members))
    columns |= {name: np.asarray(values).ravel() for name, values in curves.items()}
    replace_file(path, lambda temporary: pq.write_table(pa.table(columns), temporary))


def read_curves(path: Path) -> dict[str, np.ndarray]:
    """Read the columns of a file that `write_curves` wrote, each an array of one entry per row.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is not a whole Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} is damaged, or not a Parquet file") from error
    return {name: table[name].to_numpy() for name in table.column_names}
