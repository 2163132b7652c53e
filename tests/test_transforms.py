"""`freeze_pruned` around every optimizer in optax's modules, so that new ones are tested, too.

A pruned weight must not change by a single bit, so the tests compare bytes and prune -0.0 and 0.0.
"""

import inspect

import equinox as eqx
import flax.linen
import flax.nnx
import flax.training.train_state
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from supermask_jax import masks
from supermask_jax.transforms import FrozenState, freeze_pruned, set_mask
from tests.trees import KINDS, assert_same_bits, assert_structure, draw, draw_mask, leaves

KEY = jax.random.key(0)

# Functions that are not optimizers of the gradients of a step.
EXCLUDED = {
    "contrib.dpsgd": "takes the gradients of single examples",
    "contrib.differentially_private_aggregate": "takes the gradients of single examples",
    "contrib.hutchinson_estimator_diag_hessian": "returns a Hessian's diagonal, not updates",
    "contrib.schedule_free_eval_params": "a function of a state",
    "contrib.scale_by_muon": "only as part of muon, which sorts leaves by rank",
}

# Constructor arguments that have no default (except learning_rate), or that prevent a warning.
ARGUMENTS = {
    "noisy_sgd": {"key": 0},  # warns without it
    # With the defaults, the first steps are smaller than the rounding of some weights.
    "contrib.dadapt_adamw": {"learning_rate": 1.0, "estim_lr0": 1e-3},
    "contrib.dog": {"init_step": ("distance", 0.1)},
    "contrib.prodigy": {"learning_rate": 1.0, "estim_lr0": 1e-3},
    "contrib.mechanize": {"base_optimizer": optax.adam(0.1)},
    "contrib.sam": {"optimizer": optax.adam(0.1), "adv_optimizer": optax.sgd(0.01)},
    "contrib.schedule_free": {"base_optimizer": optax.adamw(0.1, weight_decay=0.1)},
    "contrib.split_real_and_imaginary": {"inner": optax.adamw(0.1, weight_decay=0.1)},
}

# Extra arguments of `update`, from (loss, value, gradients).
EXTRA = {
    "lbfgs": lambda loss, value, grads: {"value": value, "grad": grads, "value_fn": loss},
    "polyak_sgd": lambda loss, value, grads: {"value": value},
    "contrib.momo": lambda loss, value, grads: {"value": value},
    "contrib.momo_adam": lambda loss, value, grads: {"value": value},
    "contrib.reduce_on_plateau": lambda loss, value, grads: {"value": value},
    "contrib.sophia": lambda loss, value, grads: {"obj_fn": loss},
}


def discover():
    aliases = {
        name: make
        for name, make in inspect.getmembers(optax, inspect.isfunction)
        if make.__module__ == optax.sgd.__module__
    }
    contrib = inspect.getmembers(optax.contrib, inspect.isfunction)
    return aliases | {f"contrib.{name}": make for name, make in contrib}


FOUND = discover()
OPTIMIZERS = {name: make for name, make in FOUND.items() if name not in EXCLUDED}

# -0.0 and 0.0 come first: both are pruned, and adding 0.0 would turn -0.0 into 0.0.
PARAMS = {
    "kernel": jnp.array([[-0.0, 0.0, 0.7], [-1.5, 2.5, -0.3], [0.9, -0.8, 1.1], [-0.2, 0.4, 0.6]]),
    "bias": jnp.array([0.1, -0.2, 0.3]),
}
DENSE = jax.tree.map(lambda w: jnp.ones(w.shape, bool), PARAMS)
MASK = {"kernel": jnp.arange(12).reshape(4, 3) % 3 == 2, "bias": jnp.ones(3, bool)}


def loss(params):
    """A loss that pulls every weight to 3, at its own rate."""
    return sum(jnp.sum(jnp.arange(1.0, w.size + 1) * (w.ravel() - 3) ** 2) for w in params.values())


