"""The rows of a run's table: one file with a checksum per part, and the table built from them.

A part is what a runner completes as a unit: a round or a seed. The part files are the source of
truth. The table is rewritten from them after every part, and whenever it does not match them.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments import processes
from experiments.storage import results
from experiments.storage.files import read_json, write_json

RESULTS = "results.csv"  # the table that every run has


class Records:
    """The rows of a table, part by part.

    Damaged part files are reported and ignored, so that their rows are computed again. A table that
    does not match the part files is reported and rewritten.

    Args:
      table: the CSV file in the folder of a run; its part files go to ``parts/`` in that folder.
      columns: the columns of the table.
      key: sorts the rows of the table.
    """

    def __init__(
        self, table: Path, columns: results.Columns, key: Callable[[results.Row], Any]
    ) -> None:
        self._table = table
        self._columns = columns
        self._key = key
        self._parts: dict[str, list[results.Row]] = {}
        for path in _files(table):
            try:
                self._parts[path.stem] = _read_part(path, columns)
            except ValueError as error:
                processes.say(f"{error}; its rows will be computed again")
        if self._parts and not self._table_is_right():
            processes.say(f"{table} does not match {_folder(table)}; it is rewritten")
            self._write_table()

    def __contains__(self, name: str) -> bool:
        """Return whether a part is complete."""
        return name in self._parts

    def part(self, name: str) -> list[results.Row]:
        """Return the rows of a part; an empty list if the part is missing."""
        return self._parts.get(name, [])

    def rows(self) -> list[results.Row]:
        """Return all rows, sorted."""
        return sorted((row for rows in self._parts.values() for row in rows), key=self._key)

    def add(self, name: str, rows: list[results.Row]) -> None:
        """Write a part, replacing any of the same name, and rewrite the table."""
        self._parts[name] = rows
        if processes.is_first():
            text = results.format_rows(rows, self._columns)
            content = {"rows": text, "sha256": _checksum(text)}
            write_json(_folder(self._table) / f"{name}.json", content)
        self._write_table()

    def _table_is_right(self) -> bool:
        expected = results.format_rows(self.rows(), self._columns)
        return self._table.exists() and self._table.read_bytes() == expected.encode()

    def _write_table(self) -> None:
        if processes.is_first():
            results.write_rows(self._table, self.rows(), self._columns)


def read_table(table: Path, columns: results.Columns) -> list[results.Row]:
    """Read the table of a run and check it against its part files, if it has any.

    Raises:
      ValueError: if the table or a part file is damaged, or if they do not match; names the file.
    """
    rows = results.read_rows(table, columns)
    told = [row for path in _files(table) for row in _read_part(path, columns)]
    if told and sorted(map(repr, told)) != sorted(map(repr, rows)):
        raise ValueError(
            f"{table} does not match {_folder(table)}; resume that run to rewrite the table."
        )
    return rows


def _folder(table: Path) -> Path:
    return table.with_name("parts") / table.stem


def _files(table: Path) -> list[Path]:
    return sorted(_folder(table).glob("*.json"))


def _read_part(path: Path, columns: results.Columns) -> list[results.Row]:
    try:
        content = read_json(path)
        text = content["rows"]
        whole = _checksum(text) == content["sha256"]
    except (ValueError, TypeError, KeyError, AttributeError):
        whole = False
    if not whole:
        raise ValueError(f"{path} is damaged")
    return results.parse_rows(text, columns, path)


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
