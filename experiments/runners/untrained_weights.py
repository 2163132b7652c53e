"""The kinds of untrained weights that supermasks are evaluated on."""

from typing import Any

import jax

from supermask_jax import masks
from supermask_jax.actions import MASK_ONE

PyTree = Any

# The name in tables and settings of every kind, and the mask-1 action that makes it.
WEIGHTS = {
    "init": "rewind",
    "signed_constant": "constant_keep_sign",
    "reinit": "reinit",
    "reshuffle": "reshuffle",
}


def untrained_weights(
    name: str, key: jax.Array, w_i: PyTree, prunable: PyTree, mask: PyTree | None = None
) -> PyTree:
    """Return the untrained weights of one network; leaves that are not prunable keep `w_i`.

    Args:
      name: a key of `WEIGHTS`.
      key: a typed key, for random kinds.
      w_i: the initial weights, `[...]` per leaf.
      prunable: from `trees.prunable_leaves`.
      mask: bool, `[...]` per leaf, the kept weights; `reshuffle` permutes values among them. None
        keeps all weights.
    """
    mask = masks.ones(w_i) if mask is None else mask
    values = MASK_ONE[WEIGHTS[name]](key, w_i, w_i, mask)
    return jax.tree.map(lambda yes, v, i: v if yes else i, prunable, values, w_i)
