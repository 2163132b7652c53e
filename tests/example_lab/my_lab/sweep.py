"""Tickets and random masks of the network of my lab, to 41 % of its weights."""

from experiments.configs import base


def get_config(argument=None):
    """Return the configuration; what follows the colon of --config is the network."""
    config = base.iterative(
        argument or "my_lab.nets:small_resnet",
        experiment="my_sweep",
        variants=("large_final", "large_final:reinit", "random"),
    )
    config.seeds = (0, 1)
    config.num_rounds = 4
    return config
