"""The benchmarks' tasks, mappings and loops, with their arithmetic and memory traffic."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax import lax

from experiments.datasets import Split
from experiments.engine.batches import EVAL_BATCH
from experiments.problems import convolutions, networks

BATCH_SIZE = 60
NUM_TRAIN = 6000
EVAL_PER_STEP = 50  # 5,000 images of validation every 100 steps
MAX_ROWS = 61440  # of a matrix product; more are timed in parts
FLOAT_BYTES = 4

CONVOLUTIONS = {
    "default": convolutions.convolve,
    "lax": lax.conv_general_dilated,
    "canonical": convolutions.canonical_conv,
    "shifted": convolutions.shifted_conv,
}
OPTIMIZERS = {"adam": optax.adam, "sgd": optax.sgd}


class Task(NamedTuple):
    """A network by name, and the number of steps of a turn."""

    network: str
    steps: int

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape of an image, `(H, W, C)`."""
        return (28, 28, 1) if self.network == "lenet300" else (32, 32, 3)

    @property
    def num_eval(self) -> int:
        """The number of validation images in a turn."""
        return EVAL_PER_STEP * self.steps


class Mapping(NamedTuple):
    """How members share devices: ``map/D`` one by one, ``vmap/D`` all at once, ``kxvmap/D`` k
    at a time, on each of D devices."""

    name: str
    width: int | None  # 0: all of a device
    devices: int

    @classmethod
    def parse(cls, name: str) -> "Mapping":
        """Read a name.

        Raises:
          ValueError: anything else.
        """
        how, _, devices = name.partition("/")
        count = how.removesuffix("xvmap")
        if how == "map":
            width = None
        elif how == "vmap":
            width = 0
        elif count != how and count.isdecimal() and int(count) > 0:
            width = int(count)
        else:
            raise ValueError(f"mapping {name!r} is not map/D, vmap/D or kxvmap/D.")
        if not devices.isdecimal() or not int(devices):
            raise ValueError(f"mapping {name!r} needs a number of devices after its slash.")
        return cls(name, width, int(devices))


class Loop(NamedTuple):
    """How the training loop computes; the defaults are those of the laboratory.

    Attributes:
      convolution: a name of `CONVOLUTIONS`; dense networks have none.
      precision: of products and convolutions, a name of `jax.default_matmul_precision`.
      optimizer: a name of `OPTIMIZERS`.
      gather: every step takes its own batch; without it all take the same.
      validate: the loop has its validations.
    """

    convolution: str = "default"
    precision: str = "default"
    optimizer: str = "adam"
    gather: bool = True
    validate: bool = True


WHOLE_LOOP = Loop()


def parse_members(texts: Sequence[str]) -> list[int]:
    """Return the sizes of populations, sorted.

    Raises:
      ValueError: anything but numbers of 1 or more.
    """
    for text in texts:
        if not text.isdecimal() or not int(text):
            raise ValueError(f"--members has {text!r}, expected numbers of 1 or more.")
    return sorted(map(int, texts))


def make_data(task: Task) -> dict[str, Split]:
    """Return random images and labels; the time of a step does not depend on them."""
    random = np.random.default_rng(0)

    def split(count: int) -> Split:
        images = random.integers(0, 256, (count, *task.input_shape), np.uint8)
        return Split(images, random.integers(0, 10, count).astype(np.int32))

    return {"train": split(NUM_TRAIN), "validation": split(task.num_eval)}


def make_mask(params: Any) -> Any:
    """Return a mask that keeps half of the weights of every kernel, and all biases."""
    random = np.random.default_rng(1)
    return jax.tree.map(lambda x: random.random(x.shape) < (0.5 if x.ndim > 1 else 1.0), params)


class Product(NamedTuple):
    """A matrix product `[rows, depth] x [depth, columns]`."""

    rows: int
    depth: int
    columns: int


def training_products(task: Task) -> Counter[Product]:
    """Return the matrix products of a step and the number of times each occurs."""
    products: Counter[Product] = Counter()
    for index, (rows, inputs, outputs, window) in enumerate(layers(task.network, task.input_shape)):
        rows *= BATCH_SIZE
        products[Product(rows, window * inputs, outputs)] += 1
        products[Product(window * inputs, rows, outputs)] += 1
        if index:
            products[Product(rows, window * outputs, inputs)] += 1
    return products


def validation_products(task: Task) -> dict[Product, float]:
    """Return the matrix products of validation per step; large ones count in parts."""
    products: dict[Product, float] = {}
    for rows, inputs, outputs, window in layers(task.network, task.input_shape):
        at_once = min(rows * min(task.num_eval, EVAL_BATCH), MAX_ROWS)
        product = Product(at_once, window * inputs, outputs)
        products[product] = products.get(product, 0) + rows * EVAL_PER_STEP / at_once
    return products


def layers(network: str, input_shape: tuple[int, int, int]) -> list[tuple[int, int, int, int]]:
    """Return rows per image, inputs, outputs and window of each layer."""
    widths = networks.NETWORKS[network]
    side, _, inputs = input_shape
    layers = []
    for channels in widths.pairs:
        layers += [(side * side, inputs, channels, 9), (side * side, channels, channels, 9)]
        side, inputs = side // 2, channels
    inputs *= side * side
    for units in (*widths.hidden, 10):
        layers.append((1, inputs, units, 1))
        inputs = units
    return layers


def step_bytes(task: Task) -> int:
    """Return the bytes that a step of one member moves at least, if no cache holds them.

    Weights are read by the forward pass, the backward pass and Adam, which writes them; gradients
    are written and read, both moments read and written, the mask (a byte each) read. What the
    backward pass needs, the inputs of layers and pools, is written and read in both passes.
    """
    found = layers(task.network, task.input_shape)
    params = sum((window * inputs + 1) * outputs for _, inputs, outputs, window in found)
    before_pools = found[1 : 2 * len(networks.NETWORKS[task.network].pairs) : 2]
    kept = sum(rows * inputs for rows, inputs, _, _ in found)
    kept += sum(rows * outputs for rows, _, outputs, _ in before_pools)
    weights, gradients, moments, mask_bytes, activations = 4, 2, 4, 1, 3
    per_param = FLOAT_BYTES * (weights + gradients + moments) + mask_bytes
    return per_param * params + FLOAT_BYTES * activations * BATCH_SIZE * kept
