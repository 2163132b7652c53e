"""Groups of members that train side by side, and the compiled programs that train them."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Compiled, Lowered

from experiments import backends
from experiments.engine.arrays import abstract
from experiments.engine.batches import get_batch
from experiments.engine.forecast import count_products, num_bytes
from experiments.engine.objectives import Objective
from experiments.problems.networks import arguments_of
from supermask_jax import population
from supermask_jax.training import Metrics, Stream, Training, TrainState

PyTree = Any


class Group(NamedTuple):
    """The layout of members that train side by side; a population trains group by group.

    Attributes:
      members: the number of members; the last group may have fewer.
      padded: the number after padding with copies of the last member: a multiple of the number of
        devices times `width`.
      mesh: the devices of all processes.
      width: the members that a device trains at once, by `vmap`; None trains them in turn.
      memory: the bytes that training takes on the devices of this process: data, states and
        working memory; on a CPU, also the copy of the states that an autosave makes.
    """

    members: int
    padded: int
    mesh: Mesh
    width: int | None
    memory: int


class Programs(NamedTuple):
    """The compiled programs that train a group.

    Attributes:
      group: the layout of the members.
      init: (start parameters, start model states, step of the start) -> states; all but the step
        `[padded, ...]`.
      run_chunk: (states, streams, first evaluation, data) -> (states, metrics) of one chunk.
      outputs: the shapes and types that `run_chunk` returns.
      run_test: ((), (best, last, context), data) -> ((), test metrics); best and last are pairs of
        parameters and model state.
    """

    group: Group
    init: Callable[[PyTree, PyTree, int], TrainState]
    run_chunk: Compiled
    outputs: tuple[TrainState, Metrics]
    run_test: Callable[..., tuple[tuple, Metrics]]


class Recipe(NamedTuple):
    """Everything that the programs of a group are compiled from.

    Attributes:
      training: the training of one member.
      objective: measures the final test metrics.
      params: shapes and types of one member's parameters.
      model_state: shapes and types of one member's model state; None for networks without state.
      context: shapes and types of one member's context.
      data: shapes and types of ``train``, ``validation``, ``test`` and ``batches``.
      devices: those of all processes.
      members_at_once: the members that a device trains at once: 1 trains them in turn, k by `vmap`,
        and 0 chooses for the devices.
    """

    training: Training
    objective: Objective
    params: PyTree
    model_state: PyTree
    context: Mapping[str, PyTree]
    data: dict[str, PyTree]
    devices: Sequence[Any]
    members_at_once: int

    def mesh(self, members: int) -> Mesh:
        """Return the mesh of devices that train a group: one process uses no more than members."""
        one_process = len({device.process_index for device in self.devices}) == 1
        return population.make_mesh(self.devices[:members] if one_process else self.devices)

    def width(self, members: int) -> int | None:
        """Return the members that a device trains at once in a group; None trains them in turn."""
        mesh = self.mesh(members)
        local = -(-members // mesh.size)
        device = mesh.devices.flat[0]
        if self.members_at_once:
            width = min(self.members_at_once, local)
        else:
            width = backends.members_at_once(device, local, self._member_bytes())
        return None if width == 1 else width

    def compile(self, members: int) -> Programs | None:
        """Compile the programs that train a group.

        Args:
          members: the number of members that train side by side.

        Returns:
          The programs; None if the compiler finds that a device does not hold them.
        """
        mesh, width = self.mesh(members), self.width(members)
        multiple = mesh.size * (width or 1)
        padded = -(-members // multiple) * multiple
        sharded, whole = population.member_sharding(mesh), NamedSharding(mesh, PartitionSpec())
        key = jax.eval_shape(jax.random.key, 0)
        stream = Stream(jax.eval_shape(jnp.int32, 0), key, self.context)
        params, model_state, streams = (
            abstract(tree, sharded, (padded,)) for tree in (self.params, self.model_state, stream)
        )
        data = abstract(self.data, whole)
        first = jax.ShapeDtypeStruct((), np.int32, sharding=whole)

        def mapped(fn: Callable) -> Callable:
            return population.map_members(fn, batch_size=width, mesh=mesh)

        def begin(params: PyTree, model_state: PyTree, step: int) -> TrainState:
            def begin_one(params: PyTree, model_state: PyTree) -> TrainState:
                return self.training.init(params, step, model_state=model_state)

            return jax.vmap(begin_one)(params, model_state)

        init = jax.jit(begin, static_argnums=2, out_shardings=sharded, donate_argnums=0)
        of_shapes = functools.partial(begin, step=0)
        states = abstract(jax.eval_shape(of_shapes, params, model_state), sharded)
        run_chunk = jax.jit(mapped(self.training.run_chunk), donate_argnums=0)
        lowered = run_chunk.lower(states, streams, first, data)
        run_chunk = compile_if_room(lowered)
        if run_chunk is None:
            return None
        end = params, model_state
        ends = end, end, streams.context
        run_test = compile_if_room(jax.jit(mapped(self._test)).lower((), ends, data))
        if run_test is None:
            return None
        memory = len(mesh.local_devices) * memory_of(run_chunk)
        if self.devices[0].platform == "cpu":
            memory += num_bytes(states)
        group = Group(members, padded, mesh, width, memory)
        return Programs(group, init, run_chunk, lowered.out_info, run_test)

    def operations(self, platform: str) -> tuple[float, float]:
        """Count the operations of the products in one training step and in one validation."""
        count = functools.partial(count_products, platform=platform)
        order, step, key = np.int32(0), np.int32(0), jax.random.key(0)
        batch = jax.eval_shape(get_batch, self.data, order, step)
        grad = jax.grad(lambda *arguments: self.objective.loss(*arguments)[0])
        more = arguments_of(self.model_state)
        per_step = count(grad, self.params, batch, key, self.context, *more)
        validation = self.data["validation"]
        measured = self.params, validation, self.context, *more
        per_eval = count(self.objective.measure, *measured)
        return per_step, per_eval

    def _member_bytes(self) -> int:
        """Return the bytes that a step of one member reads and writes, but its model state."""
        state = jax.eval_shape(self.training.init, self.params, model_state=self.model_state)
        # Weights in the context are frozen: a step masks them, which makes as many anew.
        frozen = [x for x in jax.tree.leaves(self.context) if jnp.issubdtype(x.dtype, jnp.floating)]
        return num_bytes((state.params, state.opt_state, self.context, frozen))

    def _test(self, nothing: tuple, ends: tuple[tuple, tuple, Any], data: PyTree):
        best, last, context = ends
        tested = {}
        for prefix, (params, model_state) in (("test", best), ("final_test", last)):
            more = arguments_of(model_state)
            metrics = self.objective.measure(params, data["test"], context, *more)
            tested |= {f"{prefix}_{name}": jnp.float32(x) for name, x in metrics.items()}
        return nothing, tested


def compile_if_room(lowered: Lowered) -> Compiled | None:
    """Compile a program; None if the compiler finds that a device does not hold it."""
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None


def memory_of(program: Compiled) -> int:
    """Return the bytes that a program takes on each device; 0 if XLA does not report them."""
    sizes = program.memory_analysis()
    if sizes is None:
        return 0
    return (
        sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        - sizes.alias_size_in_bytes
        + sizes.temp_size_in_bytes
    )
