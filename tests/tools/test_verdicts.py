import math

import numpy as np
import pytest
from scipy import stats

from tests.tools import simulated
from tools.report import verdicts
from tools.report.claims import (
    ALPHA,
    CLAIMS,
    CONNECTIVITY,
    MIN_SEEDS,
    NETWORKS,
    NUM_SEEDS,
    POWER,
    SECOND_STAGE,
    STABILITY,
    Barrier,
    Claim,
    Dense,
    Heuristic,
    Learned,
    Margin,
    Pruned,
)
from tools.report.verdicts import INCONCLUSIVE, NOT_REPRODUCED, NOT_RUN, REPRODUCED

INFINITY = math.inf
BOUNDS = [(0.0, INFINITY), (-0.25, INFINITY), (-0.5, 0.5)]
NUM_TABLES = 4000
# The nominal rate plus three standard errors for `NUM_TABLES` tables.
HIGHEST_RATE = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / NUM_TABLES)

HIGH = (0.025, 0.1)
TICKET, RANDOM = Pruned("large_final", *HIGH), Pruned("random", *HIGH)


def claim(relation=">", left=TICKET, right=RANDOM, margin=0.0, name="a"):
    return Claim("lenet300", name, "", "", "M", left, relation, right, Margin(margin, "test"))


def pruning(difference, spread=0.1, seeds=simulated.SEEDS, **options):
    """Rows where large_final is `difference` percentage points above random, on average."""
    random = np.random.default_rng(1)
    noise = {seed: random.normal(0, spread) for seed in seeds}
    noise = {seed: value - np.mean([*noise.values()]) for seed, value in noise.items()}

    def accuracy(variant, seed, number):
        ticket = variant == "large_final"
        return 95 - 0.1 * number + seed + ticket * (difference + noise[seed])

    variants = ("large_final", "random")
    return simulated.pruning_rows(accuracy, seeds=seeds, variants=variants, **options)


def judge_one(rows, **options):
    [verdict] = verdicts.judge([claim(**options)], rows)
    return verdict


def draws(mean, num_seeds, shape=(NUM_TABLES,), spread=0.2):
    random = np.random.default_rng(2)
    return mean + random.normal(0, spread, (*shape, num_seeds))


def correlated(means, num_seeds):
    """Differences `[tables, claims, seeds]` that share half of their variance."""
    random = np.random.default_rng(3)
    own = random.normal(0, 0.2, (NUM_TABLES, len(means), num_seeds))
    shared = random.normal(0, 0.2, (NUM_TABLES, 1, num_seeds))
    return np.array(means)[:, None] + own + shared


def adjusted(differences, bounds):
    """Return both kinds of adjusted p-values of families of claims, `[tables, claims]`."""
    p = [verdicts.p_values(differences[:, i], *pair) for i, pair in enumerate(bounds)]
    supported, opposed = (np.stack(kind, axis=-1) for kind in zip(*p, strict=True))
    return verdicts.holm(supported), verdicts.holm(opposed)


def test_p_values_are_those_of_scipy():
    random = np.random.default_rng(0)
    left, right = random.normal(1, 1, (2, 6))
    outside, inside = verdicts.p_values(left - right, 0.0, INFINITY)
    greater = stats.ttest_rel(left, right, alternative="greater").pvalue
    np.testing.assert_allclose([outside, inside], [greater, 1 - greater])
    outside, inside = verdicts.p_values(left - right, -0.5, 0.5)
    below = stats.ttest_1samp(left - right, -0.5, alternative="greater").pvalue
    above = stats.ttest_1samp(left - right, 0.5, alternative="less").pvalue
    np.testing.assert_allclose(outside, max(below, above))
    np.testing.assert_allclose(inside, min(1, 2 * min(1 - below, 1 - above)))


def test_holm_adjusts_as_by_hand():
    p = np.array([[0.01, 0.04, 0.03], [0.5, 0.001, 0.9]])
    np.testing.assert_allclose(verdicts.holm(p), [[0.03, 0.06, 0.06], [1, 0.003, 1]])
    assert verdicts.holm(np.empty((2, 0))).shape == (2, 0)


