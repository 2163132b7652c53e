"""Linear mode connectivity: is the training of a ticket stable to the order of its batches?

Command: python -m experiments.run \
    --config=experiments/configs/linear_mode_connectivity.py:lenet300 \
    --workdir=runs/linear_mode_connectivity
Networks: lenet300 (MNIST); conv2, conv4 and conv6 (CIFAR-10). `:NETWORK,tiny` takes seconds, and up
    to a few minutes with convolutions.
Run time: lenet300 takes 41 minutes of one core, about 21 on two. The convolutions need an
    accelerator.
Expect for lenet300, as error barrier in percentage points of test error: 0.3 for the dense network
    and, at 3 % of the weights, 0.1 for tickets of large_final, 1.3 for random masks and 1.1 for
    large_final with reinit. Frankle et al. 2020 call training stable below 2, and find that
    tickets of such a network are stable from the start, random masks and other initial weights not
    (recalled, not checked).

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
