"""Folders of TensorFlow Datasets: found, checked and read without TensorFlow.

array_record stores a hash of every chunk of a file and compares it on reading, so no damaged byte
becomes a pixel or a label. What it cannot know is checked here: that all files are there and have
as many records as dataset_info.json says, and that every record is a picture of the promised kind
with a label of the promised classes. All else is refused in one line that names the file.
"""

import contextlib
import io
import json
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

T = TypeVar("T")
VERSION = r"\d+\.\d+\.\d+"
DOWNLOADED = ("mnist", "cifar10")  # what `python -m experiments.datasets` prepares
SPLITS = ("train", "test")
MODES = {1: "L", 3: "RGB"}  # what Pillow calls 8-bit gray and 8-bit colour, by channels
BLOCK = 1_000  # records read at once; one by one takes twice as long


class Place(NamedTuple):
    """Where a data set is.

    Attributes:
      root: the folder of TensorFlow Datasets.
      name: the data set, `NAME` or `NAME/CONFIGURATION`.
      folder: `<root>/<name>/<version>`.
    """

    root: Path
    name: str
    folder: Path


class Prepared(NamedTuple):
    """A folder of TensorFlow Datasets that can be read.

    Attributes:
      place: where it is.
      features: the features of tfds, which take a record apart.
      files: the files of each split, each with its number of records.
      image_shape: the shape `[H, W, C]` of every image.
      num_classes: the number of classes.
    """

    place: Place
    features: Any
    files: dict[str, list[tuple[Path, int]]]
    image_shape: tuple[int, int, int]
    num_classes: int


def find(name: str, root: Path) -> Place | None:
    """Return the place of the newest version of a data set under `root`; None if there is none.

    An older version never stands in for the newest, even where the newest is damaged.

    Raises:
      NotADirectoryError: if there is something else in the place of a folder.
    """
    versions = [v for v in _entries(name, root) if re.fullmatch(VERSION, v.name)]
    # A tfds builder finds only its own version, and creating one may need a network.
    newest = max(versions, key=lambda v: [int(n) for n in v.name.split(".")], default=None)
    return newest and Place(root, name, newest)


def missing(name: str, root: Path) -> FileNotFoundError:
    """Return the error that says how to get a data set that `find` does not find."""
    unfinished = [path for path in _entries(name, root) if path.name.startswith("incomplete.")]
    leftover = f" (only {unfinished[0]}, whose preparation was interrupted)" if unfinished else ""
    return FileNotFoundError(
        f"no data set {name!r} in {root}{leftover}; prepare it with `{command(name, root)}`, or "
        "set the environment variable TFDS_DATA_DIR to a folder that has it"
    )


def configurations(name: str, root: Path) -> list[str]:
    """Return the configurations of a data set that `find` does not find by its name alone."""
    entries = _entries(name, root) if re.fullmatch(r"\w+", name) else []
    return [f"{name}/{path.name}" for path in entries if any(path.glob("*.*.*"))]


def command(name: str, root: Path | str) -> str:
    """Return the command that prepares a data set."""
    if name in DOWNLOADED:
        return f"python -m experiments.datasets {name} --data_dir={root}"
    return f"tfds build {name} --data_dir={root} --file_format=array_record"


def _entries(name: str, root: Path) -> list[Path]:
    within = (root / name).relative_to(root)
    for place in (root, *(root / part for part in reversed(within.parents[:-1])), root / name):
        mode = _mode(place)
        if mode is None and not place.is_symlink():
            return []
        if mode is None or not stat.S_ISDIR(mode):
            what = "a link to nothing" if mode is None else "a file"
            raise NotADirectoryError(
                f"{place} is {what}, expected a folder; remove it, or name the folder of data "
                "sets by --data_dir or by the environment variable TFDS_DATA_DIR"
            )
    return sorted((root / name).iterdir())


def _mode(path: Path) -> int | None:
    """Return the mode of a file or folder; None if there is nothing."""
    try:
        return path.stat().st_mode  # Path.is_file may hide that it is not allowed to look
    except (FileNotFoundError, NotADirectoryError):
        return None


def open_folder(place: Place) -> Prepared:
    """Check all files of a prepared folder, except for the content of their records.

    Args:
      place: from `find`.

    Raises:
      ValueError: if a file is missing or damaged, if the folder has another data set or version
        than its path says, or a format that only TensorFlow can read.
      OSError: if a file may not be read.
    """
    info = _open_with_tfds(place)
    name = "/".join(filter(None, (info.name, info.config_name)))
    found, expected = f"{name} {info.version}", f"{place.name} {place.folder.name}"
    if found != expected:
        problem = f"describes {found}, expected {expected}"
        raise _unusable(place.folder / "dataset_info.json", problem, place)
    image_shape, num_classes = _kind(info.features, place)
    files = {split: _files(info.splits, split, place) for split in SPLITS}
    return Prepared(place, info.features, files, image_shape, num_classes)


