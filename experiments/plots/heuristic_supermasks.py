"""Figure 7 of Zhou et al. 2019: untrained networks under one-shot masks, by mask criterion."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from experiments.plots.curves import Row
from experiments.plots.panels import draw_points, finish, setting
from experiments.plots.styles import styles_for


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a table of `experiments.one_shot`: a panel per kind of weights, a line per criterion.

    Raises:
      ValueError: if there are no rows, or rows of several networks or data sets.
    """
    title = setting(rows)
    kinds = list(dict.fromkeys(row["weights"] for row in rows))
    criteria = list(dict.fromkeys(row["criterion"] for row in rows))
    best = {
        name: max(row["test_accuracy"] for row in rows if row["criterion"] == name)
        for name in criteria
    }
    criteria.sort(key=best.__getitem__, reverse=True)
    figure = Figure(figsize=(3.2 * len(kinds) + 2.2, 3.8), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        for criterion, style in zip(criteria, styles_for(criteria), strict=True):
            own = [row for row in rows if (row["weights"], row["criterion"]) == (kind, criterion)]
            draw_points(axes, own, "power", style, criterion)
        finish(axes, kind.replace("_", " "))
        axes.set_xscale("log")
        axes.invert_xaxis()
        axes.xaxis.set_major_formatter(lambda percent, _: f"{percent:g}")
    panels[0].set_ylabel("test accuracy (%), untrained", fontsize=9.5)
    seeds = len({row["seed"] for row in rows})
    figure.suptitle(f"heuristic supermasks, {title}, {seeds} seed(s)", fontsize=10.5)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False
    )
    return figure
