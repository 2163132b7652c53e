"""Mask actions: the values that kept (mask-1) and pruned (mask-0) weights restart from.

Source: Zhou et al. 2019, sections 4 and 5. Every action is a `trees.Action`,
`(key, w_i, w_f, mask) -> values`, on trees of leaves `[...]`: `w_i` are the start weights and
`w_f` the final weights of a round, and `mask` is True for the weights that the action sets.
`MASK_ONE` and `MASK_ZERO` list the actions by name. `reinit` and `constant` follow the authors'
code, which permutes the values of a layer; `resample` draws new values, as the paper says.

Variant 1 of the paper is the mask-0 action `zero_if_shrunk`. Variant 2 combines it with the mask-1
action `rewind_unless_shrunk`.

Examples:
  >>> key, w_i, w_f = jax.random.key(0), jnp.array([[0.5, -2.0]]), jnp.array([[0.1, -3.0]])
  >>> zero_if_shrunk(key, w_i, w_f, jnp.array([[True, True]])).tolist()
  [[0.0, -2.0]]
  >>> keep_sign(constant)(key, w_i, w_f, jnp.array([[True, True]])).tolist()
  [[1.25, -1.25]]
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from supermask_jax.checks import (
    check_action,
    check_key,
    check_mask,
    check_trees,
    dtype_of,
    is_floating,
    widened,
)
from supermask_jax.paths import PyTree
from supermask_jax.random_bits import random_bits
from supermask_jax.selection import highest
from supermask_jax.shardings import sharded_as, whole
from supermask_jax.trees import EVERY_LEAF, Action, Key, leaf_keys


def rewind(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
    """Rewind to the start weights: `w_i`.

    Examples:
      >>> key, mask = jax.random.key(0), jnp.array([True, True, False])
      >>> w_i, w_f = jnp.array([0.5, -2.0, 1.0]), jnp.array([0.1, -3.0, 2.0])
      >>> rewind(key, w_i, w_f, mask).tolist()
      [0.5, -2.0, 1.0]
    """
    check_mask(mask, w_i=w_i, w_f=w_f)
    return w_i


def reinit(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
    """Permute the start weights of each whole layer at random.

    This reinitialises a layer with the same values in other places.

    Examples:
      >>> key, mask = jax.random.key(0), jnp.array([True, True, False])
      >>> w_i, w_f = jnp.array([0.5, -2.0, 1.0]), jnp.array([0.1, -3.0, 2.0])
      >>> sorted(reinit(key, w_i, w_f, mask).tolist())
      [-2.0, 0.5, 1.0]
    """
    check_mask(mask, w_i=w_i, w_f=w_f)
    return jax.tree.map(_permute, leaf_keys(key, w_i), w_i)


def reshuffle(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
    """Permute the start weights at random among the kept weights of each layer.

    Examples:
      >>> key, mask = jax.random.key(0), jnp.array([True, True, False])
      >>> w_i, w_f = jnp.array([0.5, -2.0, 1.0]), jnp.array([0.1, -3.0, 2.0])
      >>> sorted(reshuffle(key, w_i, w_f, mask)[:2].tolist())
      [-2.0, 0.5]
    """
    check_mask(mask, w_i=w_i, w_f=w_f)
    return jax.tree.map(_permute_kept, leaf_keys(key, w_i), w_i, mask)


def constant(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
    """Give all weights of a layer one magnitude and random signs: permuted `c * sign(w_i)`.

    Here c is the standard deviation of `w_i` over the whole layer.

    Examples:
      >>> w_i, mask = jnp.array([0.5, -2.0]), jnp.array([True, True])
      >>> sorted(constant(jax.random.key(0), w_i, w_i, mask).tolist())
      [-1.25, 1.25]
    """
    check_mask(mask, w_i=w_i, w_f=w_f)
    return jax.tree.map(lambda key, w: _permute(key, w, _signed_constant), leaf_keys(key, w_i), w_i)


def rewind_unless_shrunk(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
    """Rewind to `w_i`, but set weights with `|w_f| < |w_i|` to 0 (variant 2).

    These are the weights that training moved towards zero.

    Examples:
      >>> key, mask = jax.random.key(0), jnp.array([True, True, False])
      >>> w_i, w_f = jnp.array([0.5, -2.0, 1.0]), jnp.array([0.1, -3.0, 2.0])
      >>> rewind_unless_shrunk(key, w_i, w_f, mask).tolist()
      [0.0, -2.0, 1.0]
    """
    return _zero_where(lambda i, f: jnp.abs(f) < jnp.abs(i), w_i, w_f, mask)


def on_every_leaf(action: Action) -> Action:
    """Mark a mask-1 action as one for the whole network.

    `rounds.advance` normally uses the values of an action on prunable leaves only; all other leaves
    restart from `w_i`. With a marked action, the other leaves get its values, too. The mark is an
    attribute of the returned function, so apply this function last:
    `on_every_leaf(keep_sign(action))`.

    Args:
      action: a `trees.Action`.

    Returns:
      The marked action.

    Raises:
      TypeError: if `action` is not a function of `(key, w_i, w_f, mask)`.

    Examples:
      >>> decay = on_every_leaf(lambda key, w_i, w_f, mask: jax.tree.map(lambda w: w / 2, w_f))
      >>> decay(jax.random.key(0), jnp.ones(2), jnp.ones(2), jnp.ones(2, bool)).tolist()
      [0.5, 0.5]
    """
    check_action("action", action, "actions.MASK_ONE")

    @functools.wraps(action)
    def marked(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
        return action(key, w_i, w_f, mask)

    setattr(marked, EVERY_LEAF, True)
    return marked


@on_every_leaf
def finetune(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
    """Continue from the final weights `w_f`: pruning and fine-tuning, without rewinding.

    This action is marked by `on_every_leaf`: leaves that are not prunable continue from `w_f`, too,
    because a network must not be rewound in part.

    Examples:
      >>> key, mask = jax.random.key(0), jnp.array([True, True, False])
      >>> w_i, w_f = jnp.array([0.5, -2.0, 1.0]), jnp.array([0.1, -3.0, 2.0])
      >>> finetune(key, w_i, w_f, mask).round(1).tolist()
      [0.10000000149011612, -3.0, 2.0]
    """
    check_mask(mask, w_i=w_i, w_f=w_f)
    return w_f


def keep_sign(action: Action) -> Action:
    """Combine the magnitudes of an action with the signs of `w_i`; zero where `w_i` is zero.

    Args:
      action: a `trees.Action`.

    Returns:
      An action.

    Raises:
      TypeError: if `action` is not a function of `(key, w_i, w_f, mask)`.

    Examples:
      >>> w_i, mask = jnp.array([0.5, -2.0, 0.0]), jnp.ones(3, bool)
      >>> keep_sign(finetune)(jax.random.key(0), w_i, jnp.array([-1.0, 3.0, 4.0]), mask).tolist()
      [1.0, -3.0, 0.0]
    """
    check_action("action", action, "actions.MASK_ONE")

    def signed(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
        values = action(key, w_i, w_f, mask)
        check_trees(w_i=w_i, action=values)

        def sign(value: jax.Array, i: jax.Array) -> jax.Array:
            if not is_floating(i):
                return value
            return jnp.abs(jnp.asarray(value, dtype_of(i))) * jnp.sign(i)

        return jax.tree.map(sign, values, w_i)

    return signed


def resample(init: Callable[[Key], PyTree]) -> Action:
    """Make an action that draws new weights from the initialiser of the network.

    Args:
      init: `key -> params`, which returns a tree with the structure and shapes of `w_i`.

    Returns:
      An action.

    Raises:
      TypeError: if `init` is not callable. When called: if `key` is not a typed key.
      ValueError: when called, if `init` returns a tree of another structure or of other shapes.

    Examples:
      >>> redraw = resample(lambda key: jax.random.normal(key, (2,)))
      >>> redraw(jax.random.key(0), jnp.ones(2), jnp.ones(2), jnp.ones(2, bool)).shape
      (2,)
    """
    if not callable(init):
        raise TypeError("resample makes an action from an initialiser: actions.resample(init).")

    def resampled(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
        check_key(key)
        values = init(key)
        check_mask(mask, w_i=w_i, w_f=w_f, initialised=values)
        return values

    return resampled


def zero(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
    """Set pruned weights to 0, as in the lottery ticket algorithm.

    Examples:
      >>> key, mask = jax.random.key(0), jnp.array([True, True, False])
      >>> w_i, w_f = jnp.array([0.5, -2.0, 1.0]), jnp.array([0.1, -3.0, 2.0])
      >>> zero(key, w_i, w_f, ~mask).tolist()
      [0.0, 0.0, 0.0]
    """
    check_mask(mask, w_i=w_i, w_f=w_f)
    return jax.tree.map(jnp.zeros_like, w_i)


def freeze(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
    """Freeze pruned weights at their start weights `w_i`.

    Examples:
      >>> key, mask = jax.random.key(0), jnp.array([True, True, False])
      >>> w_i, w_f = jnp.array([0.5, -2.0, 1.0]), jnp.array([0.1, -3.0, 2.0])
      >>> freeze(key, w_i, w_f, ~mask).tolist()
      [0.5, -2.0, 1.0]
    """
    check_mask(mask, w_i=w_i, w_f=w_f)
    return w_i


def zero_if_shrunk(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
    """Set weights with `|w_f| < |w_i|` to 0 and freeze the others at `w_i` (variant 1).

    Examples:
      >>> key, mask = jax.random.key(0), jnp.array([True, True, False])
      >>> w_i, w_f = jnp.array([0.5, -2.0, 1.0]), jnp.array([0.1, -3.0, 2.0])
      >>> zero_if_shrunk(key, w_i, w_f, mask).tolist()
      [0.0, -2.0, 1.0]
    """
    return _zero_where(lambda i, f: jnp.abs(f) < jnp.abs(i), w_i, w_f, mask)


def zero_if_grown(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
    """Set weights with `|w_f| > |w_i|` to 0 and freeze the others at `w_i`: variant 1 reversed.

    Examples:
      >>> key, mask = jax.random.key(0), jnp.array([True, True, False])
      >>> w_i, w_f = jnp.array([0.5, -2.0, 1.0]), jnp.array([0.1, -3.0, 2.0])
      >>> zero_if_grown(key, w_i, w_f, mask).tolist()
      [0.5, 0.0, 0.0]
    """
    return _zero_where(lambda i, f: jnp.abs(f) > jnp.abs(i), w_i, w_f, mask)


def zero_shuffled(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
    """Set as many pruned weights to 0 as `zero_if_shrunk` does, chosen at random: its control.

    The others are frozen at `w_i`.

    Examples:
      >>> key, mask = jax.random.key(0), jnp.array([True, True, False])
      >>> w_i, w_f = jnp.array([0.5, -2.0, 1.0]), jnp.array([0.1, -3.0, 2.0])
      >>> int((zero_shuffled(key, w_i, w_f, mask) == 0).sum())
      1
    """
    check_mask(mask, w_i=w_i, w_f=w_f)

    def shuffled(key: Key, i: jax.Array, f: jax.Array, pruned: jax.Array) -> jax.Array:
        if not is_floating(i):
            return jnp.asarray(i)
        num_zeros = jnp.sum(pruned & (jnp.abs(f) < jnp.abs(i)), dtype=jnp.int32)
        ties = jnp.zeros_like(i, jnp.float32)  # all weights tie, so that the choice is random
        (zeroed,) = _highest(key, [ties], [pruned], num_zeros)
        return jnp.where(zeroed, jnp.zeros_like(i), i)

    return jax.tree.map(shuffled, leaf_keys(key, w_i), w_i, w_f, mask)


_highest = jax.jit(highest)


def _zero_where(
    condition: Callable[[jax.Array, jax.Array], jax.Array], w_i: PyTree, w_f: PyTree, mask: PyTree
) -> PyTree:
    check_mask(mask, w_i=w_i, w_f=w_f)

    def zeroed(i: jax.Array, f: jax.Array) -> jax.Array:
        if not is_floating(i):
            return jnp.asarray(i)
        return jnp.where(condition(i, f), jnp.zeros_like(i), i)

    return jax.tree.map(zeroed, w_i, w_f)


def _signed_constant(w_i: jax.Array) -> jax.Array:
    if not (w_i.size and is_floating(w_i)):  # the deviation of no values is NaN
        return jnp.asarray(w_i)
    wide = widened(w_i)  # squares in 16 or 8 bits overflow or underflow
    return (jnp.std(wide) * jnp.sign(wide)).astype(dtype_of(w_i))


def _permute(
    key: Key, values: jax.Array, convert: Callable[[jax.Array], jax.Array] = jnp.asarray
) -> jax.Array:
    """Permute the converted values of a leaf, which every device of a mesh gathers whole."""
    moved = jax.random.permutation(key, convert(whole(values)).ravel())
    return sharded_as(moved.reshape(values.shape), values)


def _permute_kept(key: Key, values: jax.Array, kept: jax.Array) -> jax.Array:
    flat, chosen = whole(values).ravel(), whole(kept).ravel()
    bits = random_bits(key, flat)
    *_, moved = lax.sort((~chosen, bits, flat), num_keys=2)  # stable: equal bits stay in order
    number = jnp.cumsum(chosen, dtype=jnp.int32) - 1
    moved = jnp.where(chosen, moved[number], flat)
    return sharded_as(moved.reshape(values.shape), values)


MASK_ONE: dict[str, Action] = {
    "rewind": rewind,
    "finetune": finetune,
    "reinit": reinit,
    "reshuffle": reshuffle,
    "constant": constant,
    "reinit_keep_sign": keep_sign(reinit),
    "reshuffle_keep_sign": keep_sign(reshuffle),
    "constant_keep_sign": keep_sign(constant),
    "rewind_unless_shrunk": rewind_unless_shrunk,
}
"""Mask-1 actions, for kept weights, by name."""

MASK_ZERO: dict[str, Action] = {
    "zero": zero,
    "freeze": freeze,
    "zero_if_shrunk": zero_if_shrunk,
    "zero_if_grown": zero_if_grown,
    "zero_shuffled": zero_shuffled,
}
"""Mask-0 actions, for pruned weights, by name."""
