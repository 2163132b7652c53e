#!/usr/bin/env bash
# optax 0.2.8 (optax.lookahead), jax 0.10.2, on the CPU
#
# Expected: lookahead(optimizer, ..., reset_state=True) sets the optimizer's state back to that of
# init every sync_period steps, and leaves it alone in between. It documents no limit on what that
# state may hold.
#
# What happens: in every step each leaf of the state becomes (1 - sync) * current + sync * init. That
# is "one of the two" for finite floats only. (1) Booleans become int32 in the first step, and so
# ~mask is -1 or -2, true throughout. (2) Infinities turn into NaN, since 0 * inf is NaN: a running
# minimum that starts at inf is lost in the first step, with no reset due. (3) NaNs survive the reset
# that ought to clear them. (4) Typed PRNG keys raise a TypeError, so optax.noisy_sgd can't be used.
# int8 and uint32 leaves become int32. Under lax.scan (1) is an error; under jit it costs a
# compilation, no more.
#
# Why it matters: a mask belongs into the state of the transformation that applies it, beside the
# moments. jnp.where(mask, update, 0) still works with integers; jnp.where(~mask, 0, update), which is
# the same for a mask, holds the whole network from the second step on, and mask[mask] or
# update[mask] pick entries 0 and 1. Turning reset_state on is all it takes.
#
# Seen, with one weight of three pruned, rate 0.1 and a gradient of 1 everywhere:
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    'jax==0.10.2' 'jaxlib==0.10.2' 'optax==0.2.8' 'numpy==2.4.6'

JAX_PLATFORMS=cpu "$folder/venv/bin/python" -I - <<'EOF'
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

mask = jnp.array([True, False, True])
gradient = jnp.ones(3)


class Pruned(NamedTuple):
    mask: Any
    smallest: Any  # the smallest norm of an update so far


def keep(apply):
    def init(params):
        return Pruned(mask, jnp.array(jnp.inf))

    def update(updates, state, params=None):
        smallest = jnp.minimum(state.smallest, jnp.linalg.norm(updates))
        return apply(state.mask, updates), Pruned(state.mask, smallest)

    return optax.GradientTransformation(init, update)


def train(optimizer, steps):
    params = optax.LookaheadParams.init_synced(jnp.array([1.0, 0.0, 2.0]))
    state = optimizer.init(params)
    seen = []
    step = jax.jit(optimizer.update)
    for _ in range(steps):
        updates, state = step(gradient, state, params)
        params = optax.apply_updates(params, updates)
        seen.append((np.asarray(params.fast), state.fast_state))
    return seen


APPLY = {
    "where(mask, u, 0)": lambda m, u: jnp.where(m, u, 0.0),
    "where(~mask, 0, u)": lambda m, u: jnp.where(~m, 0.0, u),
}
for reset in (False, True):
    for name, apply in APPLY.items():
        optimizer = optax.chain(optax.sgd(0.1), keep(apply))
        seen = train(optax.lookahead(optimizer, 10, 0.5, reset_state=reset), 5)
        weights = [" ".join(f"{w:.1f}" for w in seen[i][0]) for i in (0, 1, 4)]
        state = seen[0][1][-1]
        print(f"reset_state={reset}, {name}: weights after 1, 2, 5 steps {weights}")
        print(f"  mask {np.asarray(state.mask).tolist()}, smallest {float(state.smallest):.2f}")
