"""Figure 5 of Zhou et al. 2019: what pruned weights are set to, by mask-0 action."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from experiments.plots.rounds import Name, draw_rounds
from experiments.tables.curves import ACCURACY, Curve, Measure, Row


def draw(rows: Sequence[Row], measure: Measure = ACCURACY) -> Figure:
    """Draw mask-0 actions on large_final masks; other variants go by their full name."""
    return draw_rounds(rows, measure, _name, "mask-0 action")


def _name(curve: Curve) -> Name:
    if (curve.criterion, curve.mask_one) == ("large_final", "rewind"):
        return Name(curve.mask_zero, curve.mask_zero)
    if curve.variant == "large_final:rewind_unless_shrunk:zero_if_shrunk":
        return Name("rewind_unless_shrunk", "zero_if_shrunk and\nrewind_unless_shrunk")
    return Name(curve.variant, curve.variant)
