import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.stages import Lowered

from experiments import datasets
from experiments.datasets import Split
from experiments.engine import batches, objectives, trainer
from experiments.problems.networks import Network
from experiments.problems.problem import Problem
from supermask_jax import population
from supermask_jax.training import Stream

MEMBERS, SEEDS = 9, 3
STEPS, BATCH, EVAL_EVERY = 13, 8, 4
EVAL_STEPS = [0, 4, 8, 12, 13]
OPTIMIZER = optax.adam(0.3)


def apply(params, images):
    return images.reshape(len(images), -1) @ params["kernel"] + params["bias"]


@pytest.fixture(scope="module")
def dataset():
    whole = datasets.load("digits")
    sizes = {"train": 60, "validation": 50, "test": 70}
    cut = {k: Split(*(x[:n] for x in getattr(whole, k))) for k, n in sizes.items()}
    return whole._replace(**cut)


def test_an_epoch_sees_every_example_at_most_once_and_drops_the_rest():
    keys = jax.random.split(jax.random.key(0), 2)
    table = batches.batch_table(keys, num_examples=23, num_steps=10, batch_size=5)
    assert table.shape == (2, 10, 5) and table.dtype == jnp.uint16
    epochs = np.asarray(table[:, :8]).reshape(2, 2, 20)
    assert (epochs < 23).all()
    assert all(len(set(order)) == 20 for seed in epochs for order in seed)
    assert len(np.unique(epochs.reshape(4, 20), axis=0)) == 4, "orders repeat"
    longer = batches.batch_table(keys[1:], num_examples=23, num_steps=12, batch_size=5)
    np.testing.assert_array_equal(longer[0, :10], table[1])


