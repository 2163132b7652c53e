"""Panels that show the accuracy of supermasks against their density."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from experiments.plots.styles import Style, told_apart
from experiments.tables.curves import Row
from experiments.tables.hyperparameters import by_numbers, joined


def draw_lines(
    axes: Axes, rows: Sequence[Row], several: Sequence[str], by: str, style: Style, label: str
) -> None:
    """Draw the points of each combination of numbers; see `draw_points`.

    Args:
      axes: the panel.
      rows: of one method.
      several: the columns in which the rows of the figure have several numbers.
      by: the column with a point per value.
      style: of the first line; the others are lighter.
      label: the method.
    """
    groups = by_numbers(rows, several)
    styles = told_apart([style] * len(groups))
    for (numbers, own), lighter in zip(groups.items(), styles, strict=True):
        draw_points(axes, own, by, lighter, joined(label, numbers))


def draw_points(
    axes: Axes, rows: Iterable[Row], by: str, style: Style, label: str, *, is_faint: bool = False
) -> None:
    """Draw a point per value of the column `by`: the mean over seeds, with a bar for their range.

    Seeds that diverged are left out. A line joins the points in the order of `by`. Faint points
    have no bars, and their line is thin and below the others.
    """
    groups = defaultdict(list)
    for row in rows:
        if math.isfinite(row["test_accuracy"]):
            groups[row[by]].append((100 * row["density"], 100 * row["test_accuracy"]))
    groups = [np.array(groups[value]) for value in sorted(groups)]
    densities, means = np.array([group.mean(axis=0) for group in groups]).reshape(-1, 2).T
    options = {"linewidth": 0.7, "zorder": 1} if is_faint else {"linewidth": 1.2, "zorder": 2}
    options |= style.line_options() | ({"linestyle": "none"} if len(groups) == 1 else {})
    axes.plot(densities, means, label=label, markersize=3.8, **options)
    if not is_faint:
        lows, highs = (np.array([f(group[:, 1]) for group in groups]) for f in (np.min, np.max))
        axes.vlines(densities, lows, highs, color=style.color, alpha=0.35, linewidth=2)


def finish(axes: Axes, title: str) -> None:
    """Add the title, the labels and the grid of a panel."""
    axes.set_title(title, fontsize=9.5)
    axes.set_xlabel("% of weights left", fontsize=9.5)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5)


def legend_entries(panels: Iterable[Axes]) -> dict[str, Artist]:
    """Return what a legend of several panels shows: every name once, with its line."""
    return {
        name: line
        for axes in panels
        for line, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }


def range_note(seeds: str) -> str:
    """Return the sentence that explains points and bars; none for a single seed."""
    return "" if seeds == "1 seed" else f"Points: mean over {seeds}; bars: minimum to maximum."