def make(name):
    parameters = inspect.signature(FOUND[name]).parameters
    arguments = ARGUMENTS.get(name, {})
    defaults = {"learning_rate": 0.1, "weight_decay": 0.1, "momentum": 0.9}
    for argument, value in defaults.items():
        if argument in parameters and argument not in arguments:
            arguments = arguments | {argument: value}
    return FOUND[name](**arguments)


def make_step(optimizer, extra=lambda *_: {}):
    """Return a jitted step, and a list that grows with every trace."""
    traces = []

    @jax.jit
    def step(params, state, mask):
        traces.append(1)
        value, grads = jax.value_and_grad(loss)(params)
        arguments = extra(loss, value, grads)
        updates, state = optimizer.update(grads, state, params, mask=mask, **arguments)
        return optax.apply_updates(params, updates), state

    return step, traces


def run(step, params, state, mask, steps=3):
    for _ in range(steps):
        params, state = step(params, state, mask)
    return params, state


def bits(x):
    return np.asarray(x).view(np.int32)


def assert_only_kept_moved(before, after, mask):
    for path, a, b, kept in leaves(before, after, mask):
        moved = bits(a) != bits(b)
        assert not moved[~kept].any(), path
        assert moved[kept].all(), path
        assert np.isfinite(b).all(), path


def test_tables_name_functions_that_exist():
    assert {*EXCLUDED, *ARGUMENTS, *EXTRA} <= set(FOUND)
    assert {"sgd", "adam", "adamw", "lbfgs", "contrib.muon"} <= set(OPTIMIZERS)


@pytest.mark.filterwarnings("ignore:.*optimistic_adam. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_pruned_weight_moves_by_one_bit(name):
    optimizer = freeze_pruned(make(name))
    step, traces = make_step(optimizer, EXTRA.get(name, lambda *_: {}))
    trained, state = run(step, PARAMS, optimizer.init(PARAMS), DENSE)  # moments of dense training
    assert (bits(trained["kernel"]) != bits(PARAMS["kernel"])).all()
    compiled = len(traces)
    start = jax.tree.map(jnp.where, MASK, trained, PARAMS)
    after, _ = run(step, start, state, MASK)
    assert_only_kept_moved(start, after, MASK)
    assert len(traces) == compiled


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tree(kind):
    params, grads, mask = (
        draw(KINDS[kind](), 1),
        draw(KINDS[kind](), 2),
        draw_mask(KINDS[kind](), 3),
    )
    optimizer = freeze_pruned(optax.adamw(0.1, weight_decay=0.1))
    updates, _ = optimizer.update(grads, optimizer.init(params), params, mask=mask)
    assert_structure(updates, params)
    assert_only_kept_moved(params, optax.apply_updates(params, updates), mask)


@pytest.mark.parametrize("bad", [jnp.inf, jnp.nan, 1e30])
def test_norms_and_moments_see_no_pruned_gradient(bad):
    """The gradients of pruned weights do not affect the kept weights."""
    inner = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9))
    optimizer = freeze_pruned(inner)
    results = []
    for hidden in (0.0, bad):
        params, state = PARAMS, optimizer.init(PARAMS)
        for seed in range(2):
            grads = jax.tree.map(
                lambda m, g, hidden=hidden: jnp.where(m, g, hidden), MASK, draw(PARAMS, seed)
            )
            updates, state = optimizer.update(grads, state, params, mask=MASK)
            params = optax.apply_updates(params, updates)
        results.append((params, state))
    assert_same_bits(*results)
    assert_only_kept_moved(PARAMS, results[1][0], MASK)


def test_clipping_uses_the_norm_of_the_kept_gradients():
    optimizer = freeze_pruned(optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0)))
    grads = {"kernel": jnp.full((4, 3), 100.0), "bias": jnp.zeros(3)}
    updates, _ = optimizer.update(grads, optimizer.init(PARAMS), PARAMS, mask=MASK)
    kept = np.asarray(updates["kernel"])[MASK["kernel"]]
    np.testing.assert_allclose(kept, -1 / np.sqrt(4), rtol=1e-6)


