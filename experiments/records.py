"""The rows of a run: one file with a checksum per part of it, and the table made of them all.

A part is what a runner finishes at once: a round, a seed. The files of the parts are what counts;
the table is written anew from them after every part and whenever it is not what they say.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments import processes, results

TABLE = "results.csv"
FOLDER = "rows"


class Records:
    """The rows of a run, part by part.

    Args:
      workdir: of the run; gets ``results.csv`` and ``rows/``.
      columns: of the table.
      key: the order of the rows.
    """

    def __init__(
        self, workdir: Path, columns: results.Columns, key: Callable[[results.Row], Any]
    ) -> None:
        self._workdir = workdir
        self._columns = columns
        self._key = key
        self._parts: dict[str, list[results.Row]] = {}
        for path in _files(workdir):
            try:
                self._parts[path.stem] = _read_part(path, columns)
            except ValueError as error:
                processes.say(f"{error}; what it told is computed again")
        if self._parts and not self._table_is_right():
            table = self._workdir / TABLE
            processes.say(f"{table} is not what {FOLDER}/ beside it tells; it is written anew")
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
            results.write_json(self._workdir / FOLDER / f"{name}.json", content)
        self._write_table()

    def _table_is_right(self) -> bool:
        table = self._workdir / TABLE
        expected = results.format_rows(self.rows(), self._columns)
        return table.exists() and table.read_bytes() == expected.encode()

    def _write_table(self) -> None:
        if processes.is_first():
            results.write_rows(self._workdir / TABLE, self.rows(), self._columns)


def read_table(workdir: Path, columns: results.Columns) -> list[results.Row]:
    """The rows of a run's table, if they are those that its parts tell.

    Raises:
      ValueError: if a file is damaged; names it.
    """
    rows = results.read_rows(workdir / TABLE, columns)
    told = [row for path in _files(workdir) for row in _read_part(path, columns)]
    if told and sorted(map(repr, told)) != sorted(map(repr, rows)):
        raise ValueError(
            f"{workdir / TABLE} is not what {FOLDER}/ beside it tells; continue that run to have "
            "it put right."
        )
    return rows


def _files(workdir: Path) -> list[Path]:
    return sorted((workdir / FOLDER).glob("*.json"))


def _read_part(path: Path, columns: results.Columns) -> list[results.Row]:
    try:
        content = results.read_json(path)
        text = content["rows"]
        whole = _checksum(text) == content["sha256"]
    except (ValueError, TypeError, KeyError, AttributeError):
        whole = False
    if not whole:
        raise ValueError(f"{path} is damaged")
    return results.parse_rows(text, columns, path)


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
