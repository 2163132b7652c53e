"""Members that train side by side, and the programs that train them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Compiled

from experiments.engine.arrays import abstract
from experiments.engine.batches import get_batch
from experiments.engine.forecast import count_products, num_bytes
from experiments.engine.objectives import Objective
from supermask_jax import population
from supermask_jax.training import Metrics, Stream, Training, TrainState

PyTree = Any


class Group(NamedTuple):
    """Members that train side by side; a population trains group by group.

    Attributes:
      members: how many; the last group may have fewer.
      padded: the same with repetitions of the last, a multiple of devices times width.
      mesh: the devices, of all processes.
      width: members that a device trains at once by `vmap`; None is one after the other.
      memory: bytes that the training holds on the devices of this process: data, states and
        working memory together, on a CPU also the copy of the states that an autosave saves.
    """

    members: int
    padded: int
    mesh: Mesh
    width: int | None
    memory: int


class Programs(NamedTuple):
    """What trains a group, compiled."""

    group: Group
    init: Callable[[PyTree], TrainState]
    run_chunk: Callable[..., tuple[TrainState, Metrics]]
    outputs: tuple[TrainState, Metrics]  # shapes and types of a chunk's
    run_test: Callable[..., tuple[tuple, Metrics]]


class Recipe(NamedTuple):
    """What the programs of a group are compiled from.

    Attributes:
      training: of one member.
      objective: what it is measured by at the end.
      params: shapes and types of one member's parameters.
      context: shapes and types of one member's context.
      data: shapes and types of ``train``, ``validation``, ``test`` and ``batches``.
      members_at_once: 1 maps members one by one, k by vmap; 0 chooses for the backend.
    """

    training: Training
    objective: Objective
    params: PyTree
    context: Mapping[str, PyTree]
    data: dict[str, PyTree]
    members_at_once: int

    def compile(self, members: int) -> Programs:
        """Compile the training of so many members side by side."""
        mesh, width = share_devices(members, self.members_at_once)
        multiple = mesh.size * (width or 1)
        padded = -(-members // multiple) * multiple
        sharded, whole = population.member_sharding(mesh), NamedSharding(mesh, PartitionSpec())
        key = jax.eval_shape(jax.random.key, 0)
        stream = Stream(jax.eval_shape(jnp.int32, 0), key, self.context)
        params, streams = (abstract(tree, sharded, (padded,)) for tree in (self.params, stream))
        data = abstract(self.data, whole)
        first = jax.ShapeDtypeStruct((), np.int32, sharding=whole)

        def mapped(fn: Callable) -> Callable:
            return population.map_members(fn, batch_size=width, mesh=mesh)

        init = jax.jit(jax.vmap(self.training.init), out_shardings=sharded, donate_argnums=0)
        states = abstract(jax.eval_shape(init, params), sharded)
        run_chunk = jax.jit(mapped(self.training.run_chunk), donate_argnums=0)
        lowered = run_chunk.lower(states, streams, first, data)
        run_chunk = lowered.compile()
        ends = params, params, streams.context
        run_test = jax.jit(mapped(self._test)).lower((), ends, data).compile()
        memory = len(mesh.local_devices) * _memory(run_chunk)
        if jax.default_backend() == "cpu":
            memory += num_bytes(states)
        group = Group(members, padded, mesh, width, memory)
        return Programs(group, init, run_chunk, lowered.out_info, run_test)

    def operations(self) -> tuple[float, float]:
        """Floating-point operations of the products in one step and in one validation."""
        order, step, key = np.int32(0), np.int32(0), jax.random.key(0)
        batch = jax.eval_shape(get_batch, self.data, order, step)
        grad = jax.grad(self.objective.loss, has_aux=True)
        per_step = count_products(grad, self.params, batch, key, self.context)
        validation = self.data["validation"]
        per_eval = count_products(self.objective.measure, self.params, validation, self.context)
        return per_step, per_eval

    def _test(self, nothing: tuple, ends: tuple[PyTree, PyTree, Any], data: PyTree):
        best, last, context = ends
        tested = {}
        for prefix, params in (("test", best), ("final_test", last)):
            metrics = self.objective.measure(params, data["test"], context)
            tested |= {f"{prefix}_{name}": jnp.float32(x) for name, x in metrics.items()}
        return nothing, tested


def share_devices(members: int, members_at_once: int) -> tuple[Mesh, int | None]:
    """The devices of so many members, and how many of them a device trains at once."""
    devices = jax.devices()
    if jax.process_count() == 1:
        devices = devices[:members]
    local = -(-members // len(devices))
    if members_at_once:
        width = min(members_at_once, local)
    else:
        width = 1 if jax.default_backend() == "cpu" else local
    return population.make_mesh(devices), None if width == 1 else width


def _memory(program: Compiled) -> int:
    """Bytes that a compiled program holds on each device while it runs; 0 if XLA does not tell."""
    sizes = program.memory_analysis()
    if sizes is None:
        return 0
    return (
        sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        - sizes.alias_size_in_bytes
        + sizes.temp_size_in_bytes
    )
