"""Random bits of a part of a vector, drawn where that part lives.

`jax.random.bits` draws a vector whole. The functions here return the same bits for one leaf of a
tree whose leaves are numbered one after the other: in the shape and on the devices of the leaf, and
without temporary arrays.

Examples:
  >>> key = jax.random.key(0)
  >>> whole = jax.random.bits(key, (6,), jnp.uint32)
  >>> bool((random_bits(key, jnp.ones((2, 2)), first=2, total=6) == whole[2:].reshape(2, 2)).all())
  True
"""

import jax
import jax.numpy as jnp

from supermask_jax.trees import Key

# Threefry-2x32 with 20 rounds: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def random_bits(key: Key, like: jax.Array, first: int = 0, total: int | None = None) -> jax.Array:
    """Return the part of `jax.random.bits(key, (total,), jnp.uint32)` that belongs to a leaf.

    Bits of a threefry key, which is the default, are computed place by place. Those of any other
    kind of key are drawn whole, on every device.

    Args:
      key: a typed key.
      like: the leaf `[...]`.
      first: the number of the first element of the leaf.
      total: the length of the whole vector; by default, that of the leaf.

    Returns:
      uint32 `[...]`, sharded as the leaf.
    """
    if jax.random.key_impl(key) == "threefry2x32" and jax.threefry_partitionable.value:
        return _threefry(jax.random.key_data(key), places(like, first))
    total = like.size if total is None else total
    whole = jax.random.bits(key, (total,), jnp.uint32)
    return whole[first : first + like.size].reshape(like.shape)


def places(like: jax.Array, first: int = 0) -> jax.Array:
    """Number the elements of a leaf in order, from `first` on: uint32 `[...]`, sharded as the leaf.

    Examples:
      >>> places(jnp.ones((2, 3)), first=4).tolist()
      [[4, 5, 6], [7, 8, 9]]
    """
    place, stride = jnp.full_like(like, first, jnp.uint32), 1
    for axis in reversed(range(like.ndim)):
        length = like.shape[axis]
        along = jnp.arange(length, dtype=jnp.uint32) * jnp.uint32(stride)
        place += along.reshape(-1, *[1] * (like.ndim - 1 - axis))
        stride *= length
    return place


def _threefry(key_data: jax.Array, low: jax.Array) -> jax.Array:
    """Return the bits that JAX draws at counters of 64 bits whose high half is 0."""
    words = key_data[0], key_data[1], key_data[0] ^ key_data[1] ^ jnp.uint32(PARITY)
    x, y = words[0], low + words[1]
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            x = x + y
            y = ((y << rotation) | (y >> (32 - rotation))) ^ x
        x = x + words[(group + 1) % 3]
        y = y + words[(group + 2) % 3] + jnp.uint32(group + 1)
    return x ^ y
