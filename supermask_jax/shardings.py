"""Leaves that are spread over the devices of a mesh: made whole where an operation needs them so.

Nothing here changes a value, and nothing happens to arrays on one device or inside `jax.shard_map`.
"""

import math

import jax
from jax import lax
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def whole(leaf: jax.Array) -> jax.Array:
    """Copy a leaf `[...]` whole to every device of its mesh, which gathers its parts."""
    sharding = _sharding(leaf)
    if sharding is None:
        return leaf
    everywhere = NamedSharding(sharding.mesh, PartitionSpec())
    if _is_explicit(sharding):
        return jax.sharding.reshard(leaf, everywhere)
    return _constrained(leaf, everywhere)


def whole_first_axis(leaf: jax.Array) -> jax.Array:
    """Gather a leaf `[P, ...]` along its first axis only, if that axis is explicitly sharded."""
    sharding = _sharding(leaf)
    if sharding is None or not _is_explicit(sharding) or not sharding.spec[0]:
        return leaf
    spec = PartitionSpec(None, *sharding.spec[1:])
    return jax.sharding.reshard(leaf, NamedSharding(sharding.mesh, spec))


def sharded_as(value: jax.Array, leaf: jax.Array) -> jax.Array:
    """Shard a value as a leaf is sharded, with the same axes.

    An axis whose new length the devices cannot share stays whole. Under `jit`, the shardings of
    automatic axes are the compiler's choice.
    """
    sharding = _sharding(leaf)
    if sharding is None:
        return value
    if _is_explicit(sharding):
        spec = [
            name if length % _num_parts(sharding, name) == 0 else None
            for name, length in zip(sharding.spec, value.shape, strict=True)
        ]
        return jax.sharding.reshard(value, NamedSharding(sharding.mesh, PartitionSpec(*spec)))
    if isinstance(leaf, Tracer) or value.shape != leaf.shape:
        return value
    return _constrained(value, leaf.sharding)


def _sharding(leaf: jax.Array) -> NamedSharding | None:
    """Return the sharding of a leaf over a mesh of automatic or explicit axes."""
    sharding = jax.typeof(leaf).sharding
    if isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer):
        own = leaf.sharding
        if not isinstance(own, NamedSharding):
            return None
        sharding = sharding if _is_explicit(own) else own
    if sharding.mesh.empty or AxisType.Manual in sharding.mesh.axis_types:
        return None
    return sharding


def _is_explicit(sharding: NamedSharding) -> bool:
    return AxisType.Explicit in sharding.mesh.axis_types


def _num_parts(sharding: NamedSharding, names: str | tuple[str, ...] | None) -> int:
    names = (names,) if isinstance(names, str) else names or ()
    return math.prod(sharding.mesh.shape[name] for name in names)


def _constrained(leaf: jax.Array, sharding: jax.sharding.Sharding) -> jax.Array:
    if isinstance(leaf, Tracer):
        return lax.with_sharding_constraint(leaf, sharding)
    # Unlike `jax.device_put`, this works between the arrays of several processes.
    return jax.jit(lambda x: x, out_shardings=sharding)(leaf)
