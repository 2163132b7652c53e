"""Figure 3 of Zhou et al. 2019: which weights to keep, by mask criterion."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from experiments.plots.accuracy import Name, draw_accuracy
from experiments.plots.curves import Curve, Row


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a table whose variants differ in the criterion; others go by their full name."""
    return draw_accuracy(rows, _name, "mask criterion")


def _name(curve: Curve) -> Name:
    return Name(curve.variant, curve.variant)
