"""Supermasks learned by gradient: a logit per weight, sampled masks, frozen weights.

Source: Zhou et al. 2019, section 5. Each weight is kept with the probability sigmoid(logit),
drawn anew in every step; the gradient passes through the draw as if it were the probability
(straight-through). The weights never change. Logits have the structure of the parameters `[...]`;
those of leaves that are not prunable are zeros that nothing reads: such leaves are kept whole.

On any network, with your own `loss(params, batch)`:

>>> from supermask_jax.trees import prunable_leaves
>>> params = {"kernel": jnp.array([[1.0, -1.0], [2.0, 0.5]]), "bias": jnp.zeros(2)}
>>> loss = lambda params, batch: jnp.sum((batch @ params["kernel"] + params["bias"] - 1.0) ** 2)
>>> prunable = prunable_leaves(params)
>>> logits = init_logits(params, prunable)
>>> of_logits = loss_of_logits(loss, params, prunable)
>>> grads = jax.grad(of_logits)(logits, jax.random.key(0), jnp.ones((3, 2)))
>>> grads["kernel"].shape, float(expected_density(logits, prunable))
((2, 2), 0.5)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from supermask_jax.checks import (
    check_shaped_weights,
    check_trees,
    check_weights,
    concrete,
    dtype_of,
    shown,
    widened,
    widest,
)
from supermask_jax.paths import Path, PyTree, path_name
from supermask_jax.trees import Key, leaf_keys, num_prunable


def init_logits(params: PyTree, prunable: PyTree, value: float | jax.Array = 0.0) -> PyTree:
    """Equal logits for all prunable weights; sigmoid(`value`) is the density that they start at.

    Args:
      params: arrays or shapes `[...]`.
      prunable: static, from `trees.prunable_leaves`.
      value: a number, Python or traced.

    Raises:
      ValueError: no prunable leaf, or a value that is no finite number, as such or in the type of
        a leaf, which it names.
      TypeError: a prunable leaf that does not hold floats.

    >>> init_logits(jnp.ones((1, 2)), True, 3.0).tolist()
    [[3.0, 3.0]]
    """
    check_shaped_weights(prunable, params=params)
    num_prunable(params, prunable)
    known = concrete(value)
    if known is not None and not _is_finite_number(known):
        raise ValueError(f"the initial logit is {shown(value)}, expected a finite number.")

    def fill(path: Path, leaf: Any, yes: bool) -> jax.Array:
        dtype = dtype_of(leaf)
        if yes and known is not None and not _fits(known, dtype):
            raise ValueError(
                f"the initial logit is {shown(value)}, which is not finite as {dtype}, "
                f"the type of leaf '{path_name(path)}'."
            )
        return jnp.full(leaf.shape, value if yes else 0, dtype)

    return jax.tree_util.tree_map_with_path(fill, params, prunable)


def sample(key: Key, logits: PyTree, prunable: PyTree) -> PyTree:
    """A mask drawn from independent Bernoulli variables, as numbers that are exactly 0 or 1.

    The derivative is that of `expected`, in forward and in reverse mode; ones where not prunable.
    Logits of 16 and 8 bits are drawn with the probability in 32. Draws compare it with uniform
    numbers that are multiples of 2**-23 (of 2**-52 in 64 bits), so that what is less probable than
    that is drawn in one of 2**23 cases nevertheless.

    Args:
      key: typed; the same key draws the same mask.
      logits: `[...]` per leaf.
      prunable: static, from `trees.prunable_leaves`.

    Raises:
      ValueError, TypeError: trees that differ, leaves that are not arrays, no typed key.

    >>> sample(jax.random.key(0), jnp.array([[9.0, -9.0]]), True).tolist()
    [[1.0, 0.0]]
    """

    check_weights(prunable, logits=logits)

    def draw(key: Key, logit: jax.Array, yes: bool) -> jax.Array:
        if not yes:
            return jnp.ones_like(logit)
        probability = _sigmoid(logit)
        drawn = jax.random.bernoulli(key, probability)
        return _straight_through(drawn, probability.astype(dtype_of(logit)))

    return jax.tree.map(draw, leaf_keys(key, logits), logits, prunable)


def expected(logits: PyTree, prunable: PyTree) -> PyTree:
    """The mean of `sample`: sigmoid(logits), and ones where not prunable.

    In 32 bits for logits of 16 and 8 bits, too: there is where masks are drawn.
    """
    check_weights(prunable, logits=logits)
    return jax.tree.map(lambda m, yes: _sigmoid(m) if yes else jnp.ones_like(m), logits, prunable)


def most_probable(logits: PyTree, prunable: PyTree) -> PyTree:
    """The mask (bools) that keeps what is at least as likely kept as not: logits of 0 or more."""
    check_weights(prunable, logits=logits)
    return jax.tree.map(lambda m, yes: m >= 0 if yes else jnp.ones(m.shape, bool), logits, prunable)


def expected_density(logits: PyTree, prunable: PyTree) -> jax.Array:
    """Mean kept / prunable weights of `sample`: the mean of sigmoid(logits), a scalar.

    Raises:
      ValueError: no prunable leaf.
    """
    pairs = zip(jax.tree.leaves(expected(logits, prunable)), jax.tree.leaves(prunable), strict=True)
    number = num_prunable(logits, prunable)
    leaves = [probability for probability, yes in pairs if yes]
    common = widest(leaves)
    total = jnp.sum(jnp.stack([_sum(leaf).astype(common) for leaf in leaves]))
    return total / float(number)


def masked_params(
    mask: PyTree,
    weights: PyTree,
    prunable: PyTree,
    *,
    rescale: bool | jax.Array = False,
    count_gradient: bool = True,
) -> PyTree:
    """The network that a mask makes of frozen weights: weight x mask, or x size / kept as well.

    Args:
      mask: `[...]` per leaf: of `sample`, of `expected`, or bools.
      weights: `[...]` per leaf.
      prunable: static, from `trees.prunable_leaves`; other leaves stay as they are.
      rescale: dynamic weight rescaling: each leaf times its size / the sum of its mask. Python
        or traced, so that one program trains members with and without.
      count_gradient: let gradients pass through the sum too, as in the paper.

    Returns:
      Parameters `[...]`. A leaf whose mask is all zeros is all zeros, rescaled or not.

    Raises:
      ValueError, TypeError: trees or shapes that differ, leaves that are not arrays, and a
        `rescale` that is no bool.

    >>> mask, weights = jnp.array([[1.0, 0.0, 0.0, 1.0]]), jnp.array([[3.0, 1.0, 1.0, -2.0]])
    >>> masked_params(mask, weights, True, rescale=True).tolist()
    [[6.0, 0.0, 0.0, -4.0]]
    """
    check_trees(weights=weights, mask=mask)
    check_weights(prunable, weights=weights)
    _check_rescale(rescale)

    def masked(m: jax.Array, w: jax.Array, yes: bool) -> jax.Array:
        if not yes:
            return w
        dtype = dtype_of(w)
        w, m = jnp.asarray(w), jnp.asarray(m, dtype)
        if rescale is False:
            return w * m
        kept = _sum(m) if count_gradient else lax.stop_gradient(_sum(m))
        size = float(m.size)
        factor = jnp.where(rescale, size / jnp.where(kept > 0, kept, size), 1.0)
        return ((w * m).astype(factor.dtype) * factor).astype(dtype)

    return jax.tree.map(masked, mask, weights, prunable)


def loss_of_logits(
    loss: Callable[..., Any],
    weights: PyTree,
    prunable: PyTree,
    *,
    rescale: bool | jax.Array = False,
    count_gradient: bool = True,
) -> Callable[..., Any]:
    """Turn a loss of parameters into a loss of logits, for `jax.grad` and any optimizer.

    Args:
      loss: ``(params, *arguments) -> anything``: your network on a batch, say.
      weights: frozen, `[...]` per leaf.
      prunable: static, from `trees.prunable_leaves`.
      rescale, count_gradient: see `masked_params`.

    Returns:
      ``(logits, key, *arguments)``, which draws one mask from the key.
    """

    def of_logits(logits: PyTree, key: Key, *arguments: Any) -> Any:
        mask = sample(key, logits, prunable)
        params = masked_params(
            mask, weights, prunable, rescale=rescale, count_gradient=count_gradient
        )
        return loss(params, *arguments)

    return of_logits


@jax.custom_jvp
def _straight_through(drawn: jax.Array, probability: jax.Array) -> jax.Array:
    return drawn.astype(probability.dtype)


@_straight_through.defjvp
def _straight_through_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    # `b + p - stop_gradient(p)` has this gradient too, but is not exactly 0 or 1.
    out, tangent = _straight_through(*primals), tangents[1]
    if jax.typeof(out) != jax.typeof(tangent):
        # Inside jax.shard_map the draw differs between devices if the key does, and what differs
        # has another type: a choice that depends on the draw has it, too.
        tangent = jnp.where(out > 0, tangent, tangent)
    return out, tangent


def _sigmoid(logits: jax.Array) -> jax.Array:
    """In 32 bits or more, for 16 know few numbers between 0 and 1."""
    return jax.nn.sigmoid(widened(logits))


def _sum(leaf: jax.Array) -> jax.Array:
    """The sum of a leaf in 32 bits or more: 16 bits count to no more than 65504."""
    return jnp.sum(widened(leaf))


def _is_finite_number(value: np.ndarray) -> bool:
    is_real = jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)
    return is_real and value.shape == () and bool(np.isfinite(value))


def _fits(value: np.ndarray, dtype: np.dtype) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(np.asarray(value, np.float64).astype(dtype)))


def _check_rescale(rescale: Any) -> None:
    is_traced = hasattr(rescale, "dtype") and rescale.dtype == bool and rescale.shape == ()
    if not isinstance(rescale, bool) and not is_traced:
        raise TypeError(f"rescale is {shown(rescale)}, expected one bool, Python or traced.")
