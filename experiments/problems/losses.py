"""Losses of classifiers, ``(logits float32 [B, C], labels int32 [B]) -> losses [B]``, in nats."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from experiments.functions import errors_in_one_line, find_function, is_function
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
    losses = find_function("loss", text) if is_function(text) else lookup("loss", text, LOSSES)
    size = num_classes + 1  # so that images and classes are not confused
    logits = jax.ShapeDtypeStruct((size, num_classes), jnp.float32)
    labels = jax.ShapeDtypeStruct((size,), jnp.int32)
    asked = f"expected the losses float32[{size}] of logits [{size}, {num_classes}]."
    with errors_in_one_line("loss", text):
        found = jax.eval_shape(losses, logits, labels)
    if not isinstance(found, jax.ShapeDtypeStruct):
        raise ValueError(f"config.loss: {text} returns {shown(found)}, {asked}")
    if found.shape != labels.shape or not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(f"config.loss: {text} returns {found.dtype}{list(found.shape)}, {asked}")
    with errors_in_one_line("loss", f"the gradient of {text}"):
        jax.eval_shape(jax.grad(lambda *batch: jnp.mean(losses(*batch))), logits, labels)
    return losses
