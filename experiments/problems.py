"""What a member learns: a data set, a network for it, and the random keys of its seed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import datasets
from experiments.networks import Network, make_network
from supermask_jax import trees

PyTree = Any

# What a key is for: folded into the key of a seed and a round.
INIT, BATCHES, ADVANCE, LOSS, DRAWS = range(5)


class Problem(NamedTuple):
    """A network and the data set it learns.

    Attributes:
      dataset: train, validation and test.
      network: init and apply.
      params: shapes and types of one network's parameters.
      prunable: static tree of bools.
      batch_size: images per step.
    """

    dataset: datasets.Dataset
    network: Network
    params: PyTree
    prunable: PyTree
    batch_size: int

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of the training set."""
        return len(self.dataset.train.labels) // self.batch_size


def load_problem(network: str, dataset: str, batch_size: int, data_dir: str | None) -> Problem:
    """Load the data and make the network for it.

    Raises:
      ValueError: an unknown name, images too small, a batch above the training set.
      FileNotFoundError: data that is not there, with how to get it.
    """
    data = datasets.load(dataset, data_dir)
    num_train = len(data.train.labels)
    if batch_size > num_train:
        raise ValueError(f"config.batch_size is {batch_size}, above the {num_train} images.")
    height, width, channels = data.image_shape
    made = make_network(network, (height, width, channels), data.num_classes)
    params = jax.eval_shape(made.init, jax.random.key(0))
    return Problem(data, made, params, trees.prunable_leaves(params), batch_size)


def places(seeds: Sequence[int], distinct: Sequence[int]) -> np.ndarray:
    """The place of every member's seed among the different ones, int32 `[P]`."""
    return np.array([distinct.index(seed) for seed in seeds], np.int32)


def seed_keys(seeds: Sequence[int], round: int, purpose: int) -> jax.Array:
    """One key per seed, `[S]`, for a round and a purpose."""
    keys = [jax.random.fold_in(jax.random.key(seed), round) for seed in seeds]
    return jnp.stack([jax.random.fold_in(key, purpose) for key in keys])
