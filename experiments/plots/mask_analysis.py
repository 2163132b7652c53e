"""Masks over the rounds: their overlap, and how training moved kept and pruned weights."""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from experiments.plots.panels import finish
from experiments.plots.rounds import weights_axis
from experiments.plots.styles import (
    DASHED,
    Style,
    band_options,
    matplotlib_defaults,
    styles_for,
    told_apart,
)
from experiments.storage.results import ALL_LAYERS
from experiments.tables.curves import Row, num_seeds, setting
from experiments.tables.hyperparameters import in_words, joined, swept

REFERENCE = "large_final"
OVERALL = "all layers"  # in the legend
LAYER_MARKERS = "o^sDvP*<>hpX"


class Panel(NamedTuple):
    """A panel: its title, the rows of each line by the line's name, and the unit of the axis."""

    title: str
    lines: dict[str, list[Row]]
    unit: str = "%"


@matplotlib_defaults()
def draw(rows: Sequence[Row]) -> Figure:
    """Draw a table of `runners.mask_analysis`: lines are means, bands minimum to maximum.

    A variant with several learning rates, pruning rates and so on has a line for each. Overlaps
    of variants are with large_final or, where the table lacks it, the first variant.

    Raises:
      ValueError: if there are no rows, or rows of several networks or data sets, or of another
        kind of table.
    """
    network, dataset = setting(rows)
    if "quantity" not in rows[0]:
        raise ValueError("A mask analysis is drawn from the table analysis.csv of a run.")
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    several = swept(rows)
    rows = [{**row, "numbers": in_words(row, several)} for row in rows]
    # As the default of both actions, large_final leaves the style to what differs from it.
    names = [v.removeprefix(f"{REFERENCE}:").removeprefix("rewind:") for v in variants]
    of_variants = dict(zip(variants, styles_for(names), strict=True))
    lines = {_line(row): of_variants[row["variant"]] for row in rows}
    styles = dict(zip(lines, told_apart([*lines.values()]), strict=True))
    weights_left = _weights_left(rows)
    figure = Figure(figsize=(7.5, 9.6), layout="constrained")
    grid = figure.subplots(4, 2, sharex=True)
    *panels, layers = _panels(rows, variants)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, panel, styles, weights_left)
    _draw_panel(grid[3, 0], layers, layer_styles(list(layers.lines)), weights_left)
    _finish_layers(grid[3, 0])
    for axes in grid[:2].flat:
        axes.set_xlabel("")
    grid[2, 0].set_xlabel("")
    legend = {"fontsize": 8, "frameon": False, "handlelength": 3.2}
    grid[3, 1].axis("off")
    grid[3, 1].legend(*grid[3, 0].get_legend_handles_labels(), loc="center left", **legend)
    figure.legend(
        *grid[0, 0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=2,
        title=f"masks, {network} on {dataset}, {num_seeds(rows)}",
        title_fontsize=10.5,
        **legend,
    )
    notes = [
        "Overlap: 1 for equal masks, 0 for independent ones of the same densities per layer, less "
        "for masks that\nshare fewer weights than these."
    ]
    if num_seeds(rows) != "1 seed":
        notes.insert(0, "Lines: means over seeds, or pairs of seeds; bands: minimum to maximum.")
    figure.supxlabel(
        "\n".join(notes),
        x=0.01,
        ha="left",
        fontsize=7.5,
        color="#555555",
    )
    return figure


def layer_styles(names: Sequence[str]) -> dict[str, Style]:
    """Return a style per layer, dark at the input and light at the output.

    No colour is that of a mask criterion or an action. All layers together are a grey line without
    markers.
    """
    layers = [name for name in names if name != OVERALL]
    shades = colormaps["viridis"](np.linspace(0.05, 0.9, len(layers)))
    markers = itertools.cycle(LAYER_MARKERS)
    styles = {
        name: Style(to_hex(shade), marker)
        for name, shade, marker in zip(layers, shades, markers, strict=False)
    }
    return styles | {OVERALL: Style("#6e6e6e", "", DASHED)}


def _finish_layers(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda percent, _: f"{percent:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _panels(rows: Sequence[Row], variants: Sequence[str]) -> list[Panel]:
    overall = [row for row in rows if row["layer"] == ALL_LAYERS]
    reference = REFERENCE if REFERENCE in variants else variants[0]
    panels = [
        Panel(title, _by_line([row for row in overall if row["quantity"] == quantity]))
        for quantity, title in (
            ("sign_agreement_kept", "kept weights: same sign before and after"),
            ("sign_agreement_pruned", "weights pruned now: same sign"),
            ("shrunk_kept", "kept weights: moved towards zero"),
            ("shrunk_pruned", "weights pruned now: moved towards zero"),
        )
    ]
    overlaps = [row for row in overall if row["quantity"] == "overlap"]
    between = defaultdict(list)
    for row in overlaps:
        pair = {row["variant"], row["other_variant"]}
        if len(pair) == 2 and reference in pair:
            [other] = pair - {reference}
            between[joined(other, row["numbers"])].append(row)
    seeds = _by_line([r for r in overlaps if r["variant"] == r["other_variant"]])
    layers, first = defaultdict(list), _line(rows[0])
    for row in rows:
        if row["quantity"] == "density" and _line(row) == first:
            layers[OVERALL if row["layer"] == ALL_LAYERS else row["layer"]].append(row)
    return [
        *panels,
        Panel(f"mask: overlap with {reference}, same seed", between, "overlap"),
        Panel("mask: overlap between seeds", seeds, "overlap"),
        Panel(f"% of weights left in a layer, {first}", layers),
    ]


def _by_line(rows: Sequence[Row]) -> dict[str, list[Row]]:
    groups = defaultdict(list)
    for row in rows:
        groups[_line(row)].append(row)
    return groups


def _line(row: Row) -> str:
    return joined(row["variant"], row["numbers"])


def _draw_panel(
    axes: Axes,
    panel: Panel,
    styles: dict[str, Style],
    weights_left: dict[tuple[str, int], float],
) -> None:
    scale = 100 if panel.unit == "%" else 1
    if not panel.lines:
        where = {"transform": axes.transAxes, "ha": "center", "va": "center"}
        axes.text(0.5, 0.5, "nothing to compare", color="#555555", fontsize=8.5, **where)
    for name, rows in panel.lines.items():
        rounds = sorted({row["round"] for row in rows})
        groups = [[scale * r["value"] for r in rows if r["round"] == number] for number in rounds]
        x = [weights_left[rows[0]["numbers"], number] for number in rounds]
        lows, highs = ([f(group) for group in groups] for f in (min, max))
        axes.fill_between(x, lows, highs, **band_options(styles[name].color))
        options = styles[name].line_options()
        means = [np.mean(group) for group in groups]
        axes.plot(x, means, label=name, linewidth=1.1, markersize=3.4, **options)
    finish(axes, panel.title)
    axes.set_ylabel(panel.unit, fontsize=9)
    axes.xaxis.set_tick_params(labelbottom=True)
    weights_axis(axes, min(weights_left.values()))


def _weights_left(rows: Sequence[Row]) -> dict[tuple[str, int], float]:
    """Percent of the prunable weights by numbers and round."""
    densities = defaultdict(list)
    for row in rows:
        if row["quantity"] == "density" and row["layer"] == ALL_LAYERS:
            densities[row["numbers"], row["round"]].append(100 * row["value"])
    return {place: float(np.mean(values)) for place, values in densities.items()}
