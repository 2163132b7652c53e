import shutil

import pytest

from experiments.runners import iterative
from experiments.storage import results
from tests.bad_input import ROOT
from tests.experiments import command_lines, tiny
from tools.benchmark_versions import comparisons

CHANGES = {
    "results.csv": lambda rows: [{**row, "test_accuracy": 0.5} for row in rows],
    "fewer rows": lambda rows: rows[1:],
}


@pytest.fixture
def runs(tmp_path):
    whole = tiny.finished()
    shutil.copytree(whole, tmp_path / "before")
    shutil.copytree(whole, tmp_path / "now")
    return tmp_path / "before", tmp_path / "now"


def test_a_run_equals_itself_in_tables_curves_and_checkpoints(runs):
    before, now = runs
    found = list(comparisons(before, now))
    assert len(found) > 1000 and all(found)


@pytest.mark.parametrize("change", CHANGES)
def test_numbers_that_differ_are_counted(runs, change):
    before, now = runs
    rows = results.read_rows(now / "results.csv", iterative.COLUMNS)
    results.write_rows(now / "results.csv", CHANGES[change](rows), iterative.COLUMNS)
    assert not all(comparisons(before, now))


def test_what_differs_by_version_alone_does_not_count(runs):
    before, now = runs
    rows = results.read_rows(now / "results.csv", iterative.COLUMNS)
    own = ("id", "code_version", "command")
    changed = [{**row, **dict.fromkeys(own, "other"), "new": 1} for row in rows]
    results.write_rows(now / "results.csv", changed, [*iterative.COLUMNS, "new"])
    assert all(comparisons(before, now))


def test_weights_that_differ_are_counted(runs):
    before, now = runs
    shutil.rmtree(now / "checkpoints" / "round_02")
    shutil.copytree(now / "checkpoints" / "round_01", now / "checkpoints" / "round_02")
    assert not all(comparisons(before, now))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tests"], "error: tests is not a checkout: it has no experiments/run.py."),
        ([str(ROOT), "--runs=nothing"], "error: unknown run 'nothing'; known: heuristic_superm"),
        ([str(ROOT), "--turns=0"], "error: --turns is 0, expected an integer of 1 or more."),
    ],
)
def test_mistakes_get_one_line(words, message):
    done = command_lines.fork("tools.benchmark_versions", *words)
    assert done.returncode == 1 and done.stderr.startswith(message), done.stderr
    assert len(done.stderr.splitlines()) == 1
