"""Learned supermasks by density: seven initial logits and one seed.

Command: python -m experiments.run --config=experiments/configs/supermask_densities.py:lenet300 \
    --workdir=runs/supermask_densities
Networks: lenet300 (MNIST); conv2, conv4 and conv6 (CIFAR-10). `:NETWORK,tiny` takes seconds, and up
    to a few minutes with convolutions.
Run time: on two cores, lenet300 takes about half a second per member and epoch, so 28 members x 100
    epochs take 25 minutes.
Expect for lenet300: the accuracy is flat between 20 % and 80 % of the weights. The initial logit 1
    is the best on validation. Without rescaling, -5 learns nothing.
"""

from ml_collections import ConfigDict

from experiments.configs import base


def get_config(argument: str | None = None) -> ConfigDict:
    """Return the configuration; see `base.parse` for `argument`."""
    _, tiny = base.parse(argument)
    config = base.learned(
        argument,
        experiment="supermask_densities",
        variants=("init", "signed_constant", "init:rescale", "signed_constant:rescale"),
    )
    config.initial_logits = (-1.0, 1.0) if tiny else (-5.0, -3.0, -1.0, 0.0, 1.0, 3.0, 5.0)
    if not tiny:
        config.update(seeds=(0,), epochs=100)
    return config
