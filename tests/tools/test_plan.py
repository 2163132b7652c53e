import importlib.util
import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from experiments.configs import mask_criteria
from experiments.datasets import Dataset, Split
from experiments.engine.work import Program, Work
from experiments.runners.registry import find_runner
from supermask_jax import population
from tests.bad_input import check_one_line
from tools.plan import estimate, hlo, slices

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed for this machine"
)


def operation(cycles, kind="add", arguments="%x, %x", name="sum", more=""):
    config = f'backend_config={{"window_config":{{"estimated_cycles":"{cycles}"}}}}'
    return f"  %{name} = f32[8]{{0}} {kind}({arguments}){more}, {config}"


def computation(name, *lines, head="%"):
    return "\n".join([f"{head}{name} (p: f32[8]) -> f32[8] {{", *lines, "}", ""])


def counting(name, limit):
    """The condition of a loop that counts to a constant."""
    return computation(
        name,
        f"  %limit = s32[] constant({limit})",
        "  %i = s32[] get-tuple-element(%p), index=0",
        "  ROOT %lt = pred[] compare(%i, %limit), direction=LT",
    )


def unknown(name):
    """The condition of a loop whose turns the program does not say."""
    return computation(
        name,
        "  %i = s32[] get-tuple-element(%p), index=0",
        "  %n = s32[] get-tuple-element(%p), index=1",
        "  ROOT %lt = pred[] compare(%i, %n), direction=LT",
    )


X = "  %x = f32[8]{0} parameter(0)"


def loop(condition, body, name="loop"):
    return f"  %{name} = f32[8]{{0}} while(%x), condition=%{condition}, body=%{body}"


NESTED = "".join(
    (
        counting("to_5", 5),
        unknown("open"),
        computation("step", X, operation(7)),
        computation("scan", X, operation(11)),
        computation(
            "evaluation", X, operation(100), loop("to_5", "scan", "a"), loop("open", "step")
        ),
        computation("main", X, operation(1000), loop("open", "evaluation"), head="ENTRY %"),
    )
)


@pytest.mark.parametrize(
    ("turns", "cycles"),
    [
        ((), 1000 + 100 + 5 * 11 + 7),
        ((0,), 1000),
        ((1, 0), 1000 + 100 + 5 * 11),
        ((3, 20), 1000 + 3 * (100 + 5 * 11 + 20 * 7)),
    ],
)
def test_cycles_are_counted_as_often_as_loops_turn(turns, cycles):
    assert hlo.Program(NESTED).cost(turns).cycles == cycles


@pytest.mark.parametrize("direction", ["GT", "NE"])
def test_a_loop_until_nothing_is_left_does_not_say_its_turns(direction):
    """As that of the selection of the highest scores, which compares with 0."""
    condition = counting("left", 0).replace("LT", direction)
    text = condition + computation("step", X, operation(7))
    text += computation("main", X, loop("left", "step"), head="ENTRY %")
    assert hlo.Program(text).cost((16,)).cycles == 16 * 7


def test_a_limit_outside_the_condition_is_found():
    condition = unknown("handed_on")
    start = "  %zero = s32[] constant(0)\n  %six = s32[] constant(6)\n"
    start += "  %start = (s32[], s32[]) tuple(%zero, %six)"
    whole = loop("handed_on", "step").replace("while(%x)", "while(%start)")
    text = condition + computation("step", X, operation(7))
    text += computation("main", start, whole, head="ENTRY %")
    assert hlo.Program(text).cost((99,)).cycles == 6 * 7


def test_a_call_counts_and_of_a_conditional_the_costliest_branch():
    text = computation("cheap", X, operation(3)) + computation("dear", X, operation(30))
    text += computation(
        "main",
        X,
        "  %a = f32[8]{0} conditional(%x, %x, %x), branch_computations={%cheap, %dear}",
        "  %b = f32[8]{0} call(%x), to_apply=%cheap",
        head="ENTRY %",
    )
    assert hlo.Program(text).cost().cycles == 30 + 3


def moved(*lines, before=""):
    text = before + computation("main", *lines, head="ENTRY %")
    return hlo.Program(text).cost().bytes


def test_bytes_are_those_of_operands_and_results():
    x = "  %x = f32[10,3]{1,0} parameter(0)"
    assert moved(x, "  %y = bf16[10,3]{1,0} convert(%x)") == 120 + 60


def test_tiles_are_padded_and_onchip_memory_is_free():
    x = "  %x = f32[16,300,100]{2,1,0:T(8,128)} parameter(0)"
    whole, padded = "f32[16,300,100]{2,1,0:T(8,128)S(1)}", 4 * 16 * 304 * 128
    assert moved(x, f"  %y = {whole} negate(%x)") == padded
    assert moved(x, "  %y = f32[16,300,100]{1,2,0:T(8,128)} copy(%x)") == padded + (
        4 * 16 * 104 * 384
    )


