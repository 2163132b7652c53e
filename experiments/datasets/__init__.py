"""Named data sets as NumPy arrays in memory, split in the same way in every run.

`digits` comes with scikit-learn. `mnist` and `cifar10` are read, without TensorFlow, from a
folder of TensorFlow Datasets: `--data_dir`, or else the environment variable `TFDS_DATA_DIR`,
or else `~/tensorflow_datasets`. This command downloads a data set into such a folder:

    python -m experiments.datasets mnist --data_dir=DIR

In `[N, H, W, C]`, the axes are images, height, width and channels.
"""

import functools
import hashlib
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from supermask_jax.checks import lookup

NUM_VALIDATION = {"mnist": 5_000, "cifar10": 5_000}  # images taken from the training set
NUM_DIGITS_VALIDATION, NUM_DIGITS_TEST = 200, 300
SPLIT_SEED = 2019
BLOCK = 1_000  # records read at once; one by one takes twice as long


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
      ValueError: if the name is unknown, or if the data set was prepared in a format that only
        TensorFlow can read.
      FileNotFoundError: if the folder does not contain the data set.
    """
    return lookup("data set", name, LOADERS)(data_root(data_dir))


def data_root(data_dir: str | None) -> Path:
    """Return the folder of TensorFlow Datasets: `data_dir`, or the default if that is None."""
    # tfds reads the variable only once, when it is imported; this reads it at every call.
    named = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(named).expanduser()


def _load_digits(root: Path) -> Dataset:
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    shuffled = _shuffled(Split(images, digits.target.astype(np.int32)))
    validation, rest = _cut(shuffled, NUM_DIGITS_VALIDATION)
    test, train = _cut(rest, NUM_DIGITS_TEST)
    return Dataset("digits", train, validation, test, num_classes=10)


def _load_prepared(name: str, root: Path) -> Dataset:
    folder = prepared_folder(name, root)
    if folder is None:
        raise FileNotFoundError(
            f"no data set {name!r} in {root}; prepare it with "
            f"`python -m experiments.datasets {name} --data_dir={root}`, or set the environment "
            "variable TFDS_DATA_DIR to a folder that has it"
        )
    builder = open_prepared(folder)
    validation, train = _cut(_shuffled(_read(builder, "train")), NUM_VALIDATION[name])
    num_classes = builder.info.features["label"].num_classes
    return Dataset(name, train, validation, _read(builder, "test"), num_classes)


def _shuffled(split: Split) -> Split:
    # Sort by pixels first, so that the split does not depend on the order of the records.
    pixels = split.images.reshape(len(split.images), -1)
    canonical = np.argsort(pixels.view(f"V{pixels.shape[1]}").ravel(), kind="stable")
    order = np.random.default_rng(SPLIT_SEED).permutation(canonical)
    return Split(split.images[order], split.labels[order])


def _cut(split: Split, num: int) -> tuple[Split, Split]:
    return Split(*(a[:num] for a in split)), Split(*(a[num:] for a in split))


def prepared_folder(name: str, root: Path) -> Path | None:
    """Return the folder of the newest version of a data set under `root`; None if there is none."""
    # A tfds builder finds only its own version, and creating one may need a network.
    versions = [
        file.parent
        for file in (root / name).glob("*/features.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", file.parent.name)
    ]
    return max(versions, key=lambda v: [int(n) for n in v.name.split(".")], default=None)


def open_prepared(folder: Path) -> Any:
    """Return a tfds builder that reads a prepared folder.

    Raises:
      ValueError: if the data set was prepared in a format that only TensorFlow can read.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(folder))
    formats = sorted(f.value for f in builder.info.available_file_formats())
    if "array_record" not in formats:
        raise ValueError(
            f"{folder} has the format {' and '.join(formats)}, but only array_record can be read "
            "without TensorFlow; prepare the data set in another folder, with "
            f"`python -m experiments.datasets {builder.name} --data_dir=DIR`"
        )
    return builder


def _read(builder: Any, split: str) -> Split:
    import tensorflow_datasets as tfds
    from PIL import Image

    shape = builder.info.features["image"].shape
    source = builder.as_data_source(
        split, decoders={"image": tfds.decode.SkipDecoding()}, file_format="array_record"
    )
    images = np.empty((len(source), *shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    for start in range(0, len(source), BLOCK):
        block = range(start, min(start + BLOCK, len(source)))
        for i, record in zip(block, source.__getitems__(block), strict=True):
            images[i] = np.asarray(Image.open(io.BytesIO(record["image"]))).reshape(shape)
            labels[i] = record["label"]
    return Split(images, labels)


# Every loader gets the folder of TensorFlow Datasets, even one that does not need it.
LOADERS: dict[str, Callable[[Path], Dataset]] = {
    "digits": _load_digits,
    **{name: functools.partial(_load_prepared, name) for name in NUM_VALIDATION},
}
