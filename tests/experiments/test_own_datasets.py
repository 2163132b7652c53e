"""Data sets of one's own: of TensorFlow Datasets by name, files of NumPy, and functions."""

import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import datasets
from experiments.datasets import Dataset, Split, numpy_files, splits
from tests.bad_input import check_one_line

KINDS = {  # images, classes, and the least label in use
    "emnist/letters": ((28, 28, 1), 37, 1),
    "tiny_flowers": ((6, 5, 3), 4, 0),
}
NUM = {"train": 40, "test": 12}


def make_splits(shape, classes, least):
    random = np.random.default_rng(0)
    labels = {name: least + np.arange(number) % (classes - least) for name, number in NUM.items()}
    return {
        name: Split(random.integers(256, size=(NUM[name], *shape), dtype=np.uint8), labels[name])
        for name in NUM
    }


def prepare(root, name, made, classes):
    """Write a data set as TensorFlow Datasets does, in array_record."""
    import tensorflow_datasets as tfds

    base, _, configuration = name.partition("/")
    shape = made["train"].images.shape[1:]

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.2.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=configuration)] if configuration else []

        def _info(self):
            image, label = tfds.features.Image(shape=shape), tfds.features.ClassLabel
            features = tfds.features.FeaturesDict(
                {"image": image, "label": label(num_classes=classes)}
            )
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {which: self._generate_examples(*made[which]) for which in made}

        def _generate_examples(self, images, labels):
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                picture = image[..., 0] if shape[-1] == 1 else image
                yield i, {"image": Image.fromarray(picture), "label": int(label)}

    Builder.name = base
    builder = Builder(data_dir=str(root), file_format="array_record")
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
    assert Path(builder.data_dir) == root / name / "1.2.0"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A folder of TensorFlow Datasets with every member of `KINDS`."""
    root = tmp_path_factory.mktemp("data")
    for name, kind in KINDS.items():
        prepare(root, name, make_splits(*kind), kind[1])
    return root


def pictures(*found):
    """Return what splits hold, in no particular order."""
    return sorted((x.tobytes(), int(y)) for split in found for x, y in zip(*split, strict=True))


@pytest.mark.parametrize("number", [0, 7])
@pytest.mark.parametrize("name", KINDS)
def test_a_data_set_of_tfds_is_read_by_its_name(name, number, data_dir):
    shape, classes, _ = KINDS[name]
    made = make_splits(*KINDS[name])
    data = datasets.load(name, str(data_dir), number)
    assert (data.name, data.num_classes, data.image_shape) == (name, classes, shape)
    assert len(data.validation.labels) == (number or NUM["train"] // 10)
    assert pictures(data.train, data.validation) == pictures(made["train"])
    assert pictures(data.test) == pictures(made["test"])
    jax.tree.map(
        np.testing.assert_array_equal, data[1:4], datasets.load(name, data_dir, number)[1:4]
    )


def test_zero_takes_the_rule_of_the_data_set(data_dir, monkeypatch):
    monkeypatch.setitem(datasets.NUM_VALIDATION, "tiny_flowers", 9)
    assert len(datasets.load("tiny_flowers", data_dir).validation.labels) == 9
    assert len(datasets.load("tiny_flowers", data_dir, 5).validation.labels) == 5


@pytest.mark.parametrize(
    ("name", "number", "said"),
    [
        ("tiny_flowers", 40, "config.num_validation is 40, expected less than the 40 training"),
        (
            "tiny_flower",
            0,
            "unknown data set 'tiny_flower'; known: .*MODULE:FUNCTION, .*tfds build",
        ),
        ("emnist", 0, r"unknown data set 'emnist'; .* has emnist/letters\)\.$"),
        ("emnist/digits", 0, "unknown data set 'emnist/digits';"),
        ("../emnist/letters", 0, "unknown data set '../emnist/letters';"),
        ("emnist/..", 0, "unknown data set 'emnist/..';"),
        ("/etc", 0, "unknown data set '/etc';"),
        ("digits", 10, "num_validation is 10, but digits has validation images of its own, exp"),
        (["mnist"], 0, r"unknown data set \['mnist'\];"),
    ],
)
def test_a_wrong_name_or_number_is_told_in_one_line(name, number, said, data_dir):
    with pytest.raises(ValueError, match=said) as error:
        datasets.load(name, data_dir, number)
    check_one_line(error.value)


def test_a_damaged_copy_is_prepared_again_by_tfds(data_dir, tmp_path):
    root = Path(shutil.copytree(data_dir, tmp_path / "copy"))
    folder = root / "emnist/letters/1.2.0"
    (folder / "features.json").write_text("{")
    with pytest.raises(ValueError, match=rf"delete {folder} .*`tfds build emnist/letters --data_"):
        datasets.load("emnist/letters", root)
    shutil.copytree(root / "tiny_flowers", root / "emnist/flowers")
    with pytest.raises(ValueError, match=r"describes tiny_flowers 1\.2\.0, expected emnist/flowe"):
        datasets.load("emnist/flowers", root)


def test_a_data_set_of_another_kind_needs_a_function(data_dir, tmp_path):
    root = Path(shutil.copytree(data_dir, tmp_path / "copy"))
    file = root / "tiny_flowers/1.2.0/features.json"
    file.write_text(file.read_text().replace('"image":', '"picture":', 1))
    with pytest.raises(ValueError, match=r"has no feature 'image' .* --config\.dataset=MODULE:FUN"):
        datasets.load("tiny_flowers", root)


# Files of NumPy

IMAGES = np.arange(8 * 4 * 3, dtype=np.uint8).reshape(8, 4, 3)
GOOD = {
    "x_train": IMAGES,
    "y_train": np.arange(8) % 3,
    "x_test": IMAGES[:3],
    "y_test": np.arange(3),
}


@pytest.mark.parametrize("rank", [3, 4])
@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int32])
def test_a_file_of_numpy_is_a_data_set(rank, kind, tmp_path):
    arrays = {name: x if name[0] == "x" else x.astype(kind) for name, x in GOOD.items()}
    if rank == 4:
        arrays |= {name: np.stack([x, x], -1) for name, x in arrays.items() if name[0] == "x"}
    name = str(tmp_path / "mine.npz")
    np.savez(name, **arrays)
    data = datasets.load(name, num_validation=2)
    assert data.num_classes == 3 and data.image_shape == (4, 3, rank - 2) and data.name == name
    for split, number in zip(data[1:4], (6, 2, 3), strict=True):
        assert split.images.shape == (number, *data.image_shape)
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int32
    expected = Split(arrays["x_train"], arrays["y_train"])
    assert pictures(data.train, data.validation) == pictures(expected)
    again = datasets.load(name, num_validation=2)
    assert again.checksum() == data.checksum() != datasets.load(name).checksum()
    np.testing.assert_array_equal(
        data.test.images.reshape(arrays["x_test"].shape), arrays["x_test"]
    )


WRONG_ARRAYS = {
    "floats": ({"x_train": IMAGES / 255}, r"x_train is float64, expected uint8 .*\(255 \* x\)"),
    "wide integers": ({"x_test": IMAGES[:3].astype(int)}, "x_test is int64, .*astype.numpy.uint8"),
    "bools": ({"x_train": IMAGES > 3}, "x_train is bool, expected uint8"),
    "text": ({"x_train": IMAGES.astype(str)}, "x_train is <U3, expected uint8"),
    "flat images": (
        {"x_train": IMAGES.reshape(8, -1)},
        r"x_train has shape \[8, 12\], expected \[N",
    ),
    "no images": ({"x_test": IMAGES[:0], "y_test": np.arange(0)}, r"x_test has shape \[0, 4, 3\]"),
    "no pixels": ({"x_train": IMAGES[:, :0]}, r"x_train has shape \[8, 0, 3\]"),
    "other images": (
        {"x_test": IMAGES[:3, :2]},
        r"images \[4, 3, 1\] in train, \[2, 3, 1\] in test",
    ),
    "few labels": ({"y_train": np.arange(7)}, r"y_train has shape \[7\], expected \[8\]: one int"),
    "columns": ({"y_train": np.zeros((8, 1), int)}, r"y_train has shape \[8, 1\], expected \[8\]"),
    "one hot": ({"y_train": np.eye(8)}, "y_train is float64, expected integers from 0"),
    "from one": (
        {"y_train": 1 + np.arange(8) % 3},
        "no training image of class 0, .* without gaps",
    ),
    "negative": ({"y_train": np.arange(8) % 3 - 1}, "y_train has -1, expected classes that are c"),
    "a gap": ({"y_train": 2 * (np.arange(8) % 3)}, "no training image of class 1, .* label is 4"),
    "huge": ({"y_train": np.arange(8) + 2**40}, "y_train has 1099511627783, expected classes"),
    "one class": ({"y_train": np.zeros(8, int)}, "has images of one class alone, expected two"),
    "new in test": ({"y_test": np.array([0, 1, 3])}, "the test set has a label 3, expected 0 to 2"),
    "objects": ({"y_test": np.array([{}, 1, 2])}, "Object arrays cannot be loaded"),
    "more": ({"x_valid": IMAGES}, "it has .*x_valid, expected x_train, y_train, x_test, y_test"),
    "less": ({"y_test": None}, "it has x_train, y_train, x_test, expected x_train, y_train, x_te"),
}


@pytest.mark.parametrize("kind", WRONG_ARRAYS)
def test_wrong_arrays_are_refused_in_one_line(kind, tmp_path):
    changes, said = WRONG_ARRAYS[kind]
    file = tmp_path / "mine.npz"
    np.savez(file, **{name: x for name, x in (GOOD | changes).items() if x is not None})
    with pytest.raises(ValueError, match=said) as error:
        datasets.load(str(file))
    check_one_line(error.value)
    assert str(error.value).startswith(str(file))


def save_one(path):
    with path.open("wb") as file:
        np.save(file, IMAGES)


def saved():
    from io import BytesIO

    file = BytesIO()
    np.savez(file, **GOOD)
    return file.getvalue()


def damaged(data):
    place = data.index(IMAGES.tobytes()[:20])
    return data[:place] + b"\xff" + data[place + 1 :]


WRONG_FILES = {
    "missing": (lambda path: None, FileNotFoundError, r"is not there \(from .*\), expected a file"),
    "a folder": (lambda path: path.mkdir(), FileNotFoundError, "is a folder"),
    "a pipe": (os.mkfifo, FileNotFoundError, "expected a file of NumPy"),
    "empty": (lambda path: path.write_bytes(b""), ValueError, "cannot be used: .*numpy.savez"),
    "text": (lambda path: path.write_text("x_train"), ValueError, "cannot be used: "),
    "one array": (save_one, ValueError, "cannot be used: it has one array without a name, expec"),
    "cut": (lambda path: path.write_bytes(saved()[:-40]), ValueError, "cannot be used: "),
    "damaged": (lambda path: path.write_bytes(damaged(saved())), ValueError, "cannot be used: "),
}


@pytest.mark.parametrize("kind", WRONG_FILES)
def test_a_wrong_file_is_refused_in_one_line(kind, tmp_path):
    make, error_kind, said = WRONG_FILES[kind]
    make(tmp_path / "mine.npz")
    with pytest.raises(error_kind, match=said) as error:
        datasets.load(str(tmp_path / "mine.npz"))
    check_one_line(error.value)


def test_the_names_of_the_arrays_are_those_of_keras():
    assert numpy_files.NAMES == ["x_train", "y_train", "x_test", "y_test"]


# Functions

SPLIT = Split(IMAGES, np.arange(8) % 3)
MADE = Dataset("any", SPLIT, SPLIT, SPLIT, num_classes=4)


def test_a_data_set_of_a_function_takes_the_form_of_all():
    data = splits.checked("lab:load", MADE._replace(num_classes=np.int64(4)))
    assert data.name == "lab:load" and data.num_classes == 4 and type(data.num_classes) is int
    for split in data[1:4]:
        assert split.images.shape == (8, 4, 3, 1) and split.labels.dtype == np.int32
        np.testing.assert_array_equal(split.images[..., 0], IMAGES)


WRONG_DATASETS = {
    "a tuple": ((IMAGES, 3), "lab:load returns a tuple, expected a Dataset of experiments"),
    "classes": (MADE._replace(num_classes=1), "num_classes 1, expected an integer from 2"),
    "no number": (MADE._replace(num_classes="3"), "num_classes '3', expected an integer from 2"),
    "a split": (MADE._replace(test=IMAGES), r"test is array.*, expected Split\(images, labels\)"),
    "a list": (MADE._replace(test=Split([1], [1])), "test.images is a list, expected an array"),
    "of JAX": (MADE._replace(test=Split(jax.numpy.asarray(IMAGES), SPLIT.labels)),
               "test.images is a ArrayImpl, expected an array of NumPy"),
    "a label": (MADE._replace(num_classes=2), "train.labels has a label 2, expected 0 to 1"),
    "shapes": (MADE._replace(validation=Split(IMAGES[:, 1:], SPLIT.labels)),
               r"images \[4, 3, 1\] in train, \[3, 3, 1\] in validation"),
    "floats": (MADE._replace(validation=Split(IMAGES / 1, SPLIT.labels)),
               "validation.images is float64, expected uint8"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG_DATASETS)
def test_a_wrong_data_set_of_a_function_is_refused_in_one_line(kind):
    made, said = WRONG_DATASETS[kind]
    with pytest.raises(ValueError, match=said) as error:
        splits.checked("lab:load", made)
    check_one_line(error.value)


def test_the_functions_of_this_repository_take_the_same_way(monkeypatch):
    monkeypatch.setitem(datasets.LOADERS, "flat", lambda root: MADE)
    assert datasets.load("flat").image_shape == (4, 3, 1)