def test_an_asynchronous_copy_moves_what_it_copies():
    x = "  %x = f32[16,128]{1,0} parameter(0)"
    shape = "((f32[16,128]{1,0}), f32[4,128]{1,0:S(1)}, s32[]{:S(2)})"
    assert moved(x, f"  %y = {shape} slice-start(%x), slice={{[0:4], [0:128]}}") == 4 * 4 * 128
    shape = "(f32[16,128]{1,0:S(1)}, f32[16,128]{1,0}, u32[])"
    assert moved(x, f"  %y = {shape} copy-start(%x)") == 4 * 16 * 128


def test_a_slice_of_an_operand_counts_alone():
    inside = computation(
        "fused",
        "  %p = f32[1000,128]{1,0} parameter(0)",
        "  %i = s32[] parameter(1)",
        "  ROOT %part = f32[2,128]{1,0} dynamic-slice(%p, %i, %i), dynamic_slice_sizes={2,128}",
    )
    lines = ["  %x = f32[1000,128]{1,0} parameter(0)", "  %n = s32[] parameter(1)"]
    call = "  %y = f32[2,128]{1,0} fusion(%x, %n), kind=kLoop, calls=%fused"
    assert moved(*lines, call, before=inside) == 2 * 1024 + 4


def test_an_update_writes_its_part_alone():
    inside = computation(
        "fused",
        "  %p = f32[1000,128]{1,0} parameter(0)",
        "  %part = f32[1,128]{1,0} parameter(1)",
        "  %i = s32[] parameter(2)",
        "  ROOT %new = f32[1000,128]{1,0} dynamic-update-slice(%p, %part, %i, %i)",
    )
    lines = [
        "  %x = f32[1000,128]{1,0} parameter(0)",
        "  %u = f32[1,128]{1,0} parameter(1)",
        "  %n = s32[] parameter(2)",
    ]
    call = "  %y = f32[1000,128]{1,0} fusion(%x, %u, %n), kind=kLoop, calls=%fused"
    assert moved(*lines, call, before=inside) == 512 + 512 + 4


@pytest.mark.parametrize("name", ["all-reduce", "all-gather-start", "collective-permute"])
def test_collectives_are_found(name):
    text = computation("main", X, f"  %y = f32[8]{{0}} {name}(%x), channel_id=1", head="ENTRY %")
    assert hlo.Program(text).collectives == 1
    assert hlo.Program(NESTED).collectives == 0


def mnist_sized(folder):
    """A data set of the size of MNIST."""

    def blank(count):
        return Split(np.zeros((count, 28, 28, 1), np.uint8), np.arange(count, dtype=np.int32) % 10)

    return Dataset("mnist_sized", blank(55_000), blank(5_000), blank(10_000), 10)


def work_for(where, seeds, **changes):
    config = mask_criteria.get_config("lenet300")
    config.update(dataset=f"{__name__}:mnist_sized", seeds=tuple(seeds), **changes)
    runner = find_runner(config)
    return runner.work(runner.make_plan(config, devices=where.devices))


@needs_libtpu
def test_lenet300_is_planned_for_one_chip_and_for_256():
    found = []
    for name, seeds in (("v5e:1x1", range(2)), ("v5e:16x16", range(512))):
        where = slices.find(name)
        plan = estimate.estimate(work_for(where, seeds=seeds, num_rounds=0), where)
        assert len(where.devices) == where.chips == len(seeds) // 2
        assert plan.programs == () and plan.chip_hours == plan.hours * where.chips
        found += plan.trainings
    one, many = found
    assert (one.members, many.members) == (2, 512)
    assert one.members_per_device == many.members_per_device == 2
    assert one.groups == many.groups == 1
    assert one.collectives == many.collectives == 0
    # Each device does the same work.
    assert many.cycles == pytest.approx(one.cycles, rel=0.05)
    assert 0 < one.hours <= many.hours  # which has the batches of more seeds
    assert 5_000 < one.cycles < 60_000
    # Weights and two moments, best weights and mask, for two members, beside the data.
    assert 54e6 < one.memory < 1e9
    assert one.operations == pytest.approx(2 * 60 * (2 * 235_200 + 3 * 31_000), rel=1e-6)


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize("name", ["v4:2x2x1", "v5p:2x2x1", "v6e:4x4", "tpu7x:2x2x1"])
def test_lenet300_is_planned_for_other_chips(name):
    where = slices.find(name)
    plan = estimate.estimate(work_for(where, seeds=range(5), num_rounds=1), where)
    per_chip = 2 if name == "tpu7x:2x2x1" else 1
    assert len(where.devices) == per_chip * where.chips
    assert [part.collectives for part in plan.trainings] == [0, 0]
    assert len(plan.programs) == 9 + 1
    assert 0 < plan.hours < 1


@needs_libtpu
@pytest.mark.slow
def test_what_does_not_fit_trains_in_groups():
    where = slices.find("v5e:1x1")
    [whole] = estimate.estimate(work_for(where, seeds=range(40), num_rounds=0), where).trainings
    small = where._replace(memory=whole.memory - 1)
    plan = estimate.estimate(work_for(where, seeds=range(40), num_rounds=0), small)
    [dense] = plan.trainings
    assert whole.groups == 1 < dense.groups and dense.memory <= small.memory
    with pytest.raises(MemoryError, match="members at a time"):
        tiny = where._replace(memory=1_000_000)
        estimate.estimate(work_for(where, seeds=range(1), num_rounds=0), tiny)


