"""Linear mode connectivity: the test error on lines between copies of a ticket, by round."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.plots.panels import legend_entries
from experiments.plots.rounds import SIZE
from experiments.plots.styles import Style, band_options, styles_for
from experiments.tables.barriers import barriers
from experiments.tables.curves import Row, num_seeds, setting


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a panel per round, and a row of panels per rewinding step; a line per variant.

    Lines are means over seeds and pairs of copies, bands their range. Lines with an end that
    diverged are left out.

    Args:
      rows: tables of `runners.connectivity`.

    Raises:
      ValueError: if there are no rows, or rows of several networks or data sets.
    """
    network, dataset = setting(rows)
    steps, rounds = (sorted({row[name] for row in rows}) for name in ("rewind_step", "round"))
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    styles = styles_for([name.rpartition(":")[2] for name in variants])
    width, height = SIZE
    figure = Figure(
        figsize=(max(width, 2.4 * len(rounds) + 2.4), max(height, 2.3 * len(steps) + 1.0)),
        layout="constrained",
    )
    grid = figure.subplots(len(steps), len(rounds), sharex=True, sharey=True, squeeze=False)
    for panels, step in zip(grid, steps, strict=True):
        for axes, number in zip(panels, rounds, strict=True):
            own = [row for row in rows if (row["rewind_step"], row["round"]) == (step, number)]
            for variant, style in zip(variants, styles, strict=True):
                _draw_line(axes, [row for row in own if row["variant"] == variant], style, variant)
            _finish(axes, own, f"rewound to step {step}" if len(steps) > 1 else "")
        panels[0].set_ylabel("test error (%)", fontsize=9.5)
    seeds = num_seeds(rows)
    figure.suptitle(f"lines between two copies, {network} on {dataset}, {seeds}", fontsize=10.5)
    entries = legend_entries(grid.ravel())
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside right upper",
        fontsize=8.5,
        frameon=False,
    )
    for axes in grid[-1]:
        axes.set_xlabel("position between the copies", fontsize=9.5)
    note = (
        "Copies of a ticket are trained on other batches. Lines: mean over seeds and pairs of "
        "copies; bands: minimum to maximum.\nNumbers: mean error barrier in percentage points, "
        "the highest error on a line minus the mean of its ends."
    )
    figure.supxlabel(note, x=0.01, ha="left", fontsize=7.5, color="#555555")
    return figure


def _draw_line(axes: Axes, rows: Sequence[Row], style: Style, variant: str) -> None:
    finite = [row for row in rows if math.isfinite(row["test_accuracy"])]
    positions = sorted({row["position"] for row in finite})
    if not positions:
        return
    errors = [
        [100 - 100 * row["test_accuracy"] for row in finite if row["position"] == position]
        for position in positions
    ]
    low, mean, high = (np.array([f(values) for values in errors]) for f in (min, np.mean, max))
    barrier = np.mean([row["error_barrier"] for row in barriers(finite)])
    axes.fill_between(positions, low, high, **band_options(style.color))
    options = style.line_options()
    axes.plot(positions, mean, label=variant, markersize=3, linewidth=1.2, **options)
    axes.annotate(
        f"{100 * barrier:.1f}", (0.5, mean[len(mean) // 2]), fontsize=7, color=style.color,
        xytext=(0, 3), textcoords="offset points", ha="center",
    )  # fmt: skip


def _finish(axes: Axes, rows: Sequence[Row], step: str) -> None:
    density = np.mean([row["density"] for row in rows]) if rows else math.nan
    where = f"round {rows[0]['round']}, {100 * density:.3g} % left" if rows else ""
    axes.set_title("\n".join(filter(None, (where, step))), fontsize=9.5)
    axes.set_xticks([0, 0.5, 1])
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5)
