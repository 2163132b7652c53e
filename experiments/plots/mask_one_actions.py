"""Figure 4 of Zhou et al. 2019: what kept weights restart from, by mask-1 action.

Signs kept are solid lines, not kept dashed; rewind and random masks are the references.
"""

from collections.abc import Sequence

from matplotlib.figure import Figure

from experiments.plots.rounds import Name, draw_rounds
from experiments.tables.curves import ACCURACY, Curve, Measure, Row


def draw(rows: Sequence[Row], measure: Measure = ACCURACY) -> Figure:
    """Draw mask-1 actions on large_final masks; other variants go by their full name."""
    return draw_rounds(rows, measure, _name, "mask-1 action")


def _name(curve: Curve) -> Name:
    if (curve.criterion, curve.mask_zero) == ("large_final", "zero"):
        return Name(curve.mask_one, curve.mask_one)
    if curve.variant == "random":
        return Name("random", "random masks")
    return Name(curve.variant, curve.variant)