@pytest.mark.parametrize("num_seeds", [4, 5, 10])
def test_the_chance_of_any_wrong_verdict_holds_on_the_bound_of_every_claim(num_seeds):
    """The worst case: all means lie exactly on a bound."""
    bounds = BOUNDS * 4
    differences = correlated([low for low, _ in bounds], num_seeds)
    for p in adjusted(differences, bounds):
        assert np.mean((p < ALPHA).any(axis=-1)) <= HIGHEST_RATE


def test_the_chance_of_a_wrong_verdict_holds_beside_claims_that_are_clear():
    bounds = BOUNDS * 4
    clear = np.arange(len(bounds)) < 6
    means = [0.0 if high < INFINITY else low + 2 for low, high in bounds[:6]]
    means += [low for low, _ in bounds[6:]]
    supported, _ = adjusted(correlated(means, 5), bounds)
    assert np.mean((supported[:, ~clear] < ALPHA).any(axis=-1)) <= HIGHEST_RATE
    assert np.mean(supported[:, clear] < ALPHA) > 0.3


def test_without_the_correction_the_chance_would_not_hold():
    differences = correlated([0.0] * 12, 5)
    p, _ = verdicts.p_values(differences, 0.0, INFINITY)
    assert np.mean((p < ALPHA).any(axis=-1)) > 2 * HIGHEST_RATE


@pytest.mark.parametrize(
    ("mean", "bounds"),
    [
        (0.2, (0.0, INFINITY)),
        (-0.3, (0.0, INFINITY)),
        (0.0, (-0.25, INFINITY)),
        (0.0, (-0.3, 0.3)),
        (0.3, (-0.5, 0.5)),
        (0.9, (-0.5, 0.5)),
    ],
)
@pytest.mark.parametrize("level", [ALPHA, ALPHA / 20])
def test_the_seeds_needed_settle_a_claim_as_often_as_they_should(mean, bounds, level):
    needed = verdicts.seeds_needed(mean, 0.2, *bounds, level)
    supported = bounds[0] < mean < bounds[1]
    rates = [
        np.mean(verdicts.p_values(draws(mean, count), *bounds)[0 if supported else 1] < level)
        for count in (needed, needed - 2)
    ]
    assert rates[0] > POWER - 0.02
    assert rates[1] < POWER or needed <= MIN_SEEDS + 1


def test_a_mean_on_the_bound_is_never_settled():
    assert verdicts.seeds_needed(0.0, 0.2, 0.0, INFINITY, ALPHA) is None
    assert verdicts.seeds_needed(0.001, 0.2, 0.0, INFINITY, ALPHA) is None


def test_a_clear_effect_is_reproduced_and_its_opposite_is_not():
    verdict = judge_one(pruning(1.0))
    assert verdict.status == REPRODUCED
    np.testing.assert_allclose(verdict.differences.mean(), 1.0)
    assert verdict.interval[0] < 1 < verdict.interval[1]
    assert judge_one(pruning(-1.0)).status == NOT_REPRODUCED
    verdict = judge_one(pruning(0.05))
    assert verdict.status == INCONCLUSIVE
    assert 5 < verdict.seeds_needed <= verdicts.MOST_SEEDS


@pytest.mark.parametrize(
    ("difference", "status"),
    [(0.0, REPRODUCED), (-0.2, REPRODUCED), (0.45, INCONCLUSIVE), (0.9, NOT_REPRODUCED)],
)
def test_equivalence(difference, status):
    assert judge_one(pruning(difference), relation="~", margin=0.5).status == status


@pytest.mark.parametrize(
    ("difference", "status"), [(-0.05, REPRODUCED), (3.0, REPRODUCED), (-0.6, NOT_REPRODUCED)]
)
def test_no_worse(difference, status):
    assert judge_one(pruning(difference), relation=">=", margin=0.25).status == status


