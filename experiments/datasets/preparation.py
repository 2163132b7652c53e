"""Downloading MNIST and CIFAR-10 into the format of TensorFlow Datasets, without TensorFlow."""

import gzip
import tarfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.datasets import data_root, prepared
from supermask_jax.checks import lookup

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


def prepare(name: str, data_dir: str | None = None) -> Path:
    """Download a data set and write it in the format of TensorFlow Datasets, without TensorFlow.

    A data set that is already prepared stays as it is.

    Args:
      name: `mnist` (a download of 12 MB) or `cifar10` (170 MB).
      data_dir: as for `load`; created if missing.

    Returns:
      The folder of the data set, `<data_dir>/<name>/<version>`.

    Raises:
      ValueError: if the name is unknown, or if the data set is there but damaged or in a format
        that only TensorFlow can read.
      ConnectionError: if the server does not answer within `TIMEOUT_SECONDS`, or if the download
        fails.
    """
    original = lookup("data set to prepare", name, ORIGINALS)
    root = data_root(data_dir)
    place = prepared.find(name, root)
    if place:
        prepared.open_folder(place)
        return place.folder
    _check_connection(original.url)
    return _download_and_prepare(name, root)


def _check_connection(url: str) -> None:
    # tfds would retry for minutes before it fails.
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
        __module__ = official.__module__  # stored with the data; tfds finds the checksums by it

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
            return ORIGINALS[self.name].splits(dl_manager, self.info.features)

    builder = Builder(data_dir=str(root), file_format="array_record")
    config = tfds.download.DownloadConfig(try_download_gcs=False, force_checksums_validation=True)
    try:
        builder.download_and_prepare(download_config=config)
    except (NonMatchingChecksumError, DownloadError) as error:
        reason = str(error).splitlines()[0]
        raise ConnectionError(f"the download failed or was corrupted: {reason}") from error
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
    # A record is one byte of label, then the red, green and blue planes.
    records = np.frombuffer(data, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    for i, example in enumerate(_examples(images, records[:, 0])):
        yield {"id": f"{split}_{i:05d}", **example}


def _read_idx(path: Path) -> np.ndarray:
    """Read an original MNIST file: two zeros, type and rank (a byte each), shape, values."""
    data = gzip.decompress(path.read_bytes())
    rank = data[3]
    shape = np.frombuffer(data, ">u4", count=rank, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _examples(images: np.ndarray, labels: np.ndarray) -> Iterator[dict[str, Any]]:
    # tfds needs TensorFlow to encode arrays as PNG, but not to encode Pillow images.
    from PIL import Image

    for image, label in zip(images, labels, strict=True):
        yield {"image": Image.fromarray(image), "label": int(label)}


class _Original(NamedTuple):
    """The source of a data set.

    Attributes:
      url: a file on its server, to check the connection.
      splits: downloads the data set and returns an iterator over (key, example) per split.
    """

    url: str
    splits: Callable[[Any, Any], dict[str, Iterator[Any]]]


ORIGINALS = {
    "mnist": _Original(MNIST_URL + MNIST_FILES["train"][0], _mnist_splits),
    "cifar10": _Original(CIFAR10_URL, _cifar10_splits),
}
