"""Figures 1 and 2 of Zhou et al. 2019: what a mask criterion keeps in the plane of w_i and w_f."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure

from experiments.plots.styles import matplotlib_defaults
from supermask_jax.criteria import CRITERIA

COLUMNS = 5
WEIGHT_BINS, REGION_BINS = 61, 201  # per axis, odd: zero is in the middle of a bin
SHOWN = 0.9995  # of the weights; the axes end where the others begin
KEPT = LinearSegmentedColormap.from_list("kept", ("#dddddd", "#9ac4de", "#0072b2"))


@matplotlib_defaults()
def draw_weights(w_i: np.ndarray, w_f: np.ndarray, keep: float, title: str) -> Figure:
    """Draw where the weights of a layer are, and which of them each criterion keeps.

    Args:
      w_i: start weights, any shape.
      w_f: final weights, of the same shape.
      keep: the fraction that is kept.
      title: of the figure.
    """
    largest = np.quantile(np.abs([w_i, w_f]), SHOWN)
    edges = np.linspace(-largest, largest, WEIGHT_BINS + 1)
    figure, (density, *panels), key = _grid(1 + len(CRITERIA), title)
    counts = _histogram(w_i.ravel(), w_f.ravel(), edges)
    image = density.pcolormesh(
        edges, edges, np.where(counts, counts, np.nan).T, norm=LogNorm(), cmap="cividis"
    )
    density.set_title("all weights", fontsize=8.5)
    _draw_criteria(panels, key, w_i.ravel(), w_f.ravel(), edges, keep)
    _colorbar(key, 0.25, image, "weights in a bin")
    return figure


@matplotlib_defaults()
def draw_regions(keep: float) -> Figure:
    """Draw which part of the plane each criterion keeps, for weights spread over a square.

    Args:
      keep: the fraction that is kept.
    """
    edges = np.linspace(-1, 1, REGION_BINS + 1)
    centers = (edges[1:] + edges[:-1]) / 2
    w_i, w_f = (axis.ravel() for axis in np.meshgrid(centers, centers))
    figure, panels, key = _grid(len(CRITERIA), "weights spread over a square")
    _draw_criteria(panels, key, w_i, w_f, edges, keep)
    return figure


def keep_probability(scores: np.ndarray, keep: float) -> np.ndarray:
    """Return the probability, `[N]`, that each weight is kept if ties are broken at random.

    >>> keep_probability(np.array([3.0, 1.0, 1.0, 0.0]), 0.5).tolist()
    [1.0, 0.5, 0.5, 0.0]
    """
    num_keep = max(round(keep * scores.size), 1)
    threshold = np.sort(scores)[-num_keep]
    above, tied = scores > threshold, scores == threshold
    return np.where(tied, (num_keep - above.sum()) / tied.sum(), above.astype(float))


def _grid(count: int, title: str) -> tuple[Figure, list[Axes], Axes]:
    """Return a figure, its panels, and the cell after them for the colour bars."""
    height = math.ceil((count + 1) / COLUMNS)
    figure = Figure(figsize=(9.5, 0.6 + 2.05 * height), layout="constrained")
    cells = list(figure.subplots(height, COLUMNS, sharex=True, sharey=True).flat)
    panels, key = cells[:count], cells[count]
    for place, axes in enumerate(panels):
        is_lowest = place + COLUMNS >= count
        axes.set_aspect("equal")
        axes.tick_params(labelsize=7.5, labelbottom=is_lowest)
        axes.set_xlabel("start weight" if is_lowest else "", fontsize=8.5)
        axes.set_ylabel("final weight" if place % COLUMNS == 0 else "", fontsize=8.5)
    for axes in cells[count:]:
        axes.axis("off")
    figure.suptitle(title, fontsize=10.5)
    return figure, panels, key


def _draw_criteria(
    panels: list[Axes], key: Axes, w_i: np.ndarray, w_f: np.ndarray, edges: np.ndarray, keep: float
) -> None:
    counts, image = _histogram(w_i, w_f, edges), None
    for axes, (name, criterion) in zip(panels, CRITERIA.items(), strict=True):
        scores = np.asarray(criterion(jnp.asarray(w_i), jnp.asarray(w_f)))
        kept = _histogram(w_i, w_f, edges, keep_probability(scores, keep))
        share = np.divide(kept, counts, out=np.full_like(kept, np.nan), where=counts > 0)
        image = axes.pcolormesh(edges, edges, share.T, cmap=KEPT, vmin=0, vmax=1)
        axes.axline((0, 0), slope=1, color="#555555", linewidth=0.6)
        for suffix in ("_same_sign", "_diff_sign"):
            name = name.replace(suffix, f"\n{suffix}")
        axes.set_title(name, fontsize=8.5)
    _colorbar(key, 0.75, image, f"fraction kept in a bin,\n{keep:.4g} of all")


def _histogram(
    w_i: np.ndarray, w_f: np.ndarray, edges: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    return np.histogram2d(w_i, w_f, bins=(edges, edges), weights=weights)[0]


def _colorbar(key: Axes, height: float, image: Any, label: str) -> None:
    bar = key.figure.colorbar(
        image, cax=key.inset_axes((0.05, height, 0.9, 0.07)), orientation="horizontal"
    )
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7.5)
