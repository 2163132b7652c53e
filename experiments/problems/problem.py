"""The pairing of a network with a data set."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from experiments import by_name, datasets
from experiments.problems import own_networks
from experiments.problems.losses import Losses, cross_entropy
from experiments.problems.networks import MODULES, NETWORKS, Network, make_network
from supermask_jax import trees
from supermask_jax.checks import lookup

PyTree = Any
Augment = Callable[[jax.Array, jax.Array], jax.Array]


class Problem(NamedTuple):
    """A network, the data set that it learns, and how.

    Attributes:
      dataset: the training, validation and test splits.
      network: the functions init and apply.
      params: the shapes and types of the parameters of one network.
      prunable: from `trees.prunable_leaves`.
      batch_size: images per step.
      losses: the loss of every image, which is trained and validated.
      augment: (key, images `[B, H, W, C]`) -> images of a training step; None leaves them alone.
      model_state: the shapes and types of the state of one network; None for one without state.
      on: the devices that it is learned on; None for all that JAX finds.
    """

    dataset: datasets.Dataset
    network: Network
    params: PyTree
    prunable: PyTree
    batch_size: int
    losses: Losses = cross_entropy
    augment: Augment | None = None
    model_state: PyTree = None
    on: Sequence[Any] | None = None

    @property
    def devices(self) -> Sequence[Any]:
        """The devices that it is learned on, of all processes."""
        return jax.devices() if self.on is None else self.on

    @property
    def platform(self) -> str:
        """The kind of its devices: cpu, gpu or tpu."""
        return self.devices[0].platform

    @property
    def steps_per_epoch(self) -> int:
        """The number of whole batches in the training set."""
        return len(self.dataset.train.labels) // self.batch_size


def load_problem(
    network: str,
    dataset: str,
    batch_size: int,
    data_dir: str | None,
    num_validation: int,
    devices: Sequence[Any] | None = None,
) -> Problem:
    """Load a data set and make the network for it.

    Args:
      network: a key of `NETWORKS` or `MODULES`, or ``MODULE:FUNCTION``, see `own_networks`.
      dataset: see `datasets`.
      batch_size: images per step.
      data_dir: see `datasets.load`.
      num_validation: see `datasets.load`.
      devices: see `Problem`.

    Raises:
      ValueError: if a name is unknown, the network does not fit the data set, or a batch is larger
        than the training set.
      TypeError: if a name is that of something that is not such a function.
      FileNotFoundError: if the data set is missing; the message says how to get it.
    """
    if not by_name.is_named(network):
        lookup("network", network, {**NETWORKS, **MODULES, by_name.FORM: None})
    data = datasets.load(dataset, data_dir, num_validation)
    num_train = len(data.train.labels)
    if batch_size > num_train:
        raise ValueError(
            f"config.batch_size is {batch_size}, expected at most the {num_train} training images."
        )
    height, width, channels = data.image_shape
    shape = height, width, channels
    if by_name.is_named(network):
        made = own_networks.make(network, shape, data.num_classes)
    else:
        platform = (jax.devices() if devices is None else devices)[0].platform
        made = make_network(network, shape, data.num_classes, platform)
    key = jax.random.key(0)
    params = jax.eval_shape(made.init, key)
    state = jax.eval_shape(made.init_state, key) if made.init_state else None
    prunable = trees.prunable_leaves(params)
    return Problem(data, made, params, prunable, batch_size, model_state=state, on=devices)
