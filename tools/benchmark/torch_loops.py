"""The plain PyTorch loop that the benchmarks compare ours with: the same work on the same device.

It has fused Adam, masked gradients and the validation of `loops.Population`, after which it keeps
the best parameters. It runs on a CUDA device if PyTorch sees one. No step reads a value back to
the host.
"""

import importlib
import math
import time
from typing import Any

from experiments.datasets import Split
from experiments.engine.batches import EVAL_BATCH, EVAL_BYTES
from experiments.problems import networks
from tools.benchmark.loops import LEARNING_RATE, process_peak_mb
from tools.benchmark.tasks import BATCH_SIZE, NUM_TRAIN, Task, make_data

TENSORFLOAT = {"float32": False, "tensorfloat32": True}  # "default" is PyTorch's own choice


class Torch:
    """One network by plain autograd, or P networks at once by `torch.func`."""

    compile_s = 0.0  # nothing is compiled

    def __init__(
        self, task: Task, threads: int | None = None, members: int = 1, precision: str = "default"
    ) -> None:
        """Make the networks and the data.

        Args:
          task: the network, and the steps of a turn.
          threads: of PyTorch on a CPU; None leaves their number to PyTorch.
          members: the number of networks P.
          precision: of products and convolutions, a name of `jax.default_matmul_precision`.
        """
        torch: Any = importlib.import_module("torch")
        if threads:
            torch.set_num_threads(threads)
        if precision in TENSORFLOAT:
            torch.backends.cuda.matmul.allow_tf32 = TENSORFLOAT[precision]
            torch.backends.cudnn.allow_tf32 = TENSORFLOAT[precision]
        self._torch, self._on_gpu = torch, torch.cuda.is_available()
        self._device = torch.device("cuda" if self._on_gpu else "cpu")
        self._before, self._member_steps = process_peak_mb(), members * task.steps
        data = make_data(task)
        self._images, self._labels = self._tensors(data["train"])
        largest = 4 * task.input_shape[0] ** 2 * 64 if "conv" in task.network else 4 * 784
        batch = min(EVAL_BATCH, EVAL_BYTES // largest)
        images, labels = self._tensors(data["validation"])
        self._validation = list(zip(images.split(batch), labels.split(batch), strict=True))
        shape = (task.steps, members, BATCH_SIZE)
        self._batches = torch.randint(0, NUM_TRAIN, shape, device=self._device)
        nets = [_make_network(task).to(self._device) for _ in range(members)]
        self._nets = _Several(nets) if members > 1 else _One(nets[0])
        kernels = self._nets.kernels
        self._masked = [(p, (torch.rand_like(p) < 0.5).to(p.dtype)) for p in kernels]
        with torch.no_grad():
            for weight, mask in self._masked:
                weight.mul_(mask)
        self._optimizer = torch.optim.Adam(self._nets.params, LEARNING_RATE, fused=True)
        self._best_loss = torch.full((members,), math.inf, device=self._device)
        self._best = [p.detach().clone() for p in self._nets.params]

    @property
    def peak_mb(self) -> float:
        """Peak memory in megabytes: PyTorch's on the GPU, or the growth of the process."""
        if self._on_gpu:
            return self._torch.cuda.max_memory_allocated() / 1e6
        return process_peak_mb() - self._before

    def turn(self) -> float:
        """Run a turn and return its milliseconds per member-step."""
        self._wait()
        begin = time.perf_counter()
        self._validate()
        for batch in self._batches:
            self._step(batch)
        self._wait()
        return 1e3 * (time.perf_counter() - begin) / self._member_steps

    def _wait(self) -> None:
        if self._on_gpu:
            self._torch.cuda.synchronize()

    def _step(self, batch: Any) -> None:
        self._nets.set_gradients(self._images[batch], self._labels[batch])
        for weight, mask in self._masked:
            weight.grad.mul_(mask)
        self._optimizer.step()

    def _validate(self) -> None:
        with self._torch.no_grad():
            losses = [self._nets.losses(images, labels) for images, labels in self._validation]
            loss = sum(losses) / len(losses)
            better = loss < self._best_loss
            self._best_loss = self._torch.where(better, loss, self._best_loss)
            for best, now in zip(self._best, self._nets.params, strict=True):
                chosen = better.reshape(-1, *[1] * (now.ndim - 1))
                best.copy_(self._torch.where(chosen, now, best))

    def _tensors(self, split: Split) -> tuple[Any, Any]:
        images = self._torch.from_numpy(split.images).to(self._device).permute(0, 3, 1, 2)
        return images, self._torch.from_numpy(split.labels).to(self._device).long()


class _One:
    """One network, in channels-last, which is the faster layout of convolutions.

    Attributes:
      params: its parameters.
      kernels: those of them that have a mask.
    """

    def __init__(self, net: Any) -> None:
        torch: Any = importlib.import_module("torch")
        self._layout, self._cross_entropy = torch.channels_last, torch.nn.functional.cross_entropy
        self._net = net.to(memory_format=self._layout)
        self.params = list(net.parameters())
        self.kernels = [p for p in self.params if p.ndim > 1]

    def set_gradients(self, images: Any, labels: Any) -> None:
        """Set the gradients of a batch, `[1, B, ...]` per tensor."""
        for p in self.params:
            p.grad = None
        self._loss(images[0], labels[0]).backward()

    def losses(self, images: Any, labels: Any) -> Any:
        """Return the mean loss `[1]` of images."""
        return self._loss(images, labels)[None]

    def _loss(self, images: Any, labels: Any) -> Any:
        images = (images.float() / 255).contiguous(memory_format=self._layout)
        return self._cross_entropy(self._net(images), labels)


class _Several:
    """P networks as an ensemble of `torch.func`: stacked parameters under `vmap`.

    Attributes:
      params: their parameters, `[P, ...]`.
      kernels: those of them that have a mask.
    """

    def __init__(self, nets: list[Any]) -> None:
        torch: Any = importlib.import_module("torch")
        self._torch = torch
        self._by_name, _ = torch.func.stack_module_state(nets)
        self.params = list(self._by_name.values())
        self.kernels = [p for p in self.params if p.ndim > 2]
        shapes = nets[0].to("meta")

        def loss(params: Any, images: Any, labels: Any) -> Any:
            logits = torch.func.functional_call(shapes, params, (images.float() / 255,))
            return torch.nn.functional.cross_entropy(logits, labels)

        self._gradients = torch.func.vmap(torch.func.grad(loss))
        self._losses = torch.func.vmap(loss, in_dims=(0, None, None))

    def set_gradients(self, images: Any, labels: Any) -> None:
        """Set the gradients of a batch for each network, `[P, B, ...]` per tensor."""
        with self._torch.no_grad():  # there is no second derivative
            gradients = self._gradients(self._by_name, images, labels)
        for name, p in self._by_name.items():
            p.grad = gradients[name]

    def losses(self, images: Any, labels: Any) -> Any:
        """Return the mean loss `[P]` of images, the same for all networks."""
        return self._losses(self._by_name, images, labels)


def _make_network(task: Task) -> Any:
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
