import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from experiments.problems.networks import NETWORKS, Widths, make_network
from tools import benchmark_accelerator
from tools.benchmark import floors, loops, measurements, tasks
from tools.benchmark.subprocesses import Worker
from tools.benchmark.tasks import Loop, Mapping, Task
from tools.benchmark_accelerator import MAPPINGS, Line, Row, main, make_lines, measure_all

# Packages of the laboratory that an image for an accelerator may lack.
MISSING = [
    "tensorflow_datasets", "ml_collections", "PIL", "pyarrow", "matplotlib", "sklearn",
    "array_record", "submitit", "torch",
]  # fmt: skip
LINE = Line("lenet300", 2, "vmap/1", "default", "tensorfloat32")
ROW = Row(*LINE, 1.0, 1.0, 1.0, 1.0, 1.0)


def default_lines():
    return make_lines(
        ["lenet300", "conv2"], [], MAPPINGS, ["lax", "shifted"], ["float32", "tensorfloat32"]
    )


def test_an_interrupted_run_resumes_without_the_laboratorys_packages(tmp_path):
    """The line of one member is already in the table; no process can import `MISSING`."""
    for name in MISSING:
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('{name} is blocked')")
    alone = Row("lenet300", 1, "map/1", "default", "tensorfloat32", 1234.0, 1.0, 1.0, 1.0, 1.0)
    measurements.write(tmp_path / "table.csv", [alone])
    done = subprocess.run(
        [
            sys.executable, "-m", "tools.benchmark_accelerator", f"--table={tmp_path / 'table'}",
            "--networks=lenet300", "--members=1,2", "--mappings=vmap/1", "--steps=2",
            "--precisions=tensorfloat32", "--turns=1", "--axpy_size=1000",
        ],
        capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kept, row = measurements.read(tmp_path / "table.csv", Row)
    assert (kept, row.line) == (alone, LINE)
    assert row.speedup_over_one_member == pytest.approx(1234 / row.ms_per_member_step, rel=2e-3)
    assert row.bandwidth_ratio > 0 and row.peak_mb > 0 and row.compile_s > 0
    device, _, *printed, last = done.stdout.splitlines()
    assert device.startswith("cpu, ") and device.endswith(f"jax {jax.__version__}")
    table = benchmark_accelerator.markdown(tmp_path / "table.csv").splitlines()
    assert printed == table[:3]
    assert last.startswith("| lenet300 | 2 | vmap/1 | default | tensorfloat32 | ")


def test_the_first_lines_compare_one_member_with_the_largest_population():
    lines = default_lines()
    assert [line[:4] for line in lines[:6]] == [
        ("lenet300", 1, "map/1", "default"),
        ("lenet300", 256, "vmap/1", "default"),
        ("conv2", 1, "map/1", "lax"),
        ("conv2", 32, "vmap/1", "lax"),
        ("conv2", 1, "map/1", "shifted"),
        ("conv2", 32, "vmap/1", "shifted"),
    ]
    assert {line.precision for line in lines[:6]} == {"float32"}


def test_lines_are_all_mappings_that_differ():
    lines = default_lines()
    assert len(set(lines)) == len(lines)
    dense = [line for line in lines if line.network == "lenet300" and line.precision == "float32"]
    assert {count: {x.mapping for x in dense if x.members == count} for count in (1, 4, 16)} == {
        1: {"map/1"}, 4: {"vmap/1", "map/1"}, 16: {"vmap/1", "4xvmap/1", "map/1"},
    }  # fmt: skip
    assert {x.mapping for x in dense if x.members == 256} == set(MAPPINGS)
    for line in lines:
        alone = line._replace(members=1, mapping="map/1")
        assert lines.index(alone) <= lines.index(line), "the speedup would be unknown"


def test_a_line_out_of_memory_is_left_out(capsys):
    """A process that allocates a petabyte gets XLA's own error."""
    reported = []

    def measure_line(line):
        if line == LINE:
            Worker(1, floors.Axpy, 2**48)
        return ROW

    measure_all([LINE, LINE._replace(members=3)], measure_line, reported.append, seconds=60)
    assert reported == [ROW]
    [message] = capsys.readouterr().out.splitlines()
    assert message.startswith("lenet300 2 vmap/1 default tensorfloat32: skipped: ")
    assert "RESOURCE_EXHAUSTED" in message


def test_no_line_starts_after_the_time(capsys):
    measure_all([LINE, LINE], lambda _: pytest.fail("it started"), pytest.fail, seconds=0)
    assert capsys.readouterr().out == "the time is up: 2 lines are left\n"


def test_convolution_and_precision_reach_the_program(monkeypatch):
    seen = set()

    def spy(*args, **options):
        seen.add(jax.config.jax_default_matmul_precision)
        return lax.conv_general_dilated(*args, **options)

    monkeypatch.setitem(tasks.CONVOLUTIONS, "lax", spy)
    monkeypatch.setitem(NETWORKS, "conv2", Widths(pairs=(2,), hidden=(4,)))
    loop = Loop("lax", "tensorfloat32")
    loops.Population(Task("conv2", 1), 1, Mapping.parse("map/1"), loop)
    assert "tensorfloat32" in seen


def bytes_of(name, activations):
    task = Task(name, 1)
    params = jax.eval_shape(make_network(name, task.input_shape).init, jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return count * (4 * 4 + 2 * 4 + 2 * 8 + 1) + 3 * 4 * 60 * activations


def test_bytes_of_a_step_are_those_of_weights_and_of_what_is_kept():
    dense = 784 + 300 + 100
    assert tasks.step_bytes(Task("lenet300", 1)) == bytes_of("lenet300", dense)
    pixels = 32 * 32 * (3 + 64 + 64)  # inputs of two convolutions and of the pool
    kept = pixels + 16 * 16 * 64 + 256 + 256
    assert tasks.step_bytes(Task("conv2", 1)) == bytes_of("conv2", kept)


def test_the_bandwidth_is_of_axpys_that_are_all_done():
    axpy = floors.Axpy(1000)
    assert axpy.turn() > 0
    np.testing.assert_allclose(axpy._y, jnp.full(1000, 0.5 * floors.AXPYS))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--networks=lenet", "error: unknown network 'lenet'; did you mean 'lenet300'?"),
        ("--convolutions=fft", "error: unknown convolution 'fft'; known: canonical,"),
        ("--precisions=half", "error: unknown precision 'half'; known: default,"),
        ("--mappings=vmap/2", "error: mapping 'vmap/2' is not of one device."),
        ("--members=none", "error: --members has 'none', expected numbers of 1 or more."),
        ("--turns=0", "error: --turns is 1 or more and --steps 0 or more."),
    ],
)
def test_mistakes_get_one_line(argument, message, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        main([f"--table={tmp_path / 'table'}", argument])
    assert str(stopped.value).startswith(message)


def test_another_table_is_not_overwritten(tmp_path):
    (tmp_path / "table.csv").write_text("network,ms\n")
    with pytest.raises(SystemExit, match=r"table\.csv is not a table of this version"):
        main([f"--table={tmp_path / 'table'}"])
