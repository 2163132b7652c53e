#!/usr/bin/env bash
# jax 0.10.2, flax 0.12.8, on the CPU
#
# Expected: weights initialised in bfloat16, or masks sampled with bfloat16 probabilities, equal
# those of float32 up to rounding: well over a thousand distinct magnitudes, no exact zeros, and a
# rate that is off by at most 0.4 %, the precision with which bfloat16 represents 1e-4.
#
# What happens: the underlying uniform numbers lie on a fixed grid in [0, 1), of 128 points in
# bfloat16 and 1024 in float16, and everything else is a function of them. A million lecun_normal
# weights in bfloat16 have 90 distinct magnitudes, and one in 128 is exactly zero. bernoulli(p)
# compares p with the same grid, so any 0 < p <= 1/128 acts as 1/128. Its documentation warns about
# small p for float32 only (below 1e-7); mode="high" fixes 1e-4, but has a floor of its own at 6e-5.
#
# Why it matters: (1) magnitude criteria on initial weights meet tens of thousands of ties:
# thresholds keep 0.8 % or 2.3 % of a bfloat16 layer, and nothing in between. (2) 0.8 % of the
# weights are zero before any pruning: `w != 0` is not the mask, and these weights have no sign to
# keep. (3) A supermask sampled with probabilities of 1e-4 is 77 times too dense, although the mean
# of the probabilities is right.
#
# Seen, for 2**20 numbers and key 0:
#   float32: 927583 magnitudes, 0.00 % zeros, thresholds around 1 % keep 1.00 % or 1.00 %
#   float32: bernoulli(1e-4) gives 0.00012
#   bfloat16: 90 magnitudes, 0.78 % zeros, thresholds around 1 % keep 0.77 % or 2.31 %
#   bfloat16: bernoulli(1e-4) gives 0.0077
#   float32 rounded to bfloat16: 1786 magnitudes, 0.00 % zeros
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    'jax==0.10.2' 'jaxlib==0.10.2' 'flax==0.12.8' 'numpy==2.4.6' 'ml_dtypes==0.6.0'

JAX_PLATFORMS=cpu "$folder/venv/bin/python" -I - <<'EOF'
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

key, shape = jax.random.key(0), (1024, 1024)


def magnitudes(dtype):
    layer = nn.Dense(1024, param_dtype=dtype, kernel_init=lambda _, *rest: init(key, *rest))
    kernel = layer.init(key, jnp.ones((1, 1024), dtype))["params"]["kernel"]
    assert kernel.dtype == dtype
    return np.abs(np.asarray(kernel).astype(np.float64)).ravel()


def drawn(p, dtype, **options):
    return float(jnp.mean(jax.random.bernoulli(key, jnp.full(shape, p, dtype), **options)))


init = jax.nn.initializers.lecun_normal()
assert nn.initializers.lecun_normal is jax.nn.initializers.lecun_normal

for dtype in (jnp.float32, jnp.bfloat16):
    scores = magnitudes(dtype)
    distinct, zeros = len(np.unique(scores)), np.mean(scores == 0)
    cut = np.sort(scores)[-round(0.01 * scores.size)]
    fewer, more = np.mean(scores > cut), np.mean(scores >= cut)
    rate = drawn(1e-4, dtype)
    print(
        f"{dtype.__name__}: {distinct} magnitudes, {100 * zeros:.2f} % zeros, "
        f"thresholds around 1 % keep {100 * fewer:.2f} % or {100 * more:.2f} %"
    )
    print(f"{dtype.__name__}: bernoulli(1e-4) gives {rate:.2g}")
    if dtype == jnp.bfloat16:
        assert distinct == 90, distinct
        assert 1 / 135 < zeros < 1 / 121, zeros
        assert 0.007 < fewer < 0.008 and 0.0225 < more < 0.0235, (fewer, more)
        assert 1 / 135 < rate < 1 / 121, rate
        assert rate == drawn(1e-30, dtype) == drawn(1 / 128, dtype)
        assert 0.8e-4 < drawn(1e-4, dtype, mode="high") < 1.4e-4
        assert 5e-5 < drawn(1e-30, dtype, mode="high") < 8e-5
    else:
        assert distinct > 900_000, distinct
        assert zeros == 0, zeros
        assert 0.00999 < fewer < more < 0.01001, (fewer, more)
        assert 0.8e-4 < rate < 1.4e-4, rate

rounded = np.abs(np.asarray(init(key, shape).astype(jnp.bfloat16)).astype(np.float64))
distinct, zeros = len(np.unique(rounded)), np.mean(rounded == 0)
print(f"float32 rounded to bfloat16: {distinct} magnitudes, {100 * zeros:.2f} % zeros")
assert distinct > 1700 and zeros == 0, (distinct, zeros)

# where it comes from
grid = np.unique(np.asarray(jax.random.uniform(key, shape, jnp.bfloat16)).astype(np.float64))
assert grid.tolist() == [i / 128 for i in range(128)], grid
grid = np.unique(np.asarray(jax.random.uniform(key, shape, jnp.float16)).astype(np.float64))
assert grid.tolist() == [i / 1024 for i in range(1024)], grid
EOF
