"""What masks have in common and what training did to the weights that they keep or prune.

Each function counts over the prunable leaves and answers per layer and over all of them. Choose
the weights to ask about with `masks`: of a round, ``mask`` are those kept and
``masks.difference(before, mask)`` those pruned now.

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
    """A number per prunable leaf, by its name, and one over all of them; float32 scalars.

    Attributes:
      layers: such as ``{"dense1/kernel": 0.3, "output/kernel": 0.6}``.
      overall: over the prunable leaves together.
    """

    layers: dict[str, jax.Array]
    overall: jax.Array


def overlap_beyond_chance(a: PyTree, b: PyTree, prunable: PyTree) -> PerLayer:
    """How much two masks agree beyond what their densities alone make agree (Cohen's kappa).

    Of a layer's weights some are kept by both masks, some by `a` only, by `b` only, by neither;
    `kept_a`, `pruned_a`, ... are what each mask keeps and prunes. The layer has

        2 (both * neither - only_a * only_b) / (kept_a * pruned_b + kept_b * pruned_a)

    which is the weights they treat alike, less those that independent masks of these densities
    treat alike on average, over the most there could be. Overall, numerator and denominator, each
    divided by the layer's size, are summed over layers: to have the same densities per layer is
    no agreement.

    1 for equal masks (also if they keep all or nothing), 0 expected for independent ones (exactly
    if just one keeps all or nothing), negative for masks that avoid each other.

    Args:
      a: bool `[...]` per leaf.
      b: the same.
      prunable: from `trees.prunable_leaves`.

    Raises:
      ValueError, TypeError: trees or shapes that differ, leaves that are not bools, no prunable
        leaf.
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
    """The fraction of the chosen weights that end with the sign they started with; sign(0) is 0.

    Args:
      w_i: start weights `[...]`.
      w_f: final weights `[...]`.
      chosen: bool `[...]`, the weights to ask about.
      prunable: from `trees.prunable_leaves`.

    Returns:
      NaN where no weight is chosen (at which ``jax_debug_nans`` stops).

    Raises:
      ValueError, TypeError: trees or shapes that differ, leaves of `chosen` that are not bools.
    """
    return _fraction(lambda i, f: jnp.sign(i) == jnp.sign(f), w_i, w_f, chosen, prunable)


def fraction_shrunk(w_i: PyTree, w_f: PyTree, chosen: PyTree, prunable: PyTree) -> PerLayer:
    """The fraction of the chosen weights that training moved towards zero: ``|w_f| < |w_i|``.

    Of the weights pruned now: to set those to zero is to continue what training began, Zhou et
    al.'s explanation of why masking is training. Arguments, result and errors as
    `sign_agreement`.
    """
    return _fraction(lambda i, f: jnp.abs(f) < jnp.abs(i), w_i, w_f, chosen, prunable)


def layer_densities(mask: PyTree, prunable: PyTree) -> PerLayer:
    """Kept / prunable weights; overall as `masks.density`.

    Raises:
      ValueError, TypeError: trees that differ, leaves that are not bools.
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
    # What is not prunable is not counted, and may hold what has no sign.
    true = jax.tree.map(
        lambda yes, i, f, c: condition(jnp.asarray(i), jnp.asarray(f)) & c if yes else c,
        prunable, w_i, w_f, chosen,
    )  # fmt: skip
    return _per_layer(_counts(true, prunable), _counts(chosen, prunable))


def _counts(mask: PyTree, prunable: PyTree) -> dict[str, jax.Array]:
    """How many weights a mask keeps, by name of the prunable leaves; float32, exact to 2**24."""
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
