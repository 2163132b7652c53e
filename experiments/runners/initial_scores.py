"""The scores by which networks are pruned before they are trained.

Scores from gradients are those of a training step, in which BatchNorm normalises by the batch.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from experiments.engine.objectives import Apply, make_loss
from experiments.problems.networks import arguments_of
from experiments.problems.problem import Problem, PyTree
from supermask_jax import saliency
from supermask_jax.trees import Key, leaf_keys

TEMPERATURE = 200.0  # of GraSP

# (problem, key, w_i, batch, mask, model_state) -> scores, `[...]` per leaf; pruning keeps the
# highest. The model state is None for networks without state.
InitialScore = Callable[[Problem, Key, PyTree, PyTree, PyTree, PyTree], PyTree]


def _snip(
    problem: Problem, key: Key, w_i: PyTree, batch: PyTree, mask: PyTree, model_state: PyTree
) -> PyTree:
    loss = _loss(problem, _training_logits(problem, model_state))
    return saliency.snip(loss, w_i, batch, mask=mask)


def _grasp(
    problem: Problem, key: Key, w_i: PyTree, batch: PyTree, mask: PyTree, model_state: PyTree
) -> PyTree:
    # Over logits that are not small, one large step of pruning leaves networks that predict one
    # class with certainty; the authors' code divides logits by this temperature.
    apply = _training_logits(problem, model_state)
    cooled = _loss(problem, lambda w, images: apply(w, images) / TEMPERATURE)
    return saliency.grasp(cooled, w_i, batch, mask=mask)


def _synflow(
    problem: Problem, key: Key, w_i: PyTree, batch: PyTree, mask: PyTree, model_state: PyTree
) -> PyTree:
    # Initial statistics are mean 0 and variance 1: in an evaluation BatchNorm is linear.
    apply, more = problem.network.apply, arguments_of(model_state)
    ones = jnp.ones((1, *problem.network.input_shape))
    return saliency.synflow(lambda w, images: apply(w, images, *more), w_i, ones, mask=mask)


def _magnitude(
    problem: Problem, key: Key, w_i: PyTree, batch: PyTree, mask: PyTree, model_state: PyTree
) -> PyTree:
    return jax.tree.map(jnp.abs, w_i)


def _random(
    problem: Problem, key: Key, w_i: PyTree, batch: PyTree, mask: PyTree, model_state: PyTree
) -> PyTree:
    return jax.tree.map(lambda k, w: jax.random.uniform(k, w.shape), leaf_keys(key, w_i), w_i)


SCORES: dict[str, InitialScore] = {
    "snip": _snip,
    "grasp": _grasp,
    "synflow": _synflow,
    "magnitude": _magnitude,
    "random": _random,
}


def _training_logits(problem: Problem, model_state: PyTree) -> Apply:
    """Return the network in a training step, `(params, images) -> logits`."""
    apply_training = problem.network.apply_training
    if apply_training is None:
        return problem.network.apply
    return lambda params, images: apply_training(params, images, model_state)[0]


def _loss(problem: Problem, apply: Apply) -> Callable[[PyTree, PyTree], jax.Array]:
    loss, unused = make_loss(apply, problem.losses), jax.random.key(0)
    return lambda params, batch: loss(params, batch, unused, {})[0]
