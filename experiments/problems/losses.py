"""Losses of classifiers, ``(logits float32 [B, C], labels int32 [B]) -> losses [B]``, in nats."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from experiments import backends, by_name
from supermask_jax.checks import lookup, shown

Losses = Callable[[jax.Array, jax.Array], jax.Array]


cross_entropy: Losses = optax.softmax_cross_entropy_with_integer_labels


def cross_entropy_by_selection(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the softmax cross-entropy, with the digits of `cross_entropy`, in the form of a TPU.

    Args:
      logits: float32 `[B, C]`.
      labels: int32 `[B]`, from 0 to C - 1.
    """
    return jax.nn.logsumexp(logits, axis=-1) - _of_labels(logits, labels)


@jax.custom_jvp
def _of_labels(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the logits of the labels, `[B]`, by a selection: TPUs gather single numbers slowly."""
    is_label = labels[:, None] == jnp.arange(logits.shape[-1])
    return jnp.sum(jnp.where(is_label, logits, 0.0), axis=-1)


@_of_labels.defjvp
def _of_labels_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    """Differentiate a gather instead, whose gradient has the digits of `cross_entropy`."""
    (logits, labels), (change, _) = primals, tangents
    places = labels[:, None]
    gathered = jnp.take_along_axis(change, places, axis=-1, mode="promise_in_bounds")
    return _of_labels(logits, labels), gathered[:, 0]


LOSSES: Mapping[str, Losses] = {"cross_entropy": cross_entropy}


def find_losses(text: str, num_classes: int, platform: str = "cpu") -> Losses:
    """Return the losses that ``config.loss`` names, after a check that computes nothing.

    Args:
      text: a key of `LOSSES`, or ``module:function``.
      num_classes: C.
      platform: where they will be computed; it chooses between forms with equal digits.

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
    if losses is cross_entropy and backends.takes_tpu_forms(platform):
        return cross_entropy_by_selection
    return losses