@pytest.mark.parametrize(("count", "size"), [(300, 300), (1000, 1000), (2500, 625), (1009, 1)])
def test_eval_batches_hold_each_example_once(count, size):
    split = Split(np.zeros((count, 2, 2, 1), np.uint8), np.arange(count, dtype=np.int32))
    cut = batches.eval_batches(split)
    assert cut["images"].shape == (count // size, size, 2, 2, 1)
    assert cut["labels"].shape == (count // size, size)
    np.testing.assert_array_equal(cut["labels"].ravel(), split.labels)


@pytest.mark.parametrize("shape", [(2, 2, 3), (4, 8, 4), (28, 28, 1), (32, 32, 3)])
def test_get_batch_takes_the_images_and_labels_of_a_step(shape):
    images = np.random.default_rng(0).integers(0, 256, (6, *shape), dtype=np.uint8)
    split = Split(images, np.arange(6, dtype=np.int32))
    train = batches.train_data(split)
    assert train["images"].shape[1] % batches.ROW_MULTIPLE == 0, "a TPU would copy them"
    data = {
        "train": train,
        "validation": batches.eval_batches(split),
        "batches": np.array([[[0, 1], [2, 3]], [[5, 0], [4, 2]]]),
    }
    batch = batches.get_batch(jax.tree.map(jnp.asarray, data), jnp.int32(1), jnp.int32(1))
    assert batch["labels"].tolist() == [4, 2] and batch["step"] == 1
    assert batch["images"].dtype == jnp.uint8
    np.testing.assert_array_equal(batch["images"], images[[4, 2]])


def numpy_measure(params, split):
    """Compute the mean loss and accuracy in float64."""
    images = split.images.reshape(len(split.images), -1) / 255
    logits = images @ np.float64(params["kernel"]) + np.float64(params["bias"])
    top = logits.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
    losses = log_sums - logits[np.arange(len(logits)), split.labels]
    return losses.mean(), (logits.argmax(axis=1) == split.labels).mean()


def make_params(seed, scale=1.0):
    kernel = scale * jax.random.normal(jax.random.key(seed), (64, 10))
    return jax.device_get({"kernel": kernel, "bias": jnp.arange(10) / 10})


def test_measure_is_the_mean_over_the_split(dataset):
    cut = batches.eval_batches(dataset.test, 16)
    assert cut["labels"].shape == (5, 14)
    measured = objectives.measure(apply, make_params(0), cut)
    expected = numpy_measure(make_params(0), dataset.test)
    np.testing.assert_allclose([measured["loss"], measured["accuracy"]], expected, rtol=1e-5)


def make_trainer(dataset, members_at_once, optimizer=OPTIMIZER, snapshot_step=0):
    params = make_params(0)
    network = Network(lambda key: params, apply, dataset.image_shape)
    return trainer.Trainer(
        Problem(dataset, network, params, jax.tree.map(lambda _: True, params), BATCH),
        optimizer,
        trainer.Schedule(STEPS, EVAL_EVERY, 2, snapshot_step),
        context={},
        num_orders=SEEDS,
        members_at_once=members_at_once,
    )


def train(dataset, members_at_once, max_memory=float("inf")):
    laboratory = make_trainer(dataset, members_at_once)
    assert laboratory.eval_steps.tolist() == EVAL_STEPS
    starts = [make_params(i, scale=1.0 + i) for i in range(MEMBERS)]
    params = jax.tree.map(lambda *leaves: np.stack(leaves), *starts)
    return train_from(laboratory, params, max_memory)


def train_from(laboratory, params, max_memory=float("inf"), first_step=0):
    orders = jnp.arange(MEMBERS, dtype=jnp.int32) % SEEDS
    streams = Stream(orders, jax.random.split(jax.random.key(1), MEMBERS), {})
    done = []
    batch_keys = jax.random.split(jax.random.key(2), SEEDS)
    laboratory.prepare(MEMBERS, max_memory)
    trained = laboratory.train(
        lambda chosen: population.take(params, chosen),
        streams,
        batch_keys,
        done.append,
        first_step=first_step,
    )
    return trained, done


@pytest.fixture(scope="module")
def one_by_one(dataset):
    assert len(jax.devices()) == 4 and MEMBERS % 4, "nothing is padded"
    return train(dataset, 1)


@pytest.fixture(scope="module")
def by_hand(dataset):
    """Train in a plain loop; return the parameters of every member at every evaluation."""
    keys = jax.random.split(jax.random.key(2), SEEDS)
    table = np.asarray(
        batches.batch_table(keys, num_examples=60, num_steps=STEPS, batch_size=BATCH)
    )

    @jax.jit
    def step(params, state, images, labels):
        def loss(params):
            logits = apply(params, images / jnp.float32(255))
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = OPTIMIZER.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    trajectories, losses = [], []
    for member in range(MEMBERS):
        params = make_params(member, scale=1.0 + member)
        state, seen, values = OPTIMIZER.init(params), [params], []
        for number in range(STEPS):
            chosen = table[member % SEEDS, number]
            batch = (x[chosen] for x in dataset.train)
            params, state, value = step(params, state, *batch)
            values.append(float(value))
            if number + 1 in EVAL_STEPS:
                seen.append(jax.device_get(params))
        trajectories.append(seen)
        losses.append([np.mean(values[a:b]) for a, b in itertools.pairwise(EVAL_STEPS)])
    return trajectories, losses


@pytest.mark.optimized
def test_training_equals_a_plain_loop(dataset, one_by_one, by_hand):
    trained, _ = one_by_one
    trajectories, losses = by_hand
    best_steps = []
    for member, seen in enumerate(trajectories):
        for name in ("kernel", "bias"):
            np.testing.assert_allclose(trained.params[name][member], seen[-1][name], atol=1e-3)
        curve = [numpy_measure(params, dataset.validation) for params in seen]
        best = min(range(len(seen)), key=lambda i: curve[i][0])
        best_steps.append(EVAL_STEPS[best])
        expected = {
            "early_stop_step": EVAL_STEPS[best],
            "validation_loss": curve[best][0],
            "validation_accuracy": curve[best][1],
        }
        for when, params in (("test", seen[best]), ("final_test", seen[-1])):
            loss, accuracy = numpy_measure(params, dataset.test)
            expected |= {f"{when}_loss": loss, f"{when}_accuracy": accuracy}
        assert trained.table.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(trained.table[name][member], value, rtol=1e-3, err_msg=name)
        own = {name: values[member] for name, values in trained.curves.items()}
        np.testing.assert_allclose(own["validation_loss"], [c[0] for c in curve], rtol=1e-3)
        np.testing.assert_allclose(own["validation_accuracy"], [c[1] for c in curve], rtol=1e-3)
        np.testing.assert_allclose(own["train_loss"][:-1], losses[member], rtol=1e-3)
    assert len(set(best_steps)) > 1 and min(best_steps) < STEPS, "early stopping chose nothing"


@pytest.mark.optimized
def test_shapes_and_what_is_missing(one_by_one):
    trained, _ = one_by_one
    assert trained.params["kernel"].shape == (MEMBERS, 64, 10)
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(trained))
    for name, values in trained.curves.items():
        assert values.shape == (MEMBERS, len(EVAL_STEPS))
        assert np.isfinite(values[:, :-1]).all()
        assert np.isnan(values[:, -1]).all() == name.startswith("train_")


@pytest.mark.optimized
@pytest.mark.parametrize("members_at_once", [2, 4])
def test_members_at_once_does_not_matter(dataset, one_by_one, members_at_once):
    together, done = train(dataset, members_at_once)
    alone, done_alone = one_by_one
    assert done == done_alone
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3),
        together._asdict(),
        alone._asdict(),
    )


