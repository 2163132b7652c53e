"""Populations: many networks of one shape as one tree whose leaves have a leading axis `P`.

One compiled program trains a whole population. `map_members` maps the members one by one, which
is fastest on a CPU and gives each member bit for bit the result of training it alone; or
`batch_size` members at a time with `vmap`, for accelerators; and over the devices of a mesh.

Do not use keys of the implementations `rbg` and `unsafe_rbg` with `vmap`: all members would draw
from the key of the first member, unlike the same networks trained alone. JAX's default
implementation and `philox4x32` are safe.
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
from supermask_jax.shardings import sharded_as, whole_first_axis

AXIS = "members"

MemberFn = Callable[..., tuple[PyTree, PyTree]]


def num_members(population: PyTree) -> int:
    """Return the number of members P, the length of the leading axis.

    Args:
      population: leaves `[P, ...]`.

    Raises:
      ValueError: if there is no leaf, or if leaves differ in P.

    Examples:
      >>> num_members({"kernel": jnp.ones((5, 3, 2)), "bias": jnp.ones((5, 2))})
      5
    """
    sizes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(population)}
    if len(sizes) != 1 or () in sizes:
        found = ", ".join(sorted(str(list(size)) for size in sizes)) or "no leaf"
        raise ValueError(f"leaves need one common leading axis of members, found {found}.")
    return sizes.pop()[0]


def stack(members: Sequence[PyTree]) -> PyTree:
    """Stack trees of leaves `[...]` into a population of leaves `[P, ...]`.

    Args:
      members: P trees of one structure and equal shapes.

    Raises:
      ValueError: if there is no member, or if trees or shapes differ; names the member and the
        leaf.

    Examples:
      >>> stack([{"bias": jnp.zeros(2)}, {"bias": jnp.ones(2)}])["bias"].tolist()
      [[0.0, 0.0], [1.0, 1.0]]
    """
    _check_alike("member", members)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


def concatenate(populations: Sequence[PyTree]) -> PyTree:
    """Concatenate populations, in order, into one of leaves `[P1 + P2 + ..., ...]`.

    Args:
      populations: populations whose members have one structure, equal shapes and equal types.

    Raises:
      ValueError: if there is no population, or if members differ; names the population and the
        leaf.

    Examples:
      >>> num_members(concatenate([jnp.ones((2, 3)), jnp.zeros((1, 3))]))
      3
    """
    _check_alike("population", [_one_of(population) for population in populations])
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *populations)


def take(population: PyTree, index: Any) -> PyTree:
    """Select members by index.

    Args:
      population: leaves `[P, ...]`.
      index: an int, which gives one member without the member axis, a slice, or an array of ints
        or bools.

    Returns:
      One member, leaves `[...]`, or a population.

    Raises:
      TypeError: if `index` is of another kind.
      IndexError: outside `jit`, if there is no such member.

    Examples:
      >>> population = {"bias": jnp.array([[1.0], [2.0], [3.0]])}
      >>> take(population, 1)["bias"].tolist(), take(population, slice(2))["bias"].tolist()
      ([2.0], [[1.0], [2.0]])
    """
    _check_index(population, index)
    return jax.tree.map(lambda leaf: whole_first_axis(leaf)[index], population)


def pad(population: PyTree, multiple: int) -> PyTree:
    """Repeat the last member until P is a multiple of `multiple`.

    NumPy arrays stay NumPy arrays, so that a population that is about to be sharded over many
    devices does not have to fit on one of them.

    Args:
      population: leaves `[P, ...]`.
      multiple: usually the number of devices times the batch size.

    Raises:
      ValueError: if `multiple` is below 1.

    Examples:
      >>> pad(np.array([1, 2, 3]), 2).tolist()
      [1, 2, 3, 3]
    """
    check_integer("multiple", multiple, 1)
    missing = -num_members(population) % multiple
    if not missing:
        return population

    def lengthen(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray):
            return np.concatenate([leaf, *[leaf[-1:]] * missing])
        members = whole_first_axis(leaf)
        return sharded_as(jnp.concatenate([members, *[members[-1:]] * missing]), leaf)

    return jax.tree.map(lengthen, population)


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Make a mesh of devices along the member axis, in their order.

    Members do not communicate, so it does not matter which devices are neighbours. Any subset will
    do, unlike with `jax.make_mesh`, whose TPUs must form a whole box.

    Args:
      devices: by default all devices.

    Raises:
      ValueError: if `devices` is empty.

    Examples:
      >>> make_mesh(jax.devices()[:1]).axis_names
      ('members',)
    """
    devices = jax.devices() if devices is None else devices
    if not len(devices):
        raise ValueError("devices is empty, expected at least one, or None for all.")
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def member_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding that splits the member axis over a mesh.

    Args:
      mesh: from `make_mesh`.

    Examples:
      >>> member_sharding(make_mesh(jax.devices()[:1])).spec == PartitionSpec("members")
      True
    """
    return NamedSharding(mesh, PartitionSpec(AXIS))


def shard(population: PyTree, mesh: Mesh) -> PyTree:
    """Shard the member axis over a mesh.

    The mesh may span several processes. All of them must call this function with the same
    population.

    Args:
      population: leaves `[P, ...]`; P must be a multiple of the number of devices (see `pad`).
      mesh: from `make_mesh`.

    Raises:
      ValueError: if P is not a multiple of the number of devices.

    Examples:
      >>> mesh = make_mesh(jax.devices()[:1])
      >>> shard(np.ones((4, 3)), mesh).sharding == member_sharding(mesh)
      True
    """
    _check_multiple(num_members(population), mesh.size)
    return _put(population, member_sharding(mesh))


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Put a copy of a whole tree, such as a data set, on every device of a mesh.

    Args:
      tree: arrays of any shapes.
      mesh: from `make_mesh`.

    Examples:
      >>> replicate(np.ones(3), make_mesh(jax.devices()[:1])).is_fully_replicated
      True
    """
    return _put(tree, NamedSharding(mesh, PartitionSpec()))


