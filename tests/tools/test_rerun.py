import math
import shutil
from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import datasets
from experiments.runners import iterative
from experiments.runners.registry import read_table
from experiments.storage import results, run_folder
from experiments.storage.files import read_json, write_json
from tests.experiments import tiny
from tools import one_row, rerun
from tools.table_files import of_run

KINDS = (results.integer, results.number)
FILES = of_run(Path("a run"))
MEASURED = [name for name, read in iterative.COLUMNS.items() if read in KINDS][2:]


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
    found = rerun.find(pick(folder, *member)["id"], folder)
    assert found.row == pick(folder, *member)
    whole = run_folder.settings(read_json(folder / "tiny.config.json"))
    own = {"variants": variants, "seeds": [member[1]], "num_rounds": member[2]}
    assert found.config.to_dict() == whole | own


@pytest.mark.parametrize("make_config", [tiny.learned, tiny.one_shot, tiny.at_init, tiny.connected])
def test_rows_of_other_runners_computed_again_are_equal(make_config, tmp_path, capsys):
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
    monkeypatch.setattr(rerun, "recompute", lambda *_: row | {name: value})
    with pytest.raises(SystemExit, match=f"^{name} differ .the code is equal, .*; the processor"):
        main(row["id"])
    assert capsys.readouterr().out.count("False") == 1


@pytest.mark.parametrize("error", [MemoryError("no room"), OSError("no space left")])
def test_what_stops_the_run_is_one_line(main, folder, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(rerun, "recompute", fail)
    with pytest.raises(SystemExit, match=f"^error: {error}$"):
        main(pick(folder, "large_final", 0, 2)["id"])


def test_the_numbers_of_a_diverged_member_are_equal(main, folder, monkeypatch, capsys):
    diverged = pick(folder, "large_final", 0, 2) | dict.fromkeys(MEASURED, float("nan"))
    found = rerun.find(diverged["id"], folder)._replace(row=diverged)
    monkeypatch.setattr(rerun, "find", lambda id, folder: found)
    again = diverged | dict.fromkeys(MEASURED, math.nan * 1)
    monkeypatch.setattr(rerun, "recompute", lambda *_: again)
    main(diverged["id"])
    assert capsys.readouterr().out.endswith("every number is equal\n")


def test_a_committed_row_is_found_anywhere_under_results():
    committed = Path(__file__).parent.parent.parent / "results"
    row = results.read_rows(committed / "mask_criteria_lenet300_mnist.csv", iterative.COLUMNS)[-1]
    found = rerun.find(row["id"], committed)
    assert found.row == row
    own = list(found.config.seeds), found.config.num_rounds
    assert own == ([row["seed"]], row["round"])


@pytest.fixture
def rerun_in(tmp_path):
    """Run the program on an id and a folder."""
    flags.FLAGS.mark_as_parsed()

    def rerun_in(folder, row):
        with flagsaver.flagsaver(results=str(folder), data_dir=None):
            rerun.main(["rerun", row["id"]])

    return rerun_in


@pytest.mark.parametrize("below", ["", "slice_0"])
def test_a_row_of_a_run_needs_no_collecting(tmp_path, rerun_in, monkeypatch, capsys, below):
    run = shutil.copytree(tiny.finished(), tmp_path / "runs" / below, dirs_exist_ok=True)
    row = read_table(run / "results.csv")[-1]
    monkeypatch.setattr(rerun, "recompute", lambda *_: row)
    rerun_in(tmp_path / "runs", row)
    assert capsys.readouterr().out.endswith("every number is equal\n")


def change_config(run, **changes):
    write_json(run / "config.json", read_json(run / "config.json") | changes)


def test_other_data_is_refused(tmp_path, rerun_in):
    run = shutil.copytree(tiny.finished(), tmp_path / "run")
    row = read_table(run / "results.csv")[-1]
    change_config(run, data="0123456789abcdef")
    checksum = datasets.load("digits").checksum()
    message = f"error: row {row['id']} was made with other data: digits has the checksum {checksum}"
    with pytest.raises(SystemExit, match=f"{message} here and 0123456789abcdef in its table"):
        rerun_in(run, row)


def test_a_row_of_a_configuration_with_code_asks_for_it(tmp_path, rerun_in):
    run = shutil.copytree(tiny.finished(), tmp_path / "run")
    rows = read_table(run / "results.csv")
    rows[-1]["code_version"] += ".c01234567"
    results.write_rows(run / "results.csv", rows, iterative.COLUMNS)
    with pytest.raises(SystemExit, match="needs the code that its configuration brought: add --c"):
        rerun_in(run, rows[-1])


@pytest.mark.parametrize(
    ("version", "processors", "text"),
    [
        ("0.1.0+sother", ["Chip 9"], "row by 0.1.0+smine, now 0.1.0+sother"),
        ("0.1.0+smine", ["Chip 8", "Chip 7", "Chip 8"],
         "the code is equal, 0.1.0+smine, but the row was made on Chip 8 and Chip 7, now Chip 9"),
        ("0.1.0+smine", ["Chip 8", "Chip 9"],
         "the code is equal, 0.1.0+smine; the processor too, as far as is known: Chip 9"),
        ("0.1.0+smine", [],
         "the code is equal, 0.1.0+smine; the processor too, as far as is known: Chip 9"),
    ],
)  # fmt: skip
def test_the_reason_names_code_or_processor(monkeypatch, version, processors, text):
    monkeypatch.setattr(one_row, "processor", lambda: "Chip 9")
    row = {"code_version": "0.1.0+smine"}
    found = one_row.Found(row, iterative, FILES, tiny.config(), None, processors)
    assert one_row.reason(found, version) == text
