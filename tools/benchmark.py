"""Measures a training step of a network, jitted alone and in a loop on the device.

    python -m tools.benchmark --network=conv2

Prints the median time of a step, called from a loop on the host and inside the laboratory's
training loop on the device; the convolutions and pools of `lax` and flax, jitted alone, are the
reference from outside.
"""

import csv
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from absl import app, flags
from jax import lax

from experiments import networks
from experiments.trainer import get_batch, make_loss
from supermask_jax import masks
from supermask_jax.training import Stream, make_training
from supermask_jax.transforms import freeze_pruned

State = Any  # parameters and optimizer state
Data = dict[str, jax.Array]  # images uint8 `[N, H, W, C]`, labels int32 `[N]`
Step = Callable[[State, jax.Array, Data], State]
Program = Callable[[State, jax.Array, Data], State]

OPTIMIZER = freeze_pruned(optax.adam(2e-4))
BATCH_SIZE = 60
NUM_IMAGES = 600
NUM_CLASSES = 10

_NETWORK = flags.DEFINE_enum("network", "conv2", list(networks.NETWORKS), "the network to measure")
_STEPS = flags.DEFINE_integer("steps", 5, "training steps in one measurement", lower_bound=1)
_TURNS = flags.DEFINE_integer("turns", 5, "measurements of each program", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", None, "CSV file for the table")


class Row(NamedTuple):
    """One line of the table; `ratio` is to the first program."""

    network: str
    program: str
    ms_per_step: float
    ratio: float


def reference_network(name: str, input_shape: tuple[int, int, int]) -> networks.Network:
    """The network with the convolution of `lax` and the max pool of flax."""
    module = networks.Classifier(
        networks.NETWORKS[name],
        convolve=lax.conv_general_dilated,
        pool=lambda images: nn.max_pool(images, (2, 2), (2, 2)),
    )
    return networks.as_network(module, input_shape)


def make_step(network: networks.Network) -> Step:
    """The training step of a network: state, batch indices `[B]`, data -> state."""
    loss = make_loss(network.apply)

    def step(state: State, indices: jax.Array, data: Data) -> State:
        params, optimizer_state = state
        batch = {name: values[indices] for name, values in data.items()}
        grads, _ = jax.grad(loss, has_aux=True)(params, batch, jax.random.key(0), {})
        mask = masks.ones(params)
        updates, optimizer_state = OPTIMIZER.update(grads, optimizer_state, params, mask=mask)
        return optax.apply_updates(params, updates), optimizer_state

    return step


def alone(step: Step) -> Program:
    """Jits the step and calls it from the host, once per row of the indices `[K, B]`."""
    jitted = jax.jit(step, donate_argnums=0)

    def program(state: State, indices: jax.Array, data: Data) -> State:
        for batch in indices:
            state = jitted(state, batch, data)
        return state

    return program


def in_training(network: networks.Network, num_steps: int) -> Program:
    """The laboratory's training over the rows of the indices `[K, B]`, without validation."""
    training = make_training(
        make_loss(network.apply),
        lambda params, data, context: {"loss": jnp.float32(0)},
        OPTIMIZER,
        get_batch,
        num_steps=num_steps,
        eval_every=num_steps,
        chunk_evals=2,
    )

    def program(state: State, indices: jax.Array, data: Data) -> State:
        params, optimizer_state = state
        start = training.init(params)._replace(opt_state=optimizer_state)
        stream = Stream(jnp.int32(0), jax.random.key(0), {"mask": masks.ones(params)})
        batches = {"train": data, "batches": indices[None]}
        end, _ = training.run_chunk(start, stream, jnp.int32(0), batches)
        return end.params, end.opt_state

    return jax.jit(program, donate_argnums=0)


def make_data(input_shape: tuple[int, ...]) -> Data:
    """Random images and labels: the time of a step does not depend on them."""
    image_key, label_key = jax.random.split(jax.random.key(0))
    images = jax.random.bits(image_key, (NUM_IMAGES, *input_shape), jnp.uint8)
    labels = jax.random.randint(label_key, (NUM_IMAGES,), 0, NUM_CLASSES)
    return {"images": images, "labels": labels}


def seconds(program: Program, state: State, indices: jax.Array, data: Data) -> float:
    """The wall time of one call, on a copy of the state because programs consume theirs."""
    state = jax.block_until_ready(jax.tree.map(jnp.copy, state))
    start = time.perf_counter()
    jax.block_until_ready(program(state, indices, data))
    return time.perf_counter() - start


def measure(name: str, num_steps: int, num_turns: int) -> list[Row]:
    """The table of one network; programs take turns, so other load slows all of them alike."""
    input_shape = (28, 28, 1) if name == "lenet300" else (32, 32, 3)
    network = networks.make_network(name, input_shape)
    reference = reference_network(name, input_shape)
    programs = {
        "step alone": alone(make_step(network)),
        "step in the training loop": in_training(network, num_steps),
        "lax conv and flax pool, alone": alone(make_step(reference)),
    }

    params = jax.jit(network.init)(jax.random.key(0))
    state = (params, OPTIMIZER.init(params))
    data = make_data(input_shape)
    indices = jax.random.randint(jax.random.key(1), (num_steps, BATCH_SIZE), 0, NUM_IMAGES)
    times = {label: [] for label in programs}
    for program in programs.values():
        seconds(program, state, indices, data)  # compiles
    for _ in range(num_turns):
        for label, program in programs.items():
            times[label].append(1e3 * seconds(program, state, indices, data) / num_steps)

    medians = {label: statistics.median(values) for label, values in times.items()}
    return [Row(name, label, ms, ms / medians["step alone"]) for label, ms in medians.items()]


def main(_: Sequence[str]) -> None:
    """Measures the network that the flags name, prints the table and writes it if asked to."""
    rows = measure(_NETWORK.value, _STEPS.value, _TURNS.value)
    print(f"{'network':10}{'program':32}{'ms per step':>12}{'ratio':>8}")
    for row in rows:
        print(f"{row.network:10}{row.program:32}{row.ms_per_step:12.2f}{row.ratio:8.2f}")
    if _OUTPUT.value:
        with Path(_OUTPUT.value).open("w", newline="") as file:
            csv.writer(file).writerows([Row._fields, *rows])


if __name__ == "__main__":
    app.run(main)
