"""Convolutions of 3x3 kernels with less than half of the products, by minimal filtering.

A tile of `m` results of a filter of three needs `m + 2` products instead of `3 m`: the tile and the
filter are polynomials, whose product follows from its values at `m + 1` points and at infinity. For
images this holds along both axes (Lavin and Gray 2016, https://arxiv.org/abs/1509.09308). The sums
around the products, for every channel rather than every pair of them, are the price.

Axes: `B` batch, `H` height, `W` width, `C` channels. Images are `[B, H, W, C]`, kernels
`[3, 3, in, out]`.
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

TAPS = 3  # entries of a filter


class Filtering(NamedTuple):
    """The matrices that compute `m` results of a filter, `results @ ((kernel @ f) * (tile @ t))`.

    Attributes:
      tile: `[m + 2, m + 2]`, of what the results need of the image.
      kernel: `[m + 2, 3]`, of the filter.
      results: `[m, m + 2]`.
    """

    tile: np.ndarray
    kernel: np.ndarray
    results: np.ndarray

    @property
    def size(self) -> int:
        """The number of results, `m`."""
        return len(self.results)


def filtering(points: Sequence[int]) -> Filtering:
    """Return the matrices of `len(points) - 1` results.

    Args:
      points: where the polynomials are evaluated, besides infinity.

    Examples:
      >>> tile, kernel, results = filtering((0, 1, -1))
      >>> results @ ((kernel @ [1, 2, 3]) * (tile @ [1, 0, 0, 1]))
      array([1., 3.])
    """
    numbers = np.asarray(points, float)
    others = [np.delete(numbers, i) for i in range(len(numbers))]
    tile = [[*np.poly(roots)[::-1], 0] for roots in others] + [np.poly(numbers)[::-1]]
    scales = [np.prod(x - roots) for x, roots in zip(numbers, others, strict=True)]
    kernel = np.vander(numbers, TAPS, increasing=True) / np.reshape(scales, (-1, 1))
    results = np.vander(numbers, len(numbers) - 1, increasing=True).T
    return Filtering(
        np.array(tile),
        np.vstack([kernel, np.eye(TAPS)[-1]]),
        np.column_stack([results, np.eye(len(results))[-1]]),
    )


TWO = filtering((0, 1, -1))  # 16 products instead of 36, as exact as the plain sum
FOUR = filtering((0, 1, -1, 2, -2))  # 36 instead of 144
CHANNELS = 16  # with fewer, the sums cost more than the products that they save
BLOCK = 2560  # results per channel that are computed at once, so that their tiles stay in a cache
FLOAT_BYTES = 4  # the sums and differences of tiles need the digits of float32

Pads = tuple[tuple[int, int], ...]  # (before, after) for rows and for columns
Parts = Sequence[Sequence[jax.Array]]  # a matrix whose entries are arrays of one shape


def suits(images: jax.Array, kernel: jax.Array, pads: Pads) -> bool:
    """Return whether a CPU convolves faster in this way, and exactly enough.

    Args:
      images: `[B, H, W, in]`.
      kernel: `[height, width, in, out]`.
      pads: as for `convolve`.
    """
    if kernel.shape[:2] != (TAPS, TAPS) or min(kernel.shape[2:]) < CHANNELS:
        return False
    is_exact = images.dtype == kernel.dtype and images.dtype.itemsize >= FLOAT_BYTES
    return is_exact and min(_result_shape(images, pads)) > 0


def convolve(images: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """Convolve images with a kernel.

    Args:
      images: `[B, H, W, in]`.
      kernel: `[3, 3, in, out]`.
      pads: zeros around the images, before and after rows and columns.
    """
    height, width = shape = _result_shape(images, pads)
    weights = _transform(TWO.kernel, [list(row) for row in kernel])

    def convolve_block(images: jax.Array) -> jax.Array:
        products = _map_parts(operator.matmul, _tiles(TWO, images, pads), weights)
        return _join(_transform(TWO.results, products))[:, :height, :width]

    results = lax.map(convolve_block, _blocks(shape, images))
    return results.reshape(-1, *results.shape[2:])


def kernel_gradient(images: jax.Array, gradient: jax.Array, pads: Pads) -> jax.Array:
    """Compute the gradient of the kernel, `[3, 3, in, out]`.

    Args:
      images: `[B, H, W, in]`.
      gradient: of the results of `convolve`, `[B, height, width, out]`.
      pads: as for `convolve`.
    """
    shape = gradient.shape[1:3]
    form = FOUR if min(shape) > FOUR.size else TWO

    def add(total: Parts, block: tuple[jax.Array, jax.Array]) -> tuple[Parts, None]:
        gradients = _transform(form.results.T, _split(form.size, block[1]))
        products = _map_parts(_sum_over_tiles, _tiles(form, block[0], pads), gradients)
        return _map_parts(operator.add, total, products), None

    zeros = jnp.zeros((images.shape[-1], gradient.shape[-1]), gradient.dtype)
    start = [[zeros] * len(row) for row in form.tile]
    blocks = _blocks(shape, images), _blocks(shape, gradient)
    total, _ = lax.scan(add, start, blocks)
    return jnp.stack([jnp.stack(row) for row in _transform(form.kernel.T, total)])


def _result_shape(images: jax.Array, pads: Pads) -> tuple[int, int]:
    rows, columns = (
        size + sum(pad) - TAPS + 1 for size, pad in zip(images.shape[1:3], pads, strict=True)
    )
    return rows, columns


def _blocks(shape: tuple[int, ...], images: jax.Array) -> jax.Array:
    """Split a batch into equal parts of at most `BLOCK` results, or of one image."""
    most = max(1, BLOCK // math.prod(shape))
    count = max(n for n in range(1, most + 1) if len(images) % n == 0)
    return images.reshape(-1, count, *images.shape[1:])


def _tiles(form: Filtering, images: jax.Array, pads: Pads) -> Parts:
    """Transform the overlapping tiles of images; each part is `[B, rows, columns, C]`."""
    rows, columns = (math.ceil(size / form.size) for size in _result_shape(images, pads))
    ends = [
        form.size * count + TAPS - 1 - size - before
        for count, size, (before, _) in zip((rows, columns), images.shape[1:3], pads, strict=True)
    ]
    padded = _pad(images, [(before, end) for (before, _), end in zip(pads, ends, strict=True)])
    parts = [
        [_every(form.size, padded, (i, j), (rows, columns)) for j in range(len(form.tile))]
        for i in range(len(form.tile))
    ]
    return _transform(form.tile, parts)


def _every(step: int, images: jax.Array, start: tuple[int, int], count: tuple[int, int]):
    """Take `count` rows and columns from `start`, a step apart."""
    rows, columns = (
        slice(s, s + step * (n - 1) + 1, step) for s, n in zip(start, count, strict=True)
    )
    return images[:, rows, columns]


def _pad(images: jax.Array, pads: Sequence[tuple[int, int]]) -> jax.Array:
    """Add zeros around images, or crop them where a pad is negative."""
    edges = ((0, 0, 0), *((before, after, 0) for before, after in pads), (0, 0, 0))
    return lax.pad(images, jnp.zeros((), images.dtype), edges)


def _split(size: int, images: jax.Array) -> Parts:
    """Split images into tiles of `size` rows and columns that do not overlap."""
    filled = _pad(images, [(0, -length % size) for length in images.shape[1:3]])
    return [[filled[:, i::size, j::size] for j in range(size)] for i in range(size)]


def _join(parts: Parts) -> jax.Array:
    """Join tiles that do not overlap to images, `[B, height, width, C]`."""
    tiles = jnp.stack([jnp.stack(row, axis=3) for row in parts], axis=2)
    batch, rows, height, columns, width, channels = tiles.shape
    return tiles.reshape(batch, rows * height, columns * width, channels)


def _sum_over_tiles(tiles: jax.Array, gradients: jax.Array) -> jax.Array:
    """Return the products of channels, `[in, out]`, summed over images, rows and columns."""
    rows, columns = (x.reshape(-1, x.shape[-1]) for x in (tiles, gradients))
    return lax.dot_general(rows, columns, (((0,), (0,)), ((), ())))


def _map_parts(function: Callable[..., jax.Array], *matrices: Parts) -> Parts:
    return [
        [function(*parts) for parts in zip(*rows, strict=True)]
        for rows in zip(*matrices, strict=True)
    ]


def _transform(matrix: np.ndarray, parts: Parts) -> Parts:
    """Return `matrix @ parts @ matrix.T`."""
    rows = [[_mix(weights, column) for column in zip(*parts, strict=True)] for weights in matrix]
    return [[_mix(weights, row) for weights in matrix] for row in rows]


def _mix(weights: Sequence[float], parts: Sequence[jax.Array]) -> jax.Array:
    """Sum parts with weights, most of which are 0 or 1."""
    terms = [w * part if w != 1 else part for w, part in zip(weights, parts, strict=True) if w]
    return functools.reduce(operator.add, terms)
