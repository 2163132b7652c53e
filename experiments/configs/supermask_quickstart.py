"""Quickstart for supermasks: masks learned on frozen weights, on handwritten digits.

Command: python -m experiments.run --config=experiments/configs/supermask_quickstart.py \
    --workdir=runs/supermask_quickstart
Run time: under two minutes on two cores.
Expect a test accuracy of 95 % on the initial weights and 96 % on signed constants with 60 % of the
    weights left, and 98 % with half of the weights left if they are rescaled.
"""

from ml_collections import ConfigDict

from experiments.configs import base


def get_config(argument: str | None = None) -> ConfigDict:
    """Return the configuration; see `base.parse` for `argument`."""
    _, tiny = base.parse(argument)
    config = base.learned(
        argument,
        experiment="supermask_quickstart",
        variants=("init", "signed_constant", "init:rescale", "signed_constant:rescale"),
    )
    if not tiny:
        config.update(dataset="digits", epochs=100, batch_size=60, eval_every=100, seeds=(0, 1, 2))
    return config
