"""Structured pruning: N of every M neighbours, and groups such as units, channels and blocks.

`masks` offers these functions. Their masks are masks like any other: they can be saved, intersected
and pruned further.

Examples:
  >>> from supermask_jax import masks
  >>> scores = {"kernel": jnp.array([[4.0, 1.0], [3.0, 2.0], [2.0, 3.0], [1.0, 4.0]])}
  >>> prunable = {"kernel": True}
  >>> mask = prune_n_m(
  ...     jax.random.key(0), scores, masks.ones(scores), prunable, n=2, m=4, axis=0)
  >>> mask["kernel"].T.tolist()
  [[True, True, False, False], [False, False, True, True]]
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from supermask_jax.checks import (
    check_count,
    check_integer,
    check_mask,
    check_prunable,
    check_scores,
    check_structure,
    own,
    shown,
    widened,
)
from supermask_jax.paths import Path, PyTree, path_name
from supermask_jax.selection import highest, highest_of_each
from supermask_jax.shardings import join_axis, sharded_as, split_axis
from supermask_jax.trees import Key, leaf_keys


def prune_n_m(
    key: Key,
    scores: PyTree,
    mask: PyTree,
    prunable: PyTree,
    *,
    n: int | jax.Array,
    m: int,
    axis: PyTree,
) -> PyTree:
    """Keep the `n` highest-scored of every `m` neighbours along an axis: 2:4 sparsity, for example.

    Groups start at the multiples of `m`. Hardware for 2:4 sparsity wants them along the axis that a
    matrix product sums over: -2 for kernels of flax `[..., in, out]`, -1 for those of equinox dense
    layers `[out, in]`. See Mishra et al. 2021, "Accelerating sparse deep neural networks".

    Args:
      key: breaks ties at random.
      scores: `[...]` per leaf; the highest are kept. Under `jit`, NaN ranks last.
      mask: bool `[...]` per leaf, the weights kept so far.
      prunable: from `trees.prunable_leaves`; the masks of other leaves do not change.
      n: the number of weights to keep in every group, at most `m`, Python or traced. If it is `m`,
        no mask changes, whatever the scores.
      m: the number of weights of a group; it divides the length of the axis.
      axis: the axis of the leaves along which groups lie, one int for all or one per leaf.

    Returns:
      The new mask, a subset of `mask`. A group with fewer than `n` weights left keeps all of them.

    Raises:
      ValueError: if trees or shapes differ, if `n` is negative or more than `m`, if a prunable leaf
        has no such axis or one that `m` does not divide, or, outside `jit`, if the score of a kept
        weight is NaN or infinite; names the leaf.
      TypeError: as `masks.prune`.

    Examples:
      >>> scores, mask = jnp.array([[4.0, 3.0, 2.0, 1.0]]), jnp.array([[True, True, False, True]])
      >>> prune_n_m(jax.random.key(0), scores, mask, True, n=1, m=2, axis=-1).tolist()
      [[True, False, False, True]]
    """
    check_mask(mask, scores=scores)
    check_prunable(prunable, scores=scores)
    m = check_integer("m", m, 1)
    count, is_known = check_count("n", n, m)
    if is_known and n > m:
        raise ValueError(f"n is {n}, more than m, which is {m}.")
    if jax.tree.structure(axis) == jax.tree.structure(0):
        axis = jax.tree.map(lambda _: axis, prunable)
    check_structure(scores=scores, axis=axis)

    def prune_one(
        path: Path, key: Key, score: jax.Array, kept: jax.Array, yes: bool, axis: Any
    ) -> jax.Array:
        if not yes:
            return own(kept)
        where = f"leaf '{path_name(path)}'"
        place = _axis_of(where, axis, kept)
        _check_divides(where, axis, kept.shape[place], m, "m")
        if is_known and count == m:
            return own(kept)
        check_scores(where, score, kept, finite=is_known)
        return _prune_n_m(key, score, kept, count, place, m)

    keys = leaf_keys(key, scores)
    return jax.tree_util.tree_map_with_path(prune_one, keys, scores, mask, prunable, axis)


def prune_groups(
    key: Key,
    scores: PyTree,
    mask: PyTree,
    num_keep: PyTree,
    prunable: PyTree,
    *,
    axes: int | Sequence[int],
    block: int | Sequence[int] = 1,
) -> PyTree:
    """Keep the highest-scored groups of weights of every leaf, and prune the others as a whole.

    A group has the weights with the same index along `axes`: axis -1 of a kernel `[..., in, out]`
    gives units and filters, -2 input channels, (-2, -1) the windows of a convolution. With `block`,
    it has those of that many neighbouring indices along each axis: axes (-2, -1) with block (4, 4)
    give tiles of 4 x 4.

    The score of a group is the sum of the scores of its kept weights. With `criteria.large_final`
    this is the L1 norm of Li et al. 2017, "Pruning filters for efficient ConvNets"; with squares of
    weights it is the L2 norm. Sums that overflow are infinite.

    The bias of a pruned unit is another leaf and is not touched: the unit outputs a constant, as
    its bias tells, and this bias still trains. To remove the unit, prune its bias as in the
    example: it then stays at its fill, which is 0 by default.

    Args:
      key: breaks ties at random.
      scores: `[...]` per leaf; the groups with the highest sums are kept. Under `jit`, NaN ranks
        last.
      mask: bool `[...]` per leaf, the weights kept so far.
      num_keep: the number of groups to keep, an int per leaf, Python or traced. If it is the number
        of groups of the leaf or more, its mask does not change, whatever the scores.
      prunable: from `trees.prunable_leaves`; the masks of other leaves do not change, and their
        `num_keep` is not looked at. To prune leaves along different axes, call once for each kind.
      axes: the axis or axes that tell groups apart.
      block: the number of neighbouring indices of a group, for all of these axes or for each.

    Returns:
      The new mask, a subset of `mask`. A group without kept weights is pruned already; if fewer
      than `num_keep` groups are left, all of them are kept.

    Raises:
      ValueError: if trees or shapes differ, if a number is negative, if a prunable leaf has no such
        axis or one that `block` does not divide, if an axis is named twice, or, outside `jit`, if
        the score of a kept weight is NaN or infinite in a leaf that is pruned; names the leaf.
      TypeError: as `masks.prune`.

    Examples:
      >>> scores = {"kernel": jnp.array([[4.0, 1.0, 3.0], [1.0, 1.0, 1.0]]), "bias": jnp.ones(3)}
      >>> mask = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), scores)
      >>> prunable = {"kernel": True, "bias": False}
      >>> num_keep = {"kernel": 2, "bias": 3}
      >>> mask = prune_groups(jax.random.key(0), scores, mask, num_keep, prunable, axes=-1)
      >>> mask["kernel"].tolist()
      [[True, False, True], [True, False, True]]
      >>> mask["bias"] &= mask["kernel"].any(axis=0)  # all axes but those of the units
      >>> mask["bias"].tolist()
      [True, False, True]
    """
    check_mask(mask, scores=scores)
    check_prunable(prunable, scores=scores)
    check_structure(scores=scores, num_keep=num_keep)
    axes = tuple(axes) if isinstance(axes, Sequence) else (axes,)
    blocks = tuple(block) if isinstance(block, Sequence) else (block,) * len(axes)
    if not axes or len(blocks) != len(axes):
        raise ValueError(
            f"axes is {shown(axes)} and block is {shown(block)}, expected one axis or more, and "
            "one block size for all axes or for each."
        )
    blocks = tuple(check_integer("block", size, 1) for size in blocks)

    def prune_one(
        path: Path, key: Key, score: jax.Array, kept: jax.Array, num_keep: Any, yes: bool
    ) -> jax.Array:
        if not yes:
            return own(kept)
        where = f"leaf '{path_name(path)}'"
        size_of = _block_of_each_axis(where, axes, blocks, kept)
        num_groups = 1
        for place, size in size_of.items():
            num_groups *= kept.shape[place] // size
        count, is_known = check_count(f"num_keep of {where}", num_keep, num_groups)
        if is_known and count == num_groups:
            return own(kept)
        check_scores(where, score, kept, finite=is_known)
        return _prune_groups(key, score, kept, count, tuple(size_of.items()))

    keys = leaf_keys(key, scores)
    return jax.tree_util.tree_map_with_path(prune_one, keys, scores, mask, num_keep, prunable)


@functools.partial(jax.jit, static_argnames=("axis", "m"))
def _prune_n_m(
    key: Key, scores: jax.Array, mask: jax.Array, n: jax.Array, axis: int, m: int
) -> jax.Array:
    return highest_of_each(key, scores, mask, axis, m, n)


@functools.partial(jax.jit, static_argnames="blocks")
def _prune_groups(
    key: Key,
    scores: jax.Array,
    mask: jax.Array,
    num_keep: jax.Array,
    blocks: tuple[tuple[int, int], ...],
) -> jax.Array:
    """Keep the highest-scored groups of one leaf; `blocks` has pairs (axis, size), in order."""
    split, score = mask, widened(scores)
    for axis, size in reversed(blocks):
        split, score = (split_axis(leaf, axis, size) for leaf in (split, score))
    between = [axis + i for i, (axis, _) in enumerate(blocks)]  # the axes that tell groups apart
    within = [axis for axis in range(split.ndim) if axis not in between]
    total = jnp.sum(score, axis=within, where=split)
    (chosen,) = highest(key, [total], [split.any(axis=within)], num_keep)
    new = split & jnp.expand_dims(chosen, within)
    for axis, _ in blocks:
        new = join_axis(new, axis)
    return sharded_as(new, mask)


def _block_of_each_axis(
    where: str, axes: Sequence[int], blocks: Sequence[int], leaf: jax.Array
) -> dict[int, int]:
    """Return the block sizes of a leaf by its axes, in ascending order."""
    size_of: dict[int, int] = {}
    for axis, size in zip(axes, blocks, strict=True):
        place = _axis_of(where, axis, leaf)
        if place in size_of:
            raise ValueError(f"axes is {shown(axes)}, which names axis {place} of {where} twice.")
        _check_divides(where, axis, leaf.shape[place], size, "block")
        size_of[place] = size
    return dict(sorted(size_of.items()))


def _axis_of(where: str, axis: Any, leaf: jax.Array) -> int:
    """Return the axis of a leaf, counted from the first."""
    number = check_integer(f"the axis of {where}", axis, -leaf.ndim)
    if number >= leaf.ndim:
        raise ValueError(f"{where} of shape {list(leaf.shape)} has no axis {number}.")
    return number % leaf.ndim


def _check_divides(where: str, axis: int, length: int, size: int, name: str) -> None:
    if length % size:
        raise ValueError(
            f"{name} is {size}, which does not divide the length {length} of axis {axis} of "
            f"{where}; choose another one, or set the leaf to False in prunable."
        )
