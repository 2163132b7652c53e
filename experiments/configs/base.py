"""The parts that configurations share: the paper's networks, schedules and pruning rates."""

import re

from ml_collections import ConfigDict

from experiments import by_name
from experiments.problems import own_networks
from experiments.problems.own_networks import Schedule
from supermask_jax.checks import shown

# Zhou et al. 2019. Data set, Adam's learning rate and epochs depend on the network.
SCHEDULES = {
    "lenet300": {"dataset": "mnist", "learning_rate": 1.2e-3, "epochs": 55},
    "conv2": {"dataset": "cifar10", "learning_rate": 2e-4, "epochs": 27},
    "conv4": {"dataset": "cifar10", "learning_rate": 3e-4, "epochs": 34},
    "conv6": {"dataset": "cifar10", "learning_rate": 3e-4, "epochs": 40},
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


def schedule(network: str) -> Schedule:
    """Return the schedule and the pruning rates of a network of the paper, or of one's own.

    Raises:
      ValueError: if a network of one's own cannot be imported, or brings none.
      TypeError: if it is not a function that makes a network.
    """
    if network not in SCHEDULES:
        return own_networks.schedule_of(network)
    rates = [("output/kernel", 0.1)]
    if network in CONVOLUTION_RATES:
        rates.append(("conv[0-9]/kernel", CONVOLUTION_RATES[network]))
    return Schedule(**SCHEDULES[network], rates=rates)


# Learned supermasks: SGD's learning rate on the logits, and epochs. Those of lenet300 are the
# paper's, except that it trains for 2000 epochs; for the convolutions they are not known.
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
    if network in SCHEDULES and network not in LEARNING:
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
        config.update(dataset="digits", epochs=2, eval_every=3, seeds=(0, 1), num_draws=2)
    return config


def one_shot(argument: str | None, *, experiment: str, criteria: tuple[str, ...]) -> ConfigDict:
    """Return a configuration of one-shot masks on untrained weights, in its full or its tiny form.

    Args:
      argument: see `parse`.
      experiment: the name of the experiment in the table, and of its default figure.
      criteria: the names of mask criteria.
    """
    _, tiny = parse(argument)
    config = iterative(argument, experiment=experiment, variants=criteria)
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
      experiment: the name of the experiment in the table, and of its default figure.
      variants: ``score[:rounds]``, see `pruning_at_init.Variant`.
    """
    _, tiny = parse(argument)
    config = iterative(argument, experiment=experiment, variants=variants)
    config.runner = "pruning_at_init"
    config.ticket_rounds = (4, 8, 12, 16)  # 41, 17, 7 and 3 % of the weights of lenet300
    config.examples_per_class = 10
    del config.num_rounds, config.keep_checkpoints
    del config.rewind_step, config.scope, config.least
    if tiny:
        config.ticket_rounds = (2, 8)
    return config


def connectivity(argument: str | None, *, experiment: str, variants: tuple[str, ...]) -> ConfigDict:
    """Return a configuration of linear mode connectivity, in its full or its tiny form.

    Args:
      argument: see `parse`.
      experiment: the name of the experiment in the table, and of its default figure.
      variants: ``criterion[:mask_one[:mask_zero]]``; the actions default to rewind and zero.
    """
    _, tiny = parse(argument)
    config = iterative(argument, experiment=experiment, variants=variants, rate_factor=2)
    config.runner = "connectivity"
    config.rounds = (0, 4, 7)  # whose networks are copied: 100, 13 and 3 % of lenet300's weights
    config.copies = 2  # of each network; all pairs of them are compared
    config.points = 11  # of the line between two copies
    del config.num_rounds, config.keep_checkpoints
    if tiny:
        config.update(rounds=(0, 1), points=3)
    return config


def iterative(
    argument: str | None, *, experiment: str, variants: tuple[str, ...], rate_factor: int = 1
) -> ConfigDict:
    """Return a configuration of iterative pruning as in the paper, in its full or its tiny form.

    Args:
      argument: see `parse`.
      experiment: the name of the experiment in the table, and of its default figure.
      variants: ``criterion[:mask_one[:mask_zero]]``; the actions default to rewind and zero.
      rate_factor: multiplies the pruning rates of the paper.
    """
    network, tiny = parse(argument)
    brought = schedule(network)
    own = {name: getattr(brought, name) for name in SCHEDULES["lenet300"]}
    config = ConfigDict({**TRAINING, **own})
    config.runner = "iterative"
    config.experiment = experiment
    config.figure = experiment
    config.network = network
    config.num_validation = 0  # as the data set has it, or else a tenth of the training images
    config.variants = variants
    config.seeds = (0, 1, 2, 3, 4)
    config.num_rounds = 24
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
    if tiny:
        config.update(dataset="digits", epochs=1, eval_every=10, seeds=(0, 1))
        config.num_rounds = 2 if network == "lenet300" else 1
    return config
