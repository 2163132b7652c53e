import dataclasses
import json
import platform
import re
import subprocess
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

import supermask_jax
from experiments.runners import iterative
from experiments.runners.rows import Origin
from experiments.storage import environment, results, run_folder
from experiments.storage.files import read_json, write_json
from tests.experiments import tiny

ROOT = Path(__file__).resolve().parents[2]
VERSION = supermask_jax.__version__


def make_row(**changes):
    row = {name: kind(3) for name, kind in iterative.COLUMNS.items()}
    return row | changes


@pytest.mark.parametrize("value", [0.1 + 0.2, 1 / 3, 5e-324, -0.0, float("nan"), float("inf")])
def test_a_table_reads_back_exactly(tmp_path, value):
    command = "python -m x '--config.seeds=(0, 1)' \"two\nlines\""
    rows = [make_row(validation_loss=value, command=command), make_row(id="007", seed=-1)]
    results.write_rows(tmp_path / "new" / "table.csv", rows, iterative.COLUMNS)
    again = results.read_rows(tmp_path / "new" / "table.csv", iterative.COLUMNS)
    assert repr(again) == repr(rows)
    assert [type(again[0][name]) for name in iterative.COLUMNS] == [*iterative.COLUMNS.values()]


@pytest.mark.parametrize("before", [[], [make_row(seed=7)]])
def test_a_table_is_written_whole_or_not_at_all(tmp_path, before):
    path = tmp_path / "table.csv"
    if before:
        results.write_rows(path, before, iterative.COLUMNS)

    def broken():
        yield from [make_row()] * 1000
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        results.write_rows(path, broken(), iterative.COLUMNS)
    assert path.exists() == bool(before)
    assert results.read_rows(path, iterative.COLUMNS) == before
    results.write_rows(path, [make_row()], iterative.COLUMNS)
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", ",".join([*iterative.COLUMNS, "extra"]) + "\n"])
def test_foreign_columns_are_refused_with_the_path(tmp_path, text):
    path = tmp_path / "foreign.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"{path} is not a table of this version")):
        results.read_rows(path, iterative.COLUMNS)


def test_a_missing_table_has_no_rows(tmp_path):
    assert results.read_rows(tmp_path / "none.csv", iterative.COLUMNS) == []


SETTINGS = {"network": "lenet300", "learning_rate": 0.0012, "rates": (("output/kernel", 0.1),)}
MEMBER = {
    "criterion": "random",
    "mask_one": "rewind",
    "mask_zero": "zero",
    "seed": 3,
    "round": 7,
}
GOLDEN = "b375ded9c493"


def reverse(items):
    return dict(reversed(items.items()))


def test_row_id_stays_the_same():
    assert results.row_id(SETTINGS, MEMBER, "0.1.0") == GOLDEN
    assert results.row_id(reverse(SETTINGS), reverse(MEMBER), "0.1.0") == GOLDEN


def test_row_id_differs_with_each_ingredient():
    ids = [results.row_id(SETTINGS | {name: "other"}, MEMBER, "0.1.0") for name in SETTINGS]
    ids += [results.row_id(SETTINGS, MEMBER | {name: "other"}, "0.1.0") for name in MEMBER]
    ids += [results.row_id(SETTINGS, MEMBER, "0.1.1"), GOLDEN]
    assert len(set(ids)) == len(ids) == len(SETTINGS) + len(MEMBER) + 2


@pytest.fixture(scope="module")
def plan():
    return iterative.make_plan(tiny.config())


# Settings that the id of a row does not depend on.
OF_THE_SWEEP = {
    "runner", "experiment", "figure", "variants", "seeds", "num_rounds", "chunk_evals",
    "keep_checkpoints",
}  # fmt: skip
MEASURED = (
    "early_stop_step", "validation_loss", "validation_accuracy", "test_accuracy",
    "final_test_accuracy",
)  # fmt: skip


