"""Mask criteria: scores of a weight from its start `w_i` and its end `w_f`; high scores are kept.

Source: Zhou et al. 2019, section 3. All functions have the contract of `trees.Criterion`:
trees of `[...]` in, scores `[...]` out, errors for trees or shapes that differ.

>>> w_i, w_f = jnp.array([[0.1, -2.0]]), jnp.array([[-0.5, -1.0]])
>>> large_final(w_i, w_f).tolist(), magnitude_increase(w_i, w_f).tolist()
([[0.5, 1.0]], [[0.4000000059604645, -1.0]])
>>> large_final_same_sign(w_i, w_f).tolist()
[[0.0, 1.0]]
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from supermask_jax.checks import check_mask, check_trees
from supermask_jax.paths import PyTree
from supermask_jax.trees import Criterion


def large_final(w_i: PyTree, w_f: PyTree, mask: PyTree | None = None) -> PyTree:
    """``|w_f|``: weights that end large, the criterion of the lottery ticket hypothesis."""
    return _score(lambda i, f: jnp.abs(f), w_i, w_f, mask)


def small_final(w_i: PyTree, w_f: PyTree, mask: PyTree | None = None) -> PyTree:
    """``-|w_f|``: weights that end small."""
    return _score(lambda i, f: -jnp.abs(f), w_i, w_f, mask)


def large_init(w_i: PyTree, w_f: PyTree, mask: PyTree | None = None) -> PyTree:
    """``|w_i|``: weights that start large; training has no say."""
    return _score(lambda i, f: jnp.abs(i), w_i, w_f, mask)


def small_init(w_i: PyTree, w_f: PyTree, mask: PyTree | None = None) -> PyTree:
    """``-|w_i|``: weights that start small."""
    return _score(lambda i, f: -jnp.abs(i), w_i, w_f, mask)


def magnitude_increase(w_i: PyTree, w_f: PyTree, mask: PyTree | None = None) -> PyTree:
    """``|w_f| - |w_i|``: weights whose magnitude grew most."""
    return _score(lambda i, f: jnp.abs(f) - jnp.abs(i), w_i, w_f, mask)


def movement(w_i: PyTree, w_f: PyTree, mask: PyTree | None = None) -> PyTree:
    """``|w_f - w_i|``: weights that moved furthest, in whatever direction."""
    return _score(lambda i, f: jnp.abs(f - i), w_i, w_f, mask)


def random(w_i: PyTree, w_f: PyTree, mask: PyTree | None = None) -> PyTree:
    """Zero for all: every weight ties, and `masks.prune` breaks ties at random."""
    return _score(lambda i, f: jnp.zeros_like(f), w_i, w_f, mask)


def large_init_large_final(w_i: PyTree, w_f: PyTree, mask: PyTree | None = None) -> PyTree:
    """Weights that both start and end large: one percentile cut on both magnitudes.

    The paper's ``min(alpha |w_f|, |w_i|)`` with alpha set so that both cuts fall on the same
    percentile equals the top by the smaller of the two ranks among the weights still kept.
    """
    return _smaller_rank(jnp.abs, w_i, w_f, mask)


def small_init_small_final(w_i: PyTree, w_f: PyTree, mask: PyTree | None = None) -> PyTree:
    """Weights that both start and end small, the mirror of `large_init_large_final`."""
    return _smaller_rank(lambda w: -jnp.abs(w), w_i, w_f, mask)


def same_sign(criterion: Criterion) -> Criterion:
    """The criterion's score where `w_i` and `w_f` have the same sign, else 0 (sign(0) is 0).

    Zero ranks below every positive score, so a magnitude criterion takes weights that flipped
    only when the others are used up. A criterion with negative scores is no such hard limit.
    """
    return _where_signs(jnp.equal, criterion)


def diff_sign(criterion: Criterion) -> Criterion:
    """The criterion's score where the signs of `w_i` and `w_f` differ, else 0."""
    return _where_signs(jnp.not_equal, criterion)


def _check(w_i: PyTree, w_f: PyTree, mask: PyTree | None) -> None:
    check_trees(w_i=w_i, w_f=w_f)
    if mask is not None:
        check_mask(mask, w_i=w_i)


def _score(
    formula: Callable[[jax.Array, jax.Array], jax.Array],
    w_i: PyTree,
    w_f: PyTree,
    mask: PyTree | None,
) -> PyTree:
    _check(w_i, w_f, mask)
    return jax.tree.map(lambda i, f: formula(jnp.asarray(i), jnp.asarray(f)), w_i, w_f)


def _smaller_rank(
    magnitude: Callable[[jax.Array], jax.Array], w_i: PyTree, w_f: PyTree, mask: PyTree | None
) -> PyTree:
    _check(w_i, w_f, mask)
    if mask is None:
        mask = jax.tree.map(lambda w: jnp.ones(w.shape, bool), w_i)

    def smaller(i: jax.Array, f: jax.Array, kept: jax.Array) -> jax.Array:
        ranks = jnp.minimum(_rank(magnitude(i), kept), _rank(magnitude(f), kept))
        unusable = kept & (jnp.isnan(i) | jnp.isnan(f))
        return jnp.where(unusable, jnp.nan, ranks)

    return jax.tree.map(smaller, w_i, w_f, mask)


def _rank(values: jax.Array, kept: jax.Array) -> jax.Array:
    """How many kept values are smaller, exact below 2**24; equal values share a rank. `[...]`."""
    ascending = jnp.sort(jnp.where(kept, values, jnp.inf).ravel())
    rank = jnp.searchsorted(ascending, values.ravel(), method="sort")
    return rank.reshape(values.shape).astype(jnp.float32)


def _where_signs(agree: Callable[..., jax.Array], criterion: Criterion) -> Criterion:
    def signed(w_i: PyTree, w_f: PyTree, mask: PyTree | None = None) -> PyTree:
        scores = criterion(w_i, w_f, mask)
        check_trees(w_i=w_i, scores=scores)

        def select(i: jax.Array, f: jax.Array, score: jax.Array) -> jax.Array:
            included = agree(jnp.sign(i), jnp.sign(f))
            selected = jnp.where(included, score, jnp.zeros_like(score))
            return jnp.where(jnp.isnan(i) | jnp.isnan(f), jnp.nan, selected)

        return jax.tree.map(select, w_i, w_f, scores)

    return signed


large_final_same_sign = same_sign(large_final)
large_final_diff_sign = diff_sign(large_final)
magnitude_increase_same_sign = same_sign(magnitude_increase)
magnitude_increase_diff_sign = diff_sign(magnitude_increase)

CRITERIA: dict[str, Criterion] = {
    "large_final": large_final,
    "small_final": small_final,
    "large_init": large_init,
    "small_init": small_init,
    "large_init_large_final": large_init_large_final,
    "small_init_small_final": small_init_small_final,
    "magnitude_increase": magnitude_increase,
    "movement": movement,
    "random": random,
    "large_final_same_sign": large_final_same_sign,
    "large_final_diff_sign": large_final_diff_sign,
    "magnitude_increase_same_sign": magnitude_increase_same_sign,
    "magnitude_increase_diff_sign": magnitude_increase_diff_sign,
}
