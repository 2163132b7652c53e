"""Networks in flax linen for images of any size: the four of Zhou et al. 2019, ResNets and VGGs.

Axes: `B` batch, `H` height, `W` width, `C` channels. Images are `[B, H, W, C]`, convolution kernels
`[height, width, in, out]`.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments import backends
from experiments.problems import packed
from experiments.problems.activations import relu
from experiments.problems.convolutions import convolve, max_pool
from supermask_jax.checks import check_function, lookup
from supermask_jax.trees import Predicate, unstack_layers

PyTree = Any


class Network(NamedTuple):
    """A network as pure functions of its parameters and, if it has one, its state.

    The state is what a network has beside its parameters, such as the running statistics of
    BatchNorm. It is not pruned: training steps replace it, evaluations read it.

    Attributes:
      init: typed key -> parameters, any pytree of float32 arrays. The paper's networks have
        `{"conv1": {"kernel", "bias"}, ..., "dense1", "dense2", "output"}`.
      apply: (parameters, images float32 `[B, H, W, C]` in [0, 1]) -> logits `[B, num_classes]`; of
        a network with state, (parameters, images, state) -> the logits of an evaluation.
      input_shape: `(H, W, C)`.
      init_state: typed key, the one that `init` gets -> state, any pytree of arrays of numbers;
        None for a network without state.
      apply_training: (parameters, images, state) -> (logits, new state) of a training step; None
        for a network without state, whose training steps take the logits of `apply`.
    """

    init: Callable[[jax.Array], PyTree]
    apply: Callable[..., jax.Array]
    input_shape: tuple[int, ...]
    init_state: Callable[[jax.Array], PyTree] | None = None
    apply_training: Callable[[PyTree, jax.Array, PyTree], tuple[jax.Array, PyTree]] | None = None


def arguments_of(state: PyTree) -> tuple[PyTree, ...]:
    """Return what the state of a network adds to the arguments of a call: nothing if it is None."""
    return () if state is None else (state,)


class Widths(NamedTuple):
    """The sizes of a network.

    Attributes:
      pairs: the channels of each pair of convolutions.
      hidden: the units of each hidden dense layer.
    """

    pairs: tuple[int, ...]
    hidden: tuple[int, ...]


def make_network(
    name: str, input_shape: tuple[int, int, int], num_classes: int = 10, platform: str = "cpu"
) -> Network:
    """Return one of the networks that have a name.

        network = make_network("conv2", (32, 32, 3))
        params = network.init(jax.random.key(0))
        logits = network.apply(params, images)

    Args:
      name: a key of `NETWORKS` or `MODULES`.
      input_shape: `(H, W, C)`.
      num_classes: the number of logits.
      platform: where it will be computed; it chooses between forms with equal parameters.

    Raises:
      ValueError: if the name is unknown, or if pooling would leave no pixel.
    """
    kind = lookup("network", name, NETWORKS | MODULES)
    if not isinstance(kind, Widths):
        return as_network(kind(num_classes=num_classes), input_shape)
    height, width, _ = input_shape
    minimum = 2 ** len(kind.pairs)
    if min(height, width) < minimum:
        raise ValueError(
            f"{name} halves its images {len(kind.pairs)} times: they must be at least "
            f"{minimum}x{minimum} pixels, but these are {height}x{width}"
        )
    in_pairs = backends.takes_tpu_forms(platform)
    return as_network(Classifier(kind, num_classes, packed=in_pairs), input_shape)


def flattened(name: str, input_shape: tuple[int, ...]) -> dict[str, tuple[int, int, int]]:
    """Return the shape `(C, H, W)` of what a network of the paper flattens, as `interop` needs it.

    Args:
      name: a key of `NETWORKS`.
      input_shape: `(H, W, C)`.

    Returns:
      The shape, by the kernel that follows the flatten.

    >>> flattened("conv4", (32, 32, 3))
    {'dense1/kernel': (128, 8, 8)}
    """
    pairs, (height, width, channels) = NETWORKS[name].pairs, input_shape
    halvings = 2 ** len(pairs)
    channels = pairs[-1] if pairs else channels
    return {"dense1/kernel": (channels, height // halvings, width // halvings)}


def as_network(module: nn.Module, input_shape: tuple[int, ...]) -> Network:
    """Wrap a linen module as a `Network`.

    Args:
      module: maps `[B, H, W, C]` to logits `[B, num_classes]`. If it has variables that are no
        parameters, they are its state, and `__call__` takes an argument `train`: True in training
        steps, which may change them, and False in evaluations.
      input_shape: `(H, W, C)`.

    Raises:
      ValueError: if the module has state and no argument `train`, or the argument and no state.
    """
    takes_train = "train" in inspect.signature(module.__call__).parameters
    evaluation: dict[str, Any] = {"train": False} if takes_train else {}

    def variables(key: jax.Array) -> Any:
        return module.init(key, jnp.zeros((1, *input_shape)), **evaluation)

    def init(key: jax.Array) -> PyTree:
        return variables(key)["params"]

    def apply(params: PyTree, images: jax.Array, *state: PyTree) -> jax.Array:
        own = {"params": params} | (state[0] if state else {})
        logits: Any = module.apply(own, images, **evaluation)
        return logits

    kinds = sorted(jax.eval_shape(variables, jax.random.key(0)).keys() - {"params"})
    _check_train(type(module).__name__, takes_train, kinds)
    if not kinds:
        return Network(init, apply, input_shape)

    def init_state(key: jax.Array) -> PyTree:
        made = variables(key)
        return {kind: made[kind] for kind in kinds}

    def apply_training(params: PyTree, images: jax.Array, state: PyTree) -> Any:
        return module.apply({"params": params} | state, images, train=True, mutable=kinds)

    return Network(init, apply, input_shape, init_state, apply_training)


def _check_train(module: str, takes_train: bool, kinds: list[str]) -> None:
    if kinds and not takes_train:
        raise ValueError(
            f"{module} has state beside its parameters ({', '.join(kinds)}), expected an argument "
            "train of __call__: True in training steps, False in evaluations, as in "
            "nn.BatchNorm(use_running_average=not train)."
        )
    if takes_train and not kinds:
        raise ValueError(
            f"{module} takes train, but has no state beside its parameters, expected no such "
            "argument: networks that differ in training by random numbers alone, as with dropout, "
            "are not trained here."
        )


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

    def stacking(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda params, *arguments: function(stack(params), *arguments)

    training = network.apply_training
    return network._replace(
        init=init,
        apply=stacking(network.apply),
        apply_training=stacking(training) if training else None,
    )


class Classifier(nn.Module):
    """Pairs of convolutions, hidden dense layers and a linear output layer.

    Zhou et al. 2019. Each pair of 3x3 convolutions is followed by 2x2 max pooling. Activations are
    ReLU; there is no normalisation and no dropout.

    Attributes:
      widths: the sizes of the layers.
      num_classes: the number of logits.
      convolve: computes the convolutions.
      pool: computes the pooling.
      packed: compute each pair of convolutions with its pooling, and the layer that follows, by
        `packed`, which is the faster form on a TPU, and neither by `convolve` nor by `pool`.
    """

    widths: Widths
    num_classes: int = 10
    convolve: Callable[..., jax.Array] = convolve
    pool: Callable[[jax.Array], jax.Array] = max_pool
    packed: bool = False

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
            names = f"conv{2 * index + 1}", f"conv{2 * index + 2}"
            if self.packed:
                first, second = (ConvWeights(channels, init, name=name) for name in names)
                values = packed.pair(values, *first(values.shape[-1]), *second(channels))
            else:
                for name in names:
                    values = nn.relu(conv(channels, name=name)(values))
                values = self.pool(values)
        product = None
        if self.packed and self.widths.pairs:
            product = functools.partial(packed.product, shape=values.shape[1:])
        values = values.reshape(len(values), -1)
        for index, units in enumerate(self.widths.hidden):
            layer = dense(units, name=f"dense{index + 1}", dot_general=None if index else product)
            values = relu(layer(values))
        return dense(self.num_classes, name="output")(values)


class ConvWeights(nn.Module):
    """The weights of a 3x3 convolution, without the convolution, as `nn.Conv` makes them."""

    channels: int
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, inputs: int) -> tuple[jax.Array, jax.Array]:
        """Return a kernel `[3, 3, inputs, channels]` and a bias `[channels]`."""
        kernel = self.param("kernel", self.kernel_init, (3, 3, inputs, self.channels))
        return kernel, self.param("bias", nn.initializers.zeros, (self.channels,))


class ResNet(nn.Module):
    """A residual network of He et al. 2016 for small images, with `6 * blocks + 2` layers.

    A convolution, three stages of blocks with 1, 2 and 4 times `width` channels, the mean over all
    pixels, and a linear output layer. The second and the third stage begin by halving the image.
    """

    blocks: int  # of a stage
    width: int = 16
    num_classes: int = 10

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Map images `[B, H, W, C]` to logits `[B, num_classes]`."""
        values = nn.relu(NormalisedConv(self.width, name="stem")(images, train))
        for index in range(3 * self.blocks):
            stage, place = divmod(index, self.blocks)
            stride = 2 if stage and not place else 1
            block = Block(self.width * 2**stage, stride, name=f"block{index + 1}")
            values = block(values, train)
        return _output(self.num_classes, values)


