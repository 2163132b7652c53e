"""Late rewinding and the global scope of iterative pruning."""

import itertools

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from experiments.runners import iterative
from experiments.runners.outcomes import abstract_outcome
from experiments.storage import results, run_folder
from experiments.storage.checkpoints import Checkpoints
from supermask_jax import trees
from tests.experiments import tiny

RANKED = ("dense1", "dense2")
LEAST = 6000


@pytest.fixture(scope="module")
def workdir():
    return tiny.finished(tiny.rewound)


@pytest.fixture(scope="module")
def outcomes(workdir):
    return [load(workdir, tiny.rewound(), round) for round in range(3)]


def load(workdir, config, round):
    plan = iterative.make_plan(config)
    checkpoints = Checkpoints(run_folder.existing(workdir).below("checkpoints"), keep=2)
    return checkpoints.load(round, abstract_outcome(plan, round))


def rows_of(workdir):
    return results.read_rows(workdir / "results.csv", iterative.COLUMNS)


def test_rounds_restart_from_the_dense_network_after_the_steps(outcomes, tmp_path):
    short = tiny.rewound(epochs=1, rewind_step=0, num_rounds=0)  # ends at the step of the others
    tiny.run(tmp_path, short)
    w_k = load(tmp_path, short, 0).w_f
    jax.tree.map(np.testing.assert_array_equal, outcomes[0].state.w_i, w_k)
    for before, after in itertools.pairwise(outcomes):
        for name in ("kernel", "bias"):
            starts = after.state.w_i["dense1"][name]  # of large_final and of finetune, two seeds
            np.testing.assert_array_equal(starts[:2], w_k["dense1"][name])
            ends = before.w_f["dense1"][name][-2:]
            kept = after.state.mask["dense1"][name][2:]
            np.testing.assert_array_equal(starts[2:][kept], ends[kept])


def test_the_dense_network_is_that_of_a_run_that_does_not_rewind(workdir, tmp_path):
    tiny.run(tmp_path, tiny.rewound(rewind_step=0, num_rounds=0))
    for row, other in zip(rows_of(workdir), rows_of(tmp_path), strict=False):
        assert {**row, "id": ""} == {**other, "id": ""}


def test_trainings_of_later_rounds_begin_at_the_step(workdir):
    for round, steps in enumerate([[0, 21, 42], [21, 42], [21, 42]]):
        curves = pq.read_table(workdir / "curves" / f"{iterative.part_name(round)}.parquet")
        assert sorted(set(curves["step"].to_pylist())) == steps
        assert not np.isnan(curves["validation_loss"].to_numpy()).any()
    for row in rows_of(workdir):
        assert row["early_stop_step"] in ((21, 42) if row["round"] else (0, 21, 42))


def by_numpy(scores, mask, num_keep):
    """Rank two layers together, of which each keeps its `LEAST` best in any case."""
    ranked = {x: np.where(mask[x], scores[x], -1.0).ravel() for x in RANKED}
    best = {x: np.argsort(ranked[x])[::-1][:LEAST] for x in RANKED}
    for layer, places in best.items():
        ranked[layer][places] = np.inf
    threshold = np.sort(np.concatenate(list(ranked.values())))[-num_keep]
    return {x: (ranked[x] >= threshold).reshape(mask[x].shape) for x in RANKED}


def test_layers_are_ranked_together_and_each_keeps_its_least(outcomes):
    num_keep = sum(outcomes[0].w_f[layer]["kernel"][0].size for layer in RANKED)
    bound = False
    for before, after in itertools.pairwise(outcomes):
        num_keep -= num_keep // 2
        for seed in (0, 1):  # of large_final
            old, new = (
                {x: o.state.mask[x]["kernel"][seed] for x in RANKED} for o in (before, after)
            )
            scores = {x: np.abs(before.w_f[x]["kernel"][seed]) for x in RANKED}
            expected = by_numpy(scores, old, num_keep)
            for layer in RANKED:
                np.testing.assert_array_equal(new[layer], expected[layer])
                bound |= new[layer].sum() == LEAST
            assert sum(mask.sum() for mask in new.values()) == num_keep
            assert after.state.mask["output"]["kernel"][seed].all(), "rate 0 exempts a layer"
    assert bound, "no layer needed its least"


def test_the_density_counts_all_prunable_weights(workdir, outcomes):
    plan = iterative.make_plan(tiny.rewound())
    total = trees.num_prunable(plan.problem.params, plan.problem.prunable)
    for row in rows_of(workdir):
        assert row["density"] * total == pytest.approx(
            plan.scope.counts(row["round"]) + plan.problem.params["output"]["kernel"].size
        )
