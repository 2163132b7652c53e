"""Simulated tables of results."""

import numpy as np

from experiments.runners.untrained_weights import WEIGHTS
from supermask_jax.criteria import CRITERIA
from tools.report import schedule
from tools.report.claims import CLAIMS, NETWORKS, Learned, Pruned

SEEDS = (0, 1, 2, 3, 4)
ACCURACIES = ("validation_accuracy", "test_accuracy")
ROUNDS = tuple(range(1, 25))
POWERS = tuple(range(25))
VARIANTS = tuple(
    dict.fromkeys(
        side.variant for claim in CLAIMS for side in claim.sides if isinstance(side, Pruned)
    )
)
LEARNED = tuple(
    dict.fromkeys(
        side.variant for claim in CLAIMS for side in claim.sides if isinstance(side, Learned)
    )
)


def common(network, experiment, seed):
    names = {"experiment": experiment, "network": network, "dataset": NETWORKS[network]}
    about = {"code_version": "1", "table": f"{experiment}.csv", "deviations": ()}
    return names | {"seed": seed} | about


def pruning_rows(accuracy, network="lenet300", seeds=SEEDS, variants=VARIANTS, rounds=ROUNDS):
    """Rows of iterative pruning; `accuracy(variant, seed, round)` is in percent."""
    return [
        common(network, "mask_criteria", seed)
        | {"variant": variant, "round": number, "density": schedule.densities(network)[number]}
        | {"test_accuracy": accuracy(variant, seed, number) / 100}
        for variant in ("dense", *variants)
        for number in (rounds if variant != "dense" else (0,))
        for seed in seeds
    ]


def heuristic_rows(accuracy, network="lenet300", seeds=SEEDS, powers=POWERS):
    """Rows of one-shot masks; `accuracy(criterion, weights, seed, power)` is in percent."""
    return [
        common(network, "heuristic_supermasks", seed)
        | {"criterion": criterion, "weights": weights, "power": power, "density": 0.8**power}
        | dict.fromkeys(ACCURACIES, accuracy(criterion, weights, seed, power) / 100)
        for criterion in CRITERIA
        for weights in WEIGHTS
        for power in powers
        for seed in seeds
    ]


def learned_rows(accuracy, network="lenet300", seeds=SEEDS, logits=(0.0, 1.0), variants=LEARNED):
    """Rows of learned masks; `accuracy(variant, seed, logit)` is in percent."""
    return [
        common(network, "learned_supermasks", seed)
        | {"variant": variant, "weights": variant.partition(":")[0], "rescale": ":" in variant}
        | {"initial_logit": logit, "density": 0.5}
        | dict.fromkeys(ACCURACIES, accuracy(variant, seed, logit) / 100)
        for variant in variants
        for logit in logits
        for seed in seeds
    ]


def all_rows(network="lenet300", seeds=SEEDS):
    """Rows of every judged experiment, whose accuracies differ only by noise."""
    random = np.random.default_rng(0)

    def accuracy(*_):
        return random.normal(80, 0.1)

    tables = (pruning_rows, heuristic_rows, learned_rows)
    return [row for table in tables for row in table(accuracy, network, seeds)]
