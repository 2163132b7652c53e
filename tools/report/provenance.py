"""Experiments as blocks of a page: figures, a table, and how each file was made."""

import functools
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from experiments.plots import FIGURES, learning_curves, mask_analysis
from experiments.runners.learned import BERNOULLI
from experiments.runners.registry import read_table
from experiments.storage import results
from tools.report import accuracy_tables, claims, reported
from tools.report.pages import (
    Block,
    Bullets,
    Code,
    Details,
    Heading,
    Link,
    Paragraph,
    Picture,
    anchor,
)
from tools.report.tables import Table, pool

BASELINE = "large_final"  # what mask actions are compared with, run once for all experiments
# Figures that also show the rows of another experiment.
SHOWN_TOO = {"heuristic_supermasks": "learned_supermasks", "pruning_at_init": "mask_criteria"}


class Experiment(NamedTuple):
    """One experiment on one network and data set, and the tables that have its rows.

    Attributes:
      name: of the experiment.
      network: trained.
      dataset: learned.
      note: how settings differ from the paper's, where that keeps rows from being judged.
      rows: of all tables, once each; of mask actions with those of `BASELINE`, which another
        experiment may have.
      tables: of the experiment itself.
    """

    name: str
    network: str
    dataset: str
    note: str
    rows: list[results.Row]
    tables: list[Table]

    @property
    def title(self) -> str:
        """The heading of the experiment."""
        return " ".join(filter(None, (self.name, self.network, self.dataset, self.note)))


def by_experiment(tables: Sequence[Table]) -> list[Experiment]:
    """Return the rows of all tables, each once, by experiment, network and data set."""
    found: dict[tuple[str, str, str, str], Experiment] = {}
    for table in tables:
        note = "" if table.is_judged else ", ".join(table.deviations.values())
        for row in table.rows:
            key = row["experiment"], row["network"], row["dataset"], note
            experiment = found.setdefault(key, Experiment(*key, [], []))
            if table not in experiment.tables:
                experiment.tables.append(table)
    own = [experiment._replace(rows=pool(_only(experiment))) for experiment in found.values()]
    judged = pool([table for table in tables if table.is_judged])
    return [experiment._replace(rows=_with_baseline(experiment, judged)) for experiment in own]


def all_experiments(tables: Sequence[Table]) -> list[Block]:
    """Return the blocks of every experiment, in the order of the tables."""
    found = by_experiment(tables)
    if not found:
        return [Paragraph("There are no tables yet.")]
    return [block for experiment in found for block in _experiment(experiment, found)]


def _experiment(experiment: Experiment, others: Sequence[Experiment]) -> list[Block]:
    """Return its figures, its table, and the commands and machines of each file."""
    first = experiment.tables[0]
    rows = list(experiment.rows)
    shown_too = SHOWN_TOO.get(first.config["figure"])
    rows += [
        row
        for other in others
        if other.name == shown_too and other[1:4] == experiment[1:4]
        for row in other.rows
    ]

    def draw() -> Figure:
        return FIGURES[first.config["figure"]](rows)

    return [
        Heading(3, experiment.title),
        Picture(draw, anchor(f"{experiment.title} figure"), _caption(experiment)),
        accuracy_tables.table(experiment.rows),
        *_how_measured(experiment),
        *reported.beside(experiment.name, experiment.network),
        *_convergence(experiment),
        *_learning_curves(experiment),
        *_mask_analysis(experiment),
        *(
            Details(
                f"How {table.files.rows.name} was made",
                f"made-{anchor(table.name)}",
                _provenance(table),
            )
            for table in experiment.tables
        ),
    ]


def _how_measured(experiment: Experiment) -> list[Block]:
    """Return a note on draws other than Bernoulli's, none where there are none."""
    if {row.get("draw", BERNOULLI) for row in experiment.rows} <= {BERNOULLI}:
        return []
    return [
        Paragraph(
            f"Draws other than {BERNOULLI} are measured by the one mask that they evaluate, in all "
            "columns."
        )
    ]


def _convergence(experiment: Experiment) -> list[Block]:
    """Return the figure of the step of the lowest validation loss, for pruning."""
    figure = FIGURES.get(f"{experiment.tables[0].config['figure']}_convergence")
    if not figure:
        return []
    name = anchor(f"{experiment.title} convergence")
    caption = f"Step of the lowest validation loss: {_caption(experiment)}"
    return [Picture(lambda: figure(experiment.rows), name, caption)]


