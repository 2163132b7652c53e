"""Losses of classifiers, ``(logits float32 [B, C], labels int32 [B]) -> losses [B]``, in nats."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from experiments import by_name
from supermask_jax.checks import lookup, shown

Losses = Callable[[jax.Array, jax.Array], jax.Array]

cross_entropy: Losses = optax.softmax_cross_entropy_with_integer_labels

LOSSES: Mapping[str, Losses] = {"cross_entropy": cross_entropy}


def find_losses(text: str, num_classes: int) -> Losses:
    """Return the losses that ``config.loss`` names, after a check that computes nothing.

    Args:
      text: a key of `LOSSES`, or ``module:function``.
      num_classes: C.

    Raises:
      ValueError: if there is no such function, or if it or its gradient fails or returns anything
        but floats `[B]`.
    """
    name = by_name.with_colon(text)
    is_own = by_name.is_named(name)
    losses = by_name.find("loss", name) if is_own else lookup("loss", name, LOSSES)
    module = by_name.module_of(name)
    size = num_classes + 1  # so that images and classes are not confused
    logits = jax.ShapeDtypeStruct((size, num_classes), jnp.float32)
    labels = jax.ShapeDtypeStruct((size,), jnp.int32)
    asked = f"expected the losses float32[{size}] of logits [{size}, {num_classes}]."
    with by_name.explained(f"the loss {name}", module):
        found = jax.eval_shape(losses, logits, labels)
    if not isinstance(found, jax.ShapeDtypeStruct):
        raise ValueError(f"config.loss: {text} returns {shown(found)}, {asked}")
    if found.shape != labels.shape or not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(f"config.loss: {text} returns {found.dtype}{list(found.shape)}, {asked}")
    with by_name.explained(f"the gradient of the loss {name}", module):
        jax.eval_shape(jax.grad(lambda *batch: jnp.mean(losses(*batch))), logits, labels)
    return losses
