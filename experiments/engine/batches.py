"""Batches of a data set that lives on the devices whole: for training and for evaluation."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.datasets import Dataset, Split
from experiments.engine.forecast import largest_value

PyTree = Any

EVAL_BATCH = 1000  # images, fewer if their largest layer took more than
EVAL_BYTES = 2**25


def get_batch(data: PyTree, order: jax.Array, step: jax.Array) -> PyTree:
    """The training images and labels of a step of one order of batches."""
    chosen = data["batches"][order, step]
    return jax.tree.map(lambda x: x[chosen], data["train"])


def batch_table(
    keys: jax.Array, *, num_examples: int, num_steps: int, batch_size: int
) -> jax.Array:
    """Which examples every step sees: integers `[S, num_steps, batch_size]` for keys `[S]`.

    A fresh permutation each epoch; the examples left over at its end are dropped.
    """
    per_epoch = num_examples // batch_size

    def epoch(key: jax.Array) -> jax.Array:
        order = jax.random.permutation(key, num_examples)[: per_epoch * batch_size]
        return order.reshape(per_epoch, batch_size).astype(index_type(num_examples))

    def whole(key: jax.Array) -> jax.Array:
        epochs = jnp.arange(-(-num_steps // per_epoch))
        orders = lax.map(lambda i: epoch(jax.random.fold_in(key, i)), epochs)
        return orders.reshape(-1, batch_size)[:num_steps]

    return lax.map(whole, keys)


def eval_data(
    apply: Callable[[PyTree, jax.Array], jax.Array], params: PyTree, dataset: Dataset
) -> dict[str, PyTree]:
    """Validation and test in batches whose largest layer takes no more than `EVAL_BYTES`."""
    image = np.empty((1, *dataset.image_shape), np.float32)
    size = min(EVAL_BATCH, max(1, EVAL_BYTES // largest_value(apply, params, image)))
    return {
        "validation": eval_batches(dataset.validation, size),
        "test": eval_batches(dataset.test, size),
    }


def eval_batches(split: Split, most: int = EVAL_BATCH) -> PyTree:
    """A split cut into equal batches `[N, B, ...]` of at most so many images."""
    count = len(split.labels)
    size = max(b for b in range(1, min(count, most) + 1) if count % b == 0)
    return {name: x.reshape(-1, size, *x.shape[1:]) for name, x in split._asdict().items()}


def index_type(num_examples: int) -> type:
    """The smallest type of an index into a training set; tables of batches are long."""
    return np.uint16 if num_examples <= 2**16 else np.int32
