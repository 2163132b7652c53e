"""The parts that configurations share: schedules, trainings and pruning rates of the networks."""

import re
from typing import Any

from ml_collections import ConfigDict

from experiments import by_name
from experiments.problems import own_networks
from experiments.problems.networks import MODULES
from experiments.problems.own_networks import Schedule
from supermask_jax.checks import shown

# Data set, learning rate and epochs depend on the network: those of Zhou et al. 2019, for Adam, and
# of Frankle et al. 2020, for `SGD_TRAINING`.
FRANKLE = {"dataset": "cifar10", "learning_rate": 0.1, "epochs": 160}
SCHEDULES = {
    "lenet300": {"dataset": "mnist", "learning_rate": 1.2e-3, "epochs": 55},
    "conv2": {"dataset": "cifar10", "learning_rate": 2e-4, "epochs": 27},
    "conv4": {"dataset": "cifar10", "learning_rate": 3e-4, "epochs": 34},
    "conv6": {"dataset": "cifar10", "learning_rate": 3e-4, "epochs": 40},
    "resnet20": FRANKLE,
    "resnet8_narrow": FRANKLE,
    "vgg16": FRANKLE,
    "vgg11_narrow": FRANKLE,
}
CONVOLUTION_RATES = {"conv2": 0.1, "conv4": 0.1, "conv6": 0.15}


def parse(argument: str | None) -> tuple[str, bool]:
    """Parse the text after the colon of ``--config``.

    Args:
      argument: ``NETWORK`` or ``NETWORK,tiny``, where NETWORK may be ``MODULE:FUNCTION``, a network
        of one's own; None for lenet300.

    Returns:
      The network, and whether the tiny form is asked for.

    Raises:
      ValueError: for any other text.
    """
    network, _, form = (argument or "lenet300").partition(",")
    is_own = re.fullmatch(by_name.PATTERN, network)
    if not (is_own or network in SCHEDULES) or form not in ("", "tiny"):
        raise ValueError(
            f"{shown(argument)} after the colon of --config is not understood; write "
            f"FILE.py:NETWORK or FILE.py:NETWORK,tiny with NETWORK one of {', '.join(SCHEDULES)} "
            f"(SCHEDULES of experiments/configs/base.py), or {by_name.FORM} of your own."
        )
    return network, form == "tiny"


# How weights are trained in the paper, and logits, whose optimizer is SGD with momentum.
TRAINING = {
    "optimizer": "adam",  # or adamw, lamb, sgd, or module:function
    "momentum": 0.0,
    "nesterov": False,
    "weight_decay": 0.0,
    "clip_norm": 0.0,
    "schedule": "constant",  # or cosine, step
    "warmup_steps": 0,
    "drop_steps": (),
    "drop_factor": 0.1,
    "loss": "cross_entropy",  # or module:function
    "augment_shift": 0,
    "augment_flip": False,
}


# Frankle et al. 2020, with the learning rate times 0.1 after 80 and after 120 epochs. An epoch of
# CIFAR-10 without its validation images has 351 steps.
SGD_TRAINING = {
    "optimizer": "sgd",
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "batch_size": 128,
    "schedule": "step",
    "drop_steps": (80 * 351, 120 * 351),
    "augment_shift": 4,
    "augment_flip": True,
    "eval_every": 500,
}
NARROW = {"resnet20": "resnet8_narrow", "vgg16": "vgg11_narrow"}  # what tiny forms train


def schedule(network: str) -> Schedule:
    """Return the schedule and the pruning rates of a network that has a name, or of one's own.

    Raises:
      ValueError: if a network of one's own cannot be imported, or brings none.
      TypeError: if it is not a function that makes a network.
    """
    if network not in SCHEDULES:
        return own_networks.schedule_of(network)
    rates = [("output/kernel", 0.0 if network in MODULES else 0.1)]
    if network in CONVOLUTION_RATES:
        rates.append(("conv[0-9]/kernel", CONVOLUTION_RATES[network]))
    return Schedule(**SCHEDULES[network], rates=rates)


