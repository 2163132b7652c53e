"""One module per figure: a table of results drawn on axes.

figure = FIGURES["mask_criteria"](registry.read_table(path))
save(figure, workdir / "mask_criteria.png")
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.plots import (
    heuristic_supermasks,
    learned_supermasks,
    linear_mode_connectivity,
    mask_criteria,
    mask_one_actions,
    mask_zero_actions,
    pruning_at_init,
    supermask_methods,
)
from experiments.plots.styles import matplotlib_defaults
from experiments.storage.files import replace_file
from experiments.tables.curves import EARLY_STOP, Row
from supermask_jax.checks import lookup


class Drawing(NamedTuple):
    """A figure of a table of results.

    Attributes:
      draw: rows -> figure.
      needs: columns that the table must have.
    """

    draw: Callable[[Sequence[Row]], Figure]
    needs: tuple[str, ...]

    @matplotlib_defaults()
    def __call__(self, rows: Sequence[Row]) -> Figure:
        """Draw the figure."""
        return self.draw(rows)


def _of_rounds(name: str, draw: Callable[..., Figure], part: str) -> dict[str, Drawing]:
    """A figure of accuracies over rounds, and the same of when the validation loss is lowest."""
    needs = ("round", "variant", part)
    convergence = functools.partial(draw, measure=EARLY_STOP)
    return {name: Drawing(draw, needs), f"{name}_convergence": Drawing(convergence, needs)}


FIGURES: dict[str, Drawing] = {
    "heuristic_supermasks": Drawing(heuristic_supermasks.draw, ("power", "criterion", "weights")),
    "learned_supermasks": Drawing(learned_supermasks.draw, ("initial_logit", "weights", "rescale")),
    "linear_mode_connectivity": Drawing(linear_mode_connectivity.draw, ("position", "rewind_step")),
    **_of_rounds("mask_criteria", mask_criteria.draw, "criterion"),
    **_of_rounds("mask_one_actions", mask_one_actions.draw, "mask_one"),
    **_of_rounds("mask_zero_actions", mask_zero_actions.draw, "mask_zero"),
    "supermask_methods": Drawing(supermask_methods.draw, ("variant", "draw", "initial_logit")),
    "pruning_at_init": Drawing(pruning_at_init.draw, ("round", "variant", "empty_layers")),
}


def find_figure(name: str, columns: Iterable[str]) -> Drawing:
    """A figure that can be drawn of a table.

    Args:
      name: of the figure.
      columns: of the table.

    Raises:
      ValueError: if there is no such figure, or none of such a table.
    """
    columns = set(columns)
    return lookup("figure", name, {k: v for k, v in FIGURES.items() if columns.issuperset(v.needs)})


@matplotlib_defaults()
def save(figure: Figure, path: Path) -> None:
    """Write a figure whole or not at all; the suffix (.png, .svg, .pdf) gives the format."""
    form = path.suffix.removeprefix(".")
    replace_file(path, lambda temporary: figure.savefig(temporary, format=form, dpi=200))


@matplotlib_defaults()
def pixels(figure: Figure) -> np.ndarray:
    """Return a figure as an image, uint8 `[height, width, 3]`."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]
