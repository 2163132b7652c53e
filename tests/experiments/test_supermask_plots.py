import re
import shutil

import numpy as np
import pytest
from rich.console import Console

from experiments.plots import (
    FIGURES,
    heuristic_supermasks,
    learned_supermasks,
    learning_curves,
    supermask_methods,
)
from experiments.runners import learned, one_shot
from experiments.runners.untrained_weights import WEIGHTS
from experiments.storage import results
from experiments.tables.selection import select_masks
from experiments.tables.summary import summary
from tests.experiments import tiny
from tools import figure
from tools.report import accuracy_tables, pages

SETTING = {"network": "lenet300", "dataset": "mnist"}


def heuristic_rows(accuracy, criteria=("large_final", "random")):
    """Rows of three powers, two criteria, two kinds of weights and two seeds."""
    return [
        SETTING
        | {"criterion": criterion, "weights": weights, "power": power, "seed": seed}
        | {"density": 0.5**power, **accuracy(criterion, weights, power, seed)}
        for power in (0, 1, 2)
        for criterion in criteria
        for weights in ("init", "signed_constant")
        for seed in (0, 1)
    ]


def peaked(criterion, weights, power, seed):
    """Accuracies that peak at power 1 on validation, and at power 2 on test for seed 1."""
    best = 0.1 * (criterion == "large_final") + 0.2 * (weights == "signed_constant")
    return {
        "validation_accuracy": 0.5 + best + 0.1 * (power == 1),
        "test_accuracy": 0.5 + best + 0.1 * (power == 1) + 0.2 * (power == 2 and seed == 1),
    }


def learned_rows(draw="bernoulli"):
    return [
        SETTING
        | {"draw": draw}
        | {"variant": weights + ":rescale" * rescale, "weights": weights, "rescale": rescale}
        | {"initial_logit": logit, "seed": seed, "density": 0.5 + 0.1 * logit}
        | dict.fromkeys(("test_accuracy", "validation_accuracy"), 0.9 + 0.02 * logit + 0.01 * seed)
        | dict.fromkeys(("test_most_probable_accuracy", "test_expected_accuracy"), 0.8)
        for weights in ("init", "signed_constant")
        for rescale in (False, True)
        for logit in (-1.0, 1.0)
        for seed in (0, 1)
    ]


def test_the_best_density_is_chosen_on_validation_and_the_maximum_on_test():
    found = select_masks(heuristic_rows(peaked))
    assert [(masks.criterion, masks.weights) for masks in found] == [
        (criterion, weights)
        for criterion in ("large_final", "random")
        for weights in ("init", "signed_constant")
    ]
    assert {masks.setting for masks in found} == {1}
    np.testing.assert_allclose(found[0].accuracies, [70, 70])
    np.testing.assert_allclose(found[0].maxima, [70, 80])
    np.testing.assert_allclose(found[0].density, 50)


def test_a_seed_that_diverged_is_left_out_of_the_others_numbers():
    nan = dict.fromkeys(("test_accuracy", "validation_accuracy"), float("nan"))
    rows = [row | (nan if row["seed"] else {}) for row in heuristic_rows(peaked)]
    alone = [row for row in rows if not row["seed"]]
    for found, expected in zip(select_masks(rows), select_masks(alone), strict=True):
        assert repr(found) == repr(expected)
    drawn, expected = (FIGURES["heuristic_supermasks"](table) for table in (rows, alone))
    for axes, other in zip(drawn.axes, expected.axes, strict=True):
        np.testing.assert_equal(lines(axes), lines(other))
    FIGURES["heuristic_supermasks"]([row | nan for row in rows])


def test_a_setting_that_diverged_is_not_chosen():
    rows = heuristic_rows(peaked)
    for row in rows:
        if row["power"] == 1:
            row["validation_accuracy"] = float("nan")
    assert {masks.setting for masks in select_masks(rows)} == {0}


def printed(rows, width):
    console = Console(width=width)
    with console.capture() as capture:
        console.print(summary(rows))
    return capture.get()


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("rows", [heuristic_rows(peaked), learned_rows()])
def test_the_summary_fits_and_starts_with_the_best(rows, width):
    text = printed(rows, width)
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    first = summary(rows).columns[0]
    best = "large_final" if "power" in rows[0] else "init"
    assert next(iter(first.cells)) == best
    assert "2 seeds" in text and "lenet300 on mnist" in text


