"""Functions that settings of tests name: losses and optimizers, right and wrong ones."""

import jax
import jax.numpy as jnp
import optax

number = 3


def hinge(logits, labels):
    """Sum over the classes by how much less than 1 the right logit is above theirs."""
    right = jnp.take_along_axis(logits, labels[:, None], axis=1)
    return jnp.sum(jnp.maximum(0, 1 + logits - right), axis=1) - 1


def mean_hinge(logits, labels):
    return jnp.mean(hinge(logits, labels))


def per_class(logits, labels):
    return logits


def errors(logits, labels):
    return (jnp.argmax(logits, axis=1) != labels).astype(int)


def two(logits, labels):
    return logits, labels


def one_hot_only(logits, labels):
    return optax.softmax_cross_entropy(logits, labels)


def branching(logits, labels):
    return logits[:, 0] if logits[0, 0] > 0 else -logits[:, 0]


def of_numpy(logits, labels):
    return jax.pure_callback(lambda x: x[:, 0], jax.ShapeDtypeStruct((11,), jnp.float32), logits)


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


def print_part(part):
    print(part.table.name, part.name, part.is_new)


def fail_at_round_1(part):
    return {"round_00": 0}[part.name]
