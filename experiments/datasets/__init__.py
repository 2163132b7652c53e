"""Named data sets as NumPy arrays in memory, split in the same way in every run.

`digits` comes with scikit-learn. `mnist` and `cifar10` are read, without TensorFlow, from a
folder of TensorFlow Datasets: `--data_dir`, or else the environment variable `TFDS_DATA_DIR`,
or else `~/tensorflow_datasets`. This command downloads a data set into such a folder:

    python -m experiments.datasets mnist --data_dir=DIR

In `[N, H, W, C]`, the axes are images, height, width and channels.
"""

import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.datasets import prepared
from supermask_jax.checks import lookup

NUM_VALIDATION = {"mnist": 5_000, "cifar10": 5_000}  # images taken from the training set
NUM_DIGITS_VALIDATION, NUM_DIGITS_TEST = 200, 300
SPLIT_SEED = 2019


class Split(NamedTuple):
    """Images, uint8 `[N, H, W, C]` in [0, 255], and their labels, int32 `[N]`."""

    images: np.ndarray
    labels: np.ndarray


class Dataset(NamedTuple):
    """A data set: `train` for training, `validation` for choosing, `test` for reporting."""

    name: str
    train: Split
    validation: Split
    test: Split
    num_classes: int

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape `[H, W, C]` of one image."""
        return self.train.images.shape[1:]

    def checksum(self) -> str:
        """Return sixteen hexadecimal digits of the SHA-256 of all splits."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            for array in split:
                digest.update(f"{array.dtype}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]


def load(name: str, data_dir: str | None = None) -> Dataset:
    """Load a data set from disk, without a network connection.

    The splits are the same in every run. They do not depend on the order of the records on disk,
    which differs between prepared copies.

    Args:
      name: `digits`, `mnist` or `cifar10`.
      data_dir: a folder of TensorFlow Datasets; None means `TFDS_DATA_DIR`, or else
        `~/tensorflow_datasets`. `digits` does not need one.

    Raises:
      ValueError: if the name is unknown, or if the data set is damaged or of another kind (see
        `prepared`).
      FileNotFoundError: if the folder does not contain the data set.
      OSError: if the folder is none, or if a file may not be read.
    """
    return lookup("data set", name, LOADERS)(data_root(data_dir))


def data_root(data_dir: str | None) -> Path:
    """Return the folder of TensorFlow Datasets: `data_dir`, or the default if that is None.

    Raises:
      ValueError: if it begins with `~` and an unknown user.
    """
    # tfds reads the variable only once, when it is imported; this reads it at every call.
    named = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    try:
        return Path(named).expanduser()
    except RuntimeError as error:
        raise ValueError(f"the folder {named!r} names a user without a home directory") from error


def _load_digits(root: Path) -> Dataset:
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    shuffled = _shuffled(Split(images, digits.target.astype(np.int32)))
    validation, rest = _cut(shuffled, NUM_DIGITS_VALIDATION)
    test, train = _cut(rest, NUM_DIGITS_TEST)
    return Dataset("digits", train, validation, test, num_classes=10)


def _load_prepared(name: str, root: Path) -> Dataset:
    folder = prepared.find(name, root)
    if folder is None:
        raise prepared.missing(name, root)
    data = prepared.open_folder(folder)
    train, test = (Split(*prepared.read(data, split)) for split in prepared.SPLITS)
    prepared.check_training(data, train.labels, NUM_VALIDATION[name])
    validation, train = _cut(_shuffled(train), NUM_VALIDATION[name])
    return Dataset(name, train, validation, test, data.num_classes)


def _shuffled(split: Split) -> Split:
    # Sort by pixels first, so that the split does not depend on the order of the records.
    pixels = split.images.reshape(len(split.images), -1)
    canonical = np.argsort(pixels.view(f"V{pixels.shape[1]}").ravel(), kind="stable")
    order = np.random.default_rng(SPLIT_SEED).permutation(canonical)
    return Split(split.images[order], split.labels[order])


def _cut(split: Split, num: int) -> tuple[Split, Split]:
    return Split(*(a[:num] for a in split)), Split(*(a[num:] for a in split))


# Every loader gets the folder of TensorFlow Datasets, even one that does not need it.
LOADERS: dict[str, Callable[[Path], Dataset]] = {
    "digits": _load_digits,
    **{name: functools.partial(_load_prepared, name) for name in NUM_VALIDATION},
}
