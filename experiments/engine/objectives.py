"""The loss that a population is trained on, and the metrics that it is evaluated by."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from experiments.problems.losses import Losses, cross_entropy
from experiments.problems.problem import Problem
from experiments.problems.seeds import AUGMENTATION
from supermask_jax.training import Loss, LossWithState, Metrics

PyTree = Any
Apply = Callable[[PyTree, jax.Array], jax.Array]


class Objective(NamedTuple):
    """The training loss and the evaluation metrics of a population.

    Attributes:
      loss: the loss of a batch ``{"images", "labels", "step"}``; the step counts from 0.
      measure: ``(params, split, context) -> metrics``, with at least loss and accuracy, over a
        split from `eval_batches`; of a network with state, ``(params, split, context, model_state)
        -> metrics``.
    """

    loss: Loss | LossWithState
    measure: Callable[..., Metrics]


def classification(problem: Problem) -> Objective:
    """Return the objective of an ordinary classifier: its mean loss and accuracy.

    Args:
      problem: the network, the data set and the loss.
    """
    network, losses = problem.network, problem.losses

    def measure_all(
        params: PyTree, split: PyTree, context: Mapping[str, PyTree], *model_state: PyTree
    ) -> Metrics:
        def apply(params: PyTree, images: jax.Array) -> jax.Array:
            return network.apply(params, images, *model_state)

        return measure(apply, params, split, losses)

    return Objective(training_loss(problem), measure_all)


def training_loss(problem: Problem) -> Loss | LossWithState:
    """Return the loss of a step: that of `make_loss`, of augmented images.

    The key of a step augments its images, so members with one seed see the same ones.

    Args:
      problem: the network, the loss and the augmentation.
    """
    plain, augment = _plain_loss(problem), problem.augment
    if augment is None:
        return plain

    def loss(params: PyTree, batch: PyTree, key: jax.Array, context: Any, /, *model_state: PyTree):
        images = augment(jax.random.fold_in(key, AUGMENTATION), batch["images"])
        return plain(params, {**batch, "images": images}, key, context, *model_state)

    return loss


def _plain_loss(problem: Problem) -> Callable[..., Any]:
    """Return the loss of a step with the images as they are."""
    network, losses = problem.network, problem.losses
    apply_training = network.apply_training
    if apply_training is None:
        return make_loss(network.apply, losses)

    def loss(params: PyTree, batch: PyTree, key: jax.Array, context: Any, model_state: PyTree, /):
        logits, model_state = apply_training(params, normalise(batch["images"]), model_state)
        return *_mean_loss(losses, logits, batch["labels"]), model_state

    return loss


def make_loss(apply: Apply, losses: Losses = cross_entropy) -> Loss:
    """Return the mean loss of a batch ``{"images", "labels"}``, in nats.

    The accuracy, a fraction, is its metric.

    Args:
      apply: the network, ``(params, images float32 [B, H, W, C]) -> logits``.
      losses: the loss of every image, by default the softmax cross-entropy.
    """

    def loss(params: PyTree, batch: PyTree, key: jax.Array, context: Any, /):
        return _mean_loss(losses, apply(params, normalise(batch["images"])), batch["labels"])

    return loss


def measure(apply: Apply, params: PyTree, split: PyTree, losses: Losses = cross_entropy) -> Metrics:
    """Return the mean loss and accuracy over a split.

    Args:
      apply: the network, ``(params, images float32 [B, H, W, C]) -> logits``.
      params: its parameters.
      split: from `eval_batches`.
      losses: the loss of every image, by default the softmax cross-entropy.
    """
    loss = make_loss(apply, losses)
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


def _mean_loss(losses: Losses, logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, Metrics]:
    value = jnp.mean(losses(logits, labels))
    accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == labels, dtype=jnp.float32)
    return value, {"accuracy": accuracy}
