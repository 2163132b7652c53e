import jax
import numpy as np
import pytest

from experiments.runners.untrained_weights import WEIGHTS, untrained_weights
from supermask_jax import trees

KEY = jax.random.key(3)
RNG = np.random.default_rng(0)
W_I = {"kernel": RNG.normal(size=(6, 5)).astype(np.float32), "bias": np.full(5, 0.5, np.float32)}
PRUNABLE = trees.prunable_leaves(W_I)
MASK = {"kernel": RNG.random((6, 5)) < 0.5, "bias": np.ones(5, bool)}


def kernel(name):
    weights = untrained_weights(name, KEY, W_I, PRUNABLE, MASK)
    np.testing.assert_array_equal(weights["bias"], W_I["bias"])
    return np.asarray(weights["kernel"])


def test_init_is_the_initialisation():
    np.testing.assert_array_equal(kernel("init"), W_I["kernel"])


def test_signed_constants_have_one_magnitude_and_the_signs_of_the_initialisation():
    expected = np.std(W_I["kernel"]) * np.sign(W_I["kernel"])
    np.testing.assert_allclose(kernel("signed_constant"), expected, rtol=1e-6)


def test_reinit_permutes_the_whole_tensor():
    np.testing.assert_array_equal(np.sort(kernel("reinit"), None), np.sort(W_I["kernel"], None))
    assert not np.array_equal(kernel("reinit"), W_I["kernel"])


def test_reshuffle_permutes_what_is_kept():
    kept = MASK["kernel"]
    shuffled = kernel("reshuffle")[kept]
    np.testing.assert_array_equal(np.sort(shuffled), np.sort(W_I["kernel"][kept]))
    assert not np.array_equal(shuffled, W_I["kernel"][kept])


@pytest.mark.parametrize("name", WEIGHTS)
def test_without_a_mask_everything_is_kept(name):
    weights = untrained_weights(name, KEY, W_I, PRUNABLE)
    assert np.isfinite(weights["kernel"]).all() and weights["kernel"].shape == (6, 5)
