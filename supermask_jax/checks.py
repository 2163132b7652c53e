"""What wrong input is told: one line that says what is wrong, where, and what to do.

Also the small conversions that checks share with what they guard: the value of an array if it has
one, the type that JAX computes a leaf in.
"""

import difflib
import inspect
import operator
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from supermask_jax.paths import PyTree, path_name

T = TypeVar("T")

MOST_SHOWN = 200  # characters of a value in an error message


def shown(value: Any) -> str:
    """A value in an error message: its `repr` in one line and not too long.

    >>> shown(np.ones((2, 2)))
    'array([[1., 1.], [1., 1.]])'
    """
    try:
        return _shortened(" ".join(repr(value).split()))
    except ValueError:  # of an integer with thousands of digits
        return f"a {type(value).__name__}"


def unknown_name(kind: str, name: Any, known: Iterable[str]) -> str:
    """The message for an unknown name.

    >>> unknown_name("network", "lenet30", ["conv2", "lenet300"])
    "unknown network 'lenet30'; did you mean 'lenet300'? known: conv2, lenet300"
    """
    names = sorted(known)
    nearest = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean '{nearest[0]}'?" if nearest else ";"
    return f"unknown {kind} {shown(name)}{hint} known: {', '.join(names)}"


def lookup(kind: str, name: Any, known: Mapping[str, T]) -> T:
    """The entry of a registry.

    Raises:
      ValueError: for an unknown name, with the nearest one and all known ones.
    """
    if not isinstance(name, str) or name not in known:
        raise ValueError(unknown_name(kind, name, known))
    return known[name]


def check_key(key: Any) -> None:
    """Check that a key is one typed key.

    Raises:
      TypeError: if it is not.
    """
    if not (hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise TypeError(
            f"expected a typed key from jax.random.key(seed), got {_describe(key)}; "
            "wrap an old one with jax.random.wrap_key_data."
        )
    if key.shape:
        raise TypeError(f"expected one key, got an array of keys of shape {key.shape}.")


def check_integer(name: str, value: Any, least: int) -> int:
    """An integer of `least` or more, Python's or numpy's, as a Python int.

    Raises:
      ValueError: for anything else.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise ValueError(f"{name} is {shown(value)}, expected an integer of {least} or more.")
    return number


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
      TypeError: names a leaf that is not an array with values that JAX takes.
      ValueError: names the leaf at which structure or shape differ.
    """
    _check_leaves(trees, shapes_do=False)


def check_shaped(**trees: PyTree) -> None:
    """As `check_trees`, for what needs no values: `jax.ShapeDtypeStruct`s are good too."""
    _check_leaves(trees, shapes_do=True)


def check_shapes(**trees: PyTree) -> None:
    """Check that named trees of one structure have equal shapes; the first is the reference.

    Raises:
      ValueError: names the leaf at which shapes differ.
    """
    (name, reference), *others = trees.items()
    for other_name, other in others:
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(reference), jax.tree.leaves(other), strict=True
        ):
            if jnp.shape(a) != jnp.shape(b):
                raise ValueError(
                    f"leaf '{path_name(path)}' has shape {list(jnp.shape(a))} in {name} but "
                    f"{list(jnp.shape(b))} in {other_name}; both must describe the same network."
                )


def check_unchanged(who: str, what: str, before: PyTree, after: PyTree) -> None:
    """Check that a function returned a tree in the structure, shapes and types that it got.

    Raises:
      ValueError: names the leaf that is different.
    """
    check_structure(**{what: before, f"the {what} that {who} returns": after})
    for (path, old), new in zip(
        jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
    ):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise ValueError(
                f"{who} returns leaf '{path_name(path)}' of the {what} as {new.dtype}"
                f"{list(new.shape)}, expected {old.dtype}{list(old.shape)} as it was."
            )


def check_mask(mask: PyTree, **trees: PyTree) -> None:
    """Check that named trees and a mask describe one network and that the mask holds bools.

    Raises:
      TypeError: names a leaf of the mask that is not boolean, or a leaf that is not an array.
      ValueError: as `check_trees`.
    """
    check_trees(**trees, mask=mask)
    _check_bools("the mask", mask)


