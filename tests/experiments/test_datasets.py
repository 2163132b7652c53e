"""Named data sets: splits, reading, preparation, and errors about missing data."""

import functools
import gzip
import hashlib
import io
import json
import re
import socket
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import datasets
from experiments.datasets import preparation, splits
from experiments.datasets import prepared as prepared_folders
from tests.experiments import command_lines

SIZES = {
    "digits": (1_297, 200, 300),
    "mnist": (55_000, 5_000, 10_000),
    "cifar10": (45_000, 5_000, 10_000),
}
SHAPES = {"digits": (8, 8, 1), "mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
# Of train and validation together: class counts, mean of each channel.
PUBLISHED = {
    "mnist": ([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949], [33.318]),
    "cifar10": ([5_000] * 10, [125.3, 123.0, 113.9]),
}
MNIST_VALIDATION_SHA256 = "5590a8151ebe9f66adf811184eb9fc9979c2c512c295e5133d83dabe587c8333"
NUM_TRAIN, NUM_TEST, NUM_VALIDATION = 25, 10, 5  # of the fake originals
CLASSES = ["airplane", "automobile", "bird", "cat", "deer"]
CLASSES += ["dog", "frog", "horse", "ship", "truck"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise OSError("the network is not for tests")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Prepare fake data sets: `prepared(name)` returns the data dir and the splits in it."""
    return functools.partial(prepare_fake, tmp_path, monkeypatch)


def prepare_fake(base, monkeypatch, name):
    """Prepare a fake data set in a folder; return the data dir and the splits in it."""
    import tensorflow_datasets as tfds

    monkeypatch.setattr(preparation, "_check_connection", lambda url: None)
    for known in ("mnist", "cifar10"):
        monkeypatch.setitem(datasets.NUM_VALIDATION, known, NUM_VALIDATION)
    splits = fake_splits(SHAPES[name])
    originals = base / "originals"
    originals.mkdir()
    {"mnist": write_mnist, "cifar10": write_cifar10}[name](originals, splits)
    monkeypatch.setattr(
        tfds.download.DownloadManager,
        "download",
        lambda self, urls: jax.tree.map(lambda url: originals / Path(url).name, urls),
    )
    data_dir = base / "data"
    folder = preparation.prepare(name, str(data_dir))
    assert folder.parent == data_dir / name
    return str(data_dir), splits


def fake_splits(shape):
    rng = np.random.default_rng(0)
    return {
        split: datasets.Split(
            rng.integers(256, size=(num, *shape), dtype=np.uint8),
            rng.permutation(np.arange(num) % 10).astype(np.int32),
        )
        for split, num in {"train": NUM_TRAIN, "test": NUM_TEST}.items()
    }


def write_mnist(folder, splits):
    for split, names in preparation.MNIST_FILES.items():
        images, labels = splits[split]
        arrays = (images[..., 0], labels.astype(np.uint8))
        for name, array in zip(names, arrays, strict=True):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (folder / name).write_bytes(gzip.compress(header + array.tobytes()))


def write_cifar10(folder, splits):
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as tar:

        def add(name, data):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))

        add("batches.meta.txt", "\n".join([*CLASSES, "", ""]).encode())
        for split, names in preparation.CIFAR10_FILES.items():
            images, labels = splits[split]
            planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
            records = np.concatenate([labels.astype(np.uint8)[:, None], planes], axis=1)
            for name, part in zip(names, np.array_split(records, len(names)), strict=True):
                add(name, part.tobytes())
        folder_entry = tarfile.TarInfo("cifar-10-batches-bin")
        folder_entry.type = tarfile.DIRTYPE
        tar.addfile(folder_entry)


def records(*splits):
    """Return the content of splits, in no particular order."""
    return sorted(
        (image.tobytes(), int(label))
        for split in splits
        for image, label in zip(split.images, split.labels, strict=True)
    )


def check_contract(data, name):
    for split, size in zip((data.train, data.validation, data.test), SIZES[name], strict=True):
        assert split.images.shape == (size, *SHAPES[name])
        assert split.labels.shape == (size,)
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int32
        assert set(split.labels) == set(range(data.num_classes))
    assert data.name == name and data.num_classes == 10 and data.image_shape == SHAPES[name]


def test_digits_keep_the_contract_and_use_all_brightnesses():
    data = datasets.load("digits")
    check_contract(data, "digits")
    assert data.train.images.min() == 0 and data.train.images.max() == 255


def test_digits_splits_share_nothing_and_lose_nothing():
    from sklearn.datasets import load_digits

    original = load_digits()
    images = np.rint(original.images / 16 * 255).astype(np.uint8)
    assert records(*datasets.load("digits")[1:4]) == records(
        datasets.Split(images, original.target)
    )


def test_digits_splits_are_those_of_every_other_run():
    first, second = datasets.load("digits"), datasets.load("digits")
    jax.tree.map(np.testing.assert_array_equal, first[1:4], second[1:4])
    assert first.validation.labels[:8].tolist() == [6, 9, 4, 9, 3, 8, 2, 2]
    assert first.test.labels[:8].tolist() == [0, 6, 9, 3, 3, 8, 1, 1]


@pytest.mark.parametrize("order_seed", [0, 1])
def test_the_split_does_not_depend_on_record_order(order_seed):
    split = fake_splits((4, 4, 3))["train"]
    order = np.random.default_rng(order_seed).permutation(NUM_TRAIN)
    jax.tree.map(
        np.testing.assert_array_equal,
        splits.shuffled(split),
        splits.shuffled(datasets.Split(*(a[order] for a in split))),
    )


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_what_is_prepared_is_what_is_loaded(name, prepared):
    data_dir, splits = prepared(name)
    data = datasets.load(name, data_dir)
    sizes = [len(split.labels) for split in data[1:4]]
    assert sizes == [NUM_TRAIN - NUM_VALIDATION, NUM_VALIDATION, NUM_TEST]
    assert records(data.train, data.validation) == records(splits["train"])
    assert records(data.test) == records(splits["test"])
    assert data.num_classes == 10 and data.image_shape == SHAPES[name]


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_prepared_copy_equals_that_of_the_official_builder(name, prepared):
    import tensorflow_datasets as tfds

    data_dir, _ = prepared(name)
    official = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    assert official.is_prepared()
    source = official.as_data_source("train")
    assert len(source) == NUM_TRAIN
    if name == "cifar10":
        assert official.info.features["label"].names == CLASSES
        assert {record["id"] for record in source} == {b"train_%05d" % i for i in range(NUM_TRAIN)}
    info = json.loads((Path(official.data_dir) / "dataset_info.json").read_text())
    assert info["moduleName"] == tfds.builder_cls(name).__module__


def program(*words):
    """Run the command that prepares a data set; return its exit status and output."""
    [answer] = command_lines.answers([("experiments.datasets", *words)])
    return answer


def test_preparing_again_leaves_the_data_alone_and_says_so(prepared):
    data_dir, _ = prepared("mnist")
    before = {path: path.stat().st_mtime_ns for path in Path(data_dir).rglob("*")}
    status, said = program("mnist", f"--data_dir={data_dir}")
    assert status == 0 and said.startswith(f"mnist was already prepared in {data_dir}")
    assert before == {path: path.stat().st_mtime_ns for path in Path(data_dir).rglob("*")}


def test_the_block_size_does_not_matter(prepared, monkeypatch):
    data_dir, _ = prepared("mnist")
    whole = datasets.load("mnist", data_dir)
    monkeypatch.setattr(prepared_folders, "BLOCK", 7)
    jax.tree.map(np.testing.assert_array_equal, whole[1:4], datasets.load("mnist", data_dir)[1:4])


def test_the_variable_names_the_folder(prepared, monkeypatch):
    data_dir, _ = prepared("mnist")
    monkeypatch.setenv("TFDS_DATA_DIR", data_dir)
    assert datasets.load("mnist").name == "mnist"


def test_the_newest_version_is_read_whichever_it_is(prepared):
    data_dir, _ = prepared("mnist")
    (folder,) = (Path(data_dir) / "mnist").iterdir()
    edit_info(folder, version="3.10.0")
    folder.rename(folder.with_name("3.10.0"))
    for other in ("3.9.0", "incomplete.X_4.0.0"):
        folder.with_name(other).mkdir()
        (folder.with_name(other) / "features.json").write_text("not for reading")
    assert len(datasets.load("mnist", data_dir).test.labels) == NUM_TEST


def test_another_format_is_refused_with_a_remedy(prepared):
    data_dir, _ = prepared("mnist")
    (folder,) = (Path(data_dir) / "mnist").iterdir()
    edit_info(folder, fileFormat="tfrecord")
    with pytest.raises(ValueError, match=r"format tfrecord.*only array_record.*--data_dir=DIR"):
        datasets.load("mnist", data_dir)
    status, said = program("mnist", f"--data_dir={data_dir}")
    assert status == 1 and re.match(r"error: .*format tfrecord", said)


def edit_info(folder, **fields):
    path = folder / "dataset_info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize("by_variable", [False, True])
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_missing_data_names_folder_variable_and_command(name, by_variable, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path) if by_variable else "/nowhere")
    with pytest.raises(FileNotFoundError) as error:
        datasets.load(name, None if by_variable else str(tmp_path))
    message = str(error.value)
    assert f"{name!r} in {tmp_path}" in message and "TFDS_DATA_DIR" in message
    assert f"`python -m experiments.datasets {name} --data_dir={tmp_path}`" in message
    assert "\n" not in message and not list(tmp_path.iterdir())


def test_the_default_folder_is_that_of_tfds(monkeypatch, tmp_path):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/tensorflow_datasets"):
        datasets.load("mnist")


def test_an_unknown_name_gets_the_nearest_one():
    message = "unknown data set 'mnits'; did you mean 'mnist'\\? known: FILE.npz, "
    with pytest.raises(ValueError, match=message):
        datasets.load("mnits")


@pytest.mark.parametrize("name", ["mnits", "digits"])
def test_only_data_sets_with_a_source_are_prepared(name, tmp_path):
    assert set(preparation.ORIGINALS) == set(prepared_folders.DOWNLOADED)
    with pytest.raises(ValueError, match=rf"^unknown .*{name}.* known: cifar10, mnist$"):
        preparation.prepare(name, str(tmp_path))


def test_a_wrong_command_line_ends_in_one_line(tmp_path):
    answers = command_lines.answers(
        [("experiments.datasets", *words) for words in ([], ["mnits"], ["mnist", "--folder=x"])]
    )
    assert answers[0] == (1, "error: name one data set: mnist or cifar10.\n")
    assert answers[1][0] == 1 and answers[1][1].startswith("error: unknown data set to prepare")
    assert answers[2][0] == 1 and answers[2][1].startswith("error: Unknown command line flag")
    assert all(said.count("\n") == 1 for _, said in answers)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_without_a_network_preparing_fails_at_once_and_leaves_nothing(name, tmp_path):
    with pytest.raises(ConnectionError, match=r"^cannot reach https://[^\n]*$"):
        preparation.prepare(name, str(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["mnist", pytest.param("cifar10", marks=pytest.mark.slow)])
def test_the_real_data_is_what_was_published(name):
    try:
        data = datasets.load(name)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    check_contract(data, name)
    images, labels = (np.concatenate(a) for a in zip(data.train, data.validation, strict=True))
    counts, means = PUBLISHED[name]
    assert np.bincount(labels).tolist() == counts
    np.testing.assert_allclose(images.mean(axis=(0, 1, 2)), means, atol=0.1)
    if name == "mnist":  # copies of CIFAR-10 differ in pixels
        validation = hashlib.sha256(data.validation.images.tobytes()).hexdigest()
        assert validation == MNIST_VALIDATION_SHA256
