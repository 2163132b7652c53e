import importlib.util
import itertools
import multiprocessing
import os
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from experiments.problems.networks import NETWORKS, Widths, make_network
from tools import benchmark_accelerator
from tools.benchmark import floors, loops, measurements, tasks, torch_loops
from tools.benchmark.subprocesses import Worker
from tools.benchmark.tasks import Loop, Mapping, Task, step_bytes
from tools.benchmark_accelerator import (
    MAPPINGS,
    TORCH,
    Line,
    Row,
    _parser,
    _wanted,
    main,
    make_lines,
    measure_all,
    short_lines,
)

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
    assert [line[:4] for line in lines[:8]] == [
        ("lenet300", 1, "map/1", "default"),
        ("lenet300", 1, "torch", "default"),
        ("lenet300", 256, "vmap/1", "default"),
        ("conv2", 1, "map/1", "lax"),
        ("conv2", 1, "torch", "default"),
        ("conv2", 32, "vmap/1", "lax"),
        ("conv2", 1, "map/1", "shifted"),
        ("conv2", 32, "vmap/1", "shifted"),
    ]
    assert {line.precision for line in lines[:8]} == {"float32"}


def test_lines_are_all_mappings_that_differ():
    lines = default_lines()
    assert len(set(lines)) == len(lines)
    dense = [line for line in lines if line.network == "lenet300" and line.precision == "float32"]
    assert {count: {x.mapping for x in dense if x.members == count} for count in (1, 4, 16)} == {
        1: {"map/1", "torch"}, 4: {"vmap/1", "map/1", "torch.func"},
        16: {"vmap/1", "4xvmap/1", "map/1", "torch.func"},
    }  # fmt: skip
    assert {x.mapping for x in dense if x.members == 256} == {*MAPPINGS} - {"torch"}
    assert {x.convolution for x in lines if x.mapping in TORCH} == {"default"}
    for line in lines:
        assert lines.index(line.alone) <= lines.index(line), "the speedup would be unknown"


def test_the_short_list_has_every_line_once_and_the_most_informative_first():
    lines = short_lines()
    assert len(set(lines)) == len(lines) == 2 * (8 + 2 * (2 * 4 + 3))
    assert {(x.network, x.members) for x in lines} == {
        ("lenet300", 1), ("lenet300", 48), ("lenet300", 256), *itertools.product(
            ["conv2", "conv6"], [1, 8, 32]
        ),
    }  # fmt: skip
    assert {x.mapping for x in lines} == {"map/1", "vmap/1", "16xvmap/1", *TORCH}
    assert {x.precision for x in lines} == {"float32", "tensorfloat32"}
    first = [line[:4] for line in lines[:9]]
    assert first[:4] == [
        ("lenet300", 1, "map/1", "default"), ("lenet300", 1, "torch", "default"),
        ("lenet300", 256, "vmap/1", "default"), ("lenet300", 256, "torch.func", "default"),
    ]  # fmt: skip
    assert set(first[4:]) == {
        ("conv2", 1, "map/1", "lax"), ("conv2", 1, "torch", "default"),
        ("conv2", 8, "vmap/1", "lax"), ("conv2", 8, "torch.func", "default"),
        ("conv2", 8, "vmap/1", "shifted"),
    }  # fmt: skip


@pytest.mark.parametrize("flags", [["--short"], ["--mappings=torch,vmap/1", "--members=1"]])
def test_without_pytorch_its_lines_are_left_out(flags, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    lines = _wanted(_parser().parse_args(["--table=t", *flags]))
    assert lines and not {line.mapping for line in lines} & {*TORCH}
    assert capsys.readouterr().out == "PyTorch is not installed and is not compared\n"


def test_lines_of_pytorch_stand_in_the_same_table(tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    flags = "--networks=lenet300 --members=1,2 --mappings=torch.func,torch --precisions=float32"
    sizes = "--steps=1 --turns=1 --axpy_size=1000"
    main([f"--table={tmp_path / 'table'}", *flags.split(), *sizes.split()])
    rows = measurements.read(tmp_path / "table.csv", Row)
    assert [row[1:3] for row in rows] == [(1, "map/1"), (1, "torch"), (2, "torch.func")]
    alone, together = rows[1:]
    ratio = alone.ms_per_member_step / together.ms_per_member_step
    assert together.speedup_over_one_member == pytest.approx(ratio, rel=2e-3)
    assert (alone.speedup_over_one_member, alone.compile_s) == (1, 0)


@pytest.mark.parametrize("mapping", ["vmap/1", "torch", "torch.func"])
@pytest.mark.parametrize(("patience", "turns"), [(0, 1), (60, 3)])
def test_a_slow_line_takes_one_turn(mapping, patience, turns, monkeypatch):
    made, asked = [], iter([3.0, 1.0, 2.0])

    class Scripted:
        peak_mb, compile_s = 5.0, 7.0

        def __init__(self, *arguments):
            made.append(arguments)

        def turn(self):
            return next(asked)

        def ask(self, name):
            return getattr(self, name)

        def close(self):
            made.append("closed")

    monkeypatch.setattr(benchmark_accelerator, "Worker", Scripted)
    line = LINE._replace(mapping=mapping)
    row = benchmark_accelerator.measure(line, 10, 3, patience, 1e9, [])
    task, loop = Task("lenet300", 10), Loop("default", "tensorfloat32")
    ours = (1, loops.Population, task, 2, Mapping.parse("vmap/1"), loop)
    theirs = (1, torch_loops.Torch, task, None, 2, "tensorfloat32")
    assert made == [ours if mapping == "vmap/1" else theirs, "closed"]
    assert (row.line, row.ms_per_member_step) == (line, {1: 3.0, 3: 2.0}[turns])
    assert row.bandwidth_ratio == pytest.approx(row.ms_per_member_step * 1e6 / step_bytes(task))
    assert next(asked, None) == (1.0 if turns == 1 else None)


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


def test_the_line_that_runs_when_the_time_is_up_is_ended(capsys):
    def measure_line(line):
        Worker(1, time.sleep, 3600)

    measure_all([LINE, LINE], measure_line, pytest.fail, seconds=0.5)
    assert capsys.readouterr().out == "the time is up: 2 lines are left\n"
    assert not multiprocessing.active_children()


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
        ("--minutes=-1", "error: --minutes is -1.0, expected 0 or more."),
        ("--minutes=nan", "error: --minutes is nan, expected 0 or more."),
        ("--patience=-1", "error: --patience is -1.0, expected 0 or more."),
        ("--short --networks=conv2", "error: --short has lines of its own, expected no --networks"),
        ("--short --members=2", "error: --short has lines of its own, expected no --members besid"),
    ],
)
def test_mistakes_get_one_line(argument, message, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        main([f"--table={tmp_path / 'table'}", *argument.split()])
    assert str(stopped.value).startswith(message)


def test_another_table_is_not_overwritten(tmp_path):
    (tmp_path / "table.csv").write_text("network,ms\n")
    with pytest.raises(SystemExit, match=r"table\.csv is not a table of this version"):
        main([f"--table={tmp_path / 'table'}"])
