"""Measure pruning by selection against sorting, NumPy, `lax.top_k` and PyTorch.

    python -m tools.benchmark_pruning --sizes=1e4,1e6,25e6 --table=results/benchmark_pruning

Every line prunes one leaf of normal weights to a fifth, by magnitude. The ways take turns, each in
its own process; the seconds are the median. A way that is expected to need more than --patience
seconds or --memory gigabytes, by its line of the size before, is skipped, and a line says so.
Lines are printed as Markdown.
"""

import argparse
import importlib.util
import itertools
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from supermask_jax.checks import lookup
from tools.benchmark import measurements
from tools.benchmark.pruners import PRUNERS, TORCH, Pruner
from tools.benchmark.subprocesses import Worker

DTYPES = {"float32": 4, "bfloat16": 2}  # bytes
MASKS = 2  # bytes per weight, before and after


class Row(NamedTuple):
    """One line of the table.

    `bytes_per_weight` is working memory beyond scores and masks. `ratio` is the time of this way by
    ours in the same turns, NaN if ours was not measured.
    """

    dtype: str
    weights: int
    way: str
    seconds: float
    bytes_per_weight: float
    ratio: float


HEAD = ["type", "weights", "way", "seconds", "bytes per weight", "time to ours"]


def lines(rows: Sequence[Row]) -> list[list[str]]:
    """Return the cells below `HEAD`."""
    return [
        [
            row.dtype, f"{row.weights:.3g}", row.way, f"{row.seconds:.3g}",
            f"{row.bytes_per_weight:.1f}", f"{row.ratio:.2f}",
        ]
        for row in rows
    ]  # fmt: skip


def markdown(path: Path) -> str:
    """Return a table that this program wrote as Markdown."""
    return measurements.markdown(HEAD, lines(measurements.read(path, Row)))


def measure(size: int, dtype: str, ways: Sequence[str], turns: int) -> list[Row]:
    """Measure all ways at one size, in turn."""
    workers = {way: Worker(1, Pruner, way, size, dtype) for way in ways}
    taken = {way: [] for way in ways}
    for _, way in itertools.product(range(turns), ways):
        taken[way].append(workers[way].turn())
    memory = {way: worker.ask("bytes_per_weight") for way, worker in workers.items()}
    for worker in workers.values():
        worker.close()
    own = taken.get("ours", [float("nan")] * turns)
    return [
        Row(
            dtype, size, way, statistics.median(seconds), memory[way],
            statistics.median(a / b for a, b in zip(seconds, own, strict=True)),
        )
        for way, seconds in taken.items()
    ]  # fmt: skip


def why_not(row: Row, size: int, patience: float, memory: float) -> str | None:
    """Tell why a way cannot be measured at a larger size than that of its row; None if it can."""
    seconds = row.seconds * size / row.weights
    needed = (row.bytes_per_weight + MASKS + DTYPES[row.dtype]) * size / 1e9
    if seconds > patience:
        return f"it would take {seconds:.0f} s"
    return f"it would need {needed:.0f} GB" if needed > memory else None


def draw(rows: Sequence[Row]) -> Figure:
    """Draw seconds and bytes per weight over the number of weights: a colour per way."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    colours = {way: f"C{i}" for i, way in enumerate(dict.fromkeys(row.way for row in rows))}
    left, right = figure.subplots(1, 2)
    for axes, field in ((left, "seconds"), (right, "bytes_per_weight")):
        for dtype, way in dict.fromkeys((row.dtype, row.way) for row in rows):
            own = [row for row in rows if (row.dtype, row.way) == (dtype, way)]
            line = [(row.weights, getattr(row, field)) for row in own]
            style = "o-" if dtype == "float32" else "x--"
            label = f"{way}, {dtype}"
            axes.plot(*zip(*line, strict=True), style, color=colours[way], label=label)
        axes.set(xscale="log", xlabel="weights", ylabel=field.replace("_", " "))
    left.set_yscale("log")
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the sizes, types and ways that the flags name."""
    flags = _parser().parse_args(arguments)
    try:
        sizes = sorted({_size(text) for text in flags.sizes.split(",")})
        dtypes = [text for text in flags.dtypes.split(",") if lookup("type", text, DTYPES)]
        known = dict.fromkeys([*PRUNERS, *TORCH], True)
        ways = [text for text in flags.ways.split(",") if lookup("way", text, known)]
    except ValueError as error:
        sys.exit(f"error: {error}")
    if importlib.util.find_spec("torch") is None and set(ways) & set(TORCH):
        print("PyTorch is not installed and is not compared")
        ways = [way for way in ways if way not in TORCH]
    rows: list[Row] = []
    print(measurements.markdown(HEAD, []))
    for dtype in dtypes:
        last: dict[str, Row] = {}
        for size in sizes:
            reasons = {w: why_not(last[w], size, flags.patience, flags.memory) for w in last}
            for way, reason in reasons.items():
                if reason:
                    print(f"{dtype} {size:.3g} {way}: skipped, {reason}")
            fit = [w for w in ways if not reasons.get(w) and (w, dtype) != NO_BFLOAT16]
            for row in measure(size, dtype, fit, flags.turns):
                last[row.way] = row
                rows.append(row)
                print(measurements.markdown_line(*lines([row])), flush=True)
            if flags.table:
                measurements.write(Path(f"{flags.table}.csv"), rows)
                draw(rows).savefig(f"{flags.table}.png", dpi=120)
    if flags.table:
        measurements.write_machine(Path(f"{flags.table}.csv"))


NO_BFLOAT16 = ("np.partition", "bfloat16")  # NumPy cannot partition this type


def _size(text: str) -> int:
    try:
        size = int(float(text))
    except (ValueError, OverflowError):
        size = 0
    if not 10 <= size < 2**31:
        raise ValueError(f"--sizes has {text!r}, expected numbers from 10 to 2e9.")
    return size


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--sizes", default="1e4,1e5,1e6,1e7,25e6", help="weights of the leaf")
    parser.add_argument("--dtypes", default=",".join(DTYPES), help="types of the scores")
    parser.add_argument("--ways", default=",".join([*PRUNERS, *TORCH]), help="ways to prune")
    parser.add_argument("--turns", type=int, default=5, help="turns of each way")
    parser.add_argument("--patience", type=float, default=60, help="seconds of a turn at most")
    parser.add_argument("--memory", type=float, default=20, help="gigabytes of a way at most")
    parser.add_argument("--table", help="path without suffix for a .csv and a .png")
    return parser


if __name__ == "__main__":
    main()
