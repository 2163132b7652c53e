"""Shifts and flips against numpy, and who sees them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.engine import objectives
from experiments.problems.augmentation import augment
from experiments.problems.losses import cross_entropy
from experiments.problems.networks import Network
from experiments.problems.problem import Problem
from tests.experiments.functions import hinge

HEIGHT, WIDTH, CHANNELS = 6, 5, 3


def images_of(count):
    shape = count, HEIGHT, WIDTH, CHANNELS
    return np.random.default_rng(0).integers(1, 256, shape).astype(np.uint8)


def changes(image, shift, flip):
    """Every image that may come of one, by (row, column, flipped), in numpy."""
    padded = np.pad(image, ((shift, shift), (shift, shift), (0, 0)))
    found = {}
    for row in range(2 * shift + 1):
        for column in range(2 * shift + 1):
            window = padded[row : row + HEIGHT, column : column + WIDTH]
            found[row, column, False] = window
            if flip:
                found[row, column, True] = window[:, ::-1]
    return found


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [0, 1, 4])
def test_every_image_is_a_window_of_the_padded_one_and_all_windows_occur(shift, flip):
    images = images_of(1200)
    changed = np.asarray(augment(jax.random.key(1), jnp.asarray(images), shift=shift, flip=flip))
    assert changed.shape == images.shape and changed.dtype == np.uint8
    places = []
    for image, new in zip(images, changed, strict=True):
        same = [place for place, x in changes(image, shift, flip).items() if (x == new).all()]
        assert len(same) == 1
        places += same
    counts = np.unique(places, axis=0, return_counts=True)[1]
    number = (2 * shift + 1) ** 2 * (1 + flip)
    assert len(counts) == number
    assert counts.max() < 1200 / number + 6 * np.sqrt(1200 / number)


def apply(params, images):
    return images.reshape(len(images), -1) @ params


@pytest.fixture
def problem():
    params = jnp.asarray(np.random.default_rng(1).normal(size=(HEIGHT * WIDTH * CHANNELS, 10)))
    network = Network(lambda key: params, apply, (HEIGHT, WIDTH, CHANNELS))
    return Problem(None, network, params, True, 8)  # pyright: ignore


def loss_of(problem, key, step=0):
    batch = {"images": images_of(8), "labels": np.arange(8), "step": step}
    loss = objectives.classification(problem).loss
    return float(loss(problem.params, batch, jax.random.fold_in(key, step), {})[0])


def test_a_key_and_a_step_say_how_a_batch_is_augmented(problem):
    own = problem._replace(augment=lambda key, images: augment(key, images, shift=2, flip=True))
    key = jax.random.key(0)
    assert loss_of(own, key) == loss_of(own, key)
    others = loss_of(own, key, 1), loss_of(own, jax.random.key(1)), loss_of(problem, key)
    assert len({loss_of(own, key), *others}) == 4


def test_evaluations_are_not_augmented(problem):
    def refuse(key, images):
        raise AssertionError

    split = {"images": images_of(8)[None], "labels": np.arange(8)[None]}
    plain, own = (
        objectives.classification(x).measure(problem.params, split, {})
        for x in (problem, problem._replace(augment=refuse))
    )
    assert plain == own


@pytest.mark.parametrize("losses", [cross_entropy, hinge])
def test_training_and_evaluation_have_the_loss_of_the_problem(problem, losses):
    own = objectives.classification(problem._replace(losses=losses))
    batch = {"images": images_of(8), "labels": np.arange(8)}
    logits = np.float64(apply(np.asarray(problem.params), batch["images"] / 255))
    right = logits[np.arange(8), np.arange(8)][:, None]
    if losses is hinge:
        expected = np.maximum(0, 1 + logits - right).sum(axis=1).mean() - 1
    else:
        expected = np.log(np.exp(logits - right).sum(axis=1)).mean()
    trained = own.loss(problem.params, batch, jax.random.key(0), {})[0]
    measured = own.measure(problem.params, {k: x[None] for k, x in batch.items()}, {})["loss"]
    np.testing.assert_allclose([trained, measured], expected, rtol=1e-5)