class Block(nn.Module):
    """Two convolutions, whose result is added to their input.

    Where the shape changes, the input passes through a 1x1 convolution instead of padding with
    zeros, as in Frankle et al. 2020.
    """

    channels: int
    stride: int

    @nn.compact
    def __call__(self, values: jax.Array, train: bool) -> jax.Array:
        """Map `[B, H, W, C]` to `[B, H / stride, W / stride, channels]`, rounded up."""
        inner = NormalisedConv(self.channels, stride=self.stride, name="first")(values, train)
        inner = NormalisedConv(self.channels, name="second")(nn.relu(inner), train)
        if values.shape != inner.shape:
            seen = values[:, :: self.stride, :: self.stride]
            values = NormalisedConv(self.channels, size=1, name="shortcut")(seen, train)
        return nn.relu(values + inner)


class VGG(nn.Module):
    """A network of Simonyan and Zisserman 2015 with BatchNorm, for small images.

    Groups of 3x3 convolutions of 1, 2, 4, 8 and 8 times `width` channels, with 2x2 max pooling
    between them as long as a pixel is left, so images below 16x16 are halved less often. Then come,
    as in Frankle et al. 2020, the mean over all pixels and a linear output layer.
    """

    groups: tuple[int, ...]  # the number of convolutions of each
    width: int = 64
    num_classes: int = 10

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Map images `[B, H, W, C]` to logits `[B, num_classes]`."""
        values = images
        for group, number in enumerate(self.groups, 1):
            if group > 1 and min(values.shape[1:3]) > 1:
                values = max_pool(values)
            channels = self.width * 2 ** min(group - 1, 3)
            for index in range(1, number + 1):
                conv = NormalisedConv(channels, name=f"conv{group}_{index}")
                values = nn.relu(conv(values, train))
        return _output(self.num_classes, values)


class NormalisedConv(nn.Module):
    """A convolution without bias, then BatchNorm.

    Initialised as in Frankle et al. 2020: normal kernels of variance `2 / inputs`, and scales of
    BatchNorm that are uniform in [0, 1]. An image is padded by `size // 2` pixels of 0.
    """

    channels: int
    size: int = 3
    stride: int = 1

    @nn.compact
    def __call__(self, values: jax.Array, train: bool) -> jax.Array:
        """Map `[B, H, W, C]` to `[B, H / stride, W / stride, channels]`, rounded up."""
        conv = nn.Conv(
            self.channels,
            (self.size, self.size),
            self.stride,
            padding=self.size // 2,
            use_bias=False,
            kernel_init=HE,
            conv_general_dilated=convolve,
            name="conv",
        )
        norm = nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            scale_init=nn.initializers.uniform(1.0),
            name="norm",
        )
        return norm(conv(values))


HE = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def _output(num_classes: int, values: jax.Array) -> jax.Array:
    """Apply the last layer to the mean over all pixels of `[B, H, W, C]`."""
    return nn.Dense(num_classes, kernel_init=HE, name="output")(values.mean(axis=(1, 2)))


NETWORKS = {
    "lenet300": Widths(pairs=(), hidden=(300, 100)),
    "conv2": Widths(pairs=(64,), hidden=(256, 256)),
    "conv4": Widths(pairs=(64, 128), hidden=(256, 256)),
    "conv6": Widths(pairs=(64, 128, 256), hidden=(256, 256)),
}
MODULES: dict[str, Callable[..., nn.Module]] = {
    "resnet20": functools.partial(ResNet, blocks=3),
    "resnet8_narrow": functools.partial(ResNet, blocks=1, width=4),
    "vgg16": functools.partial(VGG, groups=(2, 2, 3, 3, 3)),
    "vgg11_narrow": functools.partial(VGG, groups=(1, 1, 2, 2, 2), width=8),
}
