"""Tickets of every runner, out of a run and into another; `test_starts` has the files of others."""

import json
import shutil
import sys
from importlib.util import find_spec

import jax
import numpy as np
import pytest

from experiments.runners import iterative
from experiments.runners.outcomes import densities
from experiments.runners.registry import RUNNERS, read_table
from experiments.storage import tickets
from supermask_jax import mask_files
from tests.experiments import command_lines, tiny
from tests.experiments.test_learned import forward

PARTS = ("mask", "start", "fill", "final")
# The accuracy of the final weights, which a row has of them; of copies it has none.
ACCURACY = {
    tiny.config: "final_test_accuracy",
    tiny.learned: "test_most_probable_accuracy",
    tiny.one_shot: "test_accuracy",
    tiny.at_init: "final_test_accuracy",
    tiny.connected: None,
}
needs_safetensors = pytest.mark.skipif(
    not find_spec("safetensors"), reason="the extra tickets is not installed"
)


def command(run, row, output, *flags):
    return "tools.ticket", str(run), f"--row={row['id']}", f"--output={output}", *flags


def take_out(run, row, output, *flags):
    """Run the program, and return its exit status and its lines."""
    end = command_lines.fork(*command(run, row, output, *flags))
    return end.returncode, (end.stdout + end.stderr).splitlines()


def last_row(make_config):
    return read_table(tiny.finished(make_config) / "results.csv")[-1]


@pytest.fixture(scope="module", params=ACCURACY, ids=lambda make: make.__name__)
def taken(request, tmp_path_factory):
    """The configuration of a runner, a row of its run, and the files of its ticket by format."""
    make_config, folder = request.param, tmp_path_factory.mktemp("tickets")
    run = tiny.finished(make_config)
    rows = read_table(run / "results.csv")
    row = rows[-3] if make_config is tiny.config else rows[-1]  # whose pruned weights are 0
    files = {"npz": folder / "new" / "a.npz"}
    if find_spec("safetensors"):
        files |= {name: folder / name for name in ("safetensors", "torch")}
    ends = command_lines.forks(
        [command(run, row, file, f"--format={name}") for name, file in files.items()]
    )
    assert [(end.returncode, end.stdout, end.stderr) for end in ends] == [
        (0, f"{file}\n", "") for file in files.values()
    ]
    return make_config, row, files


def in_npz(path):
    with np.load(path) as file:
        return {name: file[name] for name in file if name != "about"}, json.loads(
            str(file["about"])
        )


def layers(arrays, part):
    """Return the leaves of a part as a tree of two levels."""
    tree = {}
    for name, x in arrays.items():
        if name.startswith(f"{part}/"):
            _, layer, leaf = name.split("/")
            tree.setdefault(layer, {})[leaf] = x
    return tree


def test_the_ticket_of_a_row_of_every_runner(taken):
    make_config, row, files = taken
    arrays, about = in_npz(files["npz"])
    plan = RUNNERS[make_config().runner].make_plan(make_config())
    assert about["row"]["id"] == row["id"] and about["data"] == plan.problem.dataset.checksum()
    assert about["config"]["seeds"] == [row["seed"]] and "jax" in about["versions"]["packages"]
    mask, start, fill, final = (layers(arrays, part) for part in PARTS)
    assert len(arrays) == 4 * len(jax.tree.leaves(plan.problem.params))
    for tree in (start, fill, final):
        assert all(x.dtype == np.float32 for x in jax.tree.leaves(tree))
    kernels = [mask[layer]["kernel"] for layer in mask]
    if make_config is not tiny.learned:  # whose density is that of draws
        assert np.concatenate([x.ravel() for x in kernels]).mean() == row["density"]
    assert all(mask[layer]["bias"].all() for layer in mask)
    for layer in mask:
        kept = mask[layer]["kernel"]
        np.testing.assert_array_equal(final[layer]["kernel"][~kept], fill[layer]["kernel"][~kept])
        assert np.count_nonzero(start[layer]["kernel"]) > 0.9 * kept.size  # also where it prunes
    if ACCURACY[make_config]:
        test = plan.problem.dataset.test
        whole = {layer: {"kernel": np.ones_like(mask[layer]["kernel"])} for layer in mask}
        found = forward(final, whole, False, test.images).argmax(1) == test.labels
        assert found.mean() == pytest.approx(row[ACCURACY[make_config]], abs=2 / len(found))


