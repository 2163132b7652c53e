"""The loss that a population is trained on, and the metrics that it is evaluated by."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from supermask_jax.training import Loss, Metrics

PyTree = Any
Apply = Callable[[PyTree, jax.Array], jax.Array]


class Objective(NamedTuple):
    """The training loss and the evaluation metrics of a population.

    Attributes:
      loss: the loss of a batch ``{"images", "labels", "step"}``; the step counts from 0.
      measure: ``(params, split, context) -> metrics``, with at least loss and accuracy, over a
        split from `eval_batches`.
    """

    loss: Loss
    measure: Callable[[PyTree, PyTree, Mapping[str, PyTree]], Metrics]


def classification(apply: Apply) -> Objective:
    """Return the objective of an ordinary classifier: mean softmax cross-entropy and accuracy.

    Args:
      apply: the network, ``(params, images float32 [B, H, W, C]) -> logits``.
    """
    return Objective(make_loss(apply), lambda params, split, context: measure(apply, params, split))


def make_loss(apply: Apply) -> Loss:
    """Return the loss of a batch ``{"images", "labels"}``: mean softmax cross-entropy, in nats.

    The accuracy, a fraction, is its metric.

    Args:
      apply: the network, ``(params, images float32 [B, H, W, C]) -> logits``.
    """

    def loss(params: PyTree, batch: PyTree, key: jax.Array, context: Any, /):
        logits = apply(params, normalise(batch["images"]))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])
        return jnp.mean(losses), {"accuracy": _accuracy(logits, batch["labels"])}

    return loss


def measure(apply: Apply, params: PyTree, split: PyTree) -> Metrics:
    """Return the mean loss and accuracy over a split.

    Args:
      apply: the network, ``(params, images float32 [B, H, W, C]) -> logits``.
      params: its parameters.
      split: from `eval_batches`.
    """
    loss = make_loss(apply)
    unused = jax.random.key(0)

    def add(total: Metrics, batch: PyTree) -> tuple[Metrics, None]:
        value, metrics = loss(params, batch, unused, {})
        return jax.tree.map(jnp.add, total, {"loss": value, **metrics}), None

    zeros = {"loss": jnp.float32(0), "accuracy": jnp.float32(0)}
    total, _ = lax.scan(add, zeros, split)
    return jax.tree.map(lambda x: x / len(split["labels"]), total)


def normalise(images: jax.Array) -> jax.Array:
    """Scale pixels from integers in [0, 255] to float32 in [0, 1]."""
    return images.astype(jnp.float32) / 255


def _accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.mean(jnp.argmax(logits, axis=-1) == labels, dtype=jnp.float32)
