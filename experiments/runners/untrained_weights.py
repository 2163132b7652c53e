"""What an untrained network's weights are set to before a supermask is found for them."""

from typing import Any

import jax

from supermask_jax import masks
from supermask_jax.actions import MASK_ONE

PyTree = Any

# Names of tables and settings, and the mask-1 actions that they stand for.
WEIGHTS = {
    "init": "rewind",
    "signed_constant": "constant_keep_sign",
    "reinit": "reinit",
    "reshuffle": "reshuffle",
}


def untrained_weights(
    name: str, key: jax.Array, w_i: PyTree, prunable: PyTree, mask: PyTree | None = None
) -> PyTree:
    """The weights of one network by their name in `WEIGHTS`; other leaves stay as initialised.

    Args:
      name: of `WEIGHTS`.
      key: for random ones.
      w_i: as initialised, `[...]` per leaf.
      prunable: static tree of bools.
      mask: kept weights, whose values are shuffled among themselves; None keeps all.
    """
    mask = masks.ones(w_i) if mask is None else mask
    values = MASK_ONE[WEIGHTS[name]](key, w_i, w_i, mask)
    return jax.tree.map(lambda yes, v, i: v if yes else i, prunable, values, w_i)
