"""Pruning while training: an optimizer that prunes by a schedule.

Source of the schedules: Zhu & Gupta 2017, "To prune, or not to prune" (`rates.cubic`).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from supermask_jax import criteria, masks, rates
from supermask_jax.checks import check_criterion, check_key, check_weights
from supermask_jax.masking import (
    check_fits,
    cut_to,
    like,
    needed,
    only_if,
    step_kept,
    to_zero,
    zero_pruned,
)
from supermask_jax.optimizers import taking_extra_arguments
from supermask_jax.paths import PyTree
from supermask_jax.trees import Criterion, Key


class GradualState(NamedTuple):
    """The state of `prune_gradually`.

    Attributes:
      step: the number of updates so far, an int32 scalar.
      key_data: uint32, of the key that breaks ties; events fold their number into it. Typed keys
        would slow down the dispatch of every compiled step.
      mask: bool `[...]`, True for kept weights.
      w_i: the start weights `[...]`, None for a criterion of `criteria.OF_FINAL_WEIGHTS`.
      inner_state: the state of the inner optimizer.
    """

    step: jax.Array
    key_data: jax.Array
    mask: PyTree
    w_i: PyTree
    inner_state: PyTree


def prune_gradually(
    inner: optax.GradientTransformation,
    criterion: Criterion,
    schedule: rates.Schedule,
    prunable: PyTree,
    *,
    key: Key,
    distribution: str = "uniform",
    rules: rates.Rules = (),
) -> optax.GradientTransformationExtraArgs:
    """Prune while training: at the steps of a schedule, to its densities, by any criterion.

    Update number t = 0, 1, ... is step t of the schedule. If it has an event, the weights that the
    update gets are pruned first: of every prunable leaf, the highest scores `criterion(w_i, w, m)`
    among the kept weights stay, as many as `rates.schedule_counts` says. `w_i` are the weights that
    `init` got and `w` those that the update got. Then the inner optimizer steps on the kept weights
    alone, as inside `freeze_pruned`: it sees zeros for pruned weights and their gradients. The
    update of a pruned weight w is -w, so a pruned weight is exactly 0 from its event on and never
    moves or returns. A pruned weight that is NaN or infinite stays so.

    `update(grads, state, params)` needs no other argument, so flax's `TrainState`, `nnx.Optimizer`
    and other loops take this optimizer as it is. Put it outermost, around `optax.chain(...)`, for
    the reasons that `freeze_pruned` gives; inside `optax.partition` and `optax.masked` it prunes
    the part that it gets, whose leaves then share the density.

    One compiled step serves the whole schedule. A step without an event does not look at scores.
    Under `vmap` it does not rank them, but computes them and selects between two masks, and all
    members rank when one has an event. To spare that, keep the step out of the member axis: all
    members then prune in the same updates, by
    `GradualState(step=None, key_data=0, mask=0, w_i=0, inner_state=0)` in the `in_axes` and
    `out_axes` of `vmap`; or map the members one after the other, as `population.map_members` does.

    The state adds one byte per weight for the mask, and a copy of the weights unless the criterion
    is one of `criteria.OF_FINAL_WEIGHTS`.

    Args:
      inner: any optax optimizer whose updates have the structure of the gradients.
      criterion: a `trees.Criterion`. As under `jit`, scores of NaN rank last.
      schedule: from `rates.cubic` or another such function.
      prunable: from `trees.prunable_leaves`, for the whole network.
      key: breaks ties at random. It becomes part of the state, so members of a population have
        their own: `vmap` a function of the key that makes the optimizer and calls `init`.
      distribution: how leaves share the density, as in `rates.layer_densities`.
      rules: densities of leaves by path, as in `rates.layer_densities`.

    Returns:
      A transformation with a `GradualState`; `transforms.mask_of` reads its mask.

    Raises:
      TypeError: if an argument is of another kind. When called: if `update` gets no weights, or as
        `freeze_pruned`.
      ValueError: when called, if `prunable` or the gradients have another structure or other shapes
        than the weights, or as `rates.schedule_counts`.

    Examples:
      >>> params = {"kernel": jnp.array([[0.3, -2.0, 1.0, -0.1]])}
      >>> optimizer = prune_gradually(
      ...     optax.sgd(0.0), criteria.large_final, rates.one_shot(0.5, at=1),
      ...     {"kernel": True}, key=jax.random.key(0),
      ... )
      >>> state = optimizer.init(params)
      >>> for _ in range(2):
      ...     updates, state = optimizer.update(params, state, params)
      ...     params = optax.apply_updates(params, updates)
      ...     params["kernel"].tolist()
      [[0.30000001192092896, -2.0, 1.0, -0.10000000149011612]]
      [[0.0, -2.0, 1.0, 0.0]]
    """
    inner = taking_extra_arguments(inner)
    check_criterion(criterion)
    check_key(key)
    wrapped = functools.partial(jax.random.wrap_key_data, impl=jax.random.key_impl(key))
    keeps_start = criterion not in criteria.OF_FINAL_WEIGHTS

    def init(params: PyTree) -> GradualState:
        if jax.tree.leaves(params):  # optax.tree.map_params passes an empty tree
            own = cut_to(params, prunable)
            check_weights(own, params=params)
            rates.schedule_counts(params, schedule, distribution, rules, own)
        w_i = jax.tree.map(jnp.array, params) if keeps_start else None
        return GradualState(
            jnp.int32(0), jax.random.key_data(key), masks.ones(params), w_i, inner.init(params)
        )

    @jax.jit  # so that outside of a compiled step, too, it is compiled once
    def mask_at(
        step: jax.Array, key_data: jax.Array, mask: PyTree, w_i: PyTree, w: PyTree
    ) -> PyTree:
        own = cut_to(w, prunable)
        w = like(lax.stop_gradient(w), own)
        start = w if w_i is None else like(lax.stop_gradient(w_i), own)
        counts = rates.schedule_counts(w, schedule, distribution, rules, own)
        number = schedule.num_events(step)

        def count(leaf: jax.Array, counts: np.ndarray) -> Any:
            is_whole = (counts == leaf.size).all()  # masks.prune leaves such a leaf out
            return leaf.size if is_whole else jnp.asarray(counts)[number - 1]

        def prune(kept: PyTree) -> PyTree:
            event_key = jax.random.fold_in(wrapped(key_data), number)
            scores = criterion(start, w, kept)
            return masks.prune(event_key, scores, kept, jax.tree.map(count, w, counts))

        is_event = number != schedule.num_events(step - 1)
        return like(only_if(is_event, prune, like(mask, own)), mask)

    def update(
        updates: PyTree, state: PyTree, params: PyTree | None = None, **extra_args: Any
    ) -> tuple[PyTree, GradualState]:
        step, key_data, mask, w_i, inner_state = state
        params = needed("prune_gradually", params)
        check_fits("prune_gradually", mask, updates=updates, params=params)
        mask = mask_at(step, key_data, mask, w_i, params)
        weights = zero_pruned(mask, params)
        new, inner_state = step_kept(
            "prune_gradually", inner, mask, updates, inner_state, weights, extra_args
        )
        new_state = GradualState(step + 1, key_data, mask, w_i, inner_state)
        return to_zero(mask, new, params), new_state

    return optax.GradientTransformationExtraArgs(init, update)