@pytest.mark.parametrize("num_seeds", [1, 2, 3])
def test_few_seeds_are_always_inconclusive(num_seeds):
    verdict = judge_one(pruning(50.0, seeds=range(num_seeds)))
    assert verdict.status == INCONCLUSIVE
    assert verdict.p_adjusted is None
    assert verdict.seeds_needed == MIN_SEEDS


def test_the_value_of_a_seed_is_the_mean_over_the_rounds_of_the_range():
    verdict = judge_one(pruning(1.0))
    assert verdict.rounds == [11, 12, 13, 14, 15, 16]
    np.testing.assert_allclose(verdict.right, [95 - 1.35 + seed for seed in simulated.SEEDS])
    assert len(verdict.rows) == 2 * 6 * 5
    assert {row["round"] for row in verdict.rows} == {*verdict.rounds}


def test_a_seed_that_lacks_a_round_on_either_side_is_left_out():
    rows = pruning(1.0)
    rows = [row for row in rows if (row["variant"], row["seed"], row["round"]) != ("random", 2, 16)]
    verdict = judge_one(rows)
    assert (verdict.seeds, verdict.unfinished) == ([0, 1, 3, 4], [2])
    assert verdict.status == REPRODUCED
    rows = [row for row in rows if row["variant"] != "random" or row["round"] < 16]
    verdict = judge_one(rows)
    assert (verdict.seeds, verdict.status) == ([], INCONCLUSIVE)
    assert verdict.unfinished == [*simulated.SEEDS]


def test_a_seed_that_one_side_lacks_is_named():
    rows = [row for row in pruning(1.0) if (row["variant"], row["seed"]) != ("random", 4)]
    verdict = judge_one(rows)
    assert (verdict.seeds, verdict.unfinished) == ([0, 1, 2, 3], [4])


def test_a_sweep_that_has_not_reached_the_end_of_a_range_is_unfinished():
    verdict = judge_one(pruning(1.0, rounds=range(1, 16)))
    assert (verdict.status, verdict.seeds) == (INCONCLUSIVE, [])
    assert verdict.unfinished == [*simulated.SEEDS]


def test_a_diverged_seed_is_left_out_and_named():
    rows = pruning(1.0)
    for row in rows:
        if (row["variant"], row["seed"], row["round"]) == ("large_final", 1, 12):
            row["test_accuracy"] = math.nan
    verdict = judge_one(rows)
    assert (verdict.seeds, verdict.diverged) == ([0, 2, 3, 4], [1])
    assert np.isfinite(verdict.differences).all()


def test_a_claim_without_rows_of_a_side_is_not_run_and_says_of_which():
    rows = [row for row in pruning(1.0) if row["variant"] != "random"]
    verdict = judge_one(rows)
    assert (verdict.status, verdict.missing) == (NOT_RUN, [RANDOM])
    assert judge_one([]).missing == [TICKET, RANDOM]


def test_rows_of_other_experiments_and_data_are_ignored():
    for change in ({"experiment": "quickstart"}, {"dataset": "digits"}, {"network": "conv2"}):
        rows = [row | change for row in pruning(1.0)]
        assert judge_one(rows).status == NOT_RUN


def test_the_dense_network_is_a_side():
    rows = pruning(1.0)
    verdict = judge_one(rows, right=Dense())
    np.testing.assert_allclose(verdict.right, [95 + seed for seed in simulated.SEEDS])


def test_a_reported_number_is_a_side():
    verdict = judge_one(pruning(0.0), left=Dense(), right=97.2, relation="~", margin=4.0)
    np.testing.assert_allclose(verdict.differences.mean(), -0.2)
    assert verdict.status == REPRODUCED


def test_heuristic_masks_count_at_most():
    def accuracy(criterion, weights, seed, power):
        return 20 + seed + power * (criterion == "random") + 10 * (weights == "init")

    rows = simulated.heuristic_rows(accuracy)
    pair = Heuristic(("large_final", "random"), "init")
    verdict = judge_one(rows, left=pair, right=Heuristic(("movement",), "init"))
    np.testing.assert_allclose(verdict.differences, 24)
    assert [(row["criterion"], row["power"]) for row in verdict.rows[:5]] == [("random", 24)] * 5


