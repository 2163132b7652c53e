"""A slow and obvious reference of the library in NumPy: one leaf and one weight at a time.

Criteria are functions ``(w_i, w_f, mask) -> scores`` of a leaf. Actions are checks
``(values, w_i, w_f, mask)`` of the values that an action returned for a leaf, where the mask is
True for the weights to set. They compare exactly; for random actions, they check every certain
property.
"""

import collections
import math
from fractions import Fraction

import jax.numpy as jnp
import numpy as np

# Criteria

EXCLUDED = -np.inf  # the score of a weight that ranks last, where the library has the lowest float


def ranked(scores):
    """Convert the library's scores to float64, as the reference has them."""
    wide = np.asarray(scores, np.float64)
    lowest = float(jnp.finfo(scores.dtype).min)
    return np.where(wide == lowest, EXCLUDED, wide)


def sign(x):
    return int(x > 0) - int(x < 0)


def each(score):
    """Make a criterion from a function of one weight."""

    def criterion(w_i, w_f, mask):
        scores = np.zeros(w_i.shape, np.float32)
        for place in np.ndindex(w_i.shape):
            scores[place] = score(w_i[place], w_f[place])
        return scores

    return criterion


def smaller_rank(magnitude):
    """The smaller of two ranks; a rank is the number of kept weights with a lower score."""

    def criterion(w_i, w_f, mask):
        scores = np.zeros(w_i.shape, np.float32)
        for place in np.ndindex(w_i.shape):
            scores[place] = min(
                sum(magnitude(other) < magnitude(w[place]) for other in w[mask]) for w in (w_i, w_f)
            )
        return scores

    return criterion


CRITERIA = {
    "large_final": each(lambda i, f: abs(f)),
    "small_final": each(lambda i, f: -abs(f)),
    "large_init": each(lambda i, f: abs(i)),
    "small_init": each(lambda i, f: -abs(i)),
    "large_init_large_final": smaller_rank(abs),
    "small_init_small_final": smaller_rank(lambda w: -abs(w)),
    "magnitude_increase": each(lambda i, f: abs(f) - abs(i)),
    "movement": each(lambda i, f: abs(f - i)),
    "random": each(lambda i, f: 0),
    "large_final_same_sign": each(lambda i, f: abs(f) if sign(i) == sign(f) else EXCLUDED),
    "large_final_diff_sign": each(lambda i, f: abs(f) if sign(i) != sign(f) else EXCLUDED),
    "magnitude_increase_same_sign": each(lambda i, f: abs(f) - abs(i) if sign(i) == sign(f) else 0),
    "magnitude_increase_diff_sign": each(lambda i, f: abs(f) - abs(i) if sign(i) != sign(f) else 0),
}


# Pruning


def prune(scores, mask, num_keep):
    """Keep the best of the kept weights; correct only if no two scores are equal."""
    best = sorted((p for p in np.ndindex(scores.shape) if mask[p]), key=lambda p: -scores[p])
    new = np.zeros(mask.shape, bool)
    for place in best[:num_keep]:
        new[place] = True
    return new


def check_pruned(new, scores, mask, num_keep):
    """Check what holds for any ties: the count, a subset, and kept scores >= pruned ones."""
    assert new.dtype == bool
    assert new.sum() == min(num_keep, mask.sum())
    assert not (new & ~mask).any()
    if new.any() and (mask & ~new).any():
        assert scores[new].min() >= scores[mask & ~new].max()


def keep_count(size, rate, rounds):
    for _ in range(rounds):
        size -= math.floor(size * Fraction(str(rate)))
    return size


# Actions


def exactly(value):
    def check(values, w_i, w_f, mask):
        for place in np.ndindex(w_i.shape):
            if mask[place]:
                assert values[place] == value(w_i[place], w_f[place])

    return check


def multiset(values):
    return collections.Counter(np.ravel(values).tolist())


def check_reinit(values, w_i, w_f, mask):
    assert multiset(values) == multiset(w_i)


def check_reshuffle(values, w_i, w_f, mask):
    assert multiset(values[mask]) == multiset(w_i[mask])


def check_constant(values, w_i, w_f, mask):
    assert multiset(np.sign(values)) == multiset(np.sign(w_i))
    check_magnitude(values, w_i)


def check_magnitude(values, w_i):
    std = math.sqrt(np.mean((w_i.astype(float) - np.mean(w_i.astype(float))) ** 2))
    np.testing.assert_allclose(np.abs(values[values != 0]), std, rtol=1e-5)


def signs_kept(check_magnitudes):
    """Make a check for the signs of `w_i`; a random action may move the zeros of `w_i`."""

    def check(values, w_i, w_f, mask):
        wrong = mask & (np.sign(values) != np.sign(w_i))
        assert (values[wrong] == 0).all()
        assert wrong.sum() <= (w_i == 0).sum()
        check_magnitudes(values, w_i, mask)

    return check


MASK_ONE = {
    "rewind": exactly(lambda i, f: i),
    "finetune": exactly(lambda i, f: f),
    "reinit": check_reinit,
    "reshuffle": check_reshuffle,
    "constant": check_constant,
    "reinit_keep_sign": signs_kept(
        lambda values, w_i, mask: _check_among(values[values != 0], w_i)
    ),
    "reshuffle_keep_sign": signs_kept(
        lambda values, w_i, mask: _check_among(values[mask & (values != 0)], w_i[mask])
    ),
    "constant_keep_sign": signs_kept(lambda values, w_i, mask: check_magnitude(values, w_i)),
    "rewind_unless_shrunk": exactly(lambda i, f: 0 if abs(f) < abs(i) else i),
}


def _check_among(values, pool):
    """Check that every magnitude is from the pool, and occurs no more often than there."""
    assert multiset(np.abs(values)) <= multiset(np.abs(pool))


def check_zero_shuffled(values, w_i, w_f, mask):
    zeroed = mask & (values != w_i)
    assert (values[zeroed] == 0).all()
    shrunk = sum(abs(f) < abs(i) for i, f in zip(w_i[mask], w_f[mask], strict=True))
    already_zero = (mask & (w_i == 0)).sum()
    assert shrunk - already_zero <= zeroed.sum() <= shrunk


MASK_ZERO = {
    "zero": exactly(lambda i, f: 0),
    "freeze": exactly(lambda i, f: i),
    "zero_if_shrunk": exactly(lambda i, f: 0 if abs(f) < abs(i) else i),
    "zero_if_grown": exactly(lambda i, f: 0 if abs(f) > abs(i) else i),
    "zero_shuffled": check_zero_shuffled,
}
