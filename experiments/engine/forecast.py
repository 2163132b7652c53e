"""What a sweep will take, said before it starts: members, memory and time."""

import math
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params
from jax.sharding import Mesh

from supermask_jax import population

PRODUCT = 1024  # rows and columns of the matrices that measure the speed
REPEATS = 4


class Forecast(NamedTuple):
    """What a sweep will take.

    Attributes:
      members: of the largest population.
      rounds: how many are to be trained, the dense one included.
      side_by_side: how many of them train together, group after group.
      devices: of all processes.
      memory: bytes, at most, on this process's devices and for results on the host.
      budget: bytes that it may take.
      flops: floating-point operations of all trainings.
      speed: floating-point operations per second of matrix products on all devices.
    """

    members: int
    rounds: int
    side_by_side: int
    devices: int
    memory: float
    budget: float
    flops: float
    speed: float

    def __str__(self) -> str:
        """One line for people."""
        least = timedelta(seconds=round(self.flops / self.speed))
        return (
            f"{_count(self.members, 'member')}, {self.side_by_side} side by side on "
            f"{_count(self.devices, 'device')}; {_count(self.rounds, 'round')}; "
            f"{self.memory / 1e9:.2f} of {self.budget / 1e9:.2f} GB; at least {least} "
            f"({self.flops:.1e} operations at {self.speed / 1e9:,.0f} GFLOP/s)"
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def available_memory() -> float:
    """Bytes for arrays: all of this process's accelerators, or what is free of main memory."""
    devices = jax.local_devices()
    if devices[0].platform != "cpu":
        limits = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in devices]
        return float(sum(limits)) or float("inf")
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024.0 * next(int(x.split()[1]) for x in lines if x.startswith("MemAvailable"))
    except OSError:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def num_bytes(tree: Any) -> int:
    """What arrays hold, or would hold by their shapes and types."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def count_products(fn: Callable[..., Any], *args: Any) -> float:
    """Floating-point operations of the matrix products and convolutions of a function's call.

    Args:
      fn: any function that JAX can trace.
      args: its arguments, or their shapes and types.

    >>> count_products(lambda x: x @ x, jnp.ones((2, 2)))
    16.0
    """
    equations = _equations(jax.make_jaxpr(fn)(*args).jaxpr)
    return sum(times * _operations(equation) for equation, times in equations)


def largest_value(fn: Callable[..., Any], *args: Any) -> int:
    """Bytes of the largest array that a function's call computes, before XLA fuses anything."""
    equations = _equations(jax.make_jaxpr(fn)(*args).jaxpr)
    return max(x.aval.size * x.aval.dtype.itemsize for eqn, _ in equations for x in eqn.outvars)


def _equations(jaxpr: Any, times: int = 1) -> Iterator[tuple[Any, int]]:
    """All equations, also of functions that are called, and how often each is done."""
    for equation in jaxpr.eqns:
        yield equation, times
        for inner in jaxprs_in_params(equation.params):
            yield from _equations(inner, times * equation.params.get("length", 1))


def _operations(equation: Any) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    elif name == "conv_general_dilated":
        kernel = equation.invars[1].aval
        depth = kernel.size / kernel.shape[params["dimension_numbers"].rhs_spec[0]]
    else:
        return 0.0
    return 2.0 * depth * equation.outvars[0].aval.size


def product_speed(mesh: Mesh) -> float:
    """Floating-point operations per second of large matrix products on all devices at once."""

    def products(matrix: jax.Array, nothing: tuple) -> tuple[jax.Array, tuple]:
        def multiply(_: int, x: jax.Array) -> jax.Array:
            return x @ matrix

        return jax.lax.fori_loop(0, REPEATS, multiply, matrix), nothing

    devices = mesh.size
    identity = jnp.broadcast_to(jnp.eye(PRODUCT), (devices, PRODUCT, PRODUCT))
    matrices = population.shard(identity, mesh)
    program = jax.jit(population.map_members(products, mesh=mesh))
    jax.block_until_ready(program(matrices, ()))
    start = time.perf_counter()
    jax.block_until_ready(program(matrices, ()))
    return devices * REPEATS * 2 * PRODUCT**3 / (time.perf_counter() - start)
