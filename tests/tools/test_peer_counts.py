from pathlib import Path

import numpy as np
import pytest

from tests.experiments import command_lines
from tools import peer_counts
from tools.peer_counts import ROUNDS, SIZES, by_rounds

PAGE = Path(__file__).parents[2] / "docs" / "how_to" / "pytorch.md"


def test_the_page_has_the_table_of_the_program():
    end = command_lines.fork("tools.peer_counts")
    assert end.stdout == peer_counts.markdown() and end.stdout in PAGE.read_text()
    assert end.stdout.count("\n") == 2 + len(SIZES) * len(peer_counts.PROGRAMS)


def test_an_argument_is_refused():
    end = command_lines.fork("tools.peer_counts", "--rate=1")
    assert (end.returncode, end.stderr) == (
        1,
        "error: unknown argument '--rate=1', expected none.\n",
    )


@pytest.mark.parametrize("size", SIZES)
def test_pytorch_itself_keeps_these(size):
    torch = pytest.importorskip("torch")
    from torch.nn.utils import prune

    layer = torch.nn.Linear(size, 1, bias=False)
    found = []
    for _ in ROUNDS:
        prune.l1_unstructured(layer, "weight", amount=peer_counts.RATE)
        found.append(int(layer.weight_mask.sum()))
    assert found == by_rounds(size, "round")


@pytest.mark.parametrize("size", SIZES)
def test_the_lines_of_open_lth_keep_these(size):
    """Its threshold: https://github.com/facebookresearch/open_lth, pruning/sparse_global.py."""
    weights, found = np.random.default_rng(0).random(size), []
    for _ in ROUNDS:
        if len(weights):  # it raises an error once nothing is left
            threshold = np.sort(weights)[np.ceil(peer_counts.RATE * len(weights)).astype(int)]
            weights = weights[weights > threshold]
        found.append(len(weights))
    assert found == by_rounds(size, "open_lth")
