"""A summary of results for the terminal."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from experiments.tables.barriers import BARRIER, barriers, is_of_lines
from experiments.tables.curves import (
    ACCURACY,
    DENSE,
    Curve,
    Measure,
    Row,
    in_lines,
    left_out,
    make_curves,
    num_seeds,
    setting,
)
from experiments.tables.hyperparameters import joined
from experiments.tables.selection import SelectedMasks, is_heuristic, select_masks

MOST_COLUMNS = 6


def summary(rows: Sequence[Row], width: int = 80) -> Table:
    """Return a summary of the table of any runner.

        console.print(summary(registry.read_table(path), width=console.width))

    Args:
      rows: the table of results.
      width: the width of the terminal in characters; a narrow one shows fewer rounds.

    Raises:
      ValueError: if there are no rows, or rows of several networks or data sets.
    """
    network, dataset = setting(rows)
    table = Table(
        title=f"{network} on {dataset}",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    if is_of_lines(rows):
        _fill_rounds(table, barriers(rows), width, BARRIER)
        table.caption = f"Error barrier (percentage points): {_spread(rows)}"
    elif "round" in rows[0]:
        _fill_rounds(table, rows, width, ACCURACY)
        table.caption = " ".join([f"Test accuracy (%): {_spread(rows)}", *left_out(rows)])
    else:
        _fill_supermasks(table, rows)
    return table


def _fill_rounds(table: Table, rows: Sequence[Row], width: int, measure: Measure) -> None:
    """Fill in a measure at some rounds: dense networks, then variants, highest first."""
    dense, variants = make_curves(rows, measure)
    curves = [*dense, *sorted(variants, key=lambda curve: curve.end, reverse=True)]
    names = [in_lines(curve.name) for curve in curves]
    table.add_column("variant", overflow="fold")
    rounds = _some_rounds(curves, width - max(len(line) for name in names for line in name))
    for number in rounds:
        header = f"round {number}\n{_weights_left(curves, number)}"
        table.add_column(header, justify="right", no_wrap=True)
    for curve, name in zip(curves, names, strict=True):
        table.add_row(Text("\n".join(name)), *(_cell(curve, number) for number in rounds))


def _fill_supermasks(table: Table, rows: Sequence[Row]) -> None:
    """Fill in test accuracies of supermasks at the setting that is best on validation."""
    seeds = num_seeds(rows)
    chosen = "density" if is_heuristic(rows) else "initial logit"
    table.caption = f"Test accuracy (%) at the {chosen} best on validation: {seeds}"
    table.caption += "." if seeds == "1 seed" else ", mean ± half the min-max range."
    if is_heuristic(rows):
        table.caption += " max: the mean of every seed's best density on test."
        _add_heuristic(table, select_masks(rows))
    else:
        _add_learned(table, select_masks(rows))


def _add_heuristic(table: Table, found: Sequence[SelectedMasks]) -> None:
    """Add a line per mask criterion, the best first, and a column per kind of weights."""
    kinds = list(dict.fromkeys(masks.weights for masks in found))
    table.add_column("criterion", overflow="fold")
    for kind in kinds:
        table.add_column(kind.replace("_", " "), justify="right")
    cells: dict[str, dict[str, SelectedMasks]] = {}
    for masks in found:
        cells.setdefault(masks.criterion, {})[masks.weights] = masks
    for criterion, own in sorted(cells.items(), key=lambda item: -_best_mean(item[1].values())):
        table.add_row(criterion, *(_two_lines(own[kind]) if kind in own else "-" for kind in kinds))


def _add_learned(table: Table, found: Sequence[SelectedMasks]) -> None:
    """Add a line per kind of weights, the best first."""
    table.add_column("frozen weights", overflow="fold")
    for head in ("initial logit", "weights left", "test accuracy"):
        table.add_column(head, justify="right")
    for masks in sorted(found, key=lambda masks: -masks.accuracies.mean()):
        table.add_row(
            joined(masks.weights.replace("_", " ") + ", rescaled" * masks.rescale, masks.numbers),
            f"{masks.setting:g}",
            f"{masks.density:.3g} %",
            _mean(masks.accuracies),
        )


def _two_lines(masks: SelectedMasks) -> str:
    return f"{_mean(masks.accuracies, 1)}\nmax {masks.maxima.mean():.1f}"


def _best_mean(found: Iterable[SelectedMasks]) -> float:
    return max(float(masks.accuracies.mean()) for masks in found)


def _mean(accuracies: np.ndarray, digits: int = 2) -> str:
    spread = "" if len(accuracies) == 1 else f" ± {np.ptp(accuracies) / 2:.{digits}f}"
    return f"{accuracies.mean():.{digits}f}{spread}"


def _some_rounds(curves: Sequence[Curve], width: int) -> list[int]:
    """Return evenly spaced rounds from first to last, as many as fit into `width`."""
    rounds = sorted({int(number) for curve in curves for number in curve.rounds})
    heads = [_weights_left(curves, number) for number in rounds]
    cells = [_cell(curve, number) for curve in curves for number in rounds]
    widest = max(len(text) for text in (*heads, *cells))
    num_columns = min(MOST_COLUMNS, max(2, width // (widest + 2)))
    places = np.linspace(0, len(rounds) - 1, num_columns).round().astype(int)
    return [rounds[place] for place in np.unique(places)]


def _weights_left(curves: Sequence[Curve], number: int) -> str:
    percents = [p for curve in curves for p in curve.weights_left[curve.rounds == number]]
    ends = dict.fromkeys(f"{percent:.3g}" for percent in (min(percents), max(percents)))
    return f"{' to '.join(ends)} %"


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


def _spread(rows: Sequence[Row]) -> str:
    seeds = num_seeds(rows)
    return f"{'' if seeds == '1 seed' else 'mean ± half the min-max range of '}{seeds}."
