import shutil

import jax
import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from experiments.plots import mask_analysis as figure
from experiments.plots.styles import STYLES
from experiments.runners import iterative, mask_analysis
from experiments.runners.outcomes import abstract_outcome
from experiments.runners.registry import read_table
from experiments.storage import results, run_folder
from experiments.storage.checkpoints import Checkpoints
from supermask_jax.paths import path_name
from tests.experiments import tiny
from tools import collect
from tools import figure as program

FRACTIONS = {
    "sign_agreement": lambda i, f: np.sign(i) == np.sign(f),
    "shrunk": lambda i, f: np.abs(f) < np.abs(i),
}
KERNELS = ("dense1/kernel", "dense2/kernel", "output/kernel")


@pytest.fixture(scope="module")
def workdir():
    return tiny.finished()


@pytest.fixture(scope="module")
def rows(workdir):
    return results.read_rows(workdir / mask_analysis.FILE, mask_analysis.COLUMNS)


@pytest.fixture(scope="module")
def outcomes(workdir):
    """The outcomes of all rounds, by round, path and field: `[P, ...]`."""
    plan = iterative.make_plan(tiny.config())

    def flat(tree):
        return {path_name(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(tree)}

    checkpoints = Checkpoints(run_folder.existing(workdir).below("checkpoints"), keep=2)
    loaded = [checkpoints.load(r, abstract_outcome(plan, r)) for r in range(3)]
    return [
        {"w_i": flat(o.state.w_i), "w_f": flat(o.w_f), "mask": flat(o.state.mask)} for o in loaded
    ]


MEMBERS = [(variant, seed) for variant in tiny.VARIANTS for seed in (0, 1)]


def values(rows, round, quantity, member, other=("", None)):
    """Return the values by layer."""
    return {
        r["layer"]: r["value"]
        for r in rows
        if (r["round"], r["quantity"]) == (round, quantity)
        and (r["variant"], r["seed"]) == member
        and (r["other_variant"], r["other_seed"]) == other
    }


@pytest.mark.parametrize("round", [1, 2])
@pytest.mark.parametrize("place", range(4))
def test_quantities_of_a_member_equal_those_of_its_checkpoints(rows, outcomes, round, place):
    before, mask = outcomes[round - 1], outcomes[round]["mask"]
    parent = place % 2 if round == 1 else place
    everything = {}
    for path in KERNELS:
        i, f, old = (before[name][path][parent] for name in ("w_i", "w_f", "mask"))
        kept, pruned = mask[path][place], old & ~mask[path][place]
        assert pruned.any()
        everything.setdefault("density", {})[path] = kept.ravel()
        for name, condition in FRACTIONS.items():
            for chosen, of in ((kept, "kept"), (pruned, "pruned")):
                everything.setdefault(f"{name}_{of}", {})[path] = condition(i, f)[chosen]
    for quantity, layers in everything.items():
        expected = {path: layer.mean() for path, layer in layers.items()}
        expected["all"] = np.concatenate([*layers.values()]).mean()
        found = values(rows, round, quantity, MEMBERS[place])
        assert found == pytest.approx(expected, rel=1e-6), quantity


@pytest.mark.parametrize("round", [1, 2])
@pytest.mark.parametrize("pair", [(0, 1), (2, 3), (0, 2), (1, 3)])
def test_overlaps_are_those_of_the_checkpoints_masks(rows, outcomes, round, pair):
    masks = outcomes[round]["mask"]
    expected = {
        path: cohen_kappa_score(*(masks[path][place].ravel() for place in pair)) for path in KERNELS
    }
    one, other = (MEMBERS[place] for place in pair)
    found = values(rows, round, "overlap", one, other)
    overall = found.pop("all")
    assert found == pytest.approx(expected, abs=1e-6)
    assert min(expected.values()) <= overall <= max(expected.values())


def test_members_that_share_neither_seed_nor_variant_are_not_compared(rows):
    pairs = {
        (r["variant"], r["seed"], r["other_variant"], r["other_seed"])
        for r in rows
        if r["quantity"] == "overlap"
    }
    assert len(pairs) == 4
    quantities = {r["quantity"] for r in rows}
    assert len(rows) == 2 * (len(KERNELS) + 1) * (4 * (len(quantities) - 1) + 4)
    assert {r["round"] for r in rows} == {1, 2}


def test_a_diverged_member_has_no_rows(outcomes):
    plan = iterative.make_plan(tiny.config())
    laboratory = iterative.Laboratory(plan)
    shapes = abstract_outcome(plan, 1)
    previous = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes)
    previous.w_f["dense2"]["bias"][2, 0] = np.inf
    rows = laboratory.analyse(2, previous, previous.state)
    assert {(r["variant"], r["seed"]) for r in rows} == {MEMBERS[i] for i in (0, 1, 3)}
    assert MEMBERS[2] not in {(r["other_variant"], r["other_seed"]) for r in rows}
    # No weight is pruned, and a fraction of no weights has no row.
    assert {r["quantity"] for r in rows} == {
        "density",
        "overlap",
        "sign_agreement_kept",
        "shrunk_kept",
    }
    assert {r["value"] for r in rows if r["quantity"] != "shrunk_kept"} == {1.0}


