import jax
import numpy as np
import pytest

from experiments.plots import FIGURES
from experiments.runners import connectivity
from experiments.runners.outcomes import abstract_outcome
from experiments.runners.registry import read_table
from experiments.storage import run_folder
from experiments.storage.checkpoints import Checkpoints
from experiments.tables.barriers import barriers
from experiments.tables.summary import summary
from supermask_jax import population
from tests.experiments import tiny

PAIRS = [(0, 1), (0, 2), (1, 2)]
POSITIONS = [0.0, 0.5, 1.0]


@pytest.fixture(scope="module")
def workdir():
    return tiny.finished(tiny.connected)


@pytest.fixture(scope="module")
def rows(workdir):
    return read_table(workdir / "results.csv")


@pytest.fixture(scope="module")
def copier():
    return connectivity.Copier(connectivity.make_plan(tiny.connected()))


@pytest.fixture(scope="module")
def tickets(workdir):
    """The states that the training of the tickets of round 1 started from."""
    plan = connectivity.make_plan(tiny.connected()).tickets
    folder = run_folder.existing(workdir).below("tickets").below("checkpoints")
    return Checkpoints(folder, keep=2).load(1, abstract_outcome(plan, 1)).state


@pytest.fixture(scope="module")
def copies(copier, tickets):
    return copier.train(1, tickets)


def accuracy(params, split):
    """Compute the accuracy of a network in NumPy."""
    values = split.images.reshape(len(split.images), -1) / 255
    for name in ("dense1", "dense2", "output"):
        values = values @ np.float64(params[name]["kernel"]) + params[name]["bias"]
        values = values if name == "output" else np.maximum(values, 0)
    return (values.argmax(axis=1) == split.labels).mean()


def test_one_row_per_ticket_pair_and_position(rows):
    tickets = [("dense", 0, seed) for seed in (0, 1)]
    tickets += [(variant, 1, seed) for variant in ("large_final", "random") for seed in (0, 1)]
    found = [
        (r["variant"], r["round"], r["seed"], (r["copy"], r["other_copy"]), r["position"])
        for r in rows
    ]
    assert found == [(*t, pair, at) for t in tickets for pair in PAIRS for at in POSITIONS]
    assert len({row["id"] for row in rows}) == len(rows)
    assert {row["rewind_step"] for row in rows} == {0}


def test_accuracies_are_those_of_mixed_weights_by_numpy(copier, copies, rows):
    measured = copier.measure(copies)
    test = connectivity.make_plan(tiny.connected()).problem.dataset.test
    for ticket in range(4):
        for p, (a, b) in enumerate(PAIRS):
            ends = [population.take(copies, 3 * ticket + copy) for copy in (a, b)]
            for i, at in enumerate(POSITIONS):
                params = jax.tree.map(lambda x, y, at=at: (1 - at) * x + at * y, *ends)
                found = measured["test_accuracy"][ticket, p, i]
                assert found == pytest.approx(accuracy(params, test), abs=2 / len(test.labels))
    of_round = [row["test_accuracy"] for row in rows if row["round"] == 1]
    assert of_round == [float(str(x)) for x in measured["test_accuracy"].ravel()]


def test_copies_differ_by_their_batches_alone(copier, copies, tickets):
    kernels = copies["dense1"]["kernel"]
    assert len(np.unique(kernels.reshape(len(kernels), -1), axis=0)) == len(kernels)
    twins = jax.tree.map(lambda x: np.concatenate([x[:2], x[:2]]), tickets)
    same = copier.train(1, twins)  # both variants have the tickets of large_final
    for leaf, expected in zip(jax.tree.leaves(same), jax.tree.leaves(copies), strict=True):
        np.testing.assert_array_equal(leaf[6:], leaf[:6])
        np.testing.assert_array_equal(leaf[:6], expected[:6])


def test_pruned_weights_of_copies_stay_0(copies, tickets):
    for leaf, mask in zip(jax.tree.leaves(copies), jax.tree.leaves(tickets.mask), strict=True):
        assert (leaf[~np.repeat(mask, 3, axis=0)] == 0).all()


def test_a_copy_that_diverged_has_no_accuracies(copier, copies):
    broken = jax.tree.map(np.copy, copies)
    broken["output"]["bias"][1] = np.nan  # the second copy of the first ticket
    for values in copier.measure(broken).values():
        assert np.isnan(values[0, [0, 2]]).all() and np.isfinite(values[0, 1]).all()
        assert np.isfinite(values[1:]).all()


def test_a_ticket_that_is_damaged_is_made_again(rows, capsys):
    workdir = tiny.finished(tiny.connected)
    (workdir / "parts" / "results" / "round_00.json").unlink()
    arrays = workdir / "tickets" / "checkpoints" / "round_00"
    damaged = next(path for path in arrays.rglob("*") if path.is_file())
    damaged.write_bytes(b"something else")
    assert repr(tiny.run(workdir, tiny.connected())) == repr(rows)
    said = f"{damaged} is damaged; the rounds from 0 on are made again"
    assert said in capsys.readouterr().err


def test_copies_start_from_the_step_of_late_rewinding(tmp_path):
    config = tiny.connected(rewind_step=20, seeds=(0,), variants=("large_final",), rounds=(1,))
    rows = tiny.run(tmp_path, config)
    ends = [row for row in rows if row["position"] in (0, 1)]
    plan = connectivity.make_plan(config)
    folder = run_folder.existing(tmp_path).below("tickets").below("checkpoints")
    checkpoints = Checkpoints(folder, keep=2)
    state = checkpoints.load(1, abstract_outcome(plan.tickets, 1)).state
    start = jax.tree.map(lambda mask, w: np.where(mask, w, 0)[0], state.mask, state.w_i)
    before = accuracy(start, plan.problem.dataset.test)
    after = np.array([row["test_accuracy"] for row in ends])
    assert before > 0.3, "20 of 21 steps are trained"
    assert 0 < abs(after - before).max() < 0.2, "a single step was left"
    assert {row["rewind_step"] for row in rows} == {20}


def test_figure_and_summary_show_errors_and_barriers(rows):
    figure = FIGURES["linear_mode_connectivity"](rows)
    panels = figure.axes
    assert [axes.get_title() for axes in panels] == ["round 0, 100 % left", "round 1, 60.4 % left"]
    [line] = panels[0].get_lines()
    dense = [r for r in rows if r["variant"] == "dense" and r["position"] == 0.5]
    assert np.asarray(line.get_ydata())[1] == pytest.approx(
        100 - 100 * np.mean([r["test_accuracy"] for r in dense])
    )
    table = summary(rows, 100)
    assert str(table.caption).startswith("Error barrier (percentage points): mean")
    dense = [row for row in rows if row["variant"] == "dense"]
    mean = 100 * np.mean([line["error_barrier"] for line in barriers(dense)])
    assert f"{mean:.2f}" in str(next(iter(table.columns[1].cells)))
