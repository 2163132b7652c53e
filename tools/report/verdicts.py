"""Verdicts on claims, as pure functions of rows; `tools.report.claims` states the rule.

Axes: `S` the seeds of a claim, `K` the claims of a family. Differences, bounds and margins are
percentage points of test accuracy, or of error barriers.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from experiments.tables.barriers import barriers
from experiments.tables.curves import DENSE
from experiments.tables.selection import select_masks
from tools.report import schedule
from tools.report.claims import (
    ALPHA,
    EXPERIMENTS,
    MIN_SEEDS,
    NETWORKS,
    NUM_SEEDS,
    POWER,
    SECOND_STAGE,
    Barrier,
    Claim,
    Dense,
    Heuristic,
    Learned,
    Pruned,
    Side,
)

Row = Mapping[str, Any]

REPRODUCED = "reproduced"
NOT_REPRODUCED = "not reproduced"
INCONCLUSIVE = "inconclusive"
NOT_RUN = "not run"
STATUSES = (REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, NOT_RUN)

RESOLUTION = 0.01  # one image of 10,000: a smaller standard deviation counts as this one
MOST_SEEDS = 100  # looked at when asking how many would settle a claim


class Sample(NamedTuple):
    """The measured values of one side of a claim.

    Attributes:
      values: test accuracy in percent, or error barrier in points, by seed.
      rows: the rows behind the values.
      diverged: the seeds with an accuracy that is not finite.
    """

    values: dict[int, float]
    rows: list[Row]
    diverged: list[int]


class Verdict(NamedTuple):
    """The verdict on a claim.

    Attributes:
      claim: the claim.
      status: one of STATUSES.
      seeds: the S seeds that count.
      left, right: test accuracy in percent, or error barrier in points, by seed, `[S]`.
      interval: 95 % confidence interval of the mean difference; None below two seeds.
      p_adjusted: corrected p of the test for the claim and, second, of the test against it; None
        where nothing was tested.
      seeds_needed: how many would settle a claim that its stage leaves inconclusive, all its fresh
        seeds counted; None if more than MOST_SEEDS, and for any other status.
      rounds: the rounds behind the difference; empty if the claim is not about pruning.
      unfinished: seeds left out because one side lacks them, or some of their rounds or densities.
      diverged: seeds left out because an accuracy is not finite.
      missing: the sides without rows, of a claim that was not run.
      rows: the rows behind the verdict.
      fresh: the seeds that the second stage asks for; empty in the first stage.
    """

    claim: Claim
    status: str
    seeds: list[int]
    left: np.ndarray
    right: np.ndarray
    interval: tuple[float, float] | None = None
    p_adjusted: tuple[float, float] | None = None
    seeds_needed: int | None = None
    rounds: Sequence[int] = ()
    unfinished: Sequence[int] = ()
    diverged: Sequence[int] = ()
    missing: Sequence[Side] = ()
    rows: Sequence[Row] = ()
    fresh: Sequence[int] = ()

    @property
    def differences(self) -> np.ndarray:
        """The differences left - right by seed, `[S]`."""
        return self.left - self.right

    @property
    def waits(self) -> bool:
        """Whether fresh seeds of the second stage are still to run."""
        return bool(self.fresh) and (self.status == NOT_RUN or bool(self.unfinished))

    @property
    def may_be_tested(self) -> bool:
        """Whether there are enough seeds; in the second stage, whether none is still to run."""
        return len(self.seeds) >= MIN_SEEDS and not self.waits


def judge(
    claims: Sequence[Claim], rows: Iterable[Row], experiments: Sequence[str] = EXPERIMENTS
) -> list[Verdict]:
    """Return the first stage's verdict on each claim; the claims on one network are one family.

    Args:
      claims: see `tools.report.claims`.
      rows: from any tables; rows of other networks, data sets, experiments and seeds are ignored.
      experiments: whose rows count.
    """
    by_network = _by_network(rows, experiments)
    return _decide_by_network(
        [_gather(claim, by_network[claim.network], range(NUM_SEEDS)) for claim in claims]
    )


def judge_again(
    claims: Sequence[Claim],
    rows: Iterable[Row],
    stage: Sequence[tuple[str, int]] = SECOND_STAGE,
) -> list[Verdict]:
    """Return the second stage's verdicts; its claims on one network are one family.

    Args:
      claims: those of the first stage.
      rows: as for `judge`.
      stage: the id of each claim that is judged again, and its number of fresh seeds.
    """
    by_network = _by_network(rows, EXPERIMENTS)
    by_id = {claim.id: claim for claim in claims}
    planned = [(by_id[name], range(NUM_SEEDS, NUM_SEEDS + number)) for name, number in stage]
    return _decide_by_network(
        [_gather_fresh(claim, by_network[claim.network], fresh) for claim, fresh in planned]
    )


def p_values(differences: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """One-sided t-tests of the mean difference against the bounds of a claim.

    Args:
      differences: `[..., S]`.
      low, high: the claim says that the mean lies between them; `high` may be infinite.

    Returns:
      `[...]` p of "it lies outside", small where the claim holds, and `[...]` p of "it lies
      inside", small where the opposite holds.
    """
    mean, error, degrees = _moments(differences)
    distances = (mean - low) / error, (high - mean) / error
    outside = np.maximum(*(stats.t.sf(distance, degrees) for distance in distances))
    inside = np.minimum(*(stats.t.cdf(distance, degrees) for distance in distances))
    return outside, np.minimum(inside * _num_sides(high), 1)


def holm(p: np.ndarray) -> np.ndarray:
    """Adjust p-values `[..., K]` for K comparisons by Holm's method, under any dependence."""
    order = np.argsort(p, axis=-1)
    factors = np.arange(p.shape[-1], 0, -1)
    scaled = np.maximum.accumulate(np.take_along_axis(p, order, -1) * factors, axis=-1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(scaled, 1), -1)
    return adjusted


