"""What transformations with a mask share: steps of kept weights, and trees that optax cuts."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from supermask_jax.checks import check_mask
from supermask_jax.paths import PyTree

# Extra arguments of optax that are functions of the weights: of line searches, and of sophia.
OF_WEIGHTS = ("value_fn", "obj_fn")


def step_kept(
    who: str,
    inner: optax.GradientTransformationExtraArgs,
    mask: PyTree,
    updates: PyTree,
    inner_state: PyTree,
    params: PyTree | None,
    extra_args: dict[str, Any],
) -> tuple[PyTree, PyTree]:
    """Let an inner optimizer step on gradients that are zero where the mask is False.

    Args:
      who: the transformation, in error messages.
      inner: the inner optimizer.
      mask: bool `[...]` per leaf, from `cut_to`.
      updates: the gradients `[...]`.
      inner_state: the state of the inner optimizer.
      params: the weights `[...]`, if there are any.
      extra_args: of `update`; made independent of pruned weights where they are known.

    Returns:
      The updates, which may still move pruned weights, and the next state of the inner optimizer.

    Raises:
      TypeError: if the mask is not boolean, or if the updates have another structure.
      ValueError: if the mask does not fit the gradients.
    """
    check_fits(who, mask, updates=updates)
    new, inner_state = inner.update(
        zero_pruned(mask, updates), inner_state, params, **_masked(extra_args, mask, params)
    )
    if jax.tree.structure(new) != jax.tree.structure(updates):
        raise TypeError(_of_another_structure(who))
    return new, inner_state


def cut_to(tree: PyTree, whole: PyTree) -> PyTree:
    """Return the parts of a whole tree that optax has not hidden in another tree."""
    if not _hides(tree):
        return whole
    try:
        return jax.tree.map(
            lambda node, part: node if is_hidden(node) else part, tree, whole, is_leaf=is_hidden
        )
    except ValueError:  # another network; the check that follows says where it differs
        return whole


def zero_pruned(mask: PyTree, tree: PyTree) -> PyTree:
    """Return a tree with zeros where the mask is False."""
    return jax.tree.map(lambda m, x: jnp.where(m, x, jnp.zeros_like(x)), mask, tree)


def to_zero(mask: PyTree, updates: PyTree, params: PyTree) -> PyTree:
    """Replace the updates of pruned weights by those that make the weights exactly zero.

    A weight w gets `-w`, and w + (-w) is 0 if w is finite. The updates have a type that holds the
    weights.
    """

    def replace(kept: jax.Array, update: jax.Array, weight: jax.Array) -> jax.Array:
        if update.dtype != weight.dtype:
            update = update.astype(jnp.promote_types(update.dtype, weight.dtype))
        return jnp.where(kept, update, -weight.astype(update.dtype))

    return jax.tree.map(replace, mask, updates, params)


def only_if(event: jax.Array, change: Callable[[PyTree], PyTree], tree: PyTree) -> PyTree:
    """Return `change(tree)` if an event happens, and else the tree, without the work of a change.

    `vmap` turns the conditional into a selection, which needs both outcomes. The loop of at most
    one turn still spares the work where no member has an event. The loop alone would do: but
    outside `vmap`, XLA moves what does not depend on its turn out of it, into every step.
    """

    def once(tree: PyTree) -> PyTree:
        def turn(state: tuple[jax.Array, PyTree]) -> tuple[jax.Array, PyTree]:
            return jnp.zeros_like(event), change(state[1])

        return lax.while_loop(lambda state: state[0], turn, (event, tree))[1]

    return lax.cond(event, once, lambda tree: tree, tree)


def needed(who: str, params: PyTree | None) -> PyTree:
    """Return the weights that a call of `update` got.

    Raises:
      TypeError: if there are none.
    """
    if params is None:
        raise TypeError(f"{who} needs the weights: pass them, update(grads, state, params).")
    return params


def like(tree: PyTree, other: PyTree) -> PyTree:
    """Put the leaves of a tree into the containers of another (flax nnx unwraps its leaves)."""
    structure, leaves = jax.tree.structure(other), jax.tree.leaves(tree)
    return structure.unflatten(leaves) if structure.num_leaves == len(leaves) else tree


def is_hidden(node: PyTree) -> bool:
    """Tell whether optax has put a node in the place of a leaf that it hides."""
    return isinstance(node, optax.MaskedNode)


def check_fits(who: str, mask: PyTree, **trees: PyTree) -> None:
    """Check a mask, with hints on frequent causes of a wrong one.

    Raises:
      TypeError: if it is not boolean, or if the tree is that of `optax.lookahead`.
      ValueError: if it has another structure or other shapes.
    """
    tree = next(iter(trees.values()))
    if isinstance(tree, optax.LookaheadParams):
        raise TypeError(_of_another_structure(who))
    alone = jax.tree.structure(0)
    if jax.tree.structure(tree) == alone != jax.tree.structure(mask) and tree.ndim == 1:
        raise ValueError(
            f"{who} gets one array and the mask of a tree; put what changes the tree "
            f"inside: {who}(optax.flatten(optimizer))."
        )
    check_mask(mask, **trees)


def _hides(tree: PyTree) -> bool:
    return any(map(is_hidden, jax.tree.leaves(tree, is_leaf=is_hidden)))


def _of_another_structure(who: str) -> str:
    return (
        f"the inner optimizer of {who} returns updates of another structure than the gradients; "
        "if it is optax.lookahead, freeze the fast weights: "
        "optax.lookahead(freeze_pruned(fast_optimizer, mask), ...)."
    )


def _masked(extra_args: dict[str, Any], mask: PyTree, params: PyTree | None) -> dict[str, Any]:
    """Mask the extra arguments, so that they do not depend on pruned weights."""
    masked = dict(extra_args)
    grad = cut_to(mask, extra_args.get("grad"))
    if grad is not None and jax.tree.structure(grad) == jax.tree.structure(mask):
        masked["grad"] = zero_pruned(mask, grad)
    if _hides(mask) or params is None:
        return masked
    for name in (*OF_WEIGHTS, "grad_fn"):
        if callable(extra_args.get(name)):
            masked[name] = _of_kept(extra_args[name], mask, params)
    if callable(grad_fn := masked.get("grad_fn")):
        masked["grad_fn"] = lambda *args, **kwargs: zero_pruned(mask, grad_fn(*args, **kwargs))
    return masked


def _of_kept(function: Callable, mask: PyTree, params: PyTree) -> Callable:
    """Return a function of weights that takes pruned weights from `params` instead."""

    @functools.wraps(function)
    def of_kept(new: PyTree, *args: Any, **kwargs: Any) -> Any:
        return function(jax.tree.map(jnp.where, mask, new, params), *args, **kwargs)

    return of_kept
