"""Measures training against its matrix products and against PyTorch.

    python -m tools.benchmark --networks=lenet300,conv2 --members=1,5 --table=results/benchmark

Every line is the whole training loop of a population: gather of batches, gradient, masked Adam and
validation at the paper's grid of 100 steps. Contenders take turns, each in a process of its own;
ratios are taken turn by turn and the median is printed. Mappings: map/D trains members one by one
on each of D devices, vmap/D all at once, 4xvmap/D four at a time.
"""

import csv
import importlib.util
import multiprocessing
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from absl import app, flags
from matplotlib.figure import Figure

from experiments.networks import NETWORKS
from tools import contenders
from tools.contenders import Mapping, Task

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
_TURNS = flags.DEFINE_integer("turns", 3, "turns of each contender", lower_bound=1)
_TORCH = flags.DEFINE_bool("torch", True, "compare with PyTorch where it is installed")
_PATIENCE = flags.DEFINE_float(
    "patience", 120, "seconds; lines whose turn would take longer are left out"
)
_TABLE = flags.DEFINE_string("table", None, "path without suffix for a .csv and a .png")


class Row(NamedTuple):
    """One line of the table.

    `floor_ratio` is to the matrix products of training and validation; `torch_ratio` is
    PyTorch's time by ours, NaN without PyTorch; the last two are the validation's milliseconds
    per member-step and its ratio to its own products, NaN where it was not taken apart.
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


_contender: Any = None


def _make(devices: int, name: str, arguments: tuple) -> None:
    global _contender
    contenders.use_devices(devices)
    _contender = getattr(contenders, name)(*arguments)
    _contender.turn()  # compiles, and warms caches


def _turn() -> Any:
    return _contender.turn()


def _ask(name: str) -> Any:
    return getattr(_contender, name)


class Worker:
    """A contender in a process of its own, which sleeps between turns."""

    def __init__(self, devices: int, name: str, *arguments: Any) -> None:
        """Start a class of `contenders` by its name, with so many XLA devices."""
        spawn = multiprocessing.get_context("spawn")
        self._process = ProcessPoolExecutor(1, mp_context=spawn)
        self._process.submit(_make, devices, name, arguments).result()

    def turn(self) -> Any:
        """What the contender's turn returns."""
        return self._process.submit(_turn).result()

    def ask(self, name: str) -> Any:
        """An attribute of the contender."""
        return self._process.submit(_ask, name).result()

    def close(self) -> None:
        """End the process."""
        self._process.shutdown()


def measure_network(
    task: Task,
    members: Sequence[int],
    mappings: Sequence[Mapping],
    turns: int,
    torch: bool,
    patience: float,
    report: Callable[[Row], None],
) -> None:
    """Measure all lines of one network, the fewest members first."""
    floor = Worker(CORES, "Floor", task, CORES)
    reference = Worker(1, "Torch", task, CORES) if torch else None
    known: dict[str, float] = {}
    for count in sorted(members):
        for mapping in mappings:
            if mapping.devices > max(count, 1):
                continue
            expected = known.get(mapping.name, 0.0) * count * task.steps / 1e3
            if expected > patience:
                print(f"{task.network} {count} {mapping.name}: left out, {expected:.0f} s a turn")
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
    """One line: ours, PyTorch and the products in turn, and ours without validation."""
    ours = Worker(mapping.devices, "Population", task, members, mapping)
    bare = Worker(mapping.devices, "Population", task, members, mapping, False)
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


def draw(rows: Sequence[Row]) -> Figure:
    """Milliseconds per member-step over members, one panel per network, one line per mapping."""
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


def read(path: Path) -> list[Row]:
    """The rows of a table that a benchmark wrote."""
    with path.open(newline="") as file:
        kinds = Row.__annotations__
        return [
            Row(**{name: kinds[name](text) for name, text in row.items()})
            for row in csv.DictReader(file)
        ]


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table for a page."""
    lines = [
        "| network | members | mapping | member-steps/s | ms per member-step | to the products "
        "| PyTorch to ours | peak MB | compile s | validation ms | to its products |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.network} | {row.members} | {row.mapping} | {1e3 / row.ms_per_member_step:.1f} "
        f"| {row.ms_per_member_step:.3g} | {row.floor_ratio:.2f} | {row.torch_ratio:.2f} "
        f"| {row.peak_mb:.0f} | {row.compile_s:.1f} | {row.validation_ms:.3g} "
        f"| {row.validation_floor_ratio:.2f} |"
        for row in rows
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Measure what the flags name, line by line, and write the table and the figure."""
    try:
        if len(arguments) > 1:
            raise ValueError(f"unknown argument {arguments[1]!r}; flags start with --.")
        names = [_known(name) for name in _NETWORKS.value]
        members = [_positive(text) for text in _MEMBERS.value]
        mappings = [Mapping.parse(name) for name in _MAPPINGS.value]
    except ValueError as error:
        sys.exit(f"error: {error}")
    torch = _TORCH.value and importlib.util.find_spec("torch") is not None
    if _TORCH.value and not torch:
        print("PyTorch is not installed: no comparison with it")
    rows: list[Row] = []
    print(
        f"{'network':10}{'members':>8} {'mapping':10}{'steps/s':>10}{'ms/step':>9}{'/floor':>8}"
        f"{'torch/':>8}{'MB':>8}{'compile':>9}{'valid.':>8}{'/floor':>8}"
    )

    def report(row: Row) -> None:
        rows.append(row)
        print(
            f"{row.network:10}{row.members:8} {row.mapping:10}{1e3 / row.ms_per_member_step:10.1f}"
            f"{row.ms_per_member_step:9.3f}{row.floor_ratio:8.2f}{row.torch_ratio:8.2f}"
            f"{row.peak_mb:8.0f}{row.compile_s:9.1f}{row.validation_ms:8.3f}"
            f"{row.validation_floor_ratio:8.2f}",
            flush=True,
        )
        if _TABLE.value:
            _write(rows, _TABLE.value)

    for name in names:
        steps = _STEPS.value or (5 if "conv" in name else 500)
        measure_network(
            Task(name, steps), members, mappings, _TURNS.value, torch, _PATIENCE.value, report
        )


def _known(name: str) -> str:
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; known: {', '.join(NETWORKS)}.")
    return name


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise ValueError(f"--members has {text!r}, expected numbers of 1 or more.")
    return int(text)


def _write(rows: Sequence[Row], table: str) -> None:
    path = Path(table)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(
            [x if not isinstance(x, float) else f"{x:.4g}" for x in row] for row in rows
        )
    draw(rows).savefig(path.with_name(path.name + ".png"), dpi=120)


if __name__ == "__main__":
    app.run(main)