def gather(population: PyTree) -> PyTree:
    """Gather a sharded population as NumPy arrays, whole on every process.

    All processes must call this function.

    Args:
      population: leaves `[P, ...]`.

    Examples:
      >>> gather(shard(np.ones((4, 3)), make_mesh(jax.devices()[:1]))).shape
      (4, 3)
    """
    if jax.process_count() == 1:
        return jax.device_get(population)
    return multihost_utils.process_allgather(population, tiled=True)


def map_members(
    fn: MemberFn, *, batch_size: int | None = None, mesh: Mesh | None = None
) -> MemberFn:
    """Lift a function of one member to a function of a population.

    Args:
      fn: `(state, inputs, *shared) -> (state, outputs)` for one member. Like the body of a scan,
        it returns the state with the structure, shapes and types it had.
      batch_size: None maps the members one by one; k maps k members at a time with `vmap`.
      mesh: if given, the members are split over its devices, which do not communicate.

    Returns:
      The same function for states and inputs with a leading member axis; `shared` arguments are
      passed to every member. Under `jit` with a donated state, states are updated in place and
      held in memory once.

    Raises:
      ValueError: if the batch size is below 1. When called: if there is no member, if the number
        of members is not a multiple of devices times batch size, if states and inputs differ in
        members, or if `fn` returns a state of another structure, shape or type.
      TypeError: when called, if `fn` does not return a pair.

    Examples:
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
    """Return the shapes and types of one member."""
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
    """Loop over members, or batches of members, and update the states in place.

    `lax.map` would hold all states twice.
    """

    @functools.partial(jax.jit, inline=True)  # is traced once
    def call(turn: jax.Array, states: PyTree) -> tuple[PyTree, PyTree]:
        part = _read(states, turn, batch_size), _read(inputs, turn, batch_size)
        if batch_size is None:
            return fn(*part, *shared)
        return jax.vmap(fn, in_axes=(0, 0, *[None] * len(shared)))(*part, *shared)

    def body(turn: jax.Array, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        states, outputs = carry
        state, output = call(turn, states)
        return _write(states, state, turn, batch_size), _write(outputs, output, turn, batch_size)

    members = num_members((states, inputs))
    output = _check_outcome(jax.eval_shape(call, 0, states), states, batch_size)
    rest = 0 if batch_size is None else 1
    outputs = jax.tree.map(lambda x: jnp.zeros((members, *x.shape[rest:]), x.dtype), output)
    return lax.fori_loop(0, members // (batch_size or 1), body, (states, outputs))


def _read(tree: PyTree, turn: jax.Array, batch_size: int | None) -> PyTree:
    """Return member number `turn`, or batch number `turn` with its leading axis."""
    if batch_size is None:
        return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, turn, keepdims=False), tree)
    return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, turn * batch_size, batch_size), tree)


def _write(tree: PyTree, part: PyTree, turn: jax.Array, batch_size: int | None) -> PyTree:
    """Replace what `_read` reads."""
    if batch_size is None:
        return jax.tree.map(
            lambda x, p: lax.dynamic_update_index_in_dim(x, p, turn, axis=0), tree, part
        )
    return jax.tree.map(
        lambda x, p: lax.dynamic_update_slice_in_dim(x, p, turn * batch_size, axis=0), tree, part
    )


def _check_outcome(outcome: Any, states: PyTree, batch_size: int | None) -> PyTree:
    """Check the shapes that one call of a member function returns; return those of its outputs."""
    if not (isinstance(outcome, tuple) and len(outcome) == 2):
        raise TypeError(f"fn returns {shown(outcome)}, expected a pair (state, outputs).")
    state, output = outcome
    before = jax.eval_shape(lambda: _read(states, jnp.int32(0), batch_size))
    check_unchanged("fn", "state", before, state)
    return output
