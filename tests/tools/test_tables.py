import math
from pathlib import Path

import pytest

from experiments.configs import learned_supermasks, mask_criteria
from experiments.runners import iterative, learned
from experiments.storage import results
from experiments.storage.files import write_json
from tests.experiments import tiny
from tools.report import accuracy_tables, tables

ROOT = Path(__file__).parent.parent.parent
MEMBER = {"network": "lenet300", "dataset": "mnist", "variant": "random", "seed": 0, "round": 1}


def write_table(folder, name, rows, experiment="mask_criteria", **settings):
    blank = tiny.blank_row(iterative.COLUMNS)
    rows = [blank | {"id": name, "experiment": experiment} | row for row in rows]
    results.write_rows(folder / f"{name}.csv", rows, iterative.COLUMNS)
    config = mask_criteria.get_config("lenet300").to_dict()
    config |= {"experiment": experiment, **settings}
    write_json(folder / f"{name}.config.json", config)
    write_json(folder / f"{name}.environment.json", [{"processor": "a"}])


def test_a_folder_is_read_with_what_belongs_to_each_table(tmp_path):
    write_table(tmp_path, "b", [MEMBER])
    write_table(tmp_path, "a", [MEMBER, MEMBER | {"seed": 1}])
    (tmp_path / "benchmark.csv").write_text("of another kind\n")
    found = tables.read_tables(tmp_path)
    assert [(table.name, len(table.rows)) for table in found] == [("a", 2), ("b", 1)]
    assert found[0].rows[0]["table"] == "a.csv"
    assert found[0].config["runner"] == "iterative"
    assert found[0].environments == [{"processor": "a"}]


def test_a_member_of_two_tables_counts_once(tmp_path):
    nan = MEMBER | {"test_accuracy": math.nan}
    write_table(tmp_path, "a", [nan, MEMBER | {"seed": 1}])
    write_table(tmp_path, "b", [nan, MEMBER | {"seed": 2}], "mask_one_actions")
    rows = tables.pool(tables.read_tables(tmp_path))
    places = [(row["table"], row["seed"]) for row in rows]
    assert places == [("a.csv", 0), ("a.csv", 1), ("b.csv", 2)]


def test_other_numbers_for_the_same_member_are_reported_and_the_first_count(tmp_path):
    write_table(tmp_path, "a", [MEMBER])
    write_table(tmp_path, "b", [MEMBER | {"test_accuracy": 0.5}], "mask_one_actions")
    found = tables.read_tables(tmp_path)
    assert [row["test_accuracy"] for row in tables.pool(found)] == [1.0]
    [sentence] = tables.contradictions(found)
    assert "b.csv has other numbers than a.csv for the same members (rows: 1," in sentence
    assert tables.OTHER_MACHINES not in sentence
    write_json(tmp_path / "b.environment.json", [{"processor": "b"}])
    [sentence] = tables.contradictions(tables.read_tables(tmp_path))
    assert sentence.endswith(tables.OTHER_MACHINES)
    assert tables.contradictions(found[:1]) == []


@pytest.mark.parametrize(
    ("settings", "words", "is_judged"),
    [
        ({}, [], True),
        ({"seeds": [0], "variants": ["random"], "num_rounds": 3, "keep_checkpoints": 1}, [], True),
        ({"epochs": 1}, ["epochs 1 instead of 55"], False),
        (
            {"learning_rate": [1.2e-3, 0.01]},
            ["learning rate 0.0012, 0.01 instead of 0.0012"],
            False,
        ),
        ({"rates": []}, ["rates none instead of ('output/kernel', 0.1)"], False),
        ({"dataset": "digits"}, [], False),
    ],
)
def test_rows_are_judged_if_they_have_the_papers_settings(tmp_path, settings, words, is_judged):
    write_table(tmp_path, "a", [MEMBER], **settings)
    [table] = tables.read_tables(tmp_path)
    assert [*table.deviations.values()] == words
    assert table.rows[0]["deviations"] == tuple(words)
    assert table.is_judged == is_judged


@pytest.mark.parametrize(
    ("rate", "is_judged"), [(100.0, True), (50.0, True), ([50.0, 100.0], False)]
)
def test_learned_masks_of_several_learning_rates_are_not_judged(tmp_path, rate, is_judged):
    settings = learned_supermasks.get_config("lenet300").to_dict()
    write_table(tmp_path, "a", [])
    write_json(tmp_path / "a.config.json", settings | {"learning_rate": rate})
    blank = tiny.blank_row(learned.COLUMNS)
    several = rate if isinstance(rate, list) else [rate]
    rows = [blank | {"learning_rate": each, "test_accuracy": each / 200} for each in several]
    rows = [row | {"network": "lenet300", "dataset": "mnist", "weights": "init"} for row in rows]
    results.write_rows(tmp_path / "a.csv", rows, learned.COLUMNS)
    [table] = tables.read_tables(tmp_path)
    assert table.is_judged == is_judged
    told = [{*row} & {*learned.NUMBERS} for row in table.rows]
    assert told == [{"learning_rate"} if len(several) > 1 else set()] * len(several)
    found = accuracy_tables.table(table.rows).lines
    names = [f", learning rate {each:g}" if len(several) > 1 else "" for each in several]
    assert [line[0] for line in found] == [f"init, rescaled{name}" for name in names]
    assert [line[5] for line in found] == [f"{each / 2:.2f}" for each in several]


def test_settings_of_something_else_are_an_error(tmp_path):
    write_table(tmp_path, "a", [MEMBER], runner="other")
    with pytest.raises(ValueError, match="unknown runner 'other'"):
        tables.read_tables(tmp_path)
    write_json(tmp_path / "a.config.json", {"runner": "iterative"})
    with pytest.raises(ValueError, match="has no experiment, figure, network, dataset: these are"):
        tables.read_tables(tmp_path)


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


def test_the_committed_tables_of_one_machine_agree_with_each_other():
    found = tables.read_tables(ROOT / "results")
    assert found
    assert all(told.endswith(tables.OTHER_MACHINES) for told in tables.contradictions(found))
