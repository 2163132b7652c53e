"""Runs that start from a ticket, and files of strangers that are refused in one line."""

import dataclasses
import io
import pickle
import re
import shlex
import zipfile

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments.runners import iterative, one_shot, starts
from experiments.runners.outcomes import abstract_outcome
from experiments.runners.registry import RUNNERS
from experiments.storage import run_folder, tickets
from experiments.storage.checkpoints import Checkpoints
from supermask_jax.interop import from_torch, to_torch
from tests.bad_input import ROOT, check_one_line
from tests.experiments import tiny

safetensors = pytest.importorskip("safetensors.numpy", reason="the extra tickets is missing")

SHAPES = {"dense1": (64, 300), "dense2": (300, 100), "output": (100, 10)}
KEPT = {"dense1": 0.5, "dense2": 0.25, "output": 0.75}
RATES = {"dense1": 0.2, "dense2": 0.2, "output": 0.1}


def arrays(seed=0):
    """A ticket by NumPy, whose pruned weights are partly frozen."""
    rng, found = np.random.default_rng(seed), {}
    for layer, shape in SHAPES.items():
        kept = rng.random(shape) < KEPT[layer]
        weights = rng.normal(0, shape[0] ** -0.5, shape).astype(np.float32)
        for leaf, mask, start in (
            ("kernel", kept, weights),
            ("bias", np.ones(shape[1], bool), np.zeros(shape[1], np.float32)),
        ):
            found[f"mask/{layer}/{leaf}"] = mask
            found[f"start/{layer}/{leaf}"] = start
            found[f"fill/{layer}/{leaf}"] = np.where(mask, 0, start / 2).astype(np.float32)
    return found


@pytest.fixture
def ticket(tmp_path):
    """Write a ticket with some arrays changed, without some, or cut; return its path as text."""

    def ticket(changes=None, without="none", name="ticket.safetensors", seed=0):
        found = arrays(seed) | (changes or {})
        found = {key: x for key, x in found.items() if not key.startswith(without)}
        (tmp_path / name).write_bytes(safetensors.save(found))
        return str(tmp_path / name)

    return ticket


def kept_after(rounds):
    """The weights that rounds leave of the masks, by hand."""
    left = 0
    for layer, rate in RATES.items():
        kept = int(arrays()[f"mask/{layer}/kernel"].sum())
        for _ in range(rounds):
            kept -= int(rate * kept + 1e-9)
        left += kept
    return left


WHOLE = sum(np.prod(shape) for shape in SHAPES.values())


def test_an_iterative_run_starts_from_a_ticket(ticket, tmp_path):
    config = tiny.config(start=ticket(), num_rounds=1, variants=("large_final",))
    rows = tiny.run(tmp_path / "run", config)
    plan = iterative.make_plan(config)
    folder = run_folder.existing(tmp_path / "run")
    checkpoints = Checkpoints(folder.below("checkpoints"), keep=2)
    first, second = (checkpoints.load(r, abstract_outcome(plan, r)) for r in (0, 1))
    expected = arrays()
    for seed in (0, 1):
        for part, tree in zip(("start", "fill", "mask"), first.state, strict=True):
            for name, x in tickets.named(tree).items():
                np.testing.assert_array_equal(x[seed], expected[f"{part}/{name}"], name)
    for name, x in tickets.named(first.w_f).items():
        assert (x[0] != x[1]).any()  # the batches differ
        pruned = ~expected[f"mask/{name}"]
        np.testing.assert_array_equal(x[0][pruned], expected[f"fill/{name}"][pruned], name)
    for name, mask in tickets.named(second.state.mask).items():
        assert not (mask & ~expected[f"mask/{name}"]).any()
    assert [row["density"] for row in rows] == [kept_after(row["round"]) / WHOLE for row in rows]
    assert {row["round"] for row in rows} == {0, 1}


def test_layers_that_are_ranked_together_go_on_from_the_mask(ticket):
    config = tiny.rewound(start=ticket(), rewind_step=0, least=2000)
    counts = iterative.make_plan(config).scope.counts
    ranked = sum(int(arrays()[f"mask/{layer}/kernel"].sum()) for layer in ("dense1", "dense2"))
    assert [counts(round) for round in range(3)] == [
        ranked, ranked - ranked // 2, ranked - ranked // 2 - (ranked - ranked // 2) // 2
    ]  # fmt: skip


