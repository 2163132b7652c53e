import importlib
import math
from pathlib import Path

import pytest

from experiments.configs import base
from experiments.problems import networks
from experiments.runners import learned
from experiments.runners.untrained_weights import WEIGHTS
from experiments.runners.variants import Variant
from supermask_jax.criteria import CRITERIA
from tools.report.claims import (
    ALPHA,
    CLAIMS,
    COLUMNS,
    EXPERIMENTS,
    MIN_SEEDS,
    MOST_FRESH_SEEDS,
    NETWORKS,
    NUM_SEEDS,
    SECOND_STAGE,
    TABLE_1,
    TRUST,
    Dense,
    Heuristic,
    Learned,
    Pruned,
)
from tools.report.tables import pool, read_tables
from tools.report.verdicts import judge, seeds_needed

SIDES = {side for claim in CLAIMS for side in (claim.left, claim.right)}


def test_every_claim_has_an_id_of_its_own():
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)


def test_the_networks_are_those_of_the_configurations():
    assert {name: base.SCHEDULES[name]["dataset"] for name in networks.NETWORKS} == NETWORKS
    assert {claim.network for claim in CLAIMS} == set(NETWORKS) == set(TABLE_1)


@pytest.mark.parametrize("side", sorted(SIDES, key=repr), ids=str)
def test_a_side_names_what_is_registered(side):
    match side:
        case Pruned(variant, least, most):
            assert str(Variant.parse(variant)) == variant
            assert 0 <= least < most < 1
        case Heuristic(criteria, weights):
            assert criteria and set(criteria) <= set(CRITERIA)
            assert weights in WEIGHTS
        case Learned(variant):
            assert str(learned.Variant.parse(variant)) == variant
        case Dense():
            pass
        case reported:
            assert 0 < reported < 100


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_a_relation_has_the_margin_that_it_needs(claim):
    low, high = claim.bounds
    match claim.relation:
        case ">":
            assert (low, high) == (0, math.inf)
        case ">=":
            assert low < 0 and high == math.inf
        case "~":
            assert low == -high < 0
        case other:
            raise AssertionError(other)
    assert claim.margin.why and claim.text and claim.source
    assert claim.trust and set(claim.trust) <= set(TRUST)
    assert claim.left != claim.right


def test_every_cell_of_table_1_is_a_claim():
    cells = {(claim.network, claim.left, claim.right) for claim in CLAIMS}
    for network, numbers in TABLE_1.items():
        for side, (number, _) in zip(COLUMNS.values(), numbers, strict=True):
            assert (network, side, number) in cells


@pytest.fixture(scope="module")
def first_stage():
    tables = read_tables(Path(__file__).parents[2] / "results")
    found = judge(CLAIMS, pool([table for table in tables if table.is_judged]))
    return {verdict.claim.id: verdict for verdict in found}


def needed_in_the_second_stage(verdict):
    assert verdict.seeds == [*range(NUM_SEEDS)]
    mean, spread = verdict.differences.mean(), verdict.differences.std(ddof=1)
    return seeds_needed(mean, spread, *verdict.claim.bounds, ALPHA / len(SECOND_STAGE))


def test_the_fresh_seeds_are_those_that_the_first_stage_asks_for(first_stage):
    needed = {name: needed_in_the_second_stage(first_stage[name]) for name, _ in SECOND_STAGE}
    assert needed == dict(SECOND_STAGE)
    assert len(needed) == len(SECOND_STAGE)
    assert {claim.network for claim in CLAIMS if claim.id in needed} == {"lenet300"}
    assert MIN_SEEDS <= min(needed.values()) <= max(needed.values()) <= MOST_FRESH_SEEDS


@pytest.mark.parametrize(
    "name", ["variant-2-above-zero", "variant-2-above-variant-1", "cell-3", "rerun-9"]
)
def test_an_inconclusive_claim_outside_the_second_stage_would_need_too_many(name, first_stage):
    needed = needed_in_the_second_stage(first_stage[f"lenet300-{name}"])
    assert needed is None or needed > MOST_FRESH_SEEDS


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_judged_experiment_has_a_configuration(experiment):
    module = importlib.import_module(f"experiments.configs.{experiment}")
    assert module.get_config().experiment == experiment
