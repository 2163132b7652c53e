"""Random arrays, their convolution by NumPy, and how close results must be."""

import jax
import jax.numpy as jnp
import numpy as np


def normal(seed, shape):
    # NumPy, because jax.random compiles a program for every shape.
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def assert_close(actual, expected):
    """Compare trees of arrays, to a small share of the largest entry of each."""

    def compare(actual, expected):
        largest = max(1, np.abs(expected).max())
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=5e-5 * largest)

    jax.tree.map(compare, actual, expected)


def numpy_conv_same(images, kernel):
    """Compute a convolution as a sum over all pixels and entries of a kernel of odd size."""
    batch, height, width, _ = images.shape
    rows, columns, _, channels = kernel.shape
    result = np.zeros((batch, height, width, channels))
    for i, j, a, b in np.ndindex(height, width, rows, columns):
        y, x = i + a - rows // 2, j + b - columns // 2
        if 0 <= y < height and 0 <= x < width:
            result[:, i, j] += images[:, y, x] @ kernel[a, b]
    return result
