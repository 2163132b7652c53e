"""Late rewinding: tickets of deeper networks, whose weights restart from an early training step.

Command: python -m experiments.run --config=experiments/configs/late_rewinding.py:resnet20 \
    --workdir=runs/late_rewinding
Networks: resnet20 and vgg16 (CIFAR-10) and all others. All layers are ranked together, and a round
    prunes 20 % of the weights left. `:NETWORK,short` trains for two epochs and prunes 80 % in one
    round; `:NETWORK,tiny`, on digits, takes seconds, and up to a minute with convolutions. To
    compare steps, run it again with --config.rewind_step=0, and with other multiples of
    --config.eval_every.
Run time: the full form needs an accelerator. resnet20,short takes 38 minutes of one core, about 19
    on two; vgg16,short would take hours.
Expect for resnet20,short, as test accuracy after two epochs: 64.4 % dense, and 67.8 % for the
    ticket, which has 20 % of the weights and restarts from step 117 of the dense network.
Expect for resnet20, as test accuracy: about 91.7 % dense. Rewound to a few hundred or thousand
    steps, tickets match it down to about 20 % of the weights; rewound to step 0, they do not, and
    are no better than random masks or other initial weights. For vgg16, about 93.5 % dense, and the
    same at 5 % of the weights and below (Frankle et al. 2019 and 2020; all of it recalled, not
    checked).
"""

from ml_collections import ConfigDict

from experiments.configs import base
from supermask_jax.checks import shown


def get_config(argument: str | None = None) -> ConfigDict:
    """Return the configuration.

    Args:
      argument: ``NETWORK``, ``NETWORK,short`` or ``NETWORK,tiny``; see `base.parse`.

    Raises:
      ValueError: for any other text.
    """
    network, _, form = (argument or "resnet20").partition(",")
    if form not in ("", "short", "tiny"):
        raise ValueError(
            f"{shown(argument)} after the colon of --config is not understood; write "
            "FILE.py:NETWORK, FILE.py:NETWORK,short or FILE.py:NETWORK,tiny."
        )
    config = base.iterative(
        network if form in ("", "short") else argument,
        experiment="late_rewinding",
        variants=("large_final", "random", "large_final:reinit"),
        figure="mask_one_actions",
    )
    config.scope = "global"
    rates = base.schedule(network).rates
    config.rates = tuple((pattern, rate) for pattern, rate in rates if not rate)  # exempt layers
    config.rewind_step = 1000
    if form == "short":
        config.update(epochs=2, eval_every=117, rewind_step=117, num_rounds=1, default_rate=0.8)
        config.update(variants=("large_final",), seeds=(0, 1))
    if form == "short" and config.schedule == "step":
        config.drop_steps = (526,)
    if form == "tiny":
        config.update(eval_every=5, rewind_step=5)
    return config
