"""Named data sets as numpy arrays in memory, cut into the same three splits in every run.

`digits` comes with scikit-learn. `mnist` and `cifar10` are read, without TensorFlow, from a
folder of TensorFlow Datasets: `--data_dir`, or else the environment variable `TFDS_DATA_DIR`,
or else `~/tensorflow_datasets`. Once, with a network, this fills such a folder:

    python -m experiments.datasets mnist --data_dir=DIR

`[N, H, W, C]` is number of images, height, width, channels.
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

NUM_VALIDATION = {"mnist": 5_000, "cifar10": 5_000}  # images, of each prepared data set
NUM_DIGITS_VALIDATION, NUM_DIGITS_TEST = 200, 300
SPLIT_SEED = 2019
BLOCK = 1_000  # records read at once; one by one would take twice as long


class Split(NamedTuple):
    """Images `[N, H, W, C]` uint8, 0 to 255, and their labels `[N]` int32."""

    images: np.ndarray
    labels: np.ndarray


class Dataset(NamedTuple):
    """A data set: `train` to learn from, `validation` to choose by, `test` to report."""

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
        """Sixteen hexadecimal digits that tell whether two copies hold the same splits."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            for array in split:
                digest.update(f"{array.dtype}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]


def load(name: str, data_dir: str | None = None) -> Dataset:
    """Load a data set: `digits`, `mnist` or `cifar10`. Never touches the network.

    Which images belong to which split is the same in all runs and does not depend on the order
    of the records on disk, which differs between prepared copies.

    Args:
      name: which data set.
      data_dir: a folder of TensorFlow Datasets; None means `TFDS_DATA_DIR`, or else
        `~/tensorflow_datasets`. `digits` needs none.

    Raises:
      ValueError: there is no such data set, or it was prepared in a format that only
        TensorFlow reads.
      FileNotFoundError: the folder does not have it.
    """
    return lookup("data set", name, LOADERS)(data_root(data_dir))


def data_root(data_dir: str | None) -> Path:
    """The folder of TensorFlow Datasets: the one named, or else the default."""
    # tfds reads the variable only when it is first imported; here it counts at every call.
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
            f"`python -m experiments.datasets {name} --data_dir={root}`, or name a folder that "
            "has it by the environment variable TFDS_DATA_DIR"
        )
    builder = open_prepared(folder)
    validation, train = _cut(_shuffled(_read(builder, "train")), NUM_VALIDATION[name])
    num_classes = builder.info.features["label"].num_classes
    return Dataset(name, train, validation, _read(builder, "test"), num_classes)


def _shuffled(split: Split) -> Split:
    # Sorted by their pixels first, so that the record order of a copy has no say.
    pixels = split.images.reshape(len(split.images), -1)
    canonical = np.argsort(pixels.view(f"V{pixels.shape[1]}").ravel(), kind="stable")
    order = np.random.default_rng(SPLIT_SEED).permutation(canonical)
    return Split(split.images[order], split.labels[order])


def _cut(split: Split, num: int) -> tuple[Split, Split]:
    return Split(*(a[:num] for a in split)), Split(*(a[num:] for a in split))


def prepared_folder(name: str, root: Path) -> Path | None:
    """The newest version of a data set below a folder; None if there is none."""
    # Not asked of a builder: that knows only its own version and, to be made, may want a network.
    versions = [
        file.parent
        for file in (root / name).glob("*/features.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", file.parent.name)
    ]
    return max(versions, key=lambda v: [int(n) for n in v.name.split(".")], default=None)


def open_prepared(folder: Path) -> Any:
    """A builder that reads what is in a folder.

    Raises:
      ValueError: if it was prepared in a format that only TensorFlow reads.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(folder))
    formats = sorted(f.value for f in builder.info.available_file_formats())
    if "array_record" not in formats:
        raise ValueError(
            f"{folder} has the format {' and '.join(formats)}, but only array_record can be read "
            "without TensorFlow; prepare the data set in another folder with "
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


# Each is given the folder of TensorFlow Datasets, whether it needs it or not.
LOADERS: dict[str, Callable[[Path], Dataset]] = {
    "digits": _load_digits,
    **{name: functools.partial(_load_prepared, name) for name in NUM_VALIDATION},
}
