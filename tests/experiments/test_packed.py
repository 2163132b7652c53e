"""Pairs of convolutions in the form of a TPU: the numbers are those of the ordinary layers."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from experiments.problems import networks, packed
from experiments.problems.convolutions import LAYOUT

# Images [B, H, W, C] and outputs: plain, written as pairs, read as pairs, and both; odd and tiny
# sizes, a row that is no multiple of 4, a batch that is no multiple of 8.
SIZES = [
    ((2, 6, 6, 3), 4),
    ((3, 4, 8, 3), 64),
    ((8, 5, 4, 2), 33),
    ((2, 4, 6, 64), 5),
    ((2, 3, 8, 48), 64),
    ((1, 5, 7, 64), 64),
    ((2, 7, 6, 3), 64),
    ((1, 2, 2, 1), 1),
    ((2, 2, 3, 130), 2),
]
of_sizes = pytest.mark.parametrize(("shape", "channels"), SIZES, ids=str)


def plain_pair(images, *weights):
    for kernel, bias in (weights[:2], weights[2:]):
        conv = lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT)
        images = nn.relu(conv + bias)
    return nn.max_pool(images, (2, 2), (2, 2))


def make(shape, channels, seed=0):
    rng = np.random.default_rng(seed)
    inputs = shape[-1]
    shapes = shape, (3, 3, inputs, channels), (channels,), (3, 3, channels, channels), (channels,)
    scales = 1, inputs**-0.5 / 3, 1, channels**-0.5 / 3, 1
    return [
        jnp.float32(rng.normal(size=s) * scale) for s, scale in zip(shapes, scales, strict=True)
    ]


def with_gradients(pair, arguments, weights):
    """The result of a pair, and the gradients of a weighted sum of it."""
    result, pullback = jax.vjp(pair, *arguments)
    return result, pullback(weights)


def assert_close(ours, expected, tolerance=2e-5):
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        assert x.shape == y.shape
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * max(1, np.abs(y).max()))


@of_sizes
def test_pair_equals_lax_and_flax_in_value_and_gradients(shape, channels):
    arguments = make(shape, channels)
    expected = jax.eval_shape(plain_pair, *arguments)
    weights = jnp.float32(np.random.default_rng(1).normal(size=expected.shape))
    with jax.default_matmul_precision("float32"):
        ours, expected = (
            jax.jit(functools.partial(with_gradients, pair))(arguments, weights)
            for pair in (packed.pair, plain_pair)
        )
        assert_close(ours, expected)
        if channels == 1:
            assert_close(with_gradients(packed.pair, arguments, weights), ours)


def rounded(function):
    """The function with arguments that are rounded to bfloat16."""

    def of_rounded(*arguments):
        near = [x.astype(jnp.bfloat16).astype(jnp.float32) for x in arguments]
        return function(
            *(x + lax.stop_gradient(y - x) for x, y in zip(arguments, near, strict=True))
        )

    return of_rounded


def test_products_of_the_default_precision_round_what_they_read_to_bfloat16():
    arguments = make((3, 4, 8, 3), 64)

    def conv(images, kernel):
        return lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT)

    def expected(images, kernel, bias, second_kernel, second_bias):
        inner = nn.relu(rounded(conv)(images, kernel) + bias)
        return nn.max_pool(
            nn.relu(rounded(conv)(inner, second_kernel) + second_bias), (2, 2), (2, 2)
        )

    assert_close(packed.pair(*arguments), expected(*arguments))
    exact = plain_pair(*arguments)
    assert np.abs(packed.pair(*arguments) - exact).max() > 1e-4


def test_pair_is_the_same_alone_and_under_vmap():
    members = [make((2, 4, 8, 3), 64, seed) for seed in range(2)]
    stacked = [jnp.stack(x) for x in zip(*members, strict=True)]
    weights = jnp.float32(np.random.default_rng(1).normal(size=(2, 2, 4, 64)))
    with jax.default_matmul_precision("float32"):
        alone = jax.jit(lambda *x: with_gradients(packed.pair, x, weights))
        of_all = jax.jit(jax.vmap(alone))(*stacked)
        for index, member in enumerate(members):
            assert_close(jax.tree.map(lambda x, i=index: x[i], of_all), alone(*member))


@pytest.mark.parametrize(("shape", "channels"), [((1, 2, 2, 1), 1), ((1, 2, 4, 1), 48)])
def test_the_first_pixel_of_a_window_gets_the_gradient_of_a_tie_and_0_gets_none(shape, channels):
    """Kernels of 0 make all pixels equal to the bias."""
    image, kernel, bias, second, _ = (jnp.zeros_like(x) for x in make(shape, channels))
    gradients = jax.jit(jax.grad(lambda *x: packed.pair(image, *x).sum(), argnums=(2, 3)))
    windows = shape[2] // 2
    grad_second, grad_bias = gradients(kernel, bias + 1, second, bias + 1)
    assert (grad_bias == windows).all()
    # The first pixel has no neighbours above; the first window has none to the left.
    assert not grad_second[0].any()
    assert (grad_second[1, 1] == windows).all()
    assert (grad_second[1, 0] == windows - 1).all()
    assert not gradients(kernel, bias + 1, second, bias)[1].any()


def test_what_is_not_a_number_stays_visible():
    arguments = make((1, 2, 4, 3), 64)
    arguments[0] = arguments[0].at[0, 0, 0, 0].set(jnp.nan)
    assert jnp.isnan(packed.pair(*arguments)).all()


@pytest.mark.parametrize("shape", [(3, 2, 4, 64), (8, 3, 2, 5), (1, 1, 1, 130)], ids=str)
def test_product_equals_the_product_of_flattened_images(shape):
    rng = np.random.default_rng(0)
    rows = jnp.float32(rng.normal(size=(shape[0], np.prod(shape[1:]))))
    kernel = jnp.float32(rng.normal(size=(rows.shape[1], 7)))
    weights = jnp.float32(rng.normal(size=(shape[0], 7)))
    ordinary = (((1,), (0,)), ((), ()))

    def ours(rows, kernel):
        return packed.product(rows, kernel, ordinary, None, shape=shape[1:])

    assert_close(
        with_gradients(ours, (rows, kernel), weights),
        with_gradients(jnp.matmul, (rows, kernel), weights),
    )


@pytest.mark.parametrize(
    ("numbers", "options"),
    [((((1,), (1,)), ((), ())), {}), ((((1,), (0,)), ((), ())), {"precision": "highest"})],
)
def test_product_refuses_other_products(numbers, options):
    with pytest.raises(ValueError, match=r"packed.product got .* expected the ordinary product"):
        packed.product(jnp.ones((2, 4)), jnp.ones((4, 4)), numbers, shape=(2, 2, 1), **options)


@pytest.mark.parametrize("pairs", [(), (64,), (64, 128)], ids=str)
def test_a_packed_classifier_starts_and_computes_as_the_ordinary_one(pairs):
    widths = networks.Widths(pairs, hidden=(5, 4))
    shape = (4, 4, 3)
    ordinary, ours = (
        networks.as_network(networks.Classifier(widths, packed=form), shape)
        for form in (False, True)
    )
    params = jax.jit(ordinary.init)(jax.random.key(0))
    assert_close(jax.jit(ours.init)(jax.random.key(0)), params, tolerance=0)
    images = jax.random.uniform(jax.random.key(1), (2, *shape))

    def of(network):
        def loss(params):
            return jnp.sum(jnp.sin(network.apply(params, images)))

        return jax.jit(jax.value_and_grad(loss))(params)

    with jax.default_matmul_precision("float32"):
        assert_close(of(ours), of(ordinary))
