"""Table 1, learned: masks trained on frozen weights, with and without dynamic rescaling.

Command: python -m experiments.run --config=experiments/configs/learned_supermasks.py:lenet300 \
    --workdir=runs/learned_supermasks
Networks: lenet300 (MNIST), conv2, conv4, conv6 (CIFAR-10); `:NETWORK,tiny` takes seconds,
    with convolutions up to some minutes.
Run time: lenet300 half a second to a second per member and epoch on two cores, so 20 members x
    400 epochs are one to two hours; rescaled variants are at their best before epoch 100
    (--config.variants='("init:rescale","signed_constant:rescale")' --config.epochs=100), initial
    weights still gain a little at epoch 600. The convolutions are for an accelerator.
Expect, lenet300, % test accuracy as reported after 2000 epochs: initial weights 95.3, signed
    constants 96.4, rescaled 97.8 and 98.0.
"""

from ml_collections import ConfigDict

from experiments.configs import base


def get_config(argument: str | None = None) -> ConfigDict:
    """The configuration; see the module."""
    return base.learned(
        argument,
        experiment="learned_supermasks",
        variants=("init", "signed_constant", "init:rescale", "signed_constant:rescale"),
    )
