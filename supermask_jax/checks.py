"""Checks of arguments, and the error messages for wrong input.

A message is one line that says what is wrong, where, and what to do. The module also has the small
conversions that checks share with the functions they guard, such as the concrete value of an array
or the type in which JAX computes with a leaf.
"""

import difflib
import inspect
import operator
import sys
import warnings
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from supermask_jax.paths import PyTree, path_name

T = TypeVar("T")

MOST_SHOWN = 200  # characters of a value in an error message


def shown(value: Any) -> str:
    """Return the `repr` of a value for an error message, in one line of limited length.

    Examples:
      >>> shown(np.ones((2, 2)))
      'array([[1., 1.], [1., 1.]])'
    """
    try:
        return _shortened(" ".join(repr(value).split()))
    except ValueError:  # an integer with thousands of digits has no repr
        return f"a {type(value).__name__}"


def unknown_name(kind: str, name: Any, known: Iterable[str]) -> str:
    """Return the error message for an unknown name, with the nearest known one.

    Examples:
      >>> unknown_name("network", "lenet30", ["conv2", "lenet300"])
      "unknown network 'lenet30'; did you mean 'lenet300'? known: conv2, lenet300"
    """
    names = sorted(known)
    nearest = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean '{nearest[0]}'?" if nearest else ";"
    return f"unknown {kind} {shown(name)}{hint} known: {', '.join(names)}"


def lookup(kind: str, name: Any, known: Mapping[str, T]) -> T:
    """Look up a name in a registry.

    Args:
      kind: what the registry holds, such as `"network"`.
      name: the name to look up.
      known: the registry.

    Raises:
      ValueError: if the name is unknown; lists the nearest name and all known ones.

    Examples:
      >>> lookup("network", "conv2", {"conv2": 2})
      2
    """
    if not isinstance(name, str) or name not in known:
        raise ValueError(unknown_name(kind, name, known))
    return known[name]


