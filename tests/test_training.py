import functools
import inspect
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from supermask_jax import population
from supermask_jax.training import Stream, make_training
from supermask_jax.transforms import freeze_pruned
from tests.test_transforms import ARGUMENTS, EXTRA, OPTIMIZERS
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
    """A loss with noisy inputs, so that the key matters."""
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
    """Run all chunks; return the last state and the metrics of the training, with padding."""
    state, tables = training.init(params), []
    for first in range(0, training.num_evals, training.chunk_evals):
        state, metrics = compiled(training)(state, stream, jnp.int32(first), data)
        tables.append(metrics)
    return state, jax.tree.map(lambda *parts: np.concatenate(parts), *tables)


def python_loop(num_steps, eval_every):
    """Train in a plain Python loop."""
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
        assert np.isinf(metrics[f"train_{name}"][-1])  # no steps after the last evaluation
    for _, before, after, kept in leaves(PARAMS, state.params, MASK):
        assert ((before == after) == ~kept).all()


def test_data_may_hold_more_than_arrays():
    def from_named_split(data, stream, step):
        rows = jax.random.permutation(jax.random.key(0), data["size"])[:8]  # a static shape
        return {name: data[data["split"]][name][rows] for name in ("x", "y")}

    data = {"train": DATA, "size": 40, "split": "train"}
    training = make_training(
        loss,
        lambda params, data, context: evaluate(params, data["train"], context),
        OPTIMIZER,
        from_named_split,
        num_steps=4,
        eval_every=2,
        chunk_evals=3,
    )
    _, metrics = training.run_chunk(training.init(PARAMS), STREAM, jnp.int32(0), data)
    assert metrics["validation_loss"][-1] < metrics["validation_loss"][0]


@pytest.mark.optimized
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
        assert np.isinf(values[5:]).all()


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
    """Train with parameters that count the steps and losses that follow a script."""
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
        ([5, 3, 3, 3], 3, 3),  # the earliest of equal losses
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


# Late starts


def scheduled(**options):
    """A training whose steps depend on a schedule, on moments and on a key per step."""
    optimizer = optax.chain(
        optax.scale_by_adam(), optax.scale_by_learning_rate(optax.linear_schedule(0.1, 0.0, 12))
    )
    optimizer = options.pop("optimizer", freeze_pruned(optimizer))
    return make_training(
        loss, evaluate, optimizer, get_batch, num_steps=10, eval_every=4, chunk_evals=1
    )


def run_from(training, state, first):
    metrics = []
    for number in range(first, training.num_evals):
        state, row = compiled(training)(state, STREAM, jnp.int32(number), DATA)
        metrics.append(row)
    return state, metrics


@pytest.mark.parametrize(("step", "first"), [(4, 1), (8, 2), (10, 3)])
def test_a_late_start_goes_on_as_if_nothing_had_been(step, first):
    training = scheduled()
    state, rows = training.init(PARAMS), []
    for number in range(first):
        state, row = compiled(training)(state, STREAM, jnp.int32(number), DATA)
        rows.append(row)
    assert state.step == step
    late = training.init(state.params, step, state.opt_state)
    assert (late.step, late.best_step, late.best_loss) == (step, step, np.inf)
    one, late_rows = run_from(training, late, first)
    other, other_rows = run_from(training, state, first)
    assert_same_bits((one.params, one.opt_state, one.step), other[:2] + other[5:6])
    assert_same_bits(late_rows, other_rows)


STEPPED = {
    "chain": lambda rate: optax.adam(rate),
    "inject": lambda rate: optax.inject_hyperparams(optax.adam)(learning_rate=rate),
    "partition": lambda rate: optax.partition(
        {"a": optax.adam(rate), "b": optax.sgd(rate, momentum=0.9)}, {"kernel": "a", "bias": "b"}
    ),
    "frozen": lambda rate: freeze_pruned(optax.adamw(rate), MASK),
}


