import csv
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.engine.objectives import make_loss
from experiments.problems import networks
from experiments.storage.files import read_json
from tests.experiments import command_lines
from tools import (
    benchmark_accelerator,
    benchmark_cycles,
    benchmark_estimates,
    benchmark_gradual,
    benchmark_pruning,
    benchmark_sizes,
    benchmark_versions,
)
from tools.benchmark import __main__ as benchmark
from tools.benchmark import floors, loops, measurements, tasks, torch_loops
from tools.benchmark.tasks import WHOLE_LOOP, Loop, Mapping, Task

LENET = Task("lenet300", 4)


def operations(products):
    return sum(2 * np.prod(product) * count for product, count in products.items())


def test_the_products_of_a_step_are_those_of_its_layers():
    dense = 784 * 300 * 2 + 300 * 100 * 3 + 100 * 10 * 3
    assert operations(tasks.training_products(LENET)) == 2 * 60 * dense
    images = 784 * 300 + 300 * 100 + 100 * 10
    assert operations(tasks.validation_products(LENET)) == pytest.approx(2 * 50 * images)
    layers = [(32 * 32, 27, 64, 2), (32 * 32, 576, 64, 3), (1, 16 * 16 * 64, 256, 3)]
    layers += [(1, 256, 256, 3), (1, 256, 10, 3)]
    expected = sum(2 * 60 * np.prod(layer) for layer in layers)
    assert operations(tasks.training_products(Task("conv2", 1))) == expected


@pytest.mark.parametrize("name", ["map/2", "vmap/1", "3xvmap/2"])
def test_every_mapping_trains_all_members(name):
    ours = loops.Population(LENET, 4, Mapping.parse(name))
    before = jax.device_get(ours._states)
    assert 0 < ours.turn() < 1e5 and ours.compile_s > 0 and ours.peak_mb >= 0
    after = jax.device_get(ours._states)
    assert (after.step - before.step == LENET.steps).all()
    assert np.isfinite(after.best_loss).all(), "validation was left out"
    kernels = before.params["dense1"]["kernel"], after.params["dense1"]["kernel"]
    assert ((kernels[0] == 0) == (kernels[1] == 0)).mean() > 0.99, "masked weights moved"
    assert (kernels[0] != kernels[1]).any(axis=(1, 2)).all()


def test_a_loop_without_its_parts_is_plain_descent_on_one_batch():
    loop = Loop(optimizer="sgd", gather=False, validate=False)
    ours = loops.Population(LENET, 1, Mapping.parse("map/1"), loop)
    states, context = jax.device_get((ours._states, ours._rest[0].context))
    params, mask = jax.tree.map(lambda x: x[0], (states.params, context["mask"]))
    batch = jax.tree.map(lambda x: x[:60], tasks.make_data(LENET)["train"]._asdict())
    loss = make_loss(networks.make_network("lenet300", (28, 28, 1)).apply)
    grad = jax.jit(jax.grad(lambda p: loss(p, batch, jax.random.key(0), {})[0]))
    for _ in range(LENET.steps):
        params = jax.tree.map(
            lambda p, m, g: p - loops.LEARNING_RATE * m * g, params, mask, grad(params)
        )
    ours.turn()
    after = jax.device_get(ours._states)
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a[0], e, rtol=1e-5, atol=1e-7), after.params, params
    )
    assert after.best_loss == 0, "it was validated"


