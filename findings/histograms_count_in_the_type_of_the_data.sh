#!/usr/bin/env bash
# jax 0.10.2 (jnp.histogram), numpy 2.4.6, on the CPU
#
# Expected: jnp.histogram(w) counts the values of w in each bin; its docstring promises "counts per
# bin" and that it implements np.histogram, which returns integers. The counts may be rounded, as
# they are floats, but by no more than jnp.sum(w == 0, dtype=jnp.bfloat16) is, which is 0.4 %.
#
# What happens: each value adds 1 to its bin in the type of w itself. A bin is full when adding 1
# makes no difference: at 256 in bfloat16, 2048 in float16 and 16777216 in float32. Full bins look
# equal, whatever is in them, and density=True divides by the sum of what was counted: the density
# has an area of 1 and a wrong shape. Integers and booleans are counted in float32. jit makes no
# difference, and there is no warning; the docstring does not name the type of the counts. With
# weights= the type is promoted with theirs, so float32 ones help bfloat16. Another remedy is
# jnp.bincount of jnp.searchsorted, which counts in int32.
#
# Why it matters: the histogram of a pruned network has one huge bin, that of the zeros. With
# 20 million zeros it is short by 3 million in float32; in bfloat16 a layer of a few thousand
# weights has a flat histogram, with zeros as rare as the others. A threshold taken from the
# cumulated counts gives another density than the one asked for.
#
# Seen:
#   zeros of a layer that keeps 20 % of 10000: 8000, counted in bfloat16 256, float16 2048,
#   float32 8000
#   density at zero: float32 0.80, bfloat16 0.20; 20 million zeros in float32: 16777216
#   bfloat16 with weights of float32: 8000
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    'jax==0.10.2' 'jaxlib==0.10.2' 'numpy==2.4.6'

JAX_PLATFORMS=cpu "$folder/venv/bin/python" -I - <<'EOF'
import jax
import jax.numpy as jnp
import numpy as np

# 8000 zeros and 2000 weights, 500 at each of -2, -1, 1 and 2
layer = np.repeat(np.array([-2, -1, 0, 1, 2], np.float32), [500, 500, 8000, 500, 500])
edges = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32)
right = np.histogram(layer, edges)[0]
assert right.tolist() == [500, 500, 8000, 500, 500]


def count(w, **options):
    w, bins = jnp.asarray(w), jnp.asarray(edges, w.dtype)
    eager = jnp.histogram(w, bins, **options)[0]
    jitted = jax.jit(lambda w: jnp.histogram(w, bins, **options)[0])(w)
    assert np.array_equal(eager, jitted), (eager, jitted)
    return eager


zeros, density = {}, {}
for dtype, full in ((jnp.bfloat16, 256), (jnp.float16, 2048), (jnp.float32, 2**24)):
    w = layer.astype(dtype)
    counts, name = count(w), jnp.dtype(dtype).name
    assert counts.dtype == dtype, counts.dtype
    assert np.array_equal(np.asarray(counts, np.float64), np.minimum(right, full)), counts
    zeros[name] = int(counts[2])
    density[name] = np.asarray(count(w, density=True), np.float64)
    assert abs(density[name].sum() - 1) < 0.01
print(
    f"zeros of a layer that keeps 20 % of 10000: {right[2]}, counted in "
    f"bfloat16 {zeros['bfloat16']}, float16 {zeros['float16']},\nfloat32 {zeros['float32']}"
)

many = int(jnp.histogram(jnp.zeros(20_000_000), 1)[0][0])
assert many == 2**24, many
exact = density["float32"][2]
print(
    f"density at zero: float32 {exact:.2f}, bfloat16 {density['bfloat16'][2]:.2f}; "
    f"20 million zeros in float32: {many}"
)
assert abs(exact - 0.8) < 0.01 and abs(density["bfloat16"][2] - 0.2) < 0.01, density

# The sum and the remedies count right
w = jnp.asarray(layer, jnp.bfloat16)
assert abs(float(jnp.sum(w == 0, dtype=jnp.bfloat16)) / 8000 - 1) < 0.004
helped = count(w, weights=jnp.ones(w.shape, jnp.float32))
print(f"bfloat16 with weights of float32: {int(helped[2])}")
assert helped.tolist() == right.tolist(), helped
bins = jnp.searchsorted(jnp.asarray(edges, w.dtype), w) - 1
assert jnp.bincount(bins, length=5).tolist() == right.tolist()
EOF