def check_masks(**masks: PyTree) -> None:
    """Check that named masks describe one network and hold bools.

    Raises:
      TypeError, ValueError: as `check_mask`.
    """
    check_trees(**masks)
    for name, mask in masks.items():
        _check_bools(name, mask)


def check_prunable(prunable: PyTree, **trees: PyTree) -> None:
    """Check that a tree says with Python's bools which leaves of named trees may be pruned.

    Raises:
      TypeError: names a leaf that is no bool.
      ValueError: as `check_structure`.
    """
    check_structure(**trees, prunable=prunable)
    for path, yes in jax.tree_util.tree_leaves_with_path(prunable):
        if not isinstance(yes, bool | np.bool_):
            raise TypeError(
                f"leaf '{path_name(path)}' of prunable is {shown(yes)}, expected True or False; "
                "it is static: make it by trees.prunable_leaves, outside of jit."
            )


def check_weights(prunable: PyTree, **trees: PyTree) -> None:
    """Check that named trees describe one network and that prunable leaves of the first are floats.

    Raises:
      TypeError: names a leaf that does not hold floats.
      TypeError, ValueError: as `check_trees` and `check_prunable`.
    """
    check_trees(**trees)
    _check_floats(prunable, trees)


def check_shaped_weights(prunable: PyTree, **trees: PyTree) -> None:
    """As `check_weights`, for what needs no values."""
    check_shaped(**trees)
    _check_floats(prunable, trees)


def check_criterion(criterion: Any) -> None:
    """Check that a criterion is a function of three trees, not its name or what makes one.

    Raises:
      TypeError: if it is not; says where names lead to functions.
    """
    _check_function("criterion", criterion, "criteria.CRITERIA", ("w_i", "w_f", "mask"))


def check_action(kind: str, action: Any, registry: str) -> None:
    """As `check_criterion`, for an action."""
    _check_function(kind, action, registry, ("key", "w_i", "w_f", "mask"))


def warn(message: str) -> None:
    """Warn at the line that called the library."""
    depth, frame = 2, sys._getframe(1)
    package = __name__.partition(".")[0]
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, stacklevel=depth)


def is_floating(leaf: Any) -> bool:
    """Whether a leaf holds real floats, of whatever width."""
    return bool(jnp.issubdtype(leaf.dtype, jnp.floating))


def is_number_type(dtype: Any) -> bool:
    """Whether a type is one of numbers or bools: text, objects and keys are not."""
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.number, jnp.bool_))


def dtype_of(leaf: Any) -> np.dtype:
    """The type that JAX computes a leaf in: 64 bits only where they are switched on."""
    return jax.dtypes.canonicalize_dtype(leaf.dtype)


def widened(leaf: Any) -> jax.Array:
    """Floats in 32 bits or more: 16 and 8 are too few to sum, to square or to take a sigmoid in."""
    return jnp.asarray(leaf, _wide_dtype(leaf))


def widest(leaves: Iterable[jax.Array]) -> np.dtype:
    """The type of 32 bits or more that holds the floats of all leaves."""
    return max(map(_wide_dtype, leaves), key=lambda dtype: dtype.itemsize)


def own(leaf: Any) -> jax.Array:
    """A leaf as an array of JAX that shares no memory with one of numpy."""
    return jnp.array(leaf) if isinstance(leaf, np.ndarray) else jnp.asarray(leaf)


def concrete(x: Any) -> np.ndarray | None:
    """The value of an array, or None for an abstract one inside a JAX transformation."""
    try:
        return np.asarray(x)
    except jax.errors.TracerArrayConversionError:
        return None


def _wide_dtype(leaf: Any) -> np.dtype:
    dtype = dtype_of(leaf)
    return np.dtype(np.float32) if jnp.finfo(dtype).bits < 32 else dtype