@pytest.mark.parametrize("name", STEPPED)
def test_a_late_start_moves_schedules_and_nothing_else(name):
    """The optimizer has the learning rate of that step, and new moments and bias corrections."""
    schedule = optax.linear_schedule(0.1, 0.0, 12)
    optimizer, shifted = (
        optax.with_extra_args_support(STEPPED[name](rate))
        for rate in (schedule, lambda count: schedule(count + 8))
    )
    late = scheduled(optimizer=optimizer).init(PARAMS, 8).opt_state
    early, params = shifted.init(PARAMS), (PARAMS, PARAMS)
    for seed in range(3):
        grads = draw(PARAMS, seed)
        one, late = optimizer.update(grads, late, params[0], mask=MASK)
        other, early = shifted.update(grads, early, params[1], mask=MASK)
        assert_same_bits(one, other)
        params = tuple(map(optax.apply_updates, params, (one, other)))


@pytest.mark.parametrize("step", [1, 9, 12, -4, 4.0, True])
def test_a_late_start_is_on_the_grid(step):
    with pytest.raises(ValueError, match=f"step is {step}, expected"):
        scheduled().init(PARAMS, step)


UNSCHEDULED = {"optimistic_adam", "rprop", "sm3"}  # take only numbers
WITH_A_RATE = [
    name
    for name, make in OPTIMIZERS.items()
    if "learning_rate" in inspect.signature(make).parameters and name not in UNSCHEDULED
]


@pytest.mark.parametrize("name", WITH_A_RATE)
def test_every_schedule_of_optax_starts_late_or_says_that_it_cannot(name):
    seen = []

    def schedule(count):
        seen.append(int(count))
        return jnp.float32(0.1)

    optimizer = OPTIMIZERS[name](**(ARGUMENTS.get(name, {}) | {"learning_rate": schedule}))
    try:
        state = scheduled(optimizer=optimizer).init(PARAMS, 8)
    except ValueError as error:
        assert "together with others, so a late start needs the state at step" in str(error)
        return
    seen.clear()
    grads = draw(PARAMS, 1)
    extra = EXTRA.get(name, lambda *_: {})(lambda p: jnp.sum(p["kernel"] ** 2), 1.0, grads)
    with jax.disable_jit():
        optax.with_extra_args_support(optimizer).update(grads, state.opt_state, PARAMS, **extra)
    assert seen and min(seen) >= 8


def test_an_optimizer_that_takes_only_what_it_names_gets_the_context_alone():
    def update(updates, state, params=None, *, mask, noise):
        return jax.tree.map(lambda m, g: jnp.where(m, -0.1 * g, 0), mask, updates), state

    strict = optax.GradientTransformationExtraArgs(lambda params: (), update)
    for optimizer in (strict, optax.chain(optax.clip(1.0), strict)):
        training = make_training(
            loss, evaluate, optimizer, get_batch, num_steps=2, eval_every=1, chunk_evals=3
        )
        state, _ = run(training)
        assert (state.params["kernel"] != PARAMS["kernel"])[MASK["kernel"]].all()


def test_a_loss_may_return_a_list():
    training = make_training(
        lambda *a: list(loss(*a)), evaluate, OPTIMIZER, get_batch,
        num_steps=3, eval_every=10, chunk_evals=100,
    )  # fmt: skip
    assert_same_bits(run(training)[0], run(toy(3, 10))[0])


def test_multi_steps_passes_the_mask_on():
    training = scheduled(optimizer=optax.MultiSteps(OPTIMIZER, 2))
    state, _ = run_from(training, training.init(PARAMS), 0)
    for _, before, after, kept in leaves(PARAMS, state.params, MASK):
        assert ((before == after) == ~kept).all()


def test_late_starts_of_a_population():
    training = scheduled()
    params = jax.tree.map(lambda w: jnp.stack([w, 2 * w]), PARAMS)
    states = jax.vmap(functools.partial(training.init, step=4))(params)
    assert_same_bits(population.take(states, 0), training.init(PARAMS, 4))