def test_one_shot_masks_go_on_from_a_ticket(ticket, tmp_path):
    config = tiny.one_shot(start=ticket(), weights=("init",), retrain_power=-1)
    rows = tiny.run(tmp_path, config)
    assert {(row["power"], row["density"]) for row in rows} == {
        (power, kept_after(power) / WHOLE) for power in (0, 2)
    }
    plan, folder = one_shot.make_plan(config), run_folder.existing(tmp_path)
    for row in rows:
        found = one_shot.ticket(plan, folder, row)
        for name, mask in tickets.named(found.mask).items():
            assert not (mask & ~arrays()[f"mask/{name}"]).any()
        for name, start in tickets.named(found.start).items():
            np.testing.assert_array_equal(start, arrays()[f"start/{name}"])
    whole = [row["test_accuracy"] for row in rows if row["power"] == 0]
    assert len(set(whole)) == 1  # the ticket itself, whatever the criterion and the seed


def test_without_a_ticket_nothing_is_recorded():
    plan = iterative.make_plan(tiny.config())
    assert plan.ticket is None
    assert not {name for name in plan.config.recorded() if name.startswith("start")}


@pytest.mark.parametrize("make_config", [tiny.config, tiny.one_shot])
def test_a_run_is_bound_to_the_content_and_not_to_the_place(make_config, ticket, tmp_path):
    make_plan = RUNNERS[make_config().runner].make_plan
    first, moved, other = (
        make_plan(make_config(start=ticket(name=name, seed=seed))).config
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first.of_a_member() == moved.of_a_member() != other.of_a_member()
    run_folder.open_workdir(str(tmp_path / "run"), first.recorded())
    (tmp_path / "run" / "parts").mkdir()  # it has begun
    run_folder.open_workdir(str(tmp_path / "run"), moved.recorded())
    with pytest.raises(ValueError, match=r"holds a run with other settings .start_sha256: '"):
        run_folder.open_workdir(str(tmp_path / "run"), other.recorded())


def refuse(path, pattern, make_config=tiny.config, **changes):
    with pytest.raises((ValueError, OSError), match=re.escape(f"config.start: {path}")) as caught:
        iterative.make_plan(make_config(start=str(path), **changes))
    check_one_line(caught.value)
    assert re.search(pattern, str(caught.value)), caught.value


K, T = "start/dense1/kernel", "mask/dense1/kernel"
NAN = np.where(np.arange(64 * 300).reshape(64, 300) == 7, np.nan, 1).astype(np.float32)
OTHER = "; it is the ticket of another network.$"
MISSING = rf"has no '{K}' \[64, 300\]{OTHER}"


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({K: arrays()[K].T.copy()}, rf"'{K}' \[300, 64\] where .* \[64, 300\]{OTHER}"),
        ({K: arrays()[K].reshape(300, 64)}, rf"'{K}' \[300, 64\] where .* \[64, 300\]{OTHER}"),
        ({T: arrays()[T].ravel()}, rf"'{T}' \[19200\] where this network has \[64, 300\]{OTHER}"),
        ({K: NAN}, rf"'{K}' \[64, 300\] has 1 of 19200 values that are NaN or infinite"),
        ({"fill/dense1/kernel": NAN}, r"'fill/dense1/kernel' \[64, 300\] has 1 of 19200 values"),
        ({K: np.full((64, 300), 1e300)}, rf"'{K}' \[64, 300\] has 19200 of 19200 values that are"),
        ({K: np.ones((64, 300), np.int32)}, rf"'{K}' \[64, 300\] has dtype int32, expected floats"),
        ({T: np.full((64, 300), 0.5)}, rf"mask of leaf '{T}' \[64, 300\] has 19200 values other"),
        ({T: np.full((64, 300), np.nan)}, rf"mask of leaf '{T}' \[64, 300\] has 19200 values oth"),
        ({T: np.full((64, 300), 2, np.uint8).view(bool)}, rf"'{T}' \[64, 300\] has bytes above 1"),
        ({"start/dense9/kernel": np.ones(3, np.float32)},
         rf"has 'start/dense9/kernel' \[3\], which this network lacks{OTHER}"),
        ({"last/a": np.ones(3, np.float32)}, rf"has 'last/a' \[3\], which .* lacks{OTHER}"),
    ],
)  # fmt: skip
def test_a_wrong_leaf_is_named(ticket, changes, pattern):
    refuse(ticket(changes), pattern)


@pytest.mark.parametrize("without", [K, "start/", "start/dense1"])
def test_a_leaf_that_is_missing_is_named(ticket, without):
    refuse(
        ticket(without=without), MISSING.replace("kernel", "(kernel|bias)").replace("64, ", ".*")
    )


def test_masks_of_numbers_and_weights_of_other_types_are_read(ticket):
    changes = {T: arrays()[T].astype(np.uint8), K: arrays()[K].astype(np.float64)}
    found = iterative.make_plan(tiny.config(start=ticket(changes, without="fill/"))).ticket
    np.testing.assert_array_equal(found.mask["dense1"]["kernel"], arrays()[T])
    np.testing.assert_array_equal(found.w_i["dense1"]["kernel"], arrays()[K])
    assert found.w_i["dense1"]["kernel"].dtype == np.float32
    assert not any(x.any() for x in jax.tree.leaves(found.fill))


