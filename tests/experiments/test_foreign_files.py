"""Files of another run, copies, and losses in the folder of a run: none becomes a row."""

import dataclasses
import re
import shutil

import jax
import numpy as np
import pytest

from experiments.runners import iterative, learned
from experiments.runners.outcomes import abstract_outcome
from experiments.runners.registry import RUNNERS
from experiments.storage import run_folder
from experiments.storage.autosave import Autosave
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.code import Code
from experiments.storage.files import read_json, write_json
from experiments.storage.records import Records
from tests.experiments import tiny
from tests.experiments.test_checkpoints import damage

OTHER_RUNS = {
    "learning rate": {"learning_rate": 0.5},
    "seeds": {"seeds": (0, 7)},
    "variants": {"variants": ("large_final", "movement")},
    "rates": {"default_rate": 0.3},
    "data": {"data": "another checksum"},
    "slice": {"part": "0/1"},
    "code": {"code": Code("0.1.0+s0123456789", None, ())},
}


def open_folder(path, **changes):
    """Open a folder for a run with some changes; return it with the run's configuration."""
    options = {name: changes.pop(name) for name in ("part", "data", "code") if name in changes}
    config = tiny.config(**changes)
    return run_folder.open_workdir(str(path), config.to_dict(), **options), config


def reopen(path, **changes):
    """Put other settings under the files in a folder; return it with the plan of these."""
    _, config = open_folder(path.with_name("other"), **changes)
    shutil.copy(path.with_name("other") / "config.json", path)
    return run_folder.existing(path), iterative.make_plan(config)


@pytest.fixture
def run(tmp_path):
    """The folder of a finished run."""
    return shutil.copytree(tiny.finished(), tmp_path / "run")


@pytest.mark.parametrize("other", OTHER_RUNS)
def test_rows_and_checkpoints_of_another_run_are_not_taken(run, capsys, other):
    folder, plan = reopen(run, **OTHER_RUNS[other])
    files = iterative.RunFiles(plan, folder, "a command")
    assert not files.rows()
    said = capsys.readouterr().err.splitlines()
    what = "by other code" if other == "code" else "with other settings, seeds or data"
    for table in ("results", "analysis"):
        part = run / "parts" / table / "round_01.json"
        assert f"{part} was made {what}" in "\n".join(said), said
    assert all(line.endswith("; its rows will be computed again") for line in said)
    newest = Checkpoints(folder.below("checkpoints"), keep=2).load_newest(
        9, lambda round: abstract_outcome(plan, round)
    )
    assert newest is None
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3 and all(f"made {what}" in line and "moved to" in line for line in said)


@pytest.mark.parametrize("other", OTHER_RUNS)
def test_a_state_under_way_of_another_run_is_not_taken(tmp_path, capsys, other):
    state = {"w": np.arange(3.0)}
    one, _ = open_folder(tmp_path / "one")
    two, _ = open_folder(tmp_path / "two", **OTHER_RUNS[other])
    Autosave(one, "round_01").save_if_due("members", 4, lambda: state, due=True)
    done, again = Autosave(one, "round_01").load("members", state)
    assert done == 4
    jax.tree.map(np.testing.assert_array_equal, again, state)
    shutil.copytree(tmp_path / "one" / "under_way", tmp_path / "two" / "under_way")
    assert Autosave(two, "round_01").load("members", state) is None
    assert other == "code" or "was made with other settings" in capsys.readouterr().err


def test_a_state_of_another_training_is_not_taken(tmp_path, capsys):
    folder = tiny.folder(tmp_path)
    state = {"w": np.arange(3.0)}
    Autosave(folder, "round_01").save_if_due("members", 4, lambda: state, due=True)
    under_way = tmp_path / "under_way" / folder.code_version
    (under_way / "round_01").rename(under_way / "round_02")
    assert Autosave(folder, "round_02").load("members", state) is None
    assert "is a copy of under_way/code/round_01/members/round_04" in capsys.readouterr().err


def resume(run, config=None):
    tiny.run(run, config or tiny.config())
    return (run / "results.csv").read_bytes()


@pytest.mark.parametrize("name", ["round_01 (copy)", "round_1", "round_03"])
def test_a_copied_part_doubles_no_row(run, capsys, name):
    whole = (run / "results.csv").read_bytes()
    parts = run / "parts" / "results"
    shutil.copy(parts / "round_01.json", parts / f"{name}.json")
    assert resume(run) == whole
    said = capsys.readouterr().err
    copy = f"{parts / name}.json is a copy of parts/results/round_01; its rows will be computed ag"
    assert said.startswith(copy)


