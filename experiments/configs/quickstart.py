"""Quickstart: four mask criteria on handwritten digits, down to 2 % of the weights.

Command: make quickstart
Run time: under two minutes on two cores.
Expect that, in the last round, large_final is above random by more than the spread of the seeds,
    and that small_final collapses.
"""

from ml_collections import ConfigDict

from experiments.configs import base


def get_config(argument: str | None = None) -> ConfigDict:
    """Return the configuration; see `base.parse` for `argument`."""
    _, tiny = base.parse(argument)
    config = base.iterative(
        argument,
        experiment="quickstart",
        variants=("large_final", "magnitude_increase", "random", "small_final"),
        rate_factor=2,
    )
    if not tiny:
        base.on_digits(config, epochs=40, eval_every=100, seeds=(0, 1, 2), num_rounds=8)
    return config
