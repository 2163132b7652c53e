"""Figure 4: what kept weights restart from. Large-final masks, pruned weights at zero.

Command: python -m experiments.run --config=experiments/configs/mask_one_actions.py:lenet300 \
    --workdir=runs/mask_one_actions
Networks: lenet300 (MNIST), conv2, conv4, conv6 (CIFAR-10); `:NETWORK,tiny` takes seconds,
    with convolutions up to some minutes.
Run time: see experiments/FIGURES.md; the convolutions are for an accelerator.
Expect, lenet300, % test accuracy at 17 and at 2.9 % of the weights: rewind 98.4 and 97.9, random
    masks 97.5 and 95.4. With the signs of the start weights kept, reinit, reshuffle and even a
    constant do about as well as rewind; without them all three fall towards random masks.
"""

from ml_collections import ConfigDict

from experiments.configs import base


def get_config(argument: str | None = None) -> ConfigDict:
    """The configuration; see the module."""
    return base.iterative(
        argument,
        experiment="mask_one_actions",
        variants=(
            "large_final",
            "large_final:reinit",
            "large_final:reinit_keep_sign",
            "large_final:reshuffle",
            "large_final:reshuffle_keep_sign",
            "large_final:constant",
            "large_final:constant_keep_sign",
            "random",
        ),
    )
