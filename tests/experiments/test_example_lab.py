"""The example folder of docs/how_to/your_own_lab.md, run as a user would who stands in it."""

import re
import shutil

import numpy as np
import pytest

from experiments import datasets
from experiments.additions import identify_with
from experiments.runners.registry import read_table
from experiments.storage.files import read_json
from tests.experiments import command_lines
from tools.report import pages, provenance, tables

LAB = command_lines.ROOT / "tests" / "example_lab"
PAGE = (command_lines.ROOT / "docs" / "how_to" / "your_own_lab.md").read_text()
# Python looks first where one stands, then where this repository is.
STANDING = f"""
import os, sys
os.chdir(sys.argv.pop(0))
sys.path.insert(1, {str(command_lines.ROOT)!r})
{command_lines.MODULE}"""
CONFIG = "--config=experiments/configs/mask_criteria.py:"
NETWORK, DATA = "my_lab.nets:small_resnet", "my_lab.data:load"
OWN, PAPER = f"{CONFIG}{NETWORK}", f"{CONFIG}lenet300"
SHORT = [
    f"--config.{setting}"
    for setting in ("epochs=2", "num_rounds=1", "seeds=0", "variants=large_final")
]


def stand(folder, *commands):
    """Run commands one after another in a folder; return exit statuses and outputs."""
    ends = [command_lines.fork(str(folder), *words, code=STANDING) for words in commands]
    return [(end.returncode, end.stdout + end.stderr) for end in ends]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A copy of the example folder with a run of it."""
    folder = tmp_path_factory.mktemp("lab") / "lab"
    shutil.copytree(LAB, folder, ignore=shutil.ignore_patterns("__pycache__"))
    [(status, output)] = stand(
        folder, ["experiments.run", f"{CONFIG}{NETWORK}", "--workdir=runs/resnet", *SHORT]
    )
    assert status == 0, output
    return folder


def test_one_command_runs_a_network_and_a_data_set_of_my_lab(lab):
    rows = read_table(lab / "runs" / "resnet" / "results.csv")
    assert {(row["network"], row["dataset"]) for row in rows} == {(NETWORK, "my_lab.data:load")}
    assert {row["round"] for row in rows} == {0, 1} and len(rows) == 2
    assert all(0.2 < row["test_accuracy"] <= 1 for row in rows)  # of three classes
    assert rows[1]["density"] == pytest.approx(0.89, abs=0.02)  # a tenth of each convolution is out
    config = read_json(lab / "runs" / "resnet" / "config.json")
    assert config["rates"] == [["conv.*/kernel", 0.1], ["head/kernel", 0.05]]
    assert "num_validation" not in config
    assert (lab / "runs/resnet/figures/mask_criteria.png").read_bytes()[:4] == b"\x89PNG"


def test_a_row_is_computed_again_without_naming_the_code(lab):
    run = lab / "runs" / "resnet"
    row = read_table(run / "results.csv")[-1]
    assert re.search(r"\.c[0-9a-f]{8}$", row["code_version"])
    again = ["tools.rerun", row["id"], "--results=runs/resnet"]
    answers = stand(lab, again) + stand(lab.parent, [*again[:2], "--results=lab/runs/resnet"])
    assert answers[0][0] == 0 and answers[0][1].endswith("every number is equal\n"), answers[0]
    assert answers[1][0] == 1 and "my_lab is neither in" in answers[1][1], answers[1]


def test_a_configuration_of_my_lab_draws_a_figure(lab):
    short = [word for word in SHORT if "variants" not in word]
    [(status, output)] = stand(
        lab, ["experiments.run", "--config=my_lab/sweep.py", "--workdir=runs/sweep", *short]
    )
    assert status == 0, output
    rows = read_table(lab / "runs" / "sweep" / "results.csv")
    assert {(row["experiment"], row["network"]) for row in rows} == {("my_sweep", NETWORK)}
    assert len(rows) == 4 and (lab / "runs/sweep/figures/mask_criteria.png").exists()


@pytest.mark.parametrize(
    ("file", "old", "new", "is_other"),
    [
        ("nets.py", "channels: int = 4", "channels: int = 8", True),
        ("data.py", "default_rng(0)", "default_rng(1)", True),
        ("nets.py", '"""A small residual network of my lab."""', '"""Another text."""', False),
    ],
)
def test_the_sources_of_my_lab_are_part_of_the_identity(lab, tmp_path, file, old, new, is_other):
    folder = tmp_path / "lab"
    shutil.copytree(lab, folder)
    source = folder / "my_lab" / file
    assert old in source.read_text()
    source.write_text(source.read_text().replace(old, new))
    command = ["experiments.run", f"{CONFIG}{NETWORK}", "--workdir=runs/resnet", *SHORT]
    [(status, output)] = stand(folder, command)
    assert status == int(is_other), output
    if is_other:
        assert re.search(r"begun by other code|with other settings \(data:", output), output
        assert output.count("\n") == 1


WRONG = [
    ([f"{CONFIG}my_lab.net:small_resnet"], "in no module: my_lab.net is neither in .* nor instal"),
    ([f"{CONFIG}my_lab.nets:resnet"], "unknown function of my_lab.nets 'resnet'; did you mean"),
    ([f"{CONFIG}{DATA}"], r"the network load does not take \(image_shape, num_classes\)"),
    ([OWN, f"--config.dataset={NETWORK}"], r"data set small_resnet does not take \(data_dir\)"),
    ([OWN, "--config.dataset=mine.npz"], r"mine.npz is not there \(from .*lab\), expected a file"),
    ([OWN, "--config.num_validation=9"], f"but {DATA} has validation images of its own"),
    ([OWN, "--config.rates=(('dense/kernel',0.1),)"], "rule 'dense/kernel' matches no leaf"),
    ([PAPER, f"--config.network={NETWORK}", f"--config.dataset={DATA}"],
     f"rule 'output/kernel' matches no leaf .* --config=FILE.py:{NETWORK}$"),
    ([PAPER, "--config.dataset=fashion_mnist", "--data_dir=data"],
     "unknown data set 'fashion_mnist'; .* `tfds build fashion_mnist --data_dir=data --file"),
    (["--config=experiments/configs/mask_criterion.py:lenet300"], "is not there, expected a file"),
    (["--config=experiments/run.py:lenet300"], "is not there, expected a file of Python"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_wrong_words_end_in_one_line_before_any_training(words, said, lab):
    [(status, output)] = stand(lab, ["experiments.run", *words, "--workdir=runs/wrong"])
    assert status == 1 and output.startswith("error: ") and output.count("\n") == 1, output
    assert re.search(said, output), output
    assert not (lab / "runs" / "wrong").exists()


def test_the_arrays_of_a_file_of_numpy_are_part_of_the_identity(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digits, versions = datasets.load("digits"), []
    for shade in (1, 2, 1):
        train, test = (np.maximum(x.images, shade)[:300, ..., 0] for x in (digits[1], digits[3]))
        labels = {"y_train": digits.train.labels[:300], "y_test": digits.test.labels}
        np.savez("mine.npz", x_train=train, x_test=test, **labels)
        named = {"network": "lenet300", "dataset": "mine.npz"}
        versions.append(identify_with(None, named, datasets.load("mine.npz", None, 60)).version)
    assert versions[0] == versions[2] != versions[1]
    tiny = f"{PAPER},tiny", "--config.dataset=mine.npz", "--config.num_validation=60"
    command = ["experiments.run", *tiny, "--config.num_rounds=0", *SHORT[2:], "--workdir=run"]
    [(status, output)] = stand(tmp_path, command)
    assert status == 0, output
    assert {row["code_version"] for row in read_table(tmp_path / "run/results.csv")} == {
        versions[0]
    }
    assert read_json(tmp_path / "run/config.json")["num_validation"] == 60


def test_names_of_functions_and_slashes_reach_no_file_name(lab, tmp_path):
    for name in ("results.csv", "config.json", "environment.json"):
        text = (lab / "runs" / "resnet" / name).read_text()
        assert name == "environment.json" or DATA in text
        target = tmp_path / f"own.{name}".replace("own.results", "own")
        target.write_text(text.replace(DATA, "emnist/letters"))
    blocks = provenance.all_experiments(tables.read_tables(tmp_path))
    pictures = [block.name for block in blocks if isinstance(block, pages.Picture)]
    assert pictures and all(re.fullmatch(r"[\w-]+", name) for name in pictures)


@pytest.mark.parametrize("file", sorted(path.name for path in LAB.glob("my_lab/[!_]*.py")))
def test_the_page_shows_the_files(file):
    shown = re.search(rf"`my_lab/{file}`[^\n]*\n\n```python\n(.*?)^```$", PAGE, flags=re.M | re.S)
    assert shown and shown[1] == (LAB / "my_lab" / file).read_text()
