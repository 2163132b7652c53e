"""Curves from a table of results: a measure over the rounds, across seeds.

Axes: `R` is the number of rounds of a curve. Members whose test accuracy is not finite have
diverged and are left out.
"""

import math
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from experiments.tables.hyperparameters import by_numbers, joined, swept

Row = Mapping[str, Any]
DENSE = "dense"
LINE = ("variant", "criterion", "weights", "draw", "initial_logit")  # columns that tell lines apart
LONGEST_NAME = 33  # characters; longer ones take two lines


class Measure(NamedTuple):
    """A column of the table, the factor to the unit of figures, and the label of the axis."""

    column: str
    scale: float
    label: str


ACCURACY = Measure("test_accuracy", 100, "test accuracy (%)")
EARLY_STOP = Measure("early_stop_step", 1, "step of the lowest validation loss")


@dataclass(frozen=True)
class Curve:
    """A measure of one variant (criterion:mask_one:mask_zero), starting at the dense network.

    Attributes:
      variant: its name in the table; in iterative pruning `criterion`, `mask_one` and `mask_zero`
        are its parts, elsewhere they are empty.
      numbers: what tells it from other curves of its variant, in words; empty if there are none.
      rounds: int `[R]`, starting at 0 if the table has the dense network.
      weights_left: float `[R]`, percent of the prunable weights, in (0, 100].
      mean, low, high: float `[R]`, mean, minimum and maximum over the seeds, accuracies in
        percent; NaN where every member diverged.
      num_members: int `[R]`, the number of members behind these values.
    """

    variant: str
    criterion: str
    mask_one: str
    mask_zero: str
    numbers: str
    rounds: np.ndarray
    weights_left: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    num_members: np.ndarray

    @property
    def name(self) -> str:
        """Return the variant, with the numbers if there are any."""
        return joined(self.variant, self.numbers)

    @property
    def end(self) -> tuple[int, float]:
        """Return the last round with a mean, and that mean; sorts curves by their right end."""
        finite = np.flatnonzero(np.isfinite(self.mean))
        if not finite.size:
            return -1, -math.inf
        return int(self.rounds[finite[-1]]), float(self.mean[finite[-1]])


def make_curves(
    rows: Sequence[Row], measure: Measure = ACCURACY
) -> tuple[list[Curve], list[Curve]]:
    """Return the curves of dense networks, which have one round, and those of the variants.

        dense, variants = make_curves(registry.read_table(path))

    Returns:
      The dense curves, none if the table has no round 0, and the curves of the variants in the
      order of the table. There is one, or one for each of several learning rates, pruning rates and
      so on. The curve of a variant starts at the dense network that it comes from.

    Raises:
      ValueError: if there are no rows, or rows of several networks or data sets.
    """
    setting(rows)
    names = swept(rows)
    dense = [row for row in rows if row["variant"] == DENSE]
    variants = dict.fromkeys(row["variant"] for row in rows if row["variant"] != DENSE)
    curves = []
    for variant in variants:
        own = [row for row in rows if row["variant"] == variant]
        for numbers, members in by_numbers(own, names).items():
            before = [row for row in dense if _is_parent(row, members[0], names)]
            curves.append(_curve(numbers, members, before + members, measure))
    of_dense = by_numbers(dense, names).items()
    return [_curve(numbers, own, own, measure) for numbers, own in of_dense], curves


def _is_parent(dense: Row, row: Row, names: Sequence[str]) -> bool:
    """Return whether the numbers of a dense network are those of a row, as far as it has them."""
    return all(dense.get(name) in (None, row.get(name)) for name in names)


def setting(rows: Sequence[Row]) -> tuple[str, str]:
    """Return the network and the data set of a table.

    Raises:
      ValueError: if there are no rows, or rows of several networks or data sets.
    """
    settings = sorted({(row["network"], row["dataset"]) for row in rows})
    if not settings:
        raise ValueError("The table of results has no rows.")
    if len(settings) > 1:
        found = ", ".join(f"{network} on {dataset}" for network, dataset in settings)
        raise ValueError(f"A figure or summary is of one network and data set, not of {found}.")
    return settings[0]


