"""What the benchmarks measure: our population, bare products, a PyTorch loop, the memory.

The loops train as many steps as they are asked to in a turn, with their share of the validation at
the paper's grid (5,000 images every 100 steps), and tell milliseconds per member-step.
"""

import importlib
import resource
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from experiments.datasets import Split
from experiments.engine.forecast import largest_value
from experiments.engine.trainer import (
    EVAL_BATCH,
    EVAL_BYTES,
    batch_table,
    eval_batches,
    get_batch,
    make_loss,
    measure,
)
from experiments.problems import convolutions, networks
from supermask_jax import population
from supermask_jax.training import Stream, Training, make_training
from supermask_jax.transforms import freeze_pruned

BATCH_SIZE = 60
NUM_TRAIN = 6000
EVAL_PER_STEP = 50  # 5,000 images of validation every 100 steps
LEARNING_RATE = 1e-3
MAX_ROWS = 61440  # of a matrix product; more are timed in parts
MIN_SECONDS = 0.02  # of one timing of a matrix product
AXPYS = 10  # of one turn
FLOAT_BYTES = 4

CONVOLUTIONS = {
    "default": convolutions.convolve,
    "lax": lax.conv_general_dilated,
    "canonical": convolutions.canonical_conv,
    "shifted": convolutions.shifted_conv,
}
OPTIMIZERS = {"adam": optax.adam, "sgd": optax.sgd}


class Task(NamedTuple):
    """What is trained: a network by name, and the steps of one turn."""

    network: str
    steps: int

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Of one image, `(H, W, C)`."""
        return (28, 28, 1) if self.network == "lenet300" else (32, 32, 3)

    @property
    def num_eval(self) -> int:
        """Images of validation in one turn."""
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
    """How the training loop computes, by default as the laboratory's.

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
    """Sizes of populations, in order.

    Raises:
      ValueError: anything but numbers of 1 or more.
    """
    for text in texts:
        if not text.isdecimal() or not int(text):
            raise ValueError(f"--members has {text!r}, expected numbers of 1 or more.")
    return sorted(map(int, texts))


def use_devices(count: int) -> None:
    """So many XLA devices on a CPU; before the first use of JAX in a process."""
    jax.config.update("jax_num_cpu_devices", count)


def make_data(task: Task) -> dict[str, Split]:
    """Random images and labels: the time of a step does not depend on them."""
    random = np.random.default_rng(0)

    def split(count: int) -> Split:
        images = random.integers(0, 256, (count, *task.input_shape), np.uint8)
        return Split(images, random.integers(0, 10, count).astype(np.int32))

    return {"train": split(NUM_TRAIN), "validation": split(task.num_eval)}


def make_mask(params: Any) -> Any:
    """Half of the weights of every kernel; biases whole."""
    random = np.random.default_rng(1)
    return jax.tree.map(lambda x: random.random(x.shape) < (0.5 if x.ndim > 1 else 1.0), params)


