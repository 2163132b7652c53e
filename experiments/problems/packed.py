"""Pairs of convolutions with pooling, and the layer that follows, in the form that suits a TPU.

The results are those of the ordinary layers: `pair` equals two 3x3 convolutions with biases and
ReLUs and 2x2 max pooling, `product` the product of flattened images with a matrix. What differs is
how arrays lie in memory, and how often they pass through it:

* Pixels first, then the batch, then channels, so that shifts of pixels are free. Images with 64
  channels fill half of the 128 lanes of a TPU; here, two neighbours of a row share them.
* Pooling is the maximum of four convolutions with stride 2, one per pixel of a window, whose
  results are aligned. No layer in full resolution is written before it.
* The gradient needs what each convolution reads, and which pixel won its window. Both are kept in
  bfloat16 where products round their inputs to it anyway.

Axes: `B` batch, `H` height, `W` width, `C` channels, and `P` pixels that share the last axis.
Packed images are `[H, W / P, B, P C]`, kernels `[height, width, in, out]`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

LANES, SUBLANES = 128, 8  # of a register of a TPU
ROUNDING = (None, "default", "fastest", "bfloat16")  # precisions of products that round to bfloat16
LAYOUT = ("HWNC", "HWIO", "HWNC")
# The gradient of a kernel sums over the batch, which takes the place of the channels.
OVER_BATCH = lax.ConvDimensionNumbers((3, 2, 0, 1), (3, 2, 0, 1), (2, 3, 0, 1))
WINDOW = ((0, 0), (0, 1), (1, 0), (1, 1))  # the pixels that are pooled

Pads = tuple[tuple[int, int], tuple[int, int]]


class Form(NamedTuple):
    """A convolution of packed images, in steps of the last-but-two axes.

    Attributes:
      strides: steps between outputs, of rows and columns.
      spread: the steps between columns of the input; zeros lie between them.
      pads: zeros (before, after) the rows and the columns.
    """

    strides: tuple[int, int]
    spread: int
    pads: Pads


PLAIN = Form((1, 1), 1, ((1, 1), (1, 1)))
TO_PAIRS = Form((1, 2), 1, ((1, 1), (2, 2)))
FROM_PAIRS = Form((1, 1), 2, ((1, 1), (2, 2)))


@jax.custom_vjp
def pair(
    images: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    second_kernel: jax.Array,
    second_bias: jax.Array,
) -> jax.Array:
    """Compute `max_pool(relu(conv(relu(conv(images)))))`, with 3x3 convolutions and 2x2 pooling.

    Images are padded by one pixel of 0 for each convolution; pooling drops an odd last row or
    column. Where pixels of a window tie, the first gets the gradient. Products have the precision
    of `jax.default_matmul_precision`. Forward mode does not work.

    Args:
      images: `[B, H, W, C]`, at least 2x2 pixels.
      kernel: `[3, 3, C, D]`.
      bias: `[D]`.
      second_kernel: `[3, 3, D, D]`.
      second_bias: `[D]`.

    Returns:
      `[B, H // 2, W // 2, D]`.
    """
    return _pair_forward(images, kernel, bias, second_kernel, second_bias)[0]


def _pair_forward(
    images: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    second_kernel: jax.Array,
    second_bias: jax.Array,
):
    values = _round(_pack(images))
    form, place = _first_form(images.shape, kernel.shape)
    if form == TO_PAIRS:
        # The pairs are those of odd and even columns, so they begin before an image and end after
        # it. A bias of minus infinity makes those pixels 0, as the second convolution expects them.
        columns = np.arange(-1, images.shape[2] + 1).reshape(-1, 2)
        outside = (columns < 0) | (columns >= images.shape[2])
        biases = jnp.where(outside[:, :, None], -jnp.inf, bias).reshape(len(columns), 1, -1)
        second_bias = jnp.tile(second_bias, 2)
    else:
        biases = bias
    inner = _conv(values, _round(place(kernel)), form)
    inner = _round(jnp.maximum(inner + biases, 0))

    pooled, winner = jnp.float32(0), jnp.int8(0)
    for number, (second_form, second_place) in enumerate(_pooled_forms(form), 1):
        candidate = _conv(inner, _round(second_place(second_kernel)), second_form) + second_bias
        winner = jnp.where(candidate > pooled, jnp.int8(number), winner).astype(jnp.int8)
        pooled = jnp.maximum(pooled, candidate)
    result = _unpack(pooled, bias.shape[0])
    return result, (images, kernel, second_kernel, inner, winner)


def _pair_backward(saved: tuple[jax.Array, ...], grad: jax.Array):
    images, kernel, second_kernel, inner, winner = saved
    form, place = _first_form(images.shape, kernel.shape)
    grad = _pack(grad, winner.shape[3] // grad.shape[3])
    grad_second_bias = _sum_pixels(jnp.where(winner > 0, grad, 0), second_kernel)
    # Without this, XLA computes the mask of the ReLU already in the forward pass, and keeps it.
    inner, winner, grad = lax.optimization_barrier((inner, winner, _round(grad)))

    grad_inner, grad_second = jnp.float32(0), jnp.float32(0)
    for number, (second_form, second_place) in enumerate(_pooled_forms(form), 1):
        won = jnp.where(winner == number, grad, jnp.zeros((), grad.dtype))
        placed, unplace = jax.vjp(second_place, second_kernel)
        part = _grad_values(won, _round(placed), second_form, inner.shape)
        # Without the barrier, XLA would keep all summands and add them at the end.
        grad_inner = lax.optimization_barrier(grad_inner) + part if number > 1 else part
        grad_second += unplace(_grad_kernel(inner, won, placed.shape, second_form))[0]
    grad_inner = jnp.where(inner > 0, grad_inner, 0)
    grad_bias = _sum_pixels(grad_inner, second_kernel)
    grad_inner = _round(grad_inner)

    values = _pack(images)
    placed, unplace = jax.vjp(place, kernel)
    (grad_kernel,) = unplace(_grad_kernel(_round(values), grad_inner, placed.shape, form))
    grad_images = _unpack(
        _grad_values(grad_inner, _round(placed), form, values.shape), images.shape[3]
    )
    return grad_images, grad_kernel, grad_bias, grad_second, grad_second_bias


pair.defvjp(_pair_forward, _pair_backward)


def product(
    rows: jax.Array,
    kernel: jax.Array,
    dimension_numbers: Any,
    precision: Any = None,
    *,
    shape: tuple[int, ...],
    **options: Any,
) -> jax.Array:
    """Compute the product of flattened images with a matrix, without flattening what `pair` packs.

    Use it as `nn.Dense(..., dot_general=functools.partial(product, shape=values.shape[1:]))`.

    Args:
      rows: `[B, H W C]`.
      kernel: `[H W C, units]`.
      dimension_numbers: those of this product.
      precision: the default one.
      shape: `(H, W, C)`.
      options: of `lax.dot_general`, none that differ from its defaults.

    Raises:
      ValueError: if another product or precision is asked for.
    """
    ordinary = (((1,), (0,)), ((), ()))
    if dimension_numbers != ordinary or any(x is not None for x in (precision, *options.values())):
        raise ValueError(
            "packed.product got dimension numbers, a precision or options, expected the ordinary "
            f"product of {rows.shape} and {kernel.shape}."
        )
    return _product(_pack(rows.reshape(len(rows), *shape)), kernel)


@jax.custom_vjp
def _product(values: jax.Array, kernel: jax.Array) -> jax.Array:
    return _product_forward(values, kernel)[0]


def _product_forward(values: jax.Array, kernel: jax.Array):
    result = jnp.einsum("hwbc,hwcn->bn", values, _by_pixel(kernel, values))
    return result, (values, kernel)


def _product_backward(saved: tuple[jax.Array, jax.Array], grad: jax.Array):
    values, kernel = saved
    height, width, batch, channels = values.shape
    # The order of the product's axes is not that of the result: XLA would transpose a large array.
    grad_values = lax.dot_general(grad, _by_pixel(kernel, values), (((1,), (3,)), ((), ())))
    # Over a batch of whole tiles, in two axes, XLA makes this product together with the update of
    # the kernel; from an image of four axes, before it.
    missing = -batch % SUBLANES
    padded = jnp.pad(values, ((0, 0), (0, 0), (0, missing), (0, 0)))
    padded = padded.reshape(height * width, SUBLANES, -1, channels)
    grad = jnp.pad(grad, ((0, missing), (0, 0))).reshape(SUBLANES, -1, grad.shape[1])
    grad_kernel = lax.dot_general(padded, grad, (((1, 2), (0, 1)), ((), ())))
    return grad_values.transpose(1, 2, 0, 3), grad_kernel.reshape(kernel.shape)


_product.defvjp(_product_forward, _product_backward)


def _by_pixel(kernel: jax.Array, values: jax.Array) -> jax.Array:
    height, width, _, channels = values.shape
    return kernel.reshape(height, width, channels, -1)


def _round(values: jax.Array) -> jax.Array:
    """Round to bfloat16 what products of the present precision round, to save memory."""
    config: Any = jax.config
    rounds = config.jax_default_matmul_precision in ROUNDING
    return values.astype(jnp.bfloat16) if rounds else values


def _pixels(width: int, channels: int) -> int:
    """Return how many pixels of a row share the last axis of packed images."""
    return 2 if LANES // 4 < channels <= LANES // 2 and width % 2 == 0 else 1


def _pack(images: jax.Array, pixels: int | None = None) -> jax.Array:
    """Map `[B, H, W, C]` to `[H, W / P, B, P C]`; P is `pixels`, by default that of `_pixels`."""
    batch, height, width, channels = images.shape
    count = pixels or _pixels(width, channels)
    rows = images.reshape(batch, height, width // count, count * channels)
    return rows.transpose(1, 2, 0, 3)


def _unpack(values: jax.Array, channels: int) -> jax.Array:
    """Map `[H, W / P, B, P C]` to `[B, H, W, C]`."""
    height, _, batch, _ = values.shape
    return values.transpose(2, 0, 1, 3).reshape(batch, height, -1, channels)


def _first_form(images: tuple[int, ...], kernel: tuple[int, ...]):
    """Return the form of the first convolution of a pair, and how its kernel is placed."""
    _, _, width, channels = images
    if _pixels(width, channels) == 2:
        return FROM_PAIRS, _from_pairs
    if width % 4 == 0 and _pixels(width, kernel[3]) == 2:
        return TO_PAIRS, functools.partial(_shifted, starts=(0, 1), width=4)
    return PLAIN, _unchanged


def _pooled_forms(first: Form):
    """Return the same for the four convolutions that are pooled, which read what `first` wrote."""
    for row, column in WINDOW:
        rows = 1 - row, row
        if first == TO_PAIRS:
            yield Form((2, 2), 1, (rows, (0, 0))), functools.partial(_apart, column=column)
        else:
            yield Form((2, 2), 1, (rows, (1 - column, column))), _unchanged


def _unchanged(kernel: jax.Array) -> jax.Array:
    return kernel


def _shifted(kernel: jax.Array, starts: tuple[int, ...], width: int) -> jax.Array:
    """Place a kernel of 3 columns at several starts, side by side in the outputs."""
    columns = kernel.shape[1]
    copies = [
        jnp.pad(kernel, ((0, 0), (start, width - columns - start), (0, 0), (0, 0)))
        for start in starts
    ]
    return jnp.concatenate(copies, axis=-1)


def _apart(kernel: jax.Array, column: int) -> jax.Array:
    """Place a kernel for columns `4 j + column` and 2 further, from pairs `2 j - 1, 2 j`."""
    height, _, inputs, _ = kernel.shape
    return _shifted(kernel, (column, column + 2), 6).reshape(height, 3, 2 * inputs, -1)


def _from_pairs(kernel: jax.Array) -> jax.Array:
    """Place a kernel for single columns, from pairs `2 j, 2 j + 1` that are spread by 2."""
    left, middle, right = (kernel[:, column] for column in range(3))
    zeros = jnp.zeros_like(left)
    pairs = (zeros, left), (left, middle), (middle, right), (right, zeros)
    return jnp.stack([jnp.concatenate(pair, axis=1) for pair in pairs], axis=1)


def _conv(values: jax.Array, kernel: jax.Array, form: Form) -> jax.Array:
    return lax.conv_general_dilated(
        values,
        kernel,
        form.strides,
        form.pads,
        lhs_dilation=(1, form.spread),
        dimension_numbers=LAYOUT,
        preferred_element_type=jnp.float32,
    )


def _grad_values(
    grad: jax.Array, kernel: jax.Array, form: Form, shape: tuple[int, ...]
) -> jax.Array:
    """Compute the gradient of `_conv` for images of a shape."""
    sizes = zip(
        shape, (1, form.spread), kernel.shape, grad.shape, form.strides, form.pads, strict=False
    )
    pads = []
    for size, spread, taps, outputs, stride, (low, _) in sizes:
        before = taps - 1 - low
        after = _span(size, spread) - _span(outputs, stride) + taps - 1 - before
        pads.append((before, after))
    return lax.conv_general_dilated(
        grad,
        kernel[::-1, ::-1].transpose(0, 1, 3, 2),
        (1, form.spread),
        pads,
        lhs_dilation=form.strides,
        dimension_numbers=LAYOUT,
        preferred_element_type=jnp.float32,
    )


def _grad_kernel(
    values: jax.Array, grad: jax.Array, shape: tuple[int, ...], form: Form
) -> jax.Array:
    """Compute the gradient of `_conv` for a kernel of a shape."""
    if form == FROM_PAIRS:
        # Even columns have the first and the third tap, odd ones the second and the fourth.
        parts = [
            _grad_kernel(values, grad[:, start::2], (3, 2), Form((1, 1), 1, ((1, 1), pads)))
            for start, pads in enumerate(((1, 0), (0, 1)))
        ]
        return jnp.stack(parts, axis=2).reshape(shape)
    sizes = zip(values.shape, shape, grad.shape, form.strides, form.pads, strict=False)
    pads = [
        (low, _span(outputs, stride) + taps - 1 - size - low)
        for size, taps, outputs, stride, (low, _) in sizes
    ]
    return lax.conv_general_dilated(
        values,
        grad,
        (1, 1),
        pads,
        rhs_dilation=form.strides,
        dimension_numbers=OVER_BATCH,
        preferred_element_type=jnp.float32,
    )


def _span(size: int, step: int) -> int:
    """Return the length of so many entries with a step between them."""
    return (size - 1) * step + 1


def _sum_pixels(values: jax.Array, kernel: jax.Array) -> jax.Array:
    """Sum packed images over all pixels, for each output of a kernel."""
    return values.sum((0, 1, 2)).reshape(-1, kernel.shape[3]).sum(0)