def test_parts_are_compared_turn_by_turn(monkeypatch, tmp_path):
    """The simulated machine becomes slower by a factor of two between turns."""
    shares = {WHOLE_LOOP: 1.0, Loop(validate=False): 0.75, Loop(optimizer="sgd"): 0.5}

    class Scripted:
        def __init__(self, devices, kind, task, *arguments):
            self._share = shares.get(arguments[-1], 0.9) if kind is loops.Population else None
            self._ms = iter([10.0, 20.0, 40.0])

        def turn(self):
            ms = next(self._ms)
            return (0.25 * ms, 0.125 * ms) if self._share is None else self._share * ms

        def close(self):
            closed.append(self)

    closed = []
    monkeypatch.setattr(benchmark, "Worker", Scripted)
    rows = benchmark.measure_parts(LENET, 10, Mapping.parse("map/2"), turns=3)
    assert [row[:3] for row in rows] == [("lenet300", 10, "map/2")] * 5
    assert {row.part: row.ms_per_member_step for row in rows} == pytest.approx({
        "whole loop": 20, "without validation": 15, "SGD in place of Adam": 10,
        "one batch for all steps": 18, "matrix products alone": 7.5,
    })  # fmt: skip
    assert len(closed) == 5
    measurements.write(tmp_path / "parts.csv", rows)
    assert benchmark.markdown(tmp_path / "parts.csv").splitlines()[2:4] == [
        "| lenet300 | 10 | map/2 | whole loop | 20 | 1.00 |",
        "| lenet300 | 10 | map/2 | without validation | 15 | 0.75 |",
    ]


