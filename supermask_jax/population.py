"""The member axis: many networks of one shape as one tree with a leading axis `P`.

A population is trained by one compiled program. Members are mapped one by one, which on a
CPU is fastest and makes every member equal, to the bit, to the same network trained alone;
or `batch_size` at a time by `vmap`, for accelerators; and over the devices of a mesh.

Keys of the kinds `rbg` and `unsafe_rbg` are no keys for a population: under `vmap` all members draw
from the first member's key, so that a member differs from the same network alone. Those of JAX's
default kind, and `philox4x32`, do not.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from supermask_jax.checks import (
    check_integer,
    check_shapes,
    check_structure,
    check_unchanged,
    concrete,
    shown,
)
from supermask_jax.paths import PyTree

AXIS = "members"

MemberFn = Callable[..., tuple[PyTree, PyTree]]


def num_members(population: PyTree) -> int:
    """The length P of the leading axis.

    Raises:
      ValueError: if there is no leaf, or if leaves disagree.
    """
    sizes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(population)}
    if len(sizes) != 1 or () in sizes:
        found = ", ".join(sorted(str(list(size)) for size in sizes)) or "no leaf"
        raise ValueError(f"leaves need one common leading axis of members, found {found}.")
    return sizes.pop()[0]


def stack(members: Sequence[PyTree]) -> PyTree:
    """One population from trees of `[...]`: leaves `[P, ...]`.

    Raises:
      ValueError: no member, or trees or shapes that differ; names the member and the leaf.
    """
    _check_alike("member", members)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


def concatenate(populations: Sequence[PyTree]) -> PyTree:
    """One population from several, in order: leaves `[P1 + P2 + ..., ...]`.

    Raises:
      ValueError: no population, or members that differ; names the population and the leaf.
    """
    _check_alike("population", [_one_of(population) for population in populations])
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *populations)


def take(population: PyTree, index: Any) -> PyTree:
    """The members that `index` picks: an int (without the member axis), a slice or an array.

    Raises:
      TypeError: an index of another kind.
      IndexError: outside `jit`, no such member.
    """
    _check_index(population, index)
    return jax.tree.map(lambda leaf: leaf[index], population)


def pad(population: PyTree, multiple: int) -> PyTree:
    """Repeat the last member until P is a multiple of `multiple` (devices times batch size).

    Numpy arrays stay numpy arrays: a population on its way to many devices fills none of them.
    """
    check_integer("multiple", multiple, 1)
    missing = -num_members(population) % multiple
    if not missing:
        return population

    def lengthen(leaf: Any) -> Any:
        on_host = isinstance(leaf, np.ndarray)
        return (np if on_host else jnp).concatenate([leaf, *[leaf[-1:]] * missing])

    return jax.tree.map(lengthen, population)


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of all given devices (by default all there are) along the member axis."""
    devices = jax.devices() if devices is None else devices
    if not len(devices):
        raise ValueError("devices is empty, expected at least one, or None for all.")
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def member_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a population: its member axis over the mesh."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def shard(population: PyTree, mesh: Mesh) -> PyTree:
    """Spread the member axis over the mesh; P must be a multiple of its devices (see `pad`).

    A mesh may reach over many processes, all of which hold the same population and call this.

    Raises:
      ValueError: if P is not such a multiple.
    """
    _check_multiple(num_members(population), mesh.size)
    return _put(population, member_sharding(mesh))


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Put a whole tree, a data set say, on every device of the mesh."""
    return _put(tree, NamedSharding(mesh, PartitionSpec()))


def gather(population: PyTree) -> PyTree:
    """A sharded population as numpy arrays, whole on every process; all of them must ask."""
    if jax.process_count() == 1:
        return jax.device_get(population)
    return multihost_utils.process_allgather(population, tiled=True)


def map_members(
    fn: MemberFn, *, batch_size: int | None = None, mesh: Mesh | None = None
) -> MemberFn:
    """Lift a function of one member to a population.

    Args:
      fn: ``(state, inputs, *shared) -> (state, outputs)`` for one member; like the body of a
        scan, it returns the state in the shapes that it got.
      batch_size: None maps one member after the other, k maps k at a time by `vmap`.
      mesh: spreads the members over devices, without any communication between them.

    Returns:
      The same function for states and inputs with a leading member axis, `shared` as before.
      Under `jit` with a donated state the states are updated in place, held once.

    Raises:
      ValueError: a batch size below 1; when called, if there is no member, if the members are not
        a multiple of devices times batch size, if state and inputs differ in members, or if `fn`
        returns a state of another shape or type.
      TypeError: when called, if `fn` does not return a pair.

    >>> mapped = map_members(lambda state, x, shared: (state + x, state * shared))
    >>> state, outputs = mapped(jnp.array([1.0, 2.0]), jnp.array([10.0, 20.0]), 3.0)
    >>> state.tolist(), outputs.tolist()
    ([11.0, 22.0], [3.0, 6.0])
    """
    if batch_size is not None:
        check_integer("batch_size", batch_size, 1)

    @functools.wraps(fn)
    def mapped(states: PyTree, inputs: PyTree, *shared: PyTree) -> tuple[PyTree, PyTree]:
        members = num_members((states, inputs))
        if not members:
            raise ValueError("the population has no members, expected at least one.")
        _check_multiple(members, (batch_size or 1) * (mesh.size if mesh else 1))
        return run(states, inputs, *shared)

    def local(states: PyTree, inputs: PyTree, *shared: PyTree) -> tuple[PyTree, PyTree]:
        return _in_turn(fn, batch_size, states, inputs, *shared)

    if mesh is None:
        run = local
    else:
        member, everywhere = PartitionSpec(AXIS), PartitionSpec()

        def run(states: PyTree, inputs: PyTree, *shared: PyTree) -> tuple[PyTree, PyTree]:
            return jax.shard_map(
                local,
                mesh=mesh,
                in_specs=(member, member, *[everywhere] * len(shared)),
                out_specs=(member, member),
                check_vma=False,
            )(states, inputs, *shared)

    return mapped


def _check_alike(kind: str, trees: Sequence[PyTree]) -> None:
    if not len(trees):
        raise ValueError(f"there is no {kind}, expected at least one.")
    for place, other in enumerate(trees):
        named = {f"{kind} 0": trees[0], f"{kind} {place}": other}
        check_structure(**named)
        check_shapes(**named)


def _one_of(population: PyTree) -> PyTree:
    """Shapes and types of a member."""
    num_members(population)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), population)


def _check_index(population: PyTree, index: Any) -> None:
    known = None if isinstance(index, slice) else concrete(index)
    if known is None or (known.dtype == bool and known.ndim):
        return
    if isinstance(index, tuple | list) or not jnp.issubdtype(known.dtype, jnp.integer):
        raise TypeError(f"index is {shown(index)}, expected an int, a slice or an array of ints.")
    members = num_members(population)
    if ((known < -members) | (known >= members)).any():
        raise IndexError(f"index is {shown(index)}, but there are {members} members.")


def _check_multiple(members: int, divisor: int) -> None:
    if members % divisor:
        raise ValueError(
            f"{members} members are not a multiple of {divisor} (devices x batch size); "
            "pad them with population.pad."
        )


def _put(tree: PyTree, sharding: NamedSharding) -> PyTree:
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def put(leaf: Any) -> jax.Array:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = put(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        return jax.device_put(jax.device_get(leaf), sharding)

    return jax.tree.map(put, tree)


def _in_turn(
    fn: MemberFn, batch_size: int | None, states: PyTree, inputs: PyTree, *shared: PyTree
) -> tuple[PyTree, PyTree]:
    """Loop over members or batches of members, writing each state where it was read.

    A loop over the stacked states, not `lax.map`, which would hold all of them twice.
    """
    width = batch_size or 1

    def read(tree: PyTree, turn: jax.Array) -> PyTree:
        if batch_size is None:
            return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, turn, keepdims=False), tree)
        return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, turn * width, width), tree)

    def write(tree: PyTree, part: PyTree, turn: jax.Array) -> PyTree:
        update = (
            lax.dynamic_update_index_in_dim
            if batch_size is None
            else lax.dynamic_update_slice_in_dim
        )
        return jax.tree.map(lambda x, p: update(x, p, turn * width, axis=0), tree, part)

    def call(turn: jax.Array, states: PyTree) -> tuple[PyTree, PyTree]:
        one = (read(states, turn), read(inputs, turn))
        if batch_size is None:
            return fn(*one, *shared)
        return jax.vmap(fn, in_axes=(0, 0, *[None] * len(shared)))(*one, *shared)

    def body(turn: jax.Array, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        states, outputs = carry
        state, output = call(turn, states)
        return write(states, state, turn), write(outputs, output, turn)

    members = num_members((states, inputs))
    outcome = jax.eval_shape(call, jnp.int32(0), states)
    if not (isinstance(outcome, tuple) and len(outcome) == 2):
        raise TypeError(f"fn returns {shown(outcome)}, expected a pair (state, outputs).")
    state, output = outcome
    check_unchanged("fn", "state", jax.eval_shape(read, states, jnp.int32(0)), state)
    drop = 0 if batch_size is None else 1
    outputs = jax.tree.map(lambda x: jnp.zeros((members, *x.shape[drop:]), x.dtype), output)
    return lax.fori_loop(0, members // width, body, (states, outputs))
