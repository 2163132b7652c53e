"""Measure training against its matrix products and against PyTorch.

    python -m tools.benchmark --networks=lenet300,conv2 --members=1,5 --table=results/benchmark

Every line measures the whole training loop of a population: gathering batches, the gradient, masked
Adam, and validation every 100 steps as in the paper. Loops run in turn, each in its own process;
ratios are taken per turn, and their median is printed. The mapping map/D trains members one by one
on each of D devices, vmap/D all at once, 4xvmap/D four at a time. With --parts the table compares
the loop with the loop without each of its parts. Lines are printed as Markdown.
"""

import importlib.util
import itertools
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags
from matplotlib.figure import Figure

from experiments.command_line import define_file, fail, refuse_nan, run_program
from experiments.plots.styles import matplotlib_defaults
from experiments.problems.networks import NETWORKS
from supermask_jax.checks import lookup
from tools.benchmark import measurements
from tools.benchmark.floors import Floor
from tools.benchmark.loops import Population
from tools.benchmark.subprocesses import Worker
from tools.benchmark.tasks import WHOLE_LOOP, Loop, Mapping, Task, parse_members
from tools.benchmark.torch_loops import Torch

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

_NETWORKS = flags.DEFINE_list("networks", list(NETWORKS), "networks to measure")
_MEMBERS = flags.DEFINE_list("members", ["1", "2", "5", "10", "45"], "sizes of populations")
_MAPPINGS = flags.DEFINE_list(
    "mappings",
    list(dict.fromkeys(["map/1", f"map/{CORES}", "vmap/1", f"vmap/{CORES}", f"2xvmap/{CORES}"])),
    "how members share devices",
)
_STEPS = flags.DEFINE_integer(
    "steps", 0, "steps of one turn; 0 is 500, or 5 for convolutions", lower_bound=0
)
_TURNS = flags.DEFINE_integer("turns", 3, "turns of each loop", lower_bound=1)
_TORCH = flags.DEFINE_bool("torch", True, "compare with PyTorch where it is installed")
_PATIENCE = flags.DEFINE_float("patience", 120, "seconds; lines with longer turns are skipped")
_PARTS = flags.DEFINE_bool("parts", False, "measure the loop without each of its parts")
_TABLE = define_file("table", None, "path without suffix for a .csv and a .png")
refuse_nan(_PATIENCE)


class Row(NamedTuple):
    """One line of the table.

    `floor_ratio` is our time over that of the matrix products of training and validation, and
    `torch_ratio` is PyTorch's time over ours, NaN without PyTorch. The last two are the time of
    validation in milliseconds per member-step, and its ratio to its own products; NaN where
    validation was not measured separately.
    """

    network: str
    members: int
    mapping: str
    ms_per_member_step: float
    floor_ratio: float
    torch_ratio: float
    peak_mb: float
    compile_s: float
    validation_ms: float
    validation_floor_ratio: float


class PartRow(NamedTuple):
    """One line of the table of parts: the loop with something left out or replaced."""

    network: str
    members: int
    mapping: str
    part: str
    ms_per_member_step: float


WHOLE, PRODUCTS = "whole loop", "matrix products alone"
LOOPS = {
    WHOLE: WHOLE_LOOP,
    "without validation": Loop(validate=False),
    "SGD in place of Adam": Loop(optimizer="sgd"),
    "one batch for all steps": Loop(gather=False),
}
OF_CONVOLUTIONS = {"convolutions by all products": Loop(convolution="canonical")}


def loops_of(network: str) -> dict[str, Loop]:
    """Return the loops that are compared for a network, by the part that each changes."""
    return LOOPS | OF_CONVOLUTIONS if NETWORKS[network].pairs else LOOPS


