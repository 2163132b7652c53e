"""Mask-1 and mask-0 actions: what kept weights restart from and what pruned ones are set to.

Source: Zhou et al. 2019, sections 4 and 5. All functions have the contract of `trees.Action`:
``(key, w_i, w_f, mask) -> values``, trees of `[...]`. `reinit` and `constant` follow the
authors' code, which permutes a layer's own values; `resample` draws anew, as the paper says.

Variant 1 of the paper is `zero_if_shrunk`; variant 2 is `rewind_unless_shrunk` for kept
weights with `zero_if_shrunk` for pruned ones.

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
from supermask_jax.trees import EVERY_LEAF, Action, Key, leaf_keys


def rewind(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
    """Back to the start weights `w_i`."""
    check_mask(mask, w_i=w_i, w_f=w_f)
    return w_i


def reinit(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
    """The start weights of the whole layer in random order: a new draw with the same values."""
    check_mask(mask, w_i=w_i, w_f=w_f)
    return jax.tree.map(_permute, leaf_keys(key, w_i), w_i)


def reshuffle(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
    """The start weights of the kept weights, in random order among themselves."""
    check_mask(mask, w_i=w_i, w_f=w_f)
    return jax.tree.map(_permute_kept, leaf_keys(key, w_i), w_i, mask)


def constant(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
    """One magnitude with random signs: the layer's ``c * sign(w_i)`` in random order.

    c is the standard deviation of `w_i` over the whole layer.
    """
    check_mask(mask, w_i=w_i, w_f=w_f)
    return jax.tree.map(_permute, leaf_keys(key, w_i), jax.tree.map(_signed_constant, w_i))


def rewind_unless_shrunk(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
    """Back to `w_i`, but 0 for weights that training moved towards zero (variant 2)."""
    return _zero_where(lambda i, f: jnp.abs(f) < jnp.abs(i), w_i, w_f, mask)


def on_every_leaf(action: Action) -> Action:
    """Mark an action as one for the whole network.

    `rounds.advance` gives its values to leaves that are not prunable, too; those of other actions
    it discards there, and such leaves restart from `w_i`. The mark is an attribute of the function
    returned, so it goes outermost: ``on_every_leaf(keep_sign(action))``.
    """
    check_action("action", action, "actions.MASK_ONE")

    @functools.wraps(action)
    def marked(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
        return action(key, w_i, w_f, mask)

    setattr(marked, EVERY_LEAF, True)
    return marked


@on_every_leaf
def finetune(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
    """Go on from the final weights `w_f`: pruning and fine-tuning, without rewinding.

    Leaves that are not prunable go on too: half a network that was rewound is none.
    """
    check_mask(mask, w_i=w_i, w_f=w_f)
    return w_f


def keep_sign(action: Action) -> Action:
    """The action's magnitudes with the signs of `w_i`; zero where `w_i` is zero."""
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
    """An action that draws anew from the network's own initialiser, `key -> parameters`.

    Raises:
      TypeError: without an initialiser.
    """
    if not callable(init):
        raise TypeError("resample makes an action of an initialiser: actions.resample(init).")

    def resampled(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
        check_key(key)
        values = init(key)
        check_mask(mask, w_i=w_i, w_f=w_f, initialised=values)
        return values

    return resampled


def zero(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
    """Pruned weights become 0, as in the lottery ticket algorithm."""
    check_mask(mask, w_i=w_i, w_f=w_f)
    return jax.tree.map(jnp.zeros_like, w_i)


def freeze(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
    """Pruned weights stay at their start weights `w_i`."""
    check_mask(mask, w_i=w_i, w_f=w_f)
    return w_i


def zero_if_shrunk(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
    """0 for weights that training moved towards zero, else `w_i` (variant 1)."""
    return _zero_where(lambda i, f: jnp.abs(f) < jnp.abs(i), w_i, w_f, mask)


def zero_if_grown(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
    """0 for weights that training moved away from zero, else `w_i`: variant 1 reversed."""
    return _zero_where(lambda i, f: jnp.abs(f) > jnp.abs(i), w_i, w_f, mask)


def zero_shuffled(key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree) -> PyTree:
    """As many zeros as variant 1, at random among the pruned weights, else `w_i`: its control."""
    check_mask(mask, w_i=w_i, w_f=w_f)

    def shuffled(key: Key, i: jax.Array, f: jax.Array, pruned: jax.Array) -> jax.Array:
        if not is_floating(i):
            return jnp.asarray(i)
        num_zeros = jnp.sum(pruned & (jnp.abs(f) < jnp.abs(i)))
        chosen = jnp.arange(i.size) < num_zeros
        zeroed = jnp.zeros(i.size, bool).at[_random_order(key, pruned)].set(chosen)
        return jnp.where(zeroed.reshape(i.shape), jnp.zeros_like(i), i)

    return jax.tree.map(shuffled, leaf_keys(key, w_i), w_i, w_f, mask)


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
    if not (w_i.size and is_floating(w_i)):  # the mean of nothing is NaN
        return jnp.asarray(w_i)
    wide = widened(w_i)  # squares of 16 and 8 bits overflow and vanish
    return (jnp.std(wide) * jnp.sign(wide)).astype(dtype_of(w_i))


def _permute(key: Key, values: jax.Array) -> jax.Array:
    return jax.random.permutation(key, values.ravel()).reshape(values.shape)


def _permute_kept(key: Key, values: jax.Array, kept: jax.Array) -> jax.Array:
    flat, places = jnp.ravel(values), jnp.argsort(~kept.ravel(), stable=True)
    moved = jnp.zeros_like(flat).at[places].set(flat[_random_order(key, kept)])
    return jnp.where(kept, moved.reshape(values.shape), values)


def _random_order(key: Key, chosen: jax.Array) -> jax.Array:
    """Places of a leaf in random order, the chosen ones first: int32 `[size]`."""
    bits = jax.random.bits(key, (chosen.size,), jnp.uint32)
    places = jnp.arange(chosen.size, dtype=jnp.int32)
    return lax.sort((~chosen.ravel(), bits, places), num_keys=2)[-1]


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

MASK_ZERO: dict[str, Action] = {
    "zero": zero,
    "freeze": freeze,
    "zero_if_shrunk": zero_if_shrunk,
    "zero_if_grown": zero_if_grown,
    "zero_shuffled": zero_shuffled,
}
