"""A network and the data set that it learns."""

from typing import Any, NamedTuple

import jax

from experiments import datasets
from experiments.problems.networks import Network, make_network
from supermask_jax import trees

PyTree = Any


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
