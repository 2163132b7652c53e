"""Tables of results and learning curves, as CSV and Parquet files.

Every row holds what is needed to compute it again. Accuracies are fractions, losses are in nats,
density is kept / prunable weights. Every runner has its own columns, in this order: what the row is
about, the density, the measurements, and the provenance.

A table may come back from another program (pandas, polars, pyarrow, DuckDB, R, a spreadsheet). Its
cells are read by what they mean: ``true``, ``TRUE`` and ``1`` are True, an empty cell is a missing
number, ``1.0`` is the integer 1. What can only be guessed is refused.
"""

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.storage.files import replace_file
from supermask_jax.checks import shown

Row = dict[str, Any]

Columns = Mapping[str, Callable[[str], Any]]  # the reader of each column's cells

ALL_LAYERS = "all"  # in the column `layer`: all layers together

MISSING = ("", "nan", "na", "n/a", "#n/a", "<na>", "null", "none")  # in lower case
NUMERAL = re.compile(r"[+-]?(nan|inf|infinity|([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?)")
FIRST_IDS = re.compile("[0-9a-f]{12}")  # of rows that were made before ids began with a letter


def text(cell: str) -> str:
    """Read a cell of any text."""
    return cell


def identifier(cell: str) -> str:
    """Read the id of a row.

    Raises:
      ValueError: if a program took the id for a number, as some take 86e501496586 for infinity.
    """
    if _value(cell) is not None and not FIRST_IDS.fullmatch(cell):
        raise ValueError(
            f"{shown(cell)} is no id; a program took the id for a number, read ids as text there."
        )
    return cell


def number(cell: str) -> float:
    """Read a number; NaN where it is missing.

    Raises:
      ValueError: for any other text.
    """
    value = _value(cell)
    if value is None:
        raise ValueError(f"{shown(cell)} is not a number.")
    return value


def integer(cell: str) -> int:
    """Read an integer, also one that a program wrote as a float.

    Raises:
      ValueError: for any other text.
    """
    if re.fullmatch("-?[0-9]{1,20}", cell):
        return int(cell)
    value = _value(cell)
    if value is None or not value.is_integer() or abs(value) > 2**53:  # floats are exact up to here
        raise ValueError(f"{shown(cell)} is not an integer.")
    return int(value)


def optional_integer(cell: str) -> int | None:
    """Read an integer as `integer` does; None where it is missing."""
    return None if cell.strip().lower() in MISSING else integer(cell)


def optional_number(cell: str) -> float | None:
    """Read a number as `number` does; None where it is missing."""
    return None if cell.strip().lower() in MISSING else number(cell)


def boolean(cell: str) -> bool:
    """Read True or False in any case, or 1 or 0.

    Raises:
      ValueError: for any other text.
    """
    value = {"true": 1, "false": 0}.get(cell.strip().lower(), _value(cell))
    if value not in (0, 1):
        raise ValueError(f"{shown(cell)} is neither True nor False.")
    return value == 1


class Younger(NamedTuple):
    """The reader of a column that older tables lack.

    Attributes:
      read: reads a cell.
      default: the value in all rows of a table without the column.
    """

    read: Callable[[str], Any]
    default: Any

    def __call__(self, cell: str) -> Any:
        """Read a cell."""
        return self.read(cell)


def _value(cell: str) -> float | None:
    """Return the number in a cell, NaN where it is missing; None where there is other text."""
    word = cell.strip().lower()
    if word in MISSING:
        return math.nan
    return float(word) if NUMERAL.fullmatch(word) else None


def row_id(settings: Mapping[str, Any], member: Mapping[str, Any], code_version: str) -> str:
    """Return an id that names a row by everything its numbers depend on.

    It is the letter r and eleven hexadecimal digits, so that no program takes it for a number. Ids
    of rows that were made before have twelve hexadecimal digits.

    Args:
      settings: the settings that the numbers of a single member depend on.
      member: what distinguishes the row, for example its criterion, actions, seed and round.
      code_version: see `experiments.storage.code`.
    """
    made_from = json.dumps([settings, member, code_version], sort_keys=True)
    return "r" + hashlib.sha256(made_from.encode()).hexdigest()[:11]


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


