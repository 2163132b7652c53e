"""What a data set is: NumPy arrays in three splits, and the checks of arrays that others made."""

import hashlib
from typing import Any, NamedTuple

import numpy as np

from supermask_jax.checks import shown

SPLIT_SEED = 2019
WAY_OUT = {  # how to make uint8 of other types, by the kind of numpy
    "f": "scale them to 0 to 255, for pixels in [0, 1] by (255 * x).round().astype(numpy.uint8)",
    "b": "scale them by 255 * x.astype(numpy.uint8)",
    "i": "if all are 0 to 255, convert them by x.astype(numpy.uint8)",
    "u": "if all are 0 to 255, convert them by x.astype(numpy.uint8)",
}


class Split(NamedTuple):
    """Images, uint8 `[N, H, W, C]` in [0, 255], and their labels, int32 `[N]`."""

    images: np.ndarray
    labels: np.ndarray


class Dataset(NamedTuple):
    """A data set: `train` for training, `validation` for choosing, `test` for reporting.

    Attributes:
      name: in messages; where a setting names the data set, that name.
      train: the training set.
      validation: the validation set.
      test: the test set.
      num_classes: the number of classes; labels are 0 to `num_classes` - 1.
    """

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


def checked(name: str, made: Any) -> Dataset:
    """Check a data set that a function of one's own returned.

    Args:
      name: of the function.
      made: a `Dataset` whose images are uint8 `[N, H, W, C]` or `[N, H, W]`, and whose labels are
        integers of any width `[N]`.

    Returns:
      The data set in the form that `Dataset` describes, with `name`.

    Raises:
      ValueError: if it is anything else.
    """
    if not isinstance(made, Dataset):
        raise ValueError(
            f"{name} returns a {type(made).__name__}, expected a Dataset of experiments.datasets."
        )
    count = made.num_classes
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 2:
        raise ValueError(f"{name} has num_classes {shown(count)}, expected an integer from 2.")
    count = int(count)
    splits = {}
    for which in ("train", "validation", "test"):
        split = getattr(made, which)
        if not isinstance(split, tuple) or len(split) != 2:
            raise ValueError(f"{name}: {which} is {shown(split)}, expected Split(images, labels).")
        splits[which] = as_split(name, (f"{which}.images", f"{which}.labels"), *split)
        _check_labels(name, f"{which}.labels", splits[which].labels, count)
    _check_shapes(name, splits)
    return Dataset(name, **splits, num_classes=count)


def as_split(name: str, fields: tuple[str, str], images: Any, labels: Any) -> Split:
    """Check images and labels, and return them in the form that `Split` describes.

    Args:
      name: of the data set, for messages.
      fields: what messages call the images and the labels.
      images: uint8 `[N, H, W, C]` or `[N, H, W]`.
      labels: integers `[N]`.

    Raises:
      ValueError: if they are anything else.
    """
    for field, array in zip(fields, (images, labels), strict=True):
        if not isinstance(array, np.ndarray):
            kind = type(array).__name__
            raise ValueError(f"{name}: {field} is a {kind}, expected an array of NumPy.")
    pictures, classes = (f"{name}: {field}" for field in fields)
    if images.dtype != np.uint8:
        way_out = WAY_OUT.get(images.dtype.kind, "convert them")
        raise ValueError(f"{pictures} is {images.dtype}, expected uint8 in [0, 255]; {way_out}.")
    if images.ndim not in (3, 4) or 0 in images.shape:
        shape = list(images.shape)
        raise ValueError(f"{pictures} has shape {shape}, expected [N, H, W, C] or [N, H, W].")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{classes} is {labels.dtype}, expected integers from 0.")
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"{classes} has shape {list(labels.shape)}, expected {list(images.shape[:1])}: one "
            "integer for each image."
        )
    if labels.min() < 0 or labels.max() > np.iinfo(np.int32).max:
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise ValueError(f"{classes} has {wrong}, expected classes that are counted from 0.")
    whole = images if images.ndim == 4 else images[..., None]
    return Split(whole, labels.astype(np.int32))


def from_arrays(name: str, train: Split, test: Split, num_validation: int) -> Dataset:
    """Return a data set of a training and a test set whose labels tell the number of classes.

    Args:
      name: of the data set.
      train: all images but those of the test set, from `as_split`.
      test: the test set, from `as_split`.
      num_validation: how many images of `train` are for validation; 0 takes a tenth.

    Raises:
      ValueError: if a class has no image in `train`, if the images of the splits differ in shape,
        or if nothing is left for training.
    """
    present = np.unique(train.labels)
    count = int(present[-1]) + 1
    if len(present) < count:
        lacking = next(i for i, label in enumerate(present) if label != i)
        raise ValueError(
            f"{name} has no training image of class {lacking}, though its largest label is "
            f"{present[-1]}; count the classes from 0, without gaps."
        )
    if count < 2:
        raise ValueError(f"{name} has images of one class alone, expected two classes or more.")
    _check_labels(name, "the test set", test.labels, count)
    _check_shapes(name, {"train": train, "test": test})
    train, validation = without_validation(name, train, num_validation or tenth(train))
    return Dataset(name, train, validation, test, count)


def without_validation(name: str, train: Split, number: int) -> tuple[Split, Split]:
    """Take validation images out of a training set, the same ones in whatever order they come.

    Returns:
      What is left, and the validation set.

    Raises:
      ValueError: if nothing is left.
    """
    if number >= len(train.labels):
        raise ValueError(
            f"config.num_validation is {number}, expected less than the {len(train.labels)} "
            f"training images of {name}."
        )
    validation, rest = cut(shuffled(train), number)
    return rest, validation


def tenth(train: Split) -> int:
    """Return the size of a validation set that no rule and no setting gives."""
    return max(1, len(train.labels) // 10)


def shuffled(split: Split) -> Split:
    """Return a split in an order that does not depend on the order in which it comes."""
    pixels = split.images.reshape(len(split.images), -1)
    canonical = np.argsort(pixels.view(f"V{pixels.shape[1]}").ravel(), kind="stable")
    order = np.random.default_rng(SPLIT_SEED).permutation(canonical)
    return Split(split.images[order], split.labels[order])


def cut(split: Split, number: int) -> tuple[Split, Split]:
    """Return the first images of a split, and the others."""
    return Split(*(a[:number] for a in split)), Split(*(a[number:] for a in split))


def _check_labels(name: str, field: str, labels: np.ndarray, num_classes: int) -> None:
    if labels.max() >= num_classes:
        raise ValueError(
            f"{name}: {field} has a label {labels.max()}, expected 0 to {num_classes - 1}."
        )


def _check_shapes(name: str, splits: dict[str, Split]) -> None:
    shapes = {which: list(split.images.shape[1:]) for which, split in splits.items()}
    if any(shape != shapes["train"] for shape in shapes.values()):
        found = ", ".join(f"{shape} in {which}" for which, shape in shapes.items())
        raise ValueError(f"{name} has images {found}, expected one shape [H, W, C].")