def measure_network(
    task: Task,
    members: Sequence[int],
    mappings: Sequence[Mapping],
    turns: int,
    torch: bool,
    patience: float,
    report: Callable[[Row], None],
) -> None:
    """Measure all lines of one network."""
    floor = Worker(CORES, Floor, task, CORES)
    reference = Worker(1, Torch, task, CORES) if torch else None
    known: dict[str, float] = {}
    for count in members:
        for mapping in mappings:
            if mapping.devices > count:
                continue
            expected = known.get(mapping.name, 0.0) * count * task.steps / 1e3
            if expected > patience:
                print(f"{task.network} {count} {mapping.name}: skipped, {expected:.0f} s per turn")
                continue
            row = measure_line(task, count, mapping, turns, floor, reference)
            known[mapping.name] = row.ms_per_member_step
            report(row)
    floor.close()
    if reference:
        reference.close()


def measure_line(
    task: Task, members: int, mapping: Mapping, turns: int, floor: Worker, reference: Worker | None
) -> Row:
    """Measure one line: our loop, PyTorch, the products, and our loop without validation."""
    ours = Worker(mapping.devices, Population, task, members, mapping)
    bare = Worker(mapping.devices, Population, task, members, mapping, Loop(validate=False))
    taken = []
    for _ in range(turns):
        ms, torch_ms = ours.turn(), reference.turn() if reference else float("nan")
        training, validation = floor.turn()
        share = ms - bare.turn()
        taken.append((ms, ms / (training + validation), torch_ms / ms, share, share / validation))
    ms, floor_ratio, torch_ratio, share, share_ratio = map(
        statistics.median, zip(*taken, strict=True)
    )
    peak_mb, compile_s = ours.ask("peak_mb"), ours.ask("compile_s")
    ours.close()
    bare.close()
    return Row(
        task.network, members, mapping.name, ms, floor_ratio, torch_ratio, peak_mb, compile_s,
        share, share_ratio,
    )  # fmt: skip


def measure_parts(task: Task, members: int, mapping: Mapping, turns: int) -> list[PartRow]:
    """Measure the loop, the loop without each part, and its matrix products, in turn.

    Ratios to the whole loop are taken per turn; the milliseconds are the median ratio times those
    of the whole loop.
    """
    compared = loops_of(task.network)
    loops = [
        Worker(mapping.devices, Population, task, members, mapping, loop)
        for loop in compared.values()
    ]
    floor = Worker(CORES, Floor, task, CORES)
    taken = [[*(loop.turn() for loop in loops), sum(floor.turn())] for _ in range(turns)]
    for worker in (*loops, floor):
        worker.close()
    whole = statistics.median(turn[0] for turn in taken)
    ratios = [[ms / turn[0] for ms in turn] for turn in taken]
    medians = map(statistics.median, zip(*ratios, strict=True))
    return [
        PartRow(task.network, members, mapping.name, part, whole * ratio)
        for part, ratio in zip([*compared, PRODUCTS], medians, strict=True)
    ]


