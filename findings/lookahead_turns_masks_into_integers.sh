#!/usr/bin/env bash
# optax 0.2.8 (optax.lookahead), jax 0.10.2, on the CPU
#
# Expected: lookahead(optimizer, ..., reset_state=True) resets the optimizer's state to that of init
# every sync_period steps and does not change it in between. The documentation states no restriction
# on what the state may hold.
#
# What happens: in every step, each leaf of the state becomes (1 - sync) * current + sync * init,
# which equals one of the two only for finite floats. (1) Booleans are int32 after the first step;
# then ~mask is -1 or -2, which is always true. (2) Values that are NaN or infinite at a reset are
# NaN afterwards. (3) With typed PRNG keys, the first step raises a TypeError, so optax.noisy_sgd
# cannot be used inside. Under lax.scan, (1) raises an error, too; in a loop, jitted or not, nothing
# indicates it.
#
# Why it matters: a mask belongs in the state of the transformation that applies it, beside the
# moments. jnp.where(mask, update, 0) still works with integers. jnp.where(~mask, 0, update) should
# do the same, but with reset_state=True it freezes the whole network after the first step, which
# looks as if training had converged at once. A mask used as an index selects entries 0 and 1
# instead of the kept ones.
#
# Seen, for three weights, the second pruned, with a rate of 0.1 and gradients of 1, synchronized
# every 10 steps; the weights after 1, 2 and 5 steps:
#   reset_state=False, where(mask, u, 0): [0.9 0.0 1.9] [0.8 0.0 1.8] [0.5 0.0 1.5]
#   reset_state=False, where(~mask, 0, u): [0.9 0.0 1.9] [0.8 0.0 1.8] [0.5 0.0 1.5]
#   reset_state=True, where(mask, u, 0): [0.9 0.0 1.9] [0.8 0.0 1.8] [0.5 0.0 1.5]
#   reset_state=True, where(~mask, 0, u): [0.9 0.0 1.9] [0.9 0.0 1.9] [0.9 0.0 1.9]
#   mask in the state: [True, False, True], then [1, 0, 1]; w[mask] [1.0, 2.0], then [0.0, 1.0, 0.0]
#   adam's mu at a reset: [0.0, nan, 0.0] from NaN, [0.0, nan, 0.0] from infinity
#   under lax.scan: TypeError; around noisy_sgd: TypeError
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    'jax==0.10.2' 'jaxlib==0.10.2' 'optax==0.2.8' 'numpy==2.4.6'

JAX_PLATFORMS=cpu "$folder/venv/bin/python" -I - <<'EOF'
import jax
import jax.numpy as jnp
import numpy as np
import optax

mask = jnp.array([True, False, True])
start = optax.LookaheadParams.init_synced(jnp.array([1.0, 0.0, 2.0]))


def keep(apply):  # a transformation with the mask as its state
    return optax.GradientTransformation(
        lambda params: mask, lambda updates, mask, params=None: (apply(mask, updates), mask)
    )


def step(optimizer, params, state, gradient):
    updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state


def train(optimizer, steps, jit):
    jitted = jax.jit(step, static_argnums=0) if jit else step
    params, state = start, optimizer.init(start)
    weights = []
    for _ in range(steps):
        params, state = jitted(optimizer, params, state, jnp.ones(3))
        weights.append(np.asarray(params.fast))
    return np.array(weights), state.fast_state[-1]


APPLY = {
    "where(mask, u, 0)": lambda mask, u: jnp.where(mask, u, 0.0),
    "where(~mask, 0, u)": lambda mask, u: jnp.where(~mask, 0.0, u),
}
right = np.array([[0.9, 0.0, 1.9], [0.8, 0.0, 1.8], [0.5, 0.0, 1.5]])
frozen = right[[0, 0, 0]]
for reset in (False, True):
    for name, apply in APPLY.items():
        optimizer = optax.lookahead(
            optax.chain(optax.sgd(0.1), keep(apply)), 10, 0.5, reset_state=reset
        )
        for jit in (False, True):
            weights, kept = train(optimizer, 5, jit)
            weights = weights[[0, 1, 4]]
            wrong = reset and "~" in name
            assert np.allclose(weights, frozen if wrong else right), weights
            assert kept.dtype == (jnp.int32 if reset else jnp.bool_), kept
            assert np.array_equal(kept, mask), kept
        rows = " ".join("[" + " ".join(f"{w:.1f}" for w in row) + "]" for row in weights)
        print(f"reset_state={reset}, {name}: {rows}")

w = start.fast
print(
    f"mask in the state: {mask.tolist()}, then {kept.tolist()}; "
    f"w[mask] {w[mask].tolist()}, then {w[kept].tolist()}"
)
assert w[mask].tolist() == [1, 2] and w[kept].tolist() == [0, 1, 0]

left = []
for value in (jnp.nan, jnp.inf):
    optimizer = optax.lookahead(optax.adam(0.1), 1, 0.5, reset_state=True)
    _, state = step(optimizer, start, optimizer.init(start), jnp.array([1.0, value, 1.0]))
    mu = np.asarray(state.fast_state[0].mu)
    assert np.array_equal(mu, [0, np.nan, 0], equal_nan=True), mu
    left.append(mu.tolist())
print(f"adam's mu at a reset: {left[0]} from NaN, {left[1]} from infinity")


def scanned():
    optimizer = optax.lookahead(keep(APPLY["where(mask, u, 0)"]), 10, 0.5, reset_state=True)

    def body(carry, _):
        return step(optimizer, *carry, jnp.ones(3)), None

    return jax.lax.scan(body, (start, optimizer.init(start)), None, length=3)


def noisy():
    noisy_sgd = optax.noisy_sgd(0.1, key=jax.random.key(0))
    optimizer = optax.lookahead(noisy_sgd, 10, 0.5, reset_state=True)
    return step(optimizer, start, optimizer.init(start), jnp.ones(3))


errors = []
for function, words in ((scanned, ("bool[3]", "int32[3]")), (noisy, ("multiply", "key<fry>"))):
    try:
        function()
    except TypeError as error:
        assert all(word in str(error) for word in words), error
        errors.append(type(error).__name__)
assert len(errors) == 2, errors
print(f"under lax.scan: {errors[0]}; around noisy_sgd: {errors[1]}")
EOF