def _check_function(kind: str, function: Any, registry: str, arguments: tuple[str, ...]) -> None:
    if not callable(function):
        where = f"{registry}[{function!r}]" if isinstance(function, str) else f"one of {registry}"
        raise TypeError(f"the {kind} is {shown(function)}, expected a function, such as {where}.")
    try:
        inspect.signature(function).bind(*arguments)
    except ValueError:  # of what has no signature
        return
    except TypeError:
        name = getattr(function, "__name__", shown(function))
        raise TypeError(
            f"the {kind} {name} does not take ({', '.join(arguments)}); if it makes a function "
            f"that does, pass what it makes: {name}(...)."
        ) from None


def _check_leaves(trees: Mapping[str, PyTree], *, shapes_do: bool) -> None:
    for name, tree in trees.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if wrong := _what_is_wrong(leaf, shapes_do):
                raise TypeError(f"leaf '{path_name(path)}' of {name} is {wrong}")
    check_structure(**trees)
    check_shapes(**trees)


def _what_is_wrong(leaf: Any, shapes_do: bool) -> str | None:
    """What keeps a leaf from being taken as an array of numbers, and the way out."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return None if shapes_do else "a shape without values, expected an array."
    if isinstance(leaf, jax.Ref):
        return "a jax.Ref, expected an array; read it: ref[...]."
    if type(leaf).__module__.partition(".")[0] == "torch":
        return "a tensor of torch, expected an array; convert it: tensor.numpy(force=True)."
    if isinstance(leaf, bool):
        return f"{leaf}, not an array of numbers; a tree of True and False goes where prunable is."
    dtype = getattr(leaf, "dtype", None)
    if isinstance(dtype, np.dtype) and hasattr(leaf, "shape"):
        if dtype.type is np.void and dtype.names is None:
            lost = {1: "float8_e4m3fn", 2: "bfloat16"}.get(dtype.itemsize, "float32")
            return (
                f"an array of {dtype.str}, bytes whose type a file has lost; "
                f"say what they are: array.view(jnp.{lost}), for example."
            )
        if is_number_type(dtype):
            if dtype.isnative:
                return None
            return (
                f"an array of {dtype.str}, in another byte order than this machine's; "
                "convert it: array.astype(array.dtype.newbyteorder('='))."
            )
    return (
        f"{_describe(leaf)}, not an array of numbers; "
        "take only the parameters (equinox: eqx.partition, nnx: nnx.Param)."
    )


def _check_floats(prunable: PyTree, trees: Mapping[str, PyTree]) -> None:
    check_prunable(prunable, **trees)
    weights = jax.tree_util.tree_leaves_with_path(next(iter(trees.values())))
    for (path, leaf), yes in zip(weights, jax.tree.leaves(prunable), strict=True):
        if yes and not is_floating(leaf):
            raise TypeError(
                f"leaf '{path_name(path)}' has dtype {leaf.dtype}; only floats may be pruned."
            )


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
    texts = [" ".join(str(jax.tree.structure(tree)).split()) for tree in (a, b)]
    same = next((i for i, (x, y) in enumerate(zip(*texts, strict=False)) if x != y), 0)
    here, there = (_shortened(text, same) for text in texts)
    return (
        f"{name} and {other_name} are different trees: the same leaves in other containers, "
        f"{here} and {there}; make one as the other was made (flax nnx: nnx.to_pure_dict leaves "
        "out what variables know beside their values)."
    )


def _shortened(line: str, place: int = 0) -> str:
    """A line that is not too long, cut so that a place in it is there."""
    start = max(0, place - MOST_SHOWN // 4)
    cut = f"...{line[start:]}" if start else line
    return cut if len(cut) <= MOST_SHOWN else f"{cut[: MOST_SHOWN - 3]}..."


def _check_bools(name: str, mask: PyTree) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(mask):
        if leaf.dtype != bool:
            raise TypeError(
                f"leaf '{path_name(path)}' of {name} has dtype {leaf.dtype}, expected bool; "
                "a mask is True for kept weights."
            )


def _describe(value: Any) -> str:
    if hasattr(value, "dtype"):
        return f"an array of {value.dtype}"
    return f"{shown(value)} ({type(value).__name__})"