def check_key(key: Any) -> None:
    """Check that a key is a single typed key.

    Raises:
      TypeError: if it is not.

    Examples:
      >>> check_key(0)
      Traceback (most recent call last):
      TypeError: expected a typed key from jax.random.key(seed), got 0 (int);
      wrap an old one with jax.random.wrap_key_data.
    """
    if not (hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise TypeError(
            f"expected a typed key from jax.random.key(seed), got {_describe(key)}; "
            "wrap an old one with jax.random.wrap_key_data."
        )
    if key.shape:
        raise TypeError(f"expected one key, got an array of keys of shape {key.shape}.")


def check_integer(name: str, value: Any, least: int) -> int:
    """Return a Python or NumPy integer of at least `least` as a Python int.

    Raises:
      ValueError: if `value` is anything else.

    Examples:
      >>> check_integer("num_steps", np.int64(5), 1)
      5
      >>> check_integer("num_steps", 0, 1)
      Traceback (most recent call last):
      ValueError: num_steps is 0, expected an integer of 1 or more.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise ValueError(f"{name} is {shown(value)}, expected an integer of {least} or more.")
    return number


def check_number(what: str, value: Any, positive: bool = False) -> np.ndarray | None:
    """Return the value of a finite real number, or None if it is traced.

    Args:
      what: what the number is, in the error message.
      value: a number, Python, NumPy or traced.
      positive: also check that it is above 0, if it is not traced.

    Raises:
      ValueError: if `value` is anything else.

    Examples:
      >>> check_number("the temperature", 0.0, positive=True)
      Traceback (most recent call last):
      ValueError: the temperature is 0.0, expected a finite number above 0.
    """
    known = concrete(value)
    number = value if known is None else known
    is_real = any(jnp.issubdtype(number.dtype, kind) for kind in (jnp.floating, jnp.integer))
    is_valid = is_real and number.shape == ()
    if is_valid and known is not None:
        is_valid = bool(np.isfinite(known) and (known > 0 or not positive))
    if not is_valid:
        above = " above 0" if positive else ""
        raise ValueError(f"{what} is {shown(value)}, expected a finite number{above}.")
    return known


def check_share(kind: str, number: Any, where: str) -> Any:
    """Return a number that is a rate, in [0, 1), or of another kind, in [0, 1].

    Raises:
      ValueError: if it is anything else.

    Examples:
      >>> check_share("rate", 1, "leaf 'a'")
      Traceback (most recent call last):
      ValueError: the rate of leaf 'a' is 1, expected a number in [0, 1).
    """
    is_rate = kind == "rate"
    try:
        valid = (
            not isinstance(number, bool | str)
            and np.shape(number) == ()
            and (0 <= number < 1 or (number == 1 and not is_rate))
        )
    except (TypeError, ArithmeticError):  # decimal's NaN raises an ArithmeticError
        valid = False
    if not valid:
        interval = "[0, 1)" if is_rate else "[0, 1]"
        raise ValueError(
            f"the {kind} of {where} is {shown(number)}, expected a number in {interval}."
        )
    return number


def exact(kind: str, number: Any, where: str) -> Fraction:
    """Check a number as `check_share` does, and take it as it is written: 0.1 is 1/10.

    Examples:
      >>> exact("density", 0.1, "event 0")
      Fraction(1, 10)
    """
    return Fraction(str(check_share(kind, number, where)))


def check_structure(**trees: PyTree) -> None:
    """Check that named trees have the structure of the first one.

    Raises:
      ValueError: if they do not; names the two trees and a leaf that only one of them has.

    Examples:
      >>> check_structure(params={"a": 1}, rates={"a": 0.2, "b": 0.1})
      Traceback (most recent call last):
      ValueError: params and rates are different trees: leaf 'b' is in rates but not in params;
      every tree must have the structure of the parameters.
    """
    (name, reference), *others = trees.items()
    for other_name, other in others:
        if jax.tree.structure(other) != jax.tree.structure(reference):
            raise ValueError(_structure_message(name, reference, other_name, other))


def check_trees(**trees: PyTree) -> None:
    """Check that named trees hold arrays, with one structure and equal shapes leaf by leaf.

    Raises:
      TypeError: if a leaf is not an array with values that JAX accepts; names the leaf.
      ValueError: if structure or shapes differ; names the leaf.

    Examples:
      >>> check_trees(w_i={"a": np.ones(3)}, w_f={"a": np.ones(2)})
      Traceback (most recent call last):
      ValueError: leaf 'a' has shape [3] in w_i but [2] in w_f; both must describe the same network.
    """
    _check_leaves(trees, allow_shapes=False)


def check_shaped(**trees: PyTree) -> None:
    """Do the checks of `check_trees` on trees whose leaves may be `jax.ShapeDtypeStruct`s.

    Examples:
      >>> check_shaped(params={"a": jax.ShapeDtypeStruct((3,), jnp.float32), "b": "weights"})
      Traceback (most recent call last):
      TypeError: leaf 'b' of params is 'weights' (str), not an array of numbers;
      pass only the parameters (equinox: eqx.partition, nnx: nnx.Param).
    """
    _check_leaves(trees, allow_shapes=True)


def check_shapes(**trees: PyTree) -> None:
    """Check that named trees of one structure have the shapes of the first one.

    Raises:
      ValueError: if shapes differ; names the leaf.

    Examples:
      >>> check_shapes(a={"bias": 1.0}, b={"bias": np.ones(2)})
      Traceback (most recent call last):
      ValueError: leaf 'bias' has shape [] in a but [2] in b; both must describe the same network.
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
    """Check that a function returned a tree with the structure, shapes and types it was given.

    Args:
      who: the function, in the error message.
      what: the tree, in the error message.
      before: the tree that the function was given.
      after: the tree that it returned.

    Raises:
      ValueError: if the trees differ; names the leaf.

    Examples:
      >>> check_unchanged("fn", "state", {"a": np.ones(3)}, {"a": np.ones(3, bool)})
      Traceback (most recent call last):
      ValueError: fn returns leaf 'a' of the state as bool[3], expected float64[3] as before.
    """
    check_structure(**{what: before, f"the {what} that {who} returns": after})
    for (path, old), new in zip(
        jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
    ):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise ValueError(
                f"{who} returns leaf '{path_name(path)}' of the {what} as {new.dtype}"
                f"{list(new.shape)}, expected {old.dtype}{list(old.shape)} as before."
            )


def check_mask(mask: PyTree, **trees: PyTree) -> None:
    """Check that a mask holds bools and that named trees describe the same network.

    Raises:
      TypeError: if a leaf of the mask is not boolean, or a leaf of a tree is not an array.
      ValueError: if structure or shapes differ; names the leaf.

    Examples:
      >>> check_mask({"a": np.ones(2)}, w_i={"a": np.ones(2)})
      Traceback (most recent call last):
      TypeError: leaf 'a' of the mask has dtype float64, expected bool;
      a mask is True for kept weights.
    """
    check_trees(**trees, mask=mask)
    _check_bools("the mask", mask)


def check_masks(**masks: PyTree) -> None:
    """Check that named masks hold bools and describe the same network.

    Raises:
      TypeError: if a leaf is not boolean; names the leaf.
      ValueError: if structure or shapes differ; names the leaf.

    Examples:
      >>> check_masks(a={"kernel": np.ones(2, bool)}, b={"kernel": np.ones(2, int)})
      Traceback (most recent call last):
      TypeError: leaf 'kernel' of b has dtype int64, expected bool;
      a mask is True for kept weights.
    """
    check_trees(**masks)
    for name, mask in masks.items():
        _check_bools(name, mask)


def check_prunable(prunable: PyTree, **trees: PyTree) -> None:
    """Check that `prunable` has the structure of named trees and holds Python bools.

    Raises:
      TypeError: if a leaf is not True or False; names the leaf.
      ValueError: if structures differ; names the two trees and a leaf.

    Examples:
      >>> check_prunable({"kernel": 1}, params={"kernel": np.ones((3, 2))})
      Traceback (most recent call last):
      TypeError: leaf 'kernel' of prunable is 1, expected True or False;
      it is static: make it with trees.prunable_leaves, outside jit.
    """
    check_structure(**trees, prunable=prunable)
    for path, yes in jax.tree_util.tree_leaves_with_path(prunable):
        if not isinstance(yes, bool | np.bool_):
            raise TypeError(
                f"leaf '{path_name(path)}' of prunable is {shown(yes)}, expected True or False; "
                "it is static: make it with trees.prunable_leaves, outside jit."
            )


def check_weights(prunable: PyTree, **trees: PyTree) -> None:
    """Check that named trees describe one network whose prunable leaves may be pruned.

    The prunable leaves of the first tree must hold floats.

    Raises:
      TypeError: if a prunable leaf does not hold floats, or if a leaf is not an array; names it.
      ValueError: if structure or shapes differ; names the leaf.

    Examples:
      >>> check_weights({"kernel": True}, weights={"kernel": np.ones((3, 2), int)})
      Traceback (most recent call last):
      TypeError: leaf 'kernel' has dtype int64; only floats may be pruned.
    """
    check_trees(**trees)
    _check_floats(prunable, trees)


def check_shaped_weights(prunable: PyTree, **trees: PyTree) -> None:
    """Do the checks of `check_weights` on trees whose leaves may be `jax.ShapeDtypeStruct`s.

    Examples:
      >>> check_shaped_weights({"a": True}, params={"a": jax.ShapeDtypeStruct((3,), jnp.int32)})
      Traceback (most recent call last):
      TypeError: leaf 'a' has dtype int32; only floats may be pruned.
    """
    check_shaped(**trees)
    _check_floats(prunable, trees)


def check_count(what: str, count: Any, size: int, ndim: int = 0) -> tuple[Any, bool]:
    """Return counts, at most `size` and as int32, and whether they are concrete.

    Args:
      what: what is counted, in the error message.
      count: integers, Python, NumPy or traced.
      size: the most that there are.
      ndim: 0 for one integer, 1 for an array `[N]`.

    Raises:
      TypeError: if it is anything else.
      ValueError: if a count is negative.

    Examples:
      >>> check_count("num_keep of leaf 'a'", 12, size=10)
      (array(10, dtype=int32), True)
      >>> check_count("num_keep of leaf 'a'", 1.5, size=10)
      Traceback (most recent call last):
      TypeError: num_keep of leaf 'a' is 1.5, expected one integer.
    """
    known = concrete(count)
    dtype = count.dtype if known is None else known.dtype
    if jnp.ndim(count) != ndim or not jnp.issubdtype(dtype, jnp.integer):
        kind = "an array of integers [N]" if ndim else "one integer"
        raise TypeError(f"{what} is {shown(count)}, expected {kind}.")
    if known is None:
        # Clip before the cast: an unsigned count above 2**31 would become a negative int32.
        return jnp.minimum(count, min(size, jnp.iinfo(dtype).max)).astype(jnp.int32), False
    if (known < 0).any():
        raise ValueError(f"{what} is {shown(known.tolist())}, expected 0 or more.")
    # Take the minimum in Python: a count of 64 bits would wrap around in 32 bits.
    clipped = np.array([min(int(number), size) for number in known.ravel()], np.int32)
    return clipped.reshape(known.shape), True


def check_scores(where: str, scores: jax.Array, mask: jax.Array, finite: bool) -> None:
    """Check that the scores of a leaf can be ranked.

    Args:
      where: the leaf, in the error message.
      scores: `[...]`.
      mask: bool `[...]`, the weights that are ranked.
      finite: also check, outside `jit`, that their scores are finite.

    Raises:
      TypeError: if the scores are not floats.
      ValueError: if scores are not finite.

    Examples:
      >>> check_scores("leaf 'a'", jnp.array([1.0, jnp.nan]), jnp.array([True, True]), finite=True)
      Traceback (most recent call last):
      ValueError: 1 of the 2 scores of leaf 'a' are NaN or infinite;
      did training diverge? Lower the learning rate, or leave this member out.
    """
    if not is_floating(scores):
        raise TypeError(f"the scores of {where} have dtype {scores.dtype}, expected floats.")
    with np.errstate(over="ignore"):  # what is too large in JAX's type counts as infinite
        bad = concrete(_num_unusable(scores, mask)) if finite else 0
    if bad:
        raise ValueError(
            f"{bad} of the {mask.size} scores of {where} are NaN or infinite; "
            "did training diverge? Lower the learning rate, or leave this member out."
        )


def check_criterion(criterion: Any) -> None:
    """Check that a criterion is a function of three trees, not a name or a factory of criteria.

    Raises:
      TypeError: if it is not; names the registry of criteria.

    Examples:
      >>> check_criterion("large_final")
      Traceback (most recent call last):
      TypeError: the criterion is 'large_final', expected a function,
      such as criteria.CRITERIA['large_final'].
    """
    example = _entry("criteria.CRITERIA", criterion)
    check_function("criterion", criterion, example, ("w_i", "w_f", "mask"))


def check_action(kind: str, action: Any, registry: str) -> None:
    """Check that an action is a function of a key and three trees: see `check_criterion`.

    Args:
      kind: the kind of action, in the error message.
      action: the action.
      registry: the registry of such actions, in the error message.

    Raises:
      TypeError: if it is not such a function; names the registry.

    Examples:
      >>> check_action("action", "rewind", "actions.MASK_ONE")
      Traceback (most recent call last):
      TypeError: the action is 'rewind', expected a function, such as actions.MASK_ONE['rewind'].
    """
    check_function(kind, action, _entry(registry, action), ("key", "w_i", "w_f", "mask"))


def check_function(kind: str, function: Any, example: str, arguments: tuple[str, ...]) -> None:
    """Check that something is a function of the given arguments.

    Args:
      kind: what the function is, in the error message.
      function: the function.
      example: one that is right, in the error message.
      arguments: the names of its arguments.

    Raises:
      TypeError: if it is not such a function.

    Examples:
      >>> check_function("draw", "gumbel", "supermasks.bernoulli()", ("key", "logits", "prunable"))
      Traceback (most recent call last):
      TypeError: the draw is 'gumbel', expected a function, such as supermasks.bernoulli().
    """
    if not callable(function):
        raise TypeError(f"the {kind} is {shown(function)}, expected a function, such as {example}.")
    try:
        inspect.signature(function).bind(*arguments)
    except ValueError:  # some builtins have no signature
        return
    except TypeError:
        name = getattr(function, "__name__", shown(function))
        raise TypeError(
            f"the {kind} {name} does not take ({', '.join(arguments)}); if it returns a function "
            f"that does, pass that function: {name}(...)."
        ) from None


def warn(message: str) -> None:
    """Warn at the line that called this package from outside."""
    depth, frame = 2, sys._getframe(1)
    package = __name__.partition(".")[0]
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, stacklevel=depth)


