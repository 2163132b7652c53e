import io
import itertools
import math
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb

from experiments.plots import FIGURES, plane, rounds, save
from experiments.plots.styles import OTHERS, STYLES, styles_for, told_apart
from experiments.tables.curves import left_out, make_curves, num_seeds
from experiments.tables.hyperparameters import WORDS
from supermask_jax.actions import MASK_ONE, MASK_ZERO
from supermask_jax.criteria import CRITERIA
from tools import figure as tool
from tools.report import pages

MASK_ONE_VARIANTS = (
    "large_final",
    *(f"large_final:{name}" for name in MASK_ONE if name != "rewind"),
    "random",
)
MASK_ZERO_VARIANTS = (
    "large_final",
    *(f"large_final:rewind:{name}" for name in MASK_ZERO if name != "zero"),
    "large_final:rewind_unless_shrunk:zero_if_shrunk",
)
VARIANT_PAIR = ("large_final", "random")
VARIANTS = {
    "mask_criteria": tuple(CRITERIA),
    "mask_one_actions": MASK_ONE_VARIANTS,
    "mask_zero_actions": MASK_ZERO_VARIANTS,
}


def make_row(variant, seed, number, test_accuracy, density):
    """The worse a network, the later it stops."""
    criterion, mask_one, mask_zero = (*variant.split(":"), "rewind", "zero")[:3]
    if variant.count(":") == 1:
        mask_zero = "zero"
    if variant == "dense":
        criterion = mask_one = mask_zero = ""
    return {
        "network": "lenet300",
        "dataset": "mnist",
        "variant": variant,
        "criterion": criterion,
        "mask_one": mask_one,
        "mask_zero": mask_zero,
        "seed": seed,
        "round": number,
        "density": density,
        "test_accuracy": test_accuracy,
        "early_stop_step": round(10_000 * (1 - test_accuracy)) if test_accuracy >= 0 else 0,
    }


def make_rows(variants, num_rounds=8, num_seeds=3, steepness=0.01):
    """The later a variant comes, the faster it falls."""
    rng = np.random.default_rng(0)

    def noise():
        return 0.002 * rng.random()

    rows = [make_row("dense", seed, 0, 0.97 + noise(), 1.0) for seed in range(num_seeds)]
    for number in range(1, num_rounds + 1):
        for place, variant in enumerate(variants):
            value = max(0.97 - steepness * place * number, 0.1)
            rows += [
                make_row(variant, seed, number, value + noise(), 0.6**number)
                for seed in range(num_seeds)
            ]
    return rows


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def note(figure):
    return figure.get_supxlabel()


def accuracies(rows, variant, number):
    group = [r for r in rows if r["variant"] == variant and r["round"] == number]
    return 100 * np.array([row["test_accuracy"] for row in group])


@pytest.mark.parametrize("panel", [0, 1])
def test_lines_are_means_and_bands_are_minimum_to_maximum(panel):
    rows = make_rows(("large_final", "random"), steepness=0.06)
    axes = FIGURES["mask_criteria"](rows).axes[panel]
    for place, variant in enumerate(("large_final", "random")):
        steps = [accuracies(rows, "dense", 0)]
        steps += [accuracies(rows, variant, number) for number in range(1, 9)]
        x, y = lines(axes)[variant].get_data()
        np.testing.assert_allclose(x, [100 * 0.6**number for number in range(9)])
        np.testing.assert_allclose(y, [values.mean() for values in steps])
        corners = axes.collections[place].get_paths()[0].vertices
        for percent, values in zip(x, steps, strict=True):
            heights = corners[np.isclose(corners[:, 0], percent), 1]
            np.testing.assert_allclose(heights.min(), values.min())
            np.testing.assert_allclose(heights.max(), values.max())


def test_bands_have_the_colour_of_their_line_and_edges_that_show():
    variants = ("large_final", "magnitude_increase", "random")
    axes = FIGURES["mask_criteria"](make_rows(variants, steepness=0.001)).axes[0]
    bands = [*axes.collections, axes.patches[0]]
    for band, name in zip(bands, (*variants, "dense"), strict=True):
        face, edge = (np.ravel(color) for color in (band.get_facecolor(), band.get_edgecolor()))
        assert to_hex(face) == to_hex(edge) == to_hex(lines(axes)[name].get_color())
        assert face[3] < 0.15 < 0.4 < edge[3]
        assert np.max(band.get_linewidth()) > 0
    assert axes.patches[0].get_linestyle() != "-"  # as grey as the band of large_final


