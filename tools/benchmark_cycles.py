"""Count the cycles of training steps on TPUs that are not there, by the compiler's estimate.

    python -m tools.benchmark_cycles --table=results/benchmark_cycles

Every line is the training of a population of dense networks, as `tools.plan` compiles it: the chunk
that really runs. The numbers are the compiler's account, no measurement, and the same on every
machine. The ten costliest operations of a step follow each line; beside the table they are in
TABLE.operations.csv. It needs libtpu, pip install -e '.[plan]', and the data sets.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments.configs import mask_criteria
from experiments.problems.networks import NETWORKS
from experiments.runners.registry import find_runner
from supermask_jax.checks import lookup
from tools.benchmark import measurements
from tools.plan import slices
from tools.plan.estimate import OfTrainings, estimate
from tools.plan.slices import Slice

MEMBERS = {"lenet300": 48}  # of a slice; of the others 8
PRECISIONS = {"default": "bfloat16 on a TPU", "float32": "in six passes"}


class Line(NamedTuple):
    """What a line of the table counts; at_once is 0 for the laboratory's choice."""

    network: str
    slice: str
    members: int
    at_once: int
    precision: str


class Row(NamedTuple):
    """One line of the table, per member-step but for the working memory of a device."""

    network: str
    slice: str
    members: int
    at_once: int
    precision: str
    cycles: float
    mb_moved: float
    temporaries_mb: float


class Operation(NamedTuple):
    """One of the costliest operations of a line: its cycles per member-step, and its origin."""

    network: str
    slice: str
    precision: str
    cycles: float
    operation: str


HEAD = [
    "network", "slice", "members", "at once", "precision", "cycles per member-step", "MB moved",
    "working memory, MB",
]  # fmt: skip


def cells(row: Row) -> list[str]:
    """Return the cells below `HEAD`."""
    return [
        *map(str, row[:5]),
        f"{row.cycles:,.0f}",
        f"{row.mb_moved:.2f}",
        f"{row.temporaries_mb:,.0f}",
    ]


def markdown(path: Path) -> str:
    """Return a table that this program wrote as Markdown."""
    return measurements.markdown(HEAD, map(cells, measurements.read(path, Row)))


def costliest(path: Path, network: str, precision: str) -> str:
    """Return the costliest operations of a line that this program wrote, as Markdown.

    Args:
      path: the table.
      network: of the line.
      precision: of the line.
    """
    found = measurements.read(_operations_of(path), Operation)
    chosen = [x for x in found if (x.network, x.precision) == (network, precision)]
    lines = [[f"{one.cycles:,.0f}", f"`{one.operation}`"] for one in chosen]
    return measurements.markdown(["cycles", "operation"], lines)


def _operations_of(table: Path) -> Path:
    return table.with_suffix(".operations.csv")


def count(line: Line, where: Slice, data_dir: str | None) -> OfTrainings:
    """Compile the training of dense networks that a line names.

    Args:
      line: the network, the members and how they train.
      where: the slice, whose chips share the members.
      data_dir: the folder of prepared data sets.
    """
    config = mask_criteria.get_config(line.network)
    config.update(num_rounds=0, seeds=tuple(range(line.members)), members_at_once=line.at_once)
    config.update(variants=("large_final",), matmul_precision=line.precision)
    runner = find_runner(config)
    plan = runner.make_plan(config, data_dir, None, where.devices)
    with jax.default_matmul_precision(line.precision):
        [dense] = estimate(runner.work(plan), where).trainings
    return dense


def main(arguments: Sequence[str] | None = None) -> None:
    """Count the lines that the flags name."""
    flags = _parser().parse_args(arguments)
    rows: list[Row] = []
    operations: list[Operation] = []
    try:
        lines = list(_lines(flags))
        found = {name: slices.find(name) for name in flags.slices}
        print(measurements.markdown(HEAD, []), flush=True)
        for line in lines:
            dense = count(line, found[line.slice], flags.data_dir)
            line = line._replace(at_once=dense.at_once)
            rows.append(Row(*line, dense.cycles, dense.bytes / 1e6, dense.temporaries / 1e6))
            print(measurements.markdown_line(cells(rows[-1])), flush=True)
            for cycles, origin in dense.costliest:
                print(f"{cycles:>14,.0f}  {origin}", flush=True)
                own = line.network, line.slice, line.precision
                operations.append(Operation(*own, cycles, origin))
    except (ValueError, OSError, MemoryError) as error:
        sys.exit(f"error: {error}")
    if flags.table:
        table = Path(f"{flags.table}.csv")
        measurements.write(table, rows)
        measurements.write(_operations_of(table), operations)


def _lines(flags: argparse.Namespace) -> list[Line]:
    for kind, names, known in (
        ("network", flags.networks, NETWORKS),
        ("precision", flags.precisions, PRECISIONS),
    ):
        for name in names:
            lookup(kind, name, known)
    sweep = itertools.product(flags.slices, flags.precisions, flags.networks, flags.at_once)
    return [
        Line(network, name, flags.members or MEMBERS.get(network, 8), at_once, precision)
        for name, precision, network, at_once in sweep
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m tools.benchmark_cycles",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )

    def add(name: str, default: Any, kind: Callable[[str], Any], text: str) -> None:
        parser.add_argument(f"--{name}", default=default, type=kind, help=text)

    add("networks", list(NETWORKS), _names, "networks of the paper")
    add("slices", ["v5e:1x1"], _names, f"slices: {slices.EXAMPLES}")
    add("members", 0, _number, "of a slice; 0 is 48 of lenet300 and 8 of the others")
    add("at_once", [0], _numbers, "members that a chip trains at once; 0 is the default")
    add("precisions", list(PRECISIONS), _names, "of products: default (bfloat16), float32")
    add("data_dir", None, str, "folder of prepared data sets, by default TFDS_DATA_DIR")
    add("table", None, str, "path without suffix for a .csv")
    return parser


def _names(text: str) -> list[str]:
    return text.split(",")


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not 0 or more.")
    return int(text)


def _numbers(text: str) -> list[int]:
    return [_number(word) for word in text.split(",")]


if __name__ == "__main__":
    main()
