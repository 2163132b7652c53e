"""Results as a table to read: variants against the weights left."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from experiments.plots.curves import (
    DENSE,
    Curve,
    Row,
    left_out,
    make_curves,
    num_seeds,
    setting,
)

MOST_COLUMNS = 6
LONGEST_NAME = 33  # characters; longer ones take two lines


def summary(rows: Sequence[Row], width: int = 80) -> Table:
    """Test accuracy at a few rounds from first to last: dense, then the best variant first.

        console.print(summary(results.read_rows(path), width=console.width))

    Args:
      rows: the table of results.
      width: characters to fit into; fewer of them show fewer rounds.

    Raises:
      ValueError: if there are no rows, or rows of several networks or data sets.
    """
    dense, variants = make_curves(rows)
    curves = [dense] if dense else []
    curves += sorted(variants, key=lambda curve: curve.end, reverse=True)
    names = [_in_lines(curve.variant) for curve in curves]
    network, dataset = setting(rows)
    table = Table(
        title=f"{network} on {dataset}",
        caption=_caption(rows),
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("variant", overflow="fold")
    rounds = _some_rounds(curves, width - max(len(line) for name in names for line in name))
    for number in rounds:
        header = f"round {number}\n{_weights_left(curves, number)}"
        table.add_column(header, justify="right", no_wrap=True)
    for curve, name in zip(curves, names, strict=True):
        table.add_row(Text("\n".join(name)), *(_cell(curve, number) for number in rounds))
    return table


def supermask_summary(rows: Sequence[Row], width: int = 80) -> Table:
    """Test accuracy of supermasks, mean and range over seeds, each at the density where the mean
    validation accuracy is best; of heuristic masks also the mean of every seed's best density.

    Args:
      rows: a table of `experiments.one_shot` or `experiments.learned`.
      width: of the console; narrow ones fold.
    """
    heuristic = "power" in rows[0]
    by = "power" if heuristic else "initial_logit"
    groups: dict[str, list[Row]] = {}
    for row in rows:
        name = f"{row['criterion']}, {row['weights']}" if heuristic else row["variant"]
        groups.setdefault(name, []).append(row)
    table = Table(
        title=f"{rows[0]['network']} on {rows[0]['dataset']}: test accuracy (%)",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        width=min(width, 100),
    )
    heads = [by.replace("_", " "), "weights kept", "test accuracy"]
    for head in ("supermask", *heads, *["best of all densities"] * heuristic):
        table.add_column(head, justify="left" if head == "supermask" else "right")
    lines = []
    for name, own in groups.items():
        at = _chosen([r for r in own if r[by] == value] for value in {r[by] for r in own})
        density = 100 * float(np.mean([row["density"] for row in at]))
        cells = [f"{at[0][by]:g}", f"{density:.3g} %", _range([row["test_accuracy"] for row in at])]
        if heuristic:
            seeds = {row["seed"] for row in own}
            cells.append(
                _range([max(r["test_accuracy"] for r in own if r["seed"] == s) for s in seeds])
            )
        lines.append((np.mean([row["test_accuracy"] for row in at]), name, cells))
    for _, name, cells in sorted(lines, key=lambda line: -line[0]):
        table.add_row(name, *cells)
    return table


def _chosen(groups: Iterable[list[Row]]) -> list[Row]:
    """The rows of the setting with the highest mean validation accuracy."""
    return max(groups, key=lambda own: np.mean([row["validation_accuracy"] for row in own]))


def _range(values: Sequence[float]) -> str:
    mean, low, high = (100 * f(values) for f in (np.mean, np.min, np.max))
    return f"{mean:.2f}" if len(values) == 1 else f"{mean:.2f} ({low:.2f} to {high:.2f})"


def _in_lines(variant: str) -> list[str]:
    head, _, tail = variant.rpartition(":")
    return [head, f":{tail}"] if head and len(variant) > LONGEST_NAME else [variant]


def _some_rounds(curves: Sequence[Curve], width: int) -> list[int]:
    """Rounds evenly spaced from the first to the last, as many as `width` characters hold."""
    rounds = sorted({int(number) for curve in curves for number in curve.rounds})
    widest = max(len(_cell(curve, number)) for curve in curves for number in rounds)
    num_columns = min(MOST_COLUMNS, max(2, width // (widest + 2)))
    places = np.linspace(0, len(rounds) - 1, num_columns).round().astype(int)
    return [rounds[place] for place in np.unique(places)]


def _weights_left(curves: Sequence[Curve], number: int) -> str:
    percents = [p for curve in curves for p in curve.weights_left[curve.rounds == number]]
    return f"{np.mean(percents):.3g} %"


def _cell(curve: Curve, number: int) -> str:
    if (curve.variant == DENSE) != (number == 0):
        return ""
    at = curve.rounds == number
    if not at.any():
        return "-"
    mean, low, high = (float(values[at][0]) for values in (curve.mean, curve.low, curve.high))
    if not math.isfinite(mean):
        return "diverged"
    if curve.num_members[at][0] == 1:
        return f"{mean:.2f}"
    return f"{mean:.2f} ± {(high - low) / 2:.2f}"


def _caption(rows: Sequence[Row]) -> str:
    seeds = num_seeds(rows)
    spread = "" if seeds == "1 seed" else "mean ± half the min-max range of "
    return " ".join([f"Test accuracy (%): {spread}{seeds}.", *left_out(rows)])
