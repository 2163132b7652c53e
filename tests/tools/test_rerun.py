import math
import shutil
from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver

from experiments.runners import iterative
from experiments.runners.registry import read_table
from experiments.storage import results, run_folder
from experiments.storage.files import read_json
from tests.experiments import tiny
from tools import rerun

MEASURED = [name for name, kind in iterative.COLUMNS.items() if kind is not str][2:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    for name, beside in (("results.csv", "tiny.csv"), ("config.json", "tiny.config.json")):
        shutil.copy(tiny.finished() / name, folder / beside)
    return folder


def pick(folder, variant, seed, round):
    rows = results.read_rows(folder / "tiny.csv", iterative.COLUMNS)
    [row] = [r for r in rows if (r["variant"], r["seed"], r["round"]) == (variant, seed, round)]
    return row


@pytest.fixture
def main(folder):
    """Run the program on ids."""
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(results=str(folder), data_dir=None):
        yield lambda *ids: rerun.main(["rerun", *ids])


@pytest.mark.parametrize(
    ("member", "variants"),
    [
        (("dense", 1, 0), list(tiny.VARIANTS)),
        (("large_final", 0, 2), ["large_final"]),
        (("random:reshuffle:freeze", 1, 1), ["random:reshuffle:freeze"]),
    ],
)
def test_a_row_is_found_with_the_config_of_it_alone(folder, member, variants):
    row, _, config = rerun.find(pick(folder, *member)["id"], folder)
    assert row == pick(folder, *member)
    whole = run_folder.settings(read_json(folder / "tiny.config.json"))
    own = {"variants": variants, "seeds": [member[1]], "num_rounds": member[2]}
    assert config.to_dict() == whole | own


@pytest.mark.parametrize("make_config", [tiny.learned, tiny.one_shot])
def test_rows_of_supermasks_computed_again_are_equal(make_config, tmp_path, capsys):
    for name, beside in (("results.csv", "t.csv"), ("config.json", "t.config.json")):
        shutil.copy(tiny.finished(make_config) / name, tmp_path / beside)
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(results=str(tmp_path), data_dir=None):
        rerun.main(["rerun", read_table(tmp_path / "t.csv")[-1]["id"]])
    assert capsys.readouterr().out.endswith("every number is equal\n")


def test_an_unknown_id(main, folder):
    with pytest.raises(SystemExit, match=f"error: no table in {folder} has a row 'f00'"):
        main("f00")


@pytest.mark.parametrize("ids", [[], ["a", "b"]])
def test_one_id_is_needed(main, ids):
    with pytest.raises(SystemExit, match="error: name the id of one row"):
        main(*ids)


def test_a_row_computed_again_is_equal(main, folder, capsys):
    main(pick(folder, "random:reshuffle:freeze", 1, 1)["id"])
    output = capsys.readouterr().out
    assert output.endswith("every number is equal\n")
    assert output.count("True") == len(MEASURED) and "False" not in output


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize("value", [5, math.nan])
def test_another_number_is_reported(main, folder, monkeypatch, capsys, name, value):
    row = pick(folder, "large_final", 0, 2)
    monkeypatch.setattr(rerun, "recompute", lambda row, *_: row | {name: value})
    with pytest.raises(SystemExit, match=f"^{name} differ .row by .*, now "):
        main(row["id"])
    assert capsys.readouterr().out.count("False") == 1


def test_the_numbers_of_a_diverged_member_are_equal(main, folder, monkeypatch, capsys):
    diverged = pick(folder, "large_final", 0, 2) | dict.fromkeys(MEASURED, float("nan"))
    monkeypatch.setattr(rerun, "find", lambda id, folder: (diverged, iterative, tiny.config()))
    again = diverged | dict.fromkeys(MEASURED, math.nan * 1)
    monkeypatch.setattr(rerun, "recompute", lambda *_: again)
    main(diverged["id"])
    assert capsys.readouterr().out.endswith("every number is equal\n")


def test_a_committed_row_is_found_anywhere_under_results():
    committed = Path(__file__).parent.parent.parent / "results"
    row = results.read_rows(committed / "mask_criteria_lenet300_mnist.csv", iterative.COLUMNS)[-1]
    found, _, config = rerun.find(row["id"], committed)
    assert found == row
    assert (list(config.seeds), config.num_rounds) == ([row["seed"]], row["round"])
