import concurrent.futures
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import flax.nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supermask_jax import mask_files
from tests.trees import KINDS, assert_same_bits, draw_mask

PAGE = (Path(__file__).parent.parent / "docs" / "how_to" / "mask_files.md").read_text()
MASK = {"b": np.array([True, False, True]), "w": np.arange(22).reshape(2, 11) % 3 == 0}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "own.mask"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tree_comes_back(kind, path):
    mask = draw_mask(KINDS[kind](), seed=1)
    mask_files.save(path, mask, {"kind": kind})
    assert_same_bits(mask_files.load(path, mask), mask)
    shapes = jax.eval_shape(lambda: KINDS[kind]())
    assert_same_bits(mask_files.load(path, shapes), mask)
    assert mask_files.read(path).metadata == {"kind": kind}


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (8,), (9,), (3, 5, 7)])
def test_every_shape_comes_back(shape, path):
    mask = [np.random.default_rng(0).random(shape) < 0.5]
    mask_files.save(path, mask)
    assert_same_bits(jax.tree.map(np.asarray, mask_files.load(path, mask)), mask)


def test_one_bit_per_weight(path):
    mask = {f"layer{i}/with/a/long/name": np.ones((784, 301), bool) for i in range(20)}
    mask_files.save(path, mask, {"note": "x" * 3000})
    assert path.stat().st_size <= 20 * 784 * 301 / 8 + 4096 + 20 * 256


def test_the_bytes_are_those_of_the_page(path):
    mask_files.save(path, MASK, {"seed": 3})
    content = path.read_bytes()
    assert content[:16] == b"supermask_jax 1\n"
    length = int.from_bytes(content[16:24], "little")
    header = json.loads(content[24 : 24 + length])
    assert header == {
        "leaves": [{"path": "b", "shape": [3]}, {"path": "w", "shape": [2, 11]}],
        "metadata": {"seed": 3},
    }
    bits = "".join(f"{byte:08b}" for byte in content[24 + length : -32])
    flat = "".join("01"[int(kept)] for kept in MASK["w"].ravel())
    assert bits == "10100000" + flat + "00"
    assert content[-32:] == hashlib.sha256(content[:-32]).digest()


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"b": np.ones(3)}, "has leaf 'w', which the tree lacks; it is the mask of another"),
        ({"b": np.ones(3), "v": np.ones((2, 11))}, "has no leaf 'v', which the tree has"),
        ({"b": np.ones(3), "w": np.ones((11, 2))}, "leaf 'w' [2, 11] where the tree has [11, 2]"),
        ({**MASK, "x": np.ones(2)}, "has no leaf 'x', which the tree has"),
    ],
)
def test_the_mask_of_another_tree_is_refused(like, message, path):
    mask_files.save(path, MASK)
    with pytest.raises(ValueError, match=re.escape(message)):
        mask_files.load(path, like)


def test_any_damage_is_detected(path):
    mask_files.save(path, MASK)
    whole = path.read_bytes()
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 4
        for damaged in (whole[:place], bytes(flipped)):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=re.escape(str(path))):
                mask_files.read(path)


def forged(header, bits=b"", length=None):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(header) if length is None else length
    content = mask_files.MAGIC + length.to_bytes(8, "little") + header + bits
    return content + hashlib.sha256(content).digest()