@pytest.mark.parametrize("name", ["mask_criteria", "mask_criteria_convergence"])
def test_every_point_has_a_marker(name):
    drawn = lines(FIGURES[name](make_rows(("large_final", "random"), 24)).axes[-1])
    for variant in ("large_final", "random"):
        assert drawn[variant].get_marker() not in ("", "None", None)
        assert drawn[variant].get_markevery() is None


@pytest.mark.parametrize(
    ("num_rounds", "ticks"),
    [(1, {"100", "90", "80", "70", "60"}), (2, {"100", "70", "50"})],
)
def test_the_axis_of_a_short_run_ends_with_its_data(num_rounds, ticks):
    rows = make_rows(("random",), num_rounds)
    axes = FIGURES["mask_criteria"](rows).axes[-1]
    left, right = axes.get_xlim()
    least = 100 * 0.6**num_rounds
    assert 0.9 * least < right < least and 100 < left < 110
    labels = [axes.xaxis.get_major_formatter()(tick) for tick in axes.get_xticks()]
    assert set(labels) == ticks


def test_seeds_are_counted_by_line():
    rows = make_rows(("large_final", "random"))
    rows = [row for row in rows if row["variant"] != "random" or row["seed"] < 2]
    figure = FIGURES["mask_criteria"](rows)
    assert figure.axes[0].get_title() == "lenet300 on mnist, 2 to 3 seeds"
    assert note(figure).startswith("Lines: mean over 2 to 3 seeds; bands")


def test_weights_left_fall_to_the_right_on_a_logarithmic_axis():
    axes = FIGURES["mask_criteria"](make_rows(("random",))).axes[-1]
    left, right = axes.get_xlim()
    assert axes.get_xscale() == "log"
    assert left > 100 > right
    assert right < 100 * 0.6**8
    labels = [axes.xaxis.get_major_formatter()(tick) for tick in axes.get_xticks()]
    assert {"100", "50", "20", "10", "5", "2"} == set(labels)


def test_dense_is_a_horizontal_line_with_a_band():
    rows = make_rows(("large_final",))
    axes = FIGURES["mask_zero_actions"](rows).axes[0]
    values = accuracies(rows, "dense", 0)
    np.testing.assert_allclose(lines(axes)["dense"].get_ydata(), values.mean())
    band = axes.patches[0].get_window_extent().transformed(axes.transData.inverted())
    np.testing.assert_allclose((band.y0, band.y1), (values.min(), values.max()))


def test_title_and_labels():
    figure = FIGURES["mask_criteria"](make_rows(("large_final",)))
    (axes,) = figure.axes
    assert axes.get_title() == "lenet300 on mnist, 3 seeds"
    assert axes.get_xlabel() == "% of weights left"
    assert axes.get_ylabel() == "test accuracy (%)"
    assert note(figure) == "Lines: mean over 3 seeds; bands: minimum to maximum."


def test_a_collapse_does_not_hide_the_best_curves():
    figure = FIGURES["mask_criteria"](make_rows(("large_final", "small_final"), steepness=0.2))
    enlarged, everything = (axes.get_ylim() for axes in figure.axes)
    assert 95 < enlarged[0] < 97 < enlarged[1] < 99
    assert everything[0] < 11 < 97 < everything[1]
    assert "Upper panel" in note(figure)


def test_one_panel_is_enough_where_nothing_collapses():
    rows = make_rows(("large_final", "random"), 4, steepness=0.003)
    assert len(FIGURES["mask_criteria"](rows).axes) == 1


@pytest.mark.parametrize("order", [1, -1])
def test_legend_is_ordered_as_the_right_ends(order):
    rows = make_rows(("large_final", "movement", "random"))
    for row in rows:
        row["test_accuracy"] += 0.01 * (row["variant"] == "large_final")
    labels = legend(FIGURES["mask_criteria"](rows[::order]))
    assert labels == ["large_final", "dense", "movement", "random"]


