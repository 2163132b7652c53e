import functools
import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from experiments.problems import convolutions
from experiments.problems.convolutions import (
    LAYOUT,
    canonical_conv,
    max_pool,
    shifted_conv,
    winograd_conv,
)
from tests.experiments.arrays import assert_close, normal, numpy_conv_same

SIZE = ((2, 5, 6, 3), (3, 3, 3, 4))  # images [B, H, W, C], kernel [height, width, in, out]
MANY = ((2, 5, 6, 16), (3, 3, 16, 17))  # enough channels for `winograd`
SIZES = pytest.mark.parametrize("size", [SIZE, MANY], ids=["few", "many"])
CONVOLUTIONS = [
    (*SIZE, "SAME"),
    (*SIZE, "VALID"),
    (*MANY, "SAME"),
    (*MANY, "VALID"),
    ((3, 4, 4, 1), (2, 3, 1, 2), "SAME"),
    ((3, 4, 4, 1), (2, 3, 1, 2), "SAME_LOWER"),
    ((1, 6, 5, 2), (2, 2, 2, 3), ((0, 2), (1, 0))),
    ((1, 6, 5, 2), (1, 1, 2, 3), ((2, 0), (0, 1))),
]


def lax_conv(images, kernel, padding):
    return lax.conv_general_dilated(images, kernel, (1, 1), padding, dimension_numbers=LAYOUT)


def our_conv(images, kernel, padding):
    return canonical_conv(images, kernel, (1, 1), padding, dimension_numbers=LAYOUT)


def our_shifted_conv(images, kernel, padding):
    return shifted_conv(images, kernel, (1, 1), padding, dimension_numbers=LAYOUT)


def our_winograd_conv(images, kernel, padding):
    return winograd_conv(images, kernel, (1, 1), padding, dimension_numbers=LAYOUT)


OURS = pytest.mark.parametrize("conv", [our_conv, our_shifted_conv, our_winograd_conv])
OURS_FOR_FLAX = pytest.mark.parametrize("conv", [canonical_conv, shifted_conv, winograd_conv])


def images_and_kernel(size, seed=0):
    """Random arrays whose convolution is about 1."""
    images, kernel = (normal(seed + i, shape) for i, shape in enumerate(size))
    return images, kernel / math.sqrt(math.prod(kernel.shape[:3]))


def squared(conv, padding):
    """Return a scalar whose curvature depends on both arguments."""
    return lambda images, kernel: jnp.sum(jnp.sin(conv(images, kernel, padding)) ** 2)


@OURS
def test_our_convolutions_equal_a_sum_over_the_kernel(conv):
    images, kernel = normal(0, (2, 4, 5, 2)), normal(1, (3, 3, 2, 3))
    expected = numpy_conv_same(np.asarray(images), np.asarray(kernel))
    assert_close(conv(images, kernel, "SAME"), expected)


@OURS
@pytest.mark.parametrize(("images", "kernel", "padding"), CONVOLUTIONS, ids=str)
def test_our_convolutions_equal_lax_in_value_and_gradients(conv, images, kernel, padding):
    inputs = images_and_kernel((images, kernel))
    ours, theirs = (
        jax.jit(jax.value_and_grad(squared(f, padding), argnums=(0, 1)))(*inputs)
        for f in (conv, lax_conv)
    )
    assert_close(ours, theirs)


@OURS_FOR_FLAX
@SIZES
@pytest.mark.parametrize("strides", [(2, 2), (1, 3)], ids=str)
@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 1), (0, 2))], ids=str)
def test_our_convolutions_with_strides_equal_lax(conv, size, strides, padding):
    inputs = images_and_kernel(size)

    def value(conv, *inputs):
        return jnp.sum(jnp.sin(conv(*inputs, strides, padding, dimension_numbers=LAYOUT)) ** 2)

    ours, theirs = (
        jax.jit(jax.value_and_grad(functools.partial(value, f), argnums=(0, 1)))(*inputs)
        for f in (conv, lax.conv_general_dilated)
    )
    assert_close(ours, theirs)


@OURS
@SIZES
@pytest.mark.parametrize("axes", [(0, 0), (None, 0)], ids=str)
def test_our_convolutions_equal_lax_under_vmap(conv, size, axes):
    inputs = [
        jnp.stack([x, -x, 2 * x]) if axis == 0 else x
        for x, axis in zip(images_and_kernel(size), axes, strict=True)
    ]
    ours, theirs = (
        jax.jit(jax.vmap(jax.grad(squared(f, "SAME"), argnums=(0, 1)), axes))(*inputs)
        for f in (conv, lax_conv)
    )
    assert_close(ours, theirs)


def forward_over_reverse(f, point, direction):
    return jax.jvp(jax.grad(f, argnums=(0, 1)), point, direction)[1]


def reverse_over_reverse(f, point, direction):
    gradient, pull_back = jax.vjp(jax.grad(f, argnums=(0, 1)), *point)
    assert jax.tree.structure(gradient) == jax.tree.structure(direction)
    return pull_back(direction)


