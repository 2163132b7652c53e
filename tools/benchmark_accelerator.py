"""Measure mappings, convolutions and precisions on an accelerator.

    python -m tools.benchmark_accelerator --table=results/benchmark_accelerator --minutes=25

Every line measures the whole training loop of a population on the first device, in its own process.
The most informative lines come first. The table is written after each line, and lines in it are not
measured again, so the same command on the same machine resumes where it stopped; with --minutes=0
it prints the table as Markdown. A line that does not fit into the device's memory is skipped.
Mappings are those of `tools.benchmark`; a single member is always trained alone.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments.problems.networks import NETWORKS
from supermask_jax.checks import unknown_name
from tools.benchmark import measurements
from tools.benchmark.floors import Axpy
from tools.benchmark.loops import Population
from tools.benchmark.subprocesses import Worker
from tools.benchmark.tasks import CONVOLUTIONS, Loop, Mapping, Task, parse_members, step_bytes

MAPPINGS = ["vmap/1", "64xvmap/1", "16xvmap/1", "4xvmap/1", "map/1"]
PRECISIONS = ("default", "tensorfloat32", "float32")


class Line(NamedTuple):
    """The settings of a measurement."""

    network: str
    members: int
    mapping: str
    convolution: str  # "default" in dense networks, which have none
    precision: str


class Row(NamedTuple):
    """One line of the table.

    `speedup_over_one_member` is in member-steps per second, over one member of the same network,
    convolution and precision; NaN where that was not measured. `bandwidth_ratio` is our time by
    that of `step_bytes` at the bandwidth of `Axpy`.
    """

    network: str
    members: int
    mapping: str
    convolution: str
    precision: str
    ms_per_member_step: float
    speedup_over_one_member: float
    bandwidth_ratio: float
    peak_mb: float
    compile_s: float

    @property
    def line(self) -> Line:
        """The settings of this measurement."""
        return Line(self.network, self.members, self.mapping, self.convolution, self.precision)


HEAD = [
    "network", "members", "mapping", "convolution", "precision", "ms per member-step",
    "to one member", "to the bandwidth", "peak MB", "compile s",
]  # fmt: skip


def make_lines(
    networks: Sequence[str],
    members: Sequence[int],
    mappings: Sequence[str],
    convolutions: Sequence[str],
    precisions: Sequence[str],
) -> list[Line]:
    """All lines: one member and the largest population by the first mapping, then this population
    by other mappings, then populations between."""
    stages: tuple[list[Line], ...] = [], [], []
    for precision in precisions:
        for network in networks:
            pairs = NETWORKS[network].pairs
            sizes = members or ((1, 4, 16, 32) if pairs else (1, 4, 16, 64, 256))
            for convolution in convolutions if pairs else ["default"]:
                for count in sizes:
                    for mapping in _own_mappings(mappings, count):
                        first = count == 1 or mapping == mappings[0]
                        stage = 2 if 1 < count < max(sizes) else 0 if first else 1
                        line = Line(network, count, mapping, convolution, precision)
                        stages[stage].append(line)
    return [line for stage in stages for line in stage]


def _own_mappings(mappings: Sequence[str], members: int) -> list[str]:
    """Return the mappings that differ for this number of members."""
    if members == 1:
        return ["map/1"]
    own: dict[int | None, str] = {}
    for name in mappings:
        width = Mapping.parse(name).width
        own.setdefault(width if width is None else min(width or members, members), name)
    return list(own.values())


def measure(line: Line, steps: int, turns: int, bandwidth: float, rows: Sequence[Row]) -> Row:
    """Measure one line.

    Args:
      line: its settings.
      steps: the steps of a turn.
      turns: the number of turns, of which the median counts.
      bandwidth: the memory bandwidth in bytes per second.
      rows: the rows measured before.

    Raises:
      jax.errors.JaxRuntimeError: from XLA, mostly if the memory does not suffice.
      BrokenProcessPool: if the process was killed.
    """
    task, mapping = Task(line.network, steps), Mapping.parse(line.mapping)
    loop = Loop(line.convolution, line.precision)
    with closing(Worker(1, Population, task, line.members, mapping, loop)) as worker:
        ms = statistics.median(worker.turn() for _ in range(turns))
        peak_mb, compile_s = worker.ask("peak_mb"), worker.ask("compile_s")
    alone = line._replace(members=1, mapping="map/1")
    known = {row.line: row.ms_per_member_step for row in rows} | {line: ms}
    floor_ms = 1e3 * step_bytes(task) / bandwidth
    speedup = known.get(alone, float("nan")) / ms
    return Row(*line, ms, speedup, ms / floor_ms, peak_mb, compile_s)


def measure_all(
    lines: Sequence[Line],
    measure_line: Callable[[Line], Row],
    report: Callable[[Row], None],
    seconds: float,
) -> None:
    """Measure lines until the time is up; a line that fails is skipped with a message."""
    end = time.monotonic() + seconds
    for index, line in enumerate(lines):
        if time.monotonic() >= end:
            print(f"the time is up: {len(lines) - index} lines are left")
            return
        try:
            report(measure_line(line))
        except (jax.errors.JaxRuntimeError, BrokenProcessPool) as error:
            print(f"{' '.join(map(str, line))}: skipped: {str(error).splitlines()[0]}", flush=True)


def cells(row: Row) -> list[str]:
    """Return the cells below `HEAD`."""
    return [
        row.network, f"{row.members}", row.mapping, row.convolution, row.precision,
        f"{row.ms_per_member_step:.3g}", f"{row.speedup_over_one_member:.2f}",
        f"{row.bandwidth_ratio:.2f}", f"{row.peak_mb:.0f}", f"{row.compile_s:.1f}",
    ]  # fmt: skip


def markdown(path: Path) -> str:
    """Return a table that this program wrote as Markdown."""
    return measurements.markdown(HEAD, map(cells, measurements.read(path, Row)))


def main(arguments: Sequence[str]) -> None:
    """Measure the lines that the arguments name and the table lacks."""
    options = _parser().parse_args(arguments)
    try:
        path = Path(f"{options.table}.csv").expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = _wanted(options)
        rows = measurements.read(path, Row)
    except (ValueError, OSError, RuntimeError) as error:  # RuntimeError: ~user is not known
        sys.exit(f"error: {error}")
    with closing(Worker(1, Axpy, options.axpy_size)) as axpy:
        bandwidth = statistics.median(axpy.turn() for _ in range(options.turns))
        print(f"{axpy.ask('device')}, {bandwidth / 1e9:.0f} GB/s, jax {jax.__version__}\n")
    print(measurements.markdown(HEAD, map(cells, rows)), flush=True)

    def measure_line(line: Line) -> Row:
        steps = options.steps or (20 if NETWORKS[line.network].pairs else 100)
        return measure(line, steps, options.turns, bandwidth, rows)

    def report(row: Row) -> None:
        rows.append(row)
        print(measurements.markdown_line(cells(row)), flush=True)
        measurements.write(path, rows)

    known = {row.line for row in rows}
    left = [line for line in lines if line not in known]
    measure_all(left, measure_line, report, 60 * options.minutes)
    measurements.write_machine(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m tools.benchmark_accelerator",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def add(name: str, default: Any, kind: Callable[[str], Any], text: str) -> None:
        parser.add_argument(f"--{name}", default=default, type=kind, help=text)

    add("networks", ["lenet300", "conv2", "conv6"], _names, "networks to measure")
    add("members", [], _names, "populations; by default 1 to 256, of convolutions 1 to 32")
    add("mappings", MAPPINGS, _names, "how members share the device")
    add("convolutions", ["lax", "canonical", "shifted"], _names, f"of {', '.join(CONVOLUTIONS)}")
    add("precisions", ["float32", "tensorfloat32"], _names, f"of {', '.join(PRECISIONS)}")
    add("steps", 0, int, "steps of one turn; 0 is 100, or 20 for convolutions")
    add("turns", 3, int, "turns of each line")
    add("minutes", 25, float, "no line starts later than this")
    add("axpy_size", 2**26, int, "float32 of a vector; three should not fit the caches")
    parser.add_argument("--table", required=True, help="path without suffix for a .csv")
    return parser


def _names(text: str) -> list[str]:
    return text.split(",")


def _wanted(options: argparse.Namespace) -> list[Line]:
    """Return the lines that the arguments name."""
    for kind, names, known in (
        ("network", options.networks, NETWORKS),
        ("convolution", options.convolutions, CONVOLUTIONS),
        ("precision", options.precisions, PRECISIONS),
    ):
        for name in names:
            if name not in known:
                raise ValueError(unknown_name(kind, name, known))
    for name in options.mappings:
        if Mapping.parse(name).devices != 1:
            raise ValueError(f"mapping {name!r} is not of one device.")
    if options.turns < 1 or options.steps < 0:
        raise ValueError("--turns is 1 or more and --steps 0 or more.")
    return make_lines(
        options.networks,
        parse_members(options.members),
        options.mappings,
        options.convolutions,
        options.precisions,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
