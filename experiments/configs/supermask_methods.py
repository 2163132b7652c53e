"""Supermasks by the draws of seven papers, on the same frozen weights and with the same budget.

Command: python -m experiments.run \
    --config=experiments/configs/supermask_methods.py:lenet300,top_k \
    --workdir=runs/supermask_methods_top_k
Networks: lenet300 (MNIST); conv2, conv4 and conv6 (CIFAR-10). After the network comes the draw, one
    of bernoulli, top_k, threshold, ternary, gumbel, hard_concrete and continuous; without it, it is
    bernoulli. `:NETWORK,tiny` and `:NETWORK,DRAW,tiny` take seconds, and up to a few minutes with
    convolutions.
Run time: on two cores, lenet300 takes one to three minutes per draw. The convolutions need an
    accelerator.
Expect for lenet300 after these 20 epochs, as test accuracy of the mask to evaluate: 93.6 % to
    94.2 % on initial weights and 94.8 % to 95.5 % on signed constants; ternary masks, which may
    invert signs, reach 97.1 % and 97.5 %. All draws still improve at the end. Zhou et al. 2019
    report 95.3 % and 96.4 % for Bernoulli draws after 2000 epochs (recalled, not checked).
"""

from ml_collections import ConfigDict

from experiments.configs import base
from supermask_jax.checks import shown

# SGD's learning rate on the logits or scores of lenet300: of several powers of ten, the best on
# validation for one seed that the experiment does not use.
LEARNING_RATES = {
    "bernoulli": 1000.0,
    "top_k": 1.0,
    "threshold": 10.0,
    "ternary": 1.0,
    "gumbel": 1000.0,
    "hard_concrete": 1000.0,
    "continuous": 100.0,
}


def get_config(argument: str | None = None) -> ConfigDict:
    """Return the configuration.

    Args:
      argument: ``NETWORK``, ``NETWORK,DRAW``, ``NETWORK,tiny`` or ``NETWORK,DRAW,tiny``; see
        `base.parse`.

    Raises:
      ValueError: for any other text.
    """
    parts = (argument or "lenet300").split(",")
    draw = parts.pop(1) if len(parts) > 1 and parts[1] not in ("", "tiny") else "bernoulli"
    if draw not in LEARNING_RATES:
        raise ValueError(
            f"{shown(argument)} after the colon of --config is not understood; write "
            "FILE.py:NETWORK,DRAW or FILE.py:NETWORK,DRAW,tiny with DRAW one of "
            f"{', '.join(LEARNING_RATES)}."
        )
    config = base.learned(
        ",".join(parts),
        experiment="supermask_methods",
        variants=("init", "signed_constant"),
    )
    config.figure = "supermask_methods"
    config.draw = draw
    config.learning_rate = LEARNING_RATES[draw]
    config.initial_logits = (0.0,)
    if config.dataset != "digits":
        config.update(epochs=20, eval_every=440)
    return config
