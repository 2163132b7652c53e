"""The notebook: its numbers support its text, and it is committed with its outputs."""

import base64
import json
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from experiments import configs

PATH = Path(configs.__file__).parent.parent / "story.ipynb"
NOTEBOOK = json.loads(PATH.read_text())
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def outputs(cell, kind):
    """Return the outputs of a cell of one kind, each as one text."""
    shown = [output["data"] for output in cell["outputs"] if "data" in output]
    return ["".join(data[kind]) for data in shown if kind in data]


def test_it_was_run_once_from_top_to_bottom_without_an_error():
    assert CODE and NOTEBOOK["nbformat"] == 4
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    kinds = {output["output_type"] for cell in CODE for output in cell["outputs"]}
    assert kinds == {"display_data", "execute_result", "stream"}
    streams = [o["name"] for cell in CODE for o in cell["outputs"] if o["output_type"] == "stream"]
    assert set(streams) == {"stdout"}
    assert not [cell for cell in CODE if "execution" in cell["metadata"]]  # times of day


def test_it_shows_its_figures_and_stays_small():
    drawing = [cell for cell in CODE if outputs(cell, "image/png")]
    sources = ["".join(cell["source"]) for cell in CODE]
    assert len(drawing) == sum("plt.show()" in s or s.startswith("FIGURES[") for s in sources) == 4
    for cell in drawing:
        [png] = outputs(cell, "image/png")
        assert base64.b64decode(png).startswith(b"\x89PNG")
    assert PATH.stat().st_size < 300_000


def test_the_first_cell_imports_what_there_is():
    exec("".join(CODE[0]["source"]), {})


@pytest.fixture(scope="module")
def variables():
    """The variables that the notebook defines when it runs from top to bottom."""
    backend, names = matplotlib.get_backend(), {}
    matplotlib.use("agg")
    for number, cell in enumerate(CODE):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    names["plt"].close("all")
    matplotlib.use(backend)
    return names


def final_accuracy(rows, variant):
    last = max(row["round"] for row in rows)
    group = [r for r in rows if r["variant"] == variant and r["round"] == last]
    return 100 * np.mean([row["test_accuracy"] for row in group])


@pytest.mark.slow
def test_the_ticket_is_better_than_random_masks(variables):
    ticket, by_chance = variables["ticket_curve"], variables["random_curve"]
    np.testing.assert_allclose(ticket[:, 0], by_chance[:, 0])
    assert ticket[0, 0] == 100 and 2 < ticket[-1, 0] < 4
    assert ticket[4, 1] > ticket[0, 1] - 1.5
    assert ticket[-1, 1] > by_chance[-1, 1] + 3


@pytest.mark.slow
def test_the_parts_do_what_the_text_says(variables):
    accuracy = {name: final_accuracy(variables["rows"], name) for name in variables["variants"]}
    assert accuracy["large_final"] > accuracy["large_final:reinit"] + 10
    assert abs(accuracy["large_final"] - accuracy["magnitude_increase"]) < 10
    assert max(accuracy, key=accuracy.get) == "large_final:rewind_unless_shrunk:zero_if_shrunk"
    overlaps = [
        row["value"]
        for row in variables["analysed"]
        if (row["quantity"], row["layer"], row["other_variant"])
        == ("overlap", "all", "magnitude_increase")
        and row["variant"] == "large_final"
    ]
    assert min(overlaps) > 0.05 and max(overlaps) < 0.6


@pytest.mark.slow
def test_supermasks_make_untrained_weights_useful(variables):
    untrained = variables["untrained"]
    assert untrained["no mask"] < 25 and untrained["random"] < 50
    assert untrained["large_final"] > 80 and untrained["large_final_same_sign"] > 80
    trained = variables["test_accuracy"](variables["w_f"])
    assert trained - 3 < untrained["learned"] <= trained + 2
