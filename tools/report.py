"""A table of results as Markdown: test accuracy by round and variant, or by kind of supermask.

    python -m tools.report results/mask_criteria_lenet300_mnist.csv

Cells are the mean over seeds in percent with the minimum and the maximum. The README's table is
this output, and a test compares them.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import app

from experiments import results
from experiments.best_masks import BestMasks, best_masks, is_heuristic
from experiments.plots.curves import Curve, make_curves, setting
from experiments.runners import read_table
from tools import measurements


def main(arguments: list[str]) -> None:
    """Print the table named on the command line."""
    if len(arguments) != 2:
        raise app.UsageError("name one table, for example results/NAME.csv.")
    path = Path(arguments[1])
    try:
        print(markdown(read_table(path)))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def markdown(rows: Sequence[results.Row]) -> str:
    """A table of any runner.

    Raises:
      ValueError: if there are no rows, or rows of several networks or data sets.
    """
    title = ", ".join(setting(rows))
    if "round" in rows[0]:
        lines = _rounds(title, rows)
    elif is_heuristic(rows):
        lines = _heuristic(title, best_masks(rows))
    else:
        lines = _learned(title, best_masks(rows))
    return measurements.markdown(lines[0], lines[1:])


def _rounds(title: str, rows: Sequence[results.Row]) -> list[list[str]]:
    """All rounds, the dense network first."""
    dense, variants = make_curves(rows)
    head = [f"{title}: round", "% of weights left", *(c.variant for c in variants)]
    lines = [head]
    if dense is not None:
        lines.append(["0, dense", "100", *[_cell(dense, 0)] * len(variants)])
    for number in sorted({int(n) for curve in variants for n in curve.rounds} - {0}):
        [left] = {f"{c.weights_left[c.rounds == number][0]:.2f}" for c in variants}
        lines.append([str(number), left, *(_cell(curve, number) for curve in variants)])
    return lines


def _heuristic(title: str, found: Sequence[BestMasks]) -> list[list[str]]:
    """Every criterion and kind of weights: the best density per seed, and one for all seeds."""
    head = [f"{title}: criterion", "weights", "maximum over densities"]
    lines = [[*head, "at the density best on validation", "% of weights left there"]]
    for m in sorted(found, key=lambda m: -m.maxima.mean()):
        cells = _values(m.maxima), _values(m.accuracies), f"{m.density:.2f}"
        lines.append([m.criterion, m.weights, *cells])
    return lines


def _learned(title: str, found: Sequence[BestMasks]) -> list[list[str]]:
    """Every kind of weights at the initial logit that is best on validation."""
    head = [f"{title}: weights", "initial logit", "% of weights left", "drawn masks"]
    lines = [[*head, "most probable mask", "expected mask"]]
    for m in found:
        others = [
            _values(100 * np.array([row[f"test_{name}_accuracy"] for row in m.rows]))
            for name in ("most_probable", "expected")
        ]
        cells = f"{m.setting:g}", f"{m.density:.2f}", _values(m.accuracies), *others
        lines.append([m.weights + ", rescaled" * m.rescale, *cells])
    return lines


def _values(percents: np.ndarray) -> str:
    mean, low, high = (f(percents) for f in (np.mean, np.min, np.max))
    return f"{mean:.2f} ({low:.2f} to {high:.2f}; n = {len(percents)})"


def _cell(curve: Curve, number: int) -> str:
    at = curve.rounds == number
    if not at.any():
        return ""
    mean, low, high = (values[at][0] for values in (curve.mean, curve.low, curve.high))
    return f"{mean:.2f} ({low:.2f} to {high:.2f}; n = {curve.num_members[at][0]})"


if __name__ == "__main__":
    app.run(main)
