"""Pruning at initialisation: SNIP, GraSP, SynFlow, magnitude and random masks, then trained.

Command: python -m experiments.run --config=experiments/configs/pruning_at_init.py:lenet300 \
    --workdir=runs/pruning_at_init
Networks: lenet300 (MNIST); conv2, conv4 and conv6 (CIFAR-10). `:NETWORK,tiny` takes seconds, and up
    to a few minutes with convolutions.
Run time: on two cores, lenet300 takes about 40 seconds per member, so 5 scores x 4 densities x 5
    seeds take an hour. The convolutions need an accelerator.
Expect for lenet300, as test accuracy: at 7 % of the weights SNIP keeps 97.6 % and random masks
    96.6 %, where the ticket of large_final has 98.3 %; at 3 %, 96.9 %, 86 % and 98.1 %. Lee et al.
    2019 report 98.4 % for SNIP at 5 % and 97.6 % at 2 % of the weights (recalled, not checked).
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
