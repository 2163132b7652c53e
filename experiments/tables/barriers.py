"""Error barriers: how much the error rises on the line between two trained networks.

The error barrier of Frankle et al. 2020 is the highest test error on the line, minus the mean of
the errors at its ends. They call training stable where it is below 2 percentage points.
"""

from collections.abc import Sequence

import numpy as np

from experiments.tables.curves import Measure, Row

BARRIER = Measure("error_barrier", 100, "error barrier (percentage points)")
LINE = ("variant", "rewind_step", "seed", "round", "copy", "other_copy")  # columns that name a line


def is_of_lines(rows: Sequence[Row]) -> bool:
    """Return whether a table has the points of lines, see `runners.connectivity`."""
    return bool(rows) and "position" in rows[0]


def barriers(rows: Sequence[Row]) -> list[Row]:
    """Return a row per line, with its ``error_barrier``.

    Its ``test_accuracy`` is the mean of both ends. A line whose ends diverged has NaN.

    Args:
      rows: the points of lines.

    Examples:
      >>> errors = {0.0: 0.1, 0.5: 0.4, 1.0: 0.2}
      >>> line = dict(variant="random", rewind_step=0, seed=0, round=1, copy=0, other_copy=1)
      >>> rows = [line | {"position": at, "test_accuracy": 1 - e} for at, e in errors.items()]
      >>> round(barriers(rows)[0]["error_barrier"], 3)
      0.25
    """
    lines: dict[tuple, list[Row]] = {}
    for row in rows:
        lines.setdefault(tuple(row[name] for name in LINE), []).append(row)
    return [_of_line(sorted(line, key=lambda row: row["position"])) for line in lines.values()]


def _of_line(points: Sequence[Row]) -> Row:
    accuracies = np.array([row["test_accuracy"] for row in points])
    ends = float(accuracies[[0, -1]].mean())
    return {**points[0], "error_barrier": float(ends - accuracies.min()), "test_accuracy": ends}
