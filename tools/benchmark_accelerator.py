"""Measure mappings, convolutions and precisions on an accelerator.

    python -m tools.benchmark_accelerator --table=results/benchmark_accelerator --minutes=25

Every line measures the whole training loop of a population on the first device, in its own process.
The most informative lines come first. The table is written after each line, and lines in it are not
measured again, so the same command on the same machine resumes where it stopped; with --minutes=0
it prints the table as Markdown. A line that does not fit into the device's memory is skipped, and
the line that runs when the minutes are over is ended. Mappings are those of `tools.benchmark`, and
two of PyTorch: torch trains one network by plain autograd, which is what each of several takes one
after the other, and torch.func trains all at once by its vmap. A single member is always trained
alone. With --short the lines are those that decide the laboratory's defaults, in four minutes.
"""

import argparse
import importlib.util
import multiprocessing
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
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
from tools.benchmark.torch_loops import Torch

ALONE, TOGETHER = TORCH = ("torch", "torch.func")  # one network, several at once
MAPPINGS = ["vmap/1", "64xvmap/1", "16xvmap/1", "4xvmap/1", "map/1", *TORCH]
PRECISIONS = ("default", "tensorfloat32", "float32")
NAMED: dict[str, list[str]] = {  # the flags that name lines, with their defaults
    "networks": ["lenet300", "conv2", "conv6"],
    "members": [],
    "mappings": MAPPINGS,
    "convolutions": ["lax", "canonical", "shifted"],
    "precisions": ["float32", "tensorfloat32"],
}
# The arguments of `make_lines` for --short, of which four minutes measure the upper ones. Does vmap
# pay, is PyTorch faster, which convolution? Then what TensorFloat-32 saves, then what groups save.
DENSE, CONV2, CONV6, PAIR = ["lenet300"], ["conv2"], ["conv6"], ["lax", "shifted"]
ALL, EACH, GROUPS = ["vmap/1"], ["vmap/1", *TORCH], ["vmap/1", "16xvmap/1"]
SHORT = (
    (DENSE, [1, 256], EACH, PAIR, ["float32"]),
    (CONV2, [1, 8], EACH, ["lax"], ["float32"]),
    (CONV2, [8], ALL, ["shifted"], ["float32"]),
    (CONV2, [8], ALL, PAIR, ["tensorfloat32"]),
    (DENSE, [256], ALL, PAIR, ["tensorfloat32"]),
    (CONV6, [1, 8], EACH, ["lax"], ["float32"]),
    (CONV6, [8], ALL, ["shifted"], ["float32"]),
    (CONV6, [8], ALL, PAIR, ["tensorfloat32"]),
    (DENSE, [48, 256], GROUPS, PAIR, ["float32"]),
    ([*CONV2, *CONV6], [32], GROUPS, PAIR, ["float32"]),
    (DENSE, [1, 48, 256], [*GROUPS, *TORCH], PAIR, ["float32", "tensorfloat32"]),
    ([*CONV2, *CONV6], [1, 8, 32], [*GROUPS, *TORCH], PAIR, ["float32", "tensorfloat32"]),
)


class Line(NamedTuple):
    """The settings of a measurement."""

    network: str
    members: int
    mapping: str
    convolution: str  # "default" in dense networks, which have none, and in PyTorch
    precision: str

    @property
    def alone(self) -> "Line":
        """The line of one member that this one is compared with."""
        mapping = ALONE if self.mapping in TORCH else "map/1"
        return self._replace(members=1, mapping=mapping)


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
                        own = "default" if mapping in TORCH else convolution
                        stages[stage].append(Line(network, count, mapping, own, precision))
    return list(dict.fromkeys(line for stage in stages for line in stage))


def _own_mappings(mappings: Sequence[str], members: int) -> list[str]:
    """Return the mappings that differ for this number of members."""
    if members == 1:
        return ["map/1", *({ALONE} & {*mappings})]
    own: dict[int | str | None, str] = {}
    for name in mappings:
        if name == TOGETHER:
            own[name] = name
        elif name != ALONE:
            width = Mapping.parse(name).width
            own.setdefault(width if width is None else min(width or members, members), name)
    return list(own.values())


def short_lines() -> list[Line]:
    """Return the lines of `SHORT`, each once."""
    return list(dict.fromkeys(line for stage in SHORT for line in make_lines(*stage)))


def measure(
    line: Line, steps: int, turns: int, patience: float, bandwidth: float, rows: Sequence[Row]
) -> Row:
    """Measure one line.

    Args:
      line: its settings.
      steps: the steps of a turn.
      turns: the number of turns, of which the median counts.
      patience: in seconds; no turn but the first starts later.
      bandwidth: the memory bandwidth in bytes per second.
      rows: the rows measured before.

    Raises:
      RuntimeError: from XLA or PyTorch, mostly if the memory does not suffice;
        `BrokenProcessPool` if the process was killed.
    """
    task = Task(line.network, steps)
    with closing(_worker(line, task)) as worker:
        end = time.monotonic() + patience
        taken = [worker.turn()]
        while len(taken) < turns and time.monotonic() < end:
            taken.append(worker.turn())
        peak_mb, compile_s = worker.ask("peak_mb"), worker.ask("compile_s")
    ms = statistics.median(taken)
    known = {row.line: row.ms_per_member_step for row in rows} | {line: ms}
    floor_ms = 1e3 * step_bytes(task) / bandwidth
    speedup = known.get(line.alone, float("nan")) / ms
    return Row(*line, ms, speedup, ms / floor_ms, peak_mb, compile_s)