def draw(rows: Sequence[Row]) -> Figure:
    """Draw ms per member-step over members: a panel per network, a line per mapping."""
    names = list(dict.fromkeys(row.network for row in rows))
    figure = Figure(figsize=(3.6 * len(names), 3.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        own = [row for row in rows if row.network == name]
        for mapping in dict.fromkeys(row.mapping for row in own):
            line = [(row.members, row.ms_per_member_step) for row in own if row.mapping == mapping]
            axes.plot(*zip(*line, strict=True), marker="o", label=mapping)
        floor = statistics.median(row.ms_per_member_step / row.floor_ratio for row in own)
        torch = statistics.median(row.ms_per_member_step * row.torch_ratio for row in own)
        axes.axhline(floor, color="0.5", linestyle=":", label="matrix products")
        if torch == torch:
            axes.axhline(torch, color="0.2", linestyle="--", label="PyTorch")
        ticks = sorted({row.members for row in own})
        axes.set(title=name, xlabel="members", xscale="log")
        axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axes.set_xticks([], minor=True)
        axes.set_ylim(bottom=0)
    figure.axes[0].set_ylabel("ms per member-step")
    figure.axes[-1].legend(fontsize="small")
    return figure


HEAD = [
    "network", "members", "mapping", "member-steps/s", "ms per member-step", "to the products",
    "PyTorch to ours", "peak MB", "compile s", "validation ms", "to its products",
]  # fmt: skip
PARTS_HEAD = [
    "network", "members", "mapping", "part", "ms per member-step", "of the whole loop",
]  # fmt: skip


def lines(rows: Sequence[Row]) -> list[list[str]]:
    """Return the cells below `HEAD`."""
    return [
        [
            row.network, f"{row.members}", row.mapping, f"{1e3 / row.ms_per_member_step:.1f}",
            f"{row.ms_per_member_step:.3g}", f"{row.floor_ratio:.2f}", f"{row.torch_ratio:.2f}",
            f"{row.peak_mb:.0f}", f"{row.compile_s:.1f}", f"{row.validation_ms:.3g}",
            f"{row.validation_floor_ratio:.2f}",
        ]
        for row in rows
    ]  # fmt: skip


def part_lines(rows: Sequence[PartRow]) -> list[list[str]]:
    """Return the cells below `PARTS_HEAD`; the rows must include every whole loop."""
    whole = {row[:3]: row.ms_per_member_step for row in rows if row.part == WHOLE}
    return [
        [
            row.network, f"{row.members}", row.mapping, row.part, f"{row.ms_per_member_step:.3g}",
            f"{row.ms_per_member_step / whole[row[:3]]:.2f}",
        ]
        for row in rows
    ]  # fmt: skip


def markdown(path: Path) -> str:
    """Return a table that this program wrote, of either kind, as Markdown."""
    if path.read_text().startswith(",".join(PartRow._fields)):
        return measurements.markdown(PARTS_HEAD, part_lines(measurements.read(path, PartRow)))
    return measurements.markdown(HEAD, lines(measurements.read(path, Row)))


def main(arguments: Sequence[str]) -> None:
    """Measure the lines that the flags name, and write the table and the figure."""
    try:
        if len(arguments) > 1:
            raise ValueError(f"unknown argument {arguments[1]!r}; flags start with --.")
        widths = {name: lookup("network", name, NETWORKS) for name in _NETWORKS.value}
        members = parse_members(_MEMBERS.value)
        mappings = [Mapping.parse(name) for name in _MAPPINGS.value]
    except ValueError as error:
        fail(error)
    tasks = [Task(name, _STEPS.value or (5 if w.pairs else 500)) for name, w in widths.items()]
    (_measure_parts if _PARTS.value else _measure_whole)(tasks, members, mappings)


def _measure_whole(
    tasks: Sequence[Task], members: Sequence[int], mappings: Sequence[Mapping]
) -> None:
    torch = _TORCH.value and importlib.util.find_spec("torch") is not None
    if _TORCH.value and not torch:
        print("PyTorch is not installed and is not compared")
    rows: list[Row] = []
    print(measurements.markdown(HEAD, []))

    def report(row: Row) -> None:
        rows.append(row)
        print(measurements.markdown_line(*lines([row])), flush=True)
        if _TABLE.value:
            measurements.write(Path(f"{_TABLE.value}.csv"), rows)
            with matplotlib_defaults():
                draw(rows).savefig(f"{_TABLE.value}.png", dpi=120)

    for task in tasks:
        measure_network(task, members, mappings, _TURNS.value, torch, _PATIENCE.value, report)
    if rows and _TABLE.value:
        measurements.write_machine(Path(f"{_TABLE.value}.csv"))


def _measure_parts(
    tasks: Sequence[Task], members: Sequence[int], mappings: Sequence[Mapping]
) -> None:
    rows: list[PartRow] = []
    print(measurements.markdown(PARTS_HEAD, []))
    for task, count, mapping in itertools.product(tasks, members, mappings):
        if mapping.devices > count:
            continue
        own = measure_parts(task, count, mapping, _TURNS.value)
        for line in part_lines(own):
            print(measurements.markdown_line(line), flush=True)
        rows += own
        if _TABLE.value:
            measurements.write(Path(f"{_TABLE.value}.csv"), rows)
    if rows and _TABLE.value:
        measurements.write_machine(Path(f"{_TABLE.value}.csv"))


if __name__ == "__main__":
    run_program(main)
