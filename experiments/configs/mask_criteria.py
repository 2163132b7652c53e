"""Figure 3: which weights to keep. Nine mask criteria, rewinding, pruned weights at zero.

Command: python -m experiments.run --config=experiments/configs/mask_criteria.py:lenet300 \
    --workdir=runs/mask_criteria
Networks: lenet300 (MNIST), conv2, conv4, conv6 (CIFAR-10); `:NETWORK,tiny` takes seconds,
    with convolutions up to some minutes.
Run time: see experiments/FIGURES.md; the convolutions are for an accelerator.
    --config.variants='("large_final","random")' --config.seeds='(0,1,2)' picks some.
Expect, lenet300, % test accuracy: dense 97.9; large_final 98.4 at 17 % of the weights and 97.9
    at 2.9 %; random 97.5 and 95.4 there; small_final collapses below 11 %.
"""

from ml_collections import ConfigDict

from experiments.configs import base


def get_config(argument: str | None = None) -> ConfigDict:
    """The configuration; see the module."""
    return base.iterative(
        argument,
        experiment="mask_criteria",
        variants=(
            "large_final",
            "small_final",
            "large_init",
            "small_init",
            "large_init_large_final",
            "small_init_small_final",
            "magnitude_increase",
            "movement",
            "random",
        ),
    )
