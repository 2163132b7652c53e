"""A table of results as Markdown: test accuracy by round and variant.

    python -m tools.report results/mask_criteria_lenet300_mnist.csv

Cells are the mean over seeds in percent with the minimum and the maximum. The README's table is
this output, and a test compares them.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app

from experiments import results
from experiments.plots.curves import Curve, make_curves, setting


def main(arguments: list[str]) -> None:
    """Print the table named on the command line."""
    if len(arguments) != 2:
        raise app.UsageError("name one table, for example results/NAME.csv.")
    path = Path(arguments[1])
    try:
        if not path.exists():
            raise FileNotFoundError(f"no table at {path}.")
        print(markdown(results.read_rows(path)))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def markdown(rows: Sequence[results.Row]) -> str:
    """The table of all rounds, the dense network first.

    Raises:
      ValueError: if there are no rows, or rows of several networks or data sets.
    """
    dense, variants = make_curves(rows)
    network, dataset = setting(rows)
    head = [f"{network}, {dataset}: round", "% of weights left", *(c.variant for c in variants)]
    lines = [head, ["---"] * len(head)]
    if dense is not None:
        lines.append(["0, dense", "100", *[_cell(dense, 0)] * len(variants)])
    for number in sorted({int(n) for curve in variants for n in curve.rounds} - {0}):
        [left] = {f"{c.weights_left[c.rounds == number][0]:.2f}" for c in variants}
        lines.append([str(number), left, *(_cell(curve, number) for curve in variants)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(curve: Curve, number: int) -> str:
    at = curve.rounds == number
    if not at.any():
        return ""
    mean, low, high = (values[at][0] for values in (curve.mean, curve.low, curve.high))
    return f"{mean:.2f} ({low:.2f} to {high:.2f}; n = {curve.num_members[at][0]})"


if __name__ == "__main__":
    app.run(main)
