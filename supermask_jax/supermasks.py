"""Supermasks learned by gradient descent: a logit per weight, sampled masks, frozen weights.

Source: Zhou et al. 2019, section 5. Each weight is kept with probability sigmoid(logit), sampled
anew in every step. The gradient passes through the sample as if it were the probability
(straight-through estimator). The weights never change. Logits have the structure of the parameters,
`[...]` per leaf. Leaves that are not prunable are kept whole; their logits are zeros and not used.

Examples:
  Any network will do, with your own `loss(params, batch)`:

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
    """Make logits that are equal for all prunable weights; the initial density is sigmoid(`value`).

    Args:
      params: arrays or `jax.ShapeDtypeStruct`s `[...]`.
      prunable: static, from `trees.prunable_leaves`.
      value: the logit, a Python or traced number.

    Returns:
      Logits `[...]` per leaf, in the types of the leaves.

    Raises:
      ValueError: if no leaf is prunable, or if `value` is not a finite number, by itself or in the
        type of a leaf; names the leaf.
      TypeError: if a prunable leaf does not hold floats.

    Examples:
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
        return jnp.full_like(leaf, value if yes else 0, dtype)

    return jax.tree_util.tree_map_with_path(fill, params, prunable)


def sample(key: Key, logits: PyTree, prunable: PyTree) -> PyTree:
    """Sample a mask of independent Bernoulli variables, as numbers that are exactly 0 or 1.

    The derivative is that of `expected`, in forward and reverse mode. Leaves that are not prunable
    are ones. For logits of 16 or 8 bits, probabilities are computed and compared in 32 bits. The
    uniform numbers that they are compared with are multiples of 2**-23 (2**-52 for 64 bits); a
    smaller positive probability has the effect of this one.

    Args:
      key: a typed key; the same key samples the same mask.
      logits: `[...]` per leaf.
      prunable: static, from `trees.prunable_leaves`.

    Returns:
      The mask, `[...]` per leaf, in the types of the logits.

    Raises:
      ValueError: if the trees differ.
      TypeError: if a leaf is not an array, or if `key` is not a typed key.

    Examples:
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
    """Compute the mean of `sample`: sigmoid(logits), and ones where leaves are not prunable.

    For logits of 16 or 8 bits, the result has 32 bits, as in `sample`.

    Args:
      logits: `[...]` per leaf.
      prunable: static, from `trees.prunable_leaves`.

    Returns:
      Probabilities `[...]` per leaf.

    Raises:
      ValueError: if the trees differ.
      TypeError: if a leaf is not an array.

    Examples:
      >>> expected(jnp.array([0.0, 100.0]), True).tolist()
      [0.5, 1.0]
    """
    check_weights(prunable, logits=logits)
    return jax.tree.map(lambda m, yes: _sigmoid(m) if yes else jnp.ones_like(m), logits, prunable)


def most_probable(logits: PyTree, prunable: PyTree) -> PyTree:
    """Return the most probable mask: bools, True where the logit is at least 0.

    Args:
      logits: `[...]` per leaf.
      prunable: static, from `trees.prunable_leaves`.

    Raises:
      ValueError: if the trees differ.
      TypeError: if a leaf is not an array.

    Examples:
      >>> most_probable(jnp.array([0.5, 0.0, -0.5]), True).tolist()
      [True, True, False]
    """
    check_weights(prunable, logits=logits)
    return jax.tree.map(lambda m, yes: m >= 0 if yes else jnp.ones(m.shape, bool), logits, prunable)


def expected_density(logits: PyTree, prunable: PyTree) -> jax.Array:
    """Compute the mean density of `sample`: the mean of sigmoid(logits) over prunable weights.

    Args:
      logits: `[...]` per leaf.
      prunable: static, from `trees.prunable_leaves`.

    Returns:
      A scalar.

    Raises:
      ValueError: if no leaf is prunable, or if the trees differ.
      TypeError: if a leaf is not an array.

    Examples:
      >>> float(expected_density(jnp.array([0.0, 100.0]), True))
      0.75
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
    """Apply a mask to frozen weights: weight x mask, optionally rescaled.

    Args:
      mask: `[...]` per leaf, from `sample` or `expected`, or bools.
      weights: `[...]` per leaf.
      prunable: static, from `trees.prunable_leaves`; other leaves do not change.
      rescale: dynamic weight rescaling: multiply each leaf by its size / the sum of its mask. A
        Python or traced bool, so that one program can train members with and without rescaling.
      count_gradient: whether gradients also pass through the sum, as in the paper.

    Returns:
      Parameters `[...]` per leaf. A leaf whose mask is all zeros is all zeros, rescaled or not.

    Raises:
      ValueError: if trees or shapes differ.
      TypeError: if a leaf is not an array, or if `rescale` is not a bool.

    Examples:
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
      loss: `(params, *arguments) -> anything`, for example the loss of your network on a batch.
      weights: frozen weights, `[...]` per leaf.
      prunable: static, from `trees.prunable_leaves`.
      rescale: see `masked_params`.
      count_gradient: see `masked_params`.

    Returns:
      A function `(logits, key, *arguments)`, which samples one mask with the key.

    Examples:
      >>> of_logits = loss_of_logits(lambda params, scale: scale * params.sum(), jnp.ones(4), True)
      >>> float(of_logits(jnp.full(4, 99.0), jax.random.key(0), 0.5))
      2.0
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
        # Inside jax.shard_map, values that vary over devices have another type. The sample varies
        # if its key does; a choice that depends on it gives the tangent the same type.
        tangent = jnp.where(out > 0, tangent, tangent)
    return out, tangent


def _sigmoid(logits: jax.Array) -> jax.Array:
    """Compute the sigmoid in at least 32 bits; 16 bits hold few numbers between 0 and 1."""
    return jax.nn.sigmoid(widened(logits))


def _sum(leaf: jax.Array) -> jax.Array:
    """Sum a leaf in at least 32 bits; a float16 sum cannot exceed 65504."""
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
