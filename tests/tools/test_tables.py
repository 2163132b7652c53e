import math
from pathlib import Path

import pytest

from experiments import iterative, results
from tools import tables

ROOT = Path(__file__).parent.parent.parent
MEMBER = {"network": "lenet300", "dataset": "mnist", "variant": "random", "seed": 0, "round": 1}


def write_table(folder, name, rows, experiment="mask_criteria"):
    blank = {column: kind(1) for column, kind in iterative.COLUMNS.items()}
    rows = [blank | {"id": name, "experiment": experiment} | row for row in rows]
    results.write_rows(folder / f"{name}.csv", rows, iterative.COLUMNS)
    results.write_json(folder / f"{name}.config.json", {"runner": "iterative"})
    results.write_json(folder / f"{name}.environment.json", [{"processor": "a"}])


def test_a_folder_is_read_with_what_belongs_to_each_table(tmp_path):
    write_table(tmp_path, "b", [MEMBER])
    write_table(tmp_path, "a", [MEMBER, MEMBER | {"seed": 1}])
    (tmp_path / "benchmark.csv").write_text("of another kind\n")
    found = tables.read_tables(tmp_path)
    assert [(table.name, len(table.rows)) for table in found] == [("a", 2), ("b", 1)]
    assert found[0].rows[0]["table"] == "a.csv"
    assert found[0].config == {"runner": "iterative"}
    assert found[0].environments == [{"processor": "a"}]


def test_a_member_of_two_tables_counts_once(tmp_path):
    nan = MEMBER | {"test_accuracy": math.nan}
    write_table(tmp_path, "a", [nan, MEMBER | {"seed": 1}])
    write_table(tmp_path, "b", [nan, MEMBER | {"seed": 2}], "mask_one_actions")
    rows = tables.pool(tables.read_tables(tmp_path))
    places = [(row["table"], row["seed"]) for row in rows]
    assert places == [("a.csv", 0), ("a.csv", 1), ("b.csv", 2)]


def test_other_numbers_for_the_same_member_are_an_error_that_names_both_tables(tmp_path):
    write_table(tmp_path, "a", [MEMBER])
    write_table(tmp_path, "b", [MEMBER | {"test_accuracy": 0.5}], "mask_one_actions")
    with pytest.raises(
        ValueError, match=r"a\.csv and b\.csv differ in test_accuracy of rows a and b"
    ):
        tables.pool(tables.read_tables(tmp_path))


def test_an_experiment_that_is_not_judged_has_its_own_rows(tmp_path):
    write_table(tmp_path, "a", [MEMBER])
    write_table(tmp_path, "b", [MEMBER | {"test_accuracy": 0.5}], "other_rates")
    assert len(tables.pool(tables.read_tables(tmp_path))) == 2


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        tables.read_tables(tmp_path / "nowhere")
    write_table(tmp_path, "a", [MEMBER])
    (tmp_path / "a.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.csv"):
        tables.read_tables(tmp_path)


def test_the_committed_tables_agree_with_each_other():
    found = tables.read_tables(ROOT / "results")
    assert found
    assert len(tables.pool(found)) <= sum(len(table.rows) for table in found)