@pytest.mark.parametrize("lacking", [{"power": 24}, {"criterion": "random"}])
def test_heuristic_masks_count_with_all_criteria_and_densities(lacking):
    rows = simulated.heuristic_rows(lambda *_: 50)
    [(name, value)] = lacking.items()
    rows = [row for row in rows if row[name] != value]
    both = Heuristic(("large_final", "random"), "init")
    verdict = judge_one(rows, left=both, right=40.0)
    assert (verdict.status, verdict.seeds) == (INCONCLUSIVE, [])
    assert verdict.unfinished == [*simulated.SEEDS]


def test_learned_masks_count_at_the_initial_logit_best_on_validation():
    rows = simulated.learned_rows(lambda variant, seed, logit: 90 + logit + seed)
    for row in rows:
        row["validation_accuracy"] = -row["initial_logit"]
    verdict = judge_one(rows, left=Learned("init"), right=90.0, relation=">=")
    np.testing.assert_allclose(verdict.differences, simulated.SEEDS)
    assert {row["initial_logit"] for row in verdict.rows} == {0.0}


def test_the_initial_logit_is_chosen_among_seeds_that_have_all():
    rows = simulated.learned_rows(lambda variant, seed, logit: 90 + logit)
    rows = [row for row in rows if (row["seed"], row["initial_logit"]) != (3, 1.0)]
    verdict = judge_one(rows, left=Learned("init"), right=90.0)
    assert (verdict.seeds, verdict.unfinished) == ([0, 1, 2, 4], [3])
    np.testing.assert_allclose(verdict.differences, 1)


@pytest.mark.parametrize("logits", [(1.0,), (0.0, 1.0)])
def test_a_seed_of_learned_masks_that_diverged_is_left_out_and_named(logits):
    rows = simulated.learned_rows(lambda variant, seed, logit: 90 + logit, logits=logits)
    rows = [
        row | dict.fromkeys(simulated.ACCURACIES, math.nan) if row["seed"] == 2 else row
        for row in rows
    ]
    verdict = judge_one(rows, left=Learned("init"), right=90.0)
    assert (verdict.seeds, verdict.diverged) == ([0, 1, 3, 4], [2])
    np.testing.assert_allclose(verdict.differences, 1)


def test_an_initial_logit_that_few_seeds_tried_is_not_required_of_the_others():
    rows = simulated.learned_rows(lambda variant, seed, logit: 90 + logit)
    rows = [row for row in rows if row["initial_logit"] == 0 or row["seed"] < MIN_SEEDS - 1]
    verdict = judge_one(rows, left=Learned("init"), right=89.0)
    assert verdict.seeds == [*simulated.SEEDS]
    np.testing.assert_allclose(verdict.differences, 1)


def test_differences_that_do_not_vary_are_no_proof_beyond_the_resolution():
    verdict = judge_one(pruning(0.001, spread=0.0))
    assert verdict.status == INCONCLUSIVE
    assert judge_one(pruning(1.0, spread=0.0)).status == REPRODUCED


def test_networks_are_families_of_their_own():
    rows = pruning(0.15)
    alone = judge_one(rows)
    others = [row | {"network": "conv2", "dataset": "cifar10"} for row in pruning(0.0)]
    family = [claim(), *(claim()._replace(network="conv2", name=str(i)) for i in range(50))]
    first, *rest = verdicts.judge(family, rows + others)
    assert first.p_adjusted == alone.p_adjusted
    assert rest[0].p_adjusted[0] == 1