@pytest.mark.parametrize(
    ("rows", "chosen"),
    [(heuristic_rows(peaked), "density"), (learned_rows(), "initial logit")],
)
def test_the_summary_says_what_validation_chose(rows, chosen):
    assert f"at the {chosen} best on validation" in str(summary(rows).caption)


def test_the_summary_of_heuristic_masks_has_both_numbers():
    assert re.search(
        r"large_final +70\.0 ± 0\.0 +90\.0 ± 0\.0\n +max 75\.0", printed(heuristic_rows(peaked), 80)
    )


def test_the_report_has_both_numbers():
    lines = pages.markdown([accuracy_tables.table(heuristic_rows(peaked))]).splitlines()
    assert lines[0].startswith("| lenet300, mnist: criterion | weights | maximum over densities |")
    cells = "75.00 (70.00 to 80.00; n = 2) | 70.00 (70.00 to 70.00; n = 2) | 50.00"
    assert f"| large_final | init | {cells} |" in lines
    lines = pages.markdown([accuracy_tables.table(learned_rows())]).splitlines()
    assert len(lines) == 2 + 4 * 2
    [best] = [line for line in lines if line.startswith("| init, rescaled | bernoulli | 1 ")]
    assert "(best on validation) | 60.00 | 92.50 (92.00 to 93.00; n = 2) |" in best
    assert best.endswith("| 80.00 (80.00 to 80.00; n = 2) | 80.00 (80.00 to 80.00; n = 2) |")


def test_every_draw_has_its_line_in_the_report_and_its_point_in_the_figure():
    nothing = {"test_expected_accuracy": float("nan"), "test_most_probable_accuracy": 0.7}
    rows = learned_rows() + [row | nothing for row in learned_rows("top_k")]
    table = pages.markdown([accuracy_tables.table(rows)]).splitlines()
    assert len(table) == 2 + 2 * 4 * 2
    [line] = [line for line in table if line.startswith("| init | top_k | -1 ")]
    assert line.endswith("| 70.00 (70.00 to 70.00; n = 2) |  |")
    drawn = supermask_methods.draw(rows)
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["bernoulli", "top k"]
    titles = ["on initial weights", "init, rescale", "on signed constants"]
    assert [axes.get_title() for axes in drawn.axes][:3] == titles
    for axes in drawn.axes:
        np.testing.assert_allclose(lines(axes)["bernoulli"], [[40, 60], [80, 80]])
        np.testing.assert_allclose(lines(axes)["top k"], [[40, 60], [70, 70]])


def lines(axes):
    return {line.get_label(): line.get_data() for line in axes.get_lines()}


def test_heuristic_figure_has_a_panel_per_kind_of_weights_and_learned_masks_on_top():
    drawn = FIGURES["heuristic_supermasks"](heuristic_rows(peaked) + learned_rows())
    assert [axes.get_title() for axes in drawn.axes] == ["initial weights", "signed constants"]
    for axes, more in zip(drawn.axes, (0, 20), strict=True):
        assert set(lines(axes)) == {"large_final", "random", "learned", "learned, rescaled"}
        x, y = lines(axes)["large_final"]
        np.testing.assert_allclose(x, [100, 50, 25])
        np.testing.assert_allclose(y, np.array([60, 70, 70]) + more)
    x, y = lines(drawn.axes[0])["learned"]
    np.testing.assert_allclose((x, y), ([40, 60], [88.5, 92.5]))


def low(criterion, weights, power, seed):
    """Three criteria near chance, and one that leaves it on signed constants only."""
    value = {"large_final": 0.6, "small_init": 0.12, "random": 0.11, "small_final": 0.09}
    value["movement"] = 0.14 + 0.2 * (weights == "signed_constant")
    return dict.fromkeys(("validation_accuracy", "test_accuracy"), value[criterion])


def legend(drawn):
    return [text.get_text() for text in drawn.legends[0].get_texts()]


