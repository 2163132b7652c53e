"""Figure 7 of Zhou et al. 2019: untrained networks under one-shot masks, by mask criterion."""

import math
import textwrap
from collections import defaultdict
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.plots import learned_supermasks
from experiments.plots.panels import draw_lines, draw_points, finish, legend_entries, range_note
from experiments.plots.rounds import weights_axis
from experiments.plots.styles import SOLID, Style, styles_for
from experiments.tables.curves import Row, num_seeds, setting
from experiments.tables.hyperparameters import swept

TITLES = {
    "init": "initial weights",
    "signed_constant": "signed constants",
    "reinit": "initial weights, permuted within a layer",
    "reshuffle": "kept initial weights, permuted within a layer",
}
# Percent, twice the chance of ten classes: criteria never above it are drawn in grey. A table does
# not tell the number of classes of other data sets, where no criterion is.
LOW = {"digits": 20.0, "mnist": 20.0, "cifar10": 20.0}
GREY = Style("#b0b0b0", "", SOLID)
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
LINE_LENGTH = 125  # characters of a note


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a panel per kind of weights, a line per criterion, a point per power.

    Criteria that stay near chance everywhere share one entry of the legend, where `LOW` has it.

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
    best, several = best_means(heuristic), swept(learned)
    low = LOW.get(dataset, -1.0)
    named, others = ([c for c in best if (best[c] > low) == high] for high in (True, False))
    heights = [_height(heuristic, kinds[i : i + 2], low) for i in range(0, len(kinds), 2)]
    figure = Figure(figsize=(9.5, 0.9 + sum(heights)), layout="constrained")
    size = {"nrows": len(heights), "ncols": min(len(kinds), 2), "height_ratios": heights}
    panels = list(figure.subplots(**size, sharey=True, squeeze=False).flat)
    for axes, kind in zip(panels, kinds, strict=False):
        own = [row for row in heuristic if row["weights"] == kind]
        _draw_learned(axes, [row for row in learned if row["weights"] == kind], several)
        _draw_named(axes, own, named)
        _draw_others(axes, own, others, _name(others, best))
        finish(axes, TITLES[kind])
        weights_axis(axes, 100 * min(row["density"] for row in heuristic))
    for axes in panels[len(kinds) :]:
        axes.remove()
    for axes in panels[::2]:
        axes.set_ylabel("test accuracy (%), untrained", fontsize=9.5)
    seeds = num_seeds(heuristic)
    figure.suptitle(f"heuristic supermasks, {network} on {dataset}, {seeds}", fontsize=10.5)
    figure.supxlabel(_note(seeds, others), x=0.01, ha="left", fontsize=7.5, color="#555555")
    _legend(figure, panels[: len(kinds)])
    return figure


def best_means(rows: Sequence[Row]) -> dict[str, float]:
    """Return the best mean over seeds of each criterion, in percent, over densities and weights.

    Criteria are sorted from the best to the worst. Seeds that diverged are left out.
    """
    groups = defaultdict(list)
    for row in rows:
        if math.isfinite(row["test_accuracy"]):
            groups[row["criterion"], row["weights"], row["power"]].append(row["test_accuracy"])
    best = {row["criterion"]: 0.0 for row in rows}
    for (criterion, *_), values in groups.items():
        best[criterion] = max(best[criterion], 100 * sum(values) / len(values))
    return {name: best[name] for name in sorted(best, key=lambda name: -best[name])}


def _height(rows: Sequence[Row], kinds: Sequence[str], low: float) -> float:
    """Return the height in inches of panels side by side; less if no accuracy is above `low`."""
    best = best_means([row for row in rows if row["weights"] in kinds])
    return 3.2 if max(best.values()) > low else 1.9


def _name(others: Sequence[str], best: dict[str, float]) -> str:
    """Return the legend text of the criteria near chance."""
    if not others:
        return ""
    count = NUMBERS[len(others)] if len(others) < len(NUMBERS) else str(len(others))
    return f"{count} other{'s' * (len(others) > 1)},\nat most {best[others[0]]:.1f} %"


def _draw_others(axes: Axes, rows: Sequence[Row], others: Sequence[str], name: str) -> None:
    for criterion in others:
        own = [row for row in rows if row["criterion"] == criterion]
        draw_points(axes, own, "power", GREY, name, is_faint=True)


def _draw_named(axes: Axes, rows: Sequence[Row], named: Sequence[str]) -> None:
    for criterion, style in zip(named, styles_for(named), strict=True):
        own = [row for row in rows if row["criterion"] == criterion]
        draw_points(axes, own, "power", style, criterion)


def _draw_learned(axes: Axes, rows: Sequence[Row], several: Sequence[str]) -> None:
    for rescale in sorted({row["rescale"] for row in rows}):
        own = [row for row in rows if row["rescale"] == rescale]
        style = learned_supermasks.STYLES[f"signed_constant{':rescale' * rescale}"]
        name = "learned, rescaled" if rescale else "learned"
        draw_lines(axes, own, several, "initial_logit", style._replace(color="#e60000"), name)


def _note(seeds: str, others: Sequence[str]) -> str:
    lines = [range_note(seeds)]
    if others:
        lines += textwrap.wrap(f"Grey, without bars: {', '.join(others)}.", LINE_LENGTH)
    return "\n".join(lines).strip()


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """Add learned masks, the named criteria from the best to the worst, then the others."""
    entries = legend_entries(panels)
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside right upper",
        fontsize=8,
        frameon=False,
    )
