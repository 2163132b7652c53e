"""Helpers for trees of NumPy arrays and of abstract arrays."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

PyTree = Any


def abstract(
    tree: PyTree,
    sharding: Sharding | None = None,
    leading: tuple[int, ...] = (),
    dtype: Any = None,
) -> PyTree:
    """Return the shapes and types of a tree, with a sharding, leading axes or another type.

    Args:
      tree: arrays or abstract arrays, `[...]` per leaf.
      sharding: of every leaf; None leaves it open.
      leading: the sizes of axes to add in front, giving `[*leading, ...]`.
      dtype: replaces the type of every leaf, unless None.
    """

    def leaf(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*leading, *x.shape), dtype or x.dtype, sharding=sharding)

    return jax.tree.map(leaf, tree)


def empty(like: PyTree) -> PyTree:
    """Return uninitialised NumPy arrays of the shapes and types of a tree; `write` fills them."""
    return jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like)


def write(whole: PyTree, index: Any, members: PyTree) -> None:
    """Copy members into a population of NumPy arrays, in place.

    Args:
      whole: the population, `[P, ...]` per leaf.
      index: the places of the members: a slice or an index array, p places.
      members: `[p, ...]` per leaf.
    """
    for leaf, part in zip(jax.tree.leaves(whole), jax.tree.leaves(members), strict=True):
        leaf[index] = part
