"""Figure 7 of Zhou et al. 2019: untrained networks under one-shot masks, by mask criterion."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.plots import learned_supermasks
from experiments.plots.panels import draw_points, finish, range_note
from experiments.plots.rounds import weights_axis
from experiments.plots.styles import styles_for
from experiments.tables.curves import Row, num_seeds, setting

TITLES = {
    "init": "initial weights",
    "signed_constant": "signed constants",
    "reinit": "initial weights, drawn again",
    "reshuffle": "kept initial weights, reshuffled",
}


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a panel per kind of weights, a line per criterion, a point per power.

    Args:
      rows: a table of `runners.one_shot`; rows of `runners.learned` may be among them and are
        drawn on top.

    Raises:
      ValueError: if there are no such rows, or rows of several networks or data sets.
    """
    network, dataset = setting(rows)
    heuristic = [row for row in rows if "criterion" in row]
    learned = [row for row in rows if "criterion" not in row]
    if not heuristic:
        raise ValueError("The table has no heuristic masks.")
    kinds = list(dict.fromkeys(row["weights"] for row in heuristic))
    height = math.ceil(len(kinds) / 2)
    figure = Figure(figsize=(9.5, 0.8 + 3.2 * height), layout="constrained")
    panels = list(figure.subplots(height, min(len(kinds), 2), sharey=True, squeeze=False).flat)
    for axes, kind in zip(panels, kinds, strict=False):
        _draw_panel(axes, [row for row in heuristic if row["weights"] == kind])
        _draw_learned(axes, [row for row in learned if row["weights"] == kind])
        finish(axes, TITLES[kind])
        weights_axis(axes, 100 * min(row["density"] for row in heuristic))
    for axes in panels[len(kinds) :]:
        axes.remove()
    for axes in panels[::2]:
        axes.set_ylabel("test accuracy (%), untrained", fontsize=9.5)
    seeds = num_seeds(heuristic)
    figure.suptitle(f"heuristic supermasks, {network} on {dataset}, {seeds}", fontsize=10.5)
    figure.supxlabel(range_note(seeds), x=0.01, ha="left", fontsize=7.5, color="#555555")
    names = {
        name: line
        for axes in panels[: len(kinds)]
        for line, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        list(names.values()), list(names), loc="outside right upper", fontsize=8, frameon=False
    )
    return figure


def _draw_panel(axes: Axes, rows: Sequence[Row]) -> None:
    criteria = {row["criterion"]: 0.0 for row in rows}
    for row in rows:
        criteria[row["criterion"]] = max(criteria[row["criterion"]], row["test_accuracy"])
    ranked = sorted(criteria, key=lambda name: -criteria[name])
    for criterion, style in zip(ranked, styles_for(ranked), strict=True):
        own = [row for row in rows if row["criterion"] == criterion]
        draw_points(axes, own, "power", style, criterion)


def _draw_learned(axes: Axes, rows: Sequence[Row]) -> None:
    for rescale in sorted({row["rescale"] for row in rows}):
        own = [row for row in rows if row["rescale"] == rescale]
        style = learned_supermasks.STYLES[f"signed_constant{':rescale' * rescale}"]
        name = "learned, rescaled" if rescale else "learned"
        draw_points(axes, own, "initial_logit", style._replace(color="#e60000"), name)
