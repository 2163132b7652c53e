"""Figure S5: does a sign that training flips matter? Criteria with same or different signs.

Command: python -m experiments.run --config=experiments/configs/sign_criteria.py:lenet300 \
    --workdir=runs/sign_criteria
Networks: lenet300 (MNIST), conv2, conv4, conv6 (CIFAR-10); `:NETWORK,tiny` takes seconds,
    with convolutions up to some minutes.
Run time: see experiments/FIGURES.md; the convolutions are for an accelerator.
Expect, lenet300, % test accuracy: large_final 98.4 at 17 % of the weights and 97.9 at 2.9 %,
    random 97.5 and 95.4 there. Of trained networks with sign criteria no number is known;
    untrained, large_final_same_sign is far ahead of large_final (heuristic_supermasks).
"""

from ml_collections import ConfigDict

from experiments.configs import base


def get_config(argument: str | None = None) -> ConfigDict:
    """The configuration; see the module."""
    config = base.iterative(
        argument,
        experiment="sign_criteria",
        variants=(
            "large_final",
            "large_final_same_sign",
            "large_final_diff_sign",
            "magnitude_increase",
            "magnitude_increase_same_sign",
            "magnitude_increase_diff_sign",
            "random",
        ),
    )
    config.figure = "mask_criteria"
    return config