# Learned supermasks, which networks with BatchNorm have none of: SGD's learning rate on the logits,
# and epochs. Those of lenet300 are the paper's, except that it trains for 2000 epochs; for the
# convolutions they are not known.
LEARNING = {
    "lenet300": {"learning_rate": 100.0, "epochs": 400},
    "conv2": {"learning_rate": 100.0, "epochs": 100},
    "conv4": {"learning_rate": 100.0, "epochs": 100},
    "conv6": {"learning_rate": 100.0, "epochs": 100},
}


def learned(argument: str | None, *, experiment: str, variants: tuple[str, ...]) -> ConfigDict:
    """Return a configuration of learned supermasks, in its full or its tiny form.

    Args:
      argument: see `parse`.
      experiment: the name of the experiment in the table.
      variants: ``weights[:rescale]``, see `learned.Variant`.
    """
    network, tiny = parse(argument)
    brought = schedule(network)
    if network in SCHEDULES and network not in (*LEARNING, *MODULES):
        raise ValueError(
            f"{network} has no learning rate and epochs for learned masks; add it to LEARNING of "
            "experiments/configs/base.py."
        )
    own = {"learning_rate": brought.mask_learning_rate, "epochs": brought.mask_epochs}
    config = ConfigDict({**TRAINING, **LEARNING.get(network, own)})
    config.runner = "learned"
    config.experiment = experiment
    config.figure = "learned_supermasks"
    config.network = network
    config.dataset = brought.dataset
    config.num_validation = 0  # as the data set has it, or else a tenth of the training images
    config.variants = variants
    config.initial_logits = (1.0,)  # the best on validation among those of supermask_densities
    config.seeds = (0, 1, 2, 3, 4)
    config.optimizer = "sgd"
    config.momentum = 0.9
    config.batch_size = 250
    config.eval_every = 2200  # ten epochs of MNIST; an evaluation (ten draws) costs half an epoch
    config.num_draws = 10
    config.count_gradient = True
    config.retrain_epochs = 0  # above 0, the networks of the most probable masks are retrained
    config.draw = "bernoulli"
    config.retrain_learning_rate = brought.learning_rate
    config.matmul_precision = "float32"
    config.members_at_once = 0
    config.chunk_evals = 1
    if tiny:
        on_digits(config, epochs=2, eval_every=3, seeds=(0, 1), num_draws=2)
    return config


def one_shot(argument: str | None, *, experiment: str, criteria: tuple[str, ...]) -> ConfigDict:
    """Return a configuration of one-shot masks on untrained weights, in its full or its tiny form.

    Args:
      argument: see `parse`.
      experiment: the name of the experiment in the table.
      criteria: the names of mask criteria.
    """
    _, tiny = parse(argument)
    config = iterative(
        argument, experiment=experiment, variants=criteria, figure="heuristic_supermasks"
    )
    config.runner = "one_shot"
    config.criteria = criteria
    config.weights = ("init", "signed_constant", "reinit", "reshuffle")
    config.powers = tuple(range(25))
    config.retrain_power = -1  # from 0, the networks of the masks of this power are retrained
    config.retrain_epochs = config.epochs
    del config.variants, config.num_rounds, config.rewind_step, config.scope, config.least
    if tiny:
        config.update(powers=(0, 1, 5), weights=("init", "signed_constant"))
    return config


def pruning_at_init(
    argument: str | None, *, experiment: str, variants: tuple[str, ...]
) -> ConfigDict:
    """Return a configuration of pruning at initialisation, in its full or its tiny form.

    Args:
      argument: see `parse`.
      experiment: the name of the experiment in the table.
      variants: ``score[:rounds]``, see `pruning_at_init.Variant`.
    """
    _, tiny = parse(argument)
    config = iterative(argument, experiment=experiment, variants=variants, figure="pruning_at_init")
    config.runner = "pruning_at_init"
    config.ticket_rounds = (4, 8, 12, 16)  # 41, 17, 7 and 3 % of the weights of lenet300
    config.examples_per_class = 10
    del config.num_rounds, config.keep_checkpoints, config.start, config.start_sha256
    del config.rewind_step, config.scope, config.least
    if tiny:
        config.ticket_rounds = (2, 8)
    return config


