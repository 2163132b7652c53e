"""Masks: trees of bools `[...]`, True for kept weights; how to make, apply and compare them.

Leaves that are not prunable have a mask of ones. Counts are exact, ties are broken at random, and a
pruned weight never returns. Here `prune` ranks each leaf by itself and `prune_global` all leaves
together; `prune_n_m` and `prune_groups` are described in `structured`.

Examples:
  >>> params = {"kernel": jnp.array([[3.0, -1.0], [0.5, 2.0]]), "bias": jnp.zeros(2)}
  >>> mask = prune(jax.random.key(0), params, ones(params), {"kernel": 2, "bias": 2})
  >>> mask["kernel"].tolist()
  [[True, False], [False, True]]
  >>> apply(mask, params)["kernel"].tolist()
  [[3.0, 0.0], [0.0, 2.0]]
  >>> float(density(mask, {"kernel": True, "bias": False}))
  0.5
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from supermask_jax.checks import (
    check_count,
    check_integer,
    check_mask,
    check_masks,
    check_prunable,
    check_scores,
    check_shaped,
    check_structure,
    check_trees,
    dtype_of,
    own,
    warn_of_lost_leaves,
    widest,
)
from supermask_jax.paths import Path, PyTree, path_name
from supermask_jax.selection import highest
from supermask_jax.structured import prune_groups as prune_groups
from supermask_jax.structured import prune_n_m as prune_n_m
from supermask_jax.trees import Key, leaf_keys, num_prunable

MOST_COUNTED = 2**31 - 1  # weights that an int32 can count
FLOORS = 1  # plus the index of a leaf: folded into the key, to break ties among its best weights


def ones(params: PyTree) -> PyTree:
    """Make the mask that keeps everything.

    Args:
      params: arrays or `jax.ShapeDtypeStruct`s `[...]`.

    Returns:
      Bools `[...]` per leaf, all True.

    Raises:
      TypeError: if a leaf is not an array.

    Examples:
      >>> ones({"bias": jnp.zeros(2)})["bias"].tolist()
      [True, True]
    """
    check_shaped(params=params)
    return jax.tree.map(lambda w: jnp.ones_like(w, bool), params)


def prune(key: Key, scores: PyTree, mask: PyTree, num_keep: PyTree) -> PyTree:
    """Keep the highest-scored weights of every leaf among those that `mask` keeps.

    This is layer-wise pruning as in Zhou et al. 2019: each leaf is ranked by itself. Nothing is
    sorted (see `selection`), and sharded leaves stay where they are.

    Args:
      key: breaks ties at random.
      scores: `[...]` per leaf; the highest are kept. Under `jit`, NaN ranks last.
      mask: bool `[...]` per leaf, the weights kept so far.
      num_keep: the number of weights to keep, an int per leaf, Python or traced (so that one
        compiled program serves all rounds). If the number is the size of the leaf or more, its mask
        does not change, whatever the scores.

    Returns:
      The new mask, a subset of `mask`. If fewer than `num_keep` weights are left, all of them are
      kept.

    Raises:
      ValueError: if trees or shapes differ, if a number is negative, or, outside `jit`, if the
        score of a kept weight is NaN or infinite in a leaf that is pruned; names the leaf.
      TypeError: if a leaf is not an array, if a number is not an integer, or if `key` is not a
        typed key.

    Examples:
      >>> scores = jnp.array([3.0, 1.0, 2.0, 4.0])
      >>> prune(jax.random.key(0), scores, jnp.array([True, True, True, False]), 2).tolist()
      [True, False, True, False]
    """
    check_mask(mask, scores=scores)
    check_structure(scores=scores, num_keep=num_keep)

    def prune_one(
        path: Path, key: Key, score: jax.Array, kept: jax.Array, num_keep: Any
    ) -> jax.Array:
        where = f"leaf '{path_name(path)}'"
        count, is_known = check_count(f"num_keep of {where}", num_keep, kept.size)
        if is_known and count == kept.size:
            return own(kept)
        check_scores(where, score, kept, finite=is_known)
        return _prune_leaves(key, [score], [kept], count)[0]

    keys = leaf_keys(key, scores)
    return jax.tree_util.tree_map_with_path(prune_one, keys, scores, mask, num_keep)


def prune_many(key: Key, scores: PyTree, mask: PyTree, num_keep: PyTree) -> PyTree:
    """Make a mask for each of several numbers of weights to keep, from one ranking.

    The masks are those of `prune` for each number with the same key, so a mask of fewer weights is
    a subset of one of more.

    Args:
      key: breaks ties at random.
      scores: `[...]` per leaf; the highest are kept. Under `jit`, NaN ranks last.
      mask: bool `[...]` per leaf, the weights kept so far.
      num_keep: the numbers of weights to keep, an array of integers `[N]` per leaf, traced or not.

    Returns:
      Masks `[N, ...]` per leaf, subsets of `mask`.

    Raises:
      ValueError: as `prune`; also if leaves differ in the number of masks.
      TypeError: as `prune`.

    Examples:
      >>> scores, mask = jnp.array([3.0, 1.0, 2.0]), jnp.ones(3, bool)
      >>> prune_many(jax.random.key(0), scores, mask, jnp.array([1, 2])).tolist()
      [[True, False, False], [True, False, True]]
    """
    check_mask(mask, scores=scores)
    check_structure(scores=scores, num_keep=num_keep)

    def prune_one(
        path: Path, key: Key, score: jax.Array, kept: jax.Array, num_keep: Any
    ) -> jax.Array:
        where = f"leaf '{path_name(path)}'"
        counts, is_known = check_count(f"num_keep of {where}", num_keep, kept.size, ndim=1)
        if is_known and (counts == kept.size).all():
            return jnp.repeat(own(kept)[None], len(counts), axis=0)
        check_scores(where, score, kept, finite=is_known)
        return _prune_many(key, score, kept, counts)

    keys = leaf_keys(key, scores)
    masks = jax.tree_util.tree_map_with_path(prune_one, keys, scores, mask, num_keep)
    lengths = sorted({len(leaf) for leaf in jax.tree.leaves(masks)})
    if len(lengths) > 1:
        raise ValueError(f"num_keep has {lengths} numbers in different leaves, expected as many.")
    return masks


def prune_global(
    key: Key,
    scores: PyTree,
    mask: PyTree,
    num_keep: int | jax.Array,
    prunable: PyTree,
    least: PyTree = 0,
) -> PyTree:
    """Keep the highest-scored weights of all prunable leaves, ranked together.

    Args:
      key: breaks ties at random.
      scores: `[...]` per leaf; the highest are kept. Under `jit`, NaN ranks last.
      mask: bool `[...]` per leaf, the weights kept so far.
      num_keep: the number of prunable weights to keep in all leaves together, Python or traced.
      prunable: from `trees.prunable_leaves`; the masks of other leaves do not change.
      least: the number of weights that every prunable leaf keeps in any case, namely its best ones:
        one int, or one per leaf. A leaf with fewer weights left keeps all of them. If a traced
        `num_keep` is smaller than the sum of these numbers, just these weights are kept.

    Returns:
      The new mask, a subset of `mask`.

    Warns:
      UserWarning: outside `jit`, if leaves lose their last weight; names them.

    Raises:
      ValueError: as `prune`; also if `least` keeps more weights than a `num_keep` that is not
        traced.
      TypeError: as `prune`.

    Examples:
      >>> scores = {"dense1": jnp.array([5.0, 4.0, 3.0]), "dense2": jnp.array([2.0, 1.0])}
      >>> prunable = {"dense1": True, "dense2": True}
      >>> mask = prune_global(jax.random.key(0), scores, ones(scores), 3, prunable, least=1)
      >>> mask["dense1"].tolist(), mask["dense2"].tolist()
      ([True, True, False], [True, False])
    """
    check_mask(mask, scores=scores)
    check_prunable(prunable, scores=scores)
    size = num_prunable(scores, prunable)
    count, is_known = check_count("num_keep of prune_global", num_keep, size)
    leaves, treedef = jax.tree.flatten(mask)
    chosen = [i for i, yes in enumerate(jax.tree.leaves(prunable)) if yes]
    paths, all_scores = zip(*jax.tree_util.tree_leaves_with_path(scores), strict=True)
    floors = _floors(least, scores)
    least_of = [min(floors[i], leaves[i].size) for i in chosen]
    reserved = sum(least_of)
    if is_known and reserved > count:
        raise ValueError(f"least keeps {reserved} weights in all, but num_keep is {num_keep}.")
    for i in chosen:
        where = f"leaf '{path_name(paths[i])}'"
        check_scores(where, all_scores[i], leaves[i], finite=is_known and count < size)
    scores_of, masks_of = ([tree[i] for i in chosen] for tree in (all_scores, leaves))
    if reserved:
        best = [
            _prune_leaves(jax.random.fold_in(key, FLOORS + i), [score], [mask], np.int32(n))[0]
            for i, (score, mask, n) in enumerate(zip(scores_of, masks_of, least_of, strict=True))
        ]
        masks_of = [mask & ~one for mask, one in zip(masks_of, best, strict=True)]
        count = count - sum(jnp.sum(one, dtype=jnp.int32) for one in best)
    new = _prune_leaves(leaf_keys(key, 0), scores_of, masks_of, count)
    if reserved:
        new = [one | rest for one, rest in zip(best, new, strict=True)]
    after = [own(leaf) for leaf in leaves]
    for i, leaf in zip(chosen, new, strict=True):
        after[i] = leaf
    result = treedef.unflatten(after)
    warn_of_lost_leaves(mask, result)
    return result


def apply(mask: PyTree, params: PyTree, fill: PyTree | float = 0.0) -> PyTree:
    """Return the parameters where the mask keeps them and `fill` elsewhere.

    Values are selected, not multiplied, so that NaN or infinity in pruned weights has no effect.

    Args:
      mask: bool `[...]` per leaf.
      params: `[...]` per leaf.
      fill: a number, or a tree of values `[...]`.

    Raises:
      ValueError: if trees or shapes differ.
      TypeError: if a leaf of the mask is not boolean, or if a leaf of another tree is not an array.

    Examples:
      >>> apply(jnp.array([True, False]), jnp.array([1.0, jnp.nan])).tolist()
      [1.0, 0.0]
    """
    check_mask(mask, params=params)
    if _is_number(fill):
        return jax.tree.map(
            lambda m, w: jnp.where(m, w, jnp.asarray(fill, dtype_of(w))), mask, params
        )
    check_trees(params=params, fill=fill)
    return jax.tree.map(jnp.where, mask, params, fill)


def density(mask: PyTree, prunable: PyTree) -> jax.Array:
    """Compute the density of a mask, kept / prunable weights: a float32 scalar.

    Args:
      mask: bool `[...]` per leaf.
      prunable: from `trees.prunable_leaves`.

    Raises:
      ValueError: if the trees differ, or if no leaf is prunable.
      TypeError: if a leaf of the mask is not boolean.

    Examples:
      >>> float(density(jnp.array([True, False, False, False]), True))
      0.25
    """
    return _count(mask, prunable) / jnp.float32(num_prunable(mask, prunable))


def overlap(a: PyTree, b: PyTree, prunable: PyTree) -> jax.Array:
    """Compute the Jaccard index of two masks: weights that both keep / weights that either keeps.

    Masks that both keep nothing are equal: their overlap is 1.

    Args:
      a: a mask, bool `[...]` per leaf.
      b: another mask of the same network.
      prunable: from `trees.prunable_leaves`.

    Returns:
      A float32 scalar.

    Raises:
      ValueError: if trees or shapes differ.
      TypeError: if a leaf of a mask is not boolean.

    Examples:
      >>> float(overlap(jnp.array([True, True, False]), jnp.array([True, False, False]), True))
      0.5
    """
    either, both = (_count(mask, prunable) for mask in (union(a, b), intersection(a, b)))
    return jnp.where(either == 0, 1.0, both / jnp.maximum(either, 1))


def num_kept(leaf: jax.Array) -> jax.Array:
    """Count the weights that a mask keeps in one leaf of any size: the nearest float32.

    Args:
      leaf: bool `[...]`.

    Examples:
      >>> float(num_kept(jnp.array([[True, False], [True, True]])))
      3.0
    """
    return _sum_of_counts([leaf])


def intersection(a: PyTree, b: PyTree) -> PyTree:
    """Return the mask of the weights that both masks keep.

    Args:
      a: a mask, bool `[...]` per leaf.
      b: another mask of the same network.

    Raises:
      ValueError: if trees or shapes differ.
      TypeError: if a leaf of a mask is not boolean.

    Examples:
      >>> a, b = jnp.array([True, True, False]), jnp.array([True, False, False])
      >>> intersection(a, b).tolist()
      [True, False, False]
    """
    check_masks(a=a, b=b)
    return jax.tree.map(jnp.logical_and, a, b)


def union(a: PyTree, b: PyTree) -> PyTree:
    """Return the mask of the weights that either mask keeps.

    Args:
      a: a mask, bool `[...]` per leaf.
      b: another mask of the same network.

    Raises:
      ValueError: if trees or shapes differ.
      TypeError: if a leaf of a mask is not boolean.

    Examples:
      >>> a, b = jnp.array([True, True, False]), jnp.array([True, False, False])
      >>> union(a, b).tolist()
      [True, True, False]
    """
    check_masks(a=a, b=b)
    return jax.tree.map(jnp.logical_or, a, b)


def difference(a: PyTree, b: PyTree) -> PyTree:
    """Return the mask of the weights that `a` keeps and `b` does not.

    If `b` is a later mask than `a`, these weights were pruned in between.

    Args:
      a: a mask, bool `[...]` per leaf.
      b: another mask of the same network.

    Raises:
      ValueError: if trees or shapes differ.
      TypeError: if a leaf of a mask is not boolean.

    Examples:
      >>> a, b = jnp.array([True, True, False]), jnp.array([True, False, False])
      >>> difference(a, b).tolist()
      [False, True, False]
    """
    check_masks(a=a, b=b)
    return jax.tree.map(lambda x, y: jnp.logical_and(x, jnp.logical_not(y)), a, b)


def complement(mask: PyTree, prunable: PyTree) -> PyTree:
    """Return the mask of the prunable weights that a mask prunes.

    Leaves that are not prunable keep their mask.

    Args:
      mask: bool `[...]` per leaf.
      prunable: from `trees.prunable_leaves`.

    Raises:
      ValueError: if the trees differ.
      TypeError: if a leaf of the mask is not boolean.

    Examples:
      >>> mask = {"kernel": jnp.array([True, False]), "bias": jnp.array([True])}
      >>> inverse = complement(mask, {"kernel": True, "bias": False})
      >>> inverse["kernel"].tolist(), inverse["bias"].tolist()
      ([False, True], [True])
    """
    check_masks(mask=mask)
    check_prunable(prunable, mask=mask)
    return jax.tree.map(lambda m, yes: jnp.logical_not(m) if yes else m, mask, prunable)


def _count(mask: PyTree, prunable: PyTree) -> jax.Array:
    check_masks(mask=mask)
    check_prunable(prunable, mask=mask)
    pairs = zip(jax.tree.leaves(mask), jax.tree.leaves(prunable), strict=True)
    return _sum_of_counts([leaf for leaf, yes in pairs if yes])


def _sum_of_counts(leaves: Sequence[jax.Array]) -> jax.Array:
    parts = [part for leaf in leaves for part in _partial_counts(leaf)]
    if sum(leaf.size for leaf in leaves) > MOST_COUNTED:
        return _nearest_sum(parts)
    return sum(parts, start=jnp.int32(0)).astype(jnp.float32)


def _partial_counts(leaf: jax.Array) -> list[jax.Array]:
    """Count the kept weights of a leaf in parts, as int32 scalars that do not overflow."""
    if leaf.size <= MOST_COUNTED:
        return [jnp.sum(leaf, dtype=jnp.int32)]
    rows = max(1, MOST_COUNTED // (leaf.size // len(leaf)))
    parts = [leaf[i : i + rows] if rows > 1 else leaf[i] for i in range(0, len(leaf), rows)]
    return [number for part in parts for number in _partial_counts(part)]


def _nearest_sum(parts: list[jax.Array]) -> jax.Array:
    """Return the float32 nearest to a sum of int32 scalars that may overflow.

    The sum is computed in halves of 16 bits.
    """
    low = sum((part & 0xFFFF for part in parts), start=jnp.int32(0))
    high = sum((part >> 16 for part in parts), start=jnp.int32(0))
    carried = high + (low >> 16)
    return carried.astype(jnp.float32) * 65536 + (low & 0xFFFF).astype(jnp.float32)


def _floors(least: PyTree, scores: PyTree) -> list[int]:
    """Return the number of weights that every leaf keeps in any case."""
    if jax.tree.structure(least) == jax.tree.structure(0):
        return [check_integer("least", least, 0)] * len(jax.tree.leaves(scores))
    check_structure(scores=scores, least=least)
    return [check_integer("least", number, 0) for number in jax.tree.leaves(least)]


def _is_number(fill: Any) -> bool:
    """Tell whether a fill is one number for all leaves, not a tree of them."""
    if isinstance(fill, int | float):
        return True
    is_array = jax.tree_util.all_leaves([fill]) and hasattr(fill, "dtype")
    return is_array and getattr(fill, "shape", None) == ()


@jax.jit
def _prune_leaves(
    key: Key, scores: Sequence[jax.Array], masks: Sequence[jax.Array], num_keep: jax.Array
) -> list[jax.Array]:
    """Keep the highest-scored weights of several leaves, ranked together."""
    if len({leaf.dtype for leaf in scores}) > 1:
        common = widest(scores)
        scores = [leaf.astype(common) for leaf in scores]
    return highest(key, scores, masks, num_keep)


@jax.jit
def _prune_many(key: Key, scores: jax.Array, mask: jax.Array, num_keep: jax.Array) -> jax.Array:
    # One by one: this takes less memory than `vmap`, and less time where there are few ties.
    return lax.map(lambda count: highest(key, [scores], [mask], count)[0], num_keep)