@pytest.mark.optimized
def test_progress_counts_the_steps_of_all_members_chunk_by_chunk(one_by_one):
    _, done = one_by_one
    assert done == [0, 8 * MEMBERS, 5 * MEMBERS, 0]
    assert sum(done) == MEMBERS * STEPS


@pytest.mark.optimized
@pytest.mark.parametrize("members_at_once", [1, 2])
def test_groups_that_fit_train_what_all_train_side_by_side(dataset, members_at_once):
    whole, steps = train(dataset, members_at_once)
    memory = make_trainer(dataset, members_at_once).prepare(MEMBERS).memory
    parts, steps_of_parts = train(dataset, members_at_once, max_memory=memory - 1)
    assert len(steps_of_parts) > len(steps) and sum(steps_of_parts) == sum(steps)
    jax.tree.map(np.testing.assert_array_equal, parts, whole)


def test_groups_become_smaller_until_the_compiler_finds_room(dataset, monkeypatch):
    """A TPU's compiler refuses a program that its memory would not hold."""
    compile_lowered = Lowered.compile

    def refuse_above(most):
        def compile(lowered, *args):
            [*shapes] = {x.shape[0] for x in jax.tree.leaves(lowered.in_avals) if x.shape}
            if "run_chunk" in lowered.as_text()[:200] and max(shapes) > most:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory on HBM")
            return compile_lowered(lowered, *args)

        monkeypatch.setattr(Lowered, "compile", compile)

    refuse_above(100)
    assert make_trainer(dataset, 1).prepare(256).members == 64
    refuse_above(3)
    with pytest.raises(MemoryError, match="4 members at a time take more memory than the devices"):
        make_trainer(dataset, 1).prepare(8)


def test_groups_become_smaller_until_they_fit(dataset):
    laboratory = make_trainer(dataset, 1)
    sizes = [laboratory.prepare(64).members]
    while sizes[-1] > len(jax.devices()):
        memory = laboratory.prepare(sizes[-1]).memory
        sizes.append(laboratory.prepare(64, max_memory=memory - 1).members)
    assert sizes == [64, 32, 16, 8, 4]
    with pytest.raises(MemoryError, match=r"4 members at a time take .* raise --max_memory"):
        laboratory.prepare(64, max_memory=laboratory.prepare(4).memory - 1)


def test_memory_grows_by_one_state_and_stream_per_member(dataset):
    laboratory = make_trainer(dataset, 1)
    sizes = 8, 16, 64
    memory = [laboratory.prepare(size).memory for size in sizes]
    slopes = np.diff(memory) / np.diff(sizes)
    params = 4 * (64 * 10 + 10)
    state = 4 * params  # the current and the best parameters, two moments of Adam
    held = 2 * state  # in training, and as an autosave saves it
    assert (slopes >= held).all() and (slopes < 1.1 * held).all()


@pytest.mark.parametrize("evals", [1, 2, 3])
def test_a_late_start_from_a_snapshot_ends_as_the_whole_training(dataset, evals):
    step = EVAL_STEPS[evals]
    decaying = optax.sgd(optax.cosine_decay_schedule(0.3, STEPS))  # no state but its schedule
    laboratory = make_trainer(dataset, 1, decaying, snapshot_step=step)
    starts = [make_params(i, scale=1.0 + i) for i in range(MEMBERS)]
    params = jax.tree.map(lambda *leaves: np.stack(leaves), *starts)
    whole, _ = train_from(laboratory, params)
    late, done = train_from(laboratory, whole.snapshot.params, first_step=step)
    assert (whole.snapshot.params["kernel"] != params["kernel"]).any() and late.snapshot is None
    jax.tree.map(np.testing.assert_array_equal, late.params, whole.params)
    for name, values in late.curves.items():
        np.testing.assert_array_equal(values, whole.curves[name][:, evals:])
    assert sum(done) == MEMBERS * (STEPS - step)
    after = whole.table["early_stop_step"] >= step
    assert after.any() and (late.table["early_stop_step"] >= step).all()
    for name, values in late.table.items():
        np.testing.assert_array_equal(values[after], whole.table[name][after])
