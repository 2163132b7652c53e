"""The accuracy of supermasks over seeds: at the setting that validation chooses, and at best."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.tables.hyperparameters import in_words, swept

Row = Mapping[str, Any]


class SelectedMasks(NamedTuple):
    """One way to find supermasks, at its best setting; accuracies and densities are percents.

    Seeds that diverged at every setting are left out, unless all did.

    Attributes:
      criterion: the criterion of heuristic masks; empty for learned ones.
      weights: the masked weights, a name of `experiments.runners.untrained_weights.WEIGHTS`.
      rescale: whether the weights are rescaled dynamically.
      draw: how the masks of learned ones are drawn; empty for heuristic ones.
      numbers: what tells them from others of the same method, in words; empty if there are none.
      setting: the power or the initial logit with the best mean validation accuracy.
      validation: that accuracy; minus infinity if it is not finite for all seeds.
      density: the weights kept at the setting, mean over seeds.
      accuracies: the test accuracies at the setting, `[S]`.
      maxima: the highest test accuracy of every seed over all settings, `[S]`. This is the paper's
        number for heuristic masks, which is chosen on the test set.
      rows: the rows of the setting, `[S]`.
    """

    criterion: str
    weights: str
    rescale: bool
    draw: str
    numbers: str
    setting: float
    validation: float
    density: float
    accuracies: np.ndarray
    maxima: np.ndarray
    rows: list[Row]


def select_masks(rows: Sequence[Row]) -> list[SelectedMasks]:
    """Return one entry per criterion and weights, or per learned variant and draw, in table order.

    There is one for each of several learning rates and so on.

    Args:
      rows: a table of `experiments.runners.one_shot` or `experiments.runners.learned`.
    """
    several = swept(rows)
    names = [
        (
            row.get("criterion", ""),
            row["weights"],
            row.get("rescale", False),
            row.get("draw", ""),
            in_words(row, several),
        )
        for row in rows
    ]
    groups = {name: [] for name in names}
    for name, row in zip(names, rows, strict=True):
        groups[name].append(row)
    return [_best(*name, group) for name, group in groups.items()]


def is_heuristic(rows: Sequence[Row]) -> bool:
    """Return whether a table has one-shot masks, not learned ones."""
    return "power" in rows[0]


def _best(
    criterion: str, weights: str, rescale: bool, draw: str, numbers: str, rows: Sequence[Row]
) -> SelectedMasks:
    finite = {row["seed"] for row in rows if math.isfinite(row["test_accuracy"])}
    rows = [row for row in rows if row["seed"] in finite] or rows
    by = "power" if is_heuristic(rows) else "initial_logit"

    def at(value: float) -> list[Row]:
        return [row for row in rows if row[by] == value]

    def validation(value: float) -> float:
        mean = 100 * np.mean([row["validation_accuracy"] for row in at(value)])
        return float(mean) if np.isfinite(mean) else -math.inf

    setting = max(dict.fromkeys(row[by] for row in rows), key=validation)
    seeds = dict.fromkeys(row["seed"] for row in rows)
    maxima = [
        np.fmax.reduce([row["test_accuracy"] for row in rows if row["seed"] == seed])
        for seed in seeds
    ]
    return SelectedMasks(
        criterion=criterion,
        weights=weights,
        rescale=rescale,
        draw=draw,
        numbers=numbers,
        setting=setting,
        validation=validation(setting),
        density=100 * float(np.mean([row["density"] for row in at(setting)])),
        accuracies=100 * np.array([row["test_accuracy"] for row in at(setting)]),
        maxima=100 * np.array(maxima),
        rows=at(setting),
    )