def test_a_curve_that_ends_early_is_last_in_the_legend():
    rows = make_rows(("large_final", "random"), 4)
    for row in rows:
        if row["variant"] == "large_final" and row["round"] == 4:
            row["test_accuracy"] = math.nan
    assert legend(FIGURES["mask_criteria"](rows)) == ["dense", "random", "large_final"]


@pytest.mark.parametrize("figure_name", VARIANTS)
def test_every_variant_is_drawn_and_looks_different(figure_name):
    variants = VARIANTS[figure_name]
    figure = FIGURES[figure_name](make_rows(variants))
    drawn = lines(figure.axes[-1])
    assert set(drawn) == set(legend(figure))
    assert len(drawn) == len(variants) + 1
    looks = {
        (to_hex(line.get_color()), line.get_marker(), line.get_linestyle())
        for line in drawn.values()
    }
    assert len(looks) == len(drawn)


@pytest.mark.parametrize("registry", [CRITERIA, MASK_ONE, MASK_ZERO])
def test_every_registered_name_has_a_style_of_its_own(registry):
    assert set(registry) <= set(STYLES)
    # Without colour: the line, the marker and whether it is filled.
    looks = {STYLES[name][1:] for name in registry}
    assert len(looks) == len(registry)


@pytest.mark.parametrize(
    ("name", "opposite"),
    [
        ("large_final", "small_final"),
        ("large_init", "small_init"),
        ("large_init_large_final", "small_init_small_final"),
        ("large_final_same_sign", "large_final_diff_sign"),
        ("magnitude_increase_same_sign", "magnitude_increase_diff_sign"),
    ],
)
def test_opposites_are_the_lighter_dashed_relative(name, opposite):
    one, other = STYLES[name], STYLES[opposite]
    assert one.marker == other.marker
    assert one.filled and not other.filled
    assert one.line != other.line
    luminances = np.array([to_rgb(one.color), to_rgb(other.color)]) @ (0.299, 0.587, 0.114)
    assert luminances[1] > luminances[0] + 0.15


@pytest.mark.parametrize("name", ["reinit", "reshuffle", "constant"])
def test_kept_signs_are_solid_and_others_dashed(name):
    figure = FIGURES["mask_one_actions"](make_rows(MASK_ONE_VARIANTS))
    drawn = lines(figure.axes[-1])
    assert drawn[f"{name}_keep_sign"].get_linestyle() == "-"
    assert drawn[name].get_linestyle() == "--"
    assert {"rewind", "random masks"} <= set(drawn)


def test_a_default_looks_the_same_under_all_its_names():
    assert STYLES["large_final"] == STYLES["rewind"] == STYLES["zero"]


def test_variant_two_is_named_by_both_its_actions():
    labels = legend(FIGURES["mask_zero_actions"](make_rows(MASK_ZERO_VARIANTS)))
    assert "zero_if_shrunk and\nrewind_unless_shrunk" in labels
    assert "zero_if_shrunk" in labels


@pytest.mark.parametrize("figure_name", VARIANTS)
def test_convergence_is_drawn_from_the_same_table_like_the_accuracies(figure_name):
    rows = make_rows(VARIANTS[figure_name], steepness=0.03)
    accuracy, steps = (FIGURES[name](rows) for name in (figure_name, f"{figure_name}_convergence"))
    [axes] = steps.axes
    assert axes.get_ylabel() == "step of the lowest validation loss"
    assert legend(steps) == legend(accuracy)[::-1]
    drawn = lines(axes)
    for label, line in lines(accuracy.axes[-1]).items():
        assert drawn[label].get_color() == line.get_color()
        np.testing.assert_allclose(
            drawn[label].get_ydata(), 100 * (100 - np.array(line.get_ydata())), atol=1
        )


def test_a_diverged_member_has_no_early_stop():
    rows = make_rows(("random",), 3)
    spoilt = next(row for row in rows if row["round"] == 2)
    others = [r["early_stop_step"] for r in rows if r["round"] == 2 and r is not spoilt]
    spoilt["test_accuracy"], spoilt["early_stop_step"] = math.nan, 0
    figure = FIGURES["mask_criteria_convergence"](rows)
    assert lines(figure.axes[0])["random"].get_ydata()[2] == np.mean(others)
    assert "Left out: 1 member that diverged." in note(figure)


