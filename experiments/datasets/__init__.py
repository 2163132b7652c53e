"""Data sets as NumPy arrays in memory, split in the same way in every run.

A setting names a data set in one of four ways:

* `digits`, which comes with scikit-learn, or another name that a configuration added to `LOADERS`;
* the name of an image classification data set of TensorFlow Datasets, such as `mnist`, `cifar10`,
  `fashion_mnist` or `emnist/letters`. It is read, without TensorFlow, from a folder of
  TensorFlow Datasets in the format array_record: `--data_dir`, or else the environment variable
  `TFDS_DATA_DIR`, or else `~/tensorflow_datasets`;
* the path of a file of NumPy, `FILE.npz`, see `numpy_files`;
* a function of one's own, `MODULE:FUNCTION`. It gets the folder of TensorFlow Datasets, a
  `pathlib.Path`, and returns a `Dataset`.

This command downloads `mnist` or `cifar10`:

    python -m experiments.datasets mnist --data_dir=DIR

In `[N, H, W, C]`, the axes are images, height, width and channels.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments import by_name
from experiments.datasets import numpy_files, prepared
from experiments.datasets.splits import (
    Dataset,
    Split,
    checked,
    cut,
    shuffled,
    tenth,
    without_validation,
)
from supermask_jax.checks import unknown_name

# Images that are taken from the training set where `num_validation` is 0; of others a tenth. An
# entry here changes the data of runs that were made before it.
NUM_VALIDATION = {"mnist": 5_000, "cifar10": 5_000}
NUM_DIGITS_VALIDATION, NUM_DIGITS_TEST = 200, 300
OF_TFDS = r"[A-Za-z_]\w*(?:/\w[\w.+-]*)?"  # NAME or NAME/CONFIGURATION


def load(name: str, data_dir: str | None = None, num_validation: int = 0) -> Dataset:
    """Load a data set from disk, without a network connection.

    The splits are the same in every run. They do not depend on the order of the records on disk,
    which differs between prepared copies.

    Args:
      name: see the top of this module.
      data_dir: a folder of TensorFlow Datasets; None means `TFDS_DATA_DIR`, or else
        `~/tensorflow_datasets`.
      num_validation: how many training images are for validation. 0 takes what `NUM_VALIDATION`
        says, or else a tenth. Only for data sets that come without validation images: those of
        TensorFlow Datasets and files of NumPy.

    Raises:
      ValueError: if the name is unknown, if the data set is damaged or of another kind (see
        `prepared`, `numpy_files` and `splits`), or if `num_validation` does not fit it.
      TypeError: if a name is that of something that is not a function of one folder.
      FileNotFoundError: if the folder does not contain the data set, or if there is no file.
      OSError: if the folder is none, or if a file may not be read.
    """
    if isinstance(name, str) and name.endswith(numpy_files.SUFFIX):
        return numpy_files.load(name, num_validation)
    root = data_root(data_dir)
    if by_name.is_named(name) or (isinstance(name, str) and name in LOADERS):
        return _load_own(name, root, num_validation)
    return _load_prepared(name, root, num_validation)


def is_own(name: str) -> bool:
    """Return whether a data set is not known by its name alone: a file, or a function."""
    return by_name.is_named(name) or name.endswith(numpy_files.SUFFIX)


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


def _load_own(name: str, root: Path, num_validation: int) -> Dataset:
    if num_validation:
        raise ValueError(
            f"config.num_validation is {num_validation}, but {name} has validation images of its "
            "own, expected 0."
        )
    if not by_name.is_named(name):
        return checked(name, LOADERS[name](root))
    function = by_name.find("data set", name, ("data_dir",))
    with by_name.explained(f"the data set {name}", by_name.module_of(name)):
        made = function(root)
    return checked(name, made)


def _load_digits(root: Path) -> Dataset:
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    order = shuffled(Split(images, digits.target.astype(np.int32)))
    validation, rest = cut(order, NUM_DIGITS_VALIDATION)
    test, train = cut(rest, NUM_DIGITS_TEST)
    return Dataset("digits", train, validation, test, num_classes=10)


def _load_prepared(name: Any, root: Path, num_validation: int) -> Dataset:
    place = prepared.find(name, root) if _is_of_tfds(name) else None
    if place is None:
        raise _not_found(name, root)
    data = prepared.open_folder(place)
    train, test = (Split(*prepared.read(data, split)) for split in prepared.SPLITS)
    by_rule = NUM_VALIDATION.get(name) or tenth(train)
    prepared.check_training(data, train.labels, 0 if num_validation else by_rule)
    train, validation = without_validation(name, train, num_validation or by_rule)
    return Dataset(name, train, validation, test, data.num_classes)


def _is_of_tfds(name: Any) -> bool:
    return isinstance(name, str) and re.fullmatch(OF_TFDS, name) is not None


def _not_found(name: Any, root: Path) -> Exception:
    if isinstance(name, str) and name in NUM_VALIDATION:
        return prepared.missing(name, root)
    there = prepared.configurations(name, root) if isinstance(name, str) else []
    named = f" ({root} has {', '.join(there)})" if there else ""
    forms = dict.fromkeys([*LOADERS, *NUM_VALIDATION, f"FILE{numpy_files.SUFFIX}", by_name.FORM])
    command = prepared.command(name if _is_of_tfds(name) else "NAME", root)
    return ValueError(
        f"{unknown_name('data set', name, forms)}, or what `{command}` prepares, mostly with "
        f"TensorFlow{named}."
    )


# Every loader gets the folder of TensorFlow Datasets, even one that does not need it.
LOADERS: dict[str, Callable[[Path], Dataset]] = {"digits": _load_digits}
