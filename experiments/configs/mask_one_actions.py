"""Figure 4, what kept weights restart from: large-final masks, with pruned weights at zero.

Command: python -m experiments.run --config=experiments/configs/mask_one_actions.py:lenet300 \
    --workdir=runs/mask_one_actions
Networks: lenet300 (MNIST); conv2, conv4 and conv6 (CIFAR-10). `:NETWORK,tiny` takes seconds, and up
    to a few minutes with convolutions.
Run time: see experiments/FIGURES.md. The convolutions need an accelerator.
Expect for lenet300, as test accuracy: at 17 % and at 2.9 % of the weights, rewind reaches 98.4 %
    and 97.9 %, and random masks reach 97.5 % and 95.4 %. If they keep the signs of the start
    weights, reinit, reshuffle and even constant do about as well as rewind; without the signs, all
    three fall towards random masks.
"""

from ml_collections import ConfigDict

from experiments.configs import base


def get_config(argument: str | None = None) -> ConfigDict:
    """Return the configuration; see `base.parse` for `argument`."""
    return base.iterative(
        argument,
        experiment="mask_one_actions",
        figure="mask_one_actions",
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
