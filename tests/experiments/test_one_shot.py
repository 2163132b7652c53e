import jax
import numpy as np
import pytest

from experiments.runners import one_shot
from experiments.runners.outcomes import abstract_outcome
from experiments.storage import results, run_folder
from experiments.storage.checkpoints import Checkpoints
from tests.experiments import tiny
from tests.experiments.test_learned import forward

KINDS = (results.integer, results.number)
NUMBERS = [name for name, read in one_shot.COLUMNS.items() if read in KINDS]


@pytest.fixture(scope="module")
def plan():
    return one_shot.make_plan(tiny.one_shot())


@pytest.fixture(scope="module")
def rows():
    return results.read_rows(tiny.finished(tiny.one_shot) / "results.csv", one_shot.COLUMNS)


@pytest.fixture(scope="module")
def dense(plan):
    """The initial and the trained weights of both seeds."""
    checkpoints = Checkpoints(
        run_folder.existing(tiny.finished(tiny.one_shot)).below("dense/checkpoints"), keep=2
    )
    outcome = checkpoints.load(0, abstract_outcome(plan.dense, 0))
    return outcome.state.w_i, outcome.w_f


def test_one_row_per_criterion_power_weights_and_seed(plan, rows):
    assert [(r["power"], r["criterion"], r["weights"], r["seed"]) for r in rows] == [
        (power, criterion, weights, seed)
        for power in (0, 2)
        for criterion in plan.config.criteria
        for weights in plan.config.weights
        for seed in (0, 1)
    ]
    assert len({row["id"] for row in rows}) == len(rows)


def test_density_is_the_exact_count(plan, rows):
    params = plan.problem.params
    for power in (0, 2):
        counts = plan.dense.scope.counts(power)
        kept = sum(counts[layer]["kernel"] for layer in params)
        density = kept / sum(params[layer]["kernel"].size for layer in params)
        assert {r["density"] for r in rows if r["power"] == power} == {density}


def test_masks_of_a_diverged_network_have_no_accuracy(plan, dense):
    w_i, w_f = (jax.tree.map(lambda x: x[0], tree) for tree in dense)
    w_f["output"]["bias"] = w_f["output"]["bias"] * np.nan
    measured = one_shot.Bench(plan).measure(0, w_i, w_f)
    assert measured.density.tolist() == sorted(measured.density, reverse=True)
    for accuracies in measured[1:]:
        assert accuracies.shape == (2, 2, 4) and np.isnan(accuracies).all()


@pytest.mark.parametrize("kind", ["init", "signed_constant"])
def test_accuracies_are_those_of_masks_by_numpy(plan, rows, dense, kind):
    counts = plan.dense.scope.counts(2)
    test = plan.problem.dataset.test
    for seed in (0, 1):
        w_i, w_f = (jax.tree.map(lambda x, s=seed: x[s], tree) for tree in dense)
        mask, weights = {}, {}
        for layer, own in w_i.items():
            start, end = own["kernel"], w_f[layer]["kernel"]
            scores = np.where(np.sign(start) == np.sign(end), np.abs(end), 0)
            least = np.sort(scores, axis=None)[-int(counts[layer]["kernel"])]
            assert least > 0, "a tie would be broken at random"
            constant = np.std(start) * np.sign(start)
            values = start if kind == "init" else constant
            mask[layer] = {"kernel": scores >= least}
            weights[layer] = {"kernel": values, "bias": own["bias"]}
        out = forward(weights, mask, False, test.images)
        [row] = [
            r
            for r in rows
            if (r["power"], r["criterion"], r["weights"], r["seed"])
            == (2, "large_final_same_sign", kind, seed)
        ]
        expected = np.mean(out.argmax(axis=1) == test.labels)
        np.testing.assert_allclose(row["test_accuracy"], expected, atol=0.002)


def test_a_full_mask_gives_the_untrained_network(rows):
    whole = [r for r in rows if r["power"] == 0]
    for weights in ("init", "signed_constant", "reinit", "reshuffle"):
        for seed in (0, 1):
            own = [r for r in whole if (r["weights"], r["seed"]) == (weights, seed)]
            assert len({r["test_accuracy"] for r in own}) == 1


def test_only_the_masks_of_one_power_are_retrained(rows):
    for row in rows:
        assert np.isfinite(row["retrained_test_accuracy"]) == (row["power"] == 2)
    retrained = [row for row in rows if row["power"] == 2]
    mean = np.mean([row["retrained_test_accuracy"] for row in retrained])
    assert mean > np.mean([row["test_accuracy"] for row in retrained]) + 0.2


@pytest.mark.parametrize("place", [3, 29])
def test_a_row_alone_gives_the_same_numbers(rows, tmp_path, place):
    row = rows[place]
    [again] = tiny.run(tmp_path, one_shot.alone(tiny.one_shot(), row))
    assert again["id"] == row["id"]
    assert repr([again[name] for name in NUMBERS]) == repr([row[name] for name in NUMBERS])


def test_seeds_in_the_table_are_not_computed_again(rows, monkeypatch, capsys):
    workdir = tiny.finished(tiny.one_shot)
    table = workdir / "results.csv"
    whole = table.read_bytes()
    (workdir / "parts" / "results" / "seed_0.json").unlink()
    seeds, measure = [], one_shot.Bench.measure

    def counting(self, seed, *weights):
        seeds.append(seed)
        return measure(self, seed, *weights)

    monkeypatch.setattr(one_shot.Bench, "measure", counting)
    assert repr(tiny.run(workdir, tiny.one_shot())) == repr(rows)
    assert seeds == [0] and table.read_bytes() == whole
    assert f"resuming {workdir} at seed 2 of 2\n" in capsys.readouterr().out
    tiny.run(workdir, tiny.one_shot())
    assert seeds == [0]
    assert capsys.readouterr().out == f"{workdir} is complete\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"criteria": ("large_finel",)}, "unknown criterion 'large_finel'; did you mean 'large_f"),
        ({"criteria": ()}, "config.criteria is (), expected a non-empty list"),
        ({"criteria": ("random", "random")}, "config.criteria has random more than once"),
        ({"weights": ("signed",)}, "unknown kind of weights 'signed'"),
        ({"weights": ()}, "config.weights is (), expected a non-empty list"),
        ({"powers": ()}, "config.powers is (), expected a non-empty list"),
        ({"powers": (2, -1)}, "config.powers has -1, expected an integer of 0 or more"),
        ({"powers": (2, 0.5)}, "config.powers has 0.5, expected an integer of 0 or more"),
        ({"powers": (2, 2)}, "config.powers has 2 more than once"),
        ({"retrain_power": 1}, "config.retrain_power is 1, expected -1 or one of the powers"),
        ({"retrain_power": -2}, "config.retrain_power has -2, expected an integer of -1 or more"),
        ({"retrain_epochs": 0}, "config.retrain_epochs has 0"),
        ({"learning_rate": -0.1}, "config.learning_rate is -0.1"),
        ({"seeds": ()}, "expected a non-empty list"),
        ({"default_rate": 1.0}, "config.default_rate is 1.0, expected a number in [0, 1)"),
    ],
)
def test_wrong_settings_are_named_before_any_training(changes, message):
    with pytest.raises(ValueError) as caught:
        one_shot.make_plan(tiny.one_shot(**changes))
    assert message in str(caught.value)