def warn_of_lost_leaves(before: PyTree, after: PyTree) -> None:
    """Warn, outside `jit`, of the leaves of which a mask kept weights before and keeps none now."""
    leaves = jax.tree_util.tree_leaves_with_path(before)
    lost = [
        f"'{path_name(path)}'"
        for (path, old), new in zip(leaves, jax.tree.leaves(after), strict=True)
        if concrete(jnp.any(old) & ~jnp.any(new))
    ]
    if lost:
        warn(f"{', '.join(lost)} lost the last weight; least=1 keeps one in every leaf.")


def is_floating(leaf: Any) -> bool:
    """Tell whether a leaf holds real floating-point numbers of any width.

    Examples:
      >>> is_floating(np.ones(2)), is_floating(np.ones(2, int))
      (True, False)
    """
    return bool(jnp.issubdtype(leaf.dtype, jnp.floating))


def is_number_type(dtype: Any) -> bool:
    """Tell whether a type is one of numbers or bools, and not of text, objects or keys.

    Examples:
      >>> is_number_type(np.dtype(int)), is_number_type(np.dtype(object))
      (True, False)
    """
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.number, jnp.bool_))


def dtype_of(leaf: Any) -> np.dtype:
    """Return the type in which JAX computes with a leaf; 64 bits only if `jax_enable_x64` is set.

    Examples:
      >>> dtype_of(np.ones(2, np.float32))
      dtype('float32')
    """
    return jax.dtypes.canonicalize_dtype(leaf.dtype)


