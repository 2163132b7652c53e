"""Pruning by sorting, as it was before selection: tests compare every bit with it."""

import jax
import jax.numpy as jnp
from jax import lax


def prune_by_sorting(key, scores, mask, num_keep):
    """Keep the highest-scored weights of a leaf among those that a mask keeps."""
    kept, flat = mask.ravel(), scores.ravel()
    unusable = jnp.isnan(flat)
    rank_class = jnp.where(kept, unusable.astype(jnp.int8), jnp.int8(2))
    *_, best_first = lax.sort(
        (
            rank_class,
            jnp.where(unusable, 0, -flat),
            jax.random.bits(key, flat.shape, jnp.uint32),
            jnp.arange(flat.size, dtype=jnp.int32),
        ),
        num_keys=3,
    )
    chosen = jnp.arange(flat.size, dtype=jnp.int32) < num_keep
    return (jnp.zeros_like(kept).at[best_first].set(chosen) & kept).reshape(mask.shape)
