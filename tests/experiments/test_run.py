"""experiments.run as a user sees it: a run, and a one-line error for every mistake."""

import re
import shlex
import signal
import subprocess
import sys

import pytest

from experiments.runners import iterative
from experiments.storage import results
from experiments.storage.files import read_json
from tests.experiments import command_lines
from tests.experiments.command_lines import ROOT, python

CONFIG = "--config=experiments/configs/quickstart.py:lenet300,tiny"
LEARNED = "--config=experiments/configs/learned_supermasks.py:lenet300,tiny"
HEURISTIC = "--config=experiments/configs/heuristic_supermasks.py:lenet300,tiny"
SMALL = [CONFIG, "--config.seeds=(0,)", "--config.num_rounds=1", "--config.variants=('random',)"]

# The arguments of a command, and what its answer contains.
WORKDIR = "--workdir={new}"
MISTAKES = {
    "variant": (
        [CONFIG, WORKDIR, "--config.variants=('large_finel',)"],
        "error: unknown criterion 'large_finel'; did you mean 'large_final'?",
    ),
    "key": (
        [CONFIG, WORKDIR, "--config.num_round=3"],
        "error: --config has no such setting: 'num_round'; Did you mean \"num_rounds\"",
    ),
    "type": (
        [CONFIG, WORKDIR, "--config.num_rounds=many"],
        "error: flag --config.num_rounds=many: invalid literal for int()",
    ),
    "value": (
        [CONFIG, WORKDIR, "--config.batch_size=0"],
        "error: config.batch_size has 0, expected an integer of 1 or more",
    ),
    "learning rate": (
        [LEARNED, WORKDIR, "--config.learning_rate=-1"],
        "error: config.learning_rate is -1.0, expected a finite number above 0.",
    ),
    "infinite logit": (
        [LEARNED, WORKDIR, "--config.initial_logits=(1e999,)"],
        "error: config.initial_logits has inf, expected a finite number.",
    ),
    "power": (
        [HEURISTIC, WORKDIR, "--config.retrain_power=3"],
        "error: config.retrain_power is 3, expected -1 or one of the powers.",
    ),
    "runner": ([CONFIG, WORKDIR, "--config.runner=learnd"], "error: unknown runner 'learnd'; did"),
    "precision": (
        [CONFIG, WORKDIR, "--config.matmul_precision=float31"],
        "error: config.matmul_precision is 'float31', expected one of default, bfloat16",
    ),
    "figure": ([CONFIG, WORKDIR, "--config.figure=pie"], "error: unknown figure 'pie'; known: "),
    "figure of another runner": (
        [CONFIG, WORKDIR, "--config.figure=learned_supermasks"],
        "error: unknown figure 'learned_supermasks'; known: mask_criteria, ",
    ),
    "file as folder": (
        [CONFIG, "--workdir=README.md"],
        "error: flag --workdir=README.md: README.md is a file, expected a folder.",
    ),
    "network": (
        ["--config=experiments/configs/quickstart.py:lenet30", WORKDIR],
        "error: 'lenet30' after the colon of --config is not understood; write FILE.py:NETWORK",
    ),
    "file": (
        ["--config=experiments/configs/none.py", WORKDIR],
        "error: flag --config=experiments/configs/none.py: experiments/configs/none.py is not ther",
    ),
    "file of a setting": (
        ["--config=none.py", WORKDIR, "--config.num_rounds=3"],
        "error: flag --config=none.py: none.py is not there, expected a file of Python.",
    ),
    "no config": ([WORKDIR], "error: flag --config=None: Flag --config must have a value"),
    "no workdir": ([CONFIG], "error: flag --workdir=None: Flag --workdir must have a value"),
    "flag": ([CONFIG, WORKDIR, "--worker=3"], "error: Unknown command line flag 'worker'"),
    "argument": ([CONFIG, WORKDIR, "3"], "error: unknown argument '3'; flags start with --."),
    "data": (
        [CONFIG, WORKDIR, "--config.dataset=mnist", "--data_dir={empty}"],
        "error: no data set 'mnist' in {empty}; prepare it with `python -m experiments.datasets",
    ),
    "other run": (
        [*SMALL, "--workdir={done}", "--config.learning_rate=0.1"],
        "error: {done} holds a run with other settings (learning_rate: 0.0012 -> 0.1); choose",
    ),
    "slice": (
        [CONFIG, WORKDIR, "--slice=3/3"],
        "error: --slice is '3/3', expected i/n with i from 0 to n - 1.",
    ),
    "slices": (
        [CONFIG, WORKDIR, "--slice=0/99"],
        "error: --slice asks for 99 parts of ",
    ),
    "other slice": (
        [*SMALL, "--workdir={done}", "--slice=0/1"],
        "error: {done} holds a run with other settings (slice: not set -> '0/1'); choose",
    ),
    "memory": (
        [*SMALL, "--workdir={little}", "--max_memory=0.001"],
        "error: the states of 1 members at a time take ",
    ),
    "epochs": (
        [CONFIG, "--workdir={little}/epochs", "--config.epochs=10000000"],
        "error: the batches of 210000000 steps, 21000001 evaluations and 8 members take 109.21 GB",
    ),
    "rounds": (
        [CONFIG, "--workdir={little}/rounds", "--config.num_rounds=1000000000"],
        "error: the 8000000002 results of 1000000001 rounds of 8 members take 16,000.00 GB of mem",
    ),
    "epochs of logits": (
        [LEARNED, "--workdir={little}/logits", "--config.epochs=100000000"],
        "error: the batches of 500000000 steps, 166666668 evaluations and 8 members take 1,016.67 ",
    ),
    "epochs of learned tickets": (
        [LEARNED, "--workdir={little}/tickets", "--config.retrain_epochs=100000000"],
        "error: the batches of 500000000 steps, 166666668 evaluations and 8 members take 1,016.67 ",
    ),
    "epochs of dense networks": (
        [HEURISTIC, "--workdir={little}/dense", "--config.epochs=10000000"],
        "error: the batches of 210000000 steps, 21000001 evaluations and 2 members take 84.00 GB",
    ),
    "epochs after the dense networks": (
        [HEURISTIC, "--workdir={little}/heuristic", "--config.retrain_power=5",
         "--config.retrain_epochs=10000000"],
        "error: the batches of 210000000 steps, 21000001 evaluations and 26 members take 159.61 GB",
    ),
    "processes": (
        [CONFIG, WORKDIR, "--num_processes=2"],
        "error: --coordinator, --num_processes and --process_index need --distributed.",
    ),
    "no coordinator": (
        [CONFIG, WORKDIR, "--distributed"],
        "error: --distributed: coordinator_address should be defined. If JAX does not",
    ),
    "listener": (
        [CONFIG, WORKDIR, "--log_to=tests.experiments.functions:hinge"],
        "error: the listener hinge does not take (part); if it returns a function that does, pass",
    ),
    "below a file": (
        [CONFIG, "--workdir={done}/results.csv/x"],
        "error: flag --workdir={done}/results.csv/x: {done}/results.csv is a file, expected a fol",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("runs")
    (base / "empty").mkdir()
    return {name: base / name for name in ("done", "empty", "little", "new")}


@pytest.fixture(scope="module")
def finished(folders):
    places = ["--workdir", str(folders["done"]), f"--data_dir={folders['empty']}"]
    done = python("-m", "experiments.run", *SMALL[:1], *places, *SMALL[1:])
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def answers(folders, finished):
    typed = [
        ["experiments.run", *(word.format(**folders) for word in words)]
        for words, _ in MISTAKES.values()
    ]
    return dict(zip(MISTAKES, command_lines.answers(typed), strict=True))


def test_a_run_writes_what_the_readme_promises(finished, folders):
    workdir = folders["done"]
    promised = ["results.csv", "analysis.csv", "curves", "figures", "checkpoints", "config.json"]
    there = sorted([*promised, "environment.json", "lock", "parts"])
    assert sorted(p.name for p in workdir.iterdir()) == there
    for name in ("mask_criteria", "mask_criteria_convergence", "mask_analysis"):
        picture = (workdir / "figures" / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG") and len(picture) > 10_000
    names = ["round_00.parquet", "round_01.parquet"]
    assert sorted(p.name for p in (workdir / "curves").iterdir()) == names
    config = read_json(workdir / "config.json")
    assert (config["seeds"], config["num_rounds"], config["variants"]) == ([0], 1, ["random"])


def test_a_run_prints_its_progress_and_a_summary(finished, folders):
    lines = finished.stdout.splitlines()
    assert re.match(r"1 member, 1 side by side on 1 device; 2 rounds; \d", lines[0])
    assert [line.split()[:2] for line in lines[1:3]] == [["round", "0/1"], ["round", "1/1"]]
    assert [line.split()[0] for line in lines if line.startswith(("dense", "random"))] == [
        "dense",
        "random",
    ]
    assert "Test accuracy (%): 1 seed." in " ".join(finished.stdout.split())
    figure = folders["done"] / "figures" / "mask_criteria.png"
    assert lines[-2:] == [f"table  {folders['done'] / 'results.csv'}", f"figure {figure}"]
    assert not finished.stderr


def test_the_table_says_how_to_run_it_again_anywhere(finished, folders):
    rows = results.read_rows(folders["done"] / "results.csv", iterative.COLUMNS)
    assert [(row["variant"], row["seed"], row["round"]) for row in rows] == [
        ("dense", 0, 0),
        ("random", 0, 1),
    ]
    for row in rows:
        assert shlex.split(row["command"]) == ["python", "-m", "experiments.run", *SMALL]


def test_a_finished_run_tells_its_parts_to_a_listener_which_costs_a_line_if_it_fails(
    finished, folders
):
    again = ["experiments.run", *SMALL, f"--workdir={folders['done']}"]
    told, failed = (
        command_lines.fork(*again, f"--log_to=tests.experiments.functions:{name}")
        for name in ("print_part", "fail_at_round_1")
    )
    assert [line for line in told.stdout.splitlines() if line.endswith("False")] == [
        "results.csv round_00 False",
        "results.csv round_01 False",
        "analysis.csv round_01 False",
    ]
    assert (told.returncode, told.stderr, failed.returncode) == (0, "", 0)
    expected = r"warning: the listener tests\.\S+:fail_at_round_1 raises KeyError: 'round_01' \(.*"
    lines = failed.stderr.splitlines()
    assert len(lines) == 2 and all(re.match(expected, line) for line in lines)
    assert lines[0].endswith(f"; round_01 of {folders['done']}/results.csv is not logged")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_one_clear_line(answers, folders, mistake):
    status, output = answers[mistake]
    assert output.startswith(MISTAKES[mistake][1].format(**folders))
    assert status == 1 and len(output.splitlines()) == 1


def test_mistakes_leave_nothing_behind(answers, folders, finished):
    assert not folders["new"].exists()
    assert read_json(folders["done"] / "config.json")["learning_rate"] == 1.2e-3


@pytest.mark.parametrize("module", ["shlex", "experiments.configs.base", "sklearn.datasets"])
def test_ctrl_c_while_packages_flags_or_data_load_ends_in_one_line(module, tmp_path):
    """The modules are imported first of all, while flags are parsed, and while data is loaded."""
    command = [sys.executable, "-X", "importtime", "-m", "experiments.run", *SMALL]
    with subprocess.Popen(
        [*command, f"--workdir={tmp_path}/new"], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr:
            if line.endswith(f" {module}\n"):
                process.send_signal(signal.SIGINT)
                break
        said = [line for line in process.stderr if not line.startswith("import time:")]
    assert said == ["stopped before anything was done; run the same command to start\n"]
    assert process.returncode == 75 and not list(tmp_path.iterdir())
