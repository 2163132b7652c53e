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


def split_axis(leaf: jax.Array, axis: int, size: int) -> jax.Array:
    """Split an axis `[L]` into `[L / size, size]`.

    The axis is gathered if it is explicitly sharded and a device has parts of groups of `size`.
    """
    shape = *leaf.shape[:axis], leaf.shape[axis] // size, size, *leaf.shape[axis + 1 :]
    sharding = _sharding(leaf)
    if sharding is None or not _is_explicit(sharding):
        return leaf.reshape(shape)
    names = list(sharding.spec)
    if shape[axis] % _num_parts(sharding, names[axis]):
        names[axis] = None
        leaf = jax.sharding.reshard(leaf, NamedSharding(sharding.mesh, PartitionSpec(*names)))
    names.insert(axis + 1, None)
    return leaf.reshape(shape, out_sharding=NamedSharding(sharding.mesh, PartitionSpec(*names)))


def join_axis(leaf: jax.Array, axis: int) -> jax.Array:
    """Undo `split_axis`; gathered axes stay so."""
    length = leaf.shape[axis] * leaf.shape[axis + 1]  # -1 would not do for an empty leaf
    return leaf.reshape(*leaf.shape[:axis], length, *leaf.shape[axis + 2 :])


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
