#!/usr/bin/env bash
# jax 0.10.2, jaxlib 0.10.2 (lax.conv_general_dilated, and so flax.linen.Conv), on the CPU
#
# Expected: a convolution of smaller images takes less time. With 512 channels, a 3x3 convolution
# of 2x2 images has a quarter of the arithmetic of one of 4x4 images.
#
# What happens: with padding SAME it takes twenty times as long as that of 4x4 images. XLA finds the
# kernel larger than the image and exchanges the two: the kernel, reversed, becomes the image. Its
# fast CPU code does not take the new order of axes, so a plain loop over all of them computes
# it. Images of 3x3 are not affected, nor is padding VALID on images that were padded before, which
# gives the same result in a small part of the time. There is no warning.
#
# Why it matters: the last three convolutions of VGG-16 on CIFAR-10 have 2x2 images and 512 channels.
# They are 9 % of its arithmetic (28 of 313 million products per image) and take most of a forward
# pass on a CPU, so whoever profiles the network, or prunes it by measured time, takes them for its
# expensive layers.
#
# Seen, on two cores (milliseconds for 60 images; they vary):
#   SAME, 2x2: 1010 ms, exchanged: True
#   padded before, 2x2: 18 ms, exchanged: False
#   SAME, 3x3: 28 ms, exchanged: False
#   SAME, 4x4: 46 ms, exchanged: False
#   SAME, 8x8: 180 ms, exchanged: False
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    'jax==0.10.2' 'jaxlib==0.10.2' 'numpy==2.4.6'

JAX_PLATFORMS=cpu "$folder/venv/bin/python" -I - <<'EOF'
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

KERNEL = jax.random.normal(jax.random.key(0), (3, 3, 512, 512)) / 68


def convolve(images, kernel, padding="SAME"):
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(images, kernel, (1, 1), padding, dimension_numbers=layout)


def convolve_padded(images, kernel):
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return convolve(lax.optimization_barrier(padded), kernel, "VALID")


def measure(name, function, size):
    """Return the fastest of three calls in milliseconds, the results and whether XLA exchanged."""
    images = jax.random.normal(jax.random.key(1), (60, size, size, 512))
    compiled = jax.jit(function).lower(images, KERNEL).compile()
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        results = compiled(images, KERNEL).block_until_ready()
        times.append(1e3 * (time.perf_counter() - begin))
    exchanged = "rhs_reversal" in compiled.as_text()
    print(f"{name}, {size}x{size}: {min(times):.0f} ms, exchanged: {exchanged}")
    return min(times), results, exchanged


two, plain, exchanged = measure("SAME", convolve, 2)
padded, same, _ = measure("padded before", convolve_padded, 2)
np.testing.assert_allclose(plain, same, atol=1e-4)
assert exchanged and two > 4 * padded, (two, padded)
for size in (3, 4, 8):
    other, _, exchanged = measure("SAME", convolve, size)
    assert not exchanged, size
    assert two > (1 if size == 8 else 4) * other, (two, other)  # 8x8 is 16 times the arithmetic
EOF
