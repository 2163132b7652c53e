#!/usr/bin/env bash
# jax 0.10.2 (jax.experimental.sparse), optax 0.2.8, on the CPU
#
# Expected: sparse.grad of a loss with respect to a BCOO matrix is documented as the gradient within
# the sparsity pattern. It has the tree structure of the parameters, as optax requires. So an
# optimizer step changes the stored values and keeps the pattern.
#
# What happens: the BCOO that sparse.grad returns holds the indices of the weights again, as a leaf
# like any other. The optimizer treats them as a gradient: optax.apply_updates adds -rate * indices
# to the indices and casts the result back to int32, towards 0. A small rate does not help: 5 -
# 0.0001 * 5 becomes 4. Each step moves all entries up by a row and left by a column, or further,
# towards the corner at (0, 0). Entries that meet are summed, and those that leave the matrix are
# ignored. nse, the shape and the dtypes do not change. jit makes no difference. Fixes: optimize
# W.data alone, or use equinox.filter_grad and equinox.apply_updates.
#
# Why it matters: with BCOO, a pruned network pays for the kept weights only. Its sparsity looks
# safe, because nothing but the kept weights is stored. But the mask moves. The loss still falls, to
# that of an almost empty matrix, so training seems to work, only badly.
#
# Seen, for an 8 x 8 matrix with 17 entries, towards one with the same pattern, after 1, 3 and 300
# steps:
#   sgd(0.1), whole BCOO: in place 0 0 0, cells left 16 12 1, loss 3.81 3.40 2.36, nse 17
#   sgd(0.0001), whole BCOO: in place 0 0 0, cells left 16 12 1, loss 3.89 3.60 2.80, nse 17
#   adam(1e-06), whole BCOO: in place 0 0 0, cells left 16 9 0, loss 3.89 3.84 2.37, nse 17
#   sgd(0.1), data alone: in place 17 17 17, cells left 17 17 17, loss 3.93 3.57 0.00, nse 17
#   loss at the start 4.13, of the empty matrix 2.37
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
from jax.experimental import sparse

rng = np.random.default_rng(0)
mask = rng.random((8, 8)) < 0.25
target = jnp.asarray(rng.normal(size=(8, 8)) * mask, jnp.float32)
start = sparse.BCOO.fromdense(jnp.asarray(rng.normal(size=(8, 8)) * mask, jnp.float32))
x = jnp.asarray(rng.normal(size=(8, 64)), jnp.float32)
count = int(mask.sum())
assert start.nse == count == 17


def loss(w):
    return jnp.mean((w @ x - target @ x) ** 2)


def with_data(data):
    return sparse.BCOO((data, start.indices), shape=start.shape)


def train(optimizer, whole):
    w = start if whole else start.data

    @jax.jit
    def step(w, state):
        if whole:
            gradients = sparse.grad(loss)(w)
        else:
            gradients = jax.grad(lambda data: loss(with_data(data)))(w)
        updates, state = optimizer.update(gradients, state, w)
        return optax.apply_updates(w, updates), state

    state = optimizer.init(w)
    in_place, cells, losses = [], [], []
    for number in range(1, 301):
        w, state = step(w, state)
        if number in (1, 3, 300):
            matrix = w if whole else with_data(w)
            assert matrix.nse == count and matrix.indices.dtype == jnp.int32
            same = np.all(np.asarray(matrix.indices) == np.asarray(start.indices), axis=1)
            in_place.append(int(same.sum()))
            cells.append(int(np.sum(np.asarray(matrix.todense()) != 0)))
            losses.append(float(loss(matrix)))
    return in_place, cells, losses


gradient = sparse.grad(loss)(start)
assert np.array_equal(gradient.indices, start.indices)  # the weights' own, as a leaf
assert jax.tree.structure(gradient) == jax.tree.structure(start)

empty = float(loss(jnp.zeros((8, 8))))
rows = [
    ("sgd(0.1)", optax.sgd(0.1), True),
    ("sgd(0.0001)", optax.sgd(0.0001), True),
    ("adam(1e-06)", optax.adam(1e-06), True),
    ("sgd(0.1)", optax.sgd(0.1), False),
]
for name, optimizer, whole in rows:
    in_place, cells, losses = train(optimizer, whole)
    print(
        f"{name}, {'whole BCOO' if whole else 'data alone'}: "
        f"in place {' '.join(map(str, in_place))}, cells left {' '.join(map(str, cells))}, "
        f"loss {' '.join(f'{value:.2f}' for value in losses)}, nse {count}"
    )
    if whole:
        assert in_place == [0, 0, 0], in_place
        assert cells[-1] <= 1, cells
        assert 0.95 * empty < losses[-1] < float(loss(start)), losses
    else:
        assert in_place == cells == [count] * 3, (in_place, cells)
        assert losses[-1] < 0.01, losses
print(f"loss at the start {float(loss(start)):.2f}, of the empty matrix {empty:.2f}")
EOF
