"""Figure 5: what pruned weights are set to. Large-final masks, frozen after pruning.

Command: python -m experiments.run --config=experiments/configs/mask_zero_actions.py:lenet300 \
    --workdir=runs/mask_zero_actions
Networks: lenet300 (MNIST), conv2, conv4, conv6 (CIFAR-10); `:NETWORK,tiny` takes seconds,
    with convolutions up to some minutes.
Run time: see experiments/FIGURES.md; the convolutions are for an accelerator.
Expect, lenet300, % test accuracy: zero 98.4 at 17 % of the weights and 97.9 at 2.9 %. Freezing
    at the initial value is worse than zero; zero for weights that moved towards zero (variant 1)
    is no worse than zero at high pruning, and doing the same to kept weights (variant 2) is
    better still.
"""

from ml_collections import ConfigDict

from experiments.configs import base


def get_config(argument: str | None = None) -> ConfigDict:
    """The configuration; see the module."""
    return base.iterative(
        argument,
        experiment="mask_zero_actions",
        variants=(
            "large_final",
            "large_final:rewind:freeze",
            "large_final:rewind:zero_if_shrunk",
            "large_final:rewind_unless_shrunk:zero_if_shrunk",
            "large_final:rewind:zero_shuffled",
            "large_final:rewind:zero_if_grown",
        ),
    )
