"""The random keys of a seed, one per round and purpose, independent of the population."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

# The purposes of keys, folded into the key of a seed and a round.
INIT, BATCHES, ADVANCE, LOSS, DRAWS, SCORING, COPIES = range(7)
# Folded into the key that the loss gets at a step, where small numbers are those of leaves.
AUGMENTATION = 2**31


def places(seeds: Sequence[int], distinct: Sequence[int]) -> np.ndarray:
    """Return the index of every member's seed, int32 `[P]`.

    Args:
      seeds: the seed of every member, P of them.
      distinct: the distinct seeds.
    """
    return np.array([distinct.index(seed) for seed in seeds], np.int32)


def seed_keys(seeds: Sequence[int], round: int, purpose: int) -> jax.Array:
    """Return one typed key per seed, `[S]`.

    Args:
      seeds: S seeds.
      round: the number of the round.
      purpose: `INIT`, `BATCHES`, `ADVANCE`, `LOSS`, `DRAWS`, `SCORING` or `COPIES`.
    """
    keys = [jax.random.fold_in(jax.random.key(seed), round) for seed in seeds]
    return jnp.stack([jax.random.fold_in(key, purpose) for key in keys])
