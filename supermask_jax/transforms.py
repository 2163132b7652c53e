"""Gradient transformations that respect a mask, or change it while a network trains.

`freeze_pruned` holds a mask that is given. `prune_gradually` prunes by a schedule, and `regrow`
drops and grows weights; both are described in modules of their own. `mask_of` reads the mask in a
state, and `set_mask` replaces it.
"""

from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import optax

from supermask_jax.checks import check_masks
from supermask_jax.gradual import GradualState as GradualState
from supermask_jax.gradual import prune_gradually as prune_gradually
from supermask_jax.masking import check_fits, cut_to, is_hidden, step_kept
from supermask_jax.optimizers import taking_extra_arguments
from supermask_jax.paths import PyTree, leaf_names
from supermask_jax.regrowth import RegrowState as RegrowState
from supermask_jax.regrowth import regrow as regrow


class FrozenState(NamedTuple):
    """The state of a `freeze_pruned` that keeps its mask.

    Attributes:
      mask: bool `[...]`, True where a weight may move; `set_mask` replaces it.
      inner_state: the state of the inner optimizer.
    """

    mask: PyTree
    inner_state: PyTree


def freeze_pruned(
    inner: optax.GradientTransformation, mask: PyTree | None = None
) -> optax.GradientTransformationExtraArgs:
    """Keep pruned weights exactly where they are, whatever the inner optimizer does.

    Gradients of pruned weights are set to zero before the inner optimizer, so that norms and
    clipping do not see them. Updates are set to zero after it, so that weight decay, momentum and
    moments from before pruning move nothing. An extra argument `grad` is masked in the same way,
    and `value_fn`, `obj_fn` and `grad_fn` become functions of the kept weights.

    There are two ways to give the mask. As an argument of `update`, it lets one compiled step serve
    every round and every member of a population. As an argument of this function, it is kept in the
    optimizer's state, for loops that pass no extra arguments (such as flax's
    `TrainState.apply_gradients`); `set_mask` then replaces it between rounds. A mask given to
    `update` takes precedence over the one in the state.

    Put this transformation outermost: `freeze_pruned(optax.chain(...))`. Outside it:

    * clipping, `optax.apply_if_finite` and `optax.MultiSteps` with `skip_not_finite` see the
      gradients of pruned weights, too; if one is NaN, the kept weights miss their step;
    * `optax.ema` and other moments move weights that have just been pruned;
    * `optax.flatten` turns the tree into one array, which no mask fits: this raises an error.

    Three transformations are special:

    * Inside `optax.partition`, `optax.multi_transform` and `optax.masked`, it freezes the part of
      the network that it is given. The mask is that of the whole network.
    * `optax.lookahead` has two sets of parameters and passes no extra arguments. Freeze the fast
      weights, `optax.lookahead(freeze_pruned(fast, mask), ...)`, without `reset_state`, which does
      arithmetic on the mask. `freeze_pruned` around `optax.lookahead` raises an error.
    * `optax.contrib.schedule_free` goes inside. But its evaluation weights are computed from a
      sequence that moves, so mask them:
      `masks.apply(mask, schedule_free_eval_params(state, params), params)` (with
      `state.inner_state` if the state keeps the mask).

    Args:
      inner: any optax optimizer whose updates have the structure of the gradients.
      mask: bool `[...]` per leaf of the whole network, copied; by default, `update` takes the mask.

    Returns:
      A transformation with `update(grads, state, params, mask=mask)`, where the mask is a bool tree
      `[...]`, True where a weight may move. Its state is the inner one, or a `FrozenState` if
      `mask` is given here.

    Raises:
      TypeError: if `inner` is not an optimizer of optax. When called: if there is no mask, if the
        mask is not boolean, or if the inner optimizer returns updates of another structure.
      ValueError: when called, if the mask has another structure or other shapes.

    Examples:
      >>> optimizer = freeze_pruned(optax.adamw(0.1))
      >>> params, mask = jnp.array([[1.0, 2.0]]), jnp.array([[True, False]])
      >>> updates, _ = optimizer.update(params, optimizer.init(params), params, mask=mask)
      >>> float(updates[0, 0]) < 0.0, float(optax.apply_updates(params, updates)[0, 1])
      (True, 2.0)
    """
    inner = taking_extra_arguments(inner)
    keeps_mask = mask is not None
    if keeps_mask:
        check_masks(mask=mask)
        mask = jax.tree.map(jnp.array, mask)

    def init(params: PyTree) -> PyTree:
        state = inner.init(params)
        if not keeps_mask:
            return state
        own = cut_to(params, mask)
        if jax.tree.leaves(params):  # optax.tree.map_params passes an empty tree
            check_fits("freeze_pruned", own, params=params)
        return FrozenState(jax.tree.map(jnp.array, own), state)

    def update(
        updates: PyTree,
        state: PyTree,
        params: PyTree | None = None,
        *,
        mask: PyTree | None = None,
        **extra_args: Any,
    ) -> tuple[PyTree, PyTree]:
        if keeps_mask:
            kept_mask, inner_state = state
        else:
            kept_mask, inner_state = None, state
        if mask is None and kept_mask is None:
            raise TypeError(
                "freeze_pruned needs the mask: pass it to every update(grads, state, params, "
                "mask=mask), or once to freeze_pruned(optimizer, mask)."
            )
        if mask is None and any(leaf.dtype != bool for leaf in jax.tree.leaves(kept_mask)):
            raise TypeError(
                "the mask that freeze_pruned keeps is no longer bool: something does arithmetic on "
                "the state; optax.lookahead does so with reset_state=True, use False."
            )
        own = cut_to(updates, kept_mask if mask is None else mask)
        new, inner_state = step_kept(
            "freeze_pruned", inner, own, updates, inner_state, params, extra_args
        )
        # -0.0 is the float that adds nothing: 0.0 would turn a weight of -0.0 into 0.0.
        new = jax.tree.map(lambda m, u: jnp.where(m, u, -jnp.zeros_like(u)), own, new)
        return new, FrozenState(kept_mask, inner_state) if keeps_mask else inner_state

    return optax.GradientTransformationExtraArgs(init, update)