def _learning_curves(experiment: Experiment) -> list[Block]:
    """Return a figure per table that has curves beside it."""

    def draw(table: Table) -> Figure:
        curves = results.read_curves(table.files.curves)
        return learning_curves.draw(curves, learning_curves.about(table.config))

    return [
        Picture(
            functools.partial(draw, table),
            anchor(f"{table.name} curves"),
            f"Learning curves of {table.files.rows.name}, {learning_curves.about(table.config)}.",
        )
        for table in experiment.tables
        if table.files.curves.exists()
    ]


def _mask_analysis(experiment: Experiment) -> list[Block]:
    """Return the figure of the mask analysis, if there is one."""
    files = [table.files.analysis for table in experiment.tables]
    rows = [row for file in files if file.exists() for row in read_table(file)]
    if not rows:
        return []
    name = anchor(f"{experiment.title} masks")
    caption = f"Overlap, signs, movement and densities of masks: {_caption(experiment)}"
    return [Picture(lambda: mask_analysis.draw(rows), name, caption)]


def _caption(experiment: Experiment) -> str:
    kinds = defaultdict(set)
    for row in experiment.rows:
        names = [row.get(name) for name in ("variant", "criterion", "weights")]
        kinds[tuple(names)].add(row["seed"])
    least, most = (f(map(len, kinds.values())) for f in (min, max))
    seeds = f"{least} to {most}" if least < most else str(most)
    note = f", {experiment.note}" if experiment.note else ""
    where = f"{experiment.network} on {experiment.dataset}"
    others = dict.fromkeys(
        r["experiment"] for r in experiment.rows if r["experiment"] != experiment.name
    )
    from_others = [f" {BASELINE} is that of {other}." for other in others]
    return f"{experiment.name}, {where}{note}, seeds: {seeds}.{''.join(from_others)}"


def _provenance(table: Table) -> list[Block]:
    """Return the files, the commands and the machines of a table."""
    commands = Counter((row["command"], row["code_version"]) for row in table.rows)
    return [
        Paragraph(
            ["Rows: ", _link(table.files.rows), "; settings: ", _link(table.files.config),
             "; machine: ", _link(table.files.environment), "."]
        ),
        Paragraph(["Commands (each also needs a ", Code("--workdir"), "):"]),
        Bullets(
            [
                [Code(command), f": {count} rows by {version}"]
                for (command, version), count in commands.items()
            ]
        ),
        *([Bullets(differing)] if (differing := [*table.deviations.values()]) else []),
        Bullets([_machine(environment) for environment in table.environments]),
    ]  # fmt: skip


def _link(file: Path) -> Link:
    """Return a link to a file of a table."""
    return Link(file.name, file.name)


def _machine(environment: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {v}" for name, v in sorted(environment["packages"].items()))
    devices = ", ".join(f"{n} {kind}" for kind, n in Counter(environment["devices"]).items())
    return (
        f"{environment['processor']}; {environment['platform']}; devices: {devices}; "
        f"Python {environment['python']}; {packages}"
    )


def _with_baseline(experiment: Experiment, judged: Sequence[results.Row]) -> list[results.Row]:
    """Return its rows, with those of `BASELINE` from another experiment if it has none itself.

    Args:
      experiment: any.
      judged: rows that claims are judged by, once each.
    """
    own = experiment.rows
    is_compared = experiment.name in claims.PRUNING and not experiment.note
    if not is_compared or any(row["variant"] == BASELINE for row in own):
        return own
    place = experiment.network, experiment.dataset, BASELINE
    seeds, last = {row["seed"] for row in own}, max(row["round"] for row in own)
    pruned = [row for row in judged if row["experiment"] in claims.PRUNING]
    same = [row for row in pruned if (row["network"], row["dataset"], row["variant"]) == place]
    return own + [row for row in same if row["seed"] in seeds and row["round"] <= last]


def _only(experiment: Experiment) -> list[Table]:
    """Return its tables without the rows of other experiments."""
    key = experiment[:3]
    return [
        table._replace(
            rows=[r for r in table.rows if (r["experiment"], r["network"], r["dataset"]) == key]
        )
        for table in experiment.tables
    ]
