"""Batches for training and evaluation, from a data set that is entirely on the devices."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.datasets import Dataset, Split
from experiments.engine.forecast import largest_value

PyTree = Any

EVAL_BATCH = 1000  # images; fewer if their largest layer would take more than EVAL_BYTES
EVAL_BYTES = 2**25
# Each chunk would first copy a training set of images into the layout of a TPU: rows of a multiple
# of so many bytes have that layout already.
ROW_MULTIPLE = 128


def train_data(split: Split) -> PyTree:
    """Return a training set as `get_batch` takes it.

    Args:
      split: `N` images and labels.

    Returns:
      ``images``, uint8 `[N, R]`: the pixels of each image in one row, followed by zeros up to a
      multiple of `ROW_MULTIPLE`; and ``labels``.
    """
    pixels = split.images.reshape(len(split.images), -1)
    missing = -pixels.shape[1] % ROW_MULTIPLE
    images = np.pad(pixels, ((0, 0), (0, missing))) if missing else pixels
    return {"images": images, "labels": split.labels}


def get_batch(data: PyTree, order: jax.Array, step: jax.Array) -> PyTree:
    """Return the training images and labels of one step, and the step.

    Args:
      data: as `examples` takes it, and ``batches`` from `batch_table`.
      order: the index of the order of batches, an integer `[]`.
      step: the step, an integer `[]`.
    """
    return examples(data, data["batches"][order, step]) | {"step": step}


def examples(data: PyTree, chosen: jax.Array | slice) -> PyTree:
    """Return some training images, uint8 `[B, H, W, C]`, and their labels.

    Args:
      data: ``train`` from `train_data`, and ``validation`` from `eval_batches`, whose images have
        the same shape.
      chosen: their indices, integers `[B]`, or a slice.
    """
    train = jax.tree.map(lambda x: x[chosen], data["train"])
    shape = data["validation"]["images"].shape[2:]
    images = train["images"][:, : math.prod(shape)].reshape(-1, *shape)
    return {"images": images, "labels": train["labels"]}


def batch_table(
    keys: jax.Array, *, num_examples: int, num_steps: int, batch_size: int
) -> jax.Array:
    """Return the indices of the examples of every step, `[S, num_steps, batch_size]`.

    Every epoch has a new permutation; the examples left over at its end are dropped.

    Args:
      keys: `[S]`, one per order of batches.
      num_examples: the size of the training set.
      num_steps: the steps of a training.
      batch_size: the examples of a step.
    """
    per_epoch = num_examples // batch_size

    def epoch(key: jax.Array) -> jax.Array:
        order = jax.random.permutation(key, num_examples)[: per_epoch * batch_size]
        return order.reshape(per_epoch, batch_size).astype(_index_type(num_examples))

    def whole(key: jax.Array) -> jax.Array:
        epochs = jnp.arange(-(-num_steps // per_epoch))
        orders = lax.map(lambda i: epoch(jax.random.fold_in(key, i)), epochs)
        return orders.reshape(-1, batch_size)[:num_steps]

    return lax.map(whole, keys)


def eval_data(
    apply: Callable[..., jax.Array], params: PyTree, dataset: Dataset, *model_state: PyTree
) -> dict[str, PyTree]:
    """Return validation and test set in batches whose largest layer fits into `EVAL_BYTES`.

    Args:
      apply: the network, ``(params, images, *model_state) -> logits``.
      params: its parameters, or their shapes and types.
      dataset: the data set.
      *model_state: the shapes and types of its state, if it has one.

    Returns:
      ``validation`` and ``test``, each from `eval_batches`.
    """
    image = np.empty((1, *dataset.image_shape), np.float32)
    size = min(EVAL_BATCH, max(1, EVAL_BYTES // largest_value(apply, params, image, *model_state)))
    return {
        "validation": eval_batches(dataset.validation, size),
        "test": eval_batches(dataset.test, size),
    }


def eval_batches(split: Split, most: int = EVAL_BATCH) -> PyTree:
    """Return a split as batches of equal size, `[N, B, ...]` per array.

    Args:
      split: `[N * B, ...]` per array.
      most: the upper limit of B, which is the largest divisor of the number of images below it.
    """
    count = len(split.labels)
    size = max(b for b in range(1, min(count, most) + 1) if count % b == 0)
    return {name: x.reshape(-1, size, *x.shape[1:]) for name, x in split._asdict().items()}


def _index_type(num_examples: int) -> type:
    """Return the smallest type that indexes a training set: the tables of batches are long."""
    return np.uint16 if num_examples <= 2**16 else np.int32
