import resource
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.runners.outcomes import Outcome
from experiments.storage.checkpoints import Checkpoints
from supermask_jax.rounds import RoundState
from tests.experiments import tiny


def make_outcome(seed=0):
    random = np.random.default_rng(seed)

    def leaves():
        kernel = random.standard_normal((3, 4, 2)).astype(np.float32)
        kernel[0, 0] = np.nan, -0.0
        return {"dense": {"kernel": kernel, "bias": np.float32([[1e-45], [np.inf], [1 / 3]])}}

    mask = {"dense": {"kernel": random.random((3, 4, 2)) < 0.5, "bias": np.ones((3, 1), bool)}}
    return Outcome(RoundState(leaves(), leaves(), mask), leaves())


def assert_same(loaded, saved):
    assert jax.tree.structure(loaded) == jax.tree.structure(saved)
    for one, other in zip(jax.tree.leaves(loaded), jax.tree.leaves(saved), strict=True):
        assert isinstance(one, np.ndarray) and one.dtype == other.dtype
        assert one.shape == other.shape and one.tobytes() == other.tobytes()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


def test_an_empty_folder_has_no_rounds(folder):
    assert Checkpoints(tiny.folder(folder), 2).rounds() == []
    assert Checkpoints(tiny.folder(folder), 2).load_newest(9, lambda round: make_outcome()) is None
    assert not folder.exists()


def test_a_round_loads_exactly_also_after_reopening(folder):
    saved, first = make_outcome(), Checkpoints(tiny.folder(folder), 2)
    first.save(0, jax.tree.map(jax.numpy.asarray, saved))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), saved)
    assert_same(first.load(0, shapes), saved)
    again = Checkpoints(tiny.folder(folder), 2)
    assert again.rounds() == [0]
    assert_same(again.load(0, shapes), saved)


@pytest.mark.parametrize(("keep", "kept"), [(1, [0, 4]), (3, [0, 2, 3, 4])])
def test_the_newest_rounds_and_the_dense_one_stay(folder, keep, kept):
    checkpoints = Checkpoints(tiny.folder(folder), keep)
    for round in range(5):
        checkpoints.save(round, {"w": np.float32([round])})
    assert checkpoints.rounds() == kept
    for round in kept:
        assert checkpoints.load(round, {"w": np.float32([-1])})["w"] == round


def test_a_round_saved_again_replaces_the_first_and_those_after_it(folder):
    checkpoints = Checkpoints(tiny.folder(folder), keep=3)
    for number in range(4):
        checkpoints.save(number, make_outcome(0))
    checkpoints.save(2, make_outcome(1))
    assert checkpoints.rounds() == [0, 1, 2]
    for number in range(3):
        assert_same(checkpoints.load(number, make_outcome()), make_outcome(number == 2))


def cut(content):
    return content[: len(content) // 2]


def flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


DAMAGES = {"deleted": None, "emptied": lambda content: b"", "cut": cut, "flipped": flip}


def damage(path, how):
    if how == "deleted":
        path.unlink()
    else:
        path.write_bytes(DAMAGES[how](path.read_bytes()))


@pytest.mark.parametrize("how", DAMAGES)
def test_damage_of_any_file_leads_back_to_the_previous_round(folder, tmp_path, capsys, how):
    checkpoints = Checkpoints(tiny.folder(folder), keep=2)
    for number in range(3):
        checkpoints.save(number, make_outcome(number))
    whole, shapes = make_outcome(1), make_outcome()
    files = [path.relative_to(folder) for path in folder.glob("round_02/**/*") if path.is_file()]
    assert len(files) > 5
    for number, file in enumerate([Path("round_02.json"), *files]):
        copy = tmp_path / str(number) / "checkpoints"
        shutil.copytree(folder, copy)
        if not (copy / file).stat().st_size and how != "deleted":
            continue
        damage(copy / file, how)
        round, loaded = Checkpoints(tiny.folder(copy), keep=2).load_newest(3, lambda round: shapes)
        assert round == 1
        assert_same(loaded, whole)
        said = capsys.readouterr().err
        if how == "deleted" and file == Path("round_02.json"):
            continue  # a round without its JSON file was never completed
        moved = copy.with_name("checkpoints_damaged") / "round_02"
        assert said.startswith(str(copy / "round_02")) and said.endswith(f"; moved to {moved}\n")
        if file != Path("round_02.json"):  # damaged checksums may name another file
            assert f"{copy / file} is {'missing' if how == 'deleted' else 'damaged'}" in said
        assert (moved / "round_02.json").exists()
        assert Checkpoints(tiny.folder(copy), keep=2).rounds() == [0, 1]


@pytest.mark.parametrize("loss", ["damaged", "missing"])
def test_a_run_goes_back_to_the_round_before_a_needed_one_that_is_lost(folder, loss, capsys):
    checkpoints = Checkpoints(tiny.folder(folder), keep=9)
    for number in range(5):
        checkpoints.save(number, {"w": np.float32([number])})
    sums = folder / "round_02.json"
    lost = next(path for path in (folder / "round_02").rglob("*") if path.is_file())
    if loss == "missing":
        lost = sums
        sums.unlink()
    else:
        damage(lost, "cut")
    checkpoints.go_back([0, 1, 3, 7])
    assert checkpoints.rounds() == [number for number in range(5) if number != 2 or sums.exists()]
    assert capsys.readouterr().err == ""
    checkpoints.go_back([3, 2])
    assert checkpoints.rounds() == [0, 1]
    said = f"{lost} is {loss}; the rounds from 2 on are made again\n"
    assert capsys.readouterr().err == said
    assert (folder.with_name("checkpoints_damaged") / "round_04" / "arrays").exists()


def test_an_incomplete_round_does_not_count(folder):
    checkpoints = Checkpoints(tiny.folder(folder), keep=2)
    checkpoints.save(0, make_outcome(0))
    checkpoints.save(1, make_outcome(1))
    (folder / "round_01.json").unlink()  # it is written last
    assert checkpoints.rounds() == [0]
    checkpoints.save(1, make_outcome(2))
    assert_same(checkpoints.load(1, make_outcome()), make_outcome(2))


def test_a_full_disk_leaves_earlier_rounds_intact(folder):
    checkpoints = Checkpoints(tiny.folder(folder), keep=2)
    checkpoints.save(0, make_outcome(0))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
    try:
        with pytest.raises(OSError, match=f"cannot save {folder / 'round_01'}: "):
            checkpoints.save(1, {"w": np.random.default_rng(0).random(1000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert checkpoints.rounds() == [0]
    assert_same(checkpoints.load(0, make_outcome()), make_outcome(0))
    checkpoints.save(1, make_outcome(1))
    assert checkpoints.rounds() == [0, 1]