def test_claims_that_are_run_later_do_not_weaken_a_verdict():
    rows = pruning(0.15)
    others = [claim(left=Learned("init"), right=90.0, name=str(i)) for i in range(20)]
    learned = simulated.learned_rows(lambda variant, seed, logit: 80 + seed)
    alone, *_ = verdicts.judge([claim(), *others], rows)
    together, *_ = verdicts.judge([claim(), *others], rows + learned)
    assert alone.status == together.status == INCONCLUSIVE
    assert alone.p_adjusted[0] == together.p_adjusted[0]
    assert alone.p_adjusted[1] >= together.p_adjusted[1]
    assert judge_one(rows).status == REPRODUCED


def test_whole_tables_keep_the_rate_too():
    """From rows to verdicts: six claims about differences that do not exist, in 300 tables."""
    random = np.random.default_rng(5)
    variants = tuple(simulated.VARIANTS[:7])
    sides = [Pruned(variant, *HIGH) for variant in variants]
    claims = [
        claim(left=side, right=sides[0], name=str(place)) for place, side in enumerate(sides[1:])
    ]
    wrong = 0
    for _ in range(300):
        rows = simulated.pruning_rows(
            lambda *_: random.normal(90, 0.3), variants=variants, rounds=range(11, 17)
        )
        found = verdicts.judge(claims, rows)
        wrong += any(verdict.status in (REPRODUCED, NOT_REPRODUCED) for verdict in found)
    assert wrong / 300 <= 2 * ALPHA + 3 * math.sqrt(2 * ALPHA / 300)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_claim_can_be_computed(network):
    claims = [claim for claim in CLAIMS if claim.network == network]
    found = verdicts.judge(claims, simulated.all_rows(network))
    assert [verdict.claim for verdict in found] == claims
    for verdict in found:
        assert verdict.seeds == [*simulated.SEEDS]
        assert verdict.p_adjusted is not None and verdict.rows
        assert {row["network"] for row in verdict.rows} == {network}


def test_rounds_and_densities_of_the_rerun_meet():
    """The range of every claim about a single round contains exactly one round."""
    single = [
        verdict
        for verdict in verdicts.judge(CLAIMS, simulated.all_rows())
        if verdict.claim.source == "rerun" and isinstance(verdict.claim.left, Pruned)
    ]
    assert single
    for verdict in single:
        assert [f"round {number}" in verdict.claim.text for number in verdict.rounds] == [True]


def test_no_claim_is_run_in_an_empty_folder():
    assert {verdict.status for verdict in verdicts.judge(CLAIMS, [])} == {NOT_RUN}


FRESH = range(NUM_SEEDS, NUM_SEEDS + 6)
STAGE = (("lenet300-a", 6),)


def judge_anew(rows, stage=STAGE, **options):
    [verdict] = verdicts.judge_again([claim(**options)], rows, stage)
    return verdict


def test_the_first_stage_counts_the_first_seeds_alone():
    first, fresh = pruning(0.05), pruning(-3.0, seeds=range(NUM_SEEDS, 30))
    alone, beside = (verdicts.judge(CLAIMS, rows) for rows in (first, [*first, *fresh]))
    assert repr(alone) == repr(beside), "verdicts that stand have moved"
    assert judge_one(fresh).status == NOT_RUN


def test_the_second_stage_counts_its_fresh_seeds_alone():
    own = pruning(1.0, seeds=FRESH)
    others = [*pruning(-3.0), *pruning(-3.0, seeds=range(FRESH.stop, 30))]
    alone, beside = (judge_anew(rows) for rows in (own, [*others, *own]))
    assert repr(alone) == repr(beside)
    assert (alone.status, alone.seeds, alone.fresh) == (REPRODUCED, [*FRESH], FRESH)
    assert alone.seeds_needed is None
    assert judge_anew(pruning(-1.0, seeds=FRESH)).status == NOT_REPRODUCED
    assert judge_anew(others).status == NOT_RUN


def test_an_inconclusive_claim_of_the_second_stage_says_how_many_seeds_would_settle_it():
    rows = pruning(0.06, seeds=FRESH)
    verdict = judge_anew(rows)
    assert verdict.status == INCONCLUSIVE
    assert len(FRESH) < verdict.seeds_needed <= verdicts.MOST_SEEDS
    assert judge_anew([row for row in rows if row["seed"] != FRESH[0]]).seeds_needed is None