@pytest.mark.parametrize("figure_name", VARIANTS)
def test_variants_of_a_user_go_by_their_full_name(figure_name):
    variants = ("large_final", "mine", "mine:constant:freeze")
    figure = FIGURES[figure_name](make_rows(variants))
    assert {"mine", "mine:constant:freeze"} <= set(legend(figure))


def test_unknown_names_take_turns_with_the_other_styles():
    names = [f"mine{i}" for i in range(len(OTHERS) + 1)]
    styles = styles_for(["large_final", *names, "mine0"])
    assert styles[0] == STYLES["large_final"]
    assert styles[1:] == [*OTHERS, OTHERS[0], OTHERS[0]]
    assert len(set(OTHERS) | set(STYLES.values())) == len(OTHERS) + len(set(STYLES.values()))


def test_diverged_members_are_left_out_with_a_note():
    rows = make_rows(("large_final", "random"), 4)
    spoilt = [r for r in rows if r["variant"] == "random" and r["round"] == 2][:2]
    kept = accuracies(rows, "random", 2)[2]
    for row in spoilt:
        row["test_accuracy"] = math.nan
    figure = FIGURES["mask_criteria"](rows)
    np.testing.assert_allclose(lines(figure.axes[0])["random"].get_ydata()[2], kept)
    assert note(figure).endswith("\nLeft out: 2 members that diverged.")


def test_a_round_in_which_all_diverged_is_a_gap():
    rows = make_rows(("large_final", "random"), 4)
    for row in rows:
        if row["variant"] == "random" and row["round"] >= 3:
            row["test_accuracy"] = math.nan
    figure = FIGURES["mask_criteria"](rows)
    finite = np.isfinite(lines(figure.axes[0])["random"].get_ydata())
    assert finite.tolist() == [True, True, True, False, False]
    figure.savefig(io.BytesIO())


def test_a_table_that_diverged_throughout_is_drawn_empty():
    rows = [row | {"test_accuracy": math.nan} for row in make_rows(("random",), 2)]
    figure = FIGURES["mask_criteria"](rows)
    figure.savefig(io.BytesIO())
    assert "Left out: 6 members" in note(figure)


def test_an_unfinished_round_counts_the_members_that_are_there():
    rows = make_rows(("large_final", "random"), 4)[:-2]
    figure = FIGURES["mask_criteria"](rows)
    np.testing.assert_allclose(
        lines(figure.axes[0])["random"].get_ydata()[-1], accuracies(rows, "random", 4)[0]
    )
    assert note(figure).endswith("\nUnfinished: 2 results missing.")


def test_one_seed_has_no_bands():
    figure = FIGURES["mask_criteria"](make_rows(("large_final", "random"), 4, num_seeds=1))
    assert figure.axes[0].get_title().endswith("1 seed")
    assert "bands" not in note(figure)
    figure.savefig(io.BytesIO())


def test_without_pruning_rounds_the_dense_network_stands_alone():
    figure = FIGURES["mask_criteria"](make_rows((), 0))
    assert legend(figure) == ["dense"]
    figure.savefig(io.BytesIO())


def test_without_the_dense_network_curves_start_at_the_first_round():
    rows = [row for row in make_rows(("random",)) if row["round"]]
    figure = FIGURES["mask_criteria"](rows)
    assert legend(figure) == ["random"]
    assert lines(figure.axes[0])["random"].get_xdata()[0] == pytest.approx(60)


def test_an_empty_table_is_an_error():
    with pytest.raises(ValueError, match="no rows"):
        FIGURES["mask_criteria"]([])


def test_tables_of_two_networks_are_an_error():
    rows = make_rows(("random",), 1)
    other = rows[-1] | {"network": "conv2"}
    with pytest.raises(ValueError, match="conv2 on mnist, lenet300 on mnist"):
        FIGURES["mask_criteria"]([*rows, other])