def _worker(line: Line, task: Task) -> Worker:
    if line.mapping in TORCH:
        return Worker(1, Torch, task, None, line.members, line.precision)
    loop = Loop(line.convolution, line.precision)
    return Worker(1, Population, task, line.members, Mapping.parse(line.mapping), loop)


def measure_all(
    lines: Sequence[Line],
    measure_line: Callable[[Line], Row],
    report: Callable[[Row], None],
    seconds: float,
) -> None:
    """Measure lines until the time is up; a line that fails is skipped with a message.

    The processes of the line that runs when the time is up are ended.
    """
    end = time.monotonic() + seconds
    with _workers_end_after(seconds):
        for index, line in enumerate(lines):
            failure = ""
            if time.monotonic() < end:
                try:
                    report(measure_line(line))
                    continue
                except RuntimeError as error:
                    failure = (str(error).strip().splitlines() or [type(error).__name__])[0]
            if time.monotonic() >= end:
                print(f"the time is up: {len(lines) - index} lines are left")
                return
            print(f"{' '.join(map(str, line))}: skipped: {failure}", flush=True)


@contextmanager
def _workers_end_after(seconds: float) -> Iterator[None]:
    """Limit the time of workers."""
    alarm = threading.Timer(min(seconds, threading.TIMEOUT_MAX), _end_workers)
    alarm.daemon = True
    alarm.start()
    try:
        yield
    finally:
        alarm.cancel()


def _end_workers() -> None:
    """End the processes of this one's workers, whose calls then raise `BrokenProcessPool`."""
    for process in multiprocessing.active_children():
        process.kill()


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
    begin = time.monotonic()
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
        return measure(line, steps, options.turns, options.patience, bandwidth, rows)

    def report(row: Row) -> None:
        rows.append(row)
        print(measurements.markdown_line(cells(row)), flush=True)
        measurements.write(path, rows)

    known = {row.line for row in rows}
    left = [line for line in lines if line not in known]
    minutes = options.minutes if options.minutes is not None else 4 if options.short else 25
    measure_all(left, measure_line, report, 60 * minutes - (time.monotonic() - begin))
    measurements.write_machine(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m tools.benchmark_accelerator",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def add(name: str, default: Any, kind: Callable[[str], Any], text: str) -> None:
        parser.add_argument(f"--{name}", default=default, type=kind, help=text)

    add("networks", None, _names, "networks to measure")
    add("members", None, _names, "populations; by default 1 to 256, of convolutions 1 to 32")
    add("mappings", None, _names, "how members share the device")
    add("convolutions", None, _names, f"of {', '.join(CONVOLUTIONS)}")
    add("precisions", None, _names, f"of {', '.join(PRECISIONS)}")
    parser.add_argument("--short", action="store_true", help="measure a short list of lines")
    add("steps", 0, int, "steps of one turn; 0 is 100, or 20 for convolutions")
    add("turns", 3, int, "turns of each line")
    add("patience", 20, float, "seconds after which a line takes no further turn")
    add("minutes", None, float, "limit of the whole command; by default 25, or 4 with --short")
    add("axpy_size", 2**26, int, "float32 of a vector; three should not fit the caches")
    parser.add_argument("--table", required=True, help="path without suffix for a .csv")
    return parser


def _names(text: str) -> list[str]:
    return text.split(",")


def _wanted(options: argparse.Namespace) -> list[Line]:
    """Return the lines that the arguments name, without those of PyTorch if it is not installed."""
    if options.turns < 1 or options.steps < 0:
        raise ValueError("--turns is 1 or more and --steps 0 or more.")
    for name in ("patience", "minutes"):
        if not (getattr(options, name) or 0) >= 0:
            raise ValueError(f"--{name} is {getattr(options, name)}, expected 0 or more.")
    lines = _short(options) if options.short else _named(options)
    if importlib.util.find_spec("torch") is None and any(x.mapping in TORCH for x in lines):
        print("PyTorch is not installed and is not compared")
        return [line for line in lines if line.mapping not in TORCH]
    return lines


def _short(options: argparse.Namespace) -> list[Line]:
    for name in NAMED:
        if getattr(options, name) is not None:
            raise ValueError(f"--short has lines of its own, expected no --{name} beside it.")
    return short_lines()


def _named(options: argparse.Namespace) -> list[Line]:
    networks, members, mappings, convolutions, precisions = (
        default if getattr(options, name) is None else getattr(options, name)
        for name, default in NAMED.items()
    )
    for kind, names, known in (
        ("network", networks, NETWORKS),
        ("convolution", convolutions, CONVOLUTIONS),
        ("precision", precisions, PRECISIONS),
    ):
        for name in names:
            if name not in known:
                raise ValueError(unknown_name(kind, name, known))
    for name in mappings:
        if name not in TORCH and Mapping.parse(name).devices != 1:
            raise ValueError(f"mapping {name!r} is not of one device.")
    return make_lines(networks, parse_members(members), mappings, convolutions, precisions)


if __name__ == "__main__":
    main(sys.argv[1:])