@pytest.mark.parametrize("product", [forward_over_reverse, reverse_over_reverse])
@pytest.mark.parametrize(("conv", "size"), [(our_conv, SIZE), (our_winograd_conv, MANY)])
def test_our_convolutions_equal_lax_in_second_order(product, conv, size):
    point, direction = images_and_kernel(size), images_and_kernel(size, seed=2)
    ours, theirs = (
        jax.jit(functools.partial(product, squared(f, "SAME")))(point, direction)
        for f in (conv, lax_conv)
    )
    assert_close(ours, theirs)


@OURS_FOR_FLAX
@pytest.mark.parametrize(
    "options",
    [
        {"lhs_dilation": (1, 2), "padding": ((1, 1), (1, 1))},
        {"rhs_dilation": (2, 2)},
        {"feature_group_count": 2},
        {"precision": lax.Precision.HIGHEST},
        {"dimension_numbers": ("NWHC", "WHIO", "NWHC")},
    ],
    ids=str,
)
def test_our_convolutions_leave_others_to_lax(conv, options):
    call = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": LAYOUT, **options}
    inputs = 4 // call.get("feature_group_count", 1)
    images, kernel = normal(0, (2, 5, 6, 4)), normal(1, (3, 3, inputs, 4))
    assert_close(conv(images, kernel, **call), lax.conv_general_dilated(images, kernel, **call))


@OURS_FOR_FLAX
def test_our_convolutions_leave_other_ranks_to_lax(conv):
    call = {"window_strides": (1,), "padding": "SAME", "dimension_numbers": ("NWC", "WIO", "NWC")}
    signals, kernel = normal(0, (2, 6, 3)), normal(1, (3, 3, 4))
    assert_close(conv(signals, kernel, **call), lax.conv_general_dilated(signals, kernel, **call))


@pytest.mark.parametrize("members", [1, 3])
def test_the_gradient_of_shifted_conv_is_made_of_matrix_products(members):
    images, kernel = (jnp.zeros((members, *shape)) for shape in SIZE)
    gradient = jax.vmap(jax.grad(squared(our_shifted_conv, "SAME"), argnums=(0, 1)))
    jaxpr = str(jax.make_jaxpr(gradient)(images, kernel))
    assert jaxpr.count("dot_general") == 3 and "conv_general" not in jaxpr


def layouts_of_gradient(conv):
    images, kernel = SIZE
    gradient = jax.grad(squared(conv, "SAME"), argnums=(0, 1))
    jaxpr = str(jax.make_jaxpr(gradient)(jnp.zeros(images), jnp.zeros(kernel)))
    return set(
        re.findall(r"lhs_spec=\([^)]*\),?\s*rhs_spec=\([^)]*\),?\s*out_spec=\([^)]*\)", jaxpr)
    )


def test_gradients_have_the_layout_of_the_fast_convolution():
    assert len(layouts_of_gradient(our_conv)) == 1
    assert len(layouts_of_gradient(lax_conv)) > 1


def layouts_compiled_for(platform, conv):
    """The layouts of the convolutions in a gradient that is lowered for a platform."""
    images, kernel = SIZE
    gradient = jax.jit(jax.grad(squared(conv, "SAME"), argnums=(0, 1)))
    lowered = gradient.trace(jnp.zeros(images), jnp.zeros(kernel)).lower(
        lowering_platforms=(platform,)
    )
    return set(re.findall("dim_numbers = (.*?), window", lowered.as_text()))


@pytest.mark.parametrize(
    ("platform", "expected"), [("cpu", our_conv), ("cuda", lax_conv), ("tpu", lax_conv)]
)
def test_convolve_is_canonical_where_a_program_is_compiled_for_a_cpu(platform, expected):
    def chosen(images, kernel, padding):
        return convolutions.convolve(images, kernel, (1, 1), padding, dimension_numbers=LAYOUT)

    found = layouts_compiled_for(platform, chosen)
    assert found == layouts_compiled_for(platform, expected)
    assert len(found) == (1 if platform == "cpu" else 3)


def test_code_of_a_platform_has_its_own_gradient():
    """The default's gradient would be another one, and needs something else of the forward pass."""
    on_cpu = jax.custom_vjp(jnp.sin)
    on_cpu.defvjp(lambda x: (jnp.sin(x), ()), lambda _, g: (7 * g,))
    both = convolutions.by_platform(jnp.sin, cpu=on_cpu)
    x = jnp.float32(0.5)
    assert both(x) == jnp.sin(x)
    assert jax.grad(both)(x) == 7
    assert jax.jit(jax.grad(lambda x: 2 * both(x)))(x) == 14
    of_many = jax.vmap(jax.grad(both))(jnp.array([x, 2 * x]))
    assert of_many.tolist() == [7, 7]
    assert jax.grad(convolutions.by_platform(jnp.sin, tpu=on_cpu))(x) == jnp.cos(x)


@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (1, 5, 4, 2), (2, 7, 7, 1), (1, 2, 3, 1)], ids=str)
def test_max_pool_equals_flax_in_value_and_gradient(shape):
    images = normal(0, shape)
    pools = (max_pool, lambda x: nn.max_pool(x, (2, 2), (2, 2)))
    ours, theirs = (jax.value_and_grad(lambda x, p=p: jnp.sum(p(x) ** 2))(images) for p in pools)
    assert_close(ours, theirs)
    np.testing.assert_array_equal(pools[0](images), pools[1](images))
