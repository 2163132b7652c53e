import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from supermask_jax.training import Stream, make_training
from supermask_jax.transforms import freeze_pruned
from tests.trees import assert_same_bits, draw, leaves

PARAMS = draw({"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)}, 0)
MASK = {"kernel": draw(PARAMS, 1)["kernel"] > -0.5, "bias": jnp.ones(3, bool)}
DATA = {
    "x": draw(jnp.ones((40, 4)), 2),
    "y": draw(jnp.ones((40, 3)), 3),
    "order": jnp.asarray(np.random.default_rng(4).integers(0, 40, (2, 30, 8)), jnp.int32),
}
STREAM = Stream(jnp.int32(1), jax.random.key(5), {"mask": MASK, "noise": jnp.float32(0.1)})
OPTIMIZER = freeze_pruned(optax.adam(0.05))


def predict(params, x):
    return x @ params["kernel"] + params["bias"]


def loss(params, batch, key, context):
    """Noisy inputs, so that the key matters."""
    x = batch["x"] + context["noise"] * jax.random.normal(key, batch["x"].shape)
    error = predict(params, x) - batch["y"]
    return jnp.mean(error**2), {"absolute": jnp.mean(jnp.abs(error))}


def evaluate(params, data, context):
    error = predict(params, data["x"]) - data["y"]
    return {"loss": jnp.mean(error**2), "largest": jnp.max(jnp.abs(error))}


def get_batch(data, stream, step):
    rows = data["order"][stream, step]
    return {"x": data["x"][rows], "y": data["y"][rows]}


@functools.cache
def toy(num_steps, eval_every, chunk_evals=100):
    return make_training(
        loss,
        evaluate,
        OPTIMIZER,
        get_batch,
        num_steps=num_steps,
        eval_every=eval_every,
        chunk_evals=chunk_evals,
    )


@functools.cache
def compiled(training):
    return jax.jit(training.run_chunk)


def run(training, params=PARAMS, stream=STREAM, data=DATA):
    """All chunks: the last state and the metrics of the whole training, padding and all."""
    state, tables = training.init(params), []
    for first in range(0, training.num_evals, training.chunk_evals):
        state, metrics = compiled(training)(state, stream, jnp.int32(first), data)
        tables.append(metrics)
    return state, jax.tree.map(lambda *parts: np.concatenate(parts), *tables)


def python_loop(num_steps, eval_every):
    """The same training as anyone would write it."""
    params, opt_state = PARAMS, OPTIMIZER.init(PARAMS)
    best, evaluations, losses = (np.inf, None, None), [], []
    step_fn = jax.jit(jax.value_and_grad(loss, has_aux=True))
    for step in range(num_steps + 1):
        if step % eval_every == 0 or step == num_steps:
            metrics = evaluate(params, DATA, {})
            evaluations.append((step, metrics))
            if metrics["loss"] < best[0]:
                best = (metrics["loss"], step, params)
        if step < num_steps:
            key = jax.random.fold_in(STREAM.key, step)
            batch = get_batch(DATA, 1, step)
            (value, extra), grads = step_fn(params, batch, key, STREAM.context)
            losses.append((value, extra["absolute"]))
            updates, opt_state = OPTIMIZER.update(grads, opt_state, params, mask=MASK)
            params = optax.apply_updates(params, updates)
    return params, best, evaluations, np.array(losses)


@pytest.mark.parametrize(
    ("num_steps", "eval_every", "steps"),
    [
        (20, 5, [0, 5, 10, 15, 20]),
        (23, 10, [0, 10, 20, 23]),
        (3, 10, [0, 3]),
        (2, 1, [0, 1, 2]),
    ],
)
def test_equals_a_python_loop(num_steps, eval_every, steps):
    training = toy(num_steps, eval_every)
    state, metrics = run(training)
    params, (best_loss, best_step, best_params), evaluations, losses = python_loop(
        num_steps, eval_every
    )
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    assert [step for step, _ in evaluations] == steps
    assert training.num_evals == training.chunk_evals == len(steps)
    assert state.step == num_steps
    assert state.best_step == best_step
    close(state.best_loss, best_loss)
    jax.tree.map(close, state.params, params)
    jax.tree.map(close, state.best_params, best_params)
    for name in ("loss", "largest"):
        close(metrics[f"validation_{name}"], [m[name] for _, m in evaluations])
    for column, name in enumerate(("loss", "absolute")):
        means = [losses[a:b, column].mean() for a, b in itertools.pairwise(steps)]
        close(metrics[f"train_{name}"][:-1], means)
        assert np.isnan(metrics[f"train_{name}"][-1])  # no steps after the last evaluation
    for _, before, after, kept in leaves(PARAMS, state.params, MASK):
        assert ((before == after) == ~kept).all()


@pytest.mark.parametrize("chunk_evals", [1, 2, 3])
def test_chunks_change_no_bit(chunk_evals):
    whole, table = run(toy(17, 5))
    training = toy(17, 5, chunk_evals)
    state, metrics = run(training)
    assert_same_bits(state, whole)
    assert training.num_evals == 5
    padded = -(-5 // chunk_evals) * chunk_evals
    for name, values in metrics.items():
        assert values.shape == (padded,)
        assert values[:5].tobytes() == table[name].tobytes()
        assert np.isnan(values[5:]).all()


def test_one_program_for_all_chunks_streams_and_masks(compilations):
    training = toy(9, 2, chunk_evals=2)
    run_chunk = jax.jit(training.run_chunk)
    state, seen = training.init(PARAMS), []
    firsts = [jnp.int32(first) for first in (0, 2, 4)]
    dense = STREAM._replace(context=STREAM.context | {"mask": jax.tree.map(jnp.isfinite, PARAMS)})
    jax.block_until_ready((state, dense))
    before = len(compilations)
    for stream, first in zip((STREAM, STREAM, dense), firsts, strict=True):
        state, _ = run_chunk(state, stream, first, DATA)
        seen.append(len(compilations) - before)
    assert seen == [1, 1, 1]


@pytest.mark.parametrize("change", ["batches", "key", "context"])
def test_the_stream_decides(change):
    other = {
        "batches": jnp.int32(0),
        "key": jax.random.key(6),
        "context": STREAM.context | {"noise": jnp.float32(0.2)},
    }
    training = toy(5, 5)
    state, _ = run(training)
    changed, _ = run(training, stream=STREAM._replace(**{change: other[change]}))
    assert (state.params["kernel"] != changed.params["kernel"]).any()
    assert_same_bits(run(training)[0], state)


NAN = float("nan")


@functools.cache
def scripted(chunk_evals):
    """Parameters that count the steps, and losses that follow a script."""
    return make_training(
        lambda params, batch, key, context: (-params, {}),
        lambda params, data, context: {"loss": data[params.astype(int)]},
        optax.sgd(1.0),
        lambda data, stream, step: None,
        num_steps=7,
        eval_every=3,
        chunk_evals=chunk_evals,
    )


@pytest.mark.parametrize("chunk_evals", [2, 100])
@pytest.mark.parametrize(
    ("script", "best_step", "best_loss"),
    [
        ([5, 4, 3, 2], 7, 2),
        ([1, 2, 3, 4], 0, 1),
        ([5, 3, 3, 3], 3, 3),  # the earliest of equals
        ([2, 2, 2, 2], 0, 2),
        ([5, 2, 4, 2], 3, 2),
        ([NAN, 4, NAN, 3], 7, 3),  # NaN is never best
        ([3, NAN, NAN, NAN], 0, 3),
        ([NAN, NAN, NAN, NAN], 0, np.inf),
        ([np.inf, 4, 5, 5], 3, 4),
    ],
)
def test_the_best_evaluation_is_kept(script, best_step, best_loss, chunk_evals):
    """Evaluations are at steps 0, 3, 6 and 7."""
    losses = jnp.zeros(8).at[jnp.array([0, 3, 6, 7])].set(jnp.array(script, jnp.float32))
    training = scripted(chunk_evals)
    stream = Stream(jnp.int32(0), jax.random.key(0), {})
    state, metrics = run(training, jnp.float32(0), stream, losses)
    np.testing.assert_array_equal(metrics["validation_loss"], np.float32(script))
    assert (state.params, state.step) == (7, 7)
    assert (state.best_step, state.best_params, state.best_loss) == (
        best_step,
        best_step,
        best_loss,
    )


@pytest.mark.parametrize("name", ["num_steps", "eval_every", "chunk_evals"])
@pytest.mark.parametrize("value", [0, -1])
def test_errors(name, value):
    numbers = {"num_steps": 5, "eval_every": 2, "chunk_evals": 2} | {name: value}
    with pytest.raises(ValueError, match=f"{name} is {value}, expected an integer of 1 or more"):
        toy(**numbers)


def test_a_donated_state_takes_nothing_from_the_caller():
    training = make_training(
        lambda params, batch, key, context: (jnp.sum(params**2), {}),
        lambda params, data, context: {"loss": jnp.sum(params**2)},
        optax.sgd(0.1),
        lambda data, stream, step: None,
        num_steps=2,
        eval_every=1,
        chunk_evals=3,
    )
    params = jnp.array([1.0, 2.0])
    stream = Stream(jnp.int32(0), jax.random.key(0), {})
    run = jax.jit(training.run_chunk, donate_argnums=0)
    run(training.init(params), stream, jnp.int32(0), None)
    assert params.tolist() == [1.0, 2.0]
