"""Masked weights without the pruned ones: sparse matrices, N of every M, and kept values alone.

The sparse matrices are those of `jax.experimental.sparse`. They have the kept weights, and a kept
weight that is 0 stays one: the mask tells, not the value. (`BCOO.fromdense` drops zeros, and turns
bools into int32.)

A product with such a matrix has the same terms as one with the masked dense weights, summed in
another order: they differ by at most 1e-5 of the sum of the absolute terms in float32. Where both
factors have 16 bits, a dense product adds up in float32, but `jax.experimental.sparse` in 16 bits,
so that a sum of ones of bfloat16 stops at 256. Keep one of the factors in float32 then.

Examples:
  >>> params = {"kernel": jnp.array([[1.0, 0.0, 3.0], [4.0, 5.0, 6.0]]), "bias": jnp.zeros(3)}
  >>> mask = {"kernel": params["kernel"] < 4.0, "bias": jnp.ones(3, bool)}
  >>> prunable = {"kernel": True, "bias": False}
  >>> sparse = to_bcoo(mask, params, prunable)
  >>> sparse["kernel"]
  BCOO(float32[2, 3], nse=3)
  >>> (jnp.ones((1, 2)) @ sparse["kernel"] + sparse["bias"]).tolist()
  [[1.0, 0.0, 3.0]]
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse import BCOO, BCSR

from supermask_jax.checks import (
    check_integer,
    check_mask,
    check_prunable,
    check_structure,
    check_trees,
    concrete,
    dtype_of,
    own,
)
from supermask_jax.masks import apply
from supermask_jax.paths import Path, PyTree, path_name


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NOfM:
    """A leaf of which every `m` neighbours along axis -2 keep `n`.

    Attributes:
      values: the kept weights, `[..., in / m, n, out]`, in the order of the leaf.
      places: the place in its group of every value, uint8 `[..., in / m, n, out]`; two bits of
        each say it all if `m` is 4.
      m: the number of weights of a group.
    """

    values: jax.Array
    places: jax.Array
    m: int = dataclasses.field(metadata={"static": True})

    def todense(self) -> jax.Array:
        """Return the leaf `[..., in, out]`, with 0 where weights are pruned."""
        *start, number, _, outputs = self.values.shape
        groups = jnp.zeros((*start, number, self.m, outputs), self.values.dtype)
        places = self.places.astype(jnp.int32)
        groups = jnp.put_along_axis(groups, places, self.values, axis=-2, inplace=False)
        return groups.reshape(*start, number * self.m, outputs)


def to_bcoo(mask: PyTree, params: PyTree, prunable: PyTree) -> PyTree:
    """Return the kept weights as `BCOO`: a value, and an index for each axis, int32.

    Args:
      mask: bool `[...]` per leaf.
      params: `[...]` per leaf, of any type.
      prunable: from `trees.prunable_leaves`.

    Returns:
      The tree with `BCOO` `[...]` for every prunable leaf; `x @ leaf` is the product. Other leaves
      are as `masks.apply` returns them.

    Raises:
      ValueError: if trees or shapes differ.
      TypeError: if a leaf of the mask is not boolean, or has no values under `jit`, where the
        number of kept weights must be known.

    Examples:
      >>> leaf = to_bcoo(jnp.array([[True, True, False]]), jnp.array([[0.0, 2.0, 3.0]]), True)
      >>> leaf.data.tolist(), leaf.indices.tolist()
      ([0.0, 2.0], [[0, 0], [0, 1]])
    """
    return _map(_bcoo, mask, params, prunable)


def to_bcsr(mask: PyTree, params: PyTree, prunable: PyTree) -> PyTree:
    """Return the kept weights as `BCSR`, a row per output: a value and a column, int32.

    JAX multiplies this type only from the left. So a kernel `[..., in, out]` becomes a matrix
    `[out, ... in]`, whose product is `leaf @ x.T`.

    Args:
      mask: as in `to_bcoo`.
      params: as in `to_bcoo`; prunable leaves have two axes or more.
      prunable: as in `to_bcoo`.

    Returns:
      The tree with `BCSR` `[out, ... in]` for every prunable leaf; other leaves as in `to_bcoo`.

    Raises:
      ValueError: as in `to_bcoo`; also if a prunable leaf has less than two axes.
      TypeError: as in `to_bcoo`.

    Examples:
      >>> leaf = to_bcsr(jnp.array([[True], [False]]), jnp.array([[2.0], [3.0]]), True)
      >>> leaf
      BCSR(float32[1, 2], nse=1)
      >>> (leaf @ jnp.array([[10.0], [20.0]])).tolist()
      [[20.0]]
    """
    return _map(_bcsr, mask, params, prunable)


def to_n_of_m(mask: PyTree, params: PyTree, prunable: PyTree, n: int, m: int) -> PyTree:
    """Return weights of which `n` of every `m` are kept in the form of 2:4 sparsity.

    Groups are those of `masks.prune_n_m` along axis -2: the axis that a product sums over, for
    kernels `[..., in, out]`.

    Args:
      mask: as in `to_bcoo`, with exactly `n` weights in every group.
      params: as in `to_bcoo`; prunable leaves have two axes or more.
      prunable: as in `to_bcoo`.
      n: the number of weights that a group keeps.
      m: the number of weights of a group, at most 256; it divides axis -2.

    Returns:
      The tree with an `NOfM` for every prunable leaf, which has nothing of the pruned weights;
      other leaves as in `to_bcoo`.

    Raises:
      ValueError: as in `to_bcsr`; also if `m` does not divide the axis or a group keeps more or
        less than `n`; names the leaf.
      TypeError: as in `to_bcoo`.

    Examples:
      >>> mask = jnp.array([[True], [False], [False], [True]])
      >>> leaf = to_n_of_m(mask, jnp.array([[1.0], [2.0], [3.0], [4.0]]), True, n=2, m=4)
      >>> leaf.values.ravel().tolist(), leaf.places.ravel().tolist()
      ([1.0, 4.0], [0, 3])
      >>> leaf.todense().ravel().tolist()
      [1.0, 0.0, 0.0, 4.0]
    """
    n, m = check_integer("n", n, 1), check_integer("m", m, 1)
    if not n <= m <= 256:
        raise ValueError(f"n is {n} and m is {m}, expected n of every m, and m at most 256.")

    def convert(where: str, keep: np.ndarray, leaf: jax.Array) -> NOfM:
        return _n_of_m(where, keep, leaf, n, m)

    return _map(convert, mask, params, prunable)


def pack(mask: PyTree, params: PyTree, prunable: PyTree) -> PyTree:
    """Return the kept weights alone; with a file of the mask they take the least space on disk.

    Args:
      mask: as in `to_bcoo`.
      params: as in `to_bcoo`.
      prunable: as in `to_bcoo`.

    Returns:
      The tree with the kept weights `[K]`, in C order, for every prunable leaf; other leaves as in
      `to_bcoo`.

    Raises:
      ValueError: as in `to_bcoo`.
      TypeError: as in `to_bcoo`.

    Examples:
      >>> mask = jnp.array([[True, False], [False, True]])
      >>> packed = pack(mask, jnp.array([[1.0, 2.0], [3.0, 4.0]]), True)
      >>> packed.tolist(), unpack(mask, packed, True).tolist()
      ([1.0, 4.0], [[1.0, 0.0], [0.0, 4.0]])
    """
    return _map(lambda where, keep, leaf: leaf[keep], mask, params, prunable)


def unpack(mask: PyTree, packed: PyTree, prunable: PyTree) -> PyTree:
    """Return the masked weights of which `pack` has the kept ones.

    Args:
      mask: the mask that they were packed with.
      packed: from `pack`.
      prunable: as in `to_bcoo`.

    Returns:
      `[...]` per leaf, with 0 where weights are pruned.

    Raises:
      ValueError: if trees differ, or if a leaf has more or less weights than the mask keeps.
      TypeError: as in `to_bcoo`.
    """
    check_mask(mask)
    check_prunable(prunable, mask=mask)
    check_structure(mask=mask, packed=packed)
    check_trees(packed=packed)

    def one(path: Path, keep: jax.Array, leaf: jax.Array, yes: bool) -> jax.Array:
        if not yes:
            return leaf
        where, known = _known(path, keep)
        places = np.nonzero(known)
        if leaf.shape != places[0].shape:
            raise ValueError(
                f"{where} has {list(leaf.shape)} packed weights, but its mask keeps "
                f"{len(places[0])}; it is the mask of another ticket."
            )
        return jnp.zeros(known.shape, dtype_of(leaf)).at[places].set(leaf)

    return jax.tree_util.tree_map_with_path(one, mask, packed, prunable)


def _map(
    convert: Callable[[str, np.ndarray, jax.Array], Any],
    mask: PyTree,
    params: PyTree,
    prunable: PyTree,
) -> PyTree:
    """Convert the prunable leaves, each by its description, its mask and its weights."""
    check_mask(mask, params=params)
    check_prunable(prunable, params=params)

    def one(path: Path, keep: jax.Array, leaf: jax.Array, yes: bool) -> Any:
        return convert(*_known(path, keep), own(leaf)) if yes else apply(keep, leaf)

    return jax.tree_util.tree_map_with_path(one, mask, params, prunable)


def _known(path: Path, keep: jax.Array) -> tuple[str, np.ndarray]:
    where, known = f"leaf '{path_name(path)}' {list(keep.shape)}", concrete(keep)
    if known is None:
        raise TypeError(
            f"the mask of {where} is traced, and the number of its kept weights is not known; make "
            "the mask outside jit."
        )
    return where, known


def _bcoo(where: str, keep: np.ndarray, leaf: jax.Array) -> BCOO:
    indices = jnp.asarray(np.argwhere(keep), jnp.int32)
    kept = leaf[np.nonzero(keep)]
    return BCOO((kept, indices), shape=leaf.shape, indices_sorted=True, unique_indices=True)


def _bcsr(where: str, keep: np.ndarray, leaf: jax.Array) -> BCSR:
    _check_axes(where, leaf)
    outputs = leaf.shape[-1]
    flat = (math.prod(leaf.shape[:-1]), outputs)
    kept, matrix = keep.reshape(flat).T, leaf.reshape(flat).T
    rows, columns = np.nonzero(kept)
    starts = np.searchsorted(rows, np.arange(outputs + 1))
    indices, pointers = (jnp.asarray(x, jnp.int32) for x in (columns, starts))
    buffers = (matrix[rows, columns], indices, pointers)
    return BCSR(buffers, shape=matrix.shape, indices_sorted=True, unique_indices=True)


def _n_of_m(where: str, keep: np.ndarray, leaf: jax.Array, n: int, m: int) -> NOfM:
    _check_axes(where, leaf)
    *start, inputs, outputs = leaf.shape
    if inputs % m:
        raise ValueError(f"m is {m}, which does not divide the {inputs} inputs of {where}.")
    groups, kept = (x.reshape(*start, inputs // m, m, outputs) for x in (leaf, keep))
    wrong = kept.sum(axis=-2) != n
    if wrong.any():
        raise ValueError(
            f"{np.count_nonzero(wrong)} of the {wrong.size} groups of {where} keep more or less "
            f"than {n} of {m}; make the mask with masks.prune_n_m along axis -2."
        )
    places = np.argsort(~kept, axis=-2, kind="stable")[..., :n, :]
    values = jnp.take_along_axis(groups, places, axis=-2)
    return NOfM(values, jnp.asarray(places, jnp.uint8), m)


def _check_axes(where: str, leaf: jax.Array) -> None:
    if leaf.ndim < 2:
        raise ValueError(f"{where} has {leaf.ndim} axes, expected [..., in, out].")
