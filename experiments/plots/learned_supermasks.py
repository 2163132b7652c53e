"""Learned supermasks: test accuracy against density, one line per kind of weights."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.plots.panels import draw_lines, finish, range_note
from experiments.plots.rounds import SIZE
from experiments.plots.styles import DASHED, Style
from experiments.tables.curves import Row, num_seeds, setting
from experiments.tables.hyperparameters import swept

COLLAPSE = 25.0  # percentage points between the masks from which on there is an enlarged panel
ENLARGED = 8.0  # percentage points below the best mask that this panel shows

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
    """Return the legend text of a variant of learned supermasks, ``weights[:rescale]``."""
    return variant.replace("_", " ").replace(":rescale", ", rescaled")


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a table of `runners.learned`: a point per initial logit, the mean over seeds.

    If some masks are far below the best one there are two panels, and the upper one is enlarged.

    Raises:
      ValueError: if there are no rows, or rows of several networks or data sets.
    """
    network, dataset = setting(rows)
    several = swept(rows)
    figure = Figure(figsize=SIZE, layout="constrained")
    panels = _panels(figure, [100 * row["test_accuracy"] for row in rows])
    for axes in panels:
        for variant in dict.fromkeys(row["variant"] for row in rows):
            own = [row for row in rows if row["variant"] == variant]
            draw_lines(axes, own, several, "initial_logit", STYLES[variant], label(variant))
        finish(axes, "")
        axes.set_xlim(100, 0)
        axes.set_ylabel("test accuracy (%)", fontsize=9.5)
    panels[0].set_title(
        f"learned supermasks, {network} on {dataset}, {num_seeds(rows)}", fontsize=10.5
    )
    panels[0].set_xlabel("" if len(panels) > 1 else panels[0].get_xlabel())
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside right upper",
        fontsize=8.5,
        title="frozen weights",
        title_fontsize=8.5,
        alignment="left",
        frameon=False,
    )
    figure.supxlabel(_note(rows, len(panels)), x=0.01, ha="left", fontsize=7.5, color="#555555")
    return figure


def _note(rows: Sequence[Row], num_panels: int) -> str:
    """Return the sentences that explain the points, bars, lines and panels of this figure."""
    is_drawn = {row["draw"] for row in rows} == {"bernoulli"}
    of_what = "means over drawn masks" if is_drawn else "of the mask to evaluate"
    sentences = [range_note(num_seeds(rows)), f"Accuracies are {of_what}."]
    logits = sorted({row["initial_logit"] for row in rows})
    if len(logits) > 1:
        listed = ", ".join(f"{logit:g}" for logit in logits)
        sentences.append(f"Lines join the initial logits in order: {listed}.")
    if num_panels > 1:
        sentences.append("Upper panel: the best masks, enlarged.")
    return "\n".join([" ".join(sentences[:2]).strip(), " ".join(sentences[2:])]).strip()


def _panels(figure: Figure, percents: Sequence[float]) -> list[Axes]:
    finite = [value for value in percents if math.isfinite(value)]
    if not finite or max(finite) - min(finite) < COLLAPSE:
        return [figure.subplots()]
    best = max(finite)
    panels = list(figure.subplots(2, sharex=True, height_ratios=(3, 2)))
    near = [value for value in finite if value > best - ENLARGED]
    panels[0].set_ylim(min(near) - 0.5, best + 0.5)
    return panels
