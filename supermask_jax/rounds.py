"""Iterative pruning between two trainings, as pure functions of a small state.

One round of Zhou et al. 2019, section 2: train, score, prune, reset. Training is the caller's.

>>> from supermask_jax import actions, criteria, rates, trees
>>> params = {"kernel": jnp.array([[0.3, -0.2], [0.1, 0.4]])}
>>> prunable = trees.prunable_leaves(params)
>>> state = begin(params)
>>> w_f = {"kernel": jnp.array([[0.9, -0.1], [0.2, 0.8]])}   # what training would return
>>> state = advance(
...     jax.random.key(0), state, w_f, criterion=criteria.large_final, mask_one=actions.rewind,
...     mask_zero=actions.zero, num_keep=rates.keep_counts(params, {"kernel": 0.5}, 1),
...     prunable=prunable)
>>> start_params(state)["kernel"].round(1).tolist()
[[0.30000001192092896, 0.0], [0.0, 0.4000000059604645]]
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from supermask_jax import masks
from supermask_jax.checks import check_key, check_mask, check_prunable, check_trees, dtype_of
from supermask_jax.paths import PyTree
from supermask_jax.trees import Action, Criterion, Key


class RoundState(NamedTuple):
    """What a round of training starts from; every field has the structure of the parameters.

    Attributes:
      w_i: start values of the kept weights `[...]`. Entries behind the mask hold no fill, so
        that actions on whole layers never see one.
      fill: what pruned weights are set to `[...]`, decided once, when they are pruned.
      mask: bool `[...]`, True for kept weights.
    """

    w_i: PyTree
    fill: PyTree
    mask: PyTree


def begin(params: PyTree, mask: PyTree | None = None) -> RoundState:
    """The state of the dense network, or of one masked from the start, pruned weights at 0."""
    mask = masks.ones(params) if mask is None else mask
    check_mask(mask, params=params)
    return RoundState(params, jax.tree.map(jnp.zeros_like, params), mask)


def start_params(state: RoundState) -> PyTree:
    """The parameters that training starts from: `w_i` where kept, `fill` where pruned."""
    return masks.apply(state.mask, state.w_i, state.fill)


def advance(
    key: Key,
    state: RoundState,
    w_f: PyTree,
    *,
    criterion: Criterion,
    mask_one: Action,
    mask_zero: Action,
    num_keep: PyTree,
    prunable: PyTree,
) -> RoundState:
    """From the end of one round's training to the start of the next.

    Args:
      key: for ties and for random actions.
      state: what the round's training started from.
      w_f: what it ended with.
      criterion: scores, from `criteria` or the caller's own.
      mask_one: gives kept weights their next start values. These become the new `w_i`, which
        the next round's criterion sees: random actions compound, as in the authors' code.
      mask_zero: asked only for the weights pruned now; earlier decisions stand.
      num_keep: weights to keep per leaf, as `masks.prune` takes them.
      prunable: static, from `trees.prunable_leaves`; other leaves rewind and keep their mask.

    Returns:
      The next state, of the same types: what actions return is cast to those of the weights.

    Raises:
      ValueError, TypeError: trees or shapes that differ, and what `masks.prune` raises.
    """
    check_trees(w_i=state.w_i, w_f=w_f)
    check_prunable(prunable, w_i=state.w_i)
    check_key(key)
    prune_key, one_key, zero_key = jax.random.split(key, 3)

    def where_prunable(new: PyTree, old: PyTree) -> PyTree:
        return jax.tree.map(lambda yes, n, o: n if yes else o, prunable, new, old)

    def as_weights(values: PyTree) -> PyTree:
        return jax.tree.map(lambda w, v: jnp.asarray(v, dtype_of(w)), state.w_i, values)

    scores = criterion(state.w_i, w_f, state.mask)
    check_trees(w_i=state.w_i, scores=scores)
    # Leaves that are not prunable may hold what nobody can rank, such as integers.
    ranked = where_prunable(scores, jax.tree.map(lambda w: jnp.zeros(w.shape), scores))
    mask = where_prunable(masks.prune(prune_key, ranked, state.mask, num_keep), state.mask)
    pruned_now = masks.difference(state.mask, mask)
    fills = mask_zero(zero_key, state.w_i, w_f, pruned_now)
    restarts = mask_one(one_key, state.w_i, w_f, mask)
    check_trees(w_i=state.w_i, mask_zero=fills, mask_one=restarts)
    fill = masks.apply(pruned_now, as_weights(fills), state.fill)
    w_i = where_prunable(as_weights(restarts), state.w_i)
    return RoundState(w_i, fill, mask)
