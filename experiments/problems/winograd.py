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


TWO = filtering((0, 1, -1))  # 16 products instead of 36
FOUR = filtering((0, 1, -1, 2, -2))  # 36 instead of 144
CHANNELS = 16  # with fewer, the sums cost more than the products that they save
BLOCK = 2560  # results per channel that are computed at once, so that their tiles stay in a cache
FLOAT_BYTES = 4  # the sums and differences of tiles need the digits of float32

Pads = tuple[tuple[int, int], ...]  # (before, after) for rows and for columns

# A matrix of arrays, which transforms multiply from both sides, is a list of its columns, with the
# arrays of each stacked along the first axis: one operation for many of them compiles faster.
Parts = list[jax.Array]


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
    form = _form(shape)
    weights = _transform(form.kernel, list(kernel), lambda rows: list(jnp.moveaxis(rows, 1, 0)))

    def convolve_block(images: jax.Array) -> jax.Array:
        products = map(operator.matmul, _tiles(form, images, pads), weights)
        return _join(form, list(products), len(images), shape)[:, :height, :width]

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
    form = _form(shape)

    def add(total: Parts, block: tuple[jax.Array, jax.Array]) -> tuple[Parts, None]:
        tiles, gradients = _tiles(form, block[0], pads), _split(form, block[1])
        products = map(_sum_over_tiles, tiles, gradients)
        return list(map(operator.add, total, products)), None

    side = len(form.tile)
    zeros = jnp.zeros((side, images.shape[-1], gradient.shape[-1]), gradient.dtype)
    total, _ = lax.scan(add, [zeros] * side, (_blocks(shape, images), _blocks(shape, gradient)))
    rows = jnp.stack(_mix(form.kernel.T, total), axis=1)
    return jnp.stack(_mix(form.kernel.T, list(rows)))


def pad(images: jax.Array, pads: Sequence[tuple[int, int]]) -> jax.Array:
    """Add zeros around images, or crop them where a pad is negative."""
    edges = ((0, 0, 0), *((before, after, 0) for before, after in pads), (0, 0, 0))
    return lax.pad(images, jnp.zeros((), images.dtype), edges)


def split_batch(images: jax.Array, most: int) -> jax.Array:
    """Split a batch into equal parts, the largest of at most `most` images."""
    count = max(n for n in range(1, most + 1) if len(images) % n == 0)
    return images.reshape(-1, count, *images.shape[1:])


def _result_shape(images: jax.Array, pads: Pads) -> tuple[int, int]:
    rows, columns = (
        size + sum(pad) - TAPS + 1 for size, pad in zip(images.shape[1:3], pads, strict=True)
    )
    return rows, columns


def _form(shape: tuple[int, ...]) -> Filtering:
    """Choose the larger tiles, unless few of them are needed, for their kernels are larger too."""
    return FOUR if min(shape) > FOUR.size else TWO


def _blocks(shape: tuple[int, ...], images: jax.Array) -> jax.Array:
    """Split a batch into equal parts of at most `BLOCK` results, or of one image."""
    return split_batch(images, max(1, BLOCK // math.prod(shape)))


def _transform(matrix: np.ndarray, rows: Parts, columns: Callable[[jax.Array], Parts]) -> Parts:
    """Return `matrix @ parts @ matrix.T`.

    Args:
      matrix: the matrix.
      rows: the parts of every row in one array.
      columns: divides such arrays, stacked along the first axis, into the parts of every column.
    """
    return _mix(matrix, columns(jnp.stack(_mix(matrix, rows))))


def _mix(matrix: np.ndarray, parts: Parts) -> Parts:
    """Return `matrix @ parts`; most entries of a matrix are 0 or 1."""

    def mix(weights: list[float]) -> jax.Array:
        pairs = zip(weights, parts, strict=True)
        return functools.reduce(operator.add, [x if w == 1 else w * x for w, x in pairs if w])

    # Numbers of NumPy, unlike those of Python, would change the type where x64 is enabled.
    return [mix(weights) for weights in matrix.tolist()]


def _tiles(form: Filtering, images: jax.Array, pads: Pads) -> Parts:
    """Transform the overlapping tiles of images; each part is `[tiles, C]`."""
    counts = [math.ceil(size / form.size) for size in _result_shape(images, pads)]
    ends = [
        form.size * count + TAPS - 1 - size - before
        for count, size, (before, _) in zip(counts, images.shape[1:3], pads, strict=True)
    ]
    padded = pad(images, [(before, end) for (before, _), end in zip(pads, ends, strict=True)])

    def every(array: jax.Array, axis: int, count: int) -> Parts:
        last = form.size * (count - 1) + 1
        return [
            lax.slice_in_dim(array, start, start + last, form.size, axis)
            for start in range(len(form.tile))
        ]

    tiles = _transform(
        form.tile, every(padded, 1, counts[0]), lambda rows: every(rows, 3, counts[1])
    )
    return _flatten(tiles)


def _split(form: Filtering, images: jax.Array) -> Parts:
    """Transform gradients in tiles that do not overlap; each part is `[tiles, C]`."""
    size = form.size
    filled = pad(images, [(0, -length % size) for length in images.shape[1:3]])
    tiles = _transform(
        form.results.T,
        [filled[:, i::size] for i in range(size)],
        lambda rows: [rows[:, :, :, j::size] for j in range(size)],
    )
    return _flatten(tiles)


def _join(form: Filtering, parts: Parts, batch: int, shape: tuple[int, ...]) -> jax.Array:
    """Transform products of tiles and join the results to images that `shape` fits into."""
    counts = [math.ceil(length / form.size) for length in shape]
    tiles = [part.reshape(len(part), batch, *counts, -1) for part in parts]
    rows = jnp.stack(_mix(form.results, tiles), axis=4)
    joined = jnp.stack(_mix(form.results, list(rows)), axis=2)
    height, width = (form.size * count for count in counts)
    return joined.reshape(batch, height, width, -1)


def _flatten(parts: Parts) -> Parts:
    return [part.reshape(len(part), -1, part.shape[-1]) for part in parts]


def _sum_over_tiles(tiles: jax.Array, gradients: jax.Array) -> jax.Array:
    """Return the products of channels, `[parts, in, out]`, summed over tiles."""
    return lax.dot_general(tiles, gradients, (((1,), (1,)), ((0,), (0,))))
