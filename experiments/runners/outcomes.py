"""What a finished round of iterative pruning leaves."""

from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.engine.arrays import abstract
from experiments.runners.iterative_plan import Plan
from supermask_jax import rounds

PyTree = Any


class Outcome(NamedTuple):
    """A finished round: the state that its population started from, and its last parameters.

    With late rewinding, the ``w_i`` of round 0 are the weights that later rounds rewind to.
    """

    state: rounds.RoundState
    w_f: PyTree


class OutcomeWithState(NamedTuple):
    """A finished round of networks with state: an `Outcome`, and the model states around it."""

    state: rounds.RoundState
    w_f: PyTree
    model_start: PyTree
    model_end: PyTree


AnyOutcome = Outcome | OutcomeWithState


def abstract_outcome(plan: Plan, round: int) -> AnyOutcome:
    """Return the shapes and types of a round's outcome, as `Checkpoints.load` needs them."""
    return abstract_members(plan, len(plan.members(round)))


def abstract_members(plan: Plan, count: int) -> AnyOutcome:
    """Return the shapes and types of the outcome of some members."""
    leading = (count,)
    weights = abstract(plan.problem.params, leading=leading)
    mask = abstract(plan.problem.params, leading=leading, dtype=bool)
    state = rounds.RoundState(weights, weights, mask)
    if plan.problem.model_state is None:
        return Outcome(state, weights)
    own = abstract(plan.problem.model_state, leading=leading)
    return OutcomeWithState(state, weights, own, own)


def densities(mask: PyTree, prunable: PyTree) -> list[float]:
    """Return the exact density of every member: kept / prunable weights."""
    pairs = zip(jax.tree.leaves(mask), jax.tree.leaves(prunable), strict=True)
    leaves = [leaf.reshape(len(leaf), -1) for leaf, yes in pairs if yes]
    return np.concatenate(leaves, axis=1).mean(axis=1, dtype=np.float64).tolist()
