"""A user's criterion, action, network, data set, experiment and figure, all added by one file."""

import math
import re

import pytest

from experiments.runners.registry import read_table
from tests.bad_input import ROOT
from tests.experiments import command_lines
from tests.tools import simulated
from tools.report.claims import Claim, Margin, Pruned
from tools.report.verdicts import REPRODUCED, judge

OWN = """\

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from experiments import datasets, plots
from experiments.configs import base
from experiments.problems.networks import NETWORKS, Widths
from supermask_jax.actions import MASK_ONE, MASK_ZERO
from supermask_jax.criteria import CRITERIA


def later_columns(w_i, w_f, mask=None):
    return jax.tree.map(lambda w: jnp.arange(w.size, dtype=w.dtype).reshape(w.shape), w_f)


def halved(key, w_i, w_f, mask):
    return jax.tree.map(lambda w: w / 2, w_i)


def bright_digits(root):
    digits = datasets.load("digits")
    splits = digits.train, digits.validation, digits.test
    brighter = [split._replace(images=255 - split.images) for split in splits]
    return datasets.Dataset("bright_digits", *brighter, num_classes=10)


def draw(rows):
    figure = Figure()
    figure.subplots().plot([row["test_accuracy"] for row in rows])
    return figure


CRITERIA["later_columns"] = later_columns
MASK_ONE["halved"] = MASK_ZERO["halved"] = halved
NETWORKS["narrow"] = Widths(pairs=(), hidden=(7,))
datasets.LOADERS["bright_digits"] = bright_digits
plots.FIGURES["accuracies"] = plots.Drawing(draw, needs=("test_accuracy",))


def get_config(argument=None):
    variants = ("later_columns:halved:halved", "random")
    config = base.iterative("lenet300,tiny", experiment="own", variants=variants)
    config.update(network="narrow", dataset="bright_digits", figure="accuracies", seeds=(3,))
    return config
"""


def test_one_of_each_kind_is_added_by_a_file_outside_the_repository(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    run = tmp_path / "run"
    command = ["experiments.run", f"--config={tmp_path}/own.py", f"--workdir={run}"]
    [(status, output)] = command_lines.answers([command])
    assert status == 0, output
    rows = read_table(run / "results.csv")
    again = ["tools.rerun", rows[-1]["id"], f"--results={run}"]
    answers = command_lines.answers([again, [*again, f"--config={tmp_path}/own.py"]])
    assert answers[0][0] == 1 and "add --config=FILE.py (it was made by: python" in answers[0][1]
    assert answers[1][0] == 0 and answers[1][1].endswith("every number is equal\n"), answers[1]
    assert [row["variant"] for row in rows if row["round"] == 1] == [
        "later_columns:halved:halved",
        "random",
    ]
    assert {(row["network"], row["dataset"]) for row in rows} == {("narrow", "bright_digits")}
    assert all(math.isfinite(row["test_accuracy"]) for row in rows)
    assert (run / "figures" / "accuracies.png").read_bytes().startswith(b"\x89PNG")


FUNCTIONS = """\
import jax.numpy as jnp
import optax


def smooth(logits, labels):
    targets = optax.smooth_labels(jnp.eye(10)[labels], 0.1)
    return optax.softmax_cross_entropy(logits, targets)


def slow_adam(learning_rate):
    return optax.adam(learning_rate, b1=0.99)
"""

# Runs a module as if started in the folder that follows its name.
STANDING_IN = """
import runpy, sys
sys.path.insert(0, sys.argv.pop(1))
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def test_a_loss_and_an_optimizer_come_from_a_module_of_the_folder_where_one_stands(tmp_path):
    (tmp_path / "own_functions.py").write_text(FUNCTIONS)
    command = [
        "experiments.run", str(tmp_path), f"--workdir={tmp_path}/run",
        "--config=experiments/configs/quickstart.py:lenet300,tiny",
        "--config.variants=random", "--config.seeds=0",
        "--config.num_rounds=0", "--config.loss=own_functions:smooth",
        "--config.optimizer=own_functions.slow_adam", "--config.drop_steps=3,5",
        "--config.schedule=step",
    ]  # fmt: skip
    done = command_lines.fork(*command, code=STANDING_IN)
    assert done.returncode == 0, done.stdout + done.stderr
    [row] = read_table(tmp_path / "run" / "results.csv")
    assert re.search(r"\.c[0-9a-f]{8}$", row["code_version"])
    again = [row["id"], f"--results={tmp_path}/run"]
    elsewhere = command_lines.fork("tools.rerun", *again)
    assert elsewhere.returncode == 1 and len(elsewhere.stderr.splitlines()) == 1
    assert (
        "own_functions:slow_adam is in no module: own_functions is neither in" in elsewhere.stderr
    )
    here = command_lines.fork("tools.rerun", str(tmp_path), *again, code=STANDING_IN)
    assert here.stdout.endswith("every number is equal\n"), here.stdout + here.stderr


def test_a_claim_is_judged_by_being_listed():
    left, right = (Pruned(variant, 0.1, 0.3) for variant in ("movement", "random"))
    text, why = "movement does better than random", "any difference counts"
    claim = Claim("lenet300", "own", text, "nobody", "M", left, ">", right, Margin(0.0, why))

    def accuracy(variant, seed, *_):
        return (95.0 if variant == "movement" else 90.0) + 0.1 * seed

    rows = simulated.pruning_rows(accuracy, variants=("movement", "random"))
    [verdict] = judge([claim], rows)
    assert verdict.status == REPRODUCED and verdict.differences.mean() == pytest.approx(5)


def test_the_guide_names_what_exists():
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    paths = re.findall(r"`((?:supermask_jax|experiments|tools|tests|docs)/[\w./]*)[:`]", guide)
    assert len(paths) > 15
    assert [path for path in paths if "NAME" not in path and not (ROOT / path).exists()] == []