def test_a_ticket_of_another_network_is_refused(ticket):
    refuse(
        ticket(),
        rf"has no 'mask/conv1/bias' \[64\]{OTHER}",
        network="conv2",
        rates=(("conv.*/kernel", 0.1),),
    )


@pytest.mark.parametrize("share", [0, 0.00001, 0.001, 0.5, 0.999999])
def test_a_truncated_file_is_refused(ticket, share, tmp_path):
    whole = (tmp_path / ticket()).read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(whole[: int(share * len(whole))])
    refuse(path, "is damaged, or no file of safetensors, as python -m tools.ticket writes ")


def test_a_file_with_any_byte_changed_is_read_or_refused_in_one_line(ticket, tmp_path):
    params = iterative.make_plan(tiny.config()).problem.params
    whole, path = bytearray((tmp_path / ticket()).read_bytes()), tmp_path / "changed"
    rng, refused = np.random.default_rng(0), 0
    for place in rng.integers(0, 1200, 100):
        changed = whole.copy()
        changed[place] = rng.integers(256)
        path.write_bytes(changed)
        try:
            tickets.from_arrays(path, tickets.read(path), params)
        except ValueError as error:
            check_one_line(error)
            assert str(error).startswith(str(path))
            refused += 1
    assert refused > 50


def npz():
    file = io.BytesIO()
    np.savez(file, **arrays())
    return file.getvalue()


def pth():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}))
    return file.getvalue()


@pytest.mark.parametrize("content", [npz(), b"", b"x" * 100, b"{}", b"\x00" * 8])
def test_other_formats_are_refused(content, tmp_path):
    path = tmp_path / "ticket.safetensors"
    path.write_bytes(content)
    refuse(path, "is damaged, or no file of safetensors")


@pytest.mark.parametrize("content", [pth(), pickle.dumps(Ellipsis, 2), pickle.dumps({"a": 1})])
@pytest.mark.parametrize("name", ["net.pth", "my net.bin"])
def test_a_pickle_is_refused_with_the_command_that_converts_it(content, name, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    refuse(path, "is a pickle, which may run code; convert it where torch is: python -c ")
    with pytest.raises(ValueError) as caught:
        tickets.read(path)
    words = shlex.split(str(caught.value).partition("torch is: ")[2])
    assert words[:2] == ["python", "-c"] and "weights_only=True" in words[2]
    compile(words[2], "command", "exec")
    assert words[3:] == [str(path), str(path.with_suffix(".safetensors"))]


def test_bfloat16_is_refused(tmp_path):
    header = b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    path = tmp_path / "ticket.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    refuse(path, "has a tensor of 'BF16', which NumPy lacks; save it as float32")


def as_tree(part):
    tree = {}
    for name, x in arrays().items():
        kind, layer, leaf = name.split("/")
        if kind == part:
            tree.setdefault(layer, {})[leaf] = x
    return tree


def state_dict(tmp_path, arrays):
    path = tmp_path / "net.safetensors"
    path.write_bytes(safetensors.save(arrays))
    return path


def test_a_state_dict_of_pytorch_is_a_start(tmp_path):
    found = to_torch(as_tree("start"), as_tree("mask"))
    names = {"dense1": "0", "dense2": "2", "output": "4"}  # those of a Sequential
    found = {re.sub(r"^\w+", lambda m: names[m[0]], name): x for name, x in found.items()}
    assert found["0.weight_orig"].shape == (300, 64)
    state = iterative.make_plan(tiny.config(start=str(state_dict(tmp_path, found)))).ticket
    for tree, part in ((state.w_i, "start"), (state.mask, "mask")):
        for name, x in tickets.named(tree).items():
            np.testing.assert_array_equal(x, arrays()[f"{part}/{name}"], name)


def test_zeros_of_a_state_dict_without_masks_are_pruned(tmp_path, capsys):
    pruned = jax.tree.map(np.multiply, as_tree("start"), as_tree("mask"))
    path = state_dict(tmp_path, to_torch(pruned))
    state = iterative.make_plan(tiny.config(start=str(path))).ticket
    np.testing.assert_array_equal(
        state.mask["dense2"]["kernel"], as_tree("mask")["dense2"]["kernel"]
    )
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path}: the start weights of 'dense1/kernel', 'dense2/kernel', 'outp")


def test_what_the_paper_s_networks_flatten_is_known(tmp_path):
    config = tiny.config(network="conv2", rates=(("conv.*/kernel", 0.1),))
    params = iterative.make_plan(config).problem.params
    rng = np.random.default_rng(0)
    start = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), params)
    path = state_dict(tmp_path, to_torch(start, flatten=(64, 4, 4)))
    config.start = str(path)
    found = iterative.make_plan(config).ticket
    jax.tree.map(np.testing.assert_array_equal, found.w_i, start)