def test_a_copied_checkpoint_starts_no_round(run, capsys):
    whole = (run / "results.csv").read_bytes()
    checkpoints = run / "checkpoints"
    for suffix in ("", ".json"):
        new = checkpoints / f"round_02{suffix}"
        (shutil.rmtree if new.is_dir() else type(new).unlink)(new)
        (shutil.copy if suffix else shutil.copytree)(checkpoints / f"round_01{suffix}", new)
    assert resume(run) == whole
    assert "round_02.json is a copy of checkpoints/round_01; moved to" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["deleted", "emptied", "cut", "flipped"])
@pytest.mark.parametrize("make_config", [tiny.config, tiny.learned])
def test_a_lost_curve_file_is_named_and_costs_no_row(tmp_path, capsys, make_config, how):
    run = shutil.copytree(tiny.finished(make_config), tmp_path / "run")
    whole = (run / "results.csv").read_bytes()
    curves = run / ("curves/round_01.parquet" if make_config is tiny.config else learned.CURVES)
    damage(curves, how)
    assert resume(run, make_config()) == whole
    is_what = "missing" if how == "deleted" else "damaged"
    assert capsys.readouterr().err == f"{curves} is {is_what}; the rows in results.csv are whole\n"


@pytest.mark.parametrize("make_config", [tiny.config, tiny.learned, tiny.one_shot])
def test_a_folder_of_the_time_before_stamps_goes_on(tmp_path, capsys, make_config):
    run = shutil.copytree(tiny.finished(make_config), tmp_path / "run")
    whole = (run / "results.csv").read_bytes()
    strip_stamps(run)
    assert resume(run, make_config()) == whole
    assert not capsys.readouterr().err
    assert read_json(run / "config.json")["code"][0] == "unknown"


def strip_stamps(run):
    """Make a folder as it was before files said what made them."""
    config = read_json(run / "config.json")
    write_json(run / "config.json", {name: x for name, x in config.items() if name != "code"})
    for path in run.glob("**/parts/*/*.json"):
        content = read_json(path)
        write_json(path, {name: content[name] for name in ("rows", "sha256")})
    for path in run.glob("**/checkpoints/*.json"):
        write_json(path, read_json(path)["sha256"])


def test_files_without_a_stamp_are_not_taken_by_a_folder_that_stamps(run, capsys):
    strip_stamps(run)
    folder, plan = reopen(run)
    assert not iterative.RunFiles(plan, folder, "a command").rows()
    assert "was made with other settings" in capsys.readouterr().err


@pytest.mark.parametrize("make_config", [tiny.config, tiny.learned, tiny.one_shot])
def test_a_deleted_config_is_made_again_by_the_same_run_alone(tmp_path, make_config):
    run = shutil.copytree(tiny.finished(make_config), tmp_path / "run")
    whole = (run / "results.csv").read_bytes()
    (run / "config.json").unlink()
    other = make_config(learning_rate=0.5)
    with pytest.raises(ValueError, match=r"config\.json is missing, and .* was made with other"):
        resume(run, other)
    assert (run / "results.csv").read_bytes() == whole
    assert resume(run, make_config()) == whole


def test_a_run_goes_on_in_a_folder_that_was_moved(run, tmp_path):
    whole = (run / "results.csv").read_bytes()
    run.rename(tmp_path / "elsewhere")
    assert resume(tmp_path / "elsewhere") == whole


def test_rows_of_other_code_say_so(tmp_path):
    codes = [Code(f"0.1.0+s{digit * 10}", None, ()) for digit in "ab"]
    for code, rounds in zip(codes, (0, 1), strict=True):
        config = tiny.config(num_rounds=rounds)
        folder = run_folder.open_workdir(
            str(tmp_path), config.to_dict(), code=code, allow_code_change=True
        )
        rows = RUNNERS["iterative"].run(iterative.make_plan(config), folder, "a command")
    assert {(row["round"], row["code_version"]) for row in rows} == {
        (0, codes[0].version), (1, codes[1].version)
    }  # fmt: skip
    assert read_json(tmp_path / "config.json")["code"] == [code.version for code in codes]


def test_settings_that_may_change_bind_no_file(run):
    folders = [
        run_folder.open_workdir(str(run), tiny.config(**changes).to_dict())
        for changes in ({}, {"num_rounds": 4, "figure": "other", "chunk_evals": 3})
    ]
    assert folders[0].identity == folders[1].identity
    order = iterative.row_key(dataclasses.asdict(iterative.make_plan(tiny.config()).config))
    assert len(Records(folders[1], "results.csv", iterative.COLUMNS, order).rows()) == 10


def test_the_line_about_a_foreign_file_tells_which_code(run):
    folder = run_folder.existing(run)
    stamp = folder.identity.stamp(run / "x.json") | {"code": "0.1.0+sother"}
    with pytest.raises(ValueError, match=re.escape("x.json was made by other code (0.1.0+sother)")):
        folder.identity.check(run / "x.json", stamp)
