"""Pruning at initialisation: SNIP, GraSP, SynFlow, magnitude and random masks, then trained.

Command: python -m experiments.run --config=experiments/configs/pruning_at_init.py:lenet300 \
    --workdir=runs/pruning_at_init
Networks: lenet300 (MNIST); conv2, conv4 and conv6 (CIFAR-10). `:NETWORK,tiny` takes seconds, and up
    to a few minutes with convolutions.
Run time: on two cores, lenet300 takes about 40 seconds per member, so 5 scores x 4 densities x 5
    seeds take an hour. The convolutions need an accelerator.
Expect for lenet300, as test error: Lee et al. 2019 report 1.6 % at 5 % and 2.4 % at 2 % of the
    weights for SNIP (recalled, not checked). Frankle et al. 2021 find for larger networks that
    no score at initialisation reaches the tickets that are found after training.
"""

from ml_collections import ConfigDict

from experiments.configs import base


def get_config(argument: str | None = None) -> ConfigDict:
    """Return the configuration; see `base.parse` for `argument`."""
    return base.pruning_at_init(
        argument,
        experiment="pruning_at_init",
        variants=("snip", "grasp", "synflow:100", "magnitude", "random"),
    )
