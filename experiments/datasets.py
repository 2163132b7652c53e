"""Named data sets as numpy arrays in memory, cut into the same three splits in every run.

`digits` comes with scikit-learn. `mnist` and `cifar10` are read, without TensorFlow, from a
folder of TensorFlow Datasets: `--data_dir`, or else the environment variable `TFDS_DATA_DIR`,
or else `~/tensorflow_datasets`. Once, with a network, this fills such a folder:

    python -m experiments.datasets mnist --data_dir=DIR

`[N, H, W, C]` is number of images, height, width, channels.
"""

import argparse
import gzip
import hashlib
import io
import os
import re
import sys
import tarfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from supermask_jax.checks import lookup

NUM_VALIDATION = {"digits": 200, "mnist": 5_000, "cifar10": 5_000}
NUM_DIGITS_TEST = 300
SPLIT_SEED = 2019
BLOCK = 1_000  # records read at once; one by one would take twice as long
TIMEOUT_SECONDS = 10

MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
MNIST_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_FILES = {
    "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    "test": ("test_batch.bin",),
}


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
    lookup("data set", name, NUM_VALIDATION)
    return _load_digits() if name == "digits" else _load_prepared(name, _root(data_dir))


def prepare(name: str, data_dir: str | None = None) -> Path:
    """Download a data set and write it as TensorFlow Datasets does, but without TensorFlow.

    What is there already is left alone.

    Args:
      name: `mnist` (12 MB to download) or `cifar10` (170 MB).
      data_dir: as for `load`; created if need be.

    Returns:
      The folder that now holds the data set, `<data_dir>/<name>/<version>`.

    Raises:
      ValueError: there is no such data set to prepare, or it is there in another format.
      ConnectionError: its server does not answer within seconds, or the download failed.
    """
    original = lookup("data set to prepare", name, _ORIGINALS)
    root = _root(data_dir)
    folder = _prepared_folder(name, root)
    if folder:
        _open(folder)
        return folder
    _check_connection(original.url)
    return _download_and_prepare(name, root)


def _root(data_dir: str | None) -> Path:
    # tfds reads the variable only when it is first imported; here it counts at every call.
    named = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(named).expanduser()


def _load_digits() -> Dataset:
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    shuffled = _shuffled(Split(images, digits.target.astype(np.int32)))
    validation, rest = _cut(shuffled, NUM_VALIDATION["digits"])
    test, train = _cut(rest, NUM_DIGITS_TEST)
    return Dataset("digits", train, validation, test, num_classes=10)


def _load_prepared(name: str, root: Path) -> Dataset:
    folder = _prepared_folder(name, root)
    if folder is None:
        raise FileNotFoundError(
            f"no data set {name!r} in {root}; prepare it with "
            f"`python -m experiments.datasets {name} --data_dir={root}`, or name a folder that "
            "has it by the environment variable TFDS_DATA_DIR"
        )
    builder = _open(folder)
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


def _prepared_folder(name: str, root: Path) -> Path | None:
    # Not asked of a builder: that knows only its own version and, to be made, may want a network.
    versions = [
        file.parent
        for file in (root / name).glob("*/features.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", file.parent.name)
    ]
    return max(versions, key=lambda v: [int(n) for n in v.name.split(".")], default=None)


def _open(folder: Path) -> Any:
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


def _check_connection(url: str) -> None:
    # tfds alone would try again for minutes before it gave up.
    try:
        urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS).close()
    except OSError as error:
        raise ConnectionError(
            f"cannot reach {url} ({error}); without a network, copy a folder prepared elsewhere"
        ) from error


def _download_and_prepare(name: str, root: Path) -> Path:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.core.download.util import DownloadError

    official: Any = tfds.builder_cls(name)

    class Builder(official, skip_registration=True):  # pyright: ignore
        name = official.name
        __module__ = official.__module__  # stored with the data, and tells where checksums are

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
            return _ORIGINALS[self.name].splits(dl_manager, self.info.features)

    builder = Builder(data_dir=str(root), file_format="array_record")
    config = tfds.download.DownloadConfig(try_download_gcs=False, force_checksums_validation=True)
    try:
        builder.download_and_prepare(download_config=config)
    except (NonMatchingChecksumError, DownloadError) as error:
        reason = str(error).splitlines()[0]
        raise ConnectionError(f"the download failed or was changed on its way: {reason}") from error
    return Path(builder.data_dir)


def _mnist_splits(dl_manager: Any, features: Any) -> dict[str, Iterator[Any]]:
    paths = dl_manager.download(
        {split: [MNIST_URL + file for file in files] for split, files in MNIST_FILES.items()}
    )
    return {
        split: enumerate(_examples(_read_idx(images), _read_idx(labels)))
        for split, (images, labels) in paths.items()
    }


def _cifar10_splits(dl_manager: Any, features: Any) -> dict[str, Iterator[Any]]:
    with tarfile.open(dl_manager.download(CIFAR10_URL)) as tar:
        files = {Path(m.name).name: file.read() for m in tar if (file := tar.extractfile(m))}
    features["label"].names = files["batches.meta.txt"].decode().split()
    return {
        split: enumerate(_cifar10_examples(split, b"".join(files[name] for name in names)))
        for split, names in CIFAR10_FILES.items()
    }


def _cifar10_examples(split: str, data: bytes) -> Iterator[dict[str, Any]]:
    # One record: a byte of label, then the planes red, green, blue.
    records = np.frombuffer(data, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    for i, example in enumerate(_examples(images, records[:, 0])):
        yield {"id": f"{split}_{i:05d}", **example}


def _read_idx(path: Path) -> np.ndarray:
    """Read the format of the original MNIST files: 2 zeros, type, rank, shape, then values."""
    data = gzip.decompress(path.read_bytes())
    rank = data[3]
    shape = np.frombuffer(data, ">u4", count=rank, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _examples(images: np.ndarray, labels: np.ndarray) -> Iterator[dict[str, Any]]:
    # tfds needs TensorFlow to encode arrays, but not to encode Pillow's images (as PNG).
    from PIL import Image

    for image, label in zip(images, labels, strict=True):
        yield {"image": Image.fromarray(image), "label": int(label)}


class _Original(NamedTuple):
    """Where a data set comes from, and its splits `{split: (key, example), ...}` from there."""

    url: str
    splits: Callable[[Any, Any], dict[str, Iterator[Any]]]


_ORIGINALS = {
    "mnist": _Original(MNIST_URL + MNIST_FILES["train"][0], _mnist_splits),
    "cifar10": _Original(CIFAR10_URL, _cifar10_splits),
}


def main(args: Sequence[str] | None = None) -> None:
    """Prepare one data set from the command line (see `--help`)."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.datasets",
        description="Download a data set and prepare it for the experiments (once).",
    )
    parser.add_argument("name", help=" or ".join(_ORIGINALS))
    parser.add_argument(
        "--data_dir",
        metavar="DIR",
        help="where to put it; default: TFDS_DATA_DIR, or else ~/tensorflow_datasets",
    )
    flags = parser.parse_args(args)
    was_there = _prepared_folder(flags.name, _root(flags.data_dir)) is not None
    try:
        folder = prepare(flags.name, flags.data_dir)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{flags.name} {'was already' if was_there else 'is now'} prepared in {folder}")


if __name__ == "__main__":
    main()