@pytest.mark.parametrize("inner", [optax.adam(0.1), optax.sgd(0.1, momentum=0.9)])
def test_a_full_mask_changes_nothing(inner):
    frozen = freeze_pruned(inner)
    state, frozen_state = inner.init(PARAMS), frozen.init(PARAMS)
    for seed in range(3):
        grads = draw(PARAMS, seed)
        updates, state = inner.update(grads, state, PARAMS)
        frozen_updates, frozen_state = frozen.update(grads, frozen_state, PARAMS, mask=DENSE)
        assert_same_bits((updates, state), (frozen_updates, frozen_state))


def test_members_with_their_own_masks_under_vmap():
    optimizer = freeze_pruned(optax.adamw(0.1))
    step, _ = make_step(optimizer)
    masks = [DENSE, MASK, jax.tree.map(jnp.logical_not, MASK)]
    stacked = jax.tree.map(lambda *m: jnp.stack(m), *masks)
    params, _ = jax.vmap(lambda mask: run(step, PARAMS, optimizer.init(PARAMS), mask))(stacked)
    for m, mask in enumerate(masks):
        assert_only_kept_moved(PARAMS, jax.tree.map(lambda w, m=m: w[m], params), mask)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_low_precision(dtype):
    params = jax.tree.map(lambda w: w.astype(dtype), PARAMS)
    optimizer = freeze_pruned(optax.adamw(0.1, weight_decay=0.1))
    grads = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimizer.update(grads, optimizer.init(params), params, mask=MASK)
    after = optax.apply_updates(params, updates)
    for _, a, b, kept in leaves(params, after, MASK):
        assert a.dtype == b.dtype
        assert ((a.view(np.int16) == b.view(np.int16)) == ~kept).all()


@pytest.mark.parametrize(
    ("mask", "error", "parts"),
    [
        ({"kernel": MASK["kernel"]}, ValueError, ["'bias' is in updates but not in mask"]),
        (MASK | {"kernel": MASK["bias"]}, ValueError, ["'kernel'", "[4, 3]", "[3] in mask"]),
        (MASK | {"kernel": True}, TypeError, ["'kernel' of mask is True", "not an array"]),
        (
            PARAMS,
            TypeError,
            ["'bias'", "bool"],
        ),
    ],
)
def test_errors(mask, error, parts):
    optimizer = freeze_pruned(optax.sgd(0.1))
    with pytest.raises(error) as caught:
        optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS, mask=mask)
    for part in parts:
        assert part in str(caught.value)


def test_the_mask_is_required():
    optimizer = freeze_pruned(optax.sgd(0.1))
    with pytest.raises(TypeError, match="mask"):
        optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS)


# Anywhere in optax

PARTS = {"kernel": "pruned", "bias": "rest"}
INSIDE = {
    "partition": lambda frozen: optax.partition({"pruned": frozen, "rest": optax.sgd(0.1)}, PARTS),
    "partition with masked arguments": lambda frozen: optax.partition(
        {"pruned": frozen, "rest": optax.sgd(0.1)}, PARTS, mask_compatible_extra_args=True
    ),
    "multi_transform": lambda frozen: optax.multi_transform(
        {"pruned": frozen, "rest": optax.sgd(0.1)}, PARTS
    ),
    "masked": lambda frozen: optax.masked(frozen, {"kernel": True, "bias": False}),
    "chain": lambda frozen: optax.chain(frozen, optax.scale(0.5)),
    "partition in partition": lambda frozen: optax.partition(
        {"all": INSIDE["partition"](frozen)}, {"kernel": "all", "bias": "all"}
    ),
}


def adamw():
    return optax.adamw(0.1, weight_decay=0.1)


