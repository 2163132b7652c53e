"""Gradient transformations that respect a mask."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from supermask_jax.checks import check_mask, check_masks
from supermask_jax.optimizers import taking_extra_arguments
from supermask_jax.paths import PyTree, leaf_names


class FrozenState(NamedTuple):
    """The state of a `freeze_pruned` that keeps its mask.

    Attributes:
      mask: bool `[...]`, True where a weight may move; replaced by `set_mask`.
      inner_state: of the inner optimizer.
    """

    mask: PyTree
    inner_state: PyTree


def freeze_pruned(
    inner: optax.GradientTransformation, mask: PyTree | None = None
) -> optax.GradientTransformationExtraArgs:
    """Keep pruned weights exactly where they are, whatever the inner optimizer does.

    Gradients of pruned weights are zeroed before the inner optimizer, so that norms and
    clipping do not see them, and updates after it, so that weight decay, momentum and moments
    carried over from before pruning move nothing. An extra argument ``grad`` is zeroed the same
    way, and a ``value_fn`` becomes a function of the kept weights.

    The mask is an argument of `update`: one compiled step serves every round and every member of a
    population. Or it is given once, here, and kept in the optimizer's state, so that loops that
    pass no extra argument work as they are (flax's ``TrainState.apply_gradients``, say); `set_mask`
    replaces it between rounds. A mask given to `update` wins over the one that is kept.

    Put it outermost: ``freeze_pruned(optax.chain(...))``. Of what stands around it,

    * clipping, ``optax.apply_if_finite`` and ``optax.MultiSteps`` with ``skip_not_finite`` look at
      gradients of pruned weights, too, and a NaN there costs the kept ones their step;
    * ``optax.ema`` and other moments move weights that were pruned a moment ago;
    * ``optax.flatten`` makes one array of the tree, which no mask fits: refused.

    Three are different. Inside ``optax.partition``, ``multi_transform`` and ``masked`` it freezes
    the part that it is given, by the mask of the whole network. ``optax.lookahead`` has two sets of
    parameters and passes no extra arguments: ``lookahead(freeze_pruned(fast, mask), ...)``, without
    ``reset_state``, which computes with the mask; around it, `freeze_pruned` is refused.
    ``optax.contrib.schedule_free`` goes inside, but its evaluation weights are computed from
    a sequence that moves: take them where the mask keeps them,
    ``masks.apply(mask, schedule_free_eval_params(state, params), params)`` (``state.inner_state``
    where the mask is kept).

    Args:
      inner: any optax optimizer whose update has the structure of the gradients.
      mask: bool `[...]`, of the whole network; copied.

    Returns:
      A transformation whose ``update(grads, state, params, mask=mask)`` takes a bool tree
      `[...]`, True where a weight may move. Its state is the inner one, or with a mask of its own
      a `FrozenState`.

    Raises:
      TypeError: no optimizer of optax; when called, no mask, a mask that is not bool, or an inner
        optimizer that returns another structure than it got.
      ValueError: when called, a mask of another structure or other shapes.

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
        own = _cut_to(params, mask)
        if jax.tree.leaves(params):  # optax.tree.map_params asks with none
            _check(own, params=params)
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
                "freeze_pruned needs the mask: update(grads, state, params, mask=mask), or once "
                "and for all freeze_pruned(optimizer, mask)."
            )
        if mask is None and any(leaf.dtype != bool for leaf in jax.tree.leaves(kept_mask)):
            raise TypeError(
                "the mask that freeze_pruned keeps is no longer bool: something computes with the "
                "state; optax.lookahead does with reset_state=True, use False."
            )
        own = _cut_to(updates, kept_mask if mask is None else mask)
        _check(own, updates=updates)
        new, inner_state = inner.update(
            _zero_pruned(own, updates), inner_state, params, **_masked(extra_args, own, params)
        )
        if jax.tree.structure(new) != jax.tree.structure(updates):
            raise TypeError(_OF_ANOTHER_STRUCTURE)
        # -0.0 is the float that adds nothing: 0.0 would turn a weight of -0.0 into 0.0.
        new = jax.tree.map(lambda m, u: jnp.where(m, u, -jnp.zeros_like(u)), own, new)
        return new, FrozenState(kept_mask, inner_state) if keeps_mask else inner_state

    return optax.GradientTransformationExtraArgs(init, update)