def first_id(plan, **changes):
    """Return the id of the row of the first variant and seed in round 1."""
    plan = plan._replace(config=dataclasses.replace(plan.config, **changes))
    variants = map(iterative.Variant.parse, plan.config.variants)
    members = [iterative.Member(v, seed) for v in variants for seed in plan.config.seeds]
    plan = plan._replace(pruned=members)
    count = len(plan.members(1))
    mask = jax.tree.map(lambda x: np.ones((count, *x.shape), bool), plan.problem.params)
    table = dict.fromkeys(MEASURED, np.zeros(count, np.int32))
    return iterative._make_rows(plan, 1, mask, table, Origin("0.1.0", "a command"))[0]["id"]


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(iterative.Settings)])
def test_id_of_a_row_depends_on_what_decides_its_numbers(plan, name):
    more = {"variants": (*tiny.VARIANTS, "movement"), "seeds": (0, 5, 9)}
    same = first_id(plan, **{name: more.get(name, "other")}) == first_id(plan)
    assert same == (name in OF_THE_SWEEP)


CONFIG = {"learning_rate": 0.1, "num_rounds": 2, "seeds": (0, 1), "dataset": "digits"}


@pytest.mark.parametrize("changes", [{}, {"num_rounds": 5}, {"chunk_evals": 1}, {"seeds": [0, 1]}])
def test_a_folder_is_reopened_by_the_same_run(tmp_path, changes):
    for config in (CONFIG, CONFIG | changes):
        workdir = run_folder.open_workdir(str(tmp_path / "a" / "b"), config)
    assert workdir == tmp_path / "a" / "b"
    assert sorted(file.name for file in workdir.iterdir()) == ["config.json", "environment.json"]
    config = read_json(workdir / "config.json")
    assert config == json.loads(json.dumps(CONFIG | changes | {"format": run_folder.FORMAT}))


def test_a_folder_records_every_environment_of_its_run(tmp_path, monkeypatch):
    names = ["one", "two", "one", "two"]
    for name in names:
        monkeypatch.setattr(environment, "environment", lambda _, name=name: {"processor": name})
        run_folder.open_workdir(str(tmp_path), CONFIG)
    recorded = read_json(tmp_path / "environment.json")
    assert recorded == [{"processor": "one"}, {"processor": "two"}]
    (tmp_path / "environment.json").write_text("{")
    run_folder.open_workdir(str(tmp_path), CONFIG)
    assert read_json(tmp_path / "environment.json") == [{"processor": "two"}]


@pytest.mark.parametrize("content", ["", "{", "3", "[1]", "\x00"])
def test_a_damaged_config_is_named(tmp_path, content):
    run_folder.open_workdir(str(tmp_path), CONFIG)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'config.json'} is damaged")):
        run_folder.open_workdir(str(tmp_path), CONFIG)
    assert (tmp_path / "config.json").read_text() == content


def test_a_folder_of_another_version_is_refused(tmp_path):
    run_folder.open_workdir(str(tmp_path), CONFIG)
    settings = read_json(tmp_path / "config.json")
    del settings["format"]
    write_json(tmp_path / "config.json", settings | {"old_setting": 1})
    with pytest.raises(ValueError) as caught:
        run_folder.open_workdir(str(tmp_path), CONFIG)
    assert str(caught.value) == (
        f"{tmp_path} was made by another version (format: None -> {run_folder.FORMAT}); "
        "continue it with the version that its environment.json names, or choose another --workdir."
    )


def test_asking_for_fewer_rounds_forgets_none(tmp_path):
    for rounds in (5, 3):
        run_folder.open_workdir(str(tmp_path), CONFIG | {"num_rounds": rounds})
    assert read_json(tmp_path / "config.json")["num_rounds"] == 5


def test_a_folder_needs_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="--workdir is empty"):
        run_folder.open_workdir("", CONFIG)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.2}, "(learning_rate: 0.1 -> 0.2)"),
        (
            {"seeds": (1,), "num_rounds": 3, "dataset": "mnist"},
            "(dataset: 'digits' -> 'mnist', seeds: [0, 1] -> [1])",
        ),
        ({"extra": 1}, "(extra: None -> 1)"),
        ({"data": "other"}, "(data: 'own' -> 'other')"),
        ({"slice": "0/2"}, "(slice: None -> '0/2')"),
    ],
)
def test_a_folder_refuses_another_run_and_stays_as_it_is(tmp_path, changes, message):
    workdir = run_folder.open_workdir(str(tmp_path), CONFIG, data="own")
    before = (workdir / "config.json").read_bytes()
    part, data = changes.pop("slice", None), changes.pop("data", "own")
    with pytest.raises(ValueError) as caught:
        run_folder.open_workdir(str(tmp_path), CONFIG | changes, part, data)
    assert f"{tmp_path} holds a run with other settings {message}" in str(caught.value)
    assert (workdir / "config.json").read_bytes() == before


