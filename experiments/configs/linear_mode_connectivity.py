"""Linear mode connectivity: is the training of a ticket stable to the order of its batches?

Command: python -m experiments.run \
    --config=experiments/configs/linear_mode_connectivity.py:lenet300 \
    --workdir=runs/linear_mode_connectivity
Networks: lenet300 (MNIST); conv2, conv4 and conv6 (CIFAR-10). `:NETWORK,tiny` takes seconds, and up
    to a few minutes with convolutions.
Run time: not measured yet.
Expect: Frankle et al. 2020 find that tickets of a small MNIST network are stable from the start,
    with an error barrier below 2 points, and that networks of random masks and of reinitialised
    weights are not (recalled, not checked).

Every round removes twice the share of the paper's, 40 % of a layer. `--config.rewind_step=500` lets
    kept weights, and the copies, start from the dense network after 500 steps.
"""

from ml_collections import ConfigDict

from experiments.configs import base


def get_config(argument: str | None = None) -> ConfigDict:
    """Return the configuration; see `base.parse` for `argument`."""
    config = base.connectivity(
        argument,
        experiment="linear_mode_connectivity",
        variants=("large_final", "random", "large_final:reinit"),
    )
    if config.dataset == "mnist":
        config.epochs = 10
    return config
