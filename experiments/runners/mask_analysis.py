"""Analysis of masks: their overlap, and what training did to the weights they keep and prune.

The results form a tidy table beside the test results, with one row per quantity, layer and member
or pair of members. The quantities of round r describe its masks and the training of round r - 1,
which the masks came from:

* density: kept / prunable weights;
* sign_agreement_kept, sign_agreement_pruned: the fraction of weights that kept their sign during
  training, among the weights kept and among those pruned in this round;
* shrunk_kept, shrunk_pruned: the fraction of weights whose magnitude fell during training, among
  the same weights;
* overlap: the overlap beyond chance of the masks of two variants with the same seed, or of two
  seeds with the same variant; both with the same learning rate, pruning rate and so on.

A fraction of no weights has no row, and neither has a member that diverged. See
`supermask_jax.analysis` for the definitions.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.runners import hyperparameters
from experiments.runners.hyperparameters import Numbers
from experiments.storage import results
from supermask_jax import analysis, masks, population, rounds

PyTree = Any

FILE = "analysis.csv"

COLUMNS: results.Columns = {
    "experiment": results.text,
    "network": results.text,
    "dataset": results.text,
    "variant": results.text,
    **hyperparameters.columns(hyperparameters.OF_PRUNING),
    "seed": results.integer,
    "other_variant": results.text,  # empty unless the quantity is an overlap
    "other_seed": results.optional_integer,
    "round": results.integer,
    "layer": results.text,
    "quantity": results.text,
    "value": results.number,
}


class Member(NamedTuple):
    """One member of the population, as the table names it."""

    variant: str
    seed: int
    numbers: Numbers


class Analysis:
    """The analysis of masks, compiled once for all members and rounds.

    Args:
      prunable: from `trees.prunable_leaves`.
    """

    def __init__(self, prunable: PyTree) -> None:
        def measure(
            w_i: PyTree, w_f: PyTree, before: PyTree, mask: PyTree
        ) -> dict[str, analysis.PerLayer]:
            pruned = masks.difference(before, mask)
            return {
                "density": analysis.layer_densities(mask, prunable),
                "sign_agreement_kept": analysis.sign_agreement(w_i, w_f, mask, prunable),
                "sign_agreement_pruned": analysis.sign_agreement(w_i, w_f, pruned, prunable),
                "shrunk_kept": analysis.fraction_shrunk(w_i, w_f, mask, prunable),
                "shrunk_pruned": analysis.fraction_shrunk(w_i, w_f, pruned, prunable),
            }

        self._measure = jax.jit(measure)
        self._overlap = jax.jit(lambda a, b: analysis.overlap_beyond_chance(a, b, prunable))

    def rows(
        self,
        members: Sequence[Member],
        parents: Sequence[int] | np.ndarray,
        before: rounds.RoundState,
        w_f: PyTree,
        after: rounds.RoundState,
    ) -> list[results.Row]:
        """Return the rows of a round, without the columns that all rows of a run share.

        The P members come from the Q members of the previous round.

        Args:
          members: the P members.
          parents: `[P]`, the place of each member's parent in the previous population.
          before: `[Q, ...]`, the states that the previous training started from.
          w_f: `[Q, ...]` per leaf, the final weights of the previous training.
          after: `[P, ...]`, the states with the new masks.
        """
        finite = [i for i, parent in enumerate(parents) if _is_finite(population.take(w_f, parent))]
        rows = []
        for i in finite:
            training = population.take((before.w_i, w_f, before.mask), parents[i])
            quantities = self._measure(*training, population.take(after.mask, i))
            rows += _rows(members[i], None, quantities)
        for i, j in itertools.combinations(finite, 2):
            own, other = members[i], members[j]
            is_alike = own.numbers == other.numbers
            if is_alike and (own.variant == other.variant) != (own.seed == other.seed):
                pair = (population.take(after.mask, place) for place in (i, j))
                rows += _rows(own, other, {"overlap": self._overlap(*pair)})
        return rows


def _rows(
    member: Member,
    other: Member | None,
    quantities: Mapping[str, analysis.PerLayer],
) -> Iterator[results.Row]:
    for quantity, (layers, overall) in jax.device_get(quantities).items():
        for layer, value in (layers | {results.ALL_LAYERS: overall}).items():
            if not np.isnan(value):
                yield {
                    "variant": member.variant,
                    **member.numbers._asdict(),
                    "seed": member.seed,
                    "other_variant": other.variant if other else "",
                    "other_seed": other.seed if other else None,
                    "layer": layer,
                    "quantity": quantity,
                    # str gives the shortest decimal that reads back as the same float32.
                    "value": float(str(value)),
                }


def _is_finite(tree: PyTree) -> bool:
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))
