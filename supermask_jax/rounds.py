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

import jax
import jax.numpy as jnp

from supermask_jax import masks
from supermask_jax.checks import (
    check_action,
    check_criterion,
    check_integer,
    check_key,
    check_mask,
    check_prunable,
    check_trees,
    concrete,
    dtype_of,
    own,
    warn,
)
from supermask_jax.paths import PyTree, path_name
from supermask_jax.trees import EVERY_LEAF, Action, Criterion, Key, RoundState


def begin(params: PyTree, mask: PyTree | None = None) -> RoundState:
    """The state of the dense network, or of one masked from the start, pruned weights at 0.

    The state copies what it is given: to train numpy's or torch's memory in place moves no start.

    Weights of a pruned network that somebody else's file holds are 0 behind its mask. As start
    weights they serve actions that take each weight by itself; `reinit` and `constant` permute the
    whole layer, zeros and all, and of a layer with 20 % of its weights restart 80 % of the kept
    ones at 0. Begin from the weights as they were before they were pruned.

    Args:
      params: start weights `[...]`.
      mask: bool `[...]`, the weights that are there; by default all.

    Warns:
      UserWarning: outside `jit`, names the leaves that the mask prunes at all and whose pruned
        weights are all 0, as above.

    Raises:
      ValueError, TypeError: trees or shapes that differ, leaves that are not arrays.
    """
    whole = mask is None
    mask = masks.ones(params) if whole else mask
    check_mask(mask, params=params)
    params, mask = jax.tree.map(jnp.array, (params, mask))
    if not whole:
        _warn_of_zeros(params, mask)
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
    least: PyTree = 0,
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
      num_keep: weights to keep per leaf, as `masks.prune` takes them; or, for a tree of several
        leaves, one integer: all prunable leaves are ranked together, as by `masks.prune_global`.
        Then `rates.keep_counts` of all weights as one leaf gives exact numbers:
        ``keep_counts(jax.ShapeDtypeStruct((num_prunable(params, prunable),), float), 0.2, round)``.
      prunable: static, from `trees.prunable_leaves`; other leaves keep their mask and restart from
        `w_i`, or from the values of a `mask_one` that is one for every leaf, such as
        `actions.finetune` (see `actions.on_every_leaf`).
      least: with one integer, how many weights each prunable leaf keeps in any case, an int or one
        per leaf.

    Returns:
      The next state, of the same types: what actions return is cast to those of the weights.

    Warns:
      UserWarning: as `masks.prune_global`.

    Raises:
      ValueError, TypeError: trees or shapes that differ, a criterion or an action that is no
        function, and what `masks.prune` and `masks.prune_global` raise.
    """
    check_criterion(criterion)
    check_action("mask-1 action", mask_one, "actions.MASK_ONE")
    check_action("mask-0 action", mask_zero, "actions.MASK_ZERO")
    check_trees(w_i=state.w_i, w_f=w_f)
    check_prunable(prunable, w_i=state.w_i)
    check_key(key)
    prune_key, one_key, zero_key = jax.random.split(key, 3)

    def where_prunable(new: PyTree, old: PyTree) -> PyTree:
        return jax.tree.map(lambda yes, n, o: n if yes else o, prunable, new, old)

    def as_weights(values: PyTree) -> PyTree:
        return jax.tree.map(lambda w, v: own(v).astype(dtype_of(w)), state.w_i, values)

    scores = criterion(state.w_i, w_f, state.mask)
    check_trees(w_i=state.w_i, scores=scores)
    # Leaves that are not prunable may hold what nobody can rank, such as integers.
    ranked = where_prunable(scores, jax.tree.map(lambda w: jnp.zeros(w.shape), scores))
    if _is_global(num_keep, least, ranked):
        new = masks.prune_global(prune_key, ranked, state.mask, num_keep, prunable, least)
    else:
        new = masks.prune(prune_key, ranked, state.mask, num_keep)
    mask = where_prunable(new, state.mask)
    pruned_now = masks.difference(state.mask, mask)
    fills = mask_zero(zero_key, state.w_i, w_f, pruned_now)
    restarts = mask_one(one_key, state.w_i, w_f, mask)
    check_trees(w_i=state.w_i, mask_zero=fills, mask_one=restarts)
    fill = masks.apply(pruned_now, as_weights(fills), state.fill)
    w_i = as_weights(restarts)
    if not getattr(mask_one, EVERY_LEAF, False):
        w_i = where_prunable(w_i, state.w_i)
    return RoundState(w_i, fill, mask)


def _is_global(num_keep: PyTree, least: PyTree, scores: PyTree) -> bool:
    """Whether one number is for all leaves together."""
    one = jax.tree.structure(0)
    floored = jax.tree.structure(least) != one or check_integer("least", least, 0) > 0
    if jax.tree.structure(num_keep) != one:
        if floored:
            raise ValueError("least goes with one integer num_keep for all leaves together.")
        return False
    return floored or jax.tree.structure(scores) != one


def _warn_of_zeros(params: PyTree, mask: PyTree) -> None:
    def hides_zeros(w: jax.Array, kept: jax.Array) -> jax.Array:
        return ~jnp.all(kept) & jnp.all(kept | (w == jnp.zeros_like(w)))

    leaves = jax.tree_util.tree_leaves_with_path(params)
    hiding = [
        f"'{path_name(path)}'"
        for (path, w), kept in zip(leaves, jax.tree.leaves(mask), strict=True)
        if concrete(hides_zeros(w, kept))
    ]
    if hiding:
        warn(
            f"the start weights of {', '.join(hiding)} are 0 behind the mask, so that reinit and "
            "constant, which permute whole layers, will restart kept weights at 0; "
            "begin from the weights as they were before pruning."
        )