def widened(leaf: Any) -> jax.Array:
    """Convert floats to at least 32 bits, which sums, squares and sigmoids need.

    Examples:
      >>> widened(np.ones(2, np.float16)).dtype
      dtype('float32')
    """
    return jnp.asarray(leaf, _wide_dtype(leaf))


def widest(leaves: Iterable[jax.Array]) -> np.dtype:
    """Return a type of at least 32 bits that holds the floats of all leaves.

    Examples:
      >>> widest([jnp.ones(2, jnp.bfloat16), jnp.ones(2, jnp.float16)])
      dtype('float32')
    """
    return max(map(_wide_dtype, leaves), key=lambda dtype: dtype.itemsize)


def own(leaf: Any) -> jax.Array:
    """Convert a leaf to a JAX array that shares no memory with a NumPy array.

    Examples:
      >>> own(np.ones(2)).tolist()
      [1.0, 1.0]
    """
    return jnp.array(leaf) if isinstance(leaf, np.ndarray) else jnp.asarray(leaf)


def concrete(x: Any) -> np.ndarray | None:
    """Return the value of an array, or None if the array is traced and has no value.

    Examples:
      >>> concrete(jnp.ones(2)).tolist()
      [1.0, 1.0]
    """
    try:
        return np.asarray(x)
    except jax.errors.TracerArrayConversionError:
        return None


