import csv
import functools
import importlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags

from experiments import networks


@pytest.fixture
def own_flags():
    return flags.FlagValues()


@pytest.fixture
def benchmark(own_flags, monkeypatch):
    """The module with flags of its own: other tools use the same names."""
    for name in ("DEFINE_enum", "DEFINE_integer", "DEFINE_string"):
        define = functools.partial(getattr(flags, name), flag_values=own_flags)
        monkeypatch.setattr(flags, name, define)
    monkeypatch.delitem(sys.modules, "tools.benchmark", raising=False)
    yield importlib.import_module("tools.benchmark")
    del sys.modules["tools.benchmark"]


def test_it_prints_and_writes_a_table(benchmark, own_flags, tmp_path, capsys):
    output = tmp_path / "table.csv"
    own_flags(["_", "--network=lenet300", "--steps=1", "--turns=1", f"--output={output}"])
    benchmark.main([])
    printed = capsys.readouterr().out.splitlines()[1:]
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(printed) == 3
    assert float(rows[0]["ratio"]) == 1
    for row, line in zip(rows, printed, strict=True):
        assert row["network"] == "lenet300" and float(row["ms_per_step"]) > 0
        assert line.split()[0] == "lenet300" and f" {row['program']} " in line


def test_both_programs_take_the_same_steps(benchmark):
    network = networks.make_network("lenet300", (4, 4, 1))
    params = network.init(jax.random.key(0))
    data = benchmark.make_data((4, 4, 1))
    indices = np.arange(12, dtype=np.int32).reshape(3, 4)
    programs = (
        benchmark.alone(benchmark.make_step(network)),
        benchmark.in_training(network, num_steps=3),
    )
    ends = []
    for program in programs:
        state = jax.tree.map(jnp.copy, (params, benchmark.OPTIMIZER.init(params)))
        ends.append(program(state, indices, data)[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *ends)
    moved = np.abs(ends[0]["output"]["kernel"] - params["output"]["kernel"]).max()
    assert moved > 1e-4