def num_seeds(rows: Sequence[Row]) -> str:
    """Return how many seeds the lines of a figure have: ``1 seed``, ``3 to 5 seeds``."""
    seeds, names = defaultdict(set), (*LINE, *swept(rows))
    for row in rows:
        seeds[tuple(row.get(name) for name in names)].add(row["seed"])
    least, most = (f(map(len, seeds.values())) for f in (min, max))
    return _count(most, "seed") if least == most else f"{least} to {most} seeds"


def in_lines(name: str) -> list[str]:
    """Return the name of a curve in one line or, if it is long, in several."""
    if len(name) <= LONGEST_NAME:
        return [name]
    variant, comma, numbers = name.partition(", ")
    if comma:
        return [*in_lines(f"{variant},"), *textwrap.wrap(numbers, LONGEST_NAME)]
    head, _, tail = name.rpartition(":")
    return [head, f":{tail}"] if head else [name]


def left_out(rows: Sequence[Row]) -> list[str]:
    """Return sentences on diverged members and on results that are still missing."""
    names = swept(rows)

    def line(row: Row) -> tuple:
        return row["variant"], *(row.get(name) for name in names)

    diverged = len(
        {(*line(row), row["seed"]) for row in rows if not math.isfinite(row["test_accuracy"])}
    )
    missing = _num_missing([(line(row), row["round"], row["seed"]) for row in rows])
    sentences = []
    if diverged:
        sentences.append(f"Left out: {_count(diverged, 'member')} that diverged.")
    if missing:
        sentences.append(f"Unfinished: {_count(missing, 'result')} missing.")
    return sentences


def _num_missing(results: Sequence[tuple[tuple, int, int]]) -> int:
    """Count what is missing of `(line, round, seed)`.

    Seeds of the same lines belong together, and each of them should have every line in every round
    that one of them has. Seeds of other lines may be of another run.
    """
    pruned = [(line, number, seed) for line, number, seed in results if line[0] != DENSE]
    of_seed: dict[int, set[tuple]] = {seed: set() for _, _, seed in results}
    for line, _, seed in pruned:
        of_seed[seed].add(line)
    missing = -len(pruned)
    for lines in set(map(frozenset, of_seed.values())):
        seeds = {seed for seed, own in of_seed.items() if own == lines}
        rounds = {number for _, number, seed in pruned if seed in seeds}
        missing += len(lines) * len(rounds) * len(seeds)
    return missing


def _curve(numbers: str, members: Sequence[Row], rows: Sequence[Row], measure: Measure) -> Curve:
    rounds = sorted({row["round"] for row in rows})
    by_round = [[row for row in rows if row["round"] == number] for number in rounds]
    measured = [_measured(group, measure) for group in by_round]
    first = members[0]
    return Curve(
        variant=first["variant"],
        criterion=first.get("criterion", ""),
        mask_one=first.get("mask_one", ""),
        mask_zero=first.get("mask_zero", ""),
        numbers=numbers,
        rounds=np.array(rounds),
        weights_left=np.array([100 * np.mean([r["density"] for r in group]) for group in by_round]),
        mean=np.array([np.mean(values) for values in measured]),
        low=np.array([np.min(values) for values in measured]),
        high=np.array([np.max(values) for values in measured]),
        num_members=np.array([np.sum(np.isfinite(values)) for values in measured]),
    )


def _measured(rows: Sequence[Row], measure: Measure) -> np.ndarray:
    """Return the values of members that did not diverge; a single NaN if all did."""
    finite = [row for row in rows if math.isfinite(row["test_accuracy"])]
    return np.array([measure.scale * row[measure.column] for row in finite] or [math.nan])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