@pytest.mark.parametrize("kept", [False, True], ids=["given to update", "kept in the state"])
@pytest.mark.parametrize("name", INSIDE)
def test_inside_other_transformations(name, kept):
    optimizer = INSIDE[name](freeze_pruned(adamw(), MASK if kept else None))
    extra = {} if kept else {"mask": MASK}
    params, state = PARAMS, optimizer.init(PARAMS)
    step = jax.jit(lambda grads, state, params: optimizer.update(grads, state, params, **extra))
    for seed in range(3):
        updates, state = step(draw(PARAMS, seed), state, params)
        params = optax.apply_updates(params, updates)
    assert_only_kept_moved(PARAMS, params, MASK)


@pytest.mark.parametrize("name", INSIDE)
def test_the_mask_in_a_state_is_replaced_wherever_it_is(name):
    optimizer = INSIDE[name](freeze_pruned(adamw(), DENSE))
    state = set_mask(optimizer.init(PARAMS), MASK)
    expected = INSIDE[name](freeze_pruned(adamw(), MASK)).init(PARAMS)
    assert_same_bits(state, expected)
    assert_same_bits(jax.jit(set_mask)(optimizer.init(PARAMS), MASK), expected)


def test_the_mask_of_update_wins_and_the_other_stays():
    optimizer = freeze_pruned(optax.sgd(0.1), DENSE)
    state = optimizer.init(PARAMS)
    updates, state = optimizer.update(draw(PARAMS, 1), state, PARAMS, mask=MASK)
    assert_only_kept_moved(PARAMS, optax.apply_updates(PARAMS, updates), MASK)
    assert_same_bits(state.mask, DENSE)


def test_a_kept_mask_is_a_copy():
    mask = jax.tree.map(np.array, MASK)
    optimizer = freeze_pruned(optax.sgd(0.1), mask)
    state = optimizer.init(PARAMS)
    replaced = set_mask(state, mask)
    mask["kernel"][:] = True
    assert_same_bits(state.mask, MASK)
    assert_same_bits(optimizer.init(PARAMS).mask, MASK)
    assert_same_bits(replaced.mask, MASK)


def test_without_a_mask_of_its_own_the_state_is_the_inner_one():
    assert_same_bits(freeze_pruned(adamw()).init(PARAMS), adamw().init(PARAMS))


def test_members_keep_masks_of_their_own():
    optimizer = freeze_pruned(adamw(), DENSE)
    states = jax.vmap(lambda _: optimizer.init(PARAMS))(jnp.arange(2))
    stacked = jax.tree.map(lambda *m: jnp.stack(m), DENSE, MASK)
    states = set_mask(states, stacked)
    updates, _ = jax.vmap(optimizer.update, (None, 0, None))(draw(PARAMS, 1), states, PARAMS)
    for m, mask in enumerate((DENSE, MASK)):
        own = jax.tree.map(lambda u, m=m: u[m], updates)
        assert_only_kept_moved(PARAMS, optax.apply_updates(PARAMS, own), mask)


def test_optax_maps_over_a_state_that_keeps_a_mask():
    optimizer = freeze_pruned(optax.adam(0.1), MASK)
    _, state = optimizer.update(draw(PARAMS, 1), optimizer.init(PARAMS), PARAMS)
    cleared = optax.tree.map_params(optimizer, jnp.zeros_like, state)
    assert not any(map(jnp.any, jax.tree.leaves(cleared.inner_state[0].mu)))
    assert cleared.inner_state[0].count == 1
    assert_same_bits(cleared.mask, MASK)


def test_flax_s_train_state_needs_no_change():
    model = flax.linen.Dense(3)
    params = model.init(jax.random.key(0), jnp.ones((1, 4)))["params"]
    mask = draw_mask(params, 1, 0.5) | {"bias": jnp.ones(3, bool)}
    state = flax.training.train_state.TrainState.create(
        apply_fn=model.apply, params=params, tx=freeze_pruned(adamw(), masks.ones(params))
    )
    state = state.apply_gradients(grads=draw(params, 1))
    assert_only_kept_moved(params, state.params, masks.ones(params))
    state = state.replace(opt_state=set_mask(state.opt_state, mask))
    after = state.apply_gradients(grads=draw(params, 2)).apply_gradients(grads=draw(params, 3))
    assert_only_kept_moved(state.params, after.params, mask)


