"""Activations of networks."""

import jax
import jax.numpy as jnp
from jax import lax


@jax.custom_jvp
def relu(values: jax.Array) -> jax.Array:
    """Return `max(values, 0)`, with the gradient of `jax.nn.relu`.

    On a TPU, it keeps its result for the gradient. The compiler would keep the signs, and pack
    those of a population into bits: by its own estimates, a seventh of a step of lenet300.

    Args:
      values: `[...]`.
    """
    return jnp.maximum(values, 0)


@relu.defjvp
def _relu_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    (values,), (change,) = primals, tangents
    result = lax.platform_dependent(
        relu(values), tpu=lax.optimization_barrier, default=lambda result: result
    )
    return result, lax.select(result > 0, change, lax.full_like(change, 0))
