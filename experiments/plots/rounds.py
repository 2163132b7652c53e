"""A measure against the weights left: the drawing that all figures of rounds share.

Figures are made without pyplot, so there is no global state, no backend and nothing to close.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from experiments.plots.styles import DOTTED, SOLID, Style, band_options, styles_for, told_apart
from experiments.tables.curves import (
    ACCURACY,
    Curve,
    Measure,
    Row,
    in_lines,
    left_out,
    make_curves,
    num_seeds,
    setting,
)
from experiments.tables.hyperparameters import joined

SIZE = (6.5, 4.5)  # inches: the text width of a page
MARGIN = 0.2  # inches, around a legend that is higher
DENSE = Style("#707070", "", SOLID)


class Name(NamedTuple):
    """How a figure shows a variant: the entry of `STYLES` for its look, and its legend text."""

    style: str
    label: str


class Line(NamedTuple):
    """A curve and how to draw it; `place` is its rank among the curves, 0 for the highest."""

    curve: Curve
    label: str
    style: Style
    place: int


def draw_rounds(
    rows: Sequence[Row], measure: Measure, name: Callable[[Curve], Name], title: str
) -> Figure:
    """Draw every variant of a table: a line for the mean, a band from minimum to maximum.

    A variant with several learning rates, pruning rates and so on has a line for each.

    Where accuracies fall far below the best curve there are two panels: the upper one shows the
    range of the best curve, the lower one everything.

    Args:
      rows: the table; without rounds after round 0 the figure shows the dense network alone.
      measure: the column to draw.
      name: gives the look and the legend text of a variant.
      title: the title of the legend.

    Raises:
      ValueError: if there are no rows, or rows of several networks or data sets.
    """
    dense, curves = make_curves(rows, measure)
    lines, everything = _lines(curves, name), [*curves, *dense]
    of_dense = list(zip(dense, told_apart([DENSE] * len(dense)), strict=True))
    figure = Figure(figsize=SIZE, layout="constrained")
    panels = _panels(figure, everything, measure)
    for axes in panels:
        for curve, style in of_dense:
            _draw_dense(axes, curve, style.color)
        for line in lines:
            _draw_line(axes, line)
    weights_axis(panels[-1], min(curve.weights_left.min() for curve in everything))
    texts = _texts(figure, panels, rows, measure), _legend(figure, lines, of_dense, title)
    _make_room(figure, texts)
    return figure


def _lines(curves: Sequence[Curve], name: Callable[[Curve], Name]) -> list[Line]:
    """Return the curves, sorted from the highest to the lowest right end."""
    names = [name(curve) for curve in curves]
    styles = told_apart(styles_for([name.style for name in names]))
    items = sorted(
        zip(curves, names, styles, strict=True), key=lambda item: item[0].end, reverse=True
    )
    return [
        Line(curve, "\n".join(in_lines(joined(name.label, curve.numbers))), style, place)
        for place, (curve, name, style) in enumerate(items)
    ]


def _panels(figure: Figure, curves: Sequence[Curve], measure: Measure) -> list[Axes]:
    best, lowest, highest = _heights(curves)
    if measure != ACCURACY or highest - lowest < 2.5 * max(highest - best, 1.0):
        panels, bottoms = [figure.subplots()], [lowest]
    else:
        panels = list(figure.subplots(2, sharex=True, height_ratios=(3, 2)))
        bottoms = [best, lowest]
    for axes, bottom in zip(panels, bottoms, strict=True):
        height = highest - bottom
        margin = max(0.04 * height, (1 - height) / 2)
        axes.set_ylim(bottom - margin, highest + margin)
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8.5)
    return panels


def _heights(curves: Sequence[Curve]) -> tuple[float, float, float]:
    """Return the lowest value of the curve that ends highest, of all curves, and the highest."""
    finite = [curve for curve in curves if curve.end[0] >= 0]
    if not finite:
        return 0.0, 0.0, 100.0
    best = max(finite, key=lambda curve: curve.end)
    lowest = min(np.nanmin(curve.low) for curve in finite)
    highest = max(np.nanmax(curve.high) for curve in finite)
    return float(np.nanmin(best.low)), float(lowest), float(highest)


def _draw_line(axes: Axes, line: Line) -> None:
    curve = line.curve
    band = band_options(line.style.color)
    axes.fill_between(curve.weights_left, curve.low, curve.high, **band)
    axes.plot(
        curve.weights_left,
        curve.mean,
        label=line.label,
        linewidth=1.3,
        markersize=3.4,
        markeredgewidth=0.8,
        zorder=3 - 0.01 * line.place,
        **line.style.line_options(),
    )


def _draw_dense(axes: Axes, dense: Curve, color: str) -> None:
    axes.axhspan(dense.low[0], dense.high[0], **band_options(color, DOTTED), zorder=1)
    axes.axhline(dense.mean[0], color=color, linewidth=0.9, zorder=1, label=dense.name)


def weights_axis(axes: Axes, least: float) -> None:
    """Make a logarithmic axis that falls to the right, from 100 % to `least`."""
    margin = min(max((100 / least) ** 0.04, 1.01), 1.08)
    right = least / margin
    digits = (1, 5, 6, 7, 8, 9) if right > 40 else (1, 2, 3, 5, 7) if right > 9 else (1, 2, 5)
    ticks = [digit * 10.0**power for power in range(-4, 3) for digit in digits]
    axes.set_xscale("log")
    axes.set_xlim(100 * margin, right)
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if right <= tick <= 100]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda percent, _: f"{percent:g}"))
    axes.set_xlabel("% of weights left", fontsize=9.5)


def _make_room(figure: Figure, texts: Sequence[Artist]) -> None:
    """Make a figure as high as its legend and its notes together, if it is lower."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    needed = sum(text.get_window_extent(renderer).height for text in texts) / figure.dpi
    figure.set_figheight(max(figure.get_figheight(), needed + MARGIN))


