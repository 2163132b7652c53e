"""Supermasks by draw: the accuracy of the mask to evaluate against its density."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from experiments.plots.panels import draw_lines, finish, legend_entries, range_note
from experiments.plots.rounds import SIZE
from experiments.plots.styles import styles_for
from experiments.tables.curves import Row, num_seeds, setting
from experiments.tables.hyperparameters import swept

MEASURE = "test_most_probable_accuracy"  # of the mask to evaluate, for every draw
TITLES = {"init": "on initial weights", "signed_constant": "on signed constants"}


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a panel per variant and a point per draw and initial logit, the mean over seeds.

    Args:
      rows: tables of `runners.learned`, of one draw or several.

    Raises:
      ValueError: if there are no rows, or rows of several networks or data sets.
    """
    network, dataset = setting(rows)
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    draws, several = list(dict.fromkeys(row["draw"] for row in rows)), swept(rows)
    styles = styles_for([name.partition(":")[0] for name in draws])
    width, height = SIZE
    figure = Figure(figsize=(max(width, 3.3 * len(variants) + 1.6), height), layout="constrained")
    panels = figure.subplots(ncols=len(variants), sharey=True, squeeze=False)[0]
    for axes, variant in zip(panels, variants, strict=True):
        for name, style in zip(draws, styles, strict=True):
            own = [row for row in rows if (row["variant"], row["draw"]) == (variant, name)]
            measured = [{**row, "test_accuracy": row[MEASURE]} for row in own]
            if measured:
                draw_lines(axes, measured, several, "initial_logit", style, _label(name))
        finish(axes, TITLES.get(variant) or _label(variant))
        axes.set_xlim(100, 0)
    panels[0].set_ylabel("test accuracy (%)", fontsize=9.5)
    seeds = num_seeds(rows)
    figure.suptitle(f"supermasks by draw, {network} on {dataset}, {seeds}", fontsize=10.5)
    entries = legend_entries(panels)
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside right upper",
        fontsize=8.5,
        title="draw",
        title_fontsize=8.5,
        alignment="left",
        frameon=False,
    )
    note = f"{range_note(seeds)} Accuracies are of the one mask that the draw evaluates.".strip()
    figure.supxlabel(note, x=0.01, ha="left", fontsize=7.5, color="#555555")
    return figure


def _label(name: str) -> str:
    return name.replace("_", " ").replace(":", ", ")
