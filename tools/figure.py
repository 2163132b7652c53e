"""Draw a figure from committed tables.

    python -m tools.figure mask_criteria results/mask_criteria_lenet300_mnist.csv --picture=f.png

NAME is one of `experiments.plots.FIGURES`, followed by one or more tables (of heuristic_supermasks
also those of learned supermasks, which are drawn on top), `mask_analysis`, followed by an
.analysis.csv, or `learning_curves`, followed by a .curves.parquet. The suffix of the picture says
how to draw: .png, .svg or .pdf.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags
from matplotlib.figure import Figure

from experiments import results
from experiments.plots import FIGURES, learning_curves, mask_analysis, save
from experiments.runners import read_table
from supermask_jax.trees import lookup

CURVES = "learning_curves"
PICTURE = flags.DEFINE_string("picture", None, "Path of the figure to write.", required=True)


def main(arguments: list[str]) -> None:
    """Draw the figure named on the command line."""
    if len(arguments) < 3:
        raise app.UsageError("name a figure and at least one table.")
    try:
        save(draw(arguments[1], [Path(name) for name in arguments[2:]]), Path(PICTURE.value or ""))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def draw(name: str, paths: Sequence[Path]) -> Figure:
    """A figure of one or more tables.

    Raises:
      ValueError: an unknown name, or tables that it cannot show.
      FileNotFoundError: a table that is not there.
    """
    if name == CURVES:
        [path] = paths
        return learning_curves.draw(results.read_curves(path))
    figure = lookup("figure", name, FIGURES | {"mask_analysis": mask_analysis.draw})
    return figure([row for path in paths for row in read_table(path)])


if __name__ == "__main__":
    app.run(main)
