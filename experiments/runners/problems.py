"""The problem of a configuration: its network and data set, its loss and its augmentation."""

import functools
from collections.abc import Sequence
from typing import Any

from experiments.problems.augmentation import augment
from experiments.problems.losses import find_losses
from experiments.problems.problem import Augment, Problem, load_problem
from experiments.runners.settings import Settings


def make_problem(
    config: Settings, data_dir: str | None, devices: Sequence[Any] | None = None
) -> Problem:
    """Load the data set of a configuration, and make all else that a member learns.

    Args:
      config: the settings.
      data_dir: see `datasets.load`.
      devices: see `Problem`.

    Raises:
      ValueError: if a setting does not fit the data or the network; the message names it.
      FileNotFoundError: if the data set is missing; the message says how to get it.
    """
    names = config.network, config.dataset
    sizes = config.batch_size, data_dir, config.num_validation
    problem = load_problem(*names, *sizes, devices)
    return problem._replace(
        losses=find_losses(config.loss, problem.dataset.num_classes, problem.platform),
        augment=_augmentation(config, problem),
    )


def _augmentation(config: Settings, problem: Problem) -> Augment | None:
    shift, flip, dataset = config.augment_shift, config.augment_flip, problem.dataset
    height, width, channels = dataset.image_shape
    if shift >= min(height, width):
        raise ValueError(
            f"config.augment_shift is {shift}, expected less than {min(height, width)}, the height "
            f"or width of the images of {dataset.name}."
        )
    if flip and channels == 1:
        raise ValueError(
            f"config.augment_flip is True, expected False for the gray images of {dataset.name}: "
            "a sign that is flipped may mean another class."
        )
    return functools.partial(augment, shift=shift, flip=flip) if shift or flip else None


def refuse_state(network: str, problem: Problem, lacking: str) -> None:
    """Check that a network has no state, where networks come from something that has none.

    Args:
      network: its name.
      problem: the network and the data set.
      lacking: what has no state, a noun in the plural, for the message.

    Raises:
      ValueError: if it has state.
    """
    if problem.model_state is not None:
        raise ValueError(
            f"config.network: {network} has state beside its parameters, such as the running "
            f"statistics of BatchNorm, which {lacking} lack; expected a network without, such as "
            "lenet300 or one with GroupNorm."
        )
