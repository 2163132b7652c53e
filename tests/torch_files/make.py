"""Makes the files of this folder with PyTorch: `python -m tests.torch_files.make`.

Each has the state dict of a small network that was pruned and trained for a few steps, under its
own names, with `inputs` and the `logits` that PyTorch computes for them.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

FOLDER = Path(__file__).parent
IMAGE = (3, 8, 12)  # (C, H, W), all different


class Conv2(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.fc1 = nn.Linear(8 * 4 * 6, 16)
        self.fc2 = nn.Linear(16, 16)
        self.fc3 = nn.Linear(16, 5)

    def forward(self, x):
        x = self.conv2(self.conv1(x).relu()).relu()
        x = nn.functional.max_pool2d(x, 2).flatten(1)
        return self.fc3(self.fc2(self.fc1(x).relu()).relu())


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride > 1:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + self.shortcut(x)).relu()


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(Block(8, 8, 1), Block(8, 16, 2))
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        x = self.blocks(self.bn1(self.conv1(x)).relu())
        return self.fc(x.mean((2, 3)))


class Masked(nn.Module):
    """A parametrization that multiplies by a mask."""

    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight):
        return weight * self.mask


def mlp():
    layers = [nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 5)]
    return nn.Sequential(*layers)


def kernels(net):
    return [module for module in net.modules() if isinstance(module, nn.Linear | nn.Conv2d)]


def pruned(net):
    for module in kernels(net):
        prune.l1_unstructured(module, "weight", amount=0.6)
    return net


def removed(net):
    for module in kernels(pruned(net)):
        prune.remove(module, "weight")
    return net


def parametrized(net):
    for module in kernels(net):
        mask = module.weight.abs() > module.weight.abs().median()
        parametrize.register_parametrization(module, "weight", Masked(mask))
    return net


def trained(net, x):
    """Take steps with weight decay, which moves the pruned weights, too."""
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), torch.arange(len(x)) % 5).backward()
        optimizer.step()
    return net.eval()


def make(name):
    """Return a network of `NETWORKS` and inputs for it."""
    torch.manual_seed(0)
    build, convert = NETWORKS[name]
    x = torch.randn(6, *((12,) if build is mlp else IMAGE)) + 0.5
    if convert is removed:
        return removed(trained(build(), x)).eval(), x
    return trained(convert(build()), x), x


NETWORKS = {
    "mlp": (mlp, pruned),
    "mlp_removed": (mlp, removed),
    "conv2": (Conv2, parametrized),
    "resnet": (ResNet, pruned),
}


def arrays(net):
    return {name: tensor.numpy(force=True) for name, tensor in net.state_dict().items()}


def main():
    for name in NETWORKS:
        net, x = make(name)
        told = {"inputs": x.numpy(), "logits": net(x).numpy(force=True)}
        np.savez_compressed(FOLDER / f"{name}.npz", **arrays(net), **told)


if __name__ == "__main__":
    main()