def read(data: Prepared, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a split: images, uint8 `[N, H, W, C]`, and labels, int32 `[N]`, in the order on disk.

    Raises:
      ValueError: if a file is damaged, or if a record is not a picture of the shape and the depth
        of all others with a label of one of the classes.
    """
    num = sum(num for _, num in data.files[split])
    try:
        images = np.empty((num, *data.image_shape), np.uint8)
    except (MemoryError, ValueError) as error:
        raise ValueError(
            f"{data.place.folder} has {num:,} images of shape {data.image_shape} in {split}, "
            "which do not fit into memory"
        ) from error
    labels = np.empty(num, np.int32)
    parse, decode = _parser(data), _decoder(data)
    at = 0
    for path, num_here in data.files[split]:
        for start, records in _blocks(path, num_here, data.place):
            # To parse and decode by turns would take a third longer.
            where = path, start, data.place
            decoded = _each(decode, _each(parse, records, *where), *where)
            for image, label in decoded:
                images[at], labels[at] = image, label
                at += 1
    return images, labels


def check_training(data: Prepared, labels: np.ndarray, num_validation: int) -> None:
    """Refuse a training set that is too small, or that lacks a class it is known to have.

    A data set may leave classes unused: the 26 letters of emnist/letters are 1 to 26 of 37 classes.

    Args:
      data: what was opened.
      labels: the labels of all images in `train`.
      num_validation: the number of these images that will be taken for validation.

    Raises:
      ValueError: if nothing would be left for training, or if a class of one of `DOWNLOADED` has no
        image.
    """
    if len(labels) <= num_validation:
        problem = f"has {len(labels):,} training images, expected more than {num_validation:,}"
        raise _unusable(data.place.folder, problem, data.place)
    present = set(labels.tolist())
    if len(present) < data.num_classes and data.place.name in DOWNLOADED:
        lacking = next(c for c in range(data.num_classes) if c not in present)
        problem = f"has no training image of class {lacking} of its {data.num_classes:,} classes"
        raise _unusable(data.place.folder, problem, data.place)


def _open_with_tfds(place: Place) -> Any:
    """Return the DatasetInfo of a folder whose data is in array_record."""
    folder = place.folder
    features, info = (folder / name for name in ("features.json", "dataset_info.json"))
    for path in (features, info):
        _check_json(path, place)
    problem = "does not describe a data set of TensorFlow Datasets"
    with _explained(features, problem, place):
        import tensorflow_datasets as tfds

        tfds.features.FeaturesDict.from_config(str(folder))
    with _explained(info, problem, place):
        found = tfds.builder_from_directory(str(folder)).info
        formats = sorted(f.value for f in found.available_file_formats())
        if "array_record" in formats:
            # It may be the second of two formats: then the names of the files change.
            found.set_file_format("array_record", override=True, override_if_initialized=True)
            return found
    raise ValueError(
        f"{folder} has the format {' and '.join(formats)}, but only array_record can be read "
        "without TensorFlow; prepare the data set in another folder, with "
        f"`{command(place.name, 'DIR')}`"
    )


def _check_json(path: Path, place: Place) -> None:
    _check_file(path, place)
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _unusable(path, f"is not JSON ({_one_line(error)})", place) from error
    if not isinstance(content, dict):
        raise _unusable(path, f"has a JSON {type(content).__name__}, expected an object", place)


def _check_file(path: Path, place: Place) -> None:
    mode = _mode(path)
    if mode is None or not stat.S_ISREG(mode):  # to open a pipe would take forever
        raise _unusable(path, "is missing" if mode is None else "is not a file", place)
    path.open("rb").close()  # an error that names the file, where it may not be read


def _kind(features: Any, place: Place) -> tuple[tuple[int, int, int], int]:
    """Return the shape of the images and the number of classes."""
    import tensorflow_datasets as tfds

    named = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    image: Any = named.get("image")
    label: Any = named.get("label")
    shape: Any = image.shape if isinstance(image, tfds.features.Image) else (None,)
    whole = len(shape) == 3 and all(size and size > 0 for size in shape)
    if not whole or shape[-1] not in MODES or image.np_dtype != np.uint8:
        problem = "has no feature 'image' of 8 bits, one shape, and 1 or 3 channels"
        raise _unfit(place.folder / "features.json", problem, place)
    if not (isinstance(label, tfds.features.ClassLabel) and label.num_classes):
        raise _unfit(place.folder / "features.json", "has no feature 'label' with classes", place)
    return shape, label.num_classes


def _files(splits: Any, split: str, place: Place) -> list[tuple[Path, int]]:
    """Return the files of a split, each with its number of records."""
    if split not in splits:
        raise _unfit(place.folder / "dataset_info.json", f"has no split {split!r}", place)
    info = splits[split]
    if not info.num_examples:
        raise _unusable(place.folder / "dataset_info.json", f"has no records in {split!r}", place)
    with _explained(place.folder / "dataset_info.json", "does not name its files", place):
        files = list(zip(map(Path, info.filepaths), info.shard_lengths, strict=True))
    for path, num in files:
        _check_file(path, place)
        with _reader(path, place) as reader:
            found = reader.num_records()
        if found != num:
            problem = f"has {found:,} records, but dataset_info.json says {num:,}"
            raise _unusable(path, problem, place)
    return files


def _blocks(path: Path, num: int, place: Place) -> Iterator[tuple[int, list[bytes]]]:
    """Yield blocks of records, each with the number of its first."""
    with _reader(path, place) as reader:
        for start in range(0, num, BLOCK):
            yield start, reader.read(start, min(start + BLOCK, num))


@contextlib.contextmanager
def _reader(path: Path, place: Place) -> Iterator[Any]:
    with _explained(path, "cannot be read", place):
        from array_record.python.array_record_module import ArrayRecordReader

        # Without this option a reader reads ahead.
        reader = ArrayRecordReader(str(path), options="readahead_buffer_size:0")
        with contextlib.closing(reader) as file:
            yield file


@contextlib.contextmanager
def _explained(path: Path, problem: str, place: Place) -> Iterator[None]:
    """Turn whatever another package raises into one line about a file, or about what it lacks."""
    try:
        yield
    except Exception as error:
        raise _refusal(path, f"{problem} ({_one_line(error)})", place, error) from error


def _each(
    function: Callable[[Any], T], records: list[Any], path: Path, start: int, place: Place
) -> list[T]:
    """Apply a function to the records of a block that begins at the record `start` of a file."""
    results = []
    for record in records:
        try:
            results.append(function(record))
        except Exception as error:  # of tfds, protobuf, Pillow or a check
            problem = f"has an unusable record {start + len(results)}: {_one_line(error)}"
            raise _refusal(path, problem, place, error) from error
    return results


def _parser(data: Prepared) -> Callable[[bytes], dict[str, Any]]:
    from tensorflow_datasets.core.decode import SkipDecoding

    decoders = {"image": SkipDecoding()}
    return lambda record: data.features.deserialize_example_np(record, decoders=decoders)


def _decoder(data: Prepared) -> Callable[[dict[str, Any]], tuple[np.ndarray, int]]:
    """Return a function that checks and decodes a parsed record."""
    from PIL import Image, UnidentifiedImageError

    height, width, channels = data.image_shape
    expected = (width, height), MODES[channels]
    classes = range(data.num_classes)

    def decode(example: dict[str, Any]) -> tuple[np.ndarray, int]:
        label = example["label"]
        if label not in classes:
            raise ValueError(f"its label is {label}, expected 0 to {classes[-1]}")
        try:
            image = Image.open(io.BytesIO(example["image"]), formats=("PNG", "JPEG"))
        except UnidentifiedImageError:
            raise ValueError("its image is neither PNG nor JPEG") from None
        if (image.size, image.mode) != expected:
            found = f"{image.width} x {image.height} {image.mode}"
            raise ValueError(f"its image is {found}, expected {width} x {height} {expected[1]}")
        return np.asarray(image).reshape(data.image_shape), label

    return decode


def _refusal(path: Path, problem: str, place: Place, error: Exception) -> ValueError:
    """Return the error about what another package raised at a file, or about what it lacks."""
    if not isinstance(error, ImportError):
        return _unusable(path, problem, place)
    return ValueError(  # tfds imports what it needs when it needs it
        f"{path} is not read, because a package is missing ({_one_line(error)}): "
        "pip install -e '.[experiments]'"
    )


def _unusable(path: Path, problem: str, place: Place) -> ValueError:
    return ValueError(
        f"{path} {problem}; delete {place.folder} and prepare it again with "
        f"`{command(place.name, place.root)}`"
    )


def _unfit(path: Path, problem: str, place: Place) -> ValueError:
    """Return the error about a data set that is of another kind, unless it is known to be fit."""
    if place.name in DOWNLOADED:
        return _unusable(path, problem, place)
    return ValueError(
        f"{path} {problem}; write a function that returns its images in one shape, and give "
        "--config.dataset=MODULE:FUNCTION"
    )


def _one_line(error: BaseException) -> str:
    """Return the first line of an error, with its type unless that says nothing."""
    line = (str(error).strip().splitlines() or [""])[0]
    return line if type(error) is ValueError and line else f"{type(error).__name__}: {line}"
