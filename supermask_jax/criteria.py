"""Mask criteria: scores of a weight from its start `w_i` and its end `w_f`; high scores are kept.

Source: Zhou et al. 2019, section 3. All functions have the contract of `trees.Criterion`:
trees of `[...]` in, scores `[...]` out, errors for trees or shapes that differ.

>>> w_i, w_f = jnp.array([[0.1, -2.0]]), jnp.array([[-0.5, -1.0]])
>>> large_final(w_i, w_f).tolist(), magnitude_increase(w_i, w_f).tolist()
([[0.5, 1.0]], [[0.4000000059604645, -1.0]])
>>> large_final_same_sign(w_i, w_f).tolist()
[[-3.4028234663852886e+38, 1.0]]

Scores have 32 bits or more, those of narrower weights too. Leaves that hold no floats have nothing
to rank: their scores are zeros of their own type, which `masks.prune` refuses to rank.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from supermask_jax.checks import check_criterion, check_mask, check_trees, is_floating, widened
from supermask_jax.paths import PyTree
from supermask_jax.trees import Criterion

EXACT = 2**24  # float32 holds all integers up to here


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
    percentile equals the top by the smaller of the two ranks among the weights still kept. The
    scores are these ranks, exact in leaves of up to 2**24 weights; in larger ones they keep the
    order of the ranks, up to 8e8 weights.
    """
    return _smaller_rank(jnp.abs, w_i, w_f, mask)


def small_init_small_final(w_i: PyTree, w_f: PyTree, mask: PyTree | None = None) -> PyTree:
    """Weights that both start and end small, the mirror of `large_init_large_final`."""
    return _smaller_rank(lambda w: -jnp.abs(w), w_i, w_f, mask)


def same_sign(criterion: Criterion) -> Criterion:
    """The criterion's score where `w_i` and `w_f` have the same sign (sign(0) is 0).

    All other weights rank last, whatever the criterion: their score is the lowest number of its
    type, finite so that `masks.prune` takes it. They are kept only when the others are used up.
    The paper's two `magnitude_increase_*` of `CRITERIA` are different: see there.
    """
    return _where_signs(jnp.equal, criterion, _lowest)


def diff_sign(criterion: Criterion) -> Criterion:
    """The criterion's score where the signs of `w_i` and `w_f` differ; all others rank last."""
    return _where_signs(jnp.not_equal, criterion, _lowest)


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

    def score(i: jax.Array, f: jax.Array) -> jax.Array:
        if not is_floating(i):
            return jnp.zeros_like(i)
        return formula(widened(i), widened(f))

    return jax.tree.map(score, w_i, w_f)


def _smaller_rank(
    magnitude: Callable[[jax.Array], jax.Array], w_i: PyTree, w_f: PyTree, mask: PyTree | None
) -> PyTree:
    _check(w_i, w_f, mask)
    if mask is None:
        mask = jax.tree.map(lambda w: jnp.ones(w.shape, bool), w_i)

    def smaller(i: jax.Array, f: jax.Array, kept: jax.Array) -> jax.Array:
        if not is_floating(i):
            return jnp.zeros_like(i)
        i, f = widened(i), widened(f)
        ranks = jnp.minimum(_rank(magnitude(i), kept), _rank(magnitude(f), kept))
        unusable = kept & (jnp.isnan(i) | jnp.isnan(f))
        return jnp.where(unusable, jnp.nan, ranks)

    return jax.tree.map(smaller, w_i, w_f, mask)


def _rank(values: jax.Array, kept: jax.Array) -> jax.Array:
    """How many kept values are smaller, in order if not in number; equal ones share it. `[...]`."""
    ascending = jnp.sort(jnp.where(kept, values, jnp.inf).ravel())
    rank = jnp.searchsorted(ascending, values.ravel(), method="sort")
    return _ordered_floats(rank.reshape(values.shape), values.size)


def _ordered_floats(ranks: jax.Array, below: int) -> jax.Array:
    """Float32 in the order of integers: their value to 2**24, then one float after the other."""
    floats = ranks.astype(jnp.float32)
    if below <= EXACT:
        return floats
    bits = ranks - EXACT + np.float32(EXACT).view(np.int32)
    return jnp.where(ranks < EXACT, floats, lax.bitcast_convert_type(bits, jnp.float32))


def _lowest(scores: jax.Array) -> jax.Array:
    return jnp.full_like(scores, jnp.finfo(scores.dtype).min)


def _where_signs(
    agree: Callable[..., jax.Array],
    criterion: Criterion,
    excluded: Callable[[jax.Array], jax.Array],
) -> Criterion:
    check_criterion(criterion)

    def signed(w_i: PyTree, w_f: PyTree, mask: PyTree | None = None) -> PyTree:
        scores = criterion(w_i, w_f, mask)
        check_trees(w_i=w_i, scores=scores)

        def select(i: jax.Array, f: jax.Array, score: jax.Array) -> jax.Array:
            if not (is_floating(i) and is_floating(score)):
                return score
            score = widened(score)
            included = agree(jnp.sign(i), jnp.sign(f))
            selected = jnp.where(included, score, excluded(score))
            return jnp.where(jnp.isnan(i) | jnp.isnan(f), jnp.nan, selected)

        return jax.tree.map(select, w_i, w_f, scores)

    return signed


large_final_same_sign = same_sign(large_final)
large_final_diff_sign = diff_sign(large_final)
# As in the authors' code: 0 for excluded weights, which so rank above those that shrank.
magnitude_increase_same_sign = _where_signs(jnp.equal, magnitude_increase, jnp.zeros_like)
magnitude_increase_diff_sign = _where_signs(jnp.not_equal, magnitude_increase, jnp.zeros_like)

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
