import jax
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from experiments.engine.batches import batch_table
from experiments.problems.seeds import BATCHES, INIT, LOSS, SCORING, seed_keys
from experiments.problems.seeds import DRAWS as DRAW_KEYS
from experiments.runners import learned
from experiments.runners.draws import DRAWS, NamedDraw, Training
from experiments.runners.learned import Variant
from experiments.runners.registry import read_table
from experiments.runners.untrained_weights import WEIGHTS
from experiments.storage import results, run_folder
from experiments.storage.checkpoints import Checkpoints
from supermask_jax import supermasks
from tests.bad_input import check_one_line
from tests.experiments import tiny

KINDS = (results.integer, results.number)
NUMBERS = [name for name, read in learned.COLUMNS.items() if read in KINDS]
EVAL_STEPS = [0, 3, 6, 9, 10]


@pytest.fixture(scope="module")
def plan():
    return learned.make_plan(tiny.learned())


@pytest.fixture(scope="module")
def rows():
    return results.read_rows(tiny.finished(tiny.learned) / "results.csv", learned.COLUMNS)


@pytest.fixture(scope="module")
def logits(plan):
    """The logits of all members at the lowest validation loss."""
    checkpoints = Checkpoints(
        run_folder.existing(tiny.finished(tiny.learned)).below("checkpoints"), keep=1
    )
    return checkpoints.load(0, learned.Learner(plan).abstract_logits())


def frozen(plan, member):
    """Return the frozen weights of a member: initial weights, or constants with their signs."""
    w_i = jax.device_get(plan.problem.network.init(seed_keys([member.seed], 0, INIT)[0]))
    if member.variant.weights == "init":
        return w_i
    return jax.tree.map(lambda w: np.std(w) * np.sign(w) if w.ndim > 1 else w, w_i)


def forward(params, mask, rescale, images):
    """Compute a masked network in NumPy, with the factors of the mask written out."""
    x = images.reshape(len(images), -1) / 255
    for name in ("dense1", "dense2", "output"):
        kept = np.asarray(mask[name]["kernel"], np.float64)
        kernel = params[name]["kernel"] * kept * (kept.size / kept.sum() if rescale else 1)
        x = x @ kernel + params[name]["bias"]
        x = x if name == "output" else np.maximum(x, 0)
    return x


def accuracy(plan, member, mask):
    test = plan.problem.dataset.test
    out = forward(frozen(plan, member), mask, member.variant.rescale, test.images)
    return np.mean(out.argmax(axis=1) == test.labels)


def test_one_row_per_member(plan, rows):
    members = [(str(m.variant), m.initial_logit, m.seed) for m in plan.members]
    assert [(r["variant"], r["initial_logit"], r["seed"]) for r in rows] == members
    assert len(rows) == 8 == len({row["id"] for row in rows})
    assert {(r["weights"], r["rescale"]) for r in rows} == {
        ("init", False),
        ("signed_constant", True),
    }
    assert all(row["early_stop_step"] in EVAL_STEPS for row in rows)


def test_accuracies_are_those_of_the_masks(plan, rows, logits):
    prunable = plan.problem.prunable
    for place, (member, row) in enumerate(zip(plan.members, rows, strict=True)):
        own = jax.tree.map(lambda x, place=place: x[place], logits)
        keys = jax.random.split(seed_keys([member.seed], 0, DRAW_KEYS)[0], 2)
        drawn = [accuracy(plan, member, supermasks.sample(k, own, prunable)) for k in keys]
        np.testing.assert_allclose(row["test_accuracy"], np.mean(drawn), atol=0.004)
        for name in ("most_probable", "expected"):
            mask = getattr(supermasks, name)(own, prunable)
            expected = accuracy(plan, member, mask)
            np.testing.assert_allclose(row[f"test_{name}_accuracy"], expected, atol=0.004)
        kernels = np.concatenate([own[k]["kernel"].ravel() for k in own], dtype=np.float64)
        np.testing.assert_allclose(row["density"], (1 / (1 + np.exp(-kernels))).mean(), rtol=1e-5)