def set_mask(opt_state: PyTree, mask: PyTree) -> PyTree:
    """Replace the mask that every `freeze_pruned` in an optimizer's state keeps.

    Args:
      opt_state: of an optimizer with a ``freeze_pruned(inner, mask)`` anywhere in it, or of many
        members, `[P, ...]`.
      mask: bool `[...]` (`[P, ...]` for many members), of the whole network, also where
        `optax.partition` gives the transformation a part; copied.

    Returns:
      The state with the new mask and all else as it was: set moments to zero where you want that.

    Raises:
      ValueError: a state that keeps no mask, or a mask of another structure or other shapes.
      TypeError: a mask that is not bool.

    >>> optimizer = freeze_pruned(optax.sgd(1.0), mask=jnp.array([True, True]))
    >>> weights = jnp.array([1.0, 2.0])
    >>> state = set_mask(optimizer.init(weights), jnp.array([True, False]))
    >>> optimizer.update(weights, state)[0].tolist()
    [-1.0, -0.0]
    """
    found = []

    def replace(node: PyTree) -> PyTree:
        if not isinstance(node, FrozenState):
            return node
        found.append(node)
        new = _cut_to(node.mask, mask)
        if leaf_names(new) == leaf_names(node.mask):  # flax nnx wraps leaves of its own kind
            new = jax.tree.unflatten(jax.tree.structure(node.mask), jax.tree.leaves(new))
        check_masks(kept=node.mask, mask=new)
        inner_state = jax.tree.map(replace, node.inner_state, is_leaf=_is_frozen)
        return FrozenState(jax.tree.map(jnp.array, new), inner_state)

    state = jax.tree.map(replace, opt_state, is_leaf=_is_frozen)
    if not found:
        raise ValueError(
            "the optimizer's state keeps no mask; make the optimizer with one: "
            "freeze_pruned(optimizer, mask)."
        )
    return state


_OF_ANOTHER_STRUCTURE = (
    "the inner optimizer of freeze_pruned returns updates of another structure than the gradients; "
    "if it is optax.lookahead, freeze the fast weights: "
    "optax.lookahead(freeze_pruned(fast_optimizer, mask), ...)."
)


def _is_frozen(node: PyTree) -> bool:
    return isinstance(node, FrozenState)


def _is_hidden(node: PyTree) -> bool:
    return isinstance(node, optax.MaskedNode)


def _hides(tree: PyTree) -> bool:
    return any(map(_is_hidden, jax.tree.leaves(tree, is_leaf=_is_hidden)))


def _cut_to(tree: PyTree, whole: PyTree) -> PyTree:
    """The parts of a whole tree that optax has not hidden in another."""
    if not _hides(tree):
        return whole
    try:
        return jax.tree.map(
            lambda node, part: node if _is_hidden(node) else part, tree, whole, is_leaf=_is_hidden
        )
    except ValueError:  # of another network: whoever checks says where
        return whole


def _check(mask: PyTree, **trees: PyTree) -> None:
    """Check a mask, with a word on what often leads to a wrong one."""
    ((_, tree),) = trees.items()
    if isinstance(tree, optax.LookaheadParams):
        raise TypeError(_OF_ANOTHER_STRUCTURE)
    alone = jax.tree.structure(0)
    if jax.tree.structure(tree) == alone != jax.tree.structure(mask) and tree.ndim == 1:
        raise ValueError(
            "freeze_pruned gets one array and the mask of a tree; a transformation that changes "
            "the tree goes inside: freeze_pruned(optax.flatten(optimizer))."
        )
    check_mask(mask, **trees)


def _zero_pruned(mask: PyTree, tree: PyTree) -> PyTree:
    return jax.tree.map(lambda m, x: jnp.where(m, x, jnp.zeros_like(x)), mask, tree)


def _masked(extra_args: dict[str, Any], mask: PyTree, params: PyTree | None) -> dict[str, Any]:
    """Extra arguments that know nothing of pruned weights."""
    masked = dict(extra_args)
    grad = _cut_to(mask, extra_args.get("grad"))
    if grad is not None and jax.tree.structure(grad) == jax.tree.structure(mask):
        masked["grad"] = _zero_pruned(mask, grad)
    value_fn = extra_args.get("value_fn")
    if value_fn is not None and not _hides(mask) and params is not None:

        @functools.wraps(value_fn)
        def of_kept(new: PyTree, *args: Any, **kwargs: Any) -> Any:
            return value_fn(jax.tree.map(jnp.where, mask, new, params), *args, **kwargs)

        masked["value_fn"] = of_kept
    return masked
