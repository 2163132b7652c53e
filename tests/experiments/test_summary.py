import math

import numpy as np
import pytest
from rich.console import Console

from experiments.tables.summary import summary
from supermask_jax.criteria import CRITERIA
from tests.experiments.test_plots import MASK_ZERO_VARIANTS, accuracies, make_rows, swept_rows


def cells(table):
    """Return the texts of all cells: the header, then the rows."""
    columns = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    return list(zip(*columns, strict=True))


def printed(rows, width):
    console = Console(width=width, record=True, force_terminal=False)
    with console.capture() as capture:
        console.print(summary(rows, width=width))
    return capture.get()


def test_cells_are_mean_and_half_the_range():
    rows = make_rows(("random", "large_final"), 8)
    header, dense, first, second = cells(summary(rows))
    assert header[0] == "variant"
    assert header[1] == "round 0\n100 %"
    assert header[-1] == "round 8\n1.68 %"
    values = accuracies(rows, "dense", 0)
    assert dense[:2] == ("dense", f"{values.mean():.2f} ± {np.ptp(values) / 2:.2f}")
    values = accuracies(rows, "random", 8)
    assert first[-1] == f"{values.mean():.2f} ± {np.ptp(values) / 2:.2f}"
    assert (first[0], second[0]) == ("random", "large_final")


def test_only_the_dense_network_has_all_weights():
    _, dense, first = cells(summary(make_rows(("random",), 3)))
    assert dense[2:] == ("", "", "")
    assert first[1] == ""
    assert all(first[2:])


def test_dense_comes_first_and_the_best_variant_next():
    rows = make_rows(tuple(CRITERIA), 6)
    names = [row[0] for row in cells(summary(rows[::-1]))[1:]]
    assert names == ["dense", *CRITERIA]


def test_rounds_are_spread_from_the_first_to_the_last():
    header, *_ = cells(summary(make_rows(("random",), 24), width=100))
    rounds = [int(text.split()[1]) for text in header[1:]]
    assert rounds == [0, 5, 10, 14, 19, 24]


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("variants", [tuple(CRITERIA), MASK_ZERO_VARIANTS])
def test_it_fits_and_cuts_nothing(width, variants):
    rows = make_rows(variants, 24)
    text = printed(rows, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for row in cells(summary(rows, width=width))[1:]:
        assert all(line in text for cell in row for line in cell.split("\n"))


def test_wider_tables_show_more_rounds():
    rows = make_rows(tuple(CRITERIA), 24)
    num_columns = [len(summary(rows, width=width).columns) for width in (60, 80, 100, 120)]
    assert num_columns == sorted(set(num_columns))


def test_the_caption_says_what_the_numbers_are():
    text = " ".join(printed(make_rows(("random",), 8), 100).split())
    assert "lenet300 on mnist" in text
    assert "Test accuracy (%): mean ± half the min-max range of 3 seeds." in text


def test_one_seed_has_no_range():
    rows = make_rows(("random",), 2, num_seeds=1)
    table = summary(rows)
    assert cells(table)[2][-1] == f"{accuracies(rows, 'random', 2)[0]:.2f}"
    assert table.caption == "Test accuracy (%): 1 seed."


def test_diverged_members_are_left_out():
    rows = make_rows(("random",), 2)
    kept = accuracies(rows, "random", 2)[2]
    for row in [r for r in rows if r["round"] == 2][:2]:
        row["test_accuracy"] = math.nan
    table = summary(rows)
    assert cells(table)[2][-1] == f"{kept:.2f}"
    assert str(table.caption).endswith("Left out: 2 members that diverged.")


def test_a_variant_that_diverged_throughout_comes_last():
    rows = make_rows(("random", "large_final"), 2)
    for row in rows:
        if row["variant"] == "random":
            row["test_accuracy"] = math.nan
    last = cells(summary(rows))[-1]
    assert last == ("random", "", "diverged", "diverged")


def test_missing_results_are_dashes():
    rows = make_rows(("large_final", "random"), 3)[:-3]
    table = summary(rows)
    assert [(row[0], row[-1] == "-") for row in cells(table)[2:]] == [
        ("large_final", False),
        ("random", True),
    ]
    assert str(table.caption).endswith("Unfinished: 3 results missing.")


def test_every_number_has_a_line():
    rows = swept_rows(learning_rate=(0.001, 0.003))
    names = [row[0].replace("\n", " ") for row in cells(summary(rows))[1:]]
    assert names[:2] == ["dense, learning rate 0.001", "dense, learning rate 0.003"]
    assert sorted(names[2:]) == [
        f"{variant}, learning rate {rate}"
        for variant in ("large_final", "random") for rate in (0.001, 0.003)
    ]  # fmt: skip
    assert "3 seeds" in str(summary(rows).caption)


def test_pruning_rates_that_differ_give_a_range_of_the_weights_left():
    rows = [
        row | {"density": (1 - (row["default_rate"] or 0)) ** row["round"]}
        for row in swept_rows(default_rate=(0.25, 0.5))
    ]
    heads = [str(column.header).split("\n") for column in summary(rows, 80).columns[1:]]
    ranges = "100 %", "50 to 75 %", "25 to 56.2 %"
    assert heads == [[f"round {number}", left] for number, left in enumerate(ranges)]
    for width in (50, 60, 80):
        lines = printed(rows, width).splitlines()
        assert all(len(line) <= width and "…" not in line for line in lines)


def test_without_pruning_rounds_only_dense_is_shown():
    assert [row[0] for row in cells(summary(make_rows((), 0)))] == ["variant", "dense"]


def test_an_empty_table_is_an_error():
    with pytest.raises(ValueError, match="no rows"):
        summary([])
