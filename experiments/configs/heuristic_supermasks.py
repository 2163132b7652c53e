"""Figure 7 and Table 1 (heuristic): one-shot masks of every criterion on untrained weights.

Command: python -m experiments.run --config=experiments/configs/heuristic_supermasks.py:lenet300 \
    --workdir=runs/heuristic_supermasks
Networks: lenet300 (MNIST); conv2, conv4 and conv6 (CIFAR-10). `:NETWORK,tiny` takes seconds, and up
    to a few minutes with convolutions.
Run time: on two cores, lenet300 takes three minutes for the five dense networks and two minutes per
    seed for the masks. The convolutions need an accelerator.
Expect for lenet300, as test accuracy at the best density: large_final_same_sign reaches 79 % on the
    initial weights and 86 % on signed constants; large_final reaches 40 %. On reinit and reshuffle,
    all criteria stay at chance.
"""

from ml_collections import ConfigDict

from experiments.configs import base
from supermask_jax.criteria import CRITERIA


def get_config(argument: str | None = None) -> ConfigDict:
    """Return the configuration; see `base.parse` for `argument`."""
    return base.one_shot(argument, experiment="heuristic_supermasks", criteria=tuple(CRITERIA))
