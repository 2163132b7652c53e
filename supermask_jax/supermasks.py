"""Supermasks learned by gradient descent: a logit per weight, sampled masks, frozen weights.

Source: Zhou et al. 2019, section 5. Each weight is kept with probability sigmoid(logit), sampled
anew in every step. The gradient passes through the sample as if it were the probability
(straight-through estimator). The weights never change. Logits have the structure of the parameters,
`[...]` per leaf. Leaves that are not prunable are kept whole; their logits are zeros and not used.
Other papers make masks in other ways, for `loss_of_logits(..., draw=...)`: see `Draw`.

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
    check_function,
    check_number,
    check_shaped_weights,
    check_trees,
    check_weights,
    dtype_of,
    shown,
    widened,
)
from supermask_jax.draws import Draw as Draw
from supermask_jax.draws import continuous as continuous
from supermask_jax.draws import gumbel as gumbel
from supermask_jax.draws import hard_concrete as hard_concrete
from supermask_jax.draws import hard_concrete_penalty as hard_concrete_penalty
from supermask_jax.draws import init_scores as init_scores
from supermask_jax.draws import straight_through, total
from supermask_jax.draws import temperature_at as temperature_at
from supermask_jax.draws import ternary as ternary
from supermask_jax.draws import threshold as threshold
from supermask_jax.draws import top_k as top_k
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
    known = check_number("the initial logit", value)

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
        return straight_through(drawn, probability.astype(dtype_of(logit)))

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
    return total(leaves) / float(number)


def masked_params(
    mask: PyTree,
    weights: PyTree,
    prunable: PyTree,
    *,
    rescale: bool | jax.Array = False,
    count_gradient: bool = True,
) -> PyTree:
    """Apply a mask to frozen weights: weight x mask, optionally rescaled.

    Rescaling counts what is not zero: a weight counts as |m|, which is 1 for the 1 and -1 of binary
    and ternary masks, and the part that a gate or a probability between 0 and 1 lets through. The
    derivative of |m| is -1 below 0, and 1 elsewhere: the gradient of a pruned weight, too, has the
    part that passes through the count.

    Args:
      mask: `[...]` per leaf, from a draw or `expected`, or bools.
      weights: `[...]` per leaf.
      prunable: static, from `trees.prunable_leaves`; other leaves do not change.
      rescale: dynamic weight rescaling: multiply each leaf by its size / the sum of |mask|. A
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
        kept = _count(m) if count_gradient else lax.stop_gradient(_count(m))
        size = float(m.size)
        factor = jnp.where(rescale, size / jnp.where(kept > 0, kept, size), 1.0)
        return ((w * m).astype(factor.dtype) * factor).astype(dtype)

    return jax.tree.map(masked, mask, weights, prunable)


def bernoulli() -> Draw:
    """Keep each weight with probability sigmoid(logit): the draw of Zhou et al. 2019.

    Returns:
      A draw that trains with `sample` and evaluates `most_probable`.

    Examples:
      >>> bernoulli().evaluate(jnp.array([0.5, -0.5]), True).tolist()
      [True, False]
    """
    return Draw(sample, most_probable)


def loss_of_logits(
    loss: Callable[..., Any],
    weights: PyTree,
    prunable: PyTree,
    *,
    draw: Callable[[Key, PyTree, PyTree], PyTree] = sample,
    rescale: bool | jax.Array = False,
    count_gradient: bool = True,
) -> Callable[..., Any]:
    """Turn a loss of parameters into a loss of logits, for `jax.grad` and any optimizer.

    Args:
      loss: `(params, *arguments) -> anything`, for example the loss of your network on a batch.
      weights: frozen weights, `[...]` per leaf.
      prunable: static, from `trees.prunable_leaves`.
      draw: how logits become a mask: a `Draw`, or any `(key, logits, prunable) -> mask`. One whose
        temperature is traced is made inside the function that is traced.
      rescale: see `masked_params`.
      count_gradient: see `masked_params`.

    Returns:
      A function `(logits, key, *arguments)`, which draws one mask with the key.

    Raises:
      TypeError: if `draw` is not such a function.

    Examples:
      >>> of_logits = loss_of_logits(lambda params, scale: scale * params.sum(), jnp.ones(4), True)
      >>> float(of_logits(jnp.full(4, 99.0), jax.random.key(0), 0.5))
      2.0
    """
    check_function("draw", draw, "supermasks.bernoulli()", ("key", "logits", "prunable"))

    def of_logits(logits: PyTree, key: Key, *arguments: Any) -> Any:
        mask = draw(key, logits, prunable)
        params = masked_params(
            mask, weights, prunable, rescale=rescale, count_gradient=count_gradient
        )
        return loss(params, *arguments)

    return of_logits


def _sigmoid(logits: jax.Array) -> jax.Array:
    """Compute the sigmoid in at least 32 bits; 16 bits hold few numbers between 0 and 1."""
    return jax.nn.sigmoid(widened(logits))


def _count(mask: jax.Array) -> jax.Array:
    """Sum the sizes |m| of a leaf in at least 32 bits; a float16 sum cannot exceed 65504.

    Unlike `jnp.abs`, this has the derivative 1 at 0.
    """
    return jnp.sum(widened(jnp.where(mask < 0, -mask, mask)))


def _fits(value: np.ndarray, dtype: np.dtype) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(np.asarray(value, np.float64).astype(dtype)))


def _check_rescale(rescale: Any) -> None:
    is_traced = hasattr(rescale, "dtype") and rescale.dtype == bool and rescale.shape == ()
    if not isinstance(rescale, bool) and not is_traced:
        raise TypeError(f"rescale is {shown(rescale)}, expected one bool, Python or traced.")
