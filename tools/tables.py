"""The tables of a folder, and their rows together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments import results
from experiments.runners import read_table
from tools.claims import EXPERIMENTS

SUFFIX = ".config.json"


class Table(NamedTuple):
    """What `tools.collect` wrote.

    Attributes:
      path: of the CSV.
      rows: its rows; each says under ``table`` which file it is from.
      config: the settings of its runs.
      environments: the machines that they ran on.
    """

    path: Path
    rows: list[results.Row]
    config: dict[str, Any]
    environments: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """Of the file, without its suffix."""
        return self.path.stem


def read_tables(folder: Path) -> list[Table]:
    """All tables of a folder that have their settings beside them, by name.

    Raises:
      FileNotFoundError: no such folder, or settings or a machine without a table.
      ValueError: a table of another version.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}.")
    return [_read(path) for path in sorted(folder.glob(f"*{SUFFIX}"))]


def pool(tables: Sequence[Table]) -> list[results.Row]:
    """The rows of all tables, those of one member and round once.

    Experiments that are judged share their rows (all train large_final, for example); any other
    has its own.

    Raises:
      ValueError: two tables have different numbers for the same; names both.
    """
    known: dict[tuple[Any, ...], results.Row] = {}
    for table in tables:
        for row in table.rows:
            about = results.columns_between(row, "experiment", "density")
            shared = row["experiment"] in EXPERIMENTS or row["experiment"]
            first = known.setdefault((shared, *((name, row[name]) for name in about)), row)
            numbers = results.columns_between(row, "dataset", "code_version")
            if differing := [name for name in numbers if repr(first[name]) != repr(row[name])]:
                raise ValueError(
                    f"{first['table']} and {row['table']} differ in {', '.join(differing)} of "
                    f"rows {first['id']} and {row['id']}, which are of the same member."
                )
    return list(known.values())


def _read(config: Path) -> Table:
    path = config.with_name(config.name.replace(SUFFIX, ".csv"))
    return Table(
        path=path,
        rows=[row | {"table": path.name} for row in read_table(path)],
        config=results.read_json(config),
        environments=results.read_json(path.with_suffix(".environment.json")),
    )
