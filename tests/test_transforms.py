"""`freeze_pruned` around every optimizer of optax, found in its modules: a new one is included.

A pruned weight must not move by one bit, so bytes are compared, and -0.0 and 0.0 are pruned.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from supermask_jax.transforms import freeze_pruned
from tests.trees import KINDS, assert_same_bits, assert_structure, draw, draw_mask, leaves

KEY = jax.random.key(0)

# Not optimizers that take the gradients of a step and the parameters.
EXCLUDED = {
    "contrib.dpsgd": "takes the gradients of single examples",
    "contrib.differentially_private_aggregate": "takes the gradients of single examples",
    "contrib.hutchinson_estimator_diag_hessian": "returns a Hessian's diagonal, not updates",
    "contrib.schedule_free_eval_params": "a function of a state",
    "contrib.scale_by_muon": "only as part of muon, which sorts leaves by rank",
}

# Constructor arguments without a default, beside learning_rate, or needed to run without warning.
ARGUMENTS = {
    "noisy_sgd": {"key": 0},  # warns without
    # Without, the first steps are smaller than the rounding of some weights.
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

# -0.0 and 0.0 first: both are pruned, and adding 0.0 turns the one into the other.
PARAMS = {
    "kernel": jnp.array([[-0.0, 0.0, 0.7], [-1.5, 2.5, -0.3], [0.9, -0.8, 1.1], [-0.2, 0.4, 0.6]]),
    "bias": jnp.array([0.1, -0.2, 0.3]),
}
DENSE = jax.tree.map(lambda w: jnp.ones(w.shape, bool), PARAMS)
MASK = {"kernel": jnp.arange(12).reshape(4, 3) % 3 == 2, "bias": jnp.ones(3, bool)}


def loss(params):
    """Pulls every weight, at its own pace, to 3."""
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
    """A jitted step and a list that grows with every trace."""
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
    """Whatever the gradient of a pruned weight is, the kept weights move the same."""
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
