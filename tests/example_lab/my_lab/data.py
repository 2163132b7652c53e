"""A data set of my lab: which of three shapes is in a noisy picture."""

import numpy as np

from experiments.datasets import Dataset, Split

SHAPES = np.zeros((3, 12, 12), np.uint8)
SHAPES[0, 3:9, 3:9] = 160  # a square
SHAPES[1, 5:7, 1:11] = SHAPES[1, 1:11, 5:7] = 160  # a cross
SHAPES[2, 1:11:2] = 160  # stripes


def load(data_dir):
    """Return the data set; data_dir is the folder of --data_dir, which this one does not need."""
    random = np.random.default_rng(0)

    def split(number):
        labels = random.integers(len(SHAPES), size=number)
        noise = random.integers(95, size=(number, 12, 12), dtype=np.uint8)
        return Split(SHAPES[labels] + noise, labels)

    return Dataset("shapes", split(300), split(60), split(60), num_classes=len(SHAPES))
