import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.engine.forecast import count_products
from experiments.problems import convolutions, winograd
from experiments.problems.winograd import FOUR, TWO, filtering
from tests.experiments.arrays import normal

PADS = [((1, 1), (1, 1)), ((0, 0), (0, 0)), ((0, 2), (1, 0)), ((2, 2), (2, 2))]
SHAPES = [(3, 3), (4, 4), (5, 6), (9, 8)]


def numpy_padded(images, pads):
    return np.pad(np.float64(images), ((0, 0), *pads, (0, 0)))


def numpy_convolve(images, kernel, pads):
    """Sum over the entries of the kernel, in float64."""
    padded = numpy_padded(images, pads)
    height, width = padded.shape[1] - 2, padded.shape[2] - 2
    return sum(
        padded[:, i : i + height, j : j + width] @ np.float64(kernel[i, j])
        for i, j in np.ndindex(3, 3)
    )


def numpy_kernel_gradient(images, gradient, pads):
    padded = numpy_padded(images, pads)
    height, width = gradient.shape[1:3]
    entries = [
        np.einsum("bijc,bijd->cd", padded[:, i : i + height, j : j + width], np.float64(gradient))
        for i, j in np.ndindex(3, 3)
    ]
    return np.reshape(entries, (3, 3, *entries[0].shape))


def error(actual, expected):
    """The largest error, as a share of the largest entry."""
    assert actual.shape == expected.shape
    return np.abs(actual - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("points", [(0, 1), (0, 1, -1), (0, 1, -1, 2), (0, 1, -1, 2, -2)], ids=str)
def test_filtering_is_a_correlation(points):
    form = filtering(points)
    tile, taps = np.random.default_rng(0).normal(size=(2, form.size + 2))
    found = form.results @ ((form.kernel @ taps[:3]) * (form.tile @ tile))
    assert form.size == len(points) - 1
    np.testing.assert_allclose(found, np.correlate(tile, taps[:3], "valid"), atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("pads", PADS, ids=str)
def test_results_and_gradients_equal_sums_over_the_kernel(shape, pads):
    images, kernel = normal(0, (5, *shape, 2)), normal(1, (3, 3, 2, 3))
    expected = numpy_convolve(images, kernel, pads)
    assert (
        error(jax.jit(winograd.convolve, static_argnums=2)(images, kernel, pads), expected) < 2e-5
    )
    gradient = normal(2, expected.shape)
    found = jax.jit(winograd.kernel_gradient, static_argnums=2)(images, gradient, pads)
    assert error(found, numpy_kernel_gradient(images, gradient, pads)) < 2e-5


@pytest.mark.parametrize("batch", [6, 7])
@pytest.mark.parametrize("block", [1, 40, 100])
def test_blocks_of_any_size_give_the_same(monkeypatch, batch, block):
    """Blocks of one image, of at most two, and of at most five."""
    monkeypatch.setattr(winograd, "BLOCK", block)
    pads = PADS[0]
    images, kernel, gradient = (
        normal(seed, shape)
        for seed, shape in enumerate([(batch, 4, 5, 2), (3, 3, 2, 3), (batch, 4, 5, 3)])
    )
    expected = numpy_convolve(images, kernel, pads)
    assert error(winograd.convolve(images, kernel, pads), expected) < 2e-5
    found = winograd.kernel_gradient(images, gradient, pads)
    assert error(found, numpy_kernel_gradient(images, gradient, pads)) < 2e-5


@pytest.mark.parametrize(("size", "bound"), [(8, 2e-5), (4, 1e-6)])
def test_errors_are_small_on_as_many_channels_as_conv2_has(size, bound):
    images, kernel = normal(0, (4, size, size, 64)), normal(1, (3, 3, 64, 64))
    found = winograd.convolve(images, kernel, PADS[0])
    assert error(found, numpy_convolve(images, kernel, PADS[0])) < bound
    gradient = normal(2, found.shape)
    found = winograd.kernel_gradient(images, gradient, PADS[0])
    assert error(found, numpy_kernel_gradient(images, gradient, PADS[0])) < bound


@pytest.mark.parametrize(("size", "form"), [(8, FOUR), (5, FOUR), (4, TWO), (1, TWO)])
def test_products_are_counted(size, form):
    images, gradient = jnp.zeros((2, size, size, 16)), jnp.zeros((2, size, size, 32))
    kernel = jnp.zeros((3, 3, 16, 32))
    tiles = 2 * math.ceil(size / form.size) ** 2
    expected = 2 * tiles * len(form.tile) ** 2 * 16 * 32
    pads = PADS[0]
    assert count_products(lambda x, k: winograd.convolve(x, k, pads), images, kernel) == expected
    counted = count_products(lambda x, g: winograd.kernel_gradient(x, g, pads), images, gradient)
    assert counted == expected


@pytest.mark.parametrize(
    ("platform", "share"), [("cpu", 1 / 4), ("cuda", 1), ("tpu", 1), (None, 1)]
)
def test_products_are_those_of_the_platform(platform, share):
    def convolve(images, kernel):
        return convolutions.convolve(
            images, kernel, (1, 1), "SAME", dimension_numbers=convolutions.LAYOUT
        )

    images, kernel = jnp.zeros((2, 8, 8, 16)), jnp.zeros((3, 3, 16, 32))
    counted = count_products(convolve, images, kernel, platform=platform)
    assert counted == pytest.approx(share * 2 * 2 * 64 * 9 * 16 * 32)


@pytest.mark.parametrize(
    ("kernel", "dtype", "expected"),
    [
        ((3, 3, 16, 16), jnp.float32, True),
        ((3, 3, 15, 16), jnp.float32, False),
        ((3, 3, 16, 3), jnp.float32, False),
        ((3, 2, 16, 16), jnp.float32, False),
        ((1, 1, 64, 64), jnp.float32, False),
        ((3, 3, 16, 16), jnp.bfloat16, False),
        ((3, 3, 16, 16), jnp.float16, False),
    ],
)
def test_it_is_for_kernels_of_three_between_many_channels_in_float32(kernel, dtype, expected):
    images = jnp.zeros((1, 4, 4, kernel[2]), dtype)
    kernel = jnp.zeros(kernel, dtype)
    assert winograd.suits(images, kernel, PADS[0]) == expected
    assert not winograd.suits(images[:, :2], kernel, PADS[1])  # no results


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_types_are_kept_where_x64_is_enabled(dtype):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        images, kernel = (jnp.asarray(normal(0, s), dtype) for s in [(2, 8, 8, 2), (3, 3, 2, 3)])
        found = winograd.convolve(images, kernel, PADS[0])
        gradient = winograd.kernel_gradient(images, found, PADS[0])
    assert found.dtype == gradient.dtype == dtype
    bound = 1e-5 if dtype == jnp.float32 else 1e-13
    assert (
        error(np.asarray(found), numpy_convolve(*map(np.asarray, (images, kernel)), PADS[0]))
        < bound
    )
