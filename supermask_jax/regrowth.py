"""Sparse training with a mask that moves: an optimizer that drops weights and grows others.

Sources: Mocanu et al. 2018, "Scalable training of artificial neural networks with adaptive sparse
connectivity inspired by network science" (SET), and Evci et al. 2020, "Rigging the lottery: making
all tickets winners" (RigL).
"""

import functools
import math
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from supermask_jax import criteria, masks, rates
from supermask_jax.checks import check_integer, check_key, check_weights, exact, lookup
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

# The share of `fraction` that an event drops, a function of its step / `last`.
DECAYS: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
    "constant": lambda progress: 1.0,
}
# Criteria of gradients: the weights that score highest grow.
GROWTHS: dict[str, Criterion] = {"gradient": criteria.large_final, "random": criteria.random}


class RegrowState(NamedTuple):
    """The state of `regrow`.

    Attributes:
      step: the number of updates so far, an int32 scalar.
      key_data: uint32, of the key that draws the first mask, breaks ties and chooses what grows at
        random. Typed keys would slow down the dispatch of every compiled step.
      mask: bool `[...]`, True for kept weights.
      inner_state: the state of the inner optimizer.
    """

    step: jax.Array
    key_data: jax.Array
    mask: PyTree
    inner_state: PyTree


def regrow(
    inner: optax.GradientTransformation,
    density: rates.Number,
    prunable: PyTree,
    *,
    every: int,
    last: int,
    key: Key,
    fraction: float = 0.3,
    decay: str = "cosine",
    growth: str = "gradient",
    distribution: str = "erk",
    rules: rates.Rules = (),
) -> optax.GradientTransformationExtraArgs:
    """Train sparse from the start, and move the mask: drop small weights, grow others.

    `init` draws a random mask with the numbers n of `rates.layer_counts`. Update number t = 0, 1,
    ... has an event if t is a multiple of `every` with 0 < t < `last`. In every prunable leaf it

    1. drops the `k = floor(f(t) n)` kept weights of the smallest magnitude,
    2. grows k of the weights that are then pruned: those of the largest |gradient|, or random ones,

    with f(t) = `fraction` (1 + cos(pi t / `last`)) / 2, or constant. So n weights are kept at all
    times. The defaults are RigL; `growth="random", decay="constant"` is SET.

    A weight that was pruned and grows starts at 0, and its moments as `inner.init` makes them (0 in
    Adam): the entries of the parts of the inner state that have the structure and the shape of the
    weights. A weight that is dropped and grows at once stays as it is. As in RigL, an event takes
    the place of a gradient step: it moves no kept weight, and the inner optimizer does not count
    it. (The paper of SET changes the mask between epochs.) All other updates are those of
    `prune_gradually`: the inner optimizer steps on the kept weights alone, and pruned weights are
    exactly 0 after every update, also those that were not 0 at the start.

    The gradients must be those of all weights, pruned ones included. `update(grads, state, params)`
    needs no other argument. Put this optimizer outermost. A step without an event does not look
    at scores, but it must be able to undo what the inner optimizer did, which takes further passes
    over its state. What `vmap` adds is as in `prune_gradually`.

    Args:
      inner: any optax optimizer whose updates have the structure of the gradients.
      density: of all prunable weights, in [0, 1].
      prunable: from `trees.prunable_leaves`, for the whole network.
      every: the number of updates from one event to the next.
      last: no event happens from this update on. The paper stops after three quarters of training.
      key: draws the first mask, breaks ties and chooses what grows at random. It becomes part of
        the state, so members of a population have their own: `vmap` a function of
        the key that makes the optimizer and calls `init`.
      fraction: of the kept weights that the first events drop, in [0, 1].
      decay: a name of `DECAYS`.
      growth: a name of `GROWTHS`.
      distribution: how leaves share the density, as in `rates.layer_densities`.
      rules: densities of leaves by path, as in `rates.layer_densities`.

    Returns:
      A transformation with a `RegrowState`; `transforms.mask_of` reads its mask.

    Raises:
      TypeError: if an argument is of another kind. When called: if `update` gets no weights, or as
        `freeze_pruned`.
      ValueError: if a number is out of its range or a name is unknown. When called: if `prunable`
        or the gradients have another structure or other shapes than the weights, or as
        `rates.layer_counts`.

    Examples:
      >>> params = {"kernel": jnp.array([[3.0, 0.5, 1.0, 2.0]])}
      >>> grads = {"kernel": jnp.array([[0.1, 0.4, 0.3, 0.2]])}
      >>> optimizer = regrow(
      ...     optax.sgd(1.0), 0.5, {"kernel": True}, every=1, last=2, fraction=0.5,
      ...     decay="constant", key=jax.random.key(0),
      ... )
      >>> state = optimizer.init(params)
      >>> for _ in range(2):
      ...     print(state.mask["kernel"].tolist())
      ...     _, state = optimizer.update(grads, state, params)
      [[True, False, True, False]]
      [[True, False, True, False]]
      >>> state.mask["kernel"].tolist()
      [[True, True, False, False]]
    """
    inner = taking_extra_arguments(inner)
    every, last = check_integer("every", every, 1), check_integer("last", last, 0)
    if every >= last:
        raise ValueError(f"last is {last}, expected more than every, which is {every}.")
    check_key(key)
    wrapped = functools.partial(jax.random.wrap_key_data, impl=jax.random.key_impl(key))
    first = exact("fraction", fraction, "regrow")
    share, score = lookup("decay", decay, DECAYS), lookup("growth", growth, GROWTHS)
    fractions = [first * Fraction(share(step / last)) for step in range(every, last, every)]

    def num_kept(params: PyTree, own: PyTree) -> PyTree:
        return rates.layer_counts(params, density, distribution, rules, own)

    def init(params: PyTree) -> RegrowState:
        mask = masks.ones(params)
        if jax.tree.leaves(params):  # optax.tree.map_params passes an empty tree
            own = cut_to(params, prunable)
            check_weights(own, params=params)
            scores = criteria.random(params, params)
            mask = masks.prune(jax.random.fold_in(key, 0), scores, mask, num_kept(params, own))
        return RegrowState(jnp.int32(0), jax.random.key_data(key), mask, inner.init(params))

    def is_event(step: jax.Array) -> jax.Array:
        return (step > 0) & (step < last) & (step % every == 0)

    @jax.jit  # so that outside of a compiled step, too, it is compiled once
    def mask_at(
        step: jax.Array, key_data: jax.Array, mask: PyTree, w: PyTree, grads: PyTree
    ) -> PyTree:
        own = cut_to(w, prunable)
        w, grads = (like(lax.stop_gradient(tree), own) for tree in (w, grads))
        counts = num_kept(w, own)
        event = step // every

        def dropped(yes: bool, count: int) -> Any:
            if not yes:
                return 0
            numbers = [math.floor(part * count) for part in fractions]
            return jnp.array(numbers, jnp.int32)[event - 1]

        def drop_and_grow(kept: PyTree) -> PyTree:
            event_key = jax.random.fold_in(wrapped(key_data), event)
            key_drop, key_grow = jax.random.split(event_key)
            numbers = jax.tree.map(dropped, own, counts)
            left = jax.tree.map(operator.sub, counts, numbers)
            kept = masks.prune(key_drop, criteria.large_final(w, w), kept, left)
            free = jax.tree.map(lambda yes, m: ~m if yes else jnp.zeros_like(m), own, kept)
            # Where nothing may grow, the size lets masks.prune leave the leaf out.
            more = jax.tree.map(lambda yes, n, m: n if yes else m.size, own, numbers, kept)
            grown = masks.prune(key_grow, score(grads, grads), free, more)
            return masks.union(kept, grown)

        return like(only_if(is_event(step), drop_and_grow, like(mask, own)), mask)

    def update(
        updates: PyTree, state: PyTree, params: PyTree | None = None, **extra_args: Any
    ) -> tuple[PyTree, RegrowState]:
        step, key_data, mask, inner_state = state
        params = needed("regrow", params)
        check_fits("regrow", mask, updates=updates, params=params)
        event, new_mask = is_event(step), mask_at(step, key_data, mask, params, updates)
        stays = masks.intersection(mask, new_mask)
        weights = zero_pruned(stays, params)
        new, stepped = step_kept("regrow", inner, stays, updates, inner_state, weights, extra_args)
        new = jax.tree.map(lambda u: jnp.where(event, -jnp.zeros_like(u), u), new)
        after = jax.tree.map(lambda old, new: jnp.where(event, old, new), inner_state, stepped)
        grown = jax.tree.map(operator.gt, new_mask, mask)
        after = _restart(after, inner.init(weights), grown)
        return to_zero(stays, new, params), RegrowState(step + 1, key_data, new_mask, after)

    return optax.GradientTransformationExtraArgs(init, update)


def _restart(inner_state: PyTree, first: PyTree, grown: PyTree) -> PyTree:
    """Give the weights that have just grown the moments of a first state."""
    structure = jax.tree.structure(grown)

    def is_tree_of_weights(node: Any) -> bool:
        own = cut_to(node, grown)  # optax.partition hides the other leaves from an inner optimizer
        return jax.tree.structure(node) in (structure, jax.tree.structure(own))

    def restart(node: Any, first: Any) -> Any:
        if not is_tree_of_weights(node):
            return node
        return jax.tree.map(_choose, cut_to(node, grown), first, node)

    return jax.tree.map(restart, inner_state, first, is_leaf=is_tree_of_weights)


def _choose(grown: jax.Array, first: jax.Array, moment: jax.Array) -> jax.Array:
    if grown.shape != moment.shape:  # of several weights together
        return moment
    return jnp.where(grown, first, moment)
