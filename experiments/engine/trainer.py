"""Training of a population on a data set that is entirely on the devices."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from experiments import processes
from experiments.engine.arrays import abstract, empty, write
from experiments.engine.batches import batch_table, eval_data, get_batch, train_data
from experiments.engine.forecast import (
    Forecast,
    available_memory,
    check_fits,
    main_memory_limit,
    num_bytes,
    product_speed,
)
from experiments.engine.groups import Group, Programs, Recipe
from experiments.engine.objectives import Objective, classification
from experiments.problems.networks import arguments_of
from experiments.problems.problem import Problem
from experiments.storage.autosave import Autosave
from supermask_jax import population
from supermask_jax.training import Metrics, Stream, Training, make_training

PyTree = Any

# Bytes of main memory that one evaluation of one member takes: in its curves, and in the table that
# is made of them.
EVALUATION_BYTES = 200


class Advance(Protocol):
    """A function that counts member-steps, for a progress bar."""

    def __call__(self, member_steps: int, /, *, before: bool = False) -> None:
        """Count the member-steps done since the last call.

        Args:
          member_steps: their number; 0 where a training begins.
          before: they were done before the run was resumed.
        """
        ...


class Snapshot(NamedTuple):
    """The parameters and the model state at a step, `[P, ...]` per leaf."""

    params: PyTree
    model_state: PyTree


class Trained(NamedTuple):
    """A trained population of P members, as NumPy arrays.

    Attributes:
      params: the parameters of the last step, or the best ones; `[P, ...]` per leaf.
      table: arrays `[P]`: early_stop_step; for every metric NAME of the objective, validation_NAME
        and test_NAME at the evaluation with the lowest validation loss; and final_test_NAME at the
        last step. All but early_stop_step are NaN for a member that diverged, that is, whose
        `params` or model state are not finite.
      curves: arrays `[P, E]`, one entry per evaluation.
      model_state: the state of the network that goes with `params`, `[P, ...]` per leaf; None for a
        network without state.
      snapshot: what there was at `Schedule.snapshot_step`; None if the training does not pass it.
    """

    params: PyTree
    table: dict[str, np.ndarray]
    curves: dict[str, np.ndarray]
    model_state: PyTree = None
    snapshot: Snapshot | None = None


class Schedule(NamedTuple):
    """The length of a training and the intervals of its evaluations and chunks.

    Attributes:
      num_steps: the number of steps.
      eval_every: steps between validations.
      chunk_evals: validations per chunk; progress is reported at chunk boundaries.
      snapshot_step: the step, on the grid of evaluations, whose parameters are kept besides; 0 for
        none. Chunks are cut so that one ends there.
    """

    num_steps: int
    eval_every: int
    chunk_evals: int
    snapshot_step: int = 0

    @property
    def steps_of_evals(self) -> np.ndarray:
        """The step of every evaluation, int `[E]`."""
        ends = np.arange(-(-self.num_steps // self.eval_every) + 1) * self.eval_every
        return np.minimum(ends, self.num_steps)


class Trainer:
    """Trains populations of any size on one problem, compiling once per size.

    Args:
      problem: the network and the data set.
      optimizer: from optax; it gets the context of each member as extra arguments.
      schedule: the schedule of every training.
      context: shapes and types of one member's context.
      num_orders: the number of orders of batches, one per seed.
      members_at_once: the members that a device trains at once: 1 trains them in turn, k by `vmap`,
        and 0 chooses for the devices.
      objective: by default `classification`.
      keep_best: return the parameters with the lowest validation loss instead of the last ones.
    """

    def __init__(
        self,
        problem: Problem,
        optimizer: optax.GradientTransformation,
        schedule: Schedule,
        *,
        context: Mapping[str, PyTree],
        num_orders: int,
        members_at_once: int,
        objective: Objective | None = None,
        keep_best: bool = False,
    ) -> None:
        dataset, params, model_state = problem.dataset, problem.params, problem.model_state
        objective = objective or classification(problem)
        self._keep_best = keep_best
        self._training = _make_training(objective, optimizer, schedule)
        evaluated = eval_data(problem.network.apply, params, dataset, *arguments_of(model_state))
        self._data = {"train": train_data(dataset.train), **evaluated}
        self._place_data = functools.lru_cache(maxsize=1)(
            functools.partial(population.replicate, self._data)
        )
        table = functools.partial(
            batch_table,
            num_examples=len(dataset.train.labels),
            num_steps=schedule.num_steps,
            batch_size=problem.batch_size,
        )
        self._make_batches = jax.jit(table)
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), num_orders))
        data = self._data | {"batches": jax.eval_shape(table, keys)}
        self._recipe = Recipe(
            self._training,
            objective,
            params,
            model_state,
            context,
            abstract(data),
            problem.devices,
            members_at_once,
        )
        self._programs: dict[int, Programs] = {}
        self._schedule = schedule

    @property
    def platform(self) -> str:
        """The kind of the devices: cpu, gpu or tpu."""
        return self._recipe.devices[0].platform

    def budget(self, max_memory: float | None) -> float:
        """Return a memory limit in bytes; None gives what is free on the devices now."""
        return available_memory(self._recipe.devices) if max_memory is None else max_memory

    def products(self, platform: str) -> tuple[float, float]:
        """Count the operations of the products in one member's training step and validation.

        Args:
          platform: of the devices, or of others that they would be counted for.
        """
        return self._recipe.operations(platform)

    def operations(self, platform: str) -> float:
        """Count the operations of the products in one member's training; see `products`."""
        per_step, per_eval = self.products(platform)
        return self.eval_steps[-1] * per_step + len(self.eval_steps) * per_eval

    @property
    def chunk(self) -> tuple[int, int]:
        """The validations of a chunk, and the steps from one to the next."""
        return self._training.chunk_evals, self._schedule.eval_every

    @functools.cached_property
    def eval_steps(self) -> np.ndarray:
        """The step of every evaluation, int `[E]`."""
        return self._schedule.steps_of_evals

    def check_memory(self, members: int, max_memory: float = math.inf, held: float = 0) -> float:
        """Check that main memory holds what grows with the steps of P members; compile nothing.

        Args:
          members: P.
          max_memory: the memory limit in bytes, for all devices of this process.
          held: bytes of other arrays in main memory during the training.

        Returns:
          The part of `max_memory` that is taken, because on a CPU devices share main memory.

        Raises:
          MemoryError: if they do not fit.
        """
        steps, evals = self._schedule.num_steps, self._training.num_evals
        orders = self._recipe.data["batches"]
        table = num_bytes(orders) * (1 + 1 / orders.shape[0])  # one is made, then kept
        needed = held + table + evals * members * EVALUATION_BYTES
        what = f"the batches of {steps} steps, {evals} evaluations and {members} members"
        check_fits(what, needed, main_memory_limit(max_memory, self.platform))
        return needed if self.platform == "cpu" else 0.0

    def prepare(self, members: int, max_memory: float = math.inf, held: float = 0) -> Group:
        """Compile the training of P members, in the largest groups that fit into memory.

        The groups tried have all members, a half, a quarter, and so on. Programs compiled earlier
        are reused if they fit.

        Args:
          members: P.
          max_memory: the memory limit in bytes, for all devices of this process.
          held: bytes of other arrays in main memory during the training.

        Returns:
          The layout of a group.

        Raises:
          MemoryError: if the smallest group does not fit.
        """
        shared = self.check_memory(members, max_memory, held)
        return self.fit(members, processes.least(max_memory), shared).group

    def fit(self, members: int, max_memory: float, shared: float = 0) -> Programs:
        """Compile the training of P members for devices, in the largest groups that they hold.

        Args:
          members: P.
          max_memory: the memory limit in bytes, for all devices of this process.
          shared: the part of it that is taken.

        Raises:
          MemoryError: if the smallest group does not fit.
        """
        known = self._programs.get(members)
        count = known.group.members if known else members
        while True:
            programs = known or self._recipe.compile(count)
            mesh = self._recipe.mesh(count)
            limit = max_memory * self._share(mesh)
            if programs and programs.group.memory + shared <= limit:
                self._programs[members] = programs
                return programs
            if count <= mesh.size:
                what = f"the states of {mesh.size} members at a time"
                if programs is None:
                    raise MemoryError(f"{what} take more memory than the devices have.")
                check_fits(what, programs.group.memory + shared, limit)
            known, count = None, -(-count // 2)

    def _share(self, mesh: Mesh) -> float:
        """Return the part of the memory of a process's devices that those of a mesh have."""
        if self.platform == "cpu":
            return 1.0  # they share main memory
        own = mesh.local_devices[0].process_index
        local = [device for device in self._recipe.devices if device.process_index == own]
        return len(mesh.local_devices) / len(local)

    def forecast(
        self,
        populations: Mapping[int, int],
        held: int,
        max_memory: float | None,
        member_steps: int | None = None,
    ) -> Forecast:
        """Compile the trainings of a sweep and forecast their memory and time.

        Args:
          populations: numbers of members, and how many trainings have each.
          held: bytes of other arrays in main memory during a training.
          max_memory: the memory limit of this process in bytes; None for what is free now.
          member_steps: the steps of all members, if some trainings start late.

        Raises:
          MemoryError: if the smallest group does not fit.
        """
        budget = self.budget(max_memory)
        largest_first = sorted(populations, reverse=True)
        groups = {size: self.prepare(size, budget, held) for size in largest_first}
        shared = max(self.check_memory(size, budget, held) for size in populations)
        group = groups[max(groups)]
        num_steps = self._schedule.num_steps
        if member_steps is None:
            member_steps = num_steps * sum(size * count for size, count in populations.items())
        return Forecast(
            members=max(groups),
            rounds=sum(populations.values()),
            side_by_side=min(max(groups), group.members),
            devices=group.mesh.size,
            memory=shared + max(group.memory for group in groups.values()),
            budget=budget,
            flops=member_steps / num_steps * self.operations(self.platform),
            speed=product_speed(group.mesh),
        )

    def train(
        self,
        start_params: Callable[[slice], PyTree],
        streams: Stream,
        batch_keys: jax.Array,
        advance: Advance = lambda steps, before=False: None,
        autosave: Autosave | None = None,
        keep_end: bool = False,
        first_step: int = 0,
        model_state: PyTree = None,
    ) -> Trained:
        """Train P members to the last step, resuming from an autosave if there is one.

        Training may start late; batches, random keys and schedules are then those of the later
        steps, and all other state of the optimizer starts afresh, see `training.Init`.

        Args:
          start_params: returns the start parameters of a slice of p members, `[p, ...]` per leaf.
          streams: `[P]`; ``batches`` holds indices into `batch_keys`.
          batch_keys: keys `[S]`, one per order of batches.
          advance: called with the progress at every chunk boundary.
          autosave: saves the training in progress; None does not save it.
          keep_end: always autosave the final state, because more work precedes the checkpoint.
          first_step: the step of the start parameters, on the grid of evaluations.
          model_state: the start states of networks with state, `[P, ...]` per leaf.

        Raises:
          Stopped: if a signal asked for a stop; the state is on disk.
        """
        members = population.num_members(streams)
        if members not in self._programs:
            self.prepare(members)
        programs = self._programs[members]
        mesh, size = programs.group.mesh, programs.group.members
        batches = population.replicate(jax.device_get(self._make_batches(batch_keys)), mesh)
        data = self._place_data(mesh) | {"batches": batches}

        def train_group(chosen: slice) -> Trained:
            own = population.take(streams, chosen)
            name, count = _group_name(chosen), chosen.stop - chosen.start

            def start() -> tuple[PyTree, PyTree]:
                return start_params(chosen), population.take(model_state, chosen)

            def load() -> tuple[int, PyTree] | None:
                like = self._under_way(programs, count, first_step)
                return autosave.load(name, like) if autosave else None

            def keep(done: int, make_tree: Callable[[], PyTree]) -> None:
                if autosave:
                    last = done == len(self.eval_steps)
                    more = keep_end or size < members
                    autosave.save_if_due(name, done, make_tree, due=last and more)

            return self._train_group(programs, start, own, data, advance, load, keep, first_step)

        groups = [slice(i, min(i + size, members)) for i in range(0, members, size)]
        if autosave:
            autosave.expect([_group_name(chosen) for chosen in groups])
        first = train_group(groups[0])
        if len(groups) == 1:
            return first
        whole = empty(abstract(population.take(first, 0), leading=(members,)))
        write(whole, groups[0], first)
        for chosen in groups[1:]:
            write(whole, chosen, train_group(chosen))
        return whole

    def _train_group(
        self,
        programs: Programs,
        start: Callable[[], tuple[PyTree, PyTree]],
        streams: Stream,
        data: PyTree,
        advance: Advance,
        load: Callable[[], tuple[int, PyTree] | None],
        keep: Callable[[int, Callable[[], PyTree]], None],
        first_step: int,
    ) -> Trained:
        members = population.num_members(streams)
        mesh, num_evals = programs.group.mesh, len(self.eval_steps)
        begin, snapshot_at = self._evaluations_until(first_step), self._snapshot_at(first_step)

        def place(tree: PyTree) -> PyTree:
            return population.shard(population.pad(tree, programs.group.padded), mesh)

        def gather(tree: PyTree) -> PyTree:
            return population.take(population.gather(tree), slice(members))

        streams = place(streams)
        if under_way := load():
            done, saved = under_way
            states, curves = place(saved["states"]), saved["curves"]
            snapshot = saved.get("snapshot")
            advance(members * (self._steps_until(done) - first_step), before=True)
            del saved, under_way
        else:
            params, model_state = place(start())
            done, states = begin, programs.init(params, model_state, first_step)
            del params, model_state
            curves = jax.tree.map(
                lambda x: np.full(x.shape, np.nan, x.dtype), self._curves(programs, members)
            )
            snapshot = gather(Snapshot(states.params, states.model_state)) if snapshot_at else None
        advance(0)
        for first in range(done, num_evals, self._training.chunk_evals):
            number = population.replicate(np.int32(first), mesh)
            states, metrics = programs.run_chunk(states, streams, number, data)
            stop = min(first + self._training.chunk_evals, num_evals)
            for name, values in population.gather(metrics).items():
                curves[name][:, first:stop] = values[:members, : stop - first]
                if stop == num_evals and name.startswith("train_"):
                    curves[name][:, -1] = np.nan  # no steps follow the last evaluation
            advance(members * (self._steps_until(stop) - self._steps_until(first)))
            if stop == snapshot_at:
                snapshot = gather(Snapshot(states.params, states.model_state))
            more = {"snapshot": snapshot} if snapshot_at else {}
            keep(
                stop, lambda now=states, more=more: {"states": gather(now), "curves": curves} | more
            )
        best = states.best_params, states.best_model_state
        last = states.params, states.model_state
        tested = programs.run_test((), (best, last, streams.context), data)[1]
        kept = best if self._keep_best else last, states.best_step
        del states, best, last
        end, best_step, tested = gather((*kept, tested))
        found = self._finish(end, best_step, tested, curves)
        curves = {name: values[:, begin:] for name, values in curves.items()}
        return found._replace(curves=curves, snapshot=snapshot)

    def _finish(
        self, end: tuple[PyTree, PyTree], best_step: np.ndarray, tested: Metrics, curves: dict
    ) -> Trained:
        best = np.arange(len(best_step)), np.searchsorted(self.eval_steps, best_step)
        measured = tested | {
            name: values[best] for name, values in curves.items() if name.startswith("validation_")
        }
        finite = _all_finite(end)
        table = {name: np.where(finite, x, np.float32(np.nan)) for name, x in measured.items()}
        params, model_state = end
        return Trained(params, {"early_stop_step": best_step, **table}, curves, model_state)

    def _under_way(self, programs: Programs, members: int, first_step: int) -> PyTree:
        """Return the shapes and types of a group's autosave: its members without padding."""
        states, _ = programs.outputs
        states = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((members, *x.shape[1:]), x.dtype), states
        )
        snapshot = Snapshot(states.params, states.model_state)
        more = {"snapshot": snapshot} if self._snapshot_at(first_step) else {}
        return {"states": states, "curves": self._curves(programs, members)} | more

    def _snapshot_at(self, first_step: int) -> int:
        """Return how many evaluations are done at the snapshot; 0 if training does not pass it."""
        step = self._schedule.snapshot_step
        return self._evaluations_until(step) if step > first_step else 0

    def _evaluations_until(self, step: int) -> int:
        """Return the number of evaluations before the one at a step of their grid."""
        return int(np.searchsorted(self.eval_steps, step))

    def _curves(self, programs: Programs, members: int) -> dict[str, jax.ShapeDtypeStruct]:
        _, metrics = programs.outputs
        shape = members, len(self.eval_steps)
        return {name: jax.ShapeDtypeStruct(shape, x.dtype) for name, x in metrics.items()}

    def _steps_until(self, done: int) -> int:
        """Return the number of steps done after `done` evaluations and the steps that follow."""
        return int(self.eval_steps[min(done, len(self.eval_steps) - 1)])


def _make_training(
    objective: Objective, optimizer: optax.GradientTransformation, schedule: Schedule
) -> Training:
    evals_before = schedule.snapshot_step // schedule.eval_every

    def validate(
        params: PyTree, data: PyTree, context: Mapping[str, PyTree], *model_state: PyTree
    ) -> Metrics:
        return objective.measure(params, data["validation"], context, *model_state)

    return make_training(
        objective.loss,
        validate,
        optimizer,
        get_batch,
        num_steps=schedule.num_steps,
        eval_every=schedule.eval_every,
        chunk_evals=math.gcd(schedule.chunk_evals, evals_before),
    )


def _all_finite(end: tuple[PyTree, PyTree]) -> np.ndarray:
    """Return for each member whether its parameters and its model state are finite, bool `[P]`."""
    leaves = [np.isfinite(x).reshape(len(x), -1).all(axis=1) for x in jax.tree.leaves(end)]
    return np.all(leaves, axis=0)


def _group_name(members: slice) -> str:
    return f"members_{members.start}_to_{members.stop}"
