"""Training of a population on a data set that lives on the devices whole."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Compiled

from experiments import processes
from experiments.datasets import Dataset, Split
from experiments.engine.forecast import (
    Forecast,
    available_memory,
    count_products,
    largest_value,
    num_bytes,
    product_speed,
)
from experiments.storage.autosave import Autosave
from supermask_jax import population
from supermask_jax.training import Loss, Metrics, Stream, TrainState, make_training

PyTree = Any
Apply = Callable[[PyTree, jax.Array], jax.Array]

EVAL_BATCH = 1000  # images, fewer if their largest layer took more than
EVAL_BYTES = 2**25


class Advance(Protocol):
    """Told of the member-steps done since the last call."""

    def __call__(self, member_steps: int, /, *, before: bool = False) -> None:
        """Count them; `before`: they were done by an earlier process."""
        ...


class Objective(NamedTuple):
    """What a population is trained and measured by.

    Attributes:
      loss: of a batch ``{"images", "labels"}``.
      measure: ``(params, split, context) -> metrics`` with at least loss and accuracy, over a
        split made by `eval_batches`.
    """

    loss: Loss
    measure: Callable[[PyTree, PyTree, Mapping[str, PyTree]], Metrics]


class Trained(NamedTuple):
    """A trained population of P members, as numpy arrays.

    Attributes:
      params: the last step's parameters, or the best, leaves `[P, ...]`.
      table: `[P]` each: early_stop_step, and for every metric of the objective validation_NAME and
        test_NAME at the evaluation with the lowest validation loss, final_test_NAME at the last
        step; all but the first are NaN for a member that diverged, whose parameters are not finite.
      curves: `[P, E]` each, one entry per evaluation.
    """

    params: PyTree
    table: dict[str, np.ndarray]
    curves: dict[str, np.ndarray]


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


class Trainer:
    """Trains populations of any size on one data set, compiling once per size.

    Args:
      apply: ``(params, images) -> logits``.
      dataset: train, validation and test.
      optimizer: from optax; gets the members' context as extra arguments.
      params: shapes and types of one member's parameters.
      context: shapes and types of one member's context.
      num_orders: orders of batches, one per seed.
      num_steps: steps of a training.
      batch_size: images per step.
      eval_every: steps between validations.
      chunk_evals: validations between two reports of progress.
      members_at_once: 1 maps members one by one, k by vmap; 0 chooses for the backend.
      objective: by default that of `classification`.
      keep_best: return the parameters with the lowest validation loss, not the last.
    """

    def __init__(
        self,
        apply: Apply,
        dataset: Dataset,
        optimizer: optax.GradientTransformation,
        *,
        params: PyTree,
        context: Mapping[str, PyTree],
        num_orders: int,
        num_steps: int,
        batch_size: int,
        eval_every: int,
        chunk_evals: int,
        members_at_once: int,
        objective: Objective | None = None,
        keep_best: bool = False,
    ) -> None:
        self._objective = objective or classification(apply)
        self._keep_best = keep_best
        self._params = params
        self._context = context
        self._members_at_once = members_at_once
        self._training = make_training(
            self._objective.loss,
            lambda params, data, context: self._objective.measure(
                params, data["validation"], context
            ),
            optimizer,
            get_batch,
            num_steps=num_steps,
            eval_every=eval_every,
            chunk_evals=chunk_evals,
        )
        self._data: dict[str, PyTree] = {
            "train": dataset.train._asdict(),
            **eval_data(apply, params, dataset),
        }
        num_examples = len(dataset.train.labels)
        self._make_batches = jax.jit(
            functools.partial(
                batch_table,
                num_examples=num_examples,
                num_steps=num_steps,
                batch_size=batch_size,
            )
        )
        table = num_orders, num_steps, batch_size
        self._batches = jax.ShapeDtypeStruct(table, _index_type(num_examples))
        place = functools.partial(population.replicate, self._data)
        self._place_data = functools.lru_cache(maxsize=1)(place)
        self._programs: dict[int, Programs] = {}
        ends = np.arange(self._training.num_evals) * eval_every
        self.eval_steps = np.minimum(ends, num_steps)

    def prepare(self, members: int, max_memory: float = math.inf) -> Group:
        """Compile the training of P members: all, or else half, a quarter, ... as many at a time.

        What is compiled already is used again if it fits.

        Args:
          members: P.
          max_memory: bytes on all devices of this process.

        Raises:
          MemoryError: if the smallest group does not fit.
        """
        max_memory = processes.least(max_memory)
        programs = self._programs.get(members) or self._compile(members)
        count = programs.group.members
        while programs.group.memory > max_memory:
            if count <= programs.group.mesh.size:
                raise MemoryError(
                    f"training {programs.group.padded} at a time takes "
                    f"{programs.group.memory / 1e9:.2f} GB of memory, and "
                    f"{max(max_memory, 0) / 1e9:.2f} GB are left for it; raise --max_memory."
                )
            count = -(-count // 2)
            programs = self._compile(count)
        self._programs[members] = programs
        return programs.group

    def forecast(self, populations: Sequence[int], held: int, max_memory: float | None) -> Forecast:
        """Compile trainings to come and say what they will take.

        Args:
          populations: the members of every training.
          held: bytes that wait in main memory meanwhile.
          max_memory: bytes that this process may take; None is what is free now.

        Raises:
          MemoryError: if what is allowed does not suffice.
        """
        budget = available_memory() if max_memory is None else max_memory
        on_host = held if jax.default_backend() == "cpu" else 0
        groups = {size: self.prepare(size, budget - on_host) for size in set(populations)}
        group = groups[max(groups)]
        return Forecast(
            members=max(groups),
            rounds=len(populations),
            side_by_side=min(max(groups), group.members),
            devices=group.mesh.size,
            memory=on_host + max(group.memory for group in groups.values()),
            budget=budget,
            flops=sum(populations) * self.operations(),
            speed=product_speed(group.mesh),
        )

    def operations(self) -> float:
        """Floating-point operations of the products in one member's training."""
        data = self._data | {"batches": self._batches}
        order, step, key = np.int32(0), np.int32(0), jax.random.key(0)
        batch = jax.eval_shape(get_batch, data, order, step)
        grad = jax.grad(self._objective.loss, has_aux=True)
        per_step = count_products(grad, self._params, batch, key, self._context)
        per_eval = count_products(
            self._objective.measure, self._params, data["validation"], self._context
        )
        _, num_steps, _ = self._batches.shape
        return num_steps * per_step + len(self.eval_steps) * per_eval

    def train(
        self,
        start_params: Callable[[slice], PyTree],
        streams: Stream,
        batch_keys: jax.Array,
        advance: Advance = lambda steps, before=False: None,
        autosave: Autosave | None = None,
        keep_end: bool = False,
    ) -> Trained:
        """Train P members to the last step, from where an autosave has them.

        Args:
          start_params: gives the start parameters of a slice of the members, leaves `[p, ...]`.
          streams: `[P]`; ``batches`` are places in `batch_keys`.
          batch_keys: one key `[S]` per order of batches.
          advance: told of progress; by default nobody is.
          autosave: saves the training under way; by default nobody does.
          keep_end: have its end saved in any case, for more is to come before it is of no use.

        Raises:
          Stopped: if the autosave is asked to stop.
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

            def load() -> tuple[int, PyTree] | None:
                return autosave.load(name, self._under_way(programs, count)) if autosave else None

            def keep(done: int, make_tree: Callable[[], PyTree]) -> None:
                if autosave:
                    last = done == len(self.eval_steps)
                    more = keep_end or size < members
                    autosave.save_if_due(name, done, make_tree, due=last and more)

            return self._train_group(
                programs, lambda: start_params(chosen), own, data, advance, load, keep
            )

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
        start_params: Callable[[], PyTree],
        streams: Stream,
        data: PyTree,
        advance: Advance,
        load: Callable[[], tuple[int, PyTree] | None],
        keep: Callable[[int, Callable[[], PyTree]], None],
    ) -> Trained:
        members = population.num_members(streams)
        mesh, num_evals = programs.group.mesh, len(self.eval_steps)

        def place(tree: PyTree) -> PyTree:
            return population.shard(population.pad(tree, programs.group.padded), mesh)

        def gather(tree: PyTree) -> PyTree:
            return population.take(population.gather(tree), slice(members))

        streams = place(streams)
        if under_way := load():
            done, saved = under_way
            states, curves = place(saved["states"]), saved["curves"]
            advance(members * self._steps_until(done), before=True)
            del saved, under_way
        else:
            done, states = 0, programs.init(place(start_params()))
            curves = jax.tree.map(
                lambda x: np.full(x.shape, np.nan, x.dtype), self._curves(programs, members)
            )
        for first in range(done, num_evals, self._training.chunk_evals):
            start = population.replicate(np.int32(first), mesh)
            states, metrics = programs.run_chunk(states, streams, start, data)
            stop = min(first + self._training.chunk_evals, num_evals)
            for name, values in population.gather(metrics).items():
                curves[name][:, first:stop] = values[:members, : stop - first]
                if stop == num_evals and name.startswith("train_"):
                    curves[name][:, -1] = np.nan  # no steps follow the last evaluation
            advance(members * (self._steps_until(stop) - self._steps_until(first)))
            keep(stop, lambda now=states: {"states": gather(now), "curves": curves})
        ends = states.best_params, states.params, streams.context
        tested = programs.run_test((), ends, data)[1]
        last = states.best_params if self._keep_best else states.params, states.best_step
        del states
        params, best_step, tested = gather((*last, tested))
        return self._finish(params, best_step, tested, curves)

    def _finish(
        self, params: PyTree, best_step: np.ndarray, tested: Metrics, curves: dict
    ) -> Trained:
        best = np.arange(len(best_step)), np.searchsorted(self.eval_steps, best_step)
        measured = tested | {
            name: values[best] for name, values in curves.items() if name.startswith("validation_")
        }
        finite = _all_finite(params)
        table = {name: np.where(finite, x, np.float32(np.nan)) for name, x in measured.items()}
        return Trained(params, {"early_stop_step": best_step, **table}, curves)

    def _share(self, members: int) -> tuple[Mesh, int | None]:
        """The devices of so many members, and how many of them a device trains at once."""
        devices = jax.devices()
        if jax.process_count() == 1:
            devices = devices[:members]
        local = -(-members // len(devices))
        if self._members_at_once:
            width = min(self._members_at_once, local)
        else:
            width = 1 if jax.default_backend() == "cpu" else local
        return population.make_mesh(devices), None if width == 1 else width

    def _compile(self, members: int) -> Programs:
        mesh, width = self._share(members)
        multiple = mesh.size * (width or 1)
        padded = -(-members // multiple) * multiple
        sharded, whole = population.member_sharding(mesh), NamedSharding(mesh, PartitionSpec())
        key = jax.eval_shape(jax.random.key, 0)
        stream = Stream(jax.eval_shape(jnp.int32, 0), key, self._context)
        params, streams = (abstract(tree, sharded, (padded,)) for tree in (self._params, stream))
        data = abstract(self._data | {"batches": self._batches}, whole)
        first = jax.ShapeDtypeStruct((), np.int32, sharding=whole)

        def mapped(fn: Callable) -> Callable:
            return population.map_members(fn, batch_size=width, mesh=mesh)

        init = jax.jit(jax.vmap(self._training.init), out_shardings=sharded, donate_argnums=0)
        states = abstract(jax.eval_shape(init, params), sharded)
        run_chunk = jax.jit(mapped(self._training.run_chunk), donate_argnums=0)
        lowered = run_chunk.lower(states, streams, first, data)
        run_chunk = lowered.compile()
        ends = params, params, streams.context
        run_test = jax.jit(mapped(self._test)).lower((), ends, data).compile()
        memory = len(mesh.local_devices) * _memory(run_chunk)
        if jax.default_backend() == "cpu":
            memory += num_bytes(states)
        group = Group(members, padded, mesh, width, memory)
        return Programs(group, init, run_chunk, lowered.out_info, run_test)

    def _test(self, nothing: tuple, ends: tuple[PyTree, PyTree, Any], data: PyTree):
        best, last, context = ends
        tested = {}
        for prefix, params in (("test", best), ("final_test", last)):
            metrics = self._objective.measure(params, data["test"], context)
            tested |= {f"{prefix}_{name}": jnp.float32(x) for name, x in metrics.items()}
        return nothing, tested

    def _under_way(self, programs: Programs, members: int) -> PyTree:
        """Shapes and types of what an autosave saves of a group, without padding."""
        states, _ = programs.outputs
        states = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((members, *x.shape[1:]), x.dtype), states
        )
        return {"states": states, "curves": self._curves(programs, members)}

    def _curves(self, programs: Programs, members: int) -> dict[str, jax.ShapeDtypeStruct]:
        _, metrics = programs.outputs
        shape = members, len(self.eval_steps)
        return {name: jax.ShapeDtypeStruct(shape, x.dtype) for name, x in metrics.items()}

    def _steps_until(self, done: int) -> int:
        """Steps of a training after so many evaluations, each followed by its steps."""
        return int(self.eval_steps[min(done, len(self.eval_steps) - 1)])


def classification(apply: Apply) -> Objective:
    """Mean softmax cross-entropy and accuracy of the network itself."""
    return Objective(make_loss(apply), lambda params, split, context: measure(apply, params, split))


def make_loss(apply: Apply) -> Loss:
    """Mean softmax cross-entropy of a batch ``{"images", "labels"}``, with the accuracy."""

    def loss(params: PyTree, batch: PyTree, key: jax.Array, context: Any, /):
        logits = apply(params, normalise(batch["images"]))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])
        return jnp.mean(losses), {"accuracy": _accuracy(logits, batch["labels"])}

    return loss


def measure(apply: Apply, params: PyTree, split: PyTree) -> Metrics:
    """Mean loss and accuracy over a split made by `eval_batches`."""
    loss = make_loss(apply)
    unused = jax.random.key(0)

    def add(total: Metrics, batch: PyTree) -> tuple[Metrics, None]:
        value, metrics = loss(params, batch, unused, {})
        return jax.tree.map(jnp.add, total, {"loss": value, **metrics}), None

    zeros = {"loss": jnp.float32(0), "accuracy": jnp.float32(0)}
    total, _ = lax.scan(add, zeros, split)
    return jax.tree.map(lambda x: x / len(split["labels"]), total)


def get_batch(data: PyTree, order: jax.Array, step: jax.Array) -> PyTree:
    """The training images and labels of a step of one order of batches."""
    chosen = data["batches"][order, step]
    return jax.tree.map(lambda x: x[chosen], data["train"])


def batch_table(
    keys: jax.Array, *, num_examples: int, num_steps: int, batch_size: int
) -> jax.Array:
    """Which examples every step sees: integers `[S, num_steps, batch_size]` for keys `[S]`.

    A fresh permutation each epoch; the examples left over at its end are dropped.
    """
    per_epoch = num_examples // batch_size

    def epoch(key: jax.Array) -> jax.Array:
        order = jax.random.permutation(key, num_examples)[: per_epoch * batch_size]
        return order.reshape(per_epoch, batch_size).astype(_index_type(num_examples))

    def whole(key: jax.Array) -> jax.Array:
        epochs = jnp.arange(-(-num_steps // per_epoch))
        orders = lax.map(lambda i: epoch(jax.random.fold_in(key, i)), epochs)
        return orders.reshape(-1, batch_size)[:num_steps]

    return lax.map(whole, keys)


def normalise(images: jax.Array) -> jax.Array:
    """Pixels of 0 to 255 as float32 of 0 to 1."""
    return images.astype(jnp.float32) / 255


def eval_data(apply: Apply, params: PyTree, dataset: Dataset) -> dict[str, PyTree]:
    """Validation and test in batches whose largest layer takes no more than `EVAL_BYTES`."""
    image = np.empty((1, *dataset.image_shape), np.float32)
    size = min(EVAL_BATCH, max(1, EVAL_BYTES // largest_value(apply, params, image)))
    return {
        "validation": eval_batches(dataset.validation, size),
        "test": eval_batches(dataset.test, size),
    }


def eval_batches(split: Split, most: int = EVAL_BATCH) -> PyTree:
    """A split cut into equal batches `[N, B, ...]` of at most so many images."""
    count = len(split.labels)
    size = max(b for b in range(1, min(count, most) + 1) if count % b == 0)
    return {name: x.reshape(-1, size, *x.shape[1:]) for name, x in split._asdict().items()}


def _accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.mean(jnp.argmax(logits, axis=-1) == labels, dtype=jnp.float32)


def _all_finite(params: PyTree) -> np.ndarray:
    """Whether every parameter of a member is finite: bool `[P]`."""
    leaves = [np.isfinite(x).reshape(len(x), -1).all(axis=1) for x in jax.tree.leaves(params)]
    return np.all(leaves, axis=0)


def abstract(
    tree: PyTree,
    sharding: NamedSharding | None = None,
    leading: tuple[int, ...] = (),
    dtype: Any = None,
) -> PyTree:
    """Shapes, types and places of arrays, each with more axes in front, or of another type."""

    def leaf(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*leading, *x.shape), dtype or x.dtype, sharding=sharding)

    return jax.tree.map(leaf, tree)


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


def _group_name(members: slice) -> str:
    return f"members_{members.start}_to_{members.stop}"


def empty(like: PyTree) -> PyTree:
    """Numpy arrays of the shapes and types of a tree, to be written member by member."""
    return jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like)


def write(whole: PyTree, index: Any, members: PyTree) -> None:
    """Put members in the places of a population of numpy arrays."""
    for leaf, part in zip(jax.tree.leaves(whole), jax.tree.leaves(members), strict=True):
        leaf[index] = part


def _index_type(num_examples: int) -> type:
    """The smallest type of an index into a training set; tables of batches are long."""
    return np.uint16 if num_examples <= 2**16 else np.int32