def test_curves_have_the_rounds_and_members_of_the_table():
    rows = make_rows(("large_final", "random"), 2)
    [dense], (first, second) = make_curves(rows)
    assert dense.rounds.tolist() == [0]
    assert first.variant == "large_final"
    assert second.rounds.tolist() == [0, 1, 2]
    assert second.num_members.tolist() == [3, 3, 3]
    np.testing.assert_allclose(second.end, (2, accuracies(rows, "random", 2).mean()))
    assert left_out(rows) == []


def swept_rows(**numbers):
    """Rows of two methods for each combination of numbers; a dense network has no pruning rate.

    The n-th combination is n times 0.01 below the first.
    """
    rows = []
    for place, values in enumerate(itertools.product(*numbers.values())):
        own = dict(zip(numbers, values, strict=True))
        for row in make_rows(("large_final", "random"), 2):
            accuracy = row["test_accuracy"] - 0.01 * place
            rows.append(row | own | {"test_accuracy": accuracy})
    dense = [row | {"default_rate": None} for row in rows if row["variant"] == "dense"]
    named = {tuple(row.get(name) for name in (*WORDS, "seed")): row for row in reversed(dense)}
    return [*reversed(named.values()), *(row for row in rows if row["variant"] != "dense")]


def test_every_number_has_a_curve_that_starts_at_its_dense_network():
    rows = swept_rows(learning_rate=(0.001, 0.01), momentum=(0.9,), default_rate=(0.2, 0.5))
    dense, variants = make_curves(rows)
    of_rates = "learning rate 0.001", "learning rate 0.01"
    assert [curve.name for curve in dense] == [f"dense, {words}" for words in of_rates]
    assert [curve.name for curve in variants] == [
        f"{variant}, {words}, pruning rate {rate}"
        for variant in ("large_final", "random") for words in of_rates for rate in (0.2, 0.5)
    ]  # fmt: skip
    for curve in (*dense, *variants):
        own = [row for row in rows if f"learning rate {row['learning_rate']}" in curve.numbers]
        np.testing.assert_allclose(curve.mean[0], accuracies(own, "dense", 0).mean())
        assert curve.num_members.tolist() == [3] * len(curve.rounds)
    assert num_seeds(rows) == "3 seeds" and left_out(rows) == []
    assert left_out(rows[:-3]) == ["Unfinished: 3 results missing."]


def test_seeds_of_other_variants_and_rounds_are_not_unfinished():
    """As where a table of fresh seeds joins the first one, of fewer variants and rounds."""
    rows = make_rows(("large_final", "random"), 4)
    fresh = [row | {"seed": row["seed"] + 10} for row in make_rows(("large_final",), 2)]
    assert left_out([*rows, *fresh]) == []
    assert left_out([*rows[:-2], *fresh]) == ["Unfinished: 2 results missing."]
    assert left_out([*rows, *fresh[:-1]]) == ["Unfinished: 1 result missing."]


@pytest.mark.parametrize("name", ["mask_criteria", "mask_one_actions", "mask_criteria_convergence"])
def test_a_figure_has_a_line_per_number(name):
    drawn = FIGURES[name](swept_rows(learning_rate=(0.001, 0.003)))
    methods = ("dense", *(("rewind", "random masks") if "one" in name else VARIANT_PAIR))
    expected = [f"{m}, learning rate {rate}" for m in methods for rate in (0.001, 0.003)]
    labels = [label.replace("\n", " ") for label in lines(drawn.axes[-1])]
    assert sorted(labels) == sorted(expected)
    assert sorted(text.replace("\n", " ") for text in legend(drawn)) == sorted(expected)
    looks = {(line.get_color(), line.get_marker()) for line in drawn.axes[-1].get_lines()}
    assert len(looks) == len(expected)


def test_one_number_is_not_named_and_an_older_table_has_none():
    rows = make_rows(("large_final", "random"))
    told = [row | {"learning_rate": 0.001, "default_rate": 0.2} for row in rows]
    plain = legend(FIGURES["mask_criteria"](rows))
    assert plain == legend(FIGURES["mask_criteria"](told))
    older = [row | dict.fromkeys(WORDS) for row in rows]
    mixed = [old if old["seed"] else new for old, new in zip(older, told, strict=True)]
    for table in (older, mixed):
        figure = FIGURES["mask_criteria"](table)
        assert legend(figure) == plain and "3 seeds" in figure.axes[0].get_title()


