"""Files for TensorBoard have the numbers of the table and the curves, each once."""

import json
import math
import shutil
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from experiments.plots import find_figure, tensorboard
from experiments.runners.registry import RUNNERS, read_table
from experiments.storage import results
from experiments.storage.listeners import Part
from tests.experiments import tiny


class Writer:
    """Takes the place of tensorboardX.SummaryWriter: a line of JSON per point."""

    def __init__(self, logdir):
        self._file, self._lines = Path(logdir) / "events.out.tfevents.7.host", []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.write_text("\n".join(map(json.dumps, self._lines)))

    def add_scalar(self, tag, value, step):
        self._lines.append([tag, value, step])

    def add_image(self, tag, image, step, dataformats):
        assert dataformats == "HWC" and image.dtype == np.uint8
        self._lines.append([tag, [image.shape[1], image.shape[0]], step])


def read_lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def read_events(file):
    """Read a file of tensorboardX: length, checksum, event, checksum, and so on."""
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore

    data, place = file.read_bytes(), 0
    while place < len(data):
        [length] = struct.unpack_from("<Q", data, place)
        event = Event.FromString(data[place + 12 : place + 12 + length])
        place += length + 16
        for value in event.summary.value:
            is_image = value.HasField("image")
            size = [value.image.width, value.image.height]
            yield value.tag, size if is_image else value.simple_value, event.step


@pytest.fixture(params=["stand-in", "tensorboardX"])
def read(request, monkeypatch):
    """What reads the files of a writer: one that stands in for tensorboardX, and the real one."""
    if request.param == "tensorboardX":
        pytest.importorskip("tensorboardX", reason="the extra tensorboard is not installed")
        return read_events
    stand_in = types.SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "tensorboardX", stand_in)
    return read_lines


def board(workdir, kind, several=()):
    config = kind()
    draw = find_figure(config.figure, RUNNERS[config.runner].COLUMNS)
    return tensorboard.Board(workdir, config.figure, draw, several)


def points(workdir, read):
    """All points by member, tag and step, after a check that none is there twice."""
    found = {}
    for file in sorted((workdir / "tensorboard").rglob("*")):
        if file.is_file():
            assert file.name.startswith("events.out.tfevents.") and file.suffix != ".tmp"
            for tag, value, step in read(file):
                place = file.parent.relative_to(workdir / "tensorboard").as_posix(), tag, step
                assert place not in found
                found[place] = value
    return found


MEMBERS = {
    tiny.config: "{variant}/seed_{seed}",
    tiny.learned: "{variant}/bernoulli/initial_logit_{initial_logit}/seed_{seed}",
    tiny.one_shot: "{criterion}/{weights}/seed_{seed}",
    tiny.at_init: "{variant}/seed_{seed}",
}
MEASURED = (
    "density", "empty_layers", "early_stop_step", "validation_loss", "validation_accuracy",
    "test_accuracy", "test_most_probable_accuracy", "test_expected_accuracy",
    "final_test_accuracy", "retrained_test_accuracy",
)  # fmt: skip
ABOUT = ("variant", "seed", "round", "initial_logit")


def expected(workdir, kind):
    rows, found = read_table(workdir / "results.csv"), {}
    for row in rows:
        step = row.get("round", row.get("power", 0))
        for name in MEASURED:
            if math.isfinite(row.get(name, math.nan)):
                found[MEMBERS[kind].format(**row), f"results/{name}", step] = row[name]
    for file in (workdir / "curves").glob("*.parquet"):
        curves = results.read_curves(file)
        for place, step in enumerate(curves["step"]):
            at = {name: values[place] for name, values in curves.items()}
            training = f"round_{at['round']:02}" if "round" in at else file.stem
            for name in at.keys() - {"step", *ABOUT}:
                if math.isfinite(at[name]):
                    found[MEMBERS[kind].format(**at), f"{name}/{training}", step] = at[name]
    return found


@pytest.mark.parametrize("kind", MEMBERS, ids=lambda kind: kind.__name__)
def test_the_files_have_every_number_once_and_the_figure(kind, read, tmp_path):
    workdir = shutil.copytree(tiny.finished(kind), tmp_path / "run")
    tiny.run(workdir, kind(), listeners=[board(workdir, kind)])
    found = points(workdir, read)
    images = {place: found.pop(place) for place in list(found) if place[0] == "figures"}
    numbers = expected(workdir, kind)
    assert numbers.keys() == found.keys()
    for place, value in numbers.items():
        assert np.float32(found[place]) == np.float32(value), place
    assert {tag for _, tag, _ in images} == {kind().figure}
    assert max(step for *_, step in images) == len(read_table(workdir / "results.csv"))
    assert all(min(size) > 200 for size in images.values())