def test_the_mask_alone(tmp_path):
    row, path = last_row(tiny.config), tmp_path / "ticket.mask"
    assert take_out(tiny.finished(), row, path, "--format=mask") == (0, [str(path)])
    plan = iterative.make_plan(tiny.config())
    mask = mask_files.load(path, plan.problem.params)
    assert densities(jax.tree.map(lambda x: x[None], mask), plan.problem.prunable) == [
        row["density"]
    ]
    assert mask_files.read(path).metadata["row"]["id"] == row["id"]


@pytest.fixture(scope="module")
def without_checkpoints(tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    shutil.copytree(tiny.finished(), run, dirs_exist_ok=True)
    shutil.rmtree(run / "checkpoints")
    return run


def test_a_row_without_a_checkpoint_is_computed_again(without_checkpoints, tmp_path):
    [row] = [
        row
        for row in read_table(without_checkpoints / "results.csv")
        if (row["variant"], row["seed"], row["round"]) == ("large_final", 1, 1)
    ]
    found = []
    for name, run in (("kept", tiny.finished()), ("again", without_checkpoints)):
        status, lines = take_out(run, row, tmp_path / f"{name}.npz", "--format=npz")
        assert status == 0
        found.append(in_npz(tmp_path / f"{name}.npz")[0])
    assert lines[-1].endswith(
        "has checkpoints of the rounds none, not of round 1; see keep_checkpoints. "
        "The row is computed again."
    )
    assert found[0].keys() == found[1].keys()
    for name, x in found[0].items():
        np.testing.assert_array_equal(x, found[1][name], name)


@needs_safetensors
@pytest.mark.parametrize("format", ["safetensors", "torch"])
def test_what_comes_out_goes_in(taken, format):
    _, _, files = taken
    expected, _ = in_npz(files["npz"])
    state = iterative.make_plan(tiny.config(start=str(files[format]))).ticket
    for part, tree in (("mask", state.mask), ("start", state.w_i), ("fill", state.fill)):
        for name, x in tickets.named(tree).items():
            np.testing.assert_array_equal(x, expected[f"{part}/{name}"], name)


@needs_safetensors
def test_the_same_row_gives_the_same_bytes(tmp_path):
    row = last_row(tiny.config)
    for name in ("a", "b"):
        assert take_out(tiny.finished(), row, tmp_path / name)[0] == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@needs_safetensors
def test_torch_gets_no_ticket_whose_pruned_weights_are_not_0(tmp_path):
    row = last_row(tiny.config)
    assert row["mask_zero"] == "freeze"
    status, lines = take_out(tiny.finished(), row, tmp_path / "t", "--format=torch")
    assert (status, len(lines)) == (1, 1)
    assert lines[0].startswith("error: pruned weights of dense1/kernel, dense2/kernel, output/ker")
    assert "write --format=safetensors or npz" in lines[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--row=f00", "--output=t"), "name the folder of one run."),
        (("a", "b", "--row=f00", "--output=t"), "name the folder of one run."),
        (("{run}", "--row=f00", "--output=t"), "no table in {run} has a row 'f00'."),
        (("nowhere", "--row=f00", "--output=t"), "no table in nowhere has a row 'f00': there"),
        (("{run}", "--row=f00"), "flag --output=None: Flag --output must have a value"),
        (("{run}", "--output=t"), "flag --row=None: Flag --row must have a value"),
        (("{run}", "--row=f00", "--output=t", "--format=pth"),
         "flag --format=pth: value should be one of <safetensors|mask|npz|torch>"),
    ],
)  # fmt: skip
def test_wrong_command_lines(words, message):
    run = str(tiny.finished())
    end = command_lines.fork("tools.ticket", *(word.format(run=run) for word in words))
    [line] = end.stderr.splitlines()
    assert end.returncode == 1 and line.startswith(f"error: {message.format(run=run)}")


@pytest.mark.parametrize("call", [lambda path: tickets.save(path, {}, {}), tickets.read])
def test_a_missing_package_is_named_with_its_extra(call, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    message = r"^tickets need safetensors, which is not installed: pip install -e '.\[tickets\]'$"
    with pytest.raises(ValueError, match=message):
        call(tmp_path / "ticket")


def test_a_row_that_diverged_is_named(tmp_path):
    ticket = tickets.Ticket(*[{"a": {"kernel": np.ones((2, 3), np.float32)}} for _ in PARTS])
    ticket.final["a"]["kernel"][1] = np.nan
    message = r"^row f00: 'final/a/kernel' \[2, 3\] has 3 of 6 values that are NaN or infinite; did"
    with pytest.raises(ValueError, match=message):
        tickets.check_finite("row f00", ticket)
