import math
from pathlib import Path

import jax
import pytest

from experiments.problems.networks import make_network
from tools import benchmark_sizes
from tools.benchmark import measurements
from tools.benchmark_sizes import Row

TABLE = Path(__file__).parents[2] / "results" / "benchmark_sizes.csv"
COMMITTED = measurements.read(TABLE, Row)


def counted(network, kept):
    """The bytes of the arrays alone, from the shapes of the network."""
    image = benchmark_sizes.IMAGES.get(network, (32, 32, 3))
    params = jax.eval_shape(make_network(network, image).init, jax.random.key(0))
    leaves = jax.tree.leaves(params)
    kernels = [leaf for leaf in leaves if len(leaf.shape) > 1]
    weights = sum(math.prod(leaf.shape) for leaf in leaves)
    biases = 4 * (weights - sum(leaf.size for leaf in kernels))
    numbers = {len(leaf.shape): 0 for leaf in kernels}
    for leaf in kernels:
        numbers[len(leaf.shape)] += round(kept * leaf.size)
    rows = sum(leaf.shape[-1] + 1 for leaf in kernels)
    return {
        "dense": 4 * weights,
        "mask": weights / 8,
        "packed": weights / 8 + 4 * sum(numbers.values()) + biases,
        "bcsr": 8 * sum(numbers.values()) + 4 * rows + biases,
        "bcoo": sum(4 * (1 + axes) * number for axes, number in numbers.items()) + biases,
    }


@pytest.mark.parametrize("row", COMMITTED, ids=lambda row: f"{row.network}-{row.kept}")
def test_the_committed_sizes_are_those_of_the_arrays_and_few_bytes_of_headers(row):
    for column, size in counted(row.network, row.kept).items():
        assert size <= getattr(row, column) <= size + 12_000


def test_the_table_has_the_networks_and_shares_that_it_is_made_of():
    flags = benchmark_sizes._parser().parse_args([])
    assert {row.network for row in COMMITTED} == set(flags.networks.split(","))
    assert {str(row.kept) for row in COMMITTED} == set(flags.kept.split(","))


def test_a_small_table_is_that_of_its_file(tmp_path, capsys):
    benchmark_sizes.main(["--networks=lenet300", "--kept=0.05", f"--table={tmp_path / 'small'}"])
    assert capsys.readouterr().out.strip() == benchmark_sizes.markdown(tmp_path / "small.csv")
    [row] = measurements.read(tmp_path / "small.csv", Row)
    [committed] = [row for row in COMMITTED if (row.network, row.kept) == ("lenet300", 0.05)]
    for column in Row._fields[2:]:
        assert getattr(row, column) == pytest.approx(getattr(committed, column), rel=0.01)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--kept=2", "error: --kept has '2', expected numbers in [0, 1]."),
        ("--kept=0.1,few", "error: --kept has 'few', expected numbers in [0, 1]."),
        ("--networks=lenet30", "error: unknown network 'lenet30'; did you mean 'lenet300'?"),
    ],
)
def test_mistakes_get_one_line(flag, message):
    with pytest.raises(SystemExit) as stopped:
        benchmark_sizes.main([flag])
    assert str(stopped.value).startswith(message)