class Population:
    """Members trained by the laboratory's program.

    Attributes:
      compile_s: seconds that XLA took.
      peak_mb: growth of the process's memory since before anything was made, or what the
        accelerator reports; read after a turn.
    """

    def __init__(self, task: Task, members: int, mapping: Mapping, loop: Loop = WHOLE_LOOP) -> None:
        """Make data and states and compile."""
        before = _peak_mb()
        network = _make_network(task, loop.convolution)
        params = jax.jit(network.init)(jax.random.key(0))
        training = _make_training(task, network, loop)
        mesh = population.make_mesh(jax.devices()[: mapping.devices])
        local = -(-members // mesh.size)
        width = mapping.width if mapping.width is None else min(mapping.width or local, local)
        multiple = mesh.size * (width or 1)

        def place(tree: Any) -> Any:
            many = jax.tree.map(lambda x: jnp.broadcast_to(x, (members, *x.shape)), tree)
            return population.shard(population.pad(many, multiple), mesh)

        mask = make_mask(params)
        start = jax.tree.map(lambda w, m: jnp.where(m, w, 0), params, mask)
        self._states = place(jax.jit(training.init)(start))
        stream = Stream(jnp.int32(0), jax.random.key(2), {"mask": jax.tree.map(jnp.asarray, mask)})
        self._rest = (
            place(stream),
            population.replicate(jnp.int32(0), mesh),
            population.replicate(_shared_data(task, params), mesh),
        )
        mapped = population.map_members(training.run_chunk, batch_size=width, mesh=mesh)
        begin = time.perf_counter()
        with jax.default_matmul_precision(loop.precision):
            lowered = jax.jit(mapped, donate_argnums=0).lower(self._states, *self._rest)
        self._program = lowered.compile()
        self.compile_s = time.perf_counter() - begin
        self._before, self._member_steps = before, members * task.steps

    @property
    def peak_mb(self) -> float:
        """Megabytes, see the class."""
        return _peak_mb() - self._before

    def turn(self) -> float:
        """Milliseconds per member-step of one turn."""
        begin = time.perf_counter()
        self._states, _ = self._program(self._states, *self._rest)
        jax.block_until_ready(self._states)
        return 1e3 * (time.perf_counter() - begin) / self._member_steps


def _make_network(task: Task, convolution: str = "default") -> networks.Network:
    widths = networks.NETWORKS[task.network]
    module = networks.Classifier(widths, convolve=CONVOLUTIONS[convolution])
    return networks.as_network(module, task.input_shape)


def _make_training(task: Task, network: networks.Network, loop: Loop) -> Training:
    def validate(params: Any, data: Any, _: Any) -> Any:
        return measure(network.apply, params, data["validation"])

    def skip(*_: Any) -> Any:
        return {"loss": jnp.float32(0)}

    def get_same_batch(data: Any, *_: Any) -> Any:
        return jax.tree.map(lambda x: x[:BATCH_SIZE], data["train"])

    return make_training(
        make_loss(network.apply),
        validate if loop.validate else skip,
        freeze_pruned(OPTIMIZERS[loop.optimizer](LEARNING_RATE)),
        get_batch if loop.gather else get_same_batch,
        num_steps=2 * task.steps,  # a turn is one evaluation and the steps that follow it
        eval_every=task.steps,
        chunk_evals=1,
    )


def _shared_data(task: Task, params: Any) -> Any:
    """Data and batches; validation in the same batches whatever computes the convolutions."""
    data = make_data(task)
    image = np.empty((1, *task.input_shape), np.float32)
    batch = min(EVAL_BATCH, EVAL_BYTES // largest_value(_make_network(task).apply, params, image))
    table = batch_table(
        jax.random.split(jax.random.key(1), 1),
        num_examples=NUM_TRAIN,
        num_steps=task.steps,
        batch_size=BATCH_SIZE,
    )
    validation = eval_batches(data["validation"], batch)
    return {"train": data["train"]._asdict(), "batches": table, "validation": validation}


def step_bytes(task: Task) -> int:
    """Bytes that a step of one member reads and writes at least, if no cache holds them.

    Weights are read by the forward pass, the backward pass and Adam, which writes them; gradients
    are written and read, both moments read and written, the mask (a byte each) read. What the
    backward pass needs, the inputs of layers and pools, is written and read in both passes.
    """
    layers = _layers(task.network, task.input_shape)
    params = sum((window * inputs + 1) * outputs for _, inputs, outputs, window in layers)
    before_pools = layers[1 : 2 * len(networks.NETWORKS[task.network].pairs) : 2]
    kept = sum(rows * inputs for rows, inputs, _, _ in layers)
    kept += sum(rows * outputs for rows, _, outputs, _ in before_pools)
    weights, gradients, moments, mask_bytes, activations = 4, 2, 4, 1, 3
    per_param = FLOAT_BYTES * (weights + gradients + moments) + mask_bytes
    return per_param * params + FLOAT_BYTES * activations * BATCH_SIZE * kept


class Axpy:
    """`a x + y` of large vectors, which moves three of them through the device's memory.

    Attributes:
      device: its name.
    """

    def __init__(self, size: int) -> None:
        """Make vectors of so many float32; three of them should not fit a cache."""
        self._x, self._y = jnp.ones(size), jnp.zeros(size)
        self._program = jax.jit(lambda x, y: 0.5 * x + y, donate_argnums=1)
        self._bytes = 3 * FLOAT_BYTES * size
        self.device = jax.devices()[0].device_kind

    def turn(self) -> float:
        """Bytes per second."""
        jax.block_until_ready(self._y)
        begin = time.perf_counter()
        for _ in range(AXPYS):
            self._y = self._program(self._x, self._y)
        jax.block_until_ready(self._y)
        return AXPYS * self._bytes / (time.perf_counter() - begin)


class Product(NamedTuple):
    """A matrix product `[rows, depth] x [depth, columns]`."""

    rows: int
    depth: int
    columns: int


def training_products(task: Task) -> Counter[Product]:
    """The matrix products of a step and how often each is done."""
    products: Counter[Product] = Counter()
    for index, (rows, inputs, outputs, window) in enumerate(
        _layers(task.network, task.input_shape)
    ):
        rows *= BATCH_SIZE
        products[Product(rows, window * inputs, outputs)] += 1
        products[Product(window * inputs, rows, outputs)] += 1
        if index:
            products[Product(rows, window * outputs, inputs)] += 1
    return products


def validation_products(task: Task) -> dict[Product, float]:
    """The matrix products of a step's share of validation; large ones count in parts."""
    products: dict[Product, float] = {}
    for rows, inputs, outputs, window in _layers(task.network, task.input_shape):
        at_once = min(rows * min(task.num_eval, EVAL_BATCH), MAX_ROWS)
        product = Product(at_once, window * inputs, outputs)
        products[product] = products.get(product, 0) + rows * EVAL_PER_STEP / at_once
    return products


def _layers(network: str, input_shape: tuple[int, int, int]) -> list[tuple[int, int, int, int]]:
    """Rows per image, inputs, outputs and window of each layer."""
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


LAYOUTS = ("mk,kn->mn", "km,kn->mn", "mk,nk->mn", "km,nk->mn")


class Floor:
    """The matrix products alone, each in the fastest of several ways, on all devices.

    A way is an order of the operands' axes in memory, in XLA with one product per device or in
    numpy with all cores on one product.
    """

    def __init__(self, task: Task, devices: int) -> None:
        """Try all ways of each product and keep the fastest."""
        self._mesh = population.make_mesh(jax.devices()[:devices])
        self._training = training_products(task)
        self._validation = validation_products(task)
        self._best = {p: self._fastest(p) for p in {*self._training, *self._validation}}

    def turn(self) -> tuple[float, float]:
        """Milliseconds per member-step of training and of validation."""
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


class Torch:
    """The same work as a plain PyTorch loop: fused Adam, masked gradients, no host read a step.

    Convolutional networks use channels-last, which is the faster layout.
    """

    def __init__(self, task: Task, threads: int) -> None:
        """Make network and data; `threads` are PyTorch's."""
        torch: Any = importlib.import_module("torch")
        torch.set_num_threads(threads)
        self._torch, self._steps = torch, task.steps
        data = make_data(task)
        self._layout = torch.channels_last
        self._net = _torch_network(task).to(memory_format=self._layout)
        weights = [p for p in self._net.parameters() if p.ndim > 1]
        self._masked = [(p, (torch.rand_like(p) < 0.5).to(p.dtype)) for p in weights]
        with torch.no_grad():
            for weight, mask in self._masked:
                weight.mul_(mask)
        self._optimizer = torch.optim.Adam(self._net.parameters(), LEARNING_RATE, fused=True)
        self._images, self._labels = self._tensors(data["train"])
        largest = 4 * task.input_shape[0] ** 2 * 64 if "conv" in task.network else 4 * 784
        batch = min(EVAL_BATCH, EVAL_BYTES // largest)
        images, labels = self._tensors(data["validation"])
        self._validation = list(zip(images.split(batch), labels.split(batch), strict=True))
        self._batches = torch.randint(0, NUM_TRAIN, (task.steps, BATCH_SIZE))
        self._best_loss, self._best = float("inf"), []

    def turn(self) -> float:
        """Milliseconds per member-step of one turn."""
        begin = time.perf_counter()
        self._validate()
        for batch in self._batches:
            self._step(batch)
        return 1e3 * (time.perf_counter() - begin) / self._steps

    def _step(self, batch: Any) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        self._loss(self._images[batch], self._labels[batch]).backward()
        for weight, mask in self._masked:
            weight.grad.mul_(mask)
        self._optimizer.step()

    def _validate(self) -> None:
        with self._torch.no_grad():
            losses = [self._loss(images, labels) for images, labels in self._validation]
            loss = float(sum(losses) / len(losses))
            if loss < self._best_loss:
                self._best_loss = loss
                self._best = [p.detach().clone() for p in self._net.parameters()]

    def _loss(self, images: Any, labels: Any) -> Any:
        images = (images.float() / 255).contiguous(memory_format=self._layout)
        return self._torch.nn.functional.cross_entropy(self._net(images), labels)

    def _tensors(self, split: Split) -> tuple[Any, Any]:
        images = self._torch.from_numpy(split.images).permute(0, 3, 1, 2)
        return images, self._torch.from_numpy(split.labels).long()


def _torch_network(task: Task) -> Any:
    nn: Any = importlib.import_module("torch.nn")
    widths = networks.NETWORKS[task.network]
    side, _, inputs = task.input_shape
    layers: list[Any] = []
    for channels in widths.pairs:
        for _ in range(2):
            layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU()]
            inputs = channels
        layers.append(nn.MaxPool2d(2))
        side //= 2
    layers.append(nn.Flatten())
    inputs *= side * side
    for units in widths.hidden:
        layers += [nn.Linear(inputs, units), nn.ReLU()]
        inputs = units
    return nn.Sequential(*layers, nn.Linear(inputs, 10))


def _peak_mb() -> float:
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
