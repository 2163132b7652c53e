import jax
import numpy as np
import pytest

from experiments.checkpoints import Checkpoints
from experiments.iterative import Outcome
from supermask_jax.rounds import RoundState


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
def open_folder(tmp_path):
    opened = []

    def open_folder(keep=2):
        opened.append(Checkpoints(tmp_path / "checkpoints", keep))
        return opened[-1]

    yield open_folder
    for checkpoints in opened:
        checkpoints.close()


def test_an_empty_folder_has_no_rounds(open_folder):
    assert open_folder().rounds() == []


def test_a_round_loads_exactly_also_after_reopening(open_folder):
    saved, first = make_outcome(), open_folder()
    first.save(0, jax.tree.map(jax.numpy.asarray, saved))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), saved)
    assert_same(first.load(0, shapes), saved)
    first.close()
    again = open_folder()
    assert again.rounds() == [0]
    assert_same(again.load(0, shapes), saved)


@pytest.mark.parametrize(("keep", "kept"), [(1, [0, 4]), (3, [0, 2, 3, 4])])
def test_the_newest_rounds_and_the_dense_one_stay(open_folder, keep, kept):
    checkpoints = open_folder(keep)
    for round in range(5):
        checkpoints.save(round, {"w": np.float32([round])})
    assert checkpoints.rounds() == kept
    for round in kept:
        assert checkpoints.load(round, {"w": np.float32([-1])})["w"] == round


@pytest.mark.parametrize("round", [0, 1, 2])
def test_a_round_saved_again_replaces_the_first(open_folder, round):
    checkpoints = open_folder(keep=3)
    for number in range(3):
        checkpoints.save(number, make_outcome(0))
    checkpoints.save(round, make_outcome(1))
    assert checkpoints.rounds() == [0, 1, 2]
    for number in range(3):
        assert_same(checkpoints.load(number, make_outcome()), make_outcome(number == round))