def test_optimizers_that_count_other_steps_need_their_state():
    optimizer = optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation()
    training = scheduled(optimizer=freeze_pruned(optimizer))
    with pytest.raises(ValueError, match=r"MultiStepsState counts the steps .*opt_state"):
        training.init(PARAMS, 4)
    state, _ = compiled(training)(training.init(PARAMS), STREAM, jnp.int32(0), DATA)
    assert_same_bits(training.init(state.params, 4, state.opt_state).opt_state, state.opt_state)


# State beside the parameters


class Normalised(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(6)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)
        x = nn.Dropout(0.3, deterministic=not train)(x)
        return nn.Dense(3)(x)


MODEL = Normalised()
VARIABLES = MODEL.init(jax.random.key(0), DATA["x"], train=False)


def normalised_loss(params, batch, key, context, model_state):
    variables = {"params": params, **model_state["batch_stats"]}
    out, new = MODEL.apply(
        variables, batch["x"], train=True, mutable=["batch_stats"], rngs={"dropout": key}
    )
    new = {"batch_stats": new, "steps": model_state["steps"] + 1, "key": model_state["key"]}
    return jnp.mean((out - batch["y"]) ** 2), {}, new


def normalised_evaluate(params, data, context, model_state):
    out = MODEL.apply({"params": params, **model_state["batch_stats"]}, data["x"], train=False)
    return {"loss": jnp.mean((out - data["y"]) ** 2)}


@functools.cache
def normalised(chunk_evals=100):
    return make_training(
        normalised_loss, normalised_evaluate, optax.sgd(0.05, momentum=0.5), get_batch,
        num_steps=9, eval_every=2, chunk_evals=chunk_evals,
    )  # fmt: skip


MODEL_STATE = {
    "batch_stats": {"batch_stats": VARIABLES["batch_stats"]},
    "steps": jnp.int32(0),
    "key": jax.random.key(3),
}


def with_state(training, seed=5):
    state = training.init(VARIABLES["params"], model_state=MODEL_STATE)
    stream = STREAM._replace(key=jax.random.key(seed), context={})
    for first in range(0, training.num_evals, training.chunk_evals):
        state, _ = compiled(training)(state, stream, jnp.int32(first), DATA)
    return state


def test_state_beside_the_parameters_is_what_a_python_loop_carries():
    params, model_state = VARIABLES["params"], MODEL_STATE
    optimizer = optax.sgd(0.05, momentum=0.5)
    opt_state, best = optimizer.init(params), (np.inf, None)
    step_fn = jax.jit(
        jax.value_and_grad(lambda *a: (lambda v, m, s: (v, s))(*normalised_loss(*a)), has_aux=True)
    )
    for step in range(10):
        if step % 2 == 0 or step == 9:
            value = normalised_evaluate(params, DATA, {}, model_state)["loss"]
            best = min(best, (float(value), step, model_state), key=lambda found: found[0])
        if step < 9:
            key = jax.random.fold_in(jax.random.key(5), step)
            batch = get_batch(DATA, 1, step)
            (_, model_state), grads = step_fn(params, batch, key, {}, model_state)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            params = optax.apply_updates(params, updates)
    state = with_state(normalised())
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, state.params, params)
    assert state.model_state["steps"] == 9 and state.best_step == best[1]
    for found, expected in ((state.model_state, model_state), (state.best_model_state, best[2])):
        jax.tree.map(close, found["batch_stats"], expected["batch_stats"])
        assert found["key"] == MODEL_STATE["key"]
    assert state.best_model_state["steps"] == state.best_step


def without_keys(tree):
    """Replace keys by their data."""

    def is_key(x):
        return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)

    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


@pytest.mark.optimized
def test_state_beside_the_parameters_in_chunks_and_in_a_population():
    whole = with_state(normalised())
    assert_same_bits(without_keys(with_state(normalised(2))), without_keys(whole))
    training = normalised()
    states = population.stack([training.init(VARIABLES["params"], model_state=MODEL_STATE)] * 2)
    stream = STREAM._replace(context={})
    streams = population.stack([stream._replace(key=jax.random.key(s)) for s in (5, 6)])
    mapped = jax.jit(population.map_members(training.run_chunk))
    together, _ = mapped(states, streams, jnp.int32(0), DATA)
    for place, seed in enumerate((5, 6)):
        alone = with_state(training, seed)
        member = population.take(together, place)
        assert_same_bits(without_keys(member), without_keys(alone))


