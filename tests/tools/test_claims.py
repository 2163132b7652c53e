import importlib
import math

import pytest

from experiments.configs import base
from experiments.problems import networks
from experiments.runners import iterative, learned
from experiments.runners.untrained_weights import WEIGHTS
from supermask_jax.criteria import CRITERIA
from tools.report.claims import (
    CLAIMS,
    COLUMNS,
    EXPERIMENTS,
    NETWORKS,
    TABLE_1,
    TRUST,
    Dense,
    Heuristic,
    Learned,
    Pruned,
)

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
            assert str(iterative.Variant.parse(variant)) == variant
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


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_judged_experiment_has_a_configuration(experiment):
    module = importlib.import_module(f"experiments.configs.{experiment}")
    assert module.get_config().experiment == experiment
