import dataclasses
import json
import re
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from ml_collections import ConfigDict

from experiments.runners import iterative, iterative_plan, settings
from experiments.runners.registry import RUNNERS
from experiments.runners.rows import Origin
from experiments.storage import results, run_folder
from experiments.storage.files import read_json
from tests.experiments import tiny

RESULTS = Path(__file__).resolve().parents[2] / "results"


def make_row(**changes):
    return tiny.blank_row(iterative.COLUMNS) | changes


def test_a_folder_in_the_place_of_a_file_stays(tmp_path):
    (tmp_path / "table.csv").mkdir()
    with pytest.raises(IsADirectoryError, match=r"table.csv is a folder, expected a file\.$"):
        results.write_rows(tmp_path / "table.csv", [make_row()], iterative.COLUMNS)
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.parametrize("value", [0.1 + 0.2, 1 / 3, 5e-324, -0.0, float("nan"), float("inf")])
def test_a_table_reads_back_exactly(tmp_path, value):
    command = "python -m x '--config.seeds=(0, 1)' \"two\nlines\""
    rows = [make_row(validation_loss=value, command=command), make_row(network="007", seed=-1)]
    results.write_rows(tmp_path / "new" / "table.csv", rows, iterative.COLUMNS)
    again = results.read_rows(tmp_path / "new" / "table.csv", iterative.COLUMNS)
    assert repr(again) == repr(rows)
    assert [type(cell) for cell in again[0].values()] == [type(cell) for cell in rows[0].values()]


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
GOLDEN = "rb375ded9c49"


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
    "keep_checkpoints", "start",  # start_sha256 tells what the file says
}  # fmt: skip
MEASURED = (
    "early_stop_step", "validation_loss", "validation_accuracy", "test_accuracy",
    "final_test_accuracy",
)  # fmt: skip


def first_id(plan, **changes):
    """Return the id of the row of the first variant and seed in round 1."""
    plan = plan._replace(config=dataclasses.replace(plan.config, **changes))
    plan = plan._replace(pruned=iterative_plan.members_of(plan.config))
    count = len(plan.members(1))
    mask = jax.tree.map(lambda x: np.ones((count, *x.shape), bool), plan.problem.params)
    table = dict.fromkeys(MEASURED, np.zeros(count, np.int32))
    return iterative._make_rows(plan, 1, mask, table, Origin("0.1.0", "a command"))[0]["id"]


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(iterative.Settings)])
def test_id_of_a_row_depends_on_what_decides_its_numbers(plan, name):
    more = {"variants": (*tiny.VARIANTS, "movement"), "seeds": (0, 5, 9)}
    same = first_id(plan, **{name: more.get(name, "other")}) == first_id(plan)
    assert same == (name in OF_THE_SWEEP)


@pytest.mark.parametrize(
    ("make_config", "whole", "floats"),
    [
        (
            tiny.config,
            {"learning_rate": 1, "default_rate": 0, "rates": [["output/kernel", 0]]},
            {"learning_rate": 1.0, "default_rate": -0.0, "rates": (("output/kernel", 0.0),)},
        ),
        (tiny.one_shot, {"default_rate": 0}, {"default_rate": 0.0}),
        (
            tiny.learned,
            {"learning_rate": 100, "momentum": 0, "initial_logits": (0, 1)},
            {"learning_rate": 100.0, "momentum": 0.0, "initial_logits": (-0.0, 1.0)},
        ),
    ],
)
def test_whole_numbers_and_floats_are_one_setting(make_config, whole, floats):
    runner, config = RUNNERS[make_config().runner], make_config().to_dict()
    one, other = (runner.make_plan(ConfigDict(config | new)).config for new in (whole, floats))
    assert repr(one) == repr(other)
    assert len({results.row_id(read.of_a_member(), MEMBER, "0.1.0") for read in (one, other)}) == 1


def test_committed_settings_are_read_as_they_stand():
    for path in RESULTS.glob("*.config.json"):
        config = run_folder.settings(read_json(path))
        kind = RUNNERS[config["runner"]].Settings
        read = settings.read(kind, config).recorded()
        assert json.dumps(read, sort_keys=True) == json.dumps(config, sort_keys=True), path


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