def test_without_state_there_is_none():
    state = toy(3, 10).init(PARAMS)
    assert state.model_state is None and state.best_model_state is None
    assert len(jax.tree.leaves(state)) == len(jax.tree.leaves(state[:6]))


@pytest.mark.parametrize(
    ("found", "error", "message"),
    [
        (lambda state: (0.0, {}), TypeError, r"expected \(loss, metrics, model_state\)"),
        (lambda state: (0.0, {}, {}), ValueError, "model state"),
        (
            lambda state: (0.0, {}, {"n": jnp.ones(2)}),
            ValueError,
            r"leaf 'n' of the model state as",
        ),
    ],
)
def test_a_loss_that_returns_another_state(found, error, message):
    training = make_training(
        lambda params, batch, key, context, state: found(state),
        lambda params, data, context, state: {"loss": 0.0},
        optax.sgd(0.1), lambda data, stream, step: None,
        num_steps=1, eval_every=1, chunk_evals=1,
    )  # fmt: skip
    state = training.init(PARAMS, model_state={"n": jnp.int32(0)})
    with pytest.raises(error, match=message):
        training.run_chunk(state, STREAM, jnp.int32(0), None)


# What optimizers ask for


ASKING = {
    "reduce_on_plateau": lambda: optax.chain(
        optax.sgd(0.5), optax.contrib.reduce_on_plateau(patience=1, cooldown=0, rtol=0.5)
    ),
    "polyak": lambda: optax.polyak_sgd(max_learning_rate=0.1),
    "lbfgs": lambda: optax.lbfgs(),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ASKING)
def test_optimizers_get_the_loss_its_gradient_and_its_function(name, masked):
    optimizer = freeze_pruned(ASKING[name]()) if masked else ASKING[name]()
    training = make_training(
        loss, evaluate, optimizer, get_batch, num_steps=4, eval_every=2, chunk_evals=9
    )
    state, _ = run(training)

    def value_fn(params, step):
        batch = get_batch(DATA, 1, step)
        return loss(params, batch, jax.random.fold_in(STREAM.key, step), STREAM.context)[0]

    params, opt_state = PARAMS, optimizer.init(PARAMS)
    for step in range(4):
        value, grads = jax.value_and_grad(value_fn)(params, step)
        extra = {"value": value, "grad": grads, **({"mask": MASK} if masked else {})}
        extra["value_fn"] = functools.partial(lambda p, step: value_fn(p, step), step=step)
        updates, opt_state = optimizer.update(grads, opt_state, params, **extra)
        params = optax.apply_updates(params, updates)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), state.params, params
    )
    assert (state.params["kernel"] != PARAMS["kernel"]).any()


def test_a_context_item_takes_the_place_of_what_an_optimizer_would_get():
    seen = {}

    def update(updates, state, params=None, **extra):
        seen.update(extra)
        return updates, state

    asking = optax.GradientTransformationExtraArgs(lambda params: (), update)
    training = make_training(
        loss, evaluate, asking, get_batch, num_steps=1, eval_every=1, chunk_evals=1
    )
    stream = STREAM._replace(context=STREAM.context | {"value": jnp.float32(7)})
    jax.eval_shape(training.run_chunk, training.init(PARAMS), stream, jnp.int32(0), DATA)
    assert set(seen) == {"value", "grad", "value_fn", "mask", "noise"}
    assert seen["value"].shape == () and seen["value"] is not seen["grad"]


def test_no_nan_where_nothing_diverged():
    training = toy(5, 2, chunk_evals=3)
    with jax.debug_nans(True):
        _, metrics = run(training)
    assert not any(np.isnan(values).any() for values in metrics.values())
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        run(training, params=jax.tree.map(lambda w: w * np.nan, PARAMS))