@pytest.mark.parametrize("below", ["", "/below"])
def test_a_file_is_not_a_folder(tmp_path, below):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="file"):
        run_folder.open_workdir(str(tmp_path / "file") + below, CONFIG)
    assert (tmp_path / "file").read_text() == "mine"


def test_curves_are_one_row_per_member_and_evaluation(tmp_path):
    members = [make_row(variant="dense", seed=4, round=0), make_row(variant="x", seed=5, round=0)]
    losses = np.array([[3, 2, 1], [6, 5, np.nan]], np.float32)
    path = tmp_path / "curves" / "round_00.parquet"
    results.write_curves(
        path, members, ("variant", "seed", "round"), np.array([0, 10, 13]), {"train_loss": losses}
    )
    table = pq.read_table(path)
    assert table.column_names == ["variant", "seed", "round", "step", "train_loss"]
    columns = table.to_pydict()
    assert columns["variant"] == ["dense"] * 3 + ["x"] * 3
    assert columns["seed"] == [4] * 3 + [5] * 3
    assert columns["step"] == [0, 10, 13] * 2
    np.testing.assert_array_equal(columns["train_loss"], losses.ravel())


@pytest.mark.parametrize(
    ("flags", "recorded"),
    [("fpu avx2 avx", "Chip 9, 2 cores, avx2"), ("avx512f avx avx2", "Chip 9, 2 cores, avx512f"),
     ("fpu", "Chip 9, 2 cores")],
)  # fmt: skip
def test_the_processor_is_recorded_with_its_widest_vectors(monkeypatch, flags, recorded):
    core = f"processor : 0\nmodel name\t: Chip 9\nflags\t\t: {flags}\n\n"
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", lambda _: 2 * core)
        processor = environment._processor()
    assert processor == recorded


def test_the_environment_names_neither_user_nor_host(monkeypatch):
    monkeypatch.setenv("LOGNAME", "somebody")
    recorded = environment.environment()
    assert set(recorded) == {
        "code_version",
        "python",
        "packages",
        "platform",
        "processor",
        "backend",
        "devices",
    }
    assert recorded["backend"] == "cpu" and len(recorded["devices"]) == 4
    assert recorded["packages"]["jax"] == jax.__version__
    assert list(recorded["packages"]) == [*environment.PACKAGES]
    assert environment.environment(("jax", "no-such-package"))["packages"] == {
        "jax": jax.__version__
    }
    text = json.dumps(recorded)
    for secret in ("somebody", platform.node(), str(Path.home()), str(ROOT)):
        assert not re.search(rf"(?<!\w){re.escape(secret)}(?!\w)", text)


def git(folder, *words):
    user = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *user, *words], check=True, capture_output=True)


def test_code_version_of_a_checkout(tmp_path, monkeypatch):
    source = tmp_path / "experiments" / "storage" / "environment.py"
    monkeypatch.setattr(environment, "__file__", str(source))
    assert environment.code_version() == VERSION
    source.parent.mkdir(parents=True)
    source.write_text("")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "all")
    (tmp_path / "notes.txt").write_text("")
    clean = environment.code_version()
    assert re.fullmatch(re.escape(VERSION) + r"\+g[0-9a-f]{10}", clean)
    source.write_text("changed")
    changed = environment.code_version()
    assert re.fullmatch(re.escape(clean) + r"\.dirty\.[0-9a-f]{8}", changed)
    assert environment.code_version() == changed
    source.write_text("changed again")
    assert environment.code_version().startswith(clean + ".dirty.")
    assert environment.code_version() != changed


def test_code_version_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment.code_version() == VERSION