def of_own_network(path, shapes):
    """Read a file for a network of one's own, with layers of these shapes."""
    plan = iterative.make_plan(tiny.config())
    like = {
        name: {"kernel": np.zeros(shape, np.float32), "bias": np.zeros(shape[-1], np.float32)}
        for name, shape in shapes.items()
    }
    config = dataclasses.replace(plan.config, start=str(path), network="my_lab.nets:own")
    return starts.read_start(starts.with_checksum(config), plan.problem._replace(params=like))


def of_torch(name):
    with np.load(ROOT / "tests" / "torch_files" / f"{name}.npz") as file:
        return {key: file[key] for key in file if "." in key}


@pytest.mark.parametrize("name", ["mlp", "mlp_removed"])
def test_what_pytorch_saved_is_a_start(name, tmp_path):
    saved = of_torch(name)
    shapes = {"dense1": (12, 20), "dense2": (20, 20), "output": (20, 5)}
    state = of_own_network(state_dict(tmp_path, saved), shapes)
    found = from_torch(saved, state.w_i, zeros_are_pruned=True)
    jax.tree.map(np.testing.assert_array_equal, state.w_i, found.params)
    jax.tree.map(np.testing.assert_array_equal, state.mask, found.mask)
    assert [int(layer["kernel"].sum()) for layer in state.mask.values()] == [96, 160, 40]


def test_the_flatten_of_one_s_own_network_is_asked_for(tmp_path):
    path = state_dict(tmp_path, of_torch("conv2"))
    message = (
        r"pass flatten=\(C, H, W\), .* Or convert it yourself: docs/how_to/tickets.md says how."
    )
    shapes = {"conv1": (3, 3, 3, 8), "conv2": (3, 3, 8, 8)}
    shapes |= {"dense1": (192, 16), "dense2": (16, 16), "output": (16, 5)}
    with pytest.raises(ValueError, match=message) as caught:
        of_own_network(path, shapes)
    check_one_line(caught.value)
    like = {
        name: {"kernel": np.zeros(shape, np.float32), "bias": np.zeros(shape[-1], np.float32)}
        for name, shape in shapes.items()
    }
    found = from_torch(of_torch("conv2"), like, flatten=(8, 4, 6))  # as the page says
    parts = {"mask": found.mask, "start": found.params}
    converted = {f"{a}/{b}": x for a, tree in parts.items() for b, x in tickets.named(tree).items()}
    state = of_own_network(state_dict(tmp_path, converted), shapes)
    jax.tree.map(np.testing.assert_array_equal, (state.w_i, state.mask), (found.params, found.mask))


def test_a_state_dict_in_the_layout_of_jax_is_refused_though_a_square_fits(tmp_path):
    shapes = {"a": (3, 4), "b": (4, 4)}
    saved = {f"{name}.weight": np.ones(shape, np.float32) for name, shape in shapes.items()}
    saved |= {f"{name}.bias": np.ones(4, np.float32) for name in shapes}
    path = state_dict(tmp_path, saved)
    message = rf"{path}: the tree has 1 and the state dict 0 layers .* leaf 'a/bias' \[4\], which"
    with pytest.raises(ValueError, match=message) as caught:
        of_own_network(path, shapes)
    check_one_line(caught.value)
    saved["a.weight"] = saved["a.weight"].T.copy()
    assert of_own_network(state_dict(tmp_path, saved), shapes).w_i["a"]["kernel"].shape == (3, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": "nowhere.safetensors"},
         "config.start: there is no file nowhere.safetensors; python -m tools.ticket writes one"),
        ({"start": "tests"}, "config.start: tests is a folder, expected the file of a ticket"),
        ({"start": 3}, "config.start is 3, expected the path of a file"),
        ({"start_sha256": "00"}, "config.start_sha256 is 00, but config.start is empty, expected"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("runner", ["iterative", "one_shot"])
def test_wrong_settings(runner, changes, message):
    make_config = {"iterative": tiny.config, "one_shot": tiny.one_shot}[runner]
    with pytest.raises((ValueError, OSError), match=re.escape(message)) as caught:
        RUNNERS[runner].make_plan(ConfigDict(make_config().to_dict() | changes))
    check_one_line(caught.value)


def test_another_file_than_the_checksum_tells_is_refused(ticket):
    path = ticket()
    refuse(path, r"has the SHA-256 [0-9a-f]{64}, expected 00, that of config", start_sha256="00")


@pytest.mark.parametrize("make_config", [tiny.learned, tiny.at_init, tiny.connected])
def test_other_runners_have_no_start(make_config):
    config = make_config()
    with config.unlocked():
        config.start = "ticket.safetensors"
    with pytest.raises(ValueError, match="config has start, expected only runner, ") as caught:
        RUNNERS[config.runner].make_plan(config)
    check_one_line(caught.value)