def test_a_resumed_run_writes_only_what_is_missing(read, tmp_path):
    workdir = shutil.copytree(tiny.finished(tiny.config), tmp_path / "run")
    parts = []
    tiny.run(workdir, tiny.config(), listeners=[parts.append, board(workdir, tiny.config)])
    files = {path: path.stat().st_mtime_ns for path in workdir.glob("tensorboard/**/*.round_*")}
    whole = points(workdir, read)
    gone = workdir / "tensorboard/random:reshuffle:freeze/seed_1/events.out.tfevents.round_02"
    gone.unlink()
    tiny.run(workdir, tiny.config(), listeners=[board(workdir, tiny.config)])
    again = {path: path.stat().st_mtime_ns for path in workdir.glob("tensorboard/**/*.round_*")}
    assert {path.suffix for path in files if files[path] != again[path]} == {".round_02"}
    board(workdir, tiny.config)(parts[1]._replace(is_new=True))  # a part that is completed again
    assert points(workdir, read) == whole


def test_a_member_that_diverged_has_no_points(tmp_path, read):
    kind = tiny.config
    row = tiny.blank_row(RUNNERS["iterative"].COLUMNS) | {"network": "lenet300"}
    rows = [row | {"variant": "../a b", "test_accuracy": math.nan, "round": 0}]
    part = Part(tmp_path / "results.csv", "round_00", rows, rows, (), True)
    board(tmp_path, kind)(part._replace(table=tmp_path / "dense" / "results.csv"))
    found = {(member, tag) for member, tag, _ in points(tmp_path, read)}
    assert {member for member, _ in found} == {".._a_b/seed_1"}
    tags = {tag for _, tag in found}
    assert "results/density" in tags and "results/test_accuracy" not in tags


@pytest.mark.parametrize(
    ("several", "dense", "pruned"),
    [
        ((), "dense/seed_0", "random/seed_0"),
        (("default_rate",), "dense/seed_0", "random/default_rate_0.5/seed_0"),
        (
            ("learning_rate", "default_rate"),
            "dense/learning_rate_0.01/seed_0",
            "random/learning_rate_0.01/default_rate_0.5/seed_0",
        ),
    ],
)
def test_names_of_members_tell_numbers_where_there_are_several(
    several, dense, pruned, tmp_path, read
):
    row = tiny.blank_row(RUNNERS["iterative"].COLUMNS) | {"seed": 0, "learning_rate": 0.01}
    rows = [
        row | {"variant": "dense", "default_rate": None, "round": 0},
        row | {"variant": "random", "default_rate": 0.5},
    ]
    part = Part(tmp_path / "dense" / "results.csv", "round_00", rows, rows, (), True)
    board(tmp_path, tiny.config, several)(part)
    assert {member for member, *_ in points(tmp_path, read)} == {dense, pruned}


def test_a_line_between_copies_is_a_run_over_its_positions(tmp_path, read):
    row = tiny.blank_row(RUNNERS["connectivity"].COLUMNS)
    about = {"variant": "dense", "rewind_step": 10, "seed": 0, "copy": 0, "other_copy": 1}
    rows = [
        row | about | {"round": 3, "position": position, "test_accuracy": 0.5 + position / 4}
        for position in (0.0, 0.5, 1.0)
    ]
    table = tmp_path / "dense" / "results.csv"
    board(tmp_path, tiny.connected)(Part(table, "round_03", rows, rows, (), True))
    line = "dense/rewind_step_10/seed_0/copy_0/other_copy_1", "test_accuracy/round_03"
    found = {place: value for place, value in points(tmp_path, read).items() if place[:2] == line}
    assert found == {(*line, 0): 0.5, (*line, 50): 0.625, (*line, 100): 0.75}


def test_without_tensorboardx_a_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ValueError, match=r"not installed: pip install -e '.\[tensorboard\]'$"):
        board(tmp_path, tiny.config)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path, read):
    (tmp_path / "tensorboard").write_text("")
    with pytest.raises(ValueError, match=r"tensorboard is a file, expected a folder\.$"):
        board(tmp_path, tiny.config)