def _texts(figure: Figure, panels: Sequence[Axes], rows: Sequence[Row], measure: Measure) -> Text:
    """Add title, labels and notes, and return the notes."""
    network, dataset = setting(rows)
    panels[0].set_title(f"{network} on {dataset}, {num_seeds(rows)}", fontsize=10.5)
    for axes in panels:
        axes.set_ylabel(measure.label, fontsize=9.5)
    figure.align_ylabels(panels)
    return figure.supxlabel(
        "\n".join(_notes(panels, rows)), x=0.01, ha="left", fontsize=7.5, color="#555555"
    )


def _notes(panels: Sequence[Axes], rows: Sequence[Row]) -> list[str]:
    seeds = num_seeds(rows)
    notes = [f"Lines: mean over {seeds}; bands: minimum to maximum."] if seeds != "1 seed" else []
    if len(panels) > 1:
        notes.append("Upper panel: the range of the best curve, enlarged.")
    return [" ".join(notes), *left_out(rows)]


def _legend(
    figure: Figure, lines: Sequence[Line], dense: Sequence[tuple[Curve, Style]], title: str
) -> Legend:
    entries: list[tuple[tuple[int, float], str, Any]] = [
        (curve.end, label, Line2D([], [], linewidth=1.3, markersize=4.2, **style.line_options()))
        for curve, label, style, _ in lines
    ]
    last_round = max((curve.end[0] for curve, *_ in lines), default=0)
    for curve, style in dense:
        band = Patch(**band_options(style.color, DOTTED))
        handle = (band, Line2D([], [], color=style.color, linewidth=0.9))
        label = "\n".join(in_lines(curve.name))
        entries.append(((last_round, curve.end[1]), label, handle))
    entries.sort(key=lambda entry: entry[0], reverse=True)
    return figure.legend(
        [handle for _, _, handle in entries],
        [label for _, label, _ in entries],
        loc="outside right upper",
        title=title,
        fontsize=8.5,
        title_fontsize=8.5,
        alignment="left",
        frameon=False,
        handlelength=3.2,
        labelspacing=0.7,
    )
