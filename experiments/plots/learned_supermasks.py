"""Learned supermasks: test accuracy against density, one line per kind of weights."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from experiments.plots.accuracy import SIZE
from experiments.plots.curves import Row, num_seeds, setting
from experiments.plots.panels import draw_points, finish, range_note
from experiments.plots.styles import DASHED, Style

STYLES = {
    "init": Style("#0072b2", "^", DASHED, filled=False),
    "init:rescale": Style("#0072b2", "^"),
    "signed_constant": Style("#b03a00", "s", DASHED, filled=False),
    "signed_constant:rescale": Style("#b03a00", "s"),
    "reinit": Style("#00664a", "D", DASHED, filled=False),
    "reinit:rescale": Style("#00664a", "D"),
    "reshuffle": Style("#5b2a86", "P", DASHED, filled=False),
    "reshuffle:rescale": Style("#5b2a86", "P"),
}


def label(variant: str) -> str:
    """What a figure calls a variant."""
    return variant.replace("_", " ").replace(":rescale", ", rescaled")


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a table of `experiments.learned`: a point per initial logit, the mean over seeds.

    Raises:
      ValueError: if there are no rows, or rows of several networks or data sets.
    """
    network, dataset = setting(rows)
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    for variant in dict.fromkeys(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == variant]
        draw_points(axes, own, "initial_logit", STYLES[variant], label(variant))
    finish(axes, f"learned supermasks, {network} on {dataset}, {num_seeds(rows)}")
    axes.set_xlim(100, 0)
    axes.set_ylabel("test accuracy (%), mean over drawn masks", fontsize=9.5)
    axes.legend(frameon=False, fontsize=8.5, title="frozen weights", title_fontsize=8.5)
    note = "Lines join the initial logits in order. " + range_note(num_seeds(rows))
    figure.supxlabel(note, x=0.01, ha="left", fontsize=7.5, color="#555555")
    return figure