def test_training_is_momentum_on_the_logits_with_a_mask_drawn_in_every_step(plan, rows, logits):
    place = next(i for i, row in enumerate(rows) if row["early_stop_step"] == 10)
    member, config, data = plan.members[place], plan.config, plan.problem.dataset.train
    weights, prunable = frozen(plan, member), plan.problem.prunable
    batches = batch_table(
        seed_keys([member.seed], 0, BATCHES),
        num_examples=len(data.labels),
        num_steps=10,
        batch_size=config.batch_size,
    )[0]

    def loss(params, images, labels):
        logits = plan.problem.network.apply(params, images / np.float32(255))
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    masked = supermasks.loss_of_logits(loss, weights, prunable, rescale=member.variant.rescale)
    m = supermasks.init_logits(weights, prunable, member.initial_logit)
    velocity = jax.tree.map(np.zeros_like, m)
    gradient = jax.jit(jax.grad(masked))
    for step, chosen in enumerate(np.asarray(batches)):
        key = jax.random.fold_in(seed_keys([member.seed], 0, LOSS)[0], step)
        grads = gradient(m, key, data.images[chosen], data.labels[chosen])
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, grads)
        m = jax.tree.map(lambda x, v: x - config.learning_rate * v, m, velocity)
    for name in m:
        own = logits[name]["kernel"][place]
        np.testing.assert_allclose(own, m[name]["kernel"], rtol=1e-3, atol=1e-3)


def test_curves_have_accuracy_and_density_over_time(rows):
    curves = results.read_curves(tiny.finished(tiny.learned) / learned.CURVES)
    assert len(curves["step"]) == len(rows) * len(EVAL_STEPS)
    for row in rows:
        names = ("variant", "initial_logit", "seed")
        own = np.all([curves[name] == row[name] for name in names], axis=0)
        assert curves["step"][own].tolist() == EVAL_STEPS
        start = 1 / (1 + np.exp(-row["initial_logit"]))
        np.testing.assert_allclose(curves["validation_density"][own][0], start, rtol=1e-5)
        best = np.nanargmin(curves["validation_loss"][own])
        assert curves["step"][own][best] == row["early_stop_step"]


def test_retrained_networks_are_better_than_their_masks(rows):
    retrained = np.array([row["retrained_test_accuracy"] for row in rows])
    assert np.isfinite(retrained).all()
    assert retrained.mean() > np.mean([row["test_accuracy"] for row in rows])


def test_a_member_alone_gives_the_same_numbers(rows, tmp_path):
    for row in (rows[1], rows[-2]):
        [again] = tiny.run(tmp_path / row["id"], learned.alone(tiny.learned(), row))
        assert again["id"] == row["id"]
        assert repr([again[name] for name in NUMBERS]) == repr([row[name] for name in NUMBERS])


def test_without_count_gradient_other_masks_are_learned(rows, tmp_path):
    config = learned.alone(tiny.learned(retrain_epochs=0), rows[-1])
    config.count_gradient = False
    [row] = tiny.run(tmp_path, config)
    assert row["validation_loss"] != rows[-1]["validation_loss"]
    assert np.isnan(row["retrained_test_accuracy"])


def test_a_finished_run_does_nothing_and_says_so(rows, monkeypatch, capsys):
    monkeypatch.setattr(learned.Learner, "train", None)
    workdir = tiny.finished(tiny.learned)
    assert repr(tiny.run(workdir, tiny.learned())) == repr(rows)
    assert capsys.readouterr().out == f"{workdir} is complete\n"


@given(st.one_of(st.text(), st.lists(st.sampled_from([*WEIGHTS, "rescale", ""])).map(":".join)))
def test_any_text_is_a_variant_or_an_error_in_one_line(text):
    try:
        variant = Variant.parse(text)
    except ValueError as error:
        check_one_line(error)
    else:
        assert str(variant) == text


@pytest.mark.parametrize("text", ["init", "signed_constant:rescale", "reshuffle"])
def test_variants_are_parsed_and_printed(text):
    assert str(Variant.parse(text)) == text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": ("initt",)}, "unknown kind of weights 'initt'; did you mean 'init'"),
        ({"variants": ("init:rescal",)}, "variant 'init:rescal', expected weights or weights:r"),
        ({"variants": ("init:",)}, "variant 'init:', expected weights or weights:rescale"),
        ({"variants": ("init", "init")}, "config.variants has init more than once"),
        ({"variants": ()}, "expected a non-empty list"),
        ({"initial_logits": ()}, "expected a non-empty list"),
        ({"initial_logits": (float("nan"),)}, "config.initial_logits has nan, expected a finite"),
        ({"initial_logits": (float("inf"),)}, "config.initial_logits has inf, expected a finite"),
        ({"initial_logits": (1.0, 1.0)}, "config.initial_logits has 1.0 more than once"),
        ({"initial_logits": ("x",)}, "config.initial_logits has 'x', expected a finite number"),
        ({"learning_rate": -1.0}, "config.learning_rate is -1.0, expected a finite number above 0"),
        ({"learning_rate": float("inf")}, "config.learning_rate is inf"),
        ({"retrain_learning_rate": 0.0}, "config.retrain_learning_rate is 0.0"),
        ({"momentum": 1.0}, "config.momentum is 1.0, expected a number in [0, 1)"),
        ({"momentum": float("nan")}, "config.momentum is nan"),
        ({"epochs": 0}, "config.epochs has 0"),
        ({"num_draws": 0}, "config.num_draws has 0"),
        ({"retrain_epochs": -1}, "config.retrain_epochs has -1"),
        ({"batch_size": 2000}, "config.batch_size is 2000, expected at most the 1297"),
        ({"seeds": (3, 3)}, "config.seeds has 3 more than once"),
        ({"network": "lenet30"}, "unknown network 'lenet30'; did you mean 'lenet300'"),
        ({"matmul_precision": "float31"}, "config.matmul_precision is 'float31'"),
    ],
)
def test_wrong_settings_are_named_before_any_training(changes, message):
    with pytest.raises(ValueError) as caught:
        learned.make_plan(tiny.learned(**changes))
    assert message in str(caught.value)


