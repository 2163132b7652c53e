"""Figure S5, whether sign flips matter: criteria restricted to equal or to different signs.

Command: python -m experiments.run --config=experiments/configs/sign_criteria.py:lenet300 \
    --workdir=runs/sign_criteria
Networks: lenet300 (MNIST); conv2, conv4 and conv6 (CIFAR-10). `:NETWORK,tiny` takes seconds, and up
    to a few minutes with convolutions.
Run time: see experiments/FIGURES.md. The convolutions need an accelerator.
Expect for lenet300, as test accuracy: at 17 % and at 2.9 % of the weights, large_final reaches
    98.4 % and 97.9 %, and random reaches 97.5 % and 95.4 %. No numbers are known for the sign
    criteria on trained networks; on untrained ones, large_final_same_sign is far ahead of
    large_final (see heuristic_supermasks).
"""

from ml_collections import ConfigDict

from experiments.configs import base


def get_config(argument: str | None = None) -> ConfigDict:
    """Return the configuration; see `base.parse` for `argument`."""
    return base.iterative(
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