def test_runs_are_joined_and_shared_members_count_once(workdir, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(collect, "check_slices", lambda *_: None)
    other = shutil.copytree(workdir, tmp_path / "other")
    for folder in (other, shutil.copytree(workdir, tmp_path / "one")):
        table = results.read_rows(folder / "results.csv", iterative.COLUMNS)
        clean = [row | {"code_version": "0.1.0"} for row in table]
        results.write_rows(folder / "results.csv", clean, iterative.COLUMNS)
        shutil.rmtree(folder / "parts" / "results")  # they tell of changed files
    collect.collect([other, tmp_path / "one"], tmp_path / "joined")
    collect.collect([tmp_path / "joined", other], tmp_path / "joined")
    assert repr(read_table(tmp_path / "joined.analysis.csv")) == repr(rows)


def test_the_figure_shows_means_over_members(rows, workdir):
    drawn = program.draw("mask_analysis", [workdir / mask_analysis.FILE])
    titles = [axes.get_title() for axes in drawn.axes]
    assert len(titles) == 8 and titles[3] == "weights pruned now: moved towards zero"
    for panel, quantity in ((0, "sign_agreement_kept"), (3, "shrunk_pruned")):
        lines = {line.get_label(): line for line in drawn.axes[panel].get_lines()}
        assert set(lines) == set(tiny.VARIANTS)
        for variant, line in lines.items():
            means = [
                100 * np.mean([values(rows, r, quantity, (variant, s))["all"] for s in (0, 1)])
                for r in (1, 2)
            ]
            np.testing.assert_allclose(line.get_ydata(), means)
    [overlap] = drawn.axes[4].get_lines()
    assert overlap.get_label() == tiny.VARIANTS[1]
    between = [
        values(rows, 2, "overlap", (tiny.VARIANTS[0], s), (tiny.VARIANTS[1], s))["all"]
        for s in (0, 1)
    ]
    np.testing.assert_allclose(overlap.get_ydata()[1], np.mean(between))
    layers = {line.get_label() for line in drawn.axes[6].get_lines()}
    assert layers == {*KERNELS, "all layers"}


def test_nothing_overlaps_on_the_page(rows):
    drawn = figure.draw(rows)
    drawn.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in drawn.axes] + [drawn.legends[0].get_tightbbox()]
    for place, box in enumerate(boxes):
        assert drawn.bbox.x0 <= box.x0 and box.x1 <= drawn.bbox.x1
        assert not any(box.overlaps(other) for other in boxes[:place])


def test_layers_have_no_colour_of_a_variant():
    names = [f"conv{i}/kernel" for i in range(1, 7)] + [f"dense{i}/kernel" for i in range(1, 4)]
    layers = figure.layer_styles([*names, figure.OVERALL])
    colors = {style.color for style in layers.values()}
    assert len(colors) == len(names) + 1
    assert colors.isdisjoint(style.color for style in STYLES.values())
    assert layers[figure.OVERALL].marker == ""


def test_one_seed_and_one_variant_have_nothing_to_compare(rows):
    own = [r for r in rows if (r["variant"], r["seed"]) == ("large_final", 0)]
    drawn = figure.draw([r for r in own if r["quantity"] != "overlap"])
    texts = [[text.get_text() for text in axes.texts] for axes in drawn.axes]
    assert [bool(found) for found in texts] == [place in (4, 5) for place in range(8)]
    assert "bands" not in drawn.get_supxlabel()


def test_another_table_is_not_a_mask_analysis(workdir):
    with pytest.raises(ValueError, match=r"from the table analysis\.csv of a run"):
        program.draw("mask_analysis", [workdir / "results.csv"])
    with pytest.raises(ValueError, match="no rows"):
        figure.draw([])