def test_nnx_s_optimizer_needs_no_change():
    model = flax.nnx.Linear(4, 3, rngs=flax.nnx.Rngs(0))
    params = jax.tree.map(jnp.copy, flax.nnx.state(model, flax.nnx.Param))
    mask = draw_mask(params, 1, 0.5)
    optimizer = flax.nnx.Optimizer(model, freeze_pruned(adamw(), mask), wrt=flax.nnx.Param)
    for seed in range(2):
        optimizer.update(model, draw(params, seed))
    assert_only_kept_moved(params, flax.nnx.state(model, flax.nnx.Param), mask)
    before = jax.tree.map(jnp.copy, flax.nnx.state(model, flax.nnx.Param))
    smaller = masks.intersection(mask, draw_mask(params, 2, 0.5))
    optimizer.opt_state = flax.nnx.data(set_mask(optimizer.opt_state, smaller))
    optimizer.update(model, draw(params, 3))
    assert_only_kept_moved(before, flax.nnx.state(model, flax.nnx.Param), smaller)


def test_equinox_s_loop_needs_no_change():
    params, static = eqx.partition(eqx.nn.MLP(2, 2, 4, 1, key=KEY), eqx.is_array)
    mask = draw_mask(params, 1, 0.5)
    optimizer = freeze_pruned(adamw(), mask)

    @eqx.filter_jit
    def step(model, state, x):
        grads = eqx.filter_grad(lambda model: jnp.sum(jax.vmap(model)(x) ** 2))(model)
        updates, state = optimizer.update(grads, state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), state

    model, state = eqx.combine(params, static), optimizer.init(params)
    for seed in range(2):
        model, state = step(model, state, draw(jnp.ones((5, 2)), seed))
    for _, a, b, kept in leaves(params, eqx.filter(model, eqx.is_array), mask):
        assert (bits(a) == bits(b))[~kept].all()


# Where order matters: correct inside `freeze_pruned`, and wrong around it


def steps(optimizer, gradients, params=PARAMS, mask=MASK):
    state, start = optimizer.init(params), params
    for grads in gradients:
        updates, state = optimizer.update(grads, state, params, mask=mask)
        params = optax.apply_updates(params, updates)
    return start, params


def gradients(hidden=None, count=4):
    """Draw gradients; those of pruned weights are `hidden`, unless it is None."""
    drawn = [draw(PARAMS, seed) for seed in range(count)]
    if hidden is None:
        return drawn
    return [jax.tree.map(lambda m, g: jnp.where(m, g, hidden), MASK, one) for one in drawn]


def finite(optimizer):
    return optax.apply_if_finite(optimizer, max_consecutive_errors=9)


def accumulated(optimizer):
    skip = optax.MultiSteps(optimizer, 2, should_skip_update_fn=optax.transforms.skip_not_finite)
    return skip.gradient_transformation()


@pytest.mark.parametrize("around", [finite, accumulated])
def test_a_pruned_nan_costs_no_step(around):
    base = optax.sgd(0.1, momentum=0.9)
    _, expected = steps(freeze_pruned(around(base)), gradients(0.0))
    start, right = steps(freeze_pruned(around(base)), gradients(jnp.nan))
    assert_same_bits(right, expected)
    assert_only_kept_moved(start, right, MASK)
    _, wrong = steps(around(freeze_pruned(base)), gradients(jnp.nan))
    assert all((a == b).all() for _, a, b in leaves(wrong, PARAMS))  # no step was ever taken


def test_multi_steps_itself_is_accepted():
    base = optax.adamw(0.1)
    whole, by_parts = (
        steps(freeze_pruned(o), gradients())[1]
        for o in (optax.MultiSteps(base, 2), optax.MultiSteps(base, 2).gradient_transformation())
    )
    assert_same_bits(whole, by_parts)


