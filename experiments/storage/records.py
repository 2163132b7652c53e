"""The rows of a table of a run: a file with a checksum per part, and the table made of them all.

A part is what a runner finishes at once: a round, a seed. The files of the parts are what counts;
the table is written anew from them after every part and whenever it is not what they say.
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

    Args:
      table: the CSV file in the folder of a run, which gets ``parts/`` too.
      columns: of the table.
      key: the order of the rows.
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
                processes.say(f"{error}; what it told is computed again")
        if self._parts and not self._table_is_right():
            processes.say(f"{table} is not what {_folder(table)} tells; it is written anew")
            self._write_table()

    def __contains__(self, name: str) -> bool:
        """Whether a part is there."""
        return name in self._parts

    def part(self, name: str) -> list[results.Row]:
        """The rows of a part; none if it is not there."""
        return self._parts.get(name, [])

    def rows(self) -> list[results.Row]:
        """All rows, in order."""
        return sorted((row for rows in self._parts.values() for row in rows), key=self._key)

    def add(self, name: str, rows: list[results.Row]) -> None:
        """Write a part, in place of one of the same name, and the table."""
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
    """The rows of a run's table, if they are those that its parts tell.

    Raises:
      ValueError: if a file is damaged; names it.
    """
    rows = results.read_rows(table, columns)
    told = [row for path in _files(table) for row in _read_part(path, columns)]
    if told and sorted(map(repr, told)) != sorted(map(repr, rows)):
        raise ValueError(
            f"{table} is not what {_folder(table)} tells; continue that run to have it put right."
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
