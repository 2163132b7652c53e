"""Mask criteria: scores of weights, of which pruning keeps the highest.

Source: Zhou et al. 2019, section 3. Every criterion is a `trees.Criterion`,
`(w_i, w_f, mask=None) -> scores`, on trees of leaves `[...]`: `w_i` are the start weights and `w_f`
the final weights of a round, and `mask` is the mask of that round (by default, everything is kept).
It raises errors if trees or shapes differ. `CRITERIA` lists the criteria by name.

Scores have at least 32 bits, even for weights with fewer. Leaves without floats cannot be ranked;
their scores are zeros of their own type, which `masks.prune` refuses.

Examples:
  >>> w_i, w_f = jnp.array([[0.1, -2.0]]), jnp.array([[-0.5, -1.0]])
  >>> large_final(w_i, w_f).tolist(), magnitude_increase(w_i, w_f).tolist()
  ([[0.5, 1.0]], [[0.4000000059604645, -1.0]])
  >>> large_final_same_sign(w_i, w_f).tolist()
  [[-3.4028234663852886e+38, 1.0]]
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from supermask_jax.checks import check_criterion, check_mask, check_trees, is_floating, widened
from supermask_jax.paths import PyTree
from supermask_jax.shardings import sharded_as, whole
from supermask_jax.trees import Criterion

EXACT = 2**24  # float32 holds all integers up to here


def large_final(w_i: PyTree, w_f: PyTree, mask: PyTree | None = None) -> PyTree:
    """Score weights by `|w_f|`: the criterion of the lottery ticket hypothesis.

    Examples:
      >>> w_i, w_f = jnp.array([0.5, -2.0]), jnp.array([1.0, -1.0])
      >>> large_final(w_i, w_f).tolist()
      [1.0, 1.0]
    """
    return _score(lambda i, f: jnp.abs(f), w_i, w_f, mask)


def small_final(w_i: PyTree, w_f: PyTree, mask: PyTree | None = None) -> PyTree:
    """Score weights by `-|w_f|`: those that end small are kept.

    Examples:
      >>> w_i, w_f = jnp.array([0.5, -2.0]), jnp.array([1.0, -1.0])
      >>> small_final(w_i, w_f).tolist()
      [-1.0, -1.0]
    """
    return _score(lambda i, f: -jnp.abs(f), w_i, w_f, mask)


def large_init(w_i: PyTree, w_f: PyTree, mask: PyTree | None = None) -> PyTree:
    """Score weights by `|w_i|`: those that start large are kept, regardless of training.

    Examples:
      >>> w_i, w_f = jnp.array([0.5, -2.0]), jnp.array([1.0, -1.0])
      >>> large_init(w_i, w_f).tolist()
      [0.5, 2.0]
    """
    return _score(lambda i, f: jnp.abs(i), w_i, w_f, mask)


def small_init(w_i: PyTree, w_f: PyTree, mask: PyTree | None = None) -> PyTree:
    """Score weights by `-|w_i|`: those that start small are kept, regardless of training.

    Examples:
      >>> w_i, w_f = jnp.array([0.5, -2.0]), jnp.array([1.0, -1.0])
      >>> small_init(w_i, w_f).tolist()
      [-0.5, -2.0]
    """
    return _score(lambda i, f: -jnp.abs(i), w_i, w_f, mask)


def magnitude_increase(w_i: PyTree, w_f: PyTree, mask: PyTree | None = None) -> PyTree:
    """Score weights by `|w_f| - |w_i|`: those whose magnitude grew most are kept.

    Examples:
      >>> w_i, w_f = jnp.array([0.5, -2.0]), jnp.array([1.0, -1.0])
      >>> magnitude_increase(w_i, w_f).tolist()
      [0.5, -1.0]
    """
    return _score(lambda i, f: jnp.abs(f) - jnp.abs(i), w_i, w_f, mask)


def movement(w_i: PyTree, w_f: PyTree, mask: PyTree | None = None) -> PyTree:
    """Score weights by `|w_f - w_i|`: those that moved furthest, in any direction, are kept.

    Examples:
      >>> w_i, w_f = jnp.array([0.5, -2.0]), jnp.array([1.0, -1.0])
      >>> movement(w_i, w_f).tolist()
      [0.5, 1.0]
    """
    return _score(lambda i, f: jnp.abs(f - i), w_i, w_f, mask)


def random(w_i: PyTree, w_f: PyTree, mask: PyTree | None = None) -> PyTree:
    """Score all weights 0: `masks.prune` breaks ties at random, so it keeps random weights.

    Examples:
      >>> w_i, w_f = jnp.array([0.5, -2.0]), jnp.array([1.0, -1.0])
      >>> random(w_i, w_f).tolist()
      [0.0, 0.0]
    """
    return _score(lambda i, f: jnp.zeros_like(f), w_i, w_f, mask)


def large_init_large_final(w_i: PyTree, w_f: PyTree, mask: PyTree | None = None) -> PyTree:
    """Score weights high that both start and end large: one percentile cut on both magnitudes.

    The score of the paper is `min(alpha |w_f|, |w_i|)`, with alpha such that both cuts fall on the
    same percentile. Keeping the highest of these scores is the same as ranking the kept weights by
    `|w_i|` and by `|w_f|` and keeping those with the largest smaller rank. The scores are these
    smaller ranks: exact in leaves of up to 2**24 weights, and in the same order in leaves of up to
    8e8 weights.

    Examples:
      >>> w_i, w_f = jnp.array([0.5, -2.0, 3.0]), jnp.array([1.0, -3.0, 2.0])
      >>> large_init_large_final(w_i, w_f).tolist()
      [0.0, 1.0, 1.0]
    """
    return _smaller_rank(jnp.abs, w_i, w_f, mask)


def small_init_small_final(w_i: PyTree, w_f: PyTree, mask: PyTree | None = None) -> PyTree:
    """Score weights high that both start and end small: the mirror of `large_init_large_final`.

    Examples:
      >>> w_i, w_f = jnp.array([0.5, -2.0, 3.0]), jnp.array([1.0, -3.0, 2.0])
      >>> small_init_small_final(w_i, w_f).tolist()
      [2.0, 0.0, 0.0]
    """
    return _smaller_rank(lambda w: -jnp.abs(w), w_i, w_f, mask)


def same_sign(criterion: Criterion) -> Criterion:
    """Restrict a criterion to weights with the same sign in `w_i` and `w_f`; the sign of 0 is 0.

    All other weights rank last, whatever the criterion: their score is the lowest finite number of
    its type (`masks.prune` refuses infinite scores). They are kept only if no others are left.

    The paper's `magnitude_increase_same_sign` and `magnitude_increase_diff_sign` in `CRITERIA`
    differ: as in the authors' code, excluded weights score 0, and so rank above weights that
    shrank.

    Args:
      criterion: a `trees.Criterion`.

    Returns:
      A criterion.

    Raises:
      TypeError: if `criterion` is not a function of `(w_i, w_f, mask)`.

    Examples:
      >>> w_i, w_f = jnp.array([0.5, -2.0]), jnp.array([1.0, 1.0])
      >>> same_sign(movement)(w_i, w_f).tolist()
      [0.5, -3.4028234663852886e+38]
    """
    return _where_signs(jnp.equal, criterion, _lowest)


def diff_sign(criterion: Criterion) -> Criterion:
    """Restrict a criterion to weights with different signs in `w_i` and `w_f`; others rank last.

    Args:
      criterion: a `trees.Criterion`.

    Returns:
      A criterion.

    Raises:
      TypeError: if `criterion` is not a function of `(w_i, w_f, mask)`.

    Examples:
      >>> w_i, w_f = jnp.array([0.5, -2.0]), jnp.array([1.0, 1.0])
      >>> diff_sign(movement)(w_i, w_f).tolist()
      [-3.4028234663852886e+38, 3.0]
    """
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


@jax.jit
def _rank(values: jax.Array, kept: jax.Array) -> jax.Array:
    """Return ranks `[...]` among the kept values, as floats in the order of the ranks.

    Equal values share the rank of the first, the number of kept values that are smaller. One
    sorting moves the values with their places; every device of a mesh sorts the whole leaf.
    """
    flat, numbered = whole(values).ravel(), whole(kept).ravel()
    ascending, place = lax.sort((flat, jnp.arange(flat.size, dtype=jnp.int32)), num_keys=1)
    numbered = numbered[place].astype(jnp.int32)
    below = jnp.cumsum(numbered) - numbered
    is_first = jnp.concatenate([jnp.ones(1, bool), ascending[1:] != ascending[:-1]])
    rank = lax.cummax(jnp.where(is_first, below, 0))
    rank = jnp.zeros_like(rank).at[place].set(rank, unique_indices=True)
    return sharded_as(_ordered_floats(rank.reshape(values.shape), values.size), values)


def _ordered_floats(ranks: jax.Array, below: int) -> jax.Array:
    """Map integers to float32 in the same order.

    Up to 2**24, every integer is its own float; above, consecutive integers are consecutive floats.
    """
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
# As in the authors' code: see `same_sign`.
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
"""Criteria by name."""

OF_FINAL_WEIGHTS: tuple[Criterion, ...] = (large_final, small_final, random)
"""Criteria that do not look at the start weights, which then need not be kept."""
