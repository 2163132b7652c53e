"""The tables of a folder, and their pooled rows."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.runners.hyperparameters import listed
from experiments.runners.registry import RUNNERS, read_table
from experiments.storage import results
from experiments.storage.files import read_json
from supermask_jax.checks import lookup
from tools.report import schedule
from tools.report.claims import CONNECTIVITY, EXPERIMENTS, NETWORKS
from tools.table_files import Files, of_tables

NEEDED = ("experiment", "figure", "network", "dataset", "runner")  # in the settings

OTHER_MACHINES = (
    " Not all ran on the same machine: processors with other vector instructions round differently,"
    " which a training amplifies."
)


class Table(NamedTuple):
    """A table that `tools.collect` wrote.

    Attributes:
      files: the paths of its files.
      rows: its rows, with the name of their file under ``table`` and, for a judged experiment, the
        differences from the paper's settings under ``deviations``. They tell a learning rate,
        pruning rate and so on only where the settings list several.
      config: the settings of its runs.
      environments: the machines of its runs.
    """

    files: Files
    rows: list[results.Row]
    config: dict[str, Any]
    environments: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """The name of the file without its suffix."""
        return self.files.rows.stem

    @property
    def deviations(self) -> dict[str, str]:
        """How the settings of a judged experiment differ from its own, in words by name."""
        return schedule.deviations(self.config) if _has_claims(self.config) else {}

    @property
    def machines(self) -> set[tuple[str | None, str | None]]:
        """The platform and the processor of each machine."""
        return {(known.get("platform"), known.get("processor")) for known in self.environments}

    @property
    def is_judged(self) -> bool:
        """Whether its rows count for verdicts: not if settings list several numbers."""
        return (
            _has_claims(self.config)
            and not _swept(self.config)
            and schedule.may_be_judged(self.config["experiment"], self.deviations)
        )


def read_tables(folder: Path) -> list[Table]:
    """Return all tables of a folder that have their settings beside them, by name.

    Raises:
      FileNotFoundError: no such folder, or settings or a machine without a table.
      ValueError: a table of another version, or settings that are not those of a run.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}.")
    return [_read(files) for files in of_tables(folder)]


def pool(tables: Sequence[Table]) -> list[results.Row]:
    """Return the rows of all tables; each member and round counts once, from its first table.

    Judged experiments share their rows (all train large_final, for example); other experiments do
    not.
    """
    return [row for row, first in _with_first(tables) if row is first]


def contradictions(tables: Sequence[Table]) -> list[str]:
    """Return a sentence per pair of tables that have different numbers for the same members."""
    pairs: dict[tuple[str, str], list[str]] = {}
    machines = {table.files.rows.name: table.machines for table in tables}
    for row, first in _with_first(tables):
        numbers = results.columns_between(row, "dataset", "code_version")
        if any(repr(first[name]) != repr(row[name]) for name in numbers):
            pairs.setdefault((first["table"], row["table"]), []).append(row["id"])
    return [
        f"{other} has other numbers than {first} for the same members (rows: {len(ids)}, the first "
        f"is {ids[0]}); those of {first} count."
        + (OTHER_MACHINES if machines[first] != machines[other] else "")
        for (first, other), ids in pairs.items()
    ]


def _with_first(tables: Sequence[Table]) -> Iterator[tuple[results.Row, results.Row]]:
    """Yield every row with the first row of its member and round."""
    known: dict[tuple[Any, ...], results.Row] = {}
    for table in tables:
        for row in table.rows:
            about = results.columns_between(row, "experiment", "density")
            shared = row["experiment"] in EXPERIMENTS or row["experiment"]
            yield row, known.setdefault((shared, *((name, row[name]) for name in about)), row)


def _swept(config: dict[str, Any]) -> list[str]:
    """Return the settings that list several numbers."""
    names = RUNNERS[config["runner"]].NUMBERS
    return [name for name in names if len(listed(config.get(name))) > 1]


def _has_claims(config: dict[str, Any]) -> bool:
    network, dataset = config["network"], config["dataset"]
    return config["experiment"] in (*EXPERIMENTS, CONNECTIVITY) and NETWORKS.get(network) == dataset


def _read(files: Files) -> Table:
    config = read_json(files.config)
    if missing := [name for name in NEEDED if name not in config]:
        raise ValueError(
            f"{files.config} has no {', '.join(missing)}: these are not settings of a run."
        )
    lookup("runner", config["runner"], RUNNERS)
    table = Table(files, [], config, read_json(files.environment))
    about = {"table": files.rows.name, "deviations": tuple(table.deviations.values())}
    shared = set(RUNNERS[config["runner"]].NUMBERS) - set(_swept(config))
    rows = [
        {name: value for name, value in row.items() if name not in shared} | about
        for row in read_table(files.rows)
    ]
    return table._replace(rows=rows)