LEAF = {"path": "w", "shape": [2]}
FORGERIES = {
    "no json": forged(b"\x80\x04K\x01."),
    "a list": forged([]),
    "a number": forged(3),
    "no leaves": forged({"metadata": {}}),
    "leaves of another kind": forged({"leaves": 3, "metadata": {}}),
    "no metadata": forged({"leaves": []}),
    "metadata of another kind": forged({"leaves": [], "metadata": []}),
    "no shape": forged({"leaves": [{"path": "w"}], "metadata": {}}),
    "no path": forged({"leaves": [{"shape": [2]}], "metadata": {}}, b"\x00"),
    "a path of another kind": forged({"leaves": [LEAF | {"path": 1}], "metadata": {}}, b"\x00"),
    "a negative axis": forged({"leaves": [LEAF | {"shape": [-8]}], "metadata": {}}),
    "a fraction": forged({"leaves": [LEAF | {"shape": [0.5]}], "metadata": {}}, b"\x00"),
    "a bool": forged({"leaves": [LEAF | {"shape": [True]}], "metadata": {}}, b"\x00"),
    "a huge axis": forged({"leaves": [LEAF | {"shape": [2**62, 0]}], "metadata": {}}),
    "a huge mask": forged({"leaves": [LEAF | {"shape": [2**30, 2**30]}], "metadata": {}}),
    "many axes": forged({"leaves": [LEAF | {"shape": [1] * 99}], "metadata": {}}, b"\x00"),
    "too few bits": forged({"leaves": [LEAF], "metadata": {}}),
    "too many bits": forged({"leaves": [LEAF], "metadata": {}}, b"\x00\x00"),
    "bits behind the end": forged({"leaves": [LEAF], "metadata": {}}, b"\x20"),
    "deep nesting": forged(b"[" * 100_000),
    "a header beyond the end": forged({"leaves": [], "metadata": {}}, length=2**63),
    "a longer number than allowed": forged(b'{"leaves": [], "metadata": ' + b"1" * 5000 + b"}"),
    "another version": forged({}).replace(b"jax 1", b"jax 2"),
    "nothing": b"",
    "a pickle": b"\x80\x04cos\nsystem\n",
    "a checksum alone": mask_files.MAGIC + bytes(32),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_file_can_only_raise_an_error(name, path):
    path.write_bytes(FORGERIES[name])
    with pytest.raises(ValueError, match=re.escape(str(path))):
        mask_files.read(path)


@given(header=st.binary(max_size=60), bits=st.binary(max_size=9), length=st.integers(0, 99))
def test_random_headers_raise_an_error(tmp_path_factory, header, bits, length):
    path = tmp_path_factory.mktemp("fuzz") / "x.mask"
    path.write_bytes(forged(header, bits, length))
    with pytest.raises(ValueError, match="is not a mask that supermask_jax wrote"):
        mask_files.read(path)


@pytest.mark.parametrize(
    ("mask", "metadata", "error", "message"),
    [
        ({"w": np.ones(3)}, {}, TypeError, "has dtype float64, expected bool"),
        ({"w": 1}, {}, TypeError, "not an array"),
        (MASK, {"x": object()}, TypeError, "not JSON serializable"),
        (MASK, {"x": jax.random.key(0)}, TypeError, "not JSON serializable"),
        (MASK, {"x": np.datetime64("2019-05-03", "ns")}, TypeError, "not JSON serializable"),
        (MASK, {"x": "y" * 4000}, ValueError, "metadata has 4009 bytes, expected at most 3072"),
    ],
)
def test_what_cannot_be_saved(mask, metadata, error, message, path):
    with pytest.raises(error, match=message):
        mask_files.save(path, mask, metadata)
    assert not list(path.parent.iterdir())


# Other containers of the same network


def layers(make):
    return [make((4, 5), seed) for seed in range(11)]


def flags(shape, seed):
    return np.random.default_rng(seed).random(shape) < 0.5


def test_a_list_of_layers_and_a_dict_of_their_numbers(path):
    """Flax sorts layers as strings: "10" comes before "2"."""
    as_list = [{"kernel": layer} for layer in layers(flags)]
    as_dict = {str(i): layer for i, layer in enumerate(as_list)}
    for saved, other in ((as_list, as_dict), (as_dict, as_list)):
        mask_files.save(path, saved)
        assert_same_bits(jax.tree.map(np.asarray, mask_files.load(path, other)), other)


def test_nnx_with_and_without_its_variables(path):
    state = KINDS["nnx"]()
    mask = draw_mask(state, seed=1)
    bare = flax.nnx.to_pure_dict(mask)
    for saved, other in ((mask, bare), (bare, mask)):
        mask_files.save(path, saved)
        assert_same_bits(mask_files.load(path, other), other)


def test_paths_that_read_alike_are_told_apart(path):
    mask = {"a/b": flags((3,), 0), "a": {"b": flags((3,), 1)}}
    mask_files.save(path, mask)
    assert_same_bits(jax.tree.map(np.asarray, mask_files.load(path, mask)), mask)
    assert [name for name, _ in mask_files.read(path).leaves] == ["['a']['b']", "['a/b']"]


def test_numbers_of_numpy_in_the_metadata(path):
    numbers = {"seed": np.int64(3), "rate": np.float32(0.5), "kept": np.bool_(True)}
    mask_files.save(path, MASK, numbers | {"more": [jnp.float32(2)]})
    found = mask_files.read(path).metadata
    assert found == {"seed": 3, "rate": 0.5, "kept": True, "more": [2.0]}
    assert type(found["kept"]) is bool


# Saving, whole or not at all


def test_two_writers_at_once_leave_one_whole_file(path):
    masks = [{"w": np.full((200, 200), kept)} for kept in (True, False)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(mask_files.save, path, masks[i % 2]) for i in range(40)]
        for job in jobs:
            job.result()
    loaded = mask_files.load(path, masks[0])["w"]
    assert loaded.all() or not loaded.any()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_link_stays_a_link(path):
    mask_files.save(path, MASK)
    link = path.with_name("link.mask")
    link.symlink_to(path.name)
    other = jax.tree.map(np.logical_not, MASK)
    mask_files.save(link, other)
    assert link.is_symlink()
    assert_same_bits(jax.tree.map(np.asarray, mask_files.load(path, other)), other)


def test_permissions_stay_and_new_files_have_the_usual_ones(path):
    usual = path.with_name("usual")
    usual.touch()
    mask_files.save(path, MASK)
    assert path.stat().st_mode == usual.stat().st_mode
    path.chmod(0o640)
    mask_files.save(path, MASK)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_save_that_fails_leaves_what_was_there(path, monkeypatch):
    mask_files.save(path, MASK)
    before = path.read_bytes()

    def fail(number):
        raise OSError("no space left")

    monkeypatch.setattr(mask_files.os, "fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        mask_files.save(path, jax.tree.map(np.logical_not, MASK))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_may_not_be_replaced_is_not(path, monkeypatch):
    os.mkfifo(path)
    with pytest.raises(OSError, match="is not a regular file"):
        mask_files.save(path, MASK)
    assert path.is_fifo()
    path.unlink()
    mask_files.save(path, MASK)
    monkeypatch.setattr(mask_files.os, "access", lambda *_: False)  # root may write anything
    with pytest.raises(PermissionError, match="is not writable"):
        mask_files.save(path, MASK)


def by_numpy(path):
    [code] = re.findall(r"^import hashlib.*?return leaves$", PAGE, flags=re.M | re.S)
    namespace = {"Path": Path}
    exec(code, namespace)
    return namespace["read_mask"](path)


def by_node(path):
    if not shutil.which("node"):
        pytest.skip("Node.js is not installed")
    [code] = re.findall(r"^```js\n(.*?)^```$", PAGE, flags=re.M | re.S)
    code += "console.log(JSON.stringify(readMask(process.argv[1])));"
    end = subprocess.run(["node", "-e", code, str(path)], capture_output=True, text=True)
    if end.returncode:
        raise ValueError(end.stderr)
    found = json.loads(end.stdout).items()
    return {name: np.array(x["bits"], bool).reshape(x["shape"]) for name, x in found}


@pytest.mark.parametrize("read", [by_numpy, by_node])
def test_the_readers_of_the_page(read, path):
    rng = np.random.default_rng(0)
    shapes = [(), (0,), (1,), (8,), (9,), (3, 5, 7), (64, 100)]
    mask = {f"layer {i}": rng.random(shape) < 0.5 for i, shape in enumerate(shapes)}
    mask_files.save(path, mask, {"of": "\u03b1"})
    assert_same_bits(read(path), mask)
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:20], b"", whole[:99] + b"?" + whole[100:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is damaged, or no mask"):
            read(path)
