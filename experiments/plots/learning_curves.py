"""Learned supermasks over their training: validation accuracy and density."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.plots.learned_supermasks import STYLES, label
from experiments.plots.rounds import SIZE
from experiments.plots.styles import Style, band_options, matplotlib_defaults, told_apart
from experiments.tables.curves import Row, num_seeds
from experiments.tables.hyperparameters import WORDS, by_numbers, joined, swept

ENLARGED = 12  # percentage points below the best
PANELS = {
    "validation_accuracy": "validation accuracy (%)",
    "validation_density": "% of weights left",
}


@matplotlib_defaults()
def draw(curves: Mapping[str, np.ndarray], about: str) -> Figure:
    """Draw the curves that a run of `experiments.runners.learned` wrote.

    There is a line per variant (`weights[:rescale]`), initial logit, and number of a setting that
    lists several, which is the mean over seeds, and a band for their range.

    Args:
      curves: columns with one entry per member and evaluation.
      about: from `about`, or the name of the file; it goes into the title.
    """
    members = _members(curves)
    seeds = num_seeds(members)
    figure = Figure(figsize=SIZE, layout="constrained")
    panels = figure.subplots(2, sharex=True, height_ratios=(3, 2))
    for axes, (name, title) in zip(panels, PANELS.items(), strict=True):
        for variant in dict.fromkeys(curves["variant"]):
            _draw_variant(axes, curves, name, [m for m in members if m["variant"] == variant])
        axes.set_ylabel(title, fontsize=9.5)
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8.5)
    panels[0].set_ylim(*_limits(100 * curves["validation_accuracy"], curves["step"]))
    panels[1].set_xlabel("step", fontsize=9.5)
    handles = dict(zip(*panels[0].get_legend_handles_labels()[::-1], strict=True))
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside upper center",
        ncols=4,
        fontsize=8.5,
        title=f"learned supermasks, {about}, {seeds}",
        title_fontsize=10.5,
        frameon=False,
    )
    figure.supxlabel(_note(members, seeds), x=0.01, ha="left", fontsize=7.5, color="#555555")
    return figure


def about(config: Mapping[str, Any]) -> str:
    """Return the network and the data set of curves, and the draw if the settings name one.

    Args:
      config: the settings of the run.
    """
    draw = f", {config['draw']}" if "draw" in config else ""
    return f"{config['network']} on {config['dataset']}{draw}"


def _members(curves: Mapping[str, np.ndarray]) -> list[Row]:
    """Return the members, each once."""
    given = [name for name in WORDS if name in curves]
    names = ("variant", "initial_logit", *given, "seed")
    columns = zip(*(curves[name].tolist() for name in names), strict=True)
    return [dict(zip(names, member, strict=True)) for member in dict.fromkeys(columns)]


def _note(members: list[Row], seeds: str) -> str:
    """Return the sentences that explain the lines, bands and panels of this figure."""
    logits = sorted({row["initial_logit"] for row in members})
    listed = ", ".join(f"{logit:g}" for logit in logits)
    each = f"A line per initial logit: {listed}" if len(logits) > 1 else f"Initial logit: {listed}"
    sentences = [f"{each}."]
    if seeds != "1 seed":
        sentences.append(f"Lines: mean over {seeds}; bands: minimum to maximum.")
    return "\n".join([" ".join(sentences), "Upper panel: enlarged near the best accuracy."])


def _limits(percents: np.ndarray, steps: np.ndarray) -> tuple[float, float]:
    """Return the range of the upper panel.

    It starts at the median after a quarter of the training, or `ENLARGED` below the best accuracy
    if that is lower.
    """
    distinct = np.unique(steps)
    early = np.nanmedian(percents[steps == distinct[len(distinct) // 4]])
    best = np.nanmax(percents)
    return max(0.0, min(best - ENLARGED, early - 1)), min(100.0, best + 1)


def _draw_variant(
    axes: Axes, curves: Mapping[str, np.ndarray], name: str, members: Sequence[Row]
) -> None:
    """Draw a line per initial logit and number of one variant's members."""
    variant, several = members[0]["variant"], swept(members)
    groups = by_numbers(members, several)
    styles = told_apart([STYLES[variant]] * len(groups))
    for (numbers, group), style in zip(groups.items(), styles, strict=True):
        chosen = {"variant": variant, **{each: group[0][each] for each in several}}
        for logit in sorted({member["initial_logit"] for member in group}):
            line = chosen | {"initial_logit": logit}
            own = np.logical_and.reduce([curves[each] == value for each, value in line.items()])
            _draw_line(axes, curves, name, own, style, joined(label(variant), numbers))


def _draw_line(
    axes: Axes,
    curves: Mapping[str, np.ndarray],
    name: str,
    own: np.ndarray,
    style: Style,
    text: str,
) -> None:
    steps = np.unique(curves["step"][own])
    values = np.array([100 * curves[name][own & (curves["step"] == step)] for step in steps])
    if values.shape[1] > 1:
        band = band_options(style.color)
        axes.fill_between(steps, values.min(axis=1), values.max(axis=1), **band)
    options = {k: v for k, v in style.line_options().items() if not k.startswith("marker")}
    axes.plot(steps, values.mean(axis=1), label=text, linewidth=1.2, **options)
