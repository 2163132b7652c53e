import jax
import numpy as np
import pytest

from experiments.plots import FIGURES
from experiments.runners import pruning_at_init, settings
from experiments.runners.registry import read_table
from experiments.storage import results
from supermask_jax import rates
from tests.experiments import tiny


@pytest.fixture(scope="module")
def plan():
    return pruning_at_init.make_plan(tiny.at_init())


@pytest.fixture(scope="module")
def pruned(plan):
    """The initial weights and the masks of all members."""
    return pruning_at_init.prune_members(plan)


@pytest.fixture(scope="module")
def rows():
    return read_table(tiny.finished(tiny.at_init) / "results.csv")


def num_keep(plan, member):
    """The prunable weights that a member keeps, at the only pruning rate."""
    return plan.num_keep[plan.config.default_rate, plan.members[member].round]


def kernels(tree, member):
    return {layer: np.asarray(own["kernel"][member]) for layer, own in tree.items()}


def members(plan, **wanted):
    """The places of the members with these values."""
    return [
        i
        for i, member in enumerate(plan.members)
        if all(str(getattr(member, name)) == str(value) for name, value in wanted.items())
    ]


def test_one_row_per_variant_round_and_seed(plan, rows):
    assert [(r["variant"], r["round"], r["seed"]) for r in rows] == [
        (variant, round, seed)
        for variant in ("magnitude", "synflow:3")
        for round in (2, 8)
        for seed in (0, 1)
    ]
    assert len({row["id"] for row in rows}) == len(rows)


def test_as_dense_as_the_ticket_of_the_round(plan, rows):
    params = plan.problem.params
    of_layers = settings.pruning_rates(plan.config, params)
    for row in rows:
        counts = rates.keep_counts(params, of_layers, row["round"])
        kept = sum(counts[layer]["kernel"] for layer in params)
        assert row["density"] == kept / sum(params[layer]["kernel"].size for layer in params)
        assert row["empty_layers"] == 0


def test_magnitude_keeps_the_largest_weights_of_the_whole_network(plan, pruned):
    for i in members(plan, variant="magnitude"):
        weights, mask = (kernels(tree, i) for tree in pruned)
        sizes = np.sort(np.concatenate([np.abs(w).ravel() for w in weights.values()]))
        least = sizes[-num_keep(plan, i)]
        for layer, w in weights.items():
            np.testing.assert_array_equal(mask[layer], np.abs(w) >= least)


def synflow(weights, mask):
    """The scores of SynFlow in numpy: with biases of 0, a product of sums of paths."""
    kept = [np.abs(weights[layer] * mask[layer]).astype(np.float64) for layer in LAYERS]
    first, second, last = kept
    before = [np.ones(len(first)), first.sum(0), first.sum(0) @ second]
    after = [(second @ last).sum(1), last.sum(1), np.ones(last.shape[1])]
    return [
        start[:, None] * w * end[None, :] for start, w, end in zip(before, kept, after, strict=True)
    ]


LAYERS = ("dense1", "dense2", "output")


def test_synflow_keeps_the_highest_scores_of_the_network_that_it_prunes(plan, pruned):
    for i in members(plan, variant="synflow:3", seed=0):
        weights, mask = (kernels(tree, i) for tree in pruned)
        whole = sum(w.size for w in weights.values())
        left = {layer: np.ones_like(w, bool) for layer, w in weights.items()}
        for turn in (1, 2, 3):
            share = num_keep(plan, i) / whole
            number = round(whole * share ** (turn / 3))
            scores = synflow(weights, left)
            least = np.sort(np.concatenate([s.ravel() for s in scores]))[-number]
            left = {layer: s >= least for layer, s in zip(LAYERS, scores, strict=True)}
        differ = sum(int(np.sum(mask[layer] != left[layer])) for layer in LAYERS)
        assert differ <= 2  # float32 ranks a few pairs of nearly equal scores otherwise


@pytest.mark.parametrize("score", ["snip", "grasp", "random"])
def test_masks_differ_between_seeds_but_not_between_sweeps(score):
    alone = pruning_at_init.make_plan(tiny.at_init(variants=(score,), ticket_rounds=(8,)))
    many = tiny.at_init(variants=("magnitude", score), ticket_rounds=(2, 8), seeds=(1, 0))
    mixed = pruning_at_init.make_plan(many)
    _, masks = pruning_at_init.prune_members(alone)
    _, others = pruning_at_init.prune_members(mixed)
    first, second = (kernels(masks, i)["dense1"] for i in (0, 1))
    assert (first != second).any()
    for seed in (0, 1):
        (own,) = members(alone, seed=seed)
        (other,) = members(mixed, variant=score, round=8, seed=seed)
        jax.tree.map(np.testing.assert_array_equal, kernels(masks, own), kernels(others, other))


def test_a_score_sees_as_many_examples_of_every_class_as_configured():
    plan = pruning_at_init.make_plan(tiny.at_init(examples_per_class=3))
    chosen = [pruning_at_init.examples(plan, seed) for seed in (0, 1)]
    for batch in chosen:
        assert np.bincount(batch["labels"]).tolist() == [3] * 10
        assert batch["images"].shape == (30, *plan.problem.dataset.image_shape)
    assert (chosen[0]["images"] != chosen[1]["images"]).any()


def test_tickets_among_the_rows_are_drawn_at_the_same_rounds(rows):
    tickets = read_table(tiny.finished(tiny.config) / "results.csv")
    figure = FIGURES["pruning_at_init"]([*rows, *tickets])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(names) == [
        "dense", "magnitude", "synflow, 3 rounds", "ticket of large_final,\npruned after training",
    ]  # fmt: skip
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert len(lines["ticket of large_final,\npruned after training"].get_xdata()) == 2
    with pytest.raises(ValueError, match="The table has no networks pruned at initialisation"):
        FIGURES["pruning_at_init"](tickets)


def test_curves_have_a_row_per_member_and_evaluation(plan, rows):
    path = tiny.finished(tiny.at_init) / pruning_at_init.CURVES
    curves = results.read_curves(path)
    members = dict.fromkeys(zip(curves["variant"], curves["round"], curves["seed"], strict=True))
    assert list(members) == [(r["variant"], r["round"], r["seed"]) for r in rows]
    best = [np.nanmin(curves["validation_loss"][curves["seed"] == seed]) for seed in (0, 1)]
    assert best == [
        np.float32(min(r["validation_loss"] for r in rows if r["seed"] == seed)) for seed in (0, 1)
    ]
