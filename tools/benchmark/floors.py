"""Lower bounds of a training loop: its matrix products alone, and the memory bandwidth."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from supermask_jax import population
from tools.benchmark.tasks import (
    FLOAT_BYTES,
    Product,
    Task,
    training_products,
    validation_products,
)

MIN_SECONDS = 0.02  # of one timing of a matrix product
AXPYS = 10  # of one turn


class Axpy:
    """`a x + y` on large vectors, which moves three vectors through the memory of the device.

    Attributes:
      device: its name.
    """

    def __init__(self, size: int) -> None:
        """Make two vectors of `size` float32; three of them should not fit into a cache."""
        self._x, self._y = jnp.ones(size), jnp.zeros(size)
        self._program = jax.jit(lambda x, y: 0.5 * x + y, donate_argnums=1)
        self._bytes = 3 * FLOAT_BYTES * size
        self.device = jax.devices()[0].device_kind

    def turn(self) -> float:
        """Return bytes per second."""
        jax.block_until_ready(self._y)
        begin = time.perf_counter()
        for _ in range(AXPYS):
            self._y = self._program(self._x, self._y)
        jax.block_until_ready(self._y)
        return AXPYS * self._bytes / (time.perf_counter() - begin)


LAYOUTS = ("mk,kn->mn", "km,kn->mn", "mk,nk->mn", "km,nk->mn")


class Floor:
    """The matrix products alone, each computed in the fastest of several ways, on all devices.

    The ways are the orders of the operands' axes in memory, in XLA with one product per device,
    and NumPy with all cores on one product.
    """

    def __init__(self, task: Task, devices: int) -> None:
        """Try all ways of each product and keep the fastest."""
        self._mesh = population.make_mesh(jax.devices()[:devices])
        self._training = training_products(task)
        self._validation = validation_products(task)
        self._best = {p: self._fastest(p) for p in {*self._training, *self._validation}}

    def turn(self) -> tuple[float, float]:
        """Return milliseconds per member-step of training and of validation."""
        ms = {product: 1e3 * time_product() for product, time_product in self._best.items()}
        return (
            sum(count * ms[product] for product, count in self._training.items()),
            sum(count * ms[product] for product, count in self._validation.items()),
        )

    def _fastest(self, product: Product) -> Any:
        ways = [self._in_xla(product, layout) for layout in LAYOUTS]
        ways.append(self._in_numpy(product))
        return min(ways, key=lambda seconds: min(seconds(), seconds()))

    def _in_xla(self, product: Product, layout: str) -> Any:
        sizes = dict(zip("mkn", product, strict=True))
        first, second = (
            jnp.ones((self._mesh.size, *(sizes[axis] for axis in axes)))
            for axes in layout.split("->")[0].split(",")
        )
        flops = 2.0 * product.rows * product.depth * product.columns
        repeats = max(1, int(MIN_SECONDS * 5e10 / flops))

        def many(state: Any, _: tuple) -> tuple[Any, tuple]:
            def body(_: int, carry: Any) -> Any:
                a, b, out = carry
                # Depends on the product before, so that none is left out.
                a = lax.dynamic_update_slice(a, 1e-9 * out[:1, :1], (0, 0))
                return a, b, jnp.einsum(layout, a, b)

            return lax.fori_loop(0, repeats, body, state), ()

        out = jnp.ones((self._mesh.size, product.rows, product.columns))
        state = population.shard((first, second, out), self._mesh)
        program = jax.jit(population.map_members(many, mesh=self._mesh))
        jax.block_until_ready(program(state, ()))

        def seconds() -> float:
            begin = time.perf_counter()
            jax.block_until_ready(program(state, ()))
            return (time.perf_counter() - begin) / repeats / self._mesh.size

        return seconds

    def _in_numpy(self, product: Product) -> Any:
        first = np.ones((product.rows, product.depth), np.float32)
        second = np.ones((product.depth, product.columns), np.float32)
        flops = 2.0 * product.rows * product.depth * product.columns
        repeats = max(1, int(MIN_SECONDS * 1e11 / flops))

        def seconds() -> float:
            begin = time.perf_counter()
            for _ in range(repeats):
                np.matmul(first, second)
            return (time.perf_counter() - begin) / repeats

        return seconds