@pytest.mark.slow
def test_a_small_benchmark_of_parts_writes_its_table(tmp_path):
    done = command_lines.fork(
        "tools.benchmark", "--parts", "--networks=lenet300", "--members=1,2", "--mappings=map/2",
        "--steps=2", "--turns=1", f"--table={tmp_path / 'parts'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed, table = done.stdout, benchmark.markdown(tmp_path / "parts.csv")
    assert [x.split("|")[:5] for x in printed.splitlines()] == [
        x.split("|")[:5] for x in table.splitlines()
    ]
    rows = measurements.read(tmp_path / "parts.csv", benchmark.PartRow)
    assert [row.part for row in rows] == [*benchmark.LOOPS, benchmark.PRODUCTS]
    assert all(row.ms_per_member_step > 0 and row.members == 2 for row in rows)


def test_the_floor_times_training_and_validation(monkeypatch):
    monkeypatch.setattr(floors, "MIN_SECONDS", 1e-4)
    training, validation = floors.Floor(LENET, 1).turn()
    assert 0 < training < 1e3 and 0 < validation < 1e3


def in_pytorch(name, params):
    """Return the kernels and biases of a network, in turn, as PyTorch has them."""
    for own in params.values():
        kernel = np.asarray(own["kernel"])
        if kernel.ndim == 2 and name == "conv2" and len(kernel) == 16 * 16 * 64:
            kernel = kernel.reshape(16, 16, 64, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
        yield kernel.T if kernel.ndim == 2 else kernel.transpose(3, 2, 0, 1)
        yield np.asarray(own["bias"])


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("name", ["lenet300", "conv2"])
def test_pytorch_does_the_same_step(name, members):
    """The same weights and the same batch give the same loss and the same gradient."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    task = Task(name, 1)
    reference = torch_loops.Torch(task, 1, members)
    network = networks.make_network(name, task.input_shape)
    params = [network.init(jax.random.key(seed)) for seed in range(members)]
    converted = zip(*(in_pytorch(name, own) for own in params), strict=True)
    nets = reference._nets
    with torch.no_grad():
        for p, leaves in zip(nets.params, converted, strict=True):
            p.copy_(torch.tensor(np.stack(leaves)).reshape(p.shape))
    batch = jax.tree.map(lambda x: x[:60], tasks.make_data(task)["train"]._asdict())
    loss = jax.jit(jax.value_and_grad(make_loss(network.apply), has_aux=True))
    found = [loss(own, batch, jax.random.key(0), {}) for own in params]
    images, labels = reference._images[:60], reference._labels[:60]
    losses = nets.losses(images, labels).detach()
    np.testing.assert_allclose(losses, [value for (value, _), _ in found], rtol=1e-4)
    nets.set_gradients(images.expand(members, *images.shape), labels.expand(members, 60))
    squares = [(p.grad.reshape(members, -1) ** 2).sum(1) for p in nets.params]
    ours = zip(*(in_pytorch(name, grads) for _, grads in found), strict=True)
    expected = [[np.sum(leaf**2) for leaf in leaves] for leaves in ours]
    np.testing.assert_allclose(squares, expected, rtol=1e-3)


@pytest.mark.parametrize("members", [1, 3])
def test_pytorch_trains_under_masks_and_keeps_the_best(members):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    reference = torch_loops.Torch(LENET, 1, members)
    start = [p.detach().clone() for p in reference._nets.params]
    assert 0 < reference.turn() < 1e5 and reference.peak_mb >= 0 and reference.compile_s == 0
    trained = [p.detach().clone() for p in reference._nets.params]
    for weight, mask in reference._masked:
        assert 0.4 < mask.mean() < 0.6 and (weight[mask == 0] == 0).all()
    moved = (trained[0] != start[0]).reshape(members, -1)
    assert moved.any(1).all()
    assert all(map(torch.equal, reference._best, start)), "a turn begins with its validation"
    reference._best_loss = torch.tensor([float("inf"), 0.0, 0.0][:members])
    reference.turn()
    for best, before, after in zip(reference._best, start, trained, strict=True):
        shape = (members, -1)
        best, before, after = best.reshape(shape), before.reshape(shape), after.reshape(shape)
        assert torch.equal(best[0], after[0]) and torch.equal(best[1:], before[1:])


@pytest.mark.parametrize("precision", ["default", "float32", "tensorfloat32"])
def test_precision_reaches_pytorch(precision):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    try:
        torch_loops.Torch(LENET, 1, 1, precision)
        allowed = [switch.allow_tf32 for switch in switches]
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value
    chosen = {"float32": [False, False], "tensorfloat32": [True, True]}
    assert allowed == chosen.get(precision, before)


def test_a_small_benchmark_writes_its_table_and_figure(tmp_path):
    done = command_lines.fork(
        "tools.benchmark", "--networks=lenet300", "--members=2", "--mappings=map/1", "--steps=2",
        "--turns=1", "--notorch", f"--table={tmp_path / 'small'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [machine] = read_json(tmp_path / "small.environment.json")
    assert machine["processor"] and machine["packages"]["jax"]
    with (tmp_path / "small.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    assert list(row) == list(benchmark.Row._fields)
    assert (row["network"], row["members"], row["mapping"]) == ("lenet300", "2", "map/1")
    assert float(row["ms_per_member_step"]) > 0 and row["torch_ratio"] == "nan"
    assert (tmp_path / "small.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_on_performance_has_the_committed_tables():
    root = Path(__file__).parents[2]
    page = (root / "docs" / "performance.md").read_text()
    programs = {
        "benchmark": benchmark,
        "benchmark_accelerator": benchmark_accelerator,
        "benchmark_cycles": benchmark_cycles,
        "benchmark_estimates": benchmark_estimates,
        "benchmark_gradual": benchmark_gradual,
        "benchmark_pruning": benchmark_pruning,
        "benchmark_sizes": benchmark_sizes,
        "benchmark_versions": benchmark_versions,
    }
    commands = re.findall(r"`python -m tools\.(\w+) [^`]*--table=(results/\w+)[^`]*`", page)
    files = root.glob("results/benchmark*.csv")
    committed = {path.stem for path in files if "." not in path.stem}
    assert {table.removeprefix("results/") for _, table in commands} == committed
    assert len(committed) >= 2
    for program, table in commands:
        assert programs[program].markdown(root / f"{table}.csv") in page


MISTAKES = {
    "--networks=lenet": "error: unknown network 'lenet'; did you mean 'lenet300'? known: conv2",
    "--members=0": "error: --members has '0', expected numbers of 1 or more.",
    "--mappings=all": "error: mapping 'all' is not map/D, vmap/D or kxvmap/D.",
    "--mappings=map": "error: mapping 'map' needs a number of devices after its slash.",
}


@pytest.fixture(scope="module")
def answers():
    commands = [("tools.benchmark", flag) for flag in MISTAKES]
    return dict(zip(MISTAKES, command_lines.answers(commands), strict=True))


@pytest.mark.parametrize("flag", MISTAKES)
def test_mistakes_get_one_line(answers, flag):
    status, output = answers[flag]
    assert status == 1 and output.startswith(MISTAKES[flag])
    assert len(output.splitlines()) == 1
