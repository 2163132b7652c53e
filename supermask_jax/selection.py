"""Selection: the highest of many scores, found by counting instead of sorting.

The bits of a float, in the right order, are an unsigned integer. The k-th highest of them is found
digit by digit, from the highest digit down: a digit is the largest with which at least k numbers
are as high. Each step is one pass over the numbers that ends in three counts, so that arrays over
many devices exchange counts only, and nothing is moved or sorted.

Examples:
  >>> scores, everything = jnp.array([3.0, 1.0, 2.0, 4.0]), jnp.ones(4, bool)
  >>> highest(jax.random.key(0), [scores], [everything], jnp.int32(2))[0].tolist()
  [True, False, False, True]
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from supermask_jax.random_bits import places, random_bits
from supermask_jax.shardings import join_axis, sharded_as, split_axis
from supermask_jax.trees import Key

DIGIT = 2  # bits that one pass decides
WIDTHS = {2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint64}  # by the bytes of a float

Leaves = Sequence[jax.Array]


def highest(key: Key, scores: Leaves, among: Leaves, count: jax.Array) -> list[jax.Array]:
    """Choose the highest scores of several leaves, ranked together.

    Ties are broken by `jax.random.bits(key, (size,), jnp.uint32)` of all leaves together, the
    lowest first, and equal bits by place. NaN ranks last, and -0 is equal to 0.

    Args:
      key: a typed key.
      scores: floats `[...]` per leaf, of one type.
      among: bool `[...]` per leaf, the weights to choose from.
      count: the number of weights to choose, int32; if there are fewer, all are chosen.

    Returns:
      bool `[...]` per leaf, sharded as the scores.
    """
    ends = np.cumsum([leaf.size for leaf in scores])
    firsts = [int(end) - leaf.size for end, leaf in zip(ends, scores, strict=True)]

    def by_score() -> Leaves:
        return [_ordered(leaf) for leaf in scores]

    def by_bits() -> Leaves:
        total = int(ends[-1])
        return [~random_bits(key, leaf, i, total) for leaf, i in zip(scores, firsts, strict=True)]

    def by_place() -> Leaves:
        return [~places(leaf, i) for leaf, i in zip(scores, firsts, strict=True)]

    # Inside jax.shard_map, what is chosen varies over devices if the key does: so must the count.
    nothing = (jax.random.key_data(key).ravel()[0] & 0).astype(jnp.int32)
    return _choose([by_score, by_bits, by_place], among, jnp.maximum(count, 0) + nothing)


def highest_of_each(
    key: Key, scores: jax.Array, among: jax.Array, axis: int, size: int, count: jax.Array
) -> jax.Array:
    """Choose the highest scores of every group of `size` neighbours along an axis.

    A weight is chosen if fewer than `count` of its group rank above it; this takes `size` passes.
    Ties are broken as in `highest`.

    Args:
      key: a typed key.
      scores: floats `[...]`.
      among: bool `[...]`, the weights to choose from.
      axis: not negative.
      size: divides the length of the axis.
      count: the number of weights to choose from each group, int32.

    Returns:
      bool `[...]`, sharded as the scores.

    Examples:
      >>> scores, everything = jnp.array([3.0, 1.0, 2.0, 4.0]), jnp.ones(4, bool)
      >>> highest_of_each(jax.random.key(0), scores, everything, 0, 2, jnp.int32(1)).tolist()
      [True, False, False, True]
    """
    rank, bits, mask = (
        split_axis(leaf, axis, size) for leaf in (_ordered(scores), random_bits(key, scores), among)
    )
    place = jnp.arange(size).reshape(-1, *[1] * (scores.ndim - 1 - axis))

    def above(one: Any) -> jax.Array:
        """Return 1 for the weights that one weight of their group ranks above, else 0."""
        its_rank, its_bits, its_mask = (
            lax.dynamic_slice_in_dim(leaf, one, 1, axis + 1) for leaf in (rank, bits, mask)
        )
        first = (its_bits < bits) | ((its_bits == bits) & (one < place))
        higher = its_mask & ((its_rank > rank) | ((its_rank == rank) & first))
        return higher.astype(jnp.int32)

    # Inside jax.shard_map, the first number must vary over devices as later ones do.
    number = lax.fori_loop(1, size, lambda one, number: number + above(one), above(0))
    return sharded_as(join_axis(mask & (number < count), axis), scores)


def _choose(
    rankings: Sequence[Callable[[], Leaves]], among: Leaves, count: jax.Array
) -> list[jax.Array]:
    """Choose the highest by the first ranking; later ones are made and used only to break ties."""
    ranks = rankings[0]()
    threshold, exact, above = _threshold(ranks, among, count)
    pairs = list(zip(ranks, among, strict=True))
    best = [mask & ((rank > threshold) | (exact & (rank == threshold))) for rank, mask in pairs]
    if len(rankings) == 1:  # by place: there are no ties
        return best
    tied = [mask & (rank == threshold) for rank, mask in pairs]

    def break_ties(state: tuple[Any, ...]) -> tuple[Any, ...]:
        best, missing = state
        chosen = _choose(rankings[1:], tied, missing)
        return [a | b for a, b in zip(best, chosen, strict=True)], jnp.zeros_like(missing)

    # A loop of at most one turn: a conditional would make every turn under `vmap`.
    missing = jnp.where(exact, 0, count - above)
    return lax.while_loop(lambda state: state[1] > 0, break_ties, (best, missing))[0]


def _threshold(
    ranks: Leaves, among: Leaves, count: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Find the rank of the last of `count` weights.

    Returns:
      The rank; whether all weights of this rank are among the `count`; and if not, the number of
      weights that rank higher.
    """
    dtype = ranks[0].dtype
    bits = 8 * dtype.itemsize

    def decide(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        shift, threshold, reached = state
        shift -= DIGIT
        candidates = [threshold | (dtype.type(digit) << shift) for digit in range(1, 2**DIGIT)]
        tests = [functools.partial(operator.le, candidate) for candidate in candidates]
        for candidate, number in zip(candidates, _count(ranks, among, tests), strict=True):
            threshold = jnp.where(number >= count, candidate, threshold)
            reached = jnp.where(number >= count, number, reached)
        return shift, threshold, reached

    # The first numbers have the type of later ones: inside jax.shard_map they vary over devices.
    lowest, higher = _count(ranks, among, [lambda rank: rank == 0, lambda rank: rank > 0])
    everything = lowest + higher + (count - count)
    zero = (everything - everything).astype(dtype)
    start = zero + dtype.type(bits), zero, everything
    count = jnp.minimum(count, everything)
    _, threshold, _ = lax.while_loop(
        lambda state: (state[0] > 0) & (state[2] != count), decide, start
    )
    above, equal = _count(
        ranks, among, [lambda rank: rank > threshold, lambda rank: rank == threshold]
    )
    return threshold, above + equal == count, above


def _count(
    ranks: Leaves, among: Leaves, tests: Sequence[Callable[[jax.Array], jax.Array]]
) -> list[Any]:
    """Count the weights that pass each of several tests of their ranks: int32 scalars.

    Several tests are one reduction, which XLA fuses with them. A single one would not be fused.
    """

    def add(a: Leaves, b: Leaves) -> Leaves:
        return tuple(x + y for x, y in zip(a, b, strict=True))

    def count(rank: jax.Array, mask: jax.Array) -> Leaves:
        passed = tuple((mask & test(rank)).astype(jnp.int32) for test in tests)
        return lax.reduce(passed, (np.int32(0),) * len(tests), add, tuple(range(rank.ndim)))

    numbers = [count(rank, mask) for rank, mask in zip(ranks, among, strict=True)]
    return [sum(column, start=np.int32(0)) for column in zip(*numbers, strict=True)]


def _ordered(scores: jax.Array) -> jax.Array:
    """Map floats to unsigned integers in the same order; NaN to the lowest, -0 to that of 0."""
    if scores.dtype.itemsize < min(WIDTHS):
        scores = scores.astype(jnp.float32)
    unsigned = WIDTHS[scores.dtype.itemsize]
    bits = lax.bitcast_convert_type(scores, unsigned)
    sign = unsigned(1 << (8 * scores.dtype.itemsize - 1))
    bits = jnp.where(bits == sign, unsigned(0), bits)
    ordered = jnp.where(bits >= sign, ~bits, bits | sign)
    return jnp.where(jnp.isnan(scores), unsigned(0), ordered)
