"""Tables of measurements: NamedTuples in memory, CSV on disk, Markdown on a page."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from experiments.storage import results
from experiments.storage.code import identify
from experiments.storage.environment import PACKAGES, note_environment

READERS = {str: results.text, int: results.integer, float: results.number}
Row = TypeVar("Row")


def write(path: Path, rows: Sequence[Any]) -> None:
    """Write rows of one kind as CSV, every float with four digits."""
    kind = type(rows[0])
    records = (
        {name: f"{x:.4g}" if isinstance(x, float) else x for name, x in row._asdict().items()}
        for row in rows
    )
    results.write_rows(path, records, kind.__annotations__)


def write_machine(path: Path) -> None:
    """Write the machine beside a table; this opens the devices, so no worker may hold them."""
    packages = (*PACKAGES, "torch")
    note_environment(path.with_suffix(".environment.json"), identify(), packages)


def read(path: Path, kind: type[Row]) -> list[Row]:
    """Return the rows of a file that `write` wrote; none if the file is missing.

    Raises:
      ValueError: if its columns are not those of `kind`, or if it is damaged.
    """
    columns = {name: READERS[type_] for name, type_ in kind.__annotations__.items()}
    return [kind(**row) for row in results.read_rows(path, columns)]


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table with a line of headings and any number of others."""
    return "\n".join(map(markdown_line, [head, ["---"] * len(head), *lines]))


def markdown_line(cells: Sequence[str]) -> str:
    """Return one line of such a table."""
    return f"| {' | '.join(cells)} |"