def connectivity(argument: str | None, *, experiment: str, variants: tuple[str, ...]) -> ConfigDict:
    """Return a configuration of linear mode connectivity, in its full or its tiny form.

    Args:
      argument: see `parse`.
      experiment: the name of the experiment in the table.
      variants: ``criterion[:mask_one[:mask_zero]]``; the actions default to rewind and zero.
    """
    _, tiny = parse(argument)
    figure = "linear_mode_connectivity"
    config = iterative(
        argument, experiment=experiment, variants=variants, figure=figure, rate_factor=2
    )
    config.runner = "connectivity"
    config.rounds = (0, 4, 7)  # whose networks are copied: 100, 13 and 3 % of lenet300's weights
    config.copies = 2  # of each network; all pairs of them are compared
    config.points = 11  # of the line between two copies
    del config.num_rounds, config.keep_checkpoints, config.start, config.start_sha256
    if tiny:
        config.update(rounds=(0, 1), points=3)
    return config


def iterative(
    argument: str | None,
    *,
    experiment: str,
    variants: tuple[str, ...],
    figure: str = "mask_criteria",
    rate_factor: int = 1,
) -> ConfigDict:
    """Return a configuration of iterative pruning as in the paper, in its full or its tiny form.

    Args:
      argument: see `parse`.
      experiment: the name of the experiment in the table.
      variants: ``criterion[:mask_one[:mask_zero]]``; the actions default to rewind and zero.
      figure: the name of the figure that a run draws.
      rate_factor: multiplies the pruning rates of the paper.
    """
    network, tiny = parse(argument)
    brought = schedule(network)
    own = {name: getattr(brought, name) for name in SCHEDULES["lenet300"]}
    config = ConfigDict({**TRAINING, **own})
    config.runner = "iterative"
    config.experiment = experiment
    config.figure = figure
    config.network = network
    config.num_validation = 0  # as the data set has it, or else a tenth of the training images
    config.variants = variants
    config.seeds = (0, 1, 2, 3, 4)
    config.num_rounds = 24
    config.start = ""  # a file with the ticket that all seeds start from; empty: from their own
    config.start_sha256 = ""  # of that file, if it must be this one
    config.rewind_step = 0  # kept weights restart from the dense network at this step
    config.scope = "layer"  # or global: all layers are ranked together
    config.least = 0  # weights that every layer keeps, of scope global
    config.batch_size = 60
    config.eval_every = 100
    config.default_rate = 0.2 * rate_factor
    config.rates = tuple((pattern, rate * rate_factor) for pattern, rate in brought.rates)
    config.matmul_precision = "float32"
    config.members_at_once = 0  # in turn on a CPU, all members of a device by vmap elsewhere
    # Evaluations between two chunk boundaries: a few seconds of training.
    config.chunk_evals = 20 if network == "lenet300" else 1
    config.keep_checkpoints = 2
    if network in MODULES:
        config.update(SGD_TRAINING)
    if tiny:
        config.network = NARROW.get(network, network)
        on_digits(config, epochs=1, eval_every=10, seeds=(0, 1))
        config.num_rounds = 2 if network == "lenet300" else 1
    return config


def on_digits(config: ConfigDict, **changes: Any) -> None:
    """Change a configuration to the digits, at a constant learning rate and without augmentation.

    Args:
      config: is changed.
      changes: other settings.
    """
    plain = ("schedule", "drop_steps", "augment_shift", "augment_flip")
    config.update({name: TRAINING[name] for name in plain}, dataset="digits", **changes)
