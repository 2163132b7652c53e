"""A small residual network of my lab."""

import flax.linen as nn

from experiments.problems.networks import as_network
from experiments.problems.own_networks import schedule


class Residual(nn.Module):
    """A convolution, blocks that add two convolutions to their input, and a linear layer."""

    num_classes: int
    channels: int = 4
    blocks: int = 1

    @nn.compact
    def __call__(self, images):
        values = nn.Conv(self.channels, (3, 3), name="stem")(images)
        for block in range(self.blocks):
            inner = nn.GroupNorm(2, name=f"norm{block}")(values)
            inner = nn.relu(nn.Conv(self.channels, (3, 3), name=f"conv{block}_in")(inner))
            values += nn.Conv(self.channels, (3, 3), name=f"conv{block}_out")(inner)
        return nn.Dense(self.num_classes, name="head")(values.mean(axis=(1, 2)))


@schedule(
    dataset="my_lab.data:load",
    learning_rate=1e-3,
    epochs=20,
    rates=[("conv.*/kernel", 0.1), ("head/kernel", 0.05)],
)
def small_resnet(image_shape, num_classes):
    """Return the network for images (H, W, C) and a number of classes."""
    return as_network(Residual(num_classes), image_shape)