def confidence_interval(differences: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Return the confidence interval of the mean of differences `[S]`, by the t-distribution."""
    mean, error, degrees = _moments(differences)
    low, high = stats.t.interval(level, degrees, mean, error)
    return float(low), float(high)


def seeds_needed(mean: float, spread: float, low: float, high: float, level: float) -> int | None:
    """Return how many seeds settle a claim with probability POWER; None if too many.

    Args:
      mean: the true mean difference.
      spread: the true standard deviation of the differences.
      low, high: the claim says that the mean lies between them.
      level: the level of the tests.
    """
    num_seeds = np.arange(MIN_SEEDS, MOST_SEEDS + 1)
    holds = low < mean < high
    bounds = [bound for bound in (low, high) if math.isfinite(bound)]
    if not holds:
        bounds, level = [min(bounds, key=lambda bound: abs(mean - bound))], level / len(bounds)
    threshold = stats.t.isf(level, num_seeds - 1)
    missed = sum(
        stats.nct.cdf(threshold, num_seeds - 1, _noncentrality(mean - bound, spread, num_seeds))
        for bound in bounds
    )
    enough = num_seeds[1 - missed >= POWER]
    return int(enough[0]) if enough.size else None


def _noncentrality(distance: float, spread: float, num_seeds: np.ndarray) -> np.ndarray:
    """Return the noncentrality of the t-statistic, at most 30, where its power is 1 already."""
    spread = max(spread, RESOLUTION)
    return np.minimum(abs(distance) * np.sqrt(num_seeds) / spread, 30.0)


def _moments(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return mean, standard error and degrees of freedom."""
    num_seeds = differences.shape[-1]
    spread = np.maximum(differences.std(axis=-1, ddof=1), RESOLUTION)
    return differences.mean(axis=-1), spread / math.sqrt(num_seeds), num_seeds - 1


def _num_sides(high: float) -> int:
    return 1 if math.isinf(high) else 2


def _by_network(rows: Iterable[Row], experiments: Sequence[str]) -> dict[str, list[Row]]:
    """Return the rows of some experiments on the data sets that claims are about."""
    by_network = defaultdict(list)
    for row in rows:
        if row["experiment"] in experiments and NETWORKS.get(row["network"]) == row["dataset"]:
            by_network[row["network"]].append(row)
    return by_network


def _gather(claim: Claim, rows: Sequence[Row], counted: range) -> Verdict:
    """Return the paired values of a claim before its test, of the seeds that are counted."""
    rows = [row for row in rows if row["seed"] in counted]
    sides = claim.sides
    found = [_rows_of(side, rows, claim.network) for side in sides]
    if missing := [side for side, own in zip(sides, found, strict=True) if not own]:
        return Verdict(claim, NOT_RUN, [], np.empty(0), np.empty(0), missing=missing)
    samples = [_sample(side, own, claim.network) for side, own in zip(sides, found, strict=True)]
    seeds = sorted(set.intersection(*(set(sample.values) for sample in samples)))
    diverged = {seed for sample in samples for seed in sample.diverged}
    begun = {row["seed"] for own in found for row in own}
    values = [np.array([sample.values[seed] for seed in seeds]) for sample in samples]
    if len(sides) == 1:
        values.append(np.full(len(seeds), claim.right))
    return Verdict(
        claim,
        INCONCLUSIVE,
        seeds,
        *values,
        interval=confidence_interval(values[0] - values[1]) if len(seeds) > 1 else None,
        rounds=sorted({n for side in sides for n in _rounds(side, claim.network)}),
        unfinished=sorted(begun - diverged - set(seeds)),
        diverged=sorted(diverged),
        rows=[row for sample in samples for row in sample.rows if row["seed"] in seeds],
    )


def _gather_fresh(claim: Claim, rows: Sequence[Row], fresh: range) -> Verdict:
    """Return the paired values of the fresh seeds, with all that are still to run."""
    verdict = _gather(claim, rows, fresh)
    if verdict.status == NOT_RUN:
        return verdict._replace(fresh=fresh)
    to_run = {*fresh}.difference(verdict.seeds, verdict.diverged)
    return verdict._replace(fresh=fresh, unfinished=sorted(to_run))


def _rows_of(side: Side, rows: Sequence[Row], network: str) -> list[Row]:
    match side:
        case Dense():
            return [row for row in rows if row.get("variant") == DENSE]
        case Pruned(variant):
            own = [row for row in rows if "round" in row and row["variant"] == variant]
            rounds = _rounds(side, network)
            return [row for row in own if row["round"] in rounds]
        case Heuristic(criteria, weights):
            own = [row for row in rows if "power" in row and row["weights"] == weights]
            return [row for row in own if row["criterion"] in criteria]
        case Learned(variant):
            return [row for row in rows if "rescale" in row and row["variant"] == variant]
        case Barrier(variant, rewind_step, round):
            wanted = variant, rewind_step, round
            own = [r for r in rows if (r["variant"], r["rewind_step"], r["round"]) == wanted]
            return [{**r, "test_accuracy": r["error_barrier"]} for r in barriers(own)]


def _rounds(side: Side, network: str) -> set[int]:
    """Return the rounds of a side; empty if it is not about pruning."""
    if isinstance(side, Pruned):
        return schedule.rounds_between(network, side.least, side.most)
    return set()


def _needed(side: Side, rows: Sequence[Row], network: str) -> set[Any]:
    """Return the rounds, densities or initial logits that a seed must have to count."""
    match side:
        case Dense():
            return {0}
        case Barrier(_, _, round):
            return {round}
        case Pruned():
            return _rounds(side, network)
        case Heuristic(criteria):
            return {(name, power) for name in criteria for power in schedule.powers(network)}
        case Learned():
            seeds = Counter(_place(row) for row in rows)
            tried = {logit for logit, count in seeds.items() if count >= MIN_SEEDS}
            return tried or set(seeds)


def _place(row: Row) -> Any:
    """Return the round, the density or the initial logit of a row."""
    if "round" in row:
        return row["round"]
    return (row["criterion"], row["power"]) if "power" in row else row["initial_logit"]


def _sample(side: Side, rows: Sequence[Row], network: str) -> Sample:
    """Return one value per seed that has all rounds, densities or initial logits."""
    needed = _needed(side, rows, network)
    by_seed = {
        seed: [row for row in rows if row["seed"] == seed and _place(row) in needed]
        for seed in sorted({row["seed"] for row in rows})
    }
    whole = [seed for seed, own in by_seed.items() if {_place(row) for row in own} == needed]
    if isinstance(side, Learned) and whole:
        [best] = select_masks([row for seed in whole for row in by_seed[seed]])
        by_seed = {
            seed: [row for row in own if row["initial_logit"] == best.setting]
            for seed, own in by_seed.items()
        }
    sample = Sample({}, [], [])
    for seed in whole:
        own = by_seed[seed]
        accuracies = [100 * row["test_accuracy"] for row in own]
        if not np.isfinite(accuracies).all():
            sample.diverged.append(seed)
        elif isinstance(side, Heuristic):
            at = int(np.argmax(accuracies))
            sample.values[seed] = accuracies[at]
            sample.rows.append(own[at])
        else:
            sample.values[seed] = float(np.mean(accuracies))
            sample.rows.extend(own)
    return sample


def _decide_by_network(gathered: Sequence[Verdict]) -> list[Verdict]:
    """Judge all claims, those on one network as one family."""
    verdicts = list(gathered)
    for network in dict.fromkeys(verdict.claim.network for verdict in gathered):
        family = [i for i, verdict in enumerate(verdicts) if verdict.claim.network == network]
        for i, verdict in zip(family, _decide([verdicts[i] for i in family]), strict=True):
            verdicts[i] = verdict
    return verdicts


def _decide(family: Sequence[Verdict]) -> list[Verdict]:
    """Test the claims that may be, correct for the number of all claims, and judge all."""
    p = np.ones((len(family), 2))
    tested = [i for i, verdict in enumerate(family) if verdict.may_be_tested]
    for i in tested:
        p[i] = p_values(family[i].differences, *family[i].claim.bounds)
    adjusted = holm(p.T).T
    judged = list(family)
    for i in tested:
        supported, opposed = adjusted[i] < ALPHA
        judged[i] = family[i]._replace(
            status=REPRODUCED if supported else NOT_REPRODUCED if opposed else INCONCLUSIVE,
            p_adjusted=tuple(map(float, adjusted[i])),
        )
    return [
        _with_seeds_needed(verdict, len(family))
        if verdict.status == INCONCLUSIVE and not verdict.waits
        else verdict
        for verdict in judged
    ]


def _with_seeds_needed(verdict: Verdict, num_claims: int) -> Verdict:
    """Add the seeds needed at the level that Holm's correction asks of the first claim."""
    num_seeds = len(verdict.seeds)
    if num_seeds < 2:
        return verdict._replace(seeds_needed=MIN_SEEDS)
    mean, spread = verdict.differences.mean(), verdict.differences.std(ddof=1)
    needed = seeds_needed(mean, spread, *verdict.claim.bounds, ALPHA / num_claims)
    return verdict._replace(seeds_needed=needed and max(needed, num_seeds + 1))
