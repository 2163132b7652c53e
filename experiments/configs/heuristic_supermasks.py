"""Figure 7 and Table 1, heuristic: one-shot masks of every criterion on untrained weights.

Command: python -m experiments.run --config=experiments/configs/heuristic_supermasks.py:lenet300 \
    --workdir=runs/heuristic_supermasks
Networks: lenet300 (MNIST), conv2, conv4, conv6 (CIFAR-10); `:NETWORK,tiny` takes seconds,
    with convolutions up to some minutes.
Run time: lenet300 three minutes for the five dense networks on two cores and two minutes per
    seed for the masks; the convolutions are for an accelerator.
Expect, lenet300, % test accuracy at the best density: large_final_same_sign 79 on the initial
    weights and 86 on signed constants, large_final 40; chance on reinit and reshuffle.
"""

from ml_collections import ConfigDict

from experiments.configs import base
from supermask_jax.criteria import CRITERIA


def get_config(argument: str | None = None) -> ConfigDict:
    """The configuration; see the module."""
    return base.one_shot(argument, experiment="heuristic_supermasks", criteria=tuple(CRITERIA))
