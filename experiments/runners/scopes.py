"""The scope of a pruning: every layer by itself, or all layers ranked together."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np

from experiments.problems.problem import Problem
from experiments.runners import hyperparameters, settings
from experiments.runners.settings import integer, one_of
from supermask_jax import rates
from supermask_jax.trees import num_prunable

PyTree = Any
LAYER, GLOBAL = SCOPES = ("layer", "global")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScopeSettings(settings.RateSettings):
    """The settings of pruning, its scope among them."""

    scope: Annotated[str, one_of("scope", dict.fromkeys(SCOPES))] = LAYER
    least: Annotated[int, integer(0)] = 0  # weights that every layer keeps, of scope "global"


class Scope(NamedTuple):
    """What `rounds.advance` needs to know of a scope.

    Attributes:
      prunable: bool per leaf, static: the leaves that lose weights.
      least: the number of weights that each of them keeps in any case.
      counts: number of a round -> the number of weights left after it, per leaf or, of scope
        "global", of all these leaves together.
    """

    prunable: PyTree
    least: int
    counts: Callable[[int], PyTree]


def make_scopes(
    config: ScopeSettings, problem: Problem, last: int, mask: PyTree | None = None
) -> dict[Any, Scope]:
    """Return the scope that the settings ask for, by ``config.default_rate``.

    Only the counts of scopes differ.

    Of scope "global", a rule of ``config.rates`` may only exempt leaves, by a rate of 0; all others
    together lose ``config.default_rate`` of their weights in a round.

    Args:
      config: the settings.
      problem: the network.
      last: the number of the last round.
      mask: bool `[...]` per leaf, the weights that are left before round 1; None is all.

    Raises:
      ValueError: if settings contradict each other or match no leaf.
    """
    return {
        rate: _make_scope(dataclasses.replace(config, default_rate=rate), problem, last, mask)
        for rate in hyperparameters.listed(config.default_rate)
    }


def _make_scope(config: ScopeSettings, problem: Problem, last: int, mask: PyTree | None) -> Scope:
    if config.scope == GLOBAL:
        return _make_global(config, problem, last, mask)
    if config.least:
        raise ValueError(
            f"config.least is {config.least}, but config.scope is {config.scope}, expected "
            f"{GLOBAL}: other layers keep what their own rates leave."
        )
    of_leaves = settings.pruning_rates(config, problem.params)
    counts = functools.partial(rates.keep_counts, problem.params, of_leaves, start=mask)
    return Scope(problem.prunable, 0, counts)


def _make_global(config: ScopeSettings, problem: Problem, last: int, mask: PyTree | None) -> Scope:
    of_leaves = settings.rates_of_leaves(config, problem.params)
    if above := [rule for rule in config.rates if rule[1]]:
        raise ValueError(
            f"config.rates has {above[0]}, but config.scope is {GLOBAL}, where all layers together "
            "lose config.default_rate; expected only rules with rate 0, which exempt layers, or "
            "none: --config.rates='()'."
        )
    ranked = jax.tree.map(lambda yes, rate: yes and rate > 0, problem.prunable, of_leaves)
    if not any(jax.tree.leaves(ranked)):
        raise ValueError(
            f"config.default_rate is {config.default_rate} and config.rates exempts all other "
            f"layers, expected a layer that loses weights, of scope {GLOBAL}."
        )
    whole = jax.ShapeDtypeStruct((num_prunable(problem.params, ranked),), np.float32)
    begun = jax.tree.map(lambda x: np.ones(x.shape, bool), problem.params) if mask is None else mask
    pairs = zip(jax.tree.leaves(begun), jax.tree.leaves(ranked), strict=True)
    left = [leaf.ravel() for leaf, yes in pairs if yes]
    start = np.concatenate(left)
    counts = functools.partial(rates.keep_counts, whole, config.default_rate, start=start)
    least = sum(min(config.least, np.count_nonzero(leaf)) for leaf in left)
    if least > counts(last):
        raise ValueError(
            f"config.least keeps {least} weights in all layers, expected at most {counts(last)}, "
            f"which are left after round {last}."
        )
    return Scope(ranked, config.least, counts)
