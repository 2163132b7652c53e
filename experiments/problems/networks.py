"""The four networks of Zhou et al. 2019 in flax linen, for images of any size.

Pairs of 3x3 convolutions, each pair followed by 2x2 max pooling, then two hidden dense layers and a
linear output layer. Activations are ReLU; there is no normalisation and no dropout. Axes: `B`
batch, `H` height, `W` width, `C` channels. Images are `[B, H, W, C]`, convolution kernels
`[height, width, in, out]`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.problems.convolutions import convolve, max_pool
from supermask_jax.checks import check_function, lookup
from supermask_jax.trees import Predicate, unstack_layers

PyTree = Any


class Network(NamedTuple):
    """A network as two pure functions of its parameters.

    Attributes:
      init: typed key -> parameters, any pytree of float32 arrays. The paper's networks have
        `{"conv1": {"kernel", "bias"}, ..., "dense1", "dense2", "output"}`.
      apply: (parameters, images float32 `[B, H, W, C]` in [0, 1]) -> logits `[B, num_classes]`.
      input_shape: `(H, W, C)`.
      has_state: whether it has state beside its parameters, such as the means of BatchNorm. No
        runner trains such a network yet.
    """

    init: Callable[[jax.Array], PyTree]
    apply: Callable[[PyTree, jax.Array], jax.Array]
    input_shape: tuple[int, ...]
    has_state: bool = False


class Widths(NamedTuple):
    """The sizes of a network.

    Attributes:
      pairs: the channels of each pair of convolutions.
      hidden: the units of each hidden dense layer.
    """

    pairs: tuple[int, ...]
    hidden: tuple[int, ...]


def make_network(name: str, input_shape: tuple[int, int, int], num_classes: int = 10) -> Network:
    """Return one of the networks of the paper.

        network = make_network("conv2", (32, 32, 3))
        params = network.init(jax.random.key(0))
        logits = network.apply(params, images)

    Args:
      name: a key of `NETWORKS`.
      input_shape: `(H, W, C)`.
      num_classes: the number of logits.

    Raises:
      ValueError: if the name is unknown, or if pooling would leave no pixel.
    """
    widths = lookup("network", name, NETWORKS)
    height, width, _ = input_shape
    minimum = 2 ** len(widths.pairs)
    if min(height, width) < minimum:
        raise ValueError(
            f"{name} halves its images {len(widths.pairs)} times: they must be at least "
            f"{minimum}x{minimum} pixels, but these are {height}x{width}"
        )
    return as_network(Classifier(widths, num_classes), input_shape)


def as_network(module: nn.Module, input_shape: tuple[int, ...]) -> Network:
    """Wrap a linen module as a `Network`.

    Args:
      module: maps `[B, H, W, C]` to logits `[B, num_classes]`. If it has variables that are no
        parameters, the network has state.
      input_shape: `(H, W, C)`.
    """

    def variables(key: jax.Array) -> Any:
        return module.init(key, jnp.zeros((1, *input_shape)))

    def init(key: jax.Array) -> PyTree:
        return variables(key)["params"]

    def apply(params: PyTree, images: jax.Array) -> jax.Array:
        logits: Any = module.apply({"params": params}, images)
        return logits

    has_state = jax.eval_shape(variables, jax.random.key(0)).keys() != {"params"}
    return Network(init, apply, input_shape, has_state)


def layer_by_layer(network: Network, stacked: Predicate) -> Network:
    """Give every layer of stacked leaves, as scanned networks have them, leaves of its own.

    Whatever treats a leaf as a layer then treats each layer by itself: rates, criteria, actions,
    draws, tables. The network stacks the layers again when it is applied, which copies them once.
    For layers inside layers, call this on its result.

    Args:
      network: has parameters that stack L layers, `[L, ...]`.
      stacked: (path, leaf) -> True for stacked leaves; see `trees.unstack_layers`.

    Returns:
      The same network with leaves `path/0`, `path/1`, ... in the place of each stacked leaf.

    Raises:
      ValueError: if the rule chooses no leaf, or one without layers.
      TypeError: if it is no such function, or returns anything but True or False.
    """
    check_function("rule", stacked, "def in_a_block(path, leaf)", ("path", "leaf"))
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    _, stack = unstack_layers(shapes, stacked)

    def init(key: jax.Array) -> PyTree:
        return unstack_layers(network.init(key), stacked)[0]

    def apply(params: PyTree, images: jax.Array) -> jax.Array:
        return network.apply(stack(params), images)

    return network._replace(init=init, apply=apply)


class Classifier(nn.Module):
    """Pairs of convolutions, hidden dense layers and a linear output layer."""

    widths: Widths
    num_classes: int = 10
    convolve: Callable[..., jax.Array] = convolve
    pool: Callable[[jax.Array], jax.Array] = max_pool

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Map images `[B, H, W, C]` to logits `[B, num_classes]`."""
        # The authors' "truncated Glorot": its standard deviation holds after truncation.
        init = nn.initializers.variance_scaling(1.0, "fan_avg", "truncated_normal")
        conv = functools.partial(
            nn.Conv, kernel_size=(3, 3), kernel_init=init, conv_general_dilated=self.convolve
        )
        dense = functools.partial(nn.Dense, kernel_init=init)

        values = images
        for index, channels in enumerate(self.widths.pairs):
            values = nn.relu(conv(channels, name=f"conv{2 * index + 1}")(values))
            values = nn.relu(conv(channels, name=f"conv{2 * index + 2}")(values))
            values = self.pool(values)
        values = values.reshape(len(values), -1)
        for index, units in enumerate(self.widths.hidden):
            values = nn.relu(dense(units, name=f"dense{index + 1}")(values))
        return dense(self.num_classes, name="output")(values)


NETWORKS = {
    "lenet300": Widths(pairs=(), hidden=(300, 100)),
    "conv2": Widths(pairs=(64,), hidden=(256, 256)),
    "conv4": Widths(pairs=(64, 128), hidden=(256, 256)),
    "conv6": Widths(pairs=(64, 128, 256), hidden=(256, 256)),
}
