"""Table 1 (learned): masks trained on frozen weights, with and without dynamic rescaling.

Command: python -m experiments.run --config=experiments/configs/learned_supermasks.py:lenet300 \
    --workdir=runs/learned_supermasks
Networks: lenet300 (MNIST); conv2, conv4 and conv6 (CIFAR-10). `:NETWORK,tiny` takes seconds, and up
    to a few minutes with convolutions.
Run time: on two cores, lenet300 takes half a second to a second per member and epoch, so 20 members
    x 400 epochs take one to two hours. Rescaled variants are at their best before epoch 100
    (--config.variants=init:rescale,signed_constant:rescale --config.epochs=100); initial
    weights still gain a little at epoch 600. The convolutions need an accelerator.
Expect for lenet300, as test accuracy: the paper reports, after 2000 epochs, 95.3 % on initial
    weights and 96.4 % on signed constants; with rescaling, 97.8 % and 98.0 %.
"""

from ml_collections import ConfigDict

from experiments.configs import base


def get_config(argument: str | None = None) -> ConfigDict:
    """Return the configuration; see `base.parse` for `argument`."""
    return base.learned(
        argument,
        experiment="learned_supermasks",
        variants=("init", "signed_constant", "init:rescale", "signed_constant:rescale"),
    )
