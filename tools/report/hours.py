"""How long the trainings take that claims need, on two cores.

The time of a training of lenet300 is its steps times the milliseconds per member-step of the
benchmark. Work names each training, so that claims that share trainings count them once.
"""

import csv
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.tables.curves import DENSE
from tools.report import schedule
from tools.report.claims import (
    EXPERIMENTS,
    FIGURES,
    PRUNING,
    Dense,
    Heuristic,
    Learned,
    Pruned,
    Side,
)
from tools.report.tables import Table

NETWORK = "lenet300"  # the only one whose sweeps have been measured
BENCHMARK = f"benchmark_{NETWORK}.csv"
MAPPING = "map/2"  # one program on both cores
SECONDS_OF_MASKS = 120.0  # all one-shot masks of a seed, as in configs/heuristic_supermasks.py
SECONDS_PER_EPOCH = (0.5, 1.0)  # of learned masks, as in configs/learned_supermasks.py

MASKS = "one-shot masks"
Name = tuple[str, int, int]  # what is trained, seed, round
Work = dict[Name, tuple[float, float]]  # the least and the most seconds of each training


class Costs(NamedTuple):
    """What trainings of NETWORK cost.

    Attributes:
      training: seconds of a dense network, or of a member and round of pruning.
      epochs: the epochs of learned masks, by variant; others take as many as in the paper.
    """

    training: float
    epochs: Mapping[str, int]


def measured(folder: Path) -> float:
    """Return the seconds of a training of NETWORK, in the largest population of a benchmark.

    Raises:
      FileNotFoundError: the folder has no benchmark.
      ValueError: it is not one of `tools.benchmark`, or has no population on two cores.
    """
    path = folder / BENCHMARK
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}, from which hours are computed.")
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("mapping") == MAPPING]
    if not rows or not {"members", "ms_per_member_step"} <= rows[0].keys():
        raise ValueError(f"{path} is not a table of tools.benchmark with the mapping {MAPPING}.")
    largest = max(rows, key=lambda row: int(row["members"]))
    return schedule.steps(NETWORK) * float(largest["ms_per_member_step"]) / 1000


def costs(tables: Sequence[Table], training: float) -> Costs:
    """Return what trainings cost, with the epochs of learned masks in tables that are judged."""
    own = [table for table in tables if table.config["network"] == NETWORK]
    learned = [table for table in own if table.config["experiment"] == FIGURES["Table 1"]]
    return Costs(
        training,
        {row["variant"]: table.config["epochs"] for table in learned for row in table.rows},
    )


def work(
    sides: Iterable[Side],
    seeds: Collection[int],
    costs: Costs,
    done: Collection[Name] = (),
) -> Work:
    """Return the trainings that some sides need, except where all those of a seed are done.

    A pruned network begins with the dense one of its seed, which is therefore trained with it.
    """
    found: Work = {}
    for side in sides:
        for seed in seeds:
            own = dict(_parts(side, seed, costs))
            if not own.keys() <= set(done):
                found |= own
                if isinstance(side, Pruned | Heuristic):
                    found |= dict(_parts(Dense(), seed, costs))
    return found


def done(rows: Iterable[Mapping[str, Any]]) -> set[Name]:
    """Return the trainings of NETWORK behind some rows."""
    return {
        _name(row) for row in rows if row["network"] == NETWORK and row["experiment"] in EXPERIMENTS
    }


def experiment(side: Side) -> str:
    """Return the experiment that trains a side: of pruning, the one whose actions it has."""
    match side:
        case Heuristic():
            return FIGURES["Figure 7"]
        case Learned():
            return FIGURES["Table 1"]
        case Pruned(variant):
            return PRUNING[variant.count(":")]
    return PRUNING[0]


def in_words(parts: Work) -> str:
    """Return the time of some trainings, in hours."""
    low, high = (f"{sum(times[i] for times in parts.values()) / 3600:.1f}" for i in (0, 1))
    return f"{low} hours" if low == high else f"{low} to {high} hours"


def _parts(side: Side, seed: int, costs: Costs) -> Iterator[tuple[Name, tuple[float, float]]]:
    """Yield the trainings of a side and a seed, without the dense network of pruned ones."""
    training = costs.training, costs.training
    match side:
        case Dense():
            yield (DENSE, seed, 0), training
        case Pruned(variant, least, most):
            last = max(schedule.rounds_between(NETWORK, least, most))
            yield from (((variant, seed, number), training) for number in range(1, last + 1))
        case Heuristic():
            yield (MASKS, seed, 0), (SECONDS_OF_MASKS, SECONDS_OF_MASKS)
        case Learned(variant):
            epochs = costs.epochs.get(variant, schedule.LEARNED["epochs"])
            low, high = SECONDS_PER_EPOCH
            yield (_learned(variant), seed, 0), (low * epochs, high * epochs)


def _name(row: Mapping[str, Any]) -> Name:
    if "round" in row:
        return row["variant"], row["seed"], row["round"]
    return MASKS if "power" in row else _learned(row["variant"]), row["seed"], 0


def _learned(variant: str) -> str:
    return f"learned {variant}"
