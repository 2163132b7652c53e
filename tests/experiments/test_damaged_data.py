"""Damaged, foreign and unfinished data sets: each is refused in one line that names the place."""

import contextlib
import io
import json
import os
import random
import re
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from experiments import datasets
from experiments.datasets import prepared
from tests.experiments import command_lines
from tests.experiments.test_datasets import NUM_TEST, NUM_TRAIN, NUM_VALIDATION, prepare_fake

TRAIN, TEST = (f"mnist-{split}.array_record-00000-of-00001" for split in ("train", "test"))
INFO, FEATURES = "dataset_info.json", "features.json"
NUM_FLIPS = 150


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The folder of an undamaged fake of MNIST."""
    with pytest.MonkeyPatch.context() as patch:
        data_dir, _ = prepare_fake(tmp_path_factory.mktemp("good"), patch, "mnist")
    (folder,) = (prepared.Path(data_dir) / "mnist").iterdir()
    return folder


@pytest.fixture
def folder(good, tmp_path, monkeypatch):
    """A copy of the good folder, to be damaged."""
    monkeypatch.setitem(datasets.NUM_VALIDATION, "mnist", NUM_VALIDATION)
    return prepared.Path(shutil.copytree(good, tmp_path / "data" / "mnist" / good.name))


def refusal(root):
    """Return the one line with which a data set is refused."""
    with pytest.raises((ValueError, OSError)) as error:
        datasets.load("mnist", str(root))
    message = str(error.value)
    assert "\n" not in message and message.strip()
    return message


def check_refused(folder, path, pattern):
    root = folder.parents[1]
    message = refusal(root)
    assert message.startswith(f"{path} "), message
    assert re.search(pattern, message), message
    assert message.endswith(
        f"; delete {folder} and prepare it again with "
        f"`python -m experiments.datasets mnist --data_dir={root}`"
    )


def edit(name, change):
    """Return a damage that changes the content of a JSON file."""

    def damage(folder):
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return damage


def put(name, content):
    """Return a damage that replaces a file; a function makes the content from the old one."""

    def damage(folder):
        path = folder / name
        path.write_bytes(content(path.read_bytes()) if callable(content) else content)

    return damage


def replace(name, make):
    """Return a damage that puts something else into the place of a file."""

    def damage(folder):
        (folder / name).unlink()
        make(folder / name)

    return damage


def of_split(split, **fields):
    def change(info):
        next(s for s in info["splits"] if s["name"] == split).update(fields)

    return edit(INFO, change)


def of_feature(name, **fields):
    def change(features):
        features["featuresDict"]["features"][name] = {
            **features["featuresDict"]["features"][name],
            **fields,
        }

    return edit(FEATURES, change)


def of_image(**fields):
    dimensions = {"dimensions": ["28", "28", "1"]}
    return of_feature("image", image={"dtype": "uint8", "shape": dimensions, **fields})


def without_feature(name):
    return edit(FEATURES, lambda features: features["featuresDict"]["features"].pop(name))


ANYTHING_BUT_A_FILE = {
    "missing": (lambda path: None, "is missing"),
    "folder": (lambda path: path.mkdir(), "is not a file"),
    "pipe": (os.mkfifo, "is not a file"),
    "link to nothing": (lambda path: path.symlink_to("nothing"), "is missing"),
}
JSON_CONTENTS = {
    "empty": (b"", "is not JSON"),
    "cut": (lambda data: data[: len(data) // 2], "is not JSON"),
    "binary": (b"\xff\xfe\0\1", "is not JSON"),
    "deep": (b"[" * 200_000, "is not JSON"),
    "list": (b"[1]", "has a JSON list, expected an object"),
    "null": (b"null", "has a JSON NoneType"),
    "foreign": (b'{"a": 1}', "does not describe a data set"),
}
RECORD_CONTENTS = {
    "empty": (b"", "cannot be read"),
    "text": (b"hello\n" * 30_000, "cannot be read"),
    "zeros": (bytes(1 << 17), "cannot be read"),
    "first half": (lambda data: data[: len(data) // 2], "cannot be read"),
    "second half": (lambda data: data[len(data) // 2 :], "cannot be read"),
    "cut by one byte": (lambda data: data[:-1], "cannot be read"),
    "longer by one byte": (lambda data: data + b"x", "cannot be read"),
}
FILES = {
    **{
        f"{name} {kind}": (replace(name, make), name, pattern)
        for name in (TRAIN, TEST, INFO, FEATURES)
        for kind, (make, pattern) in ANYTHING_BUT_A_FILE.items()
    },
    **{
        f"{name} {kind}": (put(name, content), name, pattern)
        for names, contents in (((INFO, FEATURES), JSON_CONTENTS), ((TRAIN, TEST), RECORD_CONTENTS))
        for name in names
        for kind, (content, pattern) in contents.items()
    },
    "files exchanged": (
        lambda folder: shutil.copy(folder / TEST, folder / TRAIN),
        TRAIN,
        f"has {NUM_TEST} records, but dataset_info.json says {NUM_TRAIN}",
    ),
    "name": (edit(INFO, lambda info: info.update(name="fashion_mnist")), INFO, "fashion_mnist 3"),
    "version": (edit(INFO, lambda info: info.update(version="9.9.9")), INFO, "mnist 9.9.9, expec"),
    "bad version": (edit(INFO, lambda info: info.update(version="x")), INFO, "does not describe"),
    "format": (edit(INFO, lambda info: info.update(fileFormat="x")), INFO, "not a valid FileFo"),
    "no splits": (edit(INFO, lambda info: info.pop("splits")), INFO, "has no split 'train'"),
    "no test": (of_split("test", name="valid"), INFO, "has no split 'test'"),
    "splits": (edit(INFO, lambda info: info.update(splits=3)), INFO, "does not describe"),
    "template": (of_split("train", filepathTemplate="{X}"), INFO, "does not name its files"),
    "fewer": (of_split("train", shardLengths=["24"]), TRAIN, "has 25 records, but .* says 24"),
    "more": (of_split("train", shardLengths=["26"]), TRAIN, "has 25 records, but .* says 26"),
    "negative": (of_split("train", shardLengths=["-5"]), TRAIN, "has 25 records, but .* says -5"),
    "none": (of_split("test", shardLengths=["0"]), INFO, "has no records in 'test'"),
    "no shards": (of_split("train", shardLengths=[]), INFO, "has no records in 'train'"),
    "two shards": (
        of_split("train", shardLengths=["10", "15"]),
        "mnist-train.array_record-00000-of-00002",
        "is missing",
    ),
    "no image": (without_feature("image"), FEATURES, "has no feature 'image'"),
    "no label": (without_feature("label"), FEATURES, "has no feature 'label'"),
    "16 bits": (of_image(dtype="uint16"), FEATURES, "has no feature 'image' of 8 bits"),
    "any size": (of_image(shape={"dimensions": ["-1", "28", "1"]}), FEATURES, "one shape"),
    "4 channels": (of_image(shape={"dimensions": ["28", "28", "4"]}), FEATURES, "1 or 3 channels"),
    "no classes": (of_feature("label", classLabel={}), FEATURES, "has no feature 'label' with"),
    "fewer classes": (of_feature("label", classLabel={"numClasses": "9"}), TRAIN, "is 9, expected"),
    "more classes": (
        of_feature("label", classLabel={"numClasses": "11"}),
        "",
        "has no training image of class 10 of its 11 classes",
    ),
    "other size": (
        of_image(shape={"dimensions": ["27", "28", "1"]}),
        TRAIN,
        "an unusable record 0: its image is 28 x 28 L, expected 28 x 27 L",
    ),
    "other depth": (
        of_image(shape={"dimensions": ["28", "28", "3"]}),
        TRAIN,
        "an unusable record 0: its image is 28 x 28 L, expected 28 x 28 RGB",
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_file_is_refused(folder, kind):
    damage, name, pattern = FILES[kind]
    damage(folder)
    check_refused(folder, folder / name, pattern)


def encoded(mode="L", size=(28, 28), kind="PNG", image=None):
    data = io.BytesIO()
    (image or Image.new(mode, size)).save(data, kind)
    return data.getvalue()


IMAGE = encoded(image=Image.frombytes("L", (28, 28), random.Random(0).randbytes(28 * 28)))
# The fields of a record, and what the error says of it.
RECORDS = {
    "label below": ({"label": [-1]}, "its label is -1, expected 0 to 9"),
    "label above": ({"label": [10]}, "its label is 10, expected 0 to 9"),
    "label far above": ({"label": [2**40]}, f"its label is {2**40}, expected 0 to 9"),
    "two labels": ({"label": [1, 2]}, "size 1"),
    "no label": ({"label": None}, "its label is None, expected 0 to 9"),
    "label of bytes": ({"label": [b"x"]}, "invalid literal"),
    "no image": ({"image": None}, "image"),
    "empty image": ({"image": [b""]}, "neither PNG nor JPEG"),
    "image of noise": ({"image": [random.Random(0).randbytes(900)]}, "neither PNG nor JPEG"),
    "GIF": ({"image": [encoded(kind="GIF")]}, "neither PNG nor JPEG"),
    "half a PNG": ({"image": [IMAGE[: len(IMAGE) // 2]]}, "OSError: "),
    "head of a PNG": ({"image": [IMAGE[:60]]}, "OSError: "),
    "end of a PNG": ({"image": [IMAGE[400:]]}, "neither PNG nor JPEG"),
    "16 bits": ({"image": [encoded("I;16")]}, "its image is 28 x 28 I;16, expected 28 x 28 L"),
    "1 bit": ({"image": [encoded("1")]}, "its image is 28 x 28 1, expected"),
    "palette": ({"image": [encoded("P")]}, "its image is 28 x 28 P, expected"),
    "colour": ({"image": [encoded("RGB")]}, "its image is 28 x 28 RGB, expected"),
    "alpha": ({"image": [encoded("LA")]}, "its image is 28 x 28 LA, expected"),
    "colour and alpha": ({"image": [encoded("RGBA")]}, "its image is 28 x 28 RGBA, expected"),
    "as many pixels": ({"image": [encoded(size=(14, 56))]}, "its image is 14 x 56 L, expected"),
    "larger": ({"image": [encoded(size=(29, 28))]}, "its image is 29 x 28 L, expected"),
}


def example(number, **fields):
    from tensorflow_datasets.proto import tf_example_pb2

    message = tf_example_pb2.Example()
    for name, values in {"image": [IMAGE], "label": [number % 10], **fields}.items():
        if values:
            kind = "bytes_list" if isinstance(values[0], bytes) else "int64_list"
            getattr(message.features.feature[name], kind).value.extend(values)
    return message.SerializeToString()


def write_records(folder, records):
    """Write the records of `train` and their number."""
    from array_record.python.array_record_module import ArrayRecordWriter

    with contextlib.closing(ArrayRecordWriter(str(folder / TRAIN), "group_size:1")) as file:
        for record in records:
            file.write(record)
    of_split("train", shardLengths=[str(len(records))])(folder)


@pytest.mark.parametrize("kind", RECORDS)
def test_an_unusable_record_is_refused_by_its_number(folder, monkeypatch, kind):
    fields, pattern = RECORDS[kind]
    monkeypatch.setattr(prepared, "BLOCK", 4)
    write_records(folder, [example(i, **(fields if i == 6 else {})) for i in range(NUM_TRAIN)])
    check_refused(folder, folder / TRAIN, f"has an unusable record 6: .*{pattern}")


@pytest.mark.parametrize("record", [b"", b"\xff" * 100])
def test_what_is_no_record_is_refused_by_its_number(folder, record):
    write_records(folder, [example(0), record])
    check_refused(folder, folder / TRAIN, "has an unusable record 1: ")


def test_jpeg_is_read_too(folder):
    jpeg = encoded(kind="JPEG")  # as CIFAR-10 has in some copies
    write_records(folder, [example(i, image=[jpeg]) for i in range(NUM_TRAIN)])
    data = datasets.load("mnist", str(folder.parents[1]))
    assert not data.train.images.any() and len(data.train.labels) == NUM_TRAIN - NUM_VALIDATION


@pytest.mark.parametrize("num", [1, NUM_VALIDATION])
def test_too_few_records_for_validation_are_refused(folder, num):
    write_records(folder, [example(i) for i in range(num)])
    check_refused(folder, folder, f"has {num} training images, expected more than {NUM_VALIDATION}")


def test_a_class_without_images_is_refused(folder):
    write_records(folder, [example(9 * i) for i in range(NUM_TRAIN) if i % 10 != 3])
    check_refused(folder, folder, "has no training image of class 7 of its 10 classes")


def test_images_that_do_not_fit_into_memory_are_refused(folder):
    of_image(shape={"dimensions": ["4000000000", "4000000000", "1"]})(folder)
    assert re.match(f"{folder} has 25 images of .* not fit into memory", refusal(folder.parents[1]))


def test_the_second_of_two_formats_is_read(folder):
    before = datasets.load("mnist", str(folder.parents[1])).checksum()
    formats = {"fileFormat": "tfrecord", "alternativeFileFormats": ["array_record"]}
    edit(INFO, lambda info: info.update(formats))(folder)
    assert datasets.load("mnist", str(folder.parents[1])).checksum() == before


@pytest.mark.parametrize("name", [TRAIN, TEST])
def test_flipped_bytes_change_nothing_or_are_refused(folder, name):
    root = folder.parents[1]
    unharmed = datasets.load("mnist", str(root)).checksum()
    data = (folder / name).read_bytes()
    used = np.flatnonzero(np.frombuffer(data, np.uint8))  # most of the file is padding with zeros
    rng = random.Random(name)
    ends = []
    for i in range(NUM_FLIPS):
        position = int(rng.choice(used)) if i % 3 else rng.randrange(len(data))
        damaged = bytearray(data)
        damaged[position] ^= rng.randrange(1, 256)
        (folder / name).write_bytes(damaged)
        try:
            ends.append(datasets.load("mnist", str(root)).checksum())
        except ValueError as error:
            assert str(error).startswith(f"{folder / name} ") and "\n" not in str(error)
            ends.append("refused")
    assert set(ends) == {unharmed, "refused"} and ends.count("refused") > NUM_FLIPS // 2


def test_a_data_dir_that_is_no_folder_is_refused(tmp_path):
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("hello")
    link.symlink_to("nothing")
    remedy = "expected a folder; remove it, or name the folder of data sets by --data_dir"
    assert refusal(file).startswith(f"{file} is a file, {remedy}")
    assert refusal(link).startswith(f"{link} is a link to nothing, {remedy}")
    assert refusal(file / "below").startswith(f"no data set 'mnist' in {file}/below; prepare it")
    assert refusal("~nobody-has-this-name/x").startswith("the folder '~nobody-has-this-name/x' na")
    (tmp_path / "mnist").write_text("hello")
    assert refusal(tmp_path).startswith(f"{tmp_path}/mnist is a file, {remedy}")


def test_an_interrupted_preparation_is_no_data_set(folder):
    unfinished = folder.rename(folder.with_name("incomplete.ABC_3.0.1"))
    message = refusal(folder.parents[1])
    assert message.startswith("no data set 'mnist' in ") and message.count("\n") == 0
    assert f"(only {unfinished}, whose preparation was interrupted); prepare it with" in message


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.write_text("x")])
def test_an_unusable_version_is_not_replaced_by_an_older_one(folder, make):
    newer = folder.with_name("3.10.0")
    make(newer)
    check_refused(newer, newer / FEATURES, "is missing")
    newer.rename(folder.with_name("3.0.0"))  # an older one does no harm
    assert datasets.load("mnist", str(folder.parents[1])).name == "mnist"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", [TRAIN, INFO, FEATURES, "", ".."])
def test_what_may_not_be_read_is_named(folder, name):
    path = (folder / name).resolve()
    path.chmod(0)
    try:
        assert re.match(rf".*Permission denied: '{path}", refusal(folder.parents[1]))
    finally:
        path.chmod(0o700)


@pytest.mark.parametrize("module", ["tensorflow_datasets", "array_record.python"])
def test_a_missing_package_is_no_reason_to_delete_data(folder, monkeypatch, module):
    for name in [module, *sys.modules]:
        if name == module or name.startswith(f"{module}."):
            monkeypatch.setitem(sys.modules, name, None)  # then to import it is an error
    message = refusal(folder.parents[1])
    assert message.startswith(f"{folder}") and module in message and "delete" not in message
    assert message.endswith("pip install -e '.[experiments]'")


def test_what_a_record_needs_is_no_reason_either(folder, monkeypatch):
    def parse(record):
        raise ModuleNotFoundError("No module named 'parts'")

    monkeypatch.setattr(prepared, "_parser", lambda data: parse)
    message = refusal(folder.parents[1])
    assert "'parts'" in message and "delete" not in message
    assert message.endswith("pip install -e '.[experiments]'")


def test_programs_end_in_one_line(folder, tmp_path):
    root = folder.parents[1]
    put(TRAIN, lambda data: data[: len(data) // 2])(folder)
    answers = command_lines.answers(
        [
            ("experiments.run", "--config=experiments/configs/quickstart.py",
             "--config.dataset=mnist", f"--workdir={tmp_path}/run", f"--data_dir={root}"),
            ("experiments.datasets", "mnist", f"--data_dir={root}"),
        ]
    )  # fmt: skip
    for status, said in answers:
        assert status == 1 and said.startswith(f"error: {folder / TRAIN} ")
        assert said.count("\n") == 1 and said.endswith("\n")
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").glob("*.csv"))
