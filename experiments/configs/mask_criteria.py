"""Figure 3, which weights to keep: nine mask criteria, with rewinding and pruned weights at zero.

Command: python -m experiments.run --config=experiments/configs/mask_criteria.py:lenet300 \
    --workdir=runs/mask_criteria
Networks: lenet300 (MNIST); conv2, conv4 and conv6 (CIFAR-10). `:NETWORK,tiny` takes seconds, and up
    to a few minutes with convolutions.
Run time: see experiments/FIGURES.md. The convolutions need an accelerator. To run a part of the
    sweep, add --config.variants=large_final,random --config.seeds=0,1,2.
Expect for lenet300, as test accuracy: the dense network reaches 97.9 %. large_final reaches 98.4 %
    at 17 % of the weights and 97.9 % at 2.9 %; random reaches 97.5 % and 95.4 %. small_final
    collapses below 11 % of the weights.
"""

from ml_collections import ConfigDict

from experiments.configs import base


def get_config(argument: str | None = None) -> ConfigDict:
    """Return the configuration; see `base.parse` for `argument`."""
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