def test_averages_of_updates_move_no_weight_that_was_just_pruned():
    for optimizer, moves in (
        (freeze_pruned(optax.chain(optax.sgd(0.1), optax.ema(0.9))), False),
        (optax.chain(freeze_pruned(optax.sgd(0.1)), optax.ema(0.9)), True),
    ):
        _, state = optimizer.update(draw(PARAMS, 1), optimizer.init(PARAMS), PARAMS, mask=DENSE)
        updates, _ = optimizer.update(draw(PARAMS, 2), state, PARAMS, mask=MASK)
        pruned = np.asarray(updates["kernel"])[~MASK["kernel"]]
        assert (pruned != 0).any() == moves


def test_schedule_free_s_weights_for_evaluation():
    base = optax.adamw(0.1, b1=0.0, weight_decay=0.1)
    optimizer = freeze_pruned(optax.contrib.schedule_free(base, 0.1, b1=0.9), MASK)
    params, state = PARAMS, optimizer.init(PARAMS)
    for grads in gradients():
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    assert_only_kept_moved(PARAMS, params, MASK)
    eval_params = optax.contrib.schedule_free_eval_params(state.inner_state, params)
    moved = np.asarray(eval_params["kernel"] != PARAMS["kernel"])
    assert moved[~MASK["kernel"]].any()  # the sequence z of pruned weights decays
    right = masks.apply(MASK, eval_params, params)
    assert_only_kept_moved(PARAMS, right, MASK)
    np.testing.assert_array_equal(right["bias"], eval_params["bias"])


def test_lookahead_s_fast_weights():
    optimizer = optax.lookahead(freeze_pruned(adamw(), MASK), sync_period=2, slow_step_size=0.5)
    params = optax.LookaheadParams.init_synced(PARAMS)
    state = optimizer.init(params)
    for grads in gradients(count=5):
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    for moved in params:
        after = np.asarray(moved["kernel"])
        np.testing.assert_array_equal(after[~MASK["kernel"]], PARAMS["kernel"][~MASK["kernel"]])
        assert (after != PARAMS["kernel"])[MASK["kernel"]].all()


def lookahead(optimizer, **options):
    return optax.lookahead(optimizer, sync_period=2, slow_step_size=0.5, **options)


def refused(optimizer, params=PARAMS, **extra):
    state = optimizer.init(params)
    for grads in gradients():
        _, state = optimizer.update(grads, state, params, **extra)


SYNCED = optax.LookaheadParams.init_synced(PARAMS)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: refused(freeze_pruned(lookahead(optax.sgd(0.1))), SYNCED, mask=MASK),
            TypeError,
            r"lookahead, freeze the fast weights: optax\.lookahead\(freeze_pruned\(fast",
        ),
        (
            lambda: refused(freeze_pruned(lookahead(optax.sgd(0.1)), MASK), SYNCED),
            TypeError,
            "freeze the fast weights",
        ),
        (
            lambda: refused(
                lookahead(freeze_pruned(optax.sgd(0.1), MASK), reset_state=True), SYNCED
            ),
            TypeError,
            "no longer bool.*reset_state=True, use False",
        ),
        (
            lambda: refused(optax.flatten(freeze_pruned(optax.sgd(0.1))), mask=MASK),
            ValueError,
            r"inside: freeze_pruned\(optax\.flatten",
        ),
        (
            lambda: refused(optax.flatten(freeze_pruned(optax.sgd(0.1), MASK))),
            ValueError,
            r"inside: freeze_pruned\(optax\.flatten",
        ),
        (
            lambda: optax.flatten(freeze_pruned(optax.sgd(0.1), {"w": MASK["kernel"]})).init(
                {"w": PARAMS["kernel"]}
            ),
            ValueError,
            r"inside: freeze_pruned\(optax\.flatten",
        ),
        (
            lambda: refused(INSIDE["partition"](freeze_pruned(optax.sgd(0.1)))),
            TypeError,
            "freeze_pruned needs the mask",
        ),
        (
            lambda: refused(
                INSIDE["partition"](freeze_pruned(adamw())), mask={"bias": DENSE["bias"]}
            ),
            ValueError,
            "'kernel' is in updates but not in mask",
        ),
        (
            lambda: freeze_pruned(optax.sgd(0.1), {"kernel": MASK["kernel"]}).init(PARAMS),
            ValueError,
            "'bias' is in params but not in mask",
        ),
        (
            lambda: freeze_pruned(optax.sgd(0.1), PARAMS).init(PARAMS),
            TypeError,
            "expected bool",
        ),
        (
            lambda: set_mask(optax.adam(0.1).init(PARAMS), MASK),
            ValueError,
            r"keeps no mask; give freeze_pruned the mask: freeze_pruned\(optimizer, mask\)",
        ),
        (
            lambda: set_mask(freeze_pruned(adamw(), MASK).init(PARAMS), {"bias": MASK["bias"]}),
            ValueError,
            "'kernel' is in kept but not in mask",
        ),
        (
            lambda: set_mask(freeze_pruned(adamw(), MASK).init(PARAMS), PARAMS),
            TypeError,
            "of mask has dtype float32, expected bool",
        ),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 1


