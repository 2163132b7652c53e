"""Trees of numpy arrays and of shapes and types."""

from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

PyTree = Any


def abstract(
    tree: PyTree,
    sharding: NamedSharding | None = None,
    leading: tuple[int, ...] = (),
    dtype: Any = None,
) -> PyTree:
    """Shapes, types and places of arrays, each with more axes in front, or of another type."""

    def leaf(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*leading, *x.shape), dtype or x.dtype, sharding=sharding)

    return jax.tree.map(leaf, tree)


def empty(like: PyTree) -> PyTree:
    """Numpy arrays of the shapes and types of a tree, to be written member by member."""
    return jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like)


def write(whole: PyTree, index: Any, members: PyTree) -> None:
    """Put members in the places of a population of numpy arrays."""
    for leaf, part in zip(jax.tree.leaves(whole), jax.tree.leaves(members), strict=True):
        leaf[index] = part
