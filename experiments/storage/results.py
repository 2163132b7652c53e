"""Tables of results: one row per member and round, with what is needed to make it again.

Accuracies are fractions, losses are in nats, density is kept / prunable weights. Every runner
has its own columns: what the row is about, the density, what was measured, and how it was made.
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

ALL_LAYERS = "all"  # in a column `layer`: all of them together


def row_id(settings: Mapping[str, Any], member: Mapping[str, Any], code_version: str) -> str:
    """Twelve hexadecimal digits that name a row by all that decides its numbers.

    Args:
      settings: the part of the configuration that a single member's numbers depend on.
      member: what tells it from the others: criterion, mask_one, mask_zero, seed and round, say.
      code_version: see `code_version`.
    """
    text = json.dumps([settings, member, code_version], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def columns_between(row: Row, after: str, before: str) -> list[str]:
    """The columns of a row that stand between two others."""
    names = list(row)
    return names[names.index(after) + 1 : names.index(before)]


def measured(table: Mapping[str, np.ndarray], index: int, columns: Columns) -> Row:
    """A member's entries of a table of float32 arrays `[P]`, as far as there are columns."""
    # str: the shortest decimal that reads back as the same float32
    return {name: read(str(table[name][index])) for name, read in columns.items() if name in table}


def write_rows(path: Path, rows: Iterable[Row], columns: Columns) -> None:
    """Write a table as CSV, at once or not at all."""
    text = format_rows(rows, columns)
    replace_file(path, lambda temporary: temporary.write_text(text, newline=""))


def read_rows(path: Path, columns: Columns) -> list[Row]:
    """Read a table that `write_rows` wrote, with its types; a missing one has no rows.

    Raises:
      ValueError: if the table has other columns or is damaged.
    """
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return parse_rows(file.read(), columns, path)


def format_rows(rows: Iterable[Row], columns: Columns) -> str:
    """A table as the text of a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def parse_rows(text: str, columns: Columns, path: Path) -> list[Row]:
    """The rows of `format_rows`, with their types.

    Args:
      text: of a CSV file.
      columns: of the table.
      path: the file, for the message.

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
    """Write learning curves as Parquet, one row per member and evaluation.

    Args:
      path: the file.
      members: P rows.
      names: columns of the rows that go along.
      steps: int `[E]`, the step of every evaluation.
      curves: arrays `[P, E]`. ``train_*`` are means over the steps from an evaluation to the
        next one, missing for the last.
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
    """The columns of a file that `write_curves` wrote.

    Raises:
      FileNotFoundError: if there is none.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}
