"""Statistics of masks, and of what training did to the weights that they keep or prune.

Every function counts weights over the prunable leaves and returns a `PerLayer`: one number per
layer and one for all layers. The weights to count are given as a mask: in a round, `mask` selects
the kept weights and `masks.difference(before, mask)` those that this round pruned.

Examples:
  >>> prunable = {"kernel": True, "bias": False}
  >>> w_i = {"kernel": jnp.array([0.5, -0.2, 0.4, 0.1]), "bias": jnp.zeros(2)}
  >>> w_f = {"kernel": jnp.array([0.9, 0.3, 0.1, 0.2]), "bias": jnp.ones(2)}
  >>> keep = lambda *kept: {"kernel": jnp.array(kept), "bias": jnp.array([True, True])}
  >>> kept, pruned = keep(True, True, False, False), keep(False, False, True, True)
  >>> float(sign_agreement(w_i, w_f, kept, prunable).overall)
  0.5
  >>> float(fraction_shrunk(w_i, w_f, pruned, prunable).layers["kernel"])
  0.5
  >>> float(overlap_beyond_chance(kept, kept, prunable).overall)
  1.0
  >>> float(overlap_beyond_chance(kept, keep(True, False, True, False), prunable).overall)
  0.0
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from supermask_jax import masks
from supermask_jax.checks import check_mask, check_prunable
from supermask_jax.paths import PyTree, leaf_names
from supermask_jax.trees import num_prunable


class PerLayer(NamedTuple):
    """A number for each prunable leaf and one for all of them together; float32 scalars.

    Attributes:
      layers: by the names of the leaves, such as `{"dense1/kernel": 0.3, "output/kernel": 0.6}`.
      overall: for all prunable leaves together.
    """

    layers: dict[str, jax.Array]
    overall: jax.Array


def overlap_beyond_chance(a: PyTree, b: PyTree, prunable: PyTree) -> PerLayer:
    """Measure how much two masks agree beyond what their densities imply: Cohen's kappa.

    In a layer, let `both`, `only_a`, `only_b` and `neither` be the numbers of weights that both
    masks keep, only `a` keeps, only `b` keeps and neither keeps, and let `kept_a`, `pruned_a`,
    `kept_b` and `pruned_b` be the numbers that each mask keeps and prunes. Then the agreement of
    the layer is

        2 (both * neither - only_a * only_b) / (kept_a * pruned_b + kept_b * pruned_a)

    This is the number of weights on which the masks agree, minus its expectation for independent
    masks of the same densities, divided by the largest possible value of that difference. For the
    overall number, numerator and denominator are each divided by the size of the layer and summed
    over layers, so that equal densities per layer do not count as agreement.

    The result is 1 for equal masks (also if they keep all weights or none), 0 in expectation for
    independent masks (exactly 0 if just one of them keeps all or none), and negative for masks that
    avoid each other.

    Args:
      a: a mask, bool `[...]` per leaf.
      b: another mask of the same network.
      prunable: from `trees.prunable_leaves`.

    Returns:
      The agreement per layer and overall.

    Raises:
      ValueError: if trees or shapes differ, or if no leaf is prunable.
      TypeError: if a leaf of a mask is not boolean.

    Examples:
      >>> a, b = jnp.array([True, True, False, False]), jnp.array([False, False, True, True])
      >>> float(overlap_beyond_chance(a, b, True).overall)
      -1.0
    """
    check_mask(a, b=b)
    check_mask(b)
    both, only_a, only_b = (
        _counts(mask, prunable)
        for mask in (masks.intersection(a, b), masks.difference(a, b), masks.difference(b, a))
    )
    size = _counts(masks.ones(a), prunable)
    beyond, possible = {}, {}
    for name, n in size.items():
        neither = n - both[name] - only_a[name] - only_b[name]
        kept_a, kept_b = both[name] + only_a[name], both[name] + only_b[name]
        pruned_a, pruned_b = only_b[name] + neither, only_a[name] + neither
        beyond[name] = 2 * (both[name] * neither - only_a[name] * only_b[name]) / n
        possible[name] = (kept_a * pruned_b + kept_b * pruned_a) / n
    return _per_layer(beyond, possible, if_empty=1.0)


def sign_agreement(w_i: PyTree, w_f: PyTree, chosen: PyTree, prunable: PyTree) -> PerLayer:
    """Compute the fraction of the chosen weights that end with the sign they started with.

    The sign of 0 is 0.

    Args:
      w_i: start weights `[...]`.
      w_f: final weights `[...]`.
      chosen: bool `[...]`, the weights to count.
      prunable: from `trees.prunable_leaves`.

    Returns:
      The fraction per layer and overall; NaN where no weight is chosen (which `jax_debug_nans`
      reports as an error).

    Raises:
      ValueError: if trees or shapes differ, or if no leaf is prunable.
      TypeError: if a leaf of `chosen` is not boolean.

    Examples:
      >>> w_i, w_f = jnp.array([0.5, -0.2, 0.4]), jnp.array([0.9, 0.3, 0.1])
      >>> float(sign_agreement(w_i, w_f, jnp.array([True, True, False]), True).overall)
      0.5
    """
    return _fraction(lambda i, f: jnp.sign(i) == jnp.sign(f), w_i, w_f, chosen, prunable)


def fraction_shrunk(w_i: PyTree, w_f: PyTree, chosen: PyTree, prunable: PyTree) -> PerLayer:
    """Compute the fraction of the chosen weights that training moved towards zero: `|w_f| < |w_i|`.

    Choose the weights that a round pruned to test Zhou et al.'s explanation of why masking is
    training: setting weights to zero continues what training began.

    Args:
      w_i: start weights `[...]`.
      w_f: final weights `[...]`.
      chosen: bool `[...]`, the weights to count.
      prunable: from `trees.prunable_leaves`.

    Returns:
      The fraction per layer and overall; NaN where no weight is chosen (which `jax_debug_nans`
      reports as an error).

    Raises:
      ValueError: if trees or shapes differ, or if no leaf is prunable.
      TypeError: if a leaf of `chosen` is not boolean.

    Examples:
      >>> w_i, w_f = jnp.array([0.5, -0.2, 0.4]), jnp.array([0.9, 0.3, 0.1])
      >>> float(fraction_shrunk(w_i, w_f, jnp.array([True, False, True]), True).overall)
      0.5
    """
    return _fraction(lambda i, f: jnp.abs(f) < jnp.abs(i), w_i, w_f, chosen, prunable)


def layer_densities(mask: PyTree, prunable: PyTree) -> PerLayer:
    """Compute the density, kept / prunable weights, of each layer and of the whole mask.

    Args:
      mask: bool `[...]` per leaf.
      prunable: from `trees.prunable_leaves`.

    Returns:
      The density per layer and overall.

    Raises:
      ValueError: if the trees differ, or if no leaf is prunable.
      TypeError: if a leaf of the mask is not boolean.

    Examples:
      >>> mask = {"dense1": jnp.array([True, False]), "dense2": jnp.array([True, True])}
      >>> densities = layer_densities(mask, {"dense1": True, "dense2": True})
      >>> {name: float(density) for name, density in densities.layers.items()}
      {'dense1': 0.5, 'dense2': 1.0}
      >>> float(densities.overall)
      0.75
    """
    check_mask(mask)
    return _per_layer(_counts(mask, prunable), _counts(masks.ones(mask), prunable))


def _fraction(
    condition: Callable[[jax.Array, jax.Array], jax.Array],
    w_i: PyTree,
    w_f: PyTree,
    chosen: PyTree,
    prunable: PyTree,
) -> PerLayer:
    check_mask(chosen, w_i=w_i, w_f=w_f)
    check_prunable(prunable, chosen=chosen)
    # Leaves that are not prunable are not counted; their values may have no sign.
    true = jax.tree.map(
        lambda yes, i, f, c: condition(jnp.asarray(i), jnp.asarray(f)) & c if yes else c,
        prunable, w_i, w_f, chosen,
    )  # fmt: skip
    return _per_layer(_counts(true, prunable), _counts(chosen, prunable))


def _counts(mask: PyTree, prunable: PyTree) -> dict[str, jax.Array]:
    """Count kept weights per prunable leaf, by its name: float32, exact up to 2**24."""
    check_prunable(prunable, mask=mask)
    num_prunable(mask, prunable)
    pairs = zip(jax.tree.leaves(mask), jax.tree.leaves(prunable), strict=True)
    named = zip(leaf_names(mask), pairs, strict=True)
    return {name: masks.num_kept(leaf) for name, (leaf, yes) in named if yes}


def _per_layer(
    parts: dict[str, jax.Array], wholes: dict[str, jax.Array], if_empty: float = jnp.nan
) -> PerLayer:
    def divide(part: jax.Array, whole: jax.Array) -> jax.Array:
        return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1), if_empty)

    layers = {name: divide(parts[name], wholes[name]) for name in wholes}
    overall = divide(*(jnp.stack(list(x.values())).sum() for x in (parts, wholes)))
    return PerLayer(layers, overall)
