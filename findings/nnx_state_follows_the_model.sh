#!/usr/bin/env bash
# flax 0.12.8 (nnx), optax 0.2.8, jax 0.10.2, on the CPU
#
# Expected: nnx.state(model, nnx.Param), taken before training, holds the initial weights. It has
# its own type, is a pytree of arrays, and is what one passes to jax.grad and to checkpointers.
#
# What happens: the State holds the model's own Variables. nnx.Optimizer.update writes into them,
# under nnx.jit as well, so the "initial weights" become the trained ones. nnx.split behaves the
# same. There is no error and no warning, and neither docstring mentions it. A State that went
# through jax.tree.map is a copy, even with the identity; so are nnx.clone and nnx.to_pure_dict.
#
# Why it matters: a lottery ticket needs w_0 after training. Rewinding with nnx.update(model, w_0)
# leaves the network trained, |w_f| - |w_0| is 0 everywhere, and every weight has "kept its sign".
# The experiment runs to the end, and tickets look as good as fine-tuned networks.
#
# Seen:
#   jit=False: moved 0.3123, w_f - w_0 0.0, left after rewinding 0.3123, the mapped copy 0.0
#   jit=True: moved 0.3123, w_f - w_0 0.0, left after rewinding 0.3123, the mapped copy 0.0
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    'jax==0.10.2' 'jaxlib==0.10.2' 'flax==0.12.8' 'optax==0.2.8' 'numpy==2.4.6'

JAX_PLATFORMS=cpu "$folder/venv/bin/python" -I - <<'EOF'
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx


def loss(model):
    return jnp.sum(model(jnp.ones((1, 2))) ** 2)


def step(model, optimizer):
    optimizer.update(model, nnx.grad(loss)(model))


for jit in (False, True):
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    truth = np.array(model.kernel[...])  # on the host, out of everybody's reach

    def distance(kernel):
        return float(np.abs(np.asarray(kernel[...]) - truth).max())

    w_0 = nnx.state(model, nnx.Param)
    _, w_0_of_split = nnx.split(model)
    mapped = jax.tree.map(lambda leaf: leaf, nnx.state(model, nnx.Param))
    clone, pure = nnx.clone(model), nnx.to_pure_dict(nnx.state(model, nnx.Param))
    assert distance(w_0["kernel"]) == 0

    (nnx.jit(step) if jit else step)(model, nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param))

    w_f = nnx.state(model, nnx.Param)
    moved = distance(model.kernel)
    gap = float(np.abs(np.asarray(w_f["kernel"][...]) - np.asarray(w_0["kernel"][...])).max())
    assert round(moved, 4) == 0.3123, moved
    assert gap == 0, gap
    assert distance(w_0["kernel"]) == distance(w_0_of_split["kernel"]) == moved
    assert distance(mapped["kernel"]) == distance(clone.kernel) == distance(pure["kernel"]) == 0

    nnx.update(model, w_0)  # "rewind"
    left = distance(model.kernel)
    assert left == moved, left
    nnx.update(model, mapped)  # rewinds indeed
    assert distance(model.kernel) == 0
    print(
        f"jit={jit}: moved {moved:.4f}, w_f - w_0 {gap}, left after rewinding {left:.4f}, "
        f"the mapped copy {distance(mapped['kernel'])}"
    )
EOF
