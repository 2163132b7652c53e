"""Figure 5, what pruned weights are set to: large-final masks, frozen after pruning.

Command: python -m experiments.run --config=experiments/configs/mask_zero_actions.py:lenet300 \
    --workdir=runs/mask_zero_actions
Networks: lenet300 (MNIST); conv2, conv4 and conv6 (CIFAR-10). `:NETWORK,tiny` takes seconds, and up
    to a few minutes with convolutions.
Run time: see experiments/FIGURES.md. The convolutions need an accelerator.
Expect for lenet300, as test accuracy: zero reaches 98.4 % at 17 % of the weights and 97.9 % at
    2.9 %. Freezing at the initial value is worse than zero. At high pruning, zero for only those
    weights that moved towards zero (variant 1) is no worse than zero for all, and doing the same to
    kept weights (variant 2) is better still.
"""

from ml_collections import ConfigDict

from experiments.configs import base


def get_config(argument: str | None = None) -> ConfigDict:
    """Return the configuration; see `base.parse` for `argument`."""
    return base.iterative(
        argument,
        experiment="mask_zero_actions",
        figure="mask_zero_actions",
        variants=(
            "large_final",
            "large_final:rewind:freeze",
            "large_final:rewind:zero_if_shrunk",
            "large_final:rewind_unless_shrunk:zero_if_shrunk",
            "large_final:rewind:zero_shuffled",
            "large_final:rewind:zero_if_grown",
        ),
    )