def test_criteria_near_chance_share_a_grey_entry_that_says_how_high_they_get():
    criteria = ("large_final", "random", "movement", "small_init", "small_final")
    drawn = FIGURES["heuristic_supermasks"](heuristic_rows(low, criteria))
    assert legend(drawn) == ["large_final", "movement", "three others,\nat most 12.0 %"]
    for axes in drawn.axes:
        grey = [line for line in axes.get_lines() if "others" in line.get_label()]
        assert len(grey) == 3 and len({line.get_color() for line in grey}) == 1
        assert grey[0].get_linewidth() < axes.get_lines()[0].get_linewidth()
    assert "Grey, without bars: small_init, random, small_final." in drawn.get_supxlabel()


def test_panels_in_which_all_is_chance_are_low():
    rows = heuristic_rows(peaked)
    rows += [
        row | {"weights": kind, "test_accuracy": 0.1}
        for row in rows
        for kind in ("reinit", "reshuffle")
        if row["weights"] == "init"
    ]
    drawn = FIGURES["heuristic_supermasks"](rows)
    drawn.draw_without_rendering()
    heights = [axes.get_position().height for axes in drawn.axes]
    assert heights[0] > 1.4 * heights[2]
    assert [axes.get_title() for axes in drawn.axes][2:] == [
        "initial weights, permuted within a layer",
        "kept initial weights, permuted within a layer",
    ]


def test_learned_figure_speaks_of_lines_only_where_there_are_any():
    several = FIGURES["learned_supermasks"](learned_rows())
    assert "Lines join the initial logits in order: -1, 1." in several.get_supxlabel()
    one = FIGURES["learned_supermasks"]([r for r in learned_rows() if r["initial_logit"] == 1])
    assert "ines" not in one.get_supxlabel()
    assert {line.get_linestyle() for line in one.axes[0].get_lines()} == {"None"}


def test_learned_figure_has_a_line_per_variant_through_the_logits_in_order():
    [axes] = FIGURES["learned_supermasks"](learned_rows()[::-1]).axes
    assert set(lines(axes)) == {
        "init", "init, rescaled", "signed constant", "signed constant, rescaled"
    }  # fmt: skip
    for x, y in lines(axes).values():
        np.testing.assert_allclose((x, y), ([40, 60], [88.5, 92.5]))


def test_every_kind_of_weights_has_a_style_and_a_title():
    assert set(learned_supermasks.STYLES) == {
        name + rescale for name in WEIGHTS for rescale in ("", ":rescale")
    }
    assert set(heuristic_supermasks.TITLES) == set(WEIGHTS)


def test_curves_are_drawn_over_the_steps():
    curves = results.read_curves(tiny.finished(tiny.learned) / learned.CURVES)
    drawn = learning_curves.draw(curves, "lenet300 on digits")
    accuracy, density = drawn.axes
    assert drawn.legends[0].get_title().get_text() == (
        "learned supermasks, lenet300 on digits, 2 seeds"
    )
    assert drawn.get_supxlabel().startswith("A line per initial logit: 0, 1. ")
    assert [len(axes.get_lines()) for axes in (accuracy, density)] == [4, 4]
    assert all(x.tolist() == [0, 3, 6, 9, 10] for x, _ in lines(density).values())


def two_rates(rows):
    """Rows at two learning rates, of which the second is 0.1 lower in all accuracies."""
    accuracies = [name for name in rows[0] if name.endswith("accuracy")]
    return [
        row | {"learning_rate": rate} | {name: row[name] - lower for name in accuracies}
        for rate, lower in ((100.0, 0.0), (30.0, 0.1))
        for row in rows
    ]


@pytest.mark.parametrize(
    "name", ["learned_supermasks", "supermask_methods", "heuristic_supermasks"]
)
def test_a_figure_of_masks_has_a_line_per_learning_rate(name):
    rows = two_rates([row for row in learned_rows() if row["variant"] == "init"])
    more = heuristic_rows(peaked) if name.startswith("heuristic") else []
    axes = FIGURES[name]([*more, *rows]).axes[0]
    found = {str(line.get_label()): line for line in axes.get_lines()}
    own = {text.rpartition(", ")[2]: line for text, line in found.items() if "rate" in text}
    assert own.keys() == {"learning rate 100", "learning rate 30"}
    high, low = (np.asarray(own[f"learning rate {rate}"].get_ydata()) for rate in (100, 30))
    np.testing.assert_allclose(high - low, 10)
    assert len({line.get_color() for line in own.values()}) == 2


