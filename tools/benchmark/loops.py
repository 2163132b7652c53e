"""The training loop of a population, as the benchmarks measure it.

A turn trains the number of steps of the task, with a share of validation that is the paper's
(5,000 images every 100 steps), and returns milliseconds per member-step.
"""

import resource
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.engine.batches import (
    EVAL_BATCH,
    EVAL_BYTES,
    batch_table,
    eval_batches,
    examples,
    get_batch,
    train_data,
)
from experiments.engine.forecast import largest_value
from experiments.engine.objectives import make_loss, measure
from experiments.problems import networks
from supermask_jax import population
from supermask_jax.training import Stream, Training, make_training
from supermask_jax.transforms import freeze_pruned
from tools.benchmark.tasks import (
    BATCH_SIZE,
    CONVOLUTIONS,
    NUM_TRAIN,
    OPTIMIZERS,
    WHOLE_LOOP,
    Loop,
    Mapping,
    Task,
    make_data,
    make_mask,
)

LEARNING_RATE = 1e-3


class Population:
    """Members trained by the laboratory's program.

    Attributes:
      compile_s: compilation time in seconds.
      peak_mb: peak memory in megabytes, read after a turn: the growth of the process, or what the
        accelerator reports.
    """

    def __init__(self, task: Task, members: int, mapping: Mapping, loop: Loop = WHOLE_LOOP) -> None:
        """Make data and states and compile."""
        before = _peak_mb()
        network = _make_network(task, loop.convolution)
        params = jax.jit(network.init)(jax.random.key(0))
        training = _make_training(task, network, loop)
        mesh = population.make_mesh(jax.devices()[: mapping.devices])
        local = -(-members // mesh.size)
        width = mapping.width if mapping.width is None else min(mapping.width or local, local)
        multiple = mesh.size * (width or 1)

        def place(tree: Any) -> Any:
            many = jax.tree.map(lambda x: jnp.broadcast_to(x, (members, *x.shape)), tree)
            return population.shard(population.pad(many, multiple), mesh)

        mask = make_mask(params)
        start = jax.tree.map(lambda w, m: jnp.where(m, w, 0), params, mask)
        self._states = place(jax.jit(training.init)(start))
        stream = Stream(jnp.int32(0), jax.random.key(2), {"mask": jax.tree.map(jnp.asarray, mask)})
        self._rest = (
            place(stream),
            population.replicate(jnp.int32(0), mesh),
            population.replicate(_shared_data(task, params), mesh),
        )
        mapped = population.map_members(training.run_chunk, batch_size=width, mesh=mesh)
        begin = time.perf_counter()
        with jax.default_matmul_precision(loop.precision):
            lowered = jax.jit(mapped, donate_argnums=0).lower(self._states, *self._rest)
        self._program = lowered.compile()
        self.compile_s = time.perf_counter() - begin
        self._before, self._member_steps = before, members * task.steps

    @property
    def peak_mb(self) -> float:
        """Peak memory in megabytes; see the class."""
        return _peak_mb() - self._before

    def turn(self) -> float:
        """Run a turn and return its milliseconds per member-step."""
        begin = time.perf_counter()
        self._states, _ = self._program(self._states, *self._rest)
        jax.block_until_ready(self._states)
        return 1e3 * (time.perf_counter() - begin) / self._member_steps


def _make_network(task: Task, convolution: str = "default") -> networks.Network:
    widths = networks.NETWORKS[task.network]
    module = networks.Classifier(widths, convolve=CONVOLUTIONS[convolution])
    return networks.as_network(module, task.input_shape)


def _make_training(task: Task, network: networks.Network, loop: Loop) -> Training:
    def validate(params: Any, data: Any, _: Any) -> Any:
        return measure(network.apply, params, data["validation"])

    def skip(*_: Any) -> Any:
        return {"loss": jnp.float32(0)}

    def get_same_batch(data: Any, *_: Any) -> Any:
        return examples(data, slice(BATCH_SIZE))

    return make_training(
        make_loss(network.apply),
        validate if loop.validate else skip,
        freeze_pruned(OPTIMIZERS[loop.optimizer](LEARNING_RATE)),
        get_batch if loop.gather else get_same_batch,
        num_steps=2 * task.steps,  # a turn is one evaluation and the steps that follow it
        eval_every=task.steps,
        chunk_evals=1,
    )


def _shared_data(task: Task, params: Any) -> Any:
    """Return data and batches; validation batches are the same for every convolution."""
    data = make_data(task)
    image = np.empty((1, *task.input_shape), np.float32)
    batch = min(EVAL_BATCH, EVAL_BYTES // largest_value(_make_network(task).apply, params, image))
    table = batch_table(
        jax.random.split(jax.random.key(1), 1),
        num_examples=NUM_TRAIN,
        num_steps=task.steps,
        batch_size=BATCH_SIZE,
    )
    validation = eval_batches(data["validation"], batch)
    return {"train": train_data(data["train"]), "batches": table, "validation": validation}


def _peak_mb() -> float:
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 1e6
    return process_peak_mb()


def process_peak_mb() -> float:
    """Return the peak memory of this process in megabytes; this opens no device."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
