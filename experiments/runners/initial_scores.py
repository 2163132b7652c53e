"""The scores by which networks are pruned before they are trained."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from experiments.engine.objectives import Apply, make_loss
from experiments.problems.problem import Problem, PyTree
from supermask_jax import saliency
from supermask_jax.trees import Key, leaf_keys

TEMPERATURE = 200.0  # of GraSP

# (problem, key, w_i, batch, mask) -> scores, `[...]` per leaf; pruning keeps the highest.
InitialScore = Callable[[Problem, Key, PyTree, PyTree, PyTree], PyTree]


def _snip(problem: Problem, key: Key, w_i: PyTree, batch: PyTree, mask: PyTree) -> PyTree:
    return saliency.snip(_loss(problem, problem.network.apply), w_i, batch, mask=mask)


def _grasp(problem: Problem, key: Key, w_i: PyTree, batch: PyTree, mask: PyTree) -> PyTree:
    # Over logits that are not small, one large step of pruning leaves networks that predict one
    # class with certainty; the authors' code divides logits by this temperature.
    cooled = _loss(problem, lambda w, images: problem.network.apply(w, images) / TEMPERATURE)
    return saliency.grasp(cooled, w_i, batch, mask=mask)


def _synflow(problem: Problem, key: Key, w_i: PyTree, batch: PyTree, mask: PyTree) -> PyTree:
    ones = jnp.ones((1, *problem.network.input_shape))
    return saliency.synflow(problem.network.apply, w_i, ones, mask=mask)


def _magnitude(problem: Problem, key: Key, w_i: PyTree, batch: PyTree, mask: PyTree) -> PyTree:
    return jax.tree.map(jnp.abs, w_i)


def _random(problem: Problem, key: Key, w_i: PyTree, batch: PyTree, mask: PyTree) -> PyTree:
    return jax.tree.map(lambda k, w: jax.random.uniform(k, w.shape), leaf_keys(key, w_i), w_i)


SCORES: dict[str, InitialScore] = {
    "snip": _snip,
    "grasp": _grasp,
    "synflow": _synflow,
    "magnitude": _magnitude,
    "random": _random,
}


def _loss(problem: Problem, apply: Apply) -> Callable[[PyTree, PyTree], jax.Array]:
    loss, unused = make_loss(apply, problem.losses), jax.random.key(0)
    return lambda params, batch: loss(params, batch, unused, {})[0]
