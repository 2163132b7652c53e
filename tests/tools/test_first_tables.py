"""Tables that are older than settings and columns of today, read, drawn, rerun and joined.

`first_tables` has tables of digits that `tools.collect` of commit 3f8b09a98c wrote, of a run of
`mask_criteria`, of `learned_supermasks` and of `heuristic_supermasks`. tests/test_readme.py judges
the committed tables of results/.
"""

import shutil
from pathlib import Path

import pytest

from experiments import datasets
from experiments.plots import find_figure
from experiments.runners.registry import read_table
from experiments.tables.summary import summary
from tests.experiments import tiny
from tests.experiments.test_configs import fake_dataset
from tools import rerun
from tools.collect import collect
from tools.report.tables import read_tables
from tools.table_files import of_tables

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent / "first_tables"
NAMES = [files.rows.stem for files in of_tables(FOLDER)]
COMMITTED = [files.rows.stem for files in of_tables(ROOT / "results")]
TOLERANCE = 3 / 300  # images of the test set: processors round differently


def test_there_is_a_table_of_each_runner_of_the_time():
    assert [
        f"{name}_lenet300_digits"
        for name in ("heuristic_supermasks", "learned_supermasks", "mask_criteria")
    ] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_row_of_a_first_table_is_computed_again(name, tmp_path):
    *_, last = read_table(FOLDER / f"{name}.csv")
    found = rerun.find(last["id"], FOLDER)
    plan = found.runner.make_plan(found.config)
    again = rerun.recompute(found, plan, str(tmp_path), tiny.COMMITTED)
    assert again.keys() == last.keys()
    for column in rerun.measured(last):
        wide = 0.05 if "loss" in column else 1 if "step" in column else TOLERANCE
        assert again[column] == pytest.approx(last[column], abs=wide, nan_ok=True), column
    assert again["density"] == pytest.approx(last["density"], abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_a_first_table_is_shown_and_drawn(name):
    rows = read_table(FOLDER / f"{name}.csv")
    [table] = [table for table in read_tables(FOLDER) if table.name == name]
    assert summary(rows, 100).row_count >= 1
    figure = find_figure(table.config["figure"], rows[0]).draw(rows)
    assert figure.axes[0].get_lines()


@pytest.mark.parametrize("name", NAMES)
def test_a_first_table_is_collected_into_itself(name, tmp_path):
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    before = read_table(tmp_path / f"{name}.csv")
    rows = collect([tmp_path / name], tmp_path / name)
    assert [row["id"] for row in rows] == [row["id"] for row in before]
    assert repr(read_table(tmp_path / f"{name}.csv")) == repr(rows)


@pytest.mark.parametrize("name", COMMITTED)
def test_a_row_of_a_committed_table_can_be_planned(name, monkeypatch):
    monkeypatch.setattr(datasets, "load", lambda name, *_: fake_dataset(name))
    rows = read_table(ROOT / "results" / f"{name}.csv")
    for row in (rows[0], rows[-1]):
        found = rerun.find(row["id"], ROOT / "results")
        assert found.runner.make_plan(found.config).problem.dataset.name == row["dataset"]
