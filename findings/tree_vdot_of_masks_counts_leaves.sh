#!/usr/bin/env bash
# optax 0.2.8 (optax.tree.vdot), jax 0.10.2, numpy 2.4.6, on the CPU
#
# Expected: optax.tree.vdot(a, b) is the inner product of two trees: for two masks, the number of
# weights that both keep. optax.tree.vdot(a, a) equals optax.tree.norm(a, squared=True) and, for a
# mask, optax.tree.sum(a). Its docstring promises values upcast to the highest precision.
#
# What happens: boolean leaves go to jnp.vdot unchanged, where a sum of booleans is an "or", as in
# numpy. Each leaf gives True if the masks share a single weight in it. The sum over leaves, which
# starts from Python's 0, then counts these leaves, in a plausible int32. Masks in int8 are summed
# in int8 and overflow at 128, to negative overlaps. sum, norm and mul count both types correctly,
# so a formula with vdot and norm mixes the two. Fixes: masks in float32, or
# optax.tree.sum(optax.tree.mul(a, b)) for booleans and int8.
#
# Why it matters: overlap, Jaccard index and cosine similarity of masks tell whether two seeds, or
# two criteria, find the same ticket. Here a mask has a cosine of 0.004 with itself, and exactly the
# same with a mask sampled independently. Tests with hand-made masks may well pass: one shared
# weight per leaf is counted correctly, and so are up to 127 in total in int8.
#
# Seen, for leaves of 1000, 500 and 100 weights, of which a and b keep half at random:
#   truth: a keeps 779, a and b share 413
#   bool: sum 779, squared norm 779, a.a 3 (int32), a.b 3, cosine 0.004 and 0.004
#   int8: sum 779, squared norm 779, a.a 11 (int8), a.b -99, cosine 0.014 and -0.121
#   float32: sum 779, squared norm 779, a.a 779 (float32), a.b 413, cosine 1.000 and 0.506
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

rng = np.random.default_rng(0)
SIZES = {"conv": 1000, "dense": 500, "head": 100}


def tree(draw, dtype):
    return {name: jnp.asarray(draw[name], dtype) for name in SIZES}


a = {name: rng.random(size) < 0.5 for name, size in SIZES.items()}
b = {name: rng.random(size) < 0.5 for name, size in SIZES.items()}
kept = sum(int(leaf.sum()) for leaf in a.values())
both = sum(int((a[name] & b[name]).sum()) for name in SIZES)
print(f"truth: a keeps {kept}, a and b share {both}")


def wrapped(count):
    return (count + 128) % 256 - 128


for dtype in (jnp.bool_, jnp.int8, jnp.float32):
    one, other = tree(a, dtype), tree(b, dtype)
    total, square = optax.tree.sum(one), optax.tree.norm(one, squared=True)
    own, shared = jax.jit(optax.tree.vdot)(one, one), optax.tree.vdot(one, other)
    norms = float(optax.tree.norm(one) * optax.tree.norm(other))
    name = jnp.dtype(dtype).name
    print(
        f"{name}: sum {int(total)}, squared norm {int(square)}, a.a {int(own)} ({own.dtype}), "
        f"a.b {int(shared)}, cosine {float(own) / float(square):.3f} "
        f"and {float(shared) / norms:.3f}"
    )
    assert int(total) == kept, total
    if dtype == jnp.bool_:
        assert int(square) == kept, square
        assert own == shared == len(SIZES), (own, shared)
        assert own.dtype == jnp.int32, own.dtype
    elif dtype == jnp.int8:
        assert (own, shared) == (wrapped(kept), wrapped(both)), (own, shared)
        assert int(square) == kept, square
    else:
        assert (own, shared) == (kept, both), (own, shared)
    product = optax.tree.sum(optax.tree.mul(one, other))
    assert int(product) == both, product
EOF
