#!/usr/bin/env bash
# jax 0.10.2, numpy 2.4.6, on the CPU
#
# Expected: jax.lax.top_k(scores, k) and the first k of jnp.argsort(scores, descending=True) are the
# same indices. Both document that equal elements keep their order, and 0.0 == -0.0.
#
# What happens: top_k ranks 0.0 above -0.0, wherever they are; so does jnp.argpartition, which is
# built on it. argsort and sort treat them as equal, as numpy does, and order them by index.
# float16, bfloat16 and jit make no difference.
#
# Why it matters: signed scores (movement, GraSP, SNIP before the absolute value) are products with
# the weight, and a dead unit, a padded input or an already pruned weight makes the other factor 0:
# w * 0 is 0.0 for a positive weight and -0.0 for a negative one. If such ties lie at the threshold,
# top_k chooses weights by their sign: it keeps only positive ones, if k allows, in a mask that
# should not depend on signs. top_k(-scores), for the smallest scores, keeps only negative ones. The
# mask changes when argsort is replaced by top_k for speed.
#
# Seen, for 1000 scores w * 0, of which 300 are to be kept:
#   argsort: 155 of 300 kept weights are positive
#   top_k: 300 of 300 kept weights are positive
#   argpartition: 300 of 300 kept weights are positive
#   top_k of -scores: 0 of 300 kept weights are positive
#   positive in all: 508, among the first 300: 155
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

k, size = 300, 1000
w = jax.random.normal(jax.random.key(0), (size,))
scores = w * jnp.zeros(size)  # the gradients of a dead unit
assert bool(jnp.all(scores == 0)) and len(np.unique(np.asarray(scores))) == 1

ways = {
    "argsort": lambda s: jnp.argsort(s, descending=True)[:k],
    "top_k": lambda s: jax.lax.top_k(s, k)[1],
    "argpartition": lambda s: jnp.argpartition(s, size - k)[size - k :],
    "top_k of -scores": lambda s: jax.lax.top_k(-s, k)[1],
}
positive = {}
for name, way in ways.items():
    kept = np.asarray(way(scores))
    assert len(set(kept.tolist())) == k
    positive[name] = int(np.sum(np.asarray(w)[kept] > 0))
    print(f"{name}: {positive[name]} of {k} kept weights are positive")
    for dtype in (jnp.float16, jnp.bfloat16):
        assert np.array_equal(np.asarray(way(scores.astype(dtype))), kept)
    assert np.array_equal(np.asarray(jax.jit(way)(scores)), kept)

first = np.asarray(w)[:k]
print(f"positive in all: {int((w > 0).sum())}, among the first {k}: {int((first > 0).sum())}")
assert positive["argsort"] == int((first > 0).sum()) == 155, positive
assert np.array_equal(np.argsort(-np.asarray(scores), stable=True)[:k], np.arange(k))
assert np.array_equal(np.asarray(ways["argsort"](scores)), np.arange(k))
assert positive["top_k"] == positive["argpartition"] == k, positive
assert positive["top_k of -scores"] == 0, positive

# equal numbers of one sign do keep their order
assert jax.lax.top_k(jnp.zeros(5), 3)[1].tolist() == [0, 1, 2]
assert jax.lax.top_k(jnp.array([-0.0, 0.0, -0.0, 0.0]), 3)[1].tolist() == [1, 3, 0]
assert jnp.argsort(jnp.array([-0.0, 0.0, -0.0, 0.0]), descending=True).tolist() == [0, 1, 2, 3]
EOF