def test_tables_of_masks_have_a_line_per_learning_rate():
    rows = two_rates([row for row in learned_rows() if row["variant"] == "init"])
    cells = [list(column.cells) for column in summary(rows).columns]
    assert cells[0] == ["init, learning rate 100", "init, learning rate 30"]
    assert [str(cell)[:5] for cell in cells[3]] == ["92.50", "82.50"]
    names = [line[0] for line in accuracy_tables.table(rows).lines]
    assert names == ["init, learning rate 100"] * 2 + ["init, learning rate 30"] * 2
    assert "2 seeds" in str(summary(rows).caption)


def test_learning_curves_have_a_line_per_learning_rate():
    members = [(rate, seed) for rate in (100.0, 30.0) for seed in (0, 1)]
    values = np.repeat([0.9, 0.8, 0.5, 0.4], 2)
    curves = {
        "variant": np.repeat("init", 8), "initial_logit": np.ones(8), "step": np.tile([0, 9], 4),
        "learning_rate": np.repeat([rate for rate, _ in members], 2),
        "seed": np.repeat([seed for _, seed in members], 2),
        "validation_accuracy": values, "validation_density": values,
    }  # fmt: skip
    drawn = learning_curves.draw(curves, "")
    found = {str(line.get_label()): line for line in drawn.axes[0].get_lines()}
    assert {label: line.get_ydata()[0] for label, line in found.items()} == pytest.approx(
        {"init, learning rate 100": 85.0, "init, learning rate 30": 45.0}
    )
    assert len({line.get_color() for line in found.values()}) == 2
    assert "mean over 2 seeds" in drawn.get_supxlabel()


@pytest.mark.parametrize(
    ("accuracies", "bottom", "top"),
    [((0.1, 0.9, 0.93, 0.95), 83, 96), ((0.1, 0.12, 0.3, 0.5), 11, 51), ((0, 0, 0, 0), 0, 1)],
)
def test_curves_are_enlarged_near_the_best_unless_learning_is_slow(accuracies, bottom, top):
    columns = {"variant": "init", "initial_logit": 1.0, "seed": 0, "validation_density": 0.5}
    curves = {name: np.array([value] * 4) for name, value in columns.items()}
    curves |= {"step": np.arange(4), "validation_accuracy": np.array(accuracies)}
    accuracy, _ = learning_curves.draw(curves, "").axes
    np.testing.assert_allclose(accuracy.get_ylim(), (bottom, top))


@pytest.mark.parametrize(
    ("name", "make_config", "runner"),
    [
        ("heuristic_supermasks", tiny.one_shot, one_shot),
        ("learned_supermasks", tiny.learned, learned),
    ],
)
def test_a_figure_is_drawn_from_a_table(name, make_config, runner, tmp_path):
    table = tiny.finished(make_config) / "results.csv"
    drawn = figure.draw(name, [table])
    again = FIGURES[name](results.read_rows(table, runner.COLUMNS))
    assert [axes.get_title() for axes in drawn.axes] == [axes.get_title() for axes in again.axes]


def title(drawn):
    return drawn.legends[0].get_title().get_text()


def test_learning_curves_are_drawn_from_their_file_and_say_of_what(tmp_path):
    workdir = tiny.finished(tiny.learned)
    drawn = figure.draw("learning_curves", [workdir / learned.CURVES])
    assert len(drawn.axes) == 2
    assert title(drawn) == "learned supermasks, lenet300 on digits, bernoulli, 2 seeds"
    alone = shutil.copy(workdir / learned.CURVES, tmp_path / "mine.curves.parquet")
    assert "mine.curves.parquet" in title(figure.draw("learning_curves", [alone]))
    shutil.copy(workdir / "config.json", tmp_path / "mine.config.json")
    assert "lenet300 on digits" in title(figure.draw("learning_curves", [alone]))


def test_learning_curves_of_pruning_are_no_learned_supermasks():
    [*_, curves] = sorted((tiny.finished(tiny.config) / "curves").glob("*.parquet"))
    with pytest.raises(ValueError, match="lacks the column 'initial_logit'"):
        figure.draw("learning_curves", [curves])


def test_an_unknown_figure():
    with pytest.raises(ValueError, match="unknown figure 'pie'"):
        figure.draw("pie", [tiny.finished(tiny.learned) / "results.csv"])