def test_equal_styles_grow_lighter_and_others_stay():
    one, other = STYLES["large_final"], STYLES["random"]
    found = told_apart([one, other, one, one])
    assert found[:2] == [one, other]
    assert [style.marker for style in found] == [one.marker, other.marker, one.marker, one.marker]
    brightness = [sum(to_rgb(style.color)) for style in (found[0], found[2], found[3])]
    assert brightness == sorted(set(brightness)) and brightness[-1] < 2.5


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_save_writes_by_suffix_and_leaves_nothing_else(tmp_path, suffix, start):
    path = tmp_path / "folder" / f"figure.{suffix}"
    save(FIGURES["mask_criteria"](make_rows(("random",), 2)), path)
    assert path.read_bytes().startswith(start)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("num_rates", [1, 3])
def test_nothing_overlaps_on_the_page(num_rates):
    rates = [0.001 * (1 + place) for place in range(num_rates)]
    rows = [
        row | {"learning_rate": rate}
        for rate in rates
        for row in make_rows(tuple(CRITERIA), steepness=0.05)
    ]
    figure = FIGURES["mask_criteria"](rows)
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [figure.legends[0].get_tightbbox()]
    boxes += [text.get_window_extent() for text in figure.texts]
    page = figure.bbox
    for place, box in enumerate(boxes):
        assert page.x0 <= box.x0 and box.x1 <= page.x1
        assert page.y0 <= box.y0 and box.y1 <= page.y1
        assert not any(box.overlaps(other) for other in boxes[:place])


MATPLOTLIBRC = """
font.family: serif
font.size: 17
text.color: red
axes.facecolor: black
axes.edgecolor: yellow
axes.linewidth: 5
axes.unicode_minus: False
figure.facecolor: green
figure.dpi: 31
xtick.minor.visible: True
ytick.labelcolor: blue
lines.markeredgewidth: 4
image.cmap: hot
savefig.bbox: tight
savefig.dpi: 31
savefig.transparent: True
svg.fonttype: none
"""


@pytest.fixture
def users_style(tmp_path):
    """The context of a user's matplotlibrc."""
    file = tmp_path / "matplotlibrc"
    file.write_text(MATPLOTLIBRC)
    return matplotlib.rc_context(fname=file)


RESULTS = Path(__file__).parents[2] / "results"
MASKS = "mask_criteria_magnitude_lenet300_mnist.analysis.csv"
DRAW = {
    "FIGURES": lambda: FIGURES["mask_criteria"](make_rows(("large_final",), 2)),
    "mask_analysis": lambda: tool.draw("mask_analysis", [RESULTS / MASKS]),
    "learning_curves": lambda: tool.draw("learning_curves", list(RESULTS.glob("*conv2*.parquet"))),
    "regions": lambda: plane.draw_regions(0.3),
    "weights": lambda: plane.draw_weights(np.arange(9.0), np.ones(9), 0.3, "nine"),
}


@pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)
def test_figures_are_drawn_with_the_settings_of_matplotlib(users_style, monkeypatch, draw):
    monkeypatch.setattr(plane, "REGION_BINS", 3)
    with users_style:
        figure = draw()
    artists = [figure, *figure.axes]
    assert {to_hex(artist.get_facecolor()) for artist in artists} == {"#ffffff"}
    assert {axes.spines["left"].get_linewidth() for axes in figure.axes} == {0.8}


def test_a_users_matplotlibrc_changes_no_byte(users_style, tmp_path):
    def files(name):
        figure = FIGURES["mask_criteria"](make_rows(("large_final",), 2))
        save(figure, tmp_path / name)
        return (tmp_path / name).read_bytes(), pages.svg(figure, "a", "A figure.")

    own = files("own.png")
    with users_style:
        assert files("users.png") == own


def test_figures_do_without_pyplot():
    code = "import sys, experiments.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_size_is_the_text_width_of_a_page():
    figure = FIGURES["mask_criteria"](make_rows(("random",), 2))
    assert tuple(figure.get_size_inches()) == rounds.SIZE == (6.5, 4.5)
