"""The paper's settings, how a table's settings differ from them, and what they lead to."""

import functools
import importlib
from collections.abc import Mapping
from typing import Any

import jax

from experiments import results
from experiments.configs import base
from experiments.networks import make_network
from experiments.runners import RUNNERS
from supermask_jax import rates, trees
from tools.claims import MAY_DEVIATE, NETWORKS

IMAGES = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
NUM_CLASSES = 10
LEARNED_EPOCHS = {"lenet300": 2000}  # of the convolutions no number is known

# Settings that no judged number depends on, beside those that a run may change.
OF_NO_INFLUENCE = ("members_at_once", "retrain_epochs", "retrain_learning_rate", "retrain_power")


def settings(experiment: str, network: str) -> dict[str, Any]:
    """The paper's, of a judged experiment on a network."""
    module = importlib.import_module(f"experiments.configs.{experiment}")
    config = module.get_config(network).to_dict()
    if experiment == "learned_supermasks":
        config["epochs"] = LEARNED_EPOCHS.get(network, config["epochs"])
    return config


def deviations(config: Mapping[str, Any]) -> dict[str, str]:
    """How the settings of a judged experiment differ from the paper's, in words by their names."""
    paper = settings(config["experiment"], config["network"])
    aside = (*RUNNERS[paper["runner"]].LISTS, *results.MAY_CHANGE, *OF_NO_INFLUENCE)
    config = results.settings(config)
    return {
        name: f"{name} {config.get(name)} instead of {paper.get(name)}"
        for name in sorted(paper.keys() | config.keys())
        if name not in aside and _plain(config.get(name)) != _plain(paper.get(name))
    }


def may_be_judged(experiment: str, differing: Mapping[str, str]) -> bool:
    """Whether no other setting differs than one that may."""
    return set(differing) <= set(MAY_DEVIATE.get(experiment, ()))


@functools.cache
def densities(network: str) -> tuple[float, ...]:
    """Kept / prunable weights after 0, 1, ... rounds of pruning as in the paper."""
    config: Any = base.iterative(network, experiment="", variants=())
    made = make_network(network, IMAGES[NETWORKS[network]], NUM_CLASSES)
    params = jax.eval_shape(made.init, jax.random.key(0))
    prunable = trees.prunable_leaves(params)
    rate_tree = rates.rates_by_path(params, config.rates, config.default_rate)

    def num_kept(round: int) -> int:
        counts = rates.keep_counts(params, rate_tree, round)
        pairs = zip(jax.tree.leaves(counts), jax.tree.leaves(prunable), strict=True)
        return sum(int(count) for count, yes in pairs if yes)

    kept = [num_kept(round) for round in range(config.num_rounds + 1)]
    return tuple(count / kept[0] for count in kept)


def rounds_between(network: str, least: float, most: float) -> set[int]:
    """Rounds that leave a share of the weights between two."""
    return {round for round, share in enumerate(densities(network)) if least <= share <= most}


def powers(network: str) -> set[int]:
    """Of the one-shot masks."""
    return set(settings("heuristic_supermasks", network)["powers"])


def _plain(value: Any) -> Any:
    """Lists and tuples alike, also inside of each other."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