@pytest.mark.parametrize("lacking", [{"seed": 10}, {"variant": "random", "seed": 7, "round": 16}])
def test_the_second_stage_waits_for_all_its_seeds(lacking):
    rows = [row for row in pruning(50.0, seeds=FRESH) if not lacking.items() <= row.items()]
    verdict = judge_anew(rows)
    assert (verdict.status, verdict.p_adjusted) == (INCONCLUSIVE, None)
    assert verdict.unfinished == [lacking["seed"]]


def test_the_second_stage_does_not_wait_for_a_diverged_seed():
    rows = pruning(1.0, seeds=FRESH)
    for row in rows:
        if (row["variant"], row["seed"], row["round"]) == ("large_final", 6, 12):
            row["test_accuracy"] = math.nan
    verdict = judge_anew(rows)
    assert (verdict.status, verdict.diverged, verdict.unfinished) == (REPRODUCED, [6], [])
    assert verdict.seeds == [5, 7, 8, 9, 10]


def test_the_second_stage_is_corrected_for_its_own_claims():
    claims = [claim(name=str(i)) for i in range(50)]
    stage = [(one.id, 6) for one in claims[:3]]
    rows = pruning(0.15, seeds=FRESH)
    p, _ = verdicts.p_values(judge_anew(rows).differences, 0.0, INFINITY)
    for verdict in verdicts.judge_again(claims, rows, stage):
        assert verdict.p_adjusted[0] == pytest.approx(3 * p)


def test_every_claim_of_the_second_stage_can_be_computed():
    most = max(number for _, number in SECOND_STAGE)
    rows = simulated.all_rows(seeds=range(NUM_SEEDS, NUM_SEEDS + most))
    found = verdicts.judge_again(CLAIMS, rows)
    assert [(verdict.claim.id, len(verdict.seeds)) for verdict in found] == [*SECOND_STAGE]
    assert all(verdict.p_adjusted and verdict.seeds == [*verdict.fresh] for verdict in found)


def lines(barrier, seeds=simulated.SEEDS):
    """Rows of lines between copies; `barrier(variant, seed)` is in percentage points."""
    sides = {side for claim in STABILITY for side in claim.sides}
    return [
        simulated.common("lenet300", CONNECTIVITY, seed)
        | {"variant": side.variant, "rewind_step": side.rewind_step, "round": side.round}
        | {"copy": 0, "other_copy": 1, "position": position, "density": 1.0, "id": "r1"}
        | {"test_accuracy": 0.9 - height * barrier(side.variant, seed) / 100}
        for side in sides
        for position, height in ((0.0, 0.0), (0.5, 1.0), (1.0, 0.0))
        for seed in seeds
    ]


def test_stability_is_judged_by_barriers_in_a_family_of_its_own():
    accuracies = pruning(0.5)
    barrier = {"dense": 0.1, "large_final": 0.2, "random": 30.0, "large_final:reinit": 0.2}
    rows = lines(lambda variant, seed: barrier[variant] + 0.01 * seed)
    found = verdicts.judge(STABILITY, [*accuracies, *rows], [CONNECTIVITY])
    for verdict in found:
        other = verdict.claim.right if isinstance(verdict.claim.right, Barrier) else None
        is_of_reinit = Barrier("large_final:reinit", 0, 7)[0] == verdict.claim.left.variant
        expected = INCONCLUSIVE if is_of_reinit else REPRODUCED
        assert verdict.status == expected, verdict.claim.name
        left = [barrier[verdict.claim.left.variant] + 0.01 * seed for seed in simulated.SEEDS]
        np.testing.assert_allclose(verdict.left, left, atol=1e-9)
        assert len(verdict.right) == 5 and (other is None) == (verdict.claim.right == 0)
    alone, beside = (verdicts.judge(CLAIMS, x) for x in (accuracies, [*accuracies, *rows]))
    assert repr(alone) == repr(beside), "verdicts that stand have moved"
