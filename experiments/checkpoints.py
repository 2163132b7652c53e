"""Checkpoints of finished rounds: the whole population of a round as one step."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

PyTree = Any


class Checkpoints:
    """The finished rounds in a folder; the newest `keep` and round 0 stay.

    Args:
      folder: made if it is missing.
      keep: how many of the newest rounds to keep.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        policies = ocp.training.preservation_policies
        kept: Any = policies.AnyPreservationPolicy(
            [policies.LatestN(keep), policies.CustomSteps([0])]
        )
        self._checkpointer = ocp.training.Checkpointer(
            str(folder.resolve()), preservation_policy=kept
        )

    def rounds(self) -> list[int]:
        """The rounds that can be loaded."""
        return sorted(checkpoint.step for checkpoint in self._checkpointer.checkpoints)

    def save(self, round: int, tree: PyTree) -> None:
        """Save a round's arrays and wait until they are on disk."""
        self._checkpointer.save(round, jax.tree.map(np.asarray, tree), force=True, overwrite=True)

    def load(self, round: int, like: PyTree) -> PyTree:
        """Load a round as numpy arrays of the shapes and types of `like`."""
        return self._checkpointer.load(round, jax.tree.map(_empty, like))

    def close(self) -> None:
        """Finish what is under way."""
        self._checkpointer.close()


def _empty(leaf: Any) -> np.ndarray:
    return np.empty(leaf.shape, leaf.dtype)