def test_a_gradient_that_is_forwarded_is_masked_and_so_are_functions():
    seen = {}

    def update(updates, state, params=None, **extra):
        seen.update(extra)
        return updates, state

    asking = optax.GradientTransformationExtraArgs(lambda params: (), update)
    functions = {"value_fn": loss, "obj_fn": loss, "grad_fn": jax.grad(loss)}
    extra = {"grad": draw(PARAMS, 1), "mask": MASK, **functions}
    freeze_pruned(asking).update(draw(PARAMS, 1), (), PARAMS, **extra)
    found = [seen["grad"], seen["grad_fn"](PARAMS)]
    found += [jax.grad(seen[name])(PARAMS) for name in ("value_fn", "obj_fn")]
    for _, *gradients, kept in leaves(*found, MASK):
        for gradient in gradients:
            assert not gradient[~kept].any() and gradient[kept].all()


def coupled(params):
    """A loss in which every gradient depends on all weights."""
    return loss(params) + sum(jnp.sum(w) for w in params.values()) ** 2


@pytest.mark.parametrize("sync_period", [2, 3])
def test_the_gradients_that_sam_takes_see_no_pruned_weight(sync_period):
    outer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))
    adversary = optax.chain(optax.contrib.normalize(), optax.sgd(0.1))
    inner = optax.contrib.sam(outer, adversary, sync_period=sync_period, opaque_mode=True)
    frozen = freeze_pruned(inner, MASK)

    def of_kept(params):
        return coupled(jax.tree.map(jnp.where, MASK, params, PARAMS))

    results = []
    for optimizer, function in ((inner, of_kept), (frozen, coupled)):
        params, state = PARAMS, optimizer.init(PARAMS)
        for _ in range(3):
            grads = jax.grad(function)(params)
            updates, state = optimizer.update(
                grads, state, params, grad_fn=lambda params, _, f=function: jax.grad(f)(params)
            )
            params = optax.apply_updates(params, updates)
        results.append(params)
    for _, expected, found in leaves(*results):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert_only_kept_moved(PARAMS, results[1], MASK)


def test_an_unrelated_argument_called_grad_is_passed_on():
    seen = {}

    def update(updates, state, params=None, *, grad, **extra):
        seen["grad"] = grad
        return updates, state

    asking = optax.GradientTransformationExtraArgs(lambda params: (), update)
    freeze_pruned(asking).update(draw(PARAMS, 1), (), PARAMS, mask=MASK, grad="mine")
    assert seen == {"grad": "mine"}


def test_the_state_names_its_parts():
    state = freeze_pruned(optax.adam(0.1), MASK).init(PARAMS)
    assert isinstance(state, FrozenState)
    assert_same_bits(state.inner_state, optax.adam(0.1).init(PARAMS))