@needs_libtpu
def test_a_program_that_does_not_fit_is_one_line():
    where = slices.find("v5e:1x1")
    large = jax.ShapeDtypeStruct(
        (10**10,), np.float32, sharding=SingleDeviceSharding(where.devices[0])
    )
    program = Program("add one", lambda: jax.jit(lambda x: x + 1).lower(large), 1)
    with pytest.raises(MemoryError, match="'add one' takes more memory") as caught:
        estimate.estimate(Work((), (program,)), where)
    check_one_line(caught.value)


@needs_libtpu
@pytest.mark.parametrize(
    ("name", "clock", "memory"),
    [
        ("v4:2x2x1", 1.05e9, 34e9), ("v5e:4x4", 1.5e9, 17e9), ("v5p:2x2x1", 1.75e9, 103e9),
        ("v6e:8x8", 1.75e9, 34e9), ("tpu7x:2x2x1", 2.2e9, 103e9),
    ],
)  # fmt: skip
def test_a_slice_knows_its_chips(name, clock, memory):
    where = slices.find(name)
    assert where.chips == np.prod([int(n) for n in re.findall(r"\d+", name.partition(":")[2])])
    assert where.clock == pytest.approx(clock, rel=0.01)
    assert where.memory == pytest.approx(memory, rel=0.02)
    assert {device.platform for device in where.devices} == {"tpu"}


@needs_libtpu
@pytest.mark.parametrize("name", ["v5e:2x2", "v6e:2x4", "tpu7x:2x2x1"])
def test_any_number_of_devices_trains_a_population(name):
    """A host with more chips than members uses some of them, which need not form a box."""
    devices = slices.find(name).devices
    for count in range(1, len(devices) + 1):
        assert list(population.make_mesh(devices[:count]).devices) == list(devices[:count])


def test_without_libtpu_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[plan\]'") as caught:
        slices.find("v5e:2x2")
    check_one_line(caught.value)


@needs_libtpu
@pytest.mark.parametrize(
    "name", ["v5e", "v5e:3x3", "v9:2x2", "v9:1x1", "", "5", "v5e:2x2:1", "v5e:axb"]
)
def test_an_unknown_slice_is_one_line(name):
    with pytest.raises(ValueError, match="is no slice, expected v4:2x2x1") as caught:
        slices.find(name)
    check_one_line(caught.value)


# The command line with a compiler that says what we tell it.
PRETENDED = """
import sys
import jax
from tools.plan import __main__ as program
from tools.plan.estimate import Estimate, OfProgram, OfTrainings

def find(name):
    return program.Slice(name, jax.devices()[:1], 1, 16_000_000_000, 1e9)

def estimate(work, where):
    if where.name == "v4:2x2x1":
        raise MemoryError("the states take more.")
    numbers = [1_234_567.0, 8.0, 3.0, 987_654.0, 0, [(5.0, "add")], 1.0]
    training = OfTrainings("networks", 1, 2, 2, 2, 1, 4_000_000_000, 0, *numbers, 150.0)
    return Estimate(where, (training,), (OfProgram("score", 3, 10**9, 7_654_321.0, 1.0, 0.0),))

program.slices.find, program.estimate = find, estimate
program.run_program(program.main)
"""


@pytest.mark.parametrize("asked", [[], ["--compare=v5e:2x2,v5e:4x4"], ["--json"]], ids=str)
def test_a_plan_prints_every_digit(asked):
    config = "--config=experiments/configs/mask_criteria.py:lenet300,tiny"
    done = subprocess.run(
        [sys.executable, "-c", PRETENDED, config, "--topology=v5e:4x4", *asked],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    if asked == ["--json"]:
        [plan] = json.loads(done.stdout)
        assert (plan["topology"], plan["hours"], plan["chip_hours"]) == ("v5e:4x4", 150, 150)
        assert plan["trainings"][0]["costliest"] == [[5.0, "add"]]
        return
    assert "1,234,567" in done.stdout and "4.00 (25%)" in done.stdout
    for words in ("v5e:2x2",) if asked else ("7,654,321", "about 150 hours, 150.00 chip-hours"):
        assert words in done.stdout
    # A slice that is named twice is planned once.
    assert done.stdout.count("v5e:4x4") == 1


@pytest.mark.parametrize(
    ("slices_asked", "line", "status"),
    [
        (["v4:2x2x1"], "error: on v4:2x2x1, the states take more.", 1),
        (["v5e:4x4", "--compare=v4:2x2x1"], "on v4:2x2x1, the states take more.", 0),
    ],
    ids=str,
)
def test_a_slice_that_does_not_hold_a_sweep_is_one_line(slices_asked, line, status):
    config = "--config=experiments/configs/mask_criteria.py:lenet300,tiny"
    first, *more = slices_asked
    done = subprocess.run(
        [sys.executable, "-c", PRETENDED, config, f"--topology={first}", *more],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stderr.strip(), done.returncode) == (line, status)
    assert ("v5e:4x4" in done.stdout) == (status == 0)
