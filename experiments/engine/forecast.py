"""Forecasts of the memory and time that a sweep will take, made before it starts."""

import functools
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params
from jax.interpreters import partial_eval
from jax.sharding import Mesh

from experiments import processes
from supermask_jax import population

MOST_SECONDS = 1e13  # that timedelta counts, and far more than anyone waits
PRODUCT = 1024  # rows and columns of the matrices in `product_speed`
REPEATS = 4


class Forecast(NamedTuple):
    """The memory and time that a sweep will take.

    Attributes:
      members: the number of members of the largest population.
      rounds: the number of rounds to train, including the dense one.
      side_by_side: the number of members that train at the same time; groups train in turn.
      devices: the number of devices of all processes.
      memory: the peak memory of this process in bytes: its devices, and results held on the host.
      budget: the memory limit of this process in bytes.
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
        """Return the forecast as one line of text."""
        least = timedelta(seconds=round(min(self.flops / self.speed, MOST_SECONDS)))
        return (
            f"{counted(self.members, 'member')}, {self.side_by_side} side by side on "
            f"{counted(self.devices, 'device')}; {counted(self.rounds, 'round')}; "
            f"{self.memory / 1e9:.2f} of {self.budget / 1e9:.2f} GB; at least {least} "
            f"({self.flops:.1e} operations at {self.speed / 1e9:,.0f} GFLOP/s)"
        )


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, which has a plural in s."""
    return f"{number} {noun}{'s' * (number != 1)}"


def available_memory(devices: Sequence[Any]) -> float:
    """Return the bytes available for arrays.

    This is the memory of this process's accelerators, infinite if they do not report it; on a CPU,
    the main memory.

    Args:
      devices: of all processes.
    """
    if devices[0].platform == "cpu":
        return main_memory()
    own = [device for device in devices if device.process_index == jax.process_index()]
    limits = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in own]
    return float(sum(limits)) or float("inf")


def main_memory() -> float:
    """Return the bytes of free main memory, or of all where the system does not report it."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024.0 * next(int(x.split()[1]) for x in lines if x.startswith("MemAvailable"))
    except OSError:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def main_memory_limit(max_memory: float | None, platform: str) -> float:
    """Return the limit of main memory in bytes, the lowest of all processes.

    Args:
      max_memory: the memory limit of this process in bytes; None for what is free now. On a CPU it
        limits main memory, elsewhere the memory of the devices.
      platform: of the devices.
    """
    if max_memory is None or platform != "cpu":
        max_memory = main_memory()
    return processes.least(max_memory)


def check_fits(what: str, needed: float, limit: float) -> None:
    """Check that something fits into memory.

    Args:
      what: a noun in the plural, for the message.
      needed: its bytes.
      limit: the bytes that are available.

    Raises:
      MemoryError: if it does not fit.
    """
    if needed > limit:
        raise MemoryError(
            f"{what} take {needed / 1e9:,.2f} GB of memory, but only {max(limit, 0) / 1e9:,.2f} GB "
            "are available; ask for less or raise --max_memory."
        )


def num_bytes(tree: Any) -> int:
    """Return the size in bytes of a tree of arrays or abstract arrays."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def count_products(fn: Callable[..., Any], *args: Any, platform: str | None = None) -> float:
    """Count the floating-point operations of the matrix products and convolutions in a call.

    Args:
      fn: any function that JAX can trace.
      args: its arguments, or their shapes and types.
      platform: for which it is compiled, if it has code for platforms; None for any other.

    Examples:
      >>> count_products(lambda x: x @ x, jnp.ones((2, 2)))
      16.0
    """
    equations = _equations(_needed(fn, *args), platform)
    return sum(times * _operations(equation) for equation, times in equations)


def largest_value(fn: Callable[..., Any], *args: Any) -> int:
    """Return the size in bytes of the largest array that a call computes, ignoring XLA's fusion.

    Args:
      fn: any function that JAX can trace.
      args: its arguments, or their shapes and types.
    """
    equations = _equations(_needed(fn, *args), None)
    return max(x.aval.size * x.aval.dtype.itemsize for eqn, _ in equations for x in eqn.outvars)


def _needed(fn: Callable[..., Any], *args: Any) -> Any:
    """Return the jaxpr of a call without the equations that its results do not need."""
    jaxpr = jax.make_jaxpr(fn)(*args).jaxpr
    return partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0]


def _equations(jaxpr: Any, platform: str | None, times: int = 1) -> Iterator[tuple[Any, int]]:
    """Yield all equations, including those of inner jaxprs, and how often each is executed.

    Of the code of platforms, it takes that of `platform`, and of any other conditional the last.
    """
    for equation in jaxpr.eqns:
        yield equation, times
        inner = list(jaxprs_in_params(equation.params))
        if equation.primitive.name == "cond":
            of_platforms = equation.params.get("branches_platforms") or ()
            own = [i for i, names in enumerate(of_platforms) if platform in (names or ())]
            inner = [inner[own[0] if own else -1]]
        for one in inner:
            yield from _equations(one, platform, times * equation.params.get("length", 1))


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


@functools.lru_cache
def product_speed(mesh: Mesh) -> float:
    """Measure the floating-point operations per second of large matrix products, once.

    Args:
      mesh: the devices, which all compute at the same time; the result is their sum.
    """

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