def write_rows(path: Path, rows: Iterable[Row], columns: Iterable[str]) -> None:
    """Write a table as a CSV file, atomically."""
    table = format_rows(rows, columns)
    replace_file(path, lambda temporary: temporary.write_text(table, encoding="utf-8", newline=""))


def read_rows(path: Path, columns: Columns) -> list[Row]:
    """Read a table that `write_rows` wrote, with the types of its columns.

    Returns:
      The rows; an empty list if the file is missing.

    Raises:
      ValueError: if the table has other columns or is damaged; names the file, line and column.
    """
    return parse_rows(_read(path), columns, path) if path.exists() else []


def read_header(path: Path) -> list[str]:
    """Return the names of the columns of a CSV file; an empty list if the file is empty.

    Raises:
      FileNotFoundError: if the file is missing.
      ValueError: if it is no CSV file.
    """
    return next(_lines(_read(path), path), (0, []))[1]


def format_rows(rows: Iterable[Row], columns: Iterable[str]) -> str:
    """Return a table as the text of a CSV file."""
    table = io.StringIO()
    writer = csv.DictWriter(table, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def parse_rows(table: str, columns: Columns, path: Path) -> list[Row]:
    """Parse the text that `format_rows` returned, with the types of its columns.

    Args:
      table: the text of a CSV file, whose columns may have any order.
      columns: the expected columns.
      path: the file, for error messages.

    Raises:
      ValueError: if the table has other columns or is damaged; names the file, line and column.
    """
    lines = _lines(table, path)
    _, names = next(lines, (0, []))
    _check_names(names, columns, path)
    return [
        _parse_row(cells, names, columns, f"{path} is damaged in line {line}")
        for line, cells in lines
    ]


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # without a byte-order mark
            return file.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a table in UTF-8: {error}.") from None


def _lines(table: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the last line of every row, and its cells; skips empty lines."""
    reader = csv.reader(io.StringIO(table, newline=""), strict=True)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        raise ValueError(f"{path} is damaged in line {reader.line_num}: {error}.") from None


def _check_names(names: Sequence[str], columns: Columns, path: Path) -> None:
    unlike = {
        "it lacks {}": [
            name
            for name, read in columns.items()
            if name not in names and not isinstance(read, Younger)
        ],
        "remove {} from it": [name for name in names if name not in columns],
        "it has {} more than once": [name for name in columns if names.count(name) > 1],
    }
    if said := [how.format(", ".join(map(repr, which))) for how, which in unlike.items() if which]:
        raise ValueError(f"{path} is not a table of this version: {'; '.join(said)}.")


def _parse_row(cells: Sequence[str], names: Sequence[str], columns: Columns, where: str) -> Row:
    if len(cells) != len(names):
        raise ValueError(f"{where}: it has {len(cells)} cells for {len(names)} columns.")
    texts, row = dict(zip(names, cells, strict=True)), {}
    for name, read in columns.items():
        if isinstance(read, Younger) and name not in texts:
            row[name] = read.default
            continue
        try:
            row[name] = read(texts[name])
        except ValueError as error:
            raise ValueError(f"{where}, column {name}: {error}") from None
    return row


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
      names: the columns of `members` to repeat beside the curves; None becomes NaN.
      steps: int `[E]`, the step of every evaluation.
      curves: arrays `[P, E]` by name. ``train_*`` are means over the steps from an evaluation to
        the next one, and NaN for the last evaluation.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = len(steps)
    columns: dict[str, Any] = {
        name: np.repeat([math.nan if row[name] is None else row[name] for row in members], count)
        for name in names
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
