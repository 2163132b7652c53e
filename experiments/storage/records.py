"""The rows of a run's table: one file with a checksum per part, and the table built from them.

A part is what a runner completes as a unit: a round or a seed. The part files are the source of
truth. The table is rewritten from them after every part, and whenever it does not match them. A
part file says which run made it, and has the checksums of the files that go with its rows.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments import processes
from experiments.storage import results
from experiments.storage.files import checksum, read_json, write_json
from experiments.storage.identity import MADE_BY, Identity, RunFolder
from experiments.storage.listeners import Part, tell

RESULTS = "results.csv"  # the table that every run has
PARTS = "parts"


class Records:
    """The rows of a table, part by part.

    Part files that are damaged, copied or of another run are reported and ignored, so that their
    rows are computed again. A table that does not match the part files is reported and rewritten.
    A file that goes with a part is reported if it is damaged or missing.

    Args:
      folder: the folder of the table; its part files go to ``parts/`` in that folder.
      name: the name of the CSV file.
      columns: the columns of the table.
      key: sorts the rows of the table.
    """

    def __init__(
        self,
        folder: RunFolder,
        name: str,
        columns: results.Columns,
        key: Callable[[results.Row], Any],
    ) -> None:
        self._table = folder.path / name
        self._identity = folder.identity
        self._columns = columns
        self._key = key
        self._listeners = folder.listeners
        self._parts: dict[str, list[results.Row]] = {}
        for path in _files(self._table):
            try:
                rows = _read_part(path, columns, self._identity)
            except ValueError as error:
                processes.say(f"{error}; its rows will be computed again")
                continue
            losses = _losses(path)
            for loss in losses:
                processes.say(f"{loss}; the rows in {self._table.name} are whole")
            self._parts[path.stem] = rows
            self._tell(path.stem, () if losses else tuple(_files_of(path)), is_new=False)
        if self._parts and not self._table_is_right():
            processes.say(f"{self._table} does not match {_folder(self._table)}; it is rewritten")
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

    def add(self, name: str, rows: list[results.Row], files: Sequence[Path] = ()) -> None:
        """Write a part, replacing any of the same name, and rewrite the table.

        Args:
          name: the name of the part.
          rows: its rows.
          files: files on disk that go with it, for example its learning curves.
        """
        self._parts[name] = rows
        if processes.is_first():
            path = _folder(self._table) / f"{name}.json"
            text = results.format_rows(rows, self._columns)
            content = {
                "rows": text,
                "sha256": _checksum(text),
                "files": {_below(file, self._table): checksum(file) for file in files},
                MADE_BY: self._identity.stamp(path),
            }
            write_json(path, content)
        self._write_table()
        self._tell(name, files, is_new=True)

    def _tell(self, name: str, files: Sequence[Path], *, is_new: bool) -> None:
        if self._listeners:
            rows, so_far = self._parts[name], self.rows()
            tell(self._listeners, Part(self._table, name, rows, so_far, tuple(files), is_new))

    def _table_is_right(self) -> bool:
        expected = results.format_rows(self.rows(), self._columns)
        return self._table.exists() and self._table.read_bytes() == expected.encode()

    def _write_table(self) -> None:
        if processes.is_first():
            results.write_rows(self._table, self.rows(), self._columns)


def read_table(
    table: Path, columns: results.Columns, identity: Identity | None = None
) -> list[results.Row]:
    """Read the table of a run and check it against its part files, if it has any.

    Args:
      table: the CSV file.
      columns: its columns.
      identity: that of the run which made the part files; None does not check it.

    Raises:
      ValueError: if the table or a part file is damaged or of another run, or if they do not match;
        names the file.
    """
    rows = results.read_rows(table, columns)
    told = [row for path in _files(table) for row in _read_part(path, columns, identity)]
    if told and sorted(map(repr, told)) != sorted(map(repr, rows)):
        raise ValueError(
            f"{table} does not match {_folder(table)}; resume that run to rewrite the table."
        )
    return rows


def check_file(table: Path, file: Path) -> None:
    """Check a file that goes with the parts of a table.

    Raises:
      ValueError: if a part has a checksum of the file and it is damaged or missing.
    """
    for part in _files(table):
        for loss in _losses(part, only=file):
            raise ValueError(loss)


def _losses(part: Path, only: Path | None = None) -> list[str]:
    """Return texts on the files of a part that are damaged or missing."""
    losses = []
    for file, expected in _files_of(part).items():
        if only not in (None, file):
            continue
        if not file.exists():
            losses.append(f"{file} is missing")
        elif checksum(file) != expected:
            losses.append(f"{file} is damaged")
    return losses


def _files_of(part: Path) -> dict[Path, str]:
    """Return the checksums of the files that go with a part."""
    listed = read_json(part).get("files", {})
    return {part.parents[2] / name: expected for name, expected in listed.items()}


def _below(file: Path, table: Path) -> str:
    return file.relative_to(table.parent).as_posix()


def _folder(table: Path) -> Path:
    return table.with_name(PARTS) / table.stem


def _files(table: Path) -> list[Path]:
    return sorted(_folder(table).glob("*.json"))


def _read_part(
    path: Path, columns: results.Columns, identity: Identity | None
) -> list[results.Row]:
    try:
        content = read_json(path)
        text = content["rows"]
        whole = _checksum(text) == content["sha256"]
    except (ValueError, TypeError, KeyError, AttributeError):
        whole = False
    if not whole:
        raise ValueError(f"{path} is damaged")
    if identity:
        identity.check(path, content.get(MADE_BY))
    return results.parse_rows(text, columns, path)


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
