"""What a tree of parameters is to this library: contracts, checks, paths and keys.

Every tree that describes a network, be it start weights `w_i`, final weights `w_f`, scores,
a mask, rates or counts, has the structure of its parameters, so that every operation is one
`jax.tree.map`. In docstrings `[...]` is the shape of a leaf.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any
Key = jax.Array
Path = tuple[Any, ...]
Predicate = Callable[[Path, Any], bool]
T = TypeVar("T")

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


def path_name(path: Path) -> str:
    """The name of a leaf, such as ``"dense1/kernel"``; a tree that is one array has ``""``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


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
      ValueError: if no leaf is prunable; lists the leaves there are.
      TypeError: if a leaf is not an array.

    >>> prunable_leaves({"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)})
    {'bias': False, 'kernel': True}
    """
    check_trees(params=params)
    prunable = jax.tree_util.tree_map_with_path(lambda p, leaf: bool(predicate(p, leaf)), params)
    if not any(jax.tree.leaves(prunable)):
        raise ValueError(none_prunable(params))
    return prunable


def leaf_keys(key: Key, tree: PyTree) -> PyTree:
    """One key per leaf, folded in by the leaf's place in the tree.

    Raises:
      TypeError: if `key` is not one typed key, as `jax.random.key` makes them.
    """
    if not (hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise TypeError(
            f"expected a typed key from jax.random.key(seed), got {_describe(key)}; "
            "wrap an old one with jax.random.wrap_key_data."
        )
    if key.shape:
        raise TypeError(f"expected one key, got an array of keys of shape {key.shape}.")
    leaves, treedef = jax.tree.flatten(tree)
    return treedef.unflatten([jax.random.fold_in(key, i) for i in range(len(leaves))])


def check_structure(**trees: PyTree) -> None:
    """Check that named trees have one structure; the first is the reference.

    Raises:
      ValueError: names the two trees and a leaf that only one of them has.
    """
    (name, reference), *others = trees.items()
    for other_name, other in others:
        if jax.tree.structure(other) != jax.tree.structure(reference):
            raise ValueError(_structure_message(name, reference, other_name, other))


def check_trees(**trees: PyTree) -> None:
    """Check that named trees hold arrays, of one structure and of equal shapes leaf by leaf.

    Raises:
      TypeError: names a leaf that is not an array.
      ValueError: names the leaf at which structure or shape differ.
    """
    for name, tree in trees.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if not _is_array(leaf):
                raise TypeError(
                    f"leaf '{path_name(path)}' of {name} is {_describe(leaf)}, not an array of "
                    "numbers; take only the parameters (equinox: eqx.partition, nnx: nnx.Param)."
                )
    check_structure(**trees)
    (name, reference), *others = trees.items()
    for other_name, other in others:
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(reference), jax.tree.leaves(other), strict=True
        ):
            if a.shape != b.shape:
                raise ValueError(
                    f"leaf '{path_name(path)}' has shape {list(a.shape)} in {name} but "
                    f"{list(b.shape)} in {other_name}; both must describe the same network."
                )


def check_mask(mask: PyTree, **trees: PyTree) -> None:
    """Check that named trees and a mask describe one network and that the mask holds bools.

    Raises:
      TypeError: names a leaf of the mask that is not boolean, or a leaf that is not an array.
      ValueError: as `check_trees`.
    """
    check_trees(**trees, mask=mask)
    for path, leaf in jax.tree_util.tree_leaves_with_path(mask):
        if leaf.dtype != bool:
            raise TypeError(
                f"leaf '{path_name(path)}' of the mask has dtype {leaf.dtype}, expected bool; "
                "a mask is True for kept weights."
            )


def lookup(kind: str, name: str, known: Mapping[str, T]) -> T:
    """The entry of a registry.

    Raises:
      ValueError: for an unknown name, with the nearest one and all known ones.
    """
    if not isinstance(name, str) or name not in known:
        raise ValueError(unknown_name(kind, name, known))
    return known[name]


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for an unknown name.

    >>> unknown_name("network", "lenet30", ["conv2", "lenet300"])
    "unknown network 'lenet30'; did you mean 'lenet300'? known: conv2, lenet300"
    """
    names = sorted(known)
    nearest = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean '{nearest[0]}'?" if nearest else ";"
    return f"unknown {kind} {name!r}{hint} known: {', '.join(names)}"


def none_prunable(params: PyTree) -> str:
    """The message for a tree without a prunable leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    found = ", ".join(f"'{path_name(path)}' {x.dtype}{list(x.shape)}" for path, x in leaves)
    return (
        f"no leaf is prunable; the leaves are: {found or 'none'}. "
        "Pass a predicate(path, leaf) to prunable_leaves that is True for at least one of them."
    )


def concrete(x: Any) -> np.ndarray | None:
    """The value of an array, or None for an abstract one inside a JAX transformation."""
    try:
        return np.asarray(x)
    except jax.errors.TracerArrayConversionError:
        return None


def _structure_message(name: str, a: PyTree, other_name: str, b: PyTree) -> str:
    paths_a, paths_b = (
        {path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (a, b)
    )
    for here, there, paths in (
        (name, other_name, paths_a - paths_b),
        (other_name, name, paths_b - paths_a),
    ):
        if paths:
            return (
                f"{name} and {other_name} are different trees: leaf '{min(paths)}' is in {here} "
                f"but not in {there}; every tree must have the structure of the parameters."
            )
    return (
        f"{name} and {other_name} are different trees: the same leaves in other containers, "
        f"{jax.tree.structure(a)} and {jax.tree.structure(b)}."
    )


def _is_array(leaf: Any) -> bool:
    is_shaped = hasattr(leaf, "shape") and hasattr(leaf, "dtype")
    return is_shaped and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _describe(value: Any) -> str:
    if hasattr(value, "dtype"):
        return f"an array of {value.dtype}"
    return f"{value!r} ({type(value).__name__})"
