"""Networks with state beside their parameters: running statistics, from training to checkpoints."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.engine import batches
from experiments.problems.seeds import BATCHES, INIT, seed_keys
from experiments.runners import initial_scores, iterative, pruning_at_init
from experiments.runners.outcomes import abstract_outcome
from experiments.runners.registry import RUNNERS
from experiments.storage import run_folder
from experiments.storage.checkpoints import Checkpoints
from supermask_jax import masks, saliency
from tests.bad_input import check_one_line
from tests.experiments import tiny
from tests.experiments.functions import Normalised
from tests.experiments.test_autosave import stop_a_run
from tests.experiments.test_bad_input import CONFIGS

NETWORK = "tests.experiments.functions:normalised"
VARIANTS = ("large_final", "large_final:finetune")
EVAL_STEPS = (0, 10, 20, 21)
SHAPE = (8, 8, 1)


def config(**changes):
    """Two variants and two seeds of a network with BatchNorm, for two rounds on digits."""
    own = {"network": NETWORK, "rates": (), "variants": VARIANTS, "learning_rate": 0.01}
    return tiny.config(**own | changes)


def stateful():
    return config()


def load(workdir, round, own=None):
    """Return the outcome of a round."""
    plan = iterative.make_plan(own or config())
    checkpoints = Checkpoints(run_folder.existing(workdir).below("checkpoints"), keep=2)
    return checkpoints.load(round, abstract_outcome(plan, round))


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture(scope="module")
def workdir():
    return tiny.finished(stateful)


@pytest.fixture(scope="module")
def outcomes(workdir):
    return [load(workdir, round) for round in range(3)]


def by_hand(plan, seed):
    """Train a dense network in a plain loop of flax; return its variables at every evaluation."""
    module, optimizer = Normalised(10), optax.adam(plan.config.learning_rate)
    made = module.init(seed_keys([seed], 0, INIT)[0], jnp.zeros((1, *SHAPE)), train=False)
    params, state = made.pop("params"), made
    images, labels = plan.problem.dataset.train
    size = {"num_steps": plan.num_steps, "batch_size": plan.config.batch_size}
    keys = seed_keys([seed], 0, BATCHES)
    [table] = np.asarray(batches.batch_table(keys, num_examples=len(labels), **size))

    @jax.jit
    def step(params, state, opt_state, images, labels):
        def loss(params):
            variables, pixels = {"params": params, **state}, images / jnp.float32(255)
            logits, new = module.apply(variables, pixels, train=True, mutable=list(state))
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), new

        grads, new = jax.grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), new, opt_state

    opt_state, seen = optimizer.init(params), [(params, state)]
    for number, chosen in enumerate(table, 1):
        batch = images[chosen], labels[chosen]
        params, state, opt_state = step(params, state, opt_state, *batch)
        if number in EVAL_STEPS:
            seen.append((params, state))
    return jax.device_get(seen)


def accuracy(params, state, split):
    logits = Normalised(10).apply({"params": params, **state}, split.images / 255, train=False)
    return np.mean(np.asarray(logits).argmax(axis=1) == split.labels)


def test_training_equals_a_plain_loop_of_flax(workdir, outcomes):
    plan = iterative.make_plan(config())
    rows = tiny.run(workdir, config())
    for place, seed in enumerate((0, 1)):
        seen = by_hand(plan, seed)
        end = jax.tree.map(lambda x, i=place: x[i], (outcomes[0].w_f, outcomes[0].model_end))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), end, seen[-1])
        assert end[1]["counters"]["steps"] == plan.num_steps
        [row] = [row for row in rows if (row["round"], row["seed"]) == (0, seed)]
        best = EVAL_STEPS.index(row["early_stop_step"])
        test = plan.problem.dataset.test
        for name, variables in (("test", seen[best]), ("final_test", seen[-1])):
            assert row[f"{name}_accuracy"] == pytest.approx(accuracy(*variables, test), abs=2e-3)


def test_rewound_networks_restart_with_the_first_state_and_finetuned_ones_go_on(outcomes):
    first, *later = outcomes
    ends = jax.tree.map(lambda x: np.concatenate([x, x]), first.model_end)
    for after in later:
        start = jax.tree.map(lambda x: (x[:2], x[2:]), after.model_start)
        rewound, goes_on = (
            jax.tree.map(lambda pair, i=i: pair[i], start, is_leaf=lambda x: isinstance(x, tuple))
            for i in (0, 1)
        )
        assert_equal(rewound, first.model_start)
        assert_equal(goes_on, jax.tree.map(lambda x: x[2:], ends))
        ends = after.model_end
    steps = outcomes[2].model_end["counters"]["steps"]
    assert steps.tolist() == [21, 21, 63, 63]


def test_late_rewinding_goes_back_to_the_state_of_its_step(tmp_path):
    own = config(rewind_step=10, seeds=(0,), num_rounds=1)
    tiny.run(tmp_path, own)
    dense, ticket = (load(tmp_path, round, own) for round in (0, 1))
    _, (w_k, state), *_ = by_hand(iterative.make_plan(own), 0)
    found = jax.tree.map(lambda x: x[0], (dense.state.w_i, dense.model_start))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), found, (w_k, state))
    assert_equal(jax.tree.map(lambda x: x[:1], ticket.model_start), dense.model_start)
    assert ticket.model_end["counters"]["steps"].tolist() == [21, 21 + 11]


def test_a_member_alone_has_the_same_bits(workdir, outcomes, tmp_path):
    own = config(seeds=(1,), variants=VARIANTS[1:])
    rows = tiny.run(tmp_path, own)
    whole = {row["id"]: row for row in tiny.run(workdir, config())}
    for row in rows:
        assert repr(row) == repr(whole[row["id"]])
    alone = load(tmp_path, 2, own)
    assert_equal(jax.tree.map(lambda x: x[0], alone), jax.tree.map(lambda x: x[3], outcomes[2]))


def test_a_run_stopped_within_and_between_rounds_resumes_to_the_same_files(
    workdir, outcomes, tmp_path
):
    boundaries = itertools.count(1)
    stop_a_run(tmp_path, config(), lambda name: next(boundaries) == 3)
    tiny.run(tmp_path, config(num_rounds=1))
    tiny.run(tmp_path, config())
    assert (tmp_path / "results.csv").read_bytes() == (workdir / "results.csv").read_bytes()
    assert_equal(load(tmp_path, 2), outcomes[2])


def test_members_side_by_side_have_the_same_states(outcomes, tmp_path):
    own = config(members_at_once=2, num_rounds=0)
    tiny.run(tmp_path, own)
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, atol=1e-3),
        load(tmp_path, 0, own),
        outcomes[0],
    )


def test_a_member_whose_state_diverges_is_marked(tmp_path, monkeypatch):
    start = iterative.Laboratory.start_model_state

    def break_one(self, round, previous):
        states = start(self, round, previous)
        states["batch_stats"]["norm"]["mean"] = states["batch_stats"]["norm"]["mean"].copy()
        states["batch_stats"]["norm"]["mean"][0] = np.nan
        return states

    monkeypatch.setattr(iterative.Laboratory, "start_model_state", break_one)
    broken, other = tiny.run(tmp_path, config(num_rounds=0))
    assert np.isnan(broken["final_test_accuracy"]) and other["final_test_accuracy"] > 0.3


def test_what_is_held_in_memory_counts_the_states():
    plan = iterative.make_plan(config())
    without = plan._replace(problem=plan.problem._replace(model_state=None))
    sizes = [
        sum(leaf.size for leaf in jax.tree.leaves(abstract_outcome(each, 1)))
        for each in (plan, without)
    ]
    assert sizes[0] - sizes[1] == 4 * 2 * (9 + 9 + 1)  # of 4 members, at the start and the end


SCORED = ("snip", "grasp", "synflow:2", "magnitude", "random")


def at_init_config(**changes):
    own = {"network": NETWORK, "rates": (), "variants": SCORED, "learning_rate": 0.01}
    return tiny.at_init(**own | {"ticket_rounds": (4,)} | changes)


@pytest.fixture(scope="module")
def at_init():
    return pruning_at_init.make_plan(at_init_config(seeds=(0,)))


@pytest.mark.parametrize("name", ["snip", "grasp", "synflow"])
def test_scores_of_a_network_with_state_are_those_of_flax(at_init, name):
    """Gradients are of a training step, and SynFlow is of an evaluation with the first state."""
    module, key = Normalised(10), seed_keys([0], 0, INIT)[0]
    made = module.init(key, jnp.zeros((1, *SHAPE)), train=False)
    w_i, state = made.pop("params"), made
    batch = pruning_at_init.examples(at_init, 0)

    def loss(params, images, labels, temperature):
        variables, pixels = {"params": params, **state}, images / jnp.float32(255)
        logits, _ = module.apply(variables, pixels, train=True, mutable=list(state))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits / temperature, labels)
        return losses.mean()

    def evaluate(params, images):
        return module.apply({"params": params, **state}, images, train=False)

    kept = masks.ones(w_i)
    labelled = batch["images"], batch["labels"]
    expected = {
        "snip": lambda: saliency.snip(loss, w_i, *labelled, 1.0, mask=kept),
        "grasp": lambda: saliency.grasp(loss, w_i, *labelled, 200.0, mask=kept),
        "synflow": lambda: saliency.synflow(evaluate, w_i, jnp.ones((1, *SHAPE)), mask=kept),
    }[name]()
    score = initial_scores.SCORES[name]
    found = score(at_init.problem, jax.random.key(0), w_i, batch, kept, state)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-7), found, expected
    )


def test_networks_with_state_are_pruned_before_training(at_init, tmp_path):
    own = at_init_config()
    rows = tiny.run(tmp_path / "all", own)
    assert len(rows) == 2 * len(SCORED)
    assert all(row["test_accuracy"] > 0.2 and row["density"] < 0.5 for row in rows)
    own.update(variants=("snip",), seeds=(1,))
    [alone] = tiny.run(tmp_path / "alone", own)
    [twin] = [row for row in rows if row["id"] == alone["id"]]
    assert repr(alone) == repr(twin)


@pytest.mark.parametrize("network", [NETWORK, "resnet20"])
@pytest.mark.parametrize("runner", ["connectivity", "learned", "one_shot"])
def test_networks_that_were_not_trained_have_no_state(runner, network):
    own = CONFIGS[runner](network=network)
    own.update({"rates": ()} if "rates" in own else {})
    with pytest.raises(
        ValueError, match=r"running statistics .* (weights|trained ones) lack"
    ) as error:
        RUNNERS[own.runner].make_plan(own)
    check_one_line(error.value)
    assert network in str(error.value)
