"""Panels of supermasks' accuracies against density."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes

from experiments.plots.curves import Row
from experiments.plots.styles import Style


def setting(rows: Sequence[Row]) -> str:
    """``network on data set`` of a table.

    Raises:
      ValueError: if there are no rows, or rows of several networks or data sets.
    """
    found = {(row["network"], row["dataset"]) for row in rows}
    if len(found) != 1:
        raise ValueError(f"expected rows of one network and data set, found {sorted(found)}.")
    network, dataset = found.pop()
    return f"{network} on {dataset}"


def draw_points(axes: Axes, rows: Iterable[Row], by: str, style: Style, label: str) -> None:
    """A line of means over seeds, a band of their range; a point per value of `by`."""
    groups = defaultdict(list)
    for row in rows:
        groups[row[by]].append((100 * row["density"], 100 * row["test_accuracy"]))
    points = np.array([np.mean(group, axis=0) for group in groups.values()])
    lows, highs = (
        np.array([f([accuracy for _, accuracy in group]) for group in groups.values()])
        for f in (np.min, np.max)
    )
    order = np.argsort(-points[:, 0])
    axes.fill_between(
        points[order, 0], lows[order], highs[order], color=style.color, alpha=0.16, linewidth=0
    )
    axes.plot(*points[order].T, label=label, linewidth=1.3, markersize=4.2, **style.line_options())


def finish(axes: Axes, title: str) -> None:
    """Titles and grid of a panel."""
    axes.set_title(title, fontsize=9.5)
    axes.set_xlabel("% of weights kept", fontsize=9.5)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5)
