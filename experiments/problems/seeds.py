"""The random keys of a seed: one per round and purpose, the same in any population."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

# What a key is for: folded into the key of a seed and a round.
INIT, BATCHES, ADVANCE, LOSS, DRAWS = range(5)


def places(seeds: Sequence[int], distinct: Sequence[int]) -> np.ndarray:
    """The place of every member's seed among the different ones, int32 `[P]`."""
    return np.array([distinct.index(seed) for seed in seeds], np.int32)


def seed_keys(seeds: Sequence[int], round: int, purpose: int) -> jax.Array:
    """One key per seed, `[S]`, for a round and a purpose."""
    keys = [jax.random.fold_in(jax.random.key(seed), round) for seed in seeds]
    return jnp.stack([jax.random.fold_in(key, purpose) for key in keys])
