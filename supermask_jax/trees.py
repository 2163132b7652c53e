"""What a tree of parameters is to this library: contracts, which leaves may be pruned, keys.

Every tree that describes a network, be it start weights `w_i`, final weights `w_f`, scores,
a mask, rates or counts, has the structure of its parameters, so that every operation is one
`jax.tree.map`. In docstrings `[...]` is the shape of a leaf.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from supermask_jax.checks import check_key, check_trees, check_weights, shown
from supermask_jax.paths import Path, PyTree, path_name

Key = jax.Array
Predicate = Callable[[Path, Any], bool]

BIAS_NAMES = ("bias", "b")


class Criterion(Protocol):
    """Scores weights; within a layer the highest scores are kept.

    Called with the start weights `w_i` and the final weights `w_f` of a round's training and
    the mask of that round, all `[...]` per leaf (a missing mask keeps everything). Returns
    scores `[...]`, defined for every weight: whoever prunes skips the pruned ones.
    """

    def __call__(self, w_i: PyTree, w_f: PyTree, mask: PyTree | None = None, /) -> PyTree:
        """Return scores `[...]` per leaf."""
        ...


class Action(Protocol):
    """Gives weights the values that they start the next round from.

    Called with a key, consumed whole, with the start weights `w_i` and the final weights `w_f`
    of the round, and with a boolean tree: for a mask-1 action the weights now kept, for a
    mask-0 action the weights pruned just now. Values elsewhere are ignored.
    """

    def __call__(self, key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree, /) -> PyTree:
        """Return values `[...]` per leaf."""
        ...


def is_kernel(path: Path, leaf: Any) -> bool:
    """Whether a leaf is a weight matrix or a convolution kernel: floating, rank 2 or more, no bias.

    Rank alone does not tell (stacked biases are matrices) and names alone do not either, so
    both decide. This is the default answer to "what may be pruned?".
    """
    names = [path_name((key,)) for key in path]
    if names and names[-1] == "value":
        names.pop()
    named_bias = bool(names) and names[-1] in BIAS_NAMES
    return bool(jnp.issubdtype(leaf.dtype, jnp.floating)) and leaf.ndim >= 2 and not named_bias


def prunable_leaves(params: PyTree, predicate: Predicate = is_kernel) -> PyTree:
    """Which leaves may be pruned, as a tree of Python bools.

    Static on purpose: decide it once, on one network, and close over it in jitted code.

    Args:
      params: arrays or `jax.ShapeDtypeStruct`s (from `jax.eval_shape`).
      predicate: called with the path and the leaf.

    Raises:
      ValueError: if no weight is prunable; lists the leaves there are.
      TypeError: if a leaf is not an array, if the predicate says anything but True or False, or
        if it chooses a leaf that does not hold floats.

    >>> prunable_leaves({"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)})
    {'bias': False, 'kernel': True}
    """
    check_trees(params=params)

    def decide(path: Path, leaf: Any) -> bool:
        answer = predicate(path, leaf)
        if not isinstance(answer, bool | np.bool_):
            raise TypeError(
                f"the predicate says {shown(answer)} of leaf '{path_name(path)}', expected True or "
                "False."
            )
        return bool(answer)

    prunable = jax.tree_util.tree_map_with_path(decide, params)
    check_weights(prunable, params=params)
    num_prunable(params, prunable)
    return prunable


def num_prunable(tree: PyTree, prunable: PyTree) -> int:
    """How many weights may be pruned.

    Args:
      tree: anything with the shapes of the parameters.
      prunable: from `prunable_leaves`.

    Raises:
      ValueError: if there is none; lists the leaves there are.
    """
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(prunable), strict=True)
    number = sum(leaf.size for leaf, yes in pairs if yes)
    if not number:
        raise ValueError(_none_prunable(tree))
    return number


def leaf_keys(key: Key, tree: PyTree) -> PyTree:
    """One key per leaf, folded in by the leaf's place in the tree.

    Raises:
      TypeError: if `key` is not one typed key, as `jax.random.key` makes them.
    """
    check_key(key)
    leaves, treedef = jax.tree.flatten(tree)
    return treedef.unflatten([jax.random.fold_in(key, i) for i in range(len(leaves))])


def _none_prunable(tree: PyTree) -> str:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    found = ", ".join(f"'{path_name(path)}' {x.dtype}{list(x.shape)}" for path, x in leaves)
    return (
        f"no leaf is prunable; the leaves are: {found or 'none'}. "
        "Pass a predicate(path, leaf) to prunable_leaves that is True for at least one of them."
    )