@jax.jit
def _num_unusable(scores: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.sum(mask & ~jnp.isfinite(scores), dtype=jnp.int32)


def _wide_dtype(leaf: Any) -> np.dtype:
    dtype = dtype_of(leaf)
    return np.dtype(np.float32) if jnp.finfo(dtype).bits < 32 else dtype


def _entry(registry: str, name: Any) -> str:
    return f"{registry}[{name!r}]" if isinstance(name, str) else f"one of {registry}"


def _check_leaves(trees: Mapping[str, PyTree], *, allow_shapes: bool) -> None:
    for name, tree in trees.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if wrong := _what_is_wrong(leaf, allow_shapes):
                raise TypeError(f"leaf '{path_name(path)}' of {name} is {wrong}")
    check_structure(**trees)
    check_shapes(**trees)


def _what_is_wrong(leaf: Any, allow_shapes: bool) -> str | None:
    """Say why a leaf is not an array of numbers, and what to do; None if it is one."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return None if allow_shapes else "a shape without values, expected an array."
    if isinstance(leaf, jax.Ref):
        return "a jax.Ref, expected an array; read it: ref[...]."
    if type(leaf).__module__.partition(".")[0] == "torch":
        return "a torch tensor, expected an array; convert it: tensor.numpy(force=True)."
    if isinstance(leaf, bool):
        return f"{leaf}, not an array of numbers; only prunable is a tree of Python bools."
    dtype = getattr(leaf, "dtype", None)
    if isinstance(dtype, np.dtype) and hasattr(leaf, "shape"):
        if dtype.type is np.void and dtype.names is None:
            lost = {1: "float8_e4m3fn", 2: "bfloat16"}.get(dtype.itemsize, "float32")
            return (
                f"an array of {dtype.str}, raw bytes whose type was lost in a file; "
                f"restore the type, for example with array.view(jnp.{lost})."
            )
        if is_number_type(dtype):
            if dtype.isnative:
                return None
            return (
                f"an array of {dtype.str}, not in the byte order of this machine; "
                "convert it: array.astype(array.dtype.newbyteorder('='))."
            )
    return (
        f"{_describe(leaf)}, not an array of numbers; "
        "pass only the parameters (equinox: eqx.partition, nnx: nnx.Param)."
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
        f"{here} and {there}; make both in the same way (flax nnx: nnx.to_pure_dict drops the "
        "metadata of variables)."
    )


def _shortened(line: str, place: int = 0) -> str:
    """Cut a line to `MOST_SHOWN` characters that include a given position."""
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
