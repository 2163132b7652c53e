import csv
import functools
import importlib
import sys

import jax
import numpy as np
import optax
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
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["program"] for row in rows] == ["alone", "in loop", "lax conv and flax pool, alone"]
    assert float(rows[0]["ratio"]) == 1
    for row in rows:
        assert row["network"] == "lenet300" and float(row["ms_per_step"]) > 0
        assert row["program"] in capsys.readouterr().out or row is not rows[0]


def test_both_programs_take_the_same_steps(benchmark):
    network = networks.make_network("lenet300", (4, 4, 1))
    optimizer = optax.sgd(0.1)
    step = benchmark.make_step(network, optimizer)
    params = network.init(jax.random.key(0))
    data = benchmark.make_data((4, 4, 1))
    indices = np.arange(12, dtype=np.int32).reshape(3, 4)
    ends = [
        program(jax.tree.map(np.copy, (params, optimizer.init(params))), indices, data)[0]
        for program in (benchmark.alone(step), benchmark.in_loop(step))
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *ends)
    assert not np.allclose(ends[0]["output"]["kernel"], params["output"]["kernel"], atol=1e-5)
