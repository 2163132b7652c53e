"""Iterative pruning between trainings, as pure functions of a small state.

A round of Zhou et al. 2019, section 2, is: train, score, prune, reset. The caller does the
training.

Examples:
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
    """Return the state of the dense network, or of a masked one with pruned weights at 0.

    The state holds copies: changing NumPy or torch arrays in place afterwards has no effect on it.

    Start weights that come from an already pruned network are often 0 where its mask is False. That
    is harmless for actions that treat each weight by itself. But `reinit` and `constant` permute
    the whole layer, including the zeros: if 20 % of the weights are kept, 80 % of these restart at
    0. Begin from the weights as they were before pruning instead.

    Args:
      params: start weights `[...]`.
      mask: bool `[...]`, True for the weights that are kept; by default all.

    Warns:
      UserWarning: outside `jit`, if all pruned weights of a leaf are 0, as above; names the leaves.

    Raises:
      ValueError: if trees or shapes differ.
      TypeError: if a leaf is not an array, or if a leaf of the mask is not boolean.

    Examples:
      >>> state = begin({"kernel": jnp.ones((2, 2))})
      >>> state.mask["kernel"].tolist()
      [[True, True], [True, True]]
    """
    whole = mask is None
    mask = masks.ones(params) if whole else mask
    check_mask(mask, params=params)
    params, mask = jax.tree.map(jnp.array, (params, mask))
    if not whole:
        _warn_of_zeros(params, mask)
    return RoundState(params, jax.tree.map(jnp.zeros_like, params), mask)


def start_params(state: RoundState) -> PyTree:
    """Return the parameters that training starts from: `w_i` where kept, `fill` where pruned.

    Args:
      state: from `begin` or `advance`.

    Examples:
      >>> start_params(begin(jnp.array([3.0, 5.0]), jnp.array([True, False]))).tolist()
      [3.0, 0.0]
    """
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
    """Return the state of the next round, given the result of training this one.

    Args:
      key: breaks ties and drives random actions.
      state: the state that training started from.
      w_f: the final weights, as training returned them.
      criterion: scores the weights: from `criteria`, or your own.
      mask_one: gives kept weights their next start values. These become the new `w_i`, which the
        criterion of the next round sees; so the effects of random actions accumulate, as in the
        authors' code.
      mask_zero: gives weights that are pruned now their values; weights pruned earlier keep theirs.
      num_keep: the numbers of weights to keep per leaf, as in `masks.prune`; or, for a tree of
        several leaves, one int: then all prunable leaves are ranked together, as in
        `masks.prune_global`. For its exact value, take `rates.keep_counts` of all prunable weights
        as one leaf:
        `keep_counts(jax.ShapeDtypeStruct((num_prunable(params, prunable),), float), 0.2, round)`.
      prunable: static, from `trees.prunable_leaves`. Other leaves keep their mask and restart from
        `w_i`, unless `mask_one` is marked as an action for every leaf, as `actions.finetune` is
        (see `actions.on_every_leaf`).
      least: only with one int `num_keep`: the number of weights that each prunable leaf keeps in
        any case, an int or one per leaf.

    Returns:
      The next state, of the same types. The values of actions are cast to the types of the weights.

    Warns:
      UserWarning: as `masks.prune_global`.

    Raises:
      ValueError: if trees or shapes differ; also as `masks.prune` and `masks.prune_global`.
      TypeError: if a criterion or an action is not a function of the expected arguments; also as
        `masks.prune` and `masks.prune_global`.

    Examples:
      >>> from supermask_jax import actions, criteria
      >>> state = advance(
      ...     jax.random.key(0), begin(jnp.array([0.3, -0.2])), jnp.array([0.9, -0.1]),
      ...     criterion=criteria.large_final, mask_one=actions.rewind, mask_zero=actions.zero,
      ...     num_keep=1, prunable=True)
      >>> state.mask.tolist()
      [True, False]
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
    # Leaves that are not prunable may hold values without a ranking, such as integers.
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
    """Tell whether `num_keep` is one number for all leaves together."""
    one = jax.tree.structure(0)
    floored = jax.tree.structure(least) != one or check_integer("least", least, 0) > 0
    if jax.tree.structure(num_keep) != one:
        if floored:
            raise ValueError("least needs one integer num_keep for all leaves together.")
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
            f"the start weights of {', '.join(hiding)} are 0 wherever they are pruned; reinit and "
            "constant, which permute whole layers, will restart kept weights at 0; "
            "begin from the weights as they were before pruning."
        )
