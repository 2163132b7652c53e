"""Functions that settings of tests name: optimizers, right and wrong ones."""

import jax
import jax.numpy as jnp
import optax

number = 3


def slow_adam(learning_rate):
    return optax.adam(learning_rate, b1=0.99)


def no_optimizer(learning_rate):
    return number


def growing(learning_rate):
    return optax.GradientTransformation(
        lambda params: jnp.zeros(1), lambda grads, state, params=None: (grads, jnp.zeros(2))
    )


def summing(learning_rate):
    return optax.GradientTransformation(
        lambda params: (), lambda grads, state, params=None: (jax.tree.map(jnp.sum, grads), state)
    )


def failing(learning_rate):
    raise RuntimeError("no\nway")
