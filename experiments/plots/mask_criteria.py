"""Figure 3 of Zhou et al. 2019: which weights to keep, by mask criterion."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from experiments.plots.rounds import Name, draw_rounds
from experiments.tables.curves import ACCURACY, Curve, Measure, Row


def draw(rows: Sequence[Row], measure: Measure = ACCURACY) -> Figure:
    """Draw a table whose variants differ in the criterion; others go by their full name."""
    return draw_rounds(rows, measure, _name, "mask criterion")


def _name(curve: Curve) -> Name:
    return Name(curve.variant, curve.variant)
