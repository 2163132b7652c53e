"""Learned supermasks by density: seven initial logits, one seed.

Command: python -m experiments.run --config=experiments/configs/supermask_densities.py:lenet300 \
    --workdir=runs/supermask_densities
Networks: lenet300 (MNIST), conv2, conv4, conv6 (CIFAR-10); `:NETWORK,tiny` takes seconds,
    with convolutions up to some minutes.
Run time: lenet300 about half a second per member and epoch on two cores, so 28 members x 100
    epochs are 25 minutes.
Expect, lenet300: a plateau from 20 to 80 % of the weights; validation likes the initial logit 1
    best; without rescaling -5 learns nothing.
"""

from ml_collections import ConfigDict

from experiments.configs import base


def get_config(argument: str | None = None) -> ConfigDict:
    """The configuration; see the module."""
    _, tiny = base.parse(argument)
    config = base.learned(
        argument,
        experiment="supermask_densities",
        variants=("init", "signed_constant", "init:rescale", "signed_constant:rescale"),
    )
    config.initial_logits = (-5.0, -3.0, -1.0, 0.0, 1.0, 3.0, 5.0)
    if not tiny:
        config.update(seeds=(0,), epochs=100)
    return config
