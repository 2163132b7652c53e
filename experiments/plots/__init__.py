"""One module per figure: a table of results drawn on axes.

figure = FIGURES["mask_criteria"](runners.read_table(path))
save(figure, workdir / "mask_criteria.png")
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from experiments.plots import (
    heuristic_supermasks,
    learned_supermasks,
    mask_criteria,
    mask_one_actions,
    mask_zero_actions,
)
from experiments.storage.files import replace_file
from experiments.tables.curves import EARLY_STOP, Row

FIGURES: dict[str, Callable[[Sequence[Row]], Figure]] = {
    "heuristic_supermasks": heuristic_supermasks.draw,
    "learned_supermasks": learned_supermasks.draw,
    "mask_criteria": mask_criteria.draw,
    "mask_criteria_convergence": functools.partial(mask_criteria.draw, measure=EARLY_STOP),
    "mask_one_actions": mask_one_actions.draw,
    "mask_one_actions_convergence": functools.partial(mask_one_actions.draw, measure=EARLY_STOP),
    "mask_zero_actions": mask_zero_actions.draw,
    "mask_zero_actions_convergence": functools.partial(mask_zero_actions.draw, measure=EARLY_STOP),
}


def save(figure: Figure, path: Path) -> None:
    """Write a figure, at once or not at all; the suffix says how: .png, .svg, .pdf."""
    form = path.suffix.removeprefix(".")
    replace_file(path, lambda temporary: figure.savefig(temporary, format=form, dpi=200))
