"""Convolutions and pooling with gradients that are faster than those of XLA.

Axes: `B` batch, `H` height, `W` width, `C` channels. Images are `[B, H, W, C]`, kernels
`[height, width, in, out]`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from experiments.problems import winograd
from experiments.problems.winograd import Pads

Convolve = Callable[[jax.Array, jax.Array, Pads], jax.Array]  # of images and a kernel

LAYOUT = ("NHWC", "HWIO", "NHWC")
GRAD_BLOCK = 5  # images; the transposes of more do not fit into the cache of a core


def max_pool(images: jax.Array) -> jax.Array:
    """Pool 2x2 blocks of `[B, H, W, C]` to `[B, H // 2, W // 2, C]`.

    An odd last row or column is dropped. The gradient is a comparison, while that of `nn.max_pool`
    is a scatter, which is many times slower on a CPU. Tied pixels share the gradient; `nn.max_pool`
    gives it to the first of them.

    Args:
      images: `[B, H, W, C]`.
    """
    batch, height, width, channels = images.shape
    rows, columns = height // 2, width // 2
    whole = images[:, : 2 * rows, : 2 * columns]
    return whole.reshape(batch, rows, 2, columns, 2, channels).max((2, 4))


def canonical_conv(*args: Any, **options: Any) -> jax.Array:
    """Compute `lax.conv_general_dilated`, with gradients that are fast in a loop on a CPU.

    XLA's fast CPU convolution takes only NHWC images and HWIO kernels. `lax` writes the weight
    gradient in another layout, which XLA does not convert inside a loop; this makes a training step
    tens of times slower (jax-ml/jax#12868). Here, both gradients are NHWC/HWIO convolutions.
    Reverse mode and forward-over-reverse mode work; forward mode alone does not.

    Use it as `nn.Conv(..., conv_general_dilated=canonical_conv)`. With strides, all pixels are made
    and some of them kept: more arithmetic, but not the slow gradient. Calls with dilations,
    groups, other layouts or other options go to `lax` unchanged.

    Args:
      args: as for `lax.conv_general_dilated`.
      options: as for `lax.conv_general_dilated`.
    """
    return _unless_general(_canonical, *args, **options)


def winograd_conv(*args: Any, **options: Any) -> jax.Array:
    """Compute `canonical_conv`, and kernels of 3x3 with less than half of its products.

    This is for 3x3 kernels between many channels, in float32 or better. Results and gradients have
    errors of about 1e-5 of their largest entry. See `winograd`.

    Args:
      args: as for `lax.conv_general_dilated`.
      options: as for `lax.conv_general_dilated`.
    """
    return _unless_general(_fewest_products, *args, **options)


def shifted_conv(*args: Any, **options: Any) -> jax.Array:
    """Compute `lax.conv_general_dilated` as one matrix product of shifted images.

    Under `vmap` over kernels, it becomes batched matrix products. `lax` would compute a grouped
    convolution, whose gradient is slow on GPUs (jax-ml/jax#13800). The price is memory: one copy of
    the images per height and width entry of the kernel. Strides and other options are treated as by
    `canonical_conv`.

    Args:
      args: as for `lax.conv_general_dilated`.
      options: as for `lax.conv_general_dilated`.
    """
    return _unless_general(_product_of_shifted, *args, **options)


def _unless_general(
    conv: Convolve,
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    **options: Any,
) -> jax.Array:
    """Call `conv(images, kernel, pads)` for convolutions without options, and `lax` for others."""
    dilations = {*(lhs_dilation or ()), *(rhs_dilation or ())}
    asks_more = any(value not in (None, 1) for value in options.values())
    if asks_more or dilations - {1} or not _has_layout(lhs, rhs, dimension_numbers):
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            **options,
        )
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], window_strides, padding)
    result = conv(lhs, rhs, tuple((low, high) for low, high in padding))
    rows, columns = window_strides
    return result if rows == columns == 1 else result[:, ::rows, ::columns]


def _has_layout(lhs: jax.Array, rhs: jax.Array, dimension_numbers: Any) -> bool:
    if lhs.ndim != 4:
        return False
    asked = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    return asked == lax.conv_dimension_numbers(lhs.shape, rhs.shape, LAYOUT)


def _plain_conv(images: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    return lax.conv_general_dilated(images, kernel, (1, 1), pads, dimension_numbers=LAYOUT)


def _kernel_gradient(images: jax.Array, grad: jax.Array, pads: Pads) -> jax.Array:
    """Compute the kernel gradient in blocks of images whose transposes stay in the cache."""
    blocks = winograd.split_batch(images, GRAD_BLOCK), winograd.split_batch(grad, GRAD_BLOCK)

    def add(total: jax.Array, block: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        # The gradient sums over images and places, so the batch becomes the input channels.
        channels_as_batch = block[0].transpose(3, 1, 2, 0)
        batch_as_inputs = block[1].transpose(1, 2, 0, 3)
        return total + _plain_conv(channels_as_batch, batch_as_inputs, pads), None

    sizes = zip(images.shape[1:3], pads, grad.shape[1:3], strict=True)
    height, width = (size + sum(pad) - results + 1 for size, pad, results in sizes)
    zeros = jnp.zeros((images.shape[-1], height, width, grad.shape[-1]), grad.dtype)
    return lax.scan(add, zeros, blocks)[0].transpose(1, 2, 0, 3)


def _differentiable(conv: Convolve, kernel_gradient: Convolve) -> Convolve:
    """Give `conv` gradients that it computes itself, or `kernel_gradient`."""

    def forward(images: jax.Array, kernel: jax.Array, pads: Pads):
        return conv(images, kernel, pads), (images, kernel)

    def backward(pads: Pads, saved: tuple[jax.Array, jax.Array], grad: jax.Array):
        images, kernel = saved
        mirrored = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
        mirrored_pads = tuple(
            (size - 1 - low, size - 1 - high)
            for size, (low, high) in zip(kernel.shape, pads, strict=False)
        )
        return conv(grad, mirrored, mirrored_pads), kernel_gradient(images, grad, pads)

    compute = jax.custom_vjp(conv, nondiff_argnums=(2,))
    compute.defvjp(forward, backward)
    return compute


_canonical = _differentiable(_plain_conv, _kernel_gradient)
_filtered = _differentiable(winograd.convolve, winograd.kernel_gradient)


def _fewest_products(images: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    conv = _filtered if winograd.suits(images, kernel, pads) else _canonical
    return conv(images, kernel, pads)


def _product_of_shifted(images: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    height, width, _, outputs = kernel.shape
    padded = winograd.pad(images, pads)
    rows, columns = padded.shape[1] - height + 1, padded.shape[2] - width + 1
    shifted = [
        padded[:, i : i + rows, j : j + columns] for i in range(height) for j in range(width)
    ]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, outputs)


def convolve(lhs: jax.Array, rhs: jax.Array, *args: Any, **options: Any) -> jax.Array:
    """Compute `winograd_conv` on a CPU and `lax.conv_general_dilated` elsewhere.

    Args:
      lhs: as for `lax.conv_general_dilated`.
      rhs: as for `lax.conv_general_dilated`.
      args: as for `lax.conv_general_dilated`.
      options: as for `lax.conv_general_dilated`.
    """

    def on_cpu(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
        return winograd_conv(lhs, rhs, *args, **options)

    def elsewhere(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(lhs, rhs, *args, **options)

    return by_platform(elsewhere, cpu=on_cpu)(lhs, rhs)


def by_platform(default: Callable[..., Any], **of_platforms: Callable[..., Any]) -> Callable:
    """Return a function that is computed by the code of the platform that it is compiled for.

    The platform is known when a program is lowered for its devices, so a program that is compiled
    for devices elsewhere has the code of those. `lax.platform_dependent` alone would keep what the
    gradients of all platforms need; here, every gradient is that of its own platform, from the
    arguments. Reverse mode and forward-over-reverse mode work; forward mode alone does not.

    Args:
      default: the function on other platforms, of arrays alone.
      of_platforms: functions of the same arguments and results, by the name of the platform.

    >>> square = by_platform(lambda x: x * x, cpu=lambda x: x**2)
    >>> float(jax.grad(square)(3.0))
    6.0
    """

    @jax.custom_vjp
    def compute(*args: jax.Array) -> Any:
        return lax.platform_dependent(*args, default=default, **of_platforms)

    def on_every(change: Callable[[Callable], Callable], *args: Any) -> Any:
        changed = {name: change(function) for name, function in of_platforms.items()}
        return lax.platform_dependent(*args, default=change(default), **changed)

    def forward(*args: jax.Array) -> tuple[Any, tuple[jax.Array, ...]]:
        # The value by the rule of reverse mode: that of `jax.custom_vjp` has no forward mode.
        return on_every(lambda f: lambda *args: jax.vjp(f, *args)[0], *args), args

    def backward(args: tuple[jax.Array, ...], grad: Any) -> tuple[jax.Array, ...]:
        return on_every(lambda f: lambda g, *args: jax.vjp(f, *args)[1](g), grad, *args)

    compute.defvjp(forward, backward)
    return compute
