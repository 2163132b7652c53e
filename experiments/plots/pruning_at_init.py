"""Networks pruned before training, beside the tickets of the same density."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from experiments.plots.rounds import Name, draw_rounds
from experiments.tables.curves import ACCURACY, DENSE, Curve, Row

TICKET = "large_final"


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a table of `runners.pruning_at_init`: a line per score, a point per density.

    Args:
      rows: the table; rows of iterative pruning may be among them, of which the dense network and
        the tickets of `TICKET` are drawn too, at the rounds that the table has.

    Raises:
      ValueError: if there are no such rows, or rows of several networks or data sets.
    """
    own = [row for row in rows if "empty_layers" in row]
    if not own:
        raise ValueError("The table has no networks pruned at initialisation.")
    rounds, seeds = ({row[name] for row in own} for name in ("round", "seed"))
    others = [row for row in rows if "mask_one" in row and row["seed"] in seeds]
    dense = [row for row in others if row["variant"] == DENSE]
    tickets = [row for row in others if row["variant"] == TICKET and row["round"] in rounds]
    return draw_rounds([*own, *dense, *tickets], ACCURACY, _name, "pruned before training by")


def _name(curve: Curve) -> Name:
    if curve.variant == TICKET:
        return Name(TICKET, "ticket of large_final,\npruned after training")
    score, _, rounds = curve.variant.partition(":")
    label = f"{score}, {rounds} rounds" if rounds else score
    return Name(score, label)
