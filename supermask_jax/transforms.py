"""Gradient transformations that respect a mask."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from supermask_jax.checks import check_mask, check_optimizer
from supermask_jax.paths import PyTree


def freeze_pruned(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Keep pruned weights exactly where they are, whatever the inner optimizer does.

    Gradients of pruned weights are zeroed before the inner optimizer, so that norms and
    clipping do not see them, and updates after it, so that weight decay, momentum and moments
    carried over from before pruning move nothing. The mask is an argument of `update`: one
    compiled step serves every round and every member of a population.

    Args:
      inner: any optax optimizer whose update has the structure of the gradients.

    Returns:
      A transformation whose ``update(grads, state, params, mask=mask)`` takes a bool tree
      `[...]`, True where a weight may move.

    >>> optimizer = freeze_pruned(optax.adamw(0.1))
    >>> params, mask = jnp.array([[1.0, 2.0]]), jnp.array([[True, False]])
    >>> updates, _ = optimizer.update(params, optimizer.init(params), params, mask=mask)
    >>> float(updates[0, 0]) < 0.0, float(optax.apply_updates(params, updates)[0, 1])
    (True, 2.0)
    """
    check_optimizer(inner)
    inner = optax.with_extra_args_support(inner)

    def update(
        updates: PyTree,
        state: PyTree,
        params: PyTree | None = None,
        *,
        mask: PyTree | None = None,
        **extra_args: Any,
    ) -> tuple[PyTree, PyTree]:
        if mask is None:
            raise TypeError(
                "freeze_pruned needs the mask: update(grads, state, params, mask=mask)."
            )
        check_mask(mask, updates=updates)
        kept = jax.tree.map(lambda m, u: jnp.where(m, u, jnp.zeros_like(u)), mask, updates)
        updates, state = inner.update(kept, state, params, **extra_args)
        # -0.0 is the float that adds nothing: 0.0 would turn a weight of -0.0 into 0.0.
        return jax.tree.map(lambda m, u: jnp.where(m, u, -jnp.zeros_like(u)), mask, updates), state

    return optax.GradientTransformationExtraArgs(inner.init, update)