@pytest.mark.parametrize("name", sorted(DRAWS.keys() - {"bernoulli"}))
def test_the_mask_to_evaluate_of_every_draw_is_measured(name, tmp_path):
    config = tiny.learned(
        variants=("init:rescale",), initial_logits=(0.5,), draw=name, learning_rate=1.0
    )
    plan = learned.make_plan(config)
    rows = tiny.run(tmp_path, config)
    logits = Checkpoints(run_folder.existing(tmp_path).below("checkpoints"), keep=1).load(
        0, learned.Learner(plan).abstract_logits()
    )
    made = plan.draw.make(Training(plan.problem.params, plan.problem.prunable, 10, 10))
    for place, (member, row) in enumerate(zip(plan.members, rows, strict=True)):
        own = jax.tree.map(lambda x, place=place: x[place], logits)
        mask = made.evaluate(own, plan.problem.prunable)
        expected = accuracy(plan, member, mask)
        for column in ("test_accuracy", "test_most_probable_accuracy"):
            np.testing.assert_allclose(row[column], expected, atol=0.004)
        kernels = np.concatenate([np.ravel(mask[layer]["kernel"]) for layer in mask])
        np.testing.assert_allclose(row["density"], np.mean(kernels != 0), rtol=1e-6)
        assert row["draw"] == name and np.isnan(row["test_expected_accuracy"])
        assert np.isfinite(row["retrained_test_accuracy"])


def test_the_temperature_of_continuous_masks_rises_over_the_training(plan):
    draw = NamedDraw.parse("continuous:100")
    logits = jax.tree.map(lambda x: np.full(x.shape, 0.1, x.dtype), plan.problem.params)
    soft = []
    for step in (0, 5, 10):
        made = draw.make(Training(plan.problem.params, plan.problem.prunable, 10, step))
        mask = made(jax.random.key(0), logits, plan.problem.prunable)
        soft.append(float(mask["output"]["kernel"][0, 0]))
    np.testing.assert_allclose(soft, 1 / (1 + np.exp(-0.1 * np.array([1, 10, 100]))), rtol=1e-5)


def test_unequal_scores_start_where_the_seed_says(plan):
    def start(draw, seed):
        own = tiny.learned(draw=draw, variants=("init",), initial_logits=(1.0,), seeds=(seed,))
        learner = learned.Learner(learned.make_plan(own))
        return learner.start_logits(np.float32(1), seed_keys([seed], 0, SCORING)[0])

    first, again, other = (start("top_k", seed)["dense1"]["kernel"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.99 and abs(first - 1).max() <= 1 / 8  # fan-in of 64
    assert set(np.ravel(start("gumbel", 0)["dense1"]["kernel"])) == {1.0}


def test_tables_and_folders_without_a_draw_are_of_bernoulli_draws(tmp_path):
    source = tiny.finished(tiny.learned)
    rows = results.read_rows(source / "results.csv", learned.COLUMNS)
    older = [{name: x for name, x in row.items() if name != "draw"} for row in rows]
    results.write_rows(tmp_path / "old.csv", older, older[0])
    assert repr(read_table(tmp_path / "old.csv")) == repr(rows)
    config = tiny.learned().to_dict()
    del config["draw"]
    old = learned.make_plan(ConfigDict(config))
    new = learned.make_plan(tiny.learned())
    assert old.config == new.config and "draw" not in new.config.recorded()
    assert old.config.of_a_member() == new.config.of_a_member()
    assert learned.make_plan(tiny.learned(draw="gumbel")).config.recorded()["draw"] == "gumbel"
