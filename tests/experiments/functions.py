"""Functions that settings of tests name: losses and optimizers, right and wrong ones."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from experiments.problems.networks import as_network

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


def choosing(learning_rate):
    return optax.adam(learning_rate) if learning_rate < 0.5 else optax.sgd(learning_rate)


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


class Normalised(nn.Module):
    """Two dense layers with BatchNorm between them, and a count of the training steps."""

    classes: int

    @nn.compact
    def __call__(self, images, train):
        steps = self.variable("counters", "steps", lambda: jnp.int32(0))
        if train:
            steps.value += 1
        values = nn.Dense(9, use_bias=False, name="dense1")(images.reshape(len(images), -1))
        values = nn.BatchNorm(use_running_average=not train, momentum=0.8, name="norm")(values)
        return nn.Dense(self.classes, name="output")(nn.relu(values))


def normalised(image_shape, num_classes):
    return as_network(Normalised(num_classes), image_shape)