def mask_of(opt_state: PyTree) -> PyTree:
    """Return the mask that an optimizer's state keeps.

    Args:
      opt_state: the state of an optimizer with `prune_gradually`, `regrow` or
        `freeze_pruned(inner, mask)` anywhere in it, or of a population of members, `[P, ...]`.

    Returns:
      Bool `[...]` per leaf (`[P, ...]` for a population), a mask that `set_mask` takes. Parts that
      `optax.partition` keeps apart are put together; a leaf that no part masks is an
      `optax.MaskedNode`.

    Raises:
      ValueError: if the state keeps no mask.

    Examples:
      >>> optimizer = freeze_pruned(optax.sgd(1.0), mask=jnp.array([True, False]))
      >>> mask_of(optimizer.init(jnp.ones(2))).tolist()
      [True, False]
    """
    nodes = jax.tree.leaves(opt_state, is_leaf=_keeps_mask)
    found, *others = [node.mask for node in nodes if _keeps_mask(node)] or _refuse()
    for other in others:
        found = jax.tree.map(
            lambda mask, part: part if is_hidden(mask) else mask, found, other, is_leaf=is_hidden
        )
    return found


def set_mask(opt_state: PyTree, mask: PyTree) -> PyTree:
    """Replace every mask that an optimizer's state keeps.

    Args:
      opt_state: as `mask_of` takes it.
      mask: bool `[...]` per leaf (`[P, ...]` for a population), copied. Always the mask of the
        whole network, even inside `optax.partition`.

    Returns:
      The state with the new mask. Nothing else changes; reset the moments yourself if you want to.

    Raises:
      ValueError: if the state keeps no mask, or if the new mask has another structure or other
        shapes.
      TypeError: if the mask is not boolean.

    Examples:
      >>> optimizer = freeze_pruned(optax.sgd(1.0), mask=jnp.array([True, True]))
      >>> weights = jnp.array([1.0, 2.0])
      >>> state = set_mask(optimizer.init(weights), jnp.array([True, False]))
      >>> optimizer.update(weights, state)[0].tolist()
      [-1.0, -0.0]
    """
    found = []

    def replace(node: PyTree) -> PyTree:
        if not _keeps_mask(node):
            return node
        found.append(node)
        new = cut_to(node.mask, mask)
        if leaf_names(new) == leaf_names(node.mask):  # flax nnx wraps leaves in its own types
            new = jax.tree.unflatten(jax.tree.structure(node.mask), jax.tree.leaves(new))
        check_masks(kept=node.mask, mask=new)
        inner_state = jax.tree.map(replace, node.inner_state, is_leaf=_keeps_mask)
        return node._replace(mask=jax.tree.map(jnp.array, new), inner_state=inner_state)

    state = jax.tree.map(replace, opt_state, is_leaf=_keeps_mask)
    return state if found else _refuse()


def _keeps_mask(node: PyTree) -> bool:
    return isinstance(node, FrozenState | GradualState | RegrowState)


def _refuse() -> NoReturn:
    raise ValueError(
        "the optimizer's state keeps no mask; give freeze_pruned the mask: "
        "freeze_pruned(optimizer, mask)."
    )
