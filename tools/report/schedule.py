"""The paper's settings, how those of a table differ, and the densities and steps they imply."""

import functools
import importlib
from collections.abc import Mapping
from typing import Any

import jax

from experiments.configs import base
from experiments.problems.networks import make_network
from experiments.runners.registry import RUNNERS
from experiments.runners.settings import defaults
from experiments.storage import run_folder
from supermask_jax import rates, trees
from tools.report.claims import MAY_DEVIATE, NETWORKS

IMAGES = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
EXAMPLES = {"mnist": 55_000, "cifar10": 45_000}  # for training
NUM_CLASSES = 10
UNKNOWN = "unknown"
LEARNED = {"initial_logits": (0.0,), "epochs": 2000}
LEARNED_CONVOLUTIONS = {"initial_logits": (0.0,), "epochs": UNKNOWN, "learning_rate": UNKNOWN}

# Settings that no judged number depends on, beside those that a run may change.
OF_NO_INFLUENCE = ("members_at_once", "retrain_epochs", "retrain_learning_rate", "retrain_power")


def settings(experiment: str, network: str) -> dict[str, Any]:
    """Return the settings by which an experiment is judged: its configuration, except LEARNED."""
    module = importlib.import_module(f"experiments.configs.{experiment}")
    config = module.get_config(network).to_dict()
    if experiment == "learned_supermasks":
        config |= LEARNED if network == "lenet300" else LEARNED_CONVOLUTIONS
    return config


def deviations(config: Mapping[str, Any]) -> dict[str, str]:
    """Return how settings of a judged experiment differ from those of `settings`, by name."""
    paper = settings(config["experiment"], config["network"])
    members = set(RUNNERS[paper["runner"]].LISTS) - {"initial_logits"}
    aside = (*members, *run_folder.MAY_CHANGE, *OF_NO_INFLUENCE)
    younger = defaults(RUNNERS[paper["runner"]].Settings)
    config = younger | run_folder.settings(config)
    return {
        name: _differing(name, config.get(name), paper.get(name))
        for name in sorted(paper.keys() | config.keys())
        if name not in aside and _plain(config.get(name)) != _plain(paper.get(name))
    }


def may_be_judged(experiment: str, differing: Mapping[str, str]) -> bool:
    """Return whether all differing settings are among those that may differ."""
    return set(differing) <= set(MAY_DEVIATE.get(experiment, ()))


@functools.cache
def densities(network: str) -> tuple[float, ...]:
    """Return kept / prunable weights after 0, 1, ... rounds of pruning as in the paper."""
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
    """Return the rounds that leave between two shares of the weights."""
    return {round for round, share in enumerate(densities(network)) if least <= share <= most}


def steps(network: str) -> int:
    """Return the number of steps of a training in a round of pruning."""
    config = settings("mask_criteria", network)
    return config["epochs"] * (EXAMPLES[NETWORKS[network]] // config["batch_size"])


def powers(network: str) -> set[int]:
    """Return the powers of the one-shot masks."""
    return set(settings("heuristic_supermasks", network)["powers"])


def _differing(name: str, here: Any, paper: Any) -> str:
    words = name.replace("_", " ")
    if paper == UNKNOWN:
        return f"{words} {_shown(here)}, unknown in the paper"
    return f"{words} {_shown(here)} instead of {_shown(paper)}"


def _shown(value: Any) -> str:
    if not isinstance(value, list | tuple):
        return str(value)
    return ", ".join(map(str, value)) or "none"


def _plain(value: Any) -> Any:
    """Return lists and tuples as lists, also nested ones."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
