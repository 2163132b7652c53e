from pathlib import Path

import numpy as np
import pytest

from experiments.datasets import load
from tools import benchmark_estimates
from tools.benchmark import measurements
from tools.benchmark.tasks import Task, step_bytes
from tools.benchmark_estimates import RUNS, Row, Run, estimate

ROOT = Path(__file__).parents[2]
COMMITTED = measurements.read(ROOT / "results" / "benchmark_estimates.csv", Row)
LAYERS = 64 * 300, 300 * 100, 100 * 10  # of lenet300 on digits


def operations(images, trained=False):
    """Those of a forward pass, or of one with its backward pass to all inputs but the images."""
    passes = np.array([2, 3, 3]) if trained else np.ones(3)
    return 2 * images * (passes * LAYERS).sum()


def of_training(steps, eval_every, batch, validations):
    evaluations = 1 + -(-steps // eval_every)
    return steps * operations(batch, trained=True) + evaluations * operations(validations)


def test_operations_are_those_of_trainings_and_of_masks():
    digits = load("digits")
    train, validation, test = (
        len(split.labels) for split in (digits.train, digits.validation, digits.test)
    )
    steps = train // 60
    dense = of_training(steps, 10, 60, validation)
    iterative = estimate(Run("mask_criteria", "lenet300,tiny", {"variants": ("random",)}))
    assert iterative.member_steps == 2 * 3 * steps  # of two seeds and three rounds
    assert (iterative.members, iterative.operations) == (2, pytest.approx(2 * 3 * dense))
    settings = {"criteria": ("random",), "weights": ("init", "signed_constant")}
    masks = estimate(Run("heuristic_supermasks", "lenet300,tiny", settings))
    assert (masks.members, masks.member_steps) == (2, 2 * steps)
    evaluated = 3 * 2 * 2 * operations(validation + test)  # three powers of two kinds and two seeds
    assert masks.operations == pytest.approx(2 * dense + evaluated)
    logits = estimate(Run("learned_supermasks", "lenet300,tiny", {"variants": ("init",)}))
    steps = 2 * (train // 250)
    evaluated = 4 * validation  # two draws, the most probable mask and the expected one
    learning = of_training(steps, 3, 250, evaluated)
    assert (logits.members, logits.member_steps) == (2, 2 * steps)
    assert logits.operations == pytest.approx(2 * learning)
    assert np.isnan(logits.traffic)


@pytest.mark.parametrize("row", COMMITTED, ids=lambda row: f"{row.experiment}-{row.network}")
def test_committed_times_are_operations_and_bytes_over_the_peaks(row):
    assert row.float32 == pytest.approx(row.operations / 67e12, rel=2e-3)
    assert row.tensorfloat32 == pytest.approx(row.operations / 494.5e12, rel=2e-3)
    if row.experiment != "learned_supermasks":
        moved = row.member_steps * step_bytes(Task(row.network, 1))
        assert row.traffic == pytest.approx(moved / 3.35e12, rel=2e-3)


def test_the_table_and_the_page_have_every_run():
    assert [row[:2] for row in COMMITTED] == [(run.config, run.network) for run in RUNS]
    page = " ".join((ROOT / "docs" / "performance.md").read_text().split())
    for run in RUNS:
        assert f"`python -m experiments.run {run.flags} --workdir=" in page


def test_mistakes_get_one_line(tmp_path):
    (tmp_path / "file").touch()
    for flag, message in (
        (f"--data_dir={tmp_path}", f"error: no data set 'cifar10' in {tmp_path}; prepare it with "),
        (f"--table={tmp_path / 'file' / 'table'}", "error: "),
    ):
        with pytest.raises(SystemExit) as stopped:
            benchmark_estimates.main([flag])
        assert str(stopped.value).startswith(message) and "\n" not in str(stopped.value)
