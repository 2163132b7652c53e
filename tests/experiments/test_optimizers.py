"""Optimizers, schedules, weight decay and clipping from the settings, against numpy."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.problems.problem import Problem
from experiments.runners import iterative, learned, settings
from experiments.runners.optimizers import learning_rates, make_optimizer
from experiments.runners.settings import OPTIMIZERS, SCHEDULES
from supermask_jax.transforms import freeze_pruned
from supermask_jax.trees import prunable_leaves
from tests.bad_input import check_one_line
from tests.experiments import tiny
from tests.experiments.functions import slow_adam

RATE, STEPS = 0.125, 20
NAMES = [*OPTIMIZERS, "optax.contrib.muon", "optax.lion", "optax:rmsprop"]
NAMES += ["tests.experiments.functions:slow_adam"]
DECAY_THEMSELVES = ("adamw", "lamb", "optax.contrib.muon", "optax.lion")


def make_params():
    values = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    return {"dense": {"kernel": jnp.asarray(values), "bias": jnp.asarray(values[0])}}


PARAMS, GRADS = make_params(), jax.tree.map(lambda x: jnp.sin(5 * x), make_params())


def read(**changes):
    return settings.read(
        iterative.Settings, tiny.config().to_dict() | {"learning_rate": RATE} | changes
    )


def make(config, params=PARAMS, steps=STEPS):
    problem: Problem = Problem(None, None, params, prunable_leaves(params), 1)  # pyright: ignore
    return make_optimizer(config, problem, steps)


def train(optimizer, params=PARAMS, steps=3, **extra):
    """Return the weights after a few steps of equal gradients."""
    state = optimizer.init(params)
    for _ in range(steps):
        updates, state = optimizer.update(GRADS, state, params, **extra)
        params = optax.apply_updates(params, updates)
    return jax.device_get(params)


def program(optimizer):
    """Return what a step computes, as text."""
    step = jax.make_jaxpr(lambda params: optimizer.update(GRADS, optimizer.init(params), params))
    return str(step(PARAMS))


def assert_close(tree, other):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6), tree, other)


@pytest.mark.parametrize("name", NAMES)
def test_an_optimizer_is_that_of_its_name(name):
    options = {"weight_decay": 0.0} if name in DECAY_THEMSELVES else {}
    known = {"optax.contrib.muon": optax.contrib.muon, "optax.lion": optax.lion}
    known |= {"optax:rmsprop": lambda rate: optax.rmsprop(rate, momentum=0.0), NAMES[-1]: slow_adam}
    function = known.get(name) or getattr(optax, name)
    assert_close(train(make(read(optimizer=name))), train(function(RATE, **options)))


def test_without_settings_the_programs_are_those_of_adam_and_of_sgd_with_momentum():
    assert program(make(read())) == program(optax.adam(RATE))
    logits = settings.read(learned.Settings, tiny.learned(learning_rate=RATE).to_dict())
    assert program(make(logits)) == program(optax.sgd(RATE, momentum=0.9))


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_decay_and_clipping_of_sgd_are_those_of_numpy(nesterov):
    config = read(
        optimizer="sgd", momentum=0.75, nesterov=nesterov, weight_decay=0.5, clip_norm=0.25
    )
    leaves = [np.float64(GRADS["dense"][name]) for name in ("kernel", "bias")]
    norm = math.sqrt(sum(np.sum(leaf**2) for leaf in leaves))
    assert norm > 0.25
    expected = {}
    for name, grad, decay in zip(("kernel", "bias"), leaves, (0.5, 0.0), strict=True):
        weight, trace = np.float64(PARAMS["dense"][name]), 0.0
        for _ in range(3):
            own = grad * 0.25 / norm + decay * weight
            trace = own + 0.75 * trace
            weight = weight - RATE * (own + 0.75 * trace if nesterov else trace)
        expected[name] = weight
    assert_close(train(make(config)), {"dense": expected})


@pytest.mark.parametrize("name", NAMES)
def test_kernels_decay_and_biases_do_not(name):
    first, decayed = (train(make(read(optimizer=name, weight_decay=x)), steps=1) for x in (0, 0.5))
    if name in ("adamw", "optax.contrib.muon", "optax.lion"):  # decoupled
        moved = first["dense"]["kernel"] - RATE * 0.5 * PARAMS["dense"]["kernel"]
        np.testing.assert_allclose(decayed["dense"]["kernel"], moved, rtol=1e-5, atol=1e-6)
    assert (decayed["dense"]["kernel"] != first["dense"]["kernel"]).any()
    np.testing.assert_array_equal(decayed["dense"]["bias"], first["dense"]["bias"])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_pruned_weights_never_move(name, schedule):
    drops = {"drop_steps": (2,)} if schedule == "step" else {}
    config = read(
        optimizer=name, schedule=schedule, warmup_steps=1, weight_decay=0.5, clip_norm=0.1, **drops
    )
    mask = jax.tree.map(lambda x: x > 0, PARAMS)
    moved = train(freeze_pruned(make(config)), mask=mask)
    for own, start, kept in zip(*map(jax.tree.leaves, (moved, PARAMS, mask)), strict=True):
        np.testing.assert_array_equal(own[~kept], start[~kept])
        assert (own[kept] != start[kept]).all()


def test_clipping_sees_kept_weights_alone():
    kernel = jnp.zeros((3, 4), bool).at[0, 0].set(True)
    mask = {"dense": {"kernel": kernel, "bias": jnp.zeros(4, bool)}}
    optimizer = freeze_pruned(make(read(optimizer="sgd", clip_norm=0.25)))
    moved = train(optimizer, mask=mask, steps=1)
    step = moved["dense"]["kernel"] - PARAMS["dense"]["kernel"]
    np.testing.assert_allclose(abs(step[0, 0]), RATE * 0.25, rtol=1e-5)


def rate_at(step, schedule, warmup, drops, factor):
    """The learning rate of a step, in numpy."""
    if step < warmup:
        return RATE * step / warmup
    if schedule == "cosine":
        return RATE * (1 + math.cos(math.pi * (step - warmup) / (STEPS - warmup))) / 2
    return RATE * factor ** sum(step >= drop for drop in drops)


@pytest.mark.parametrize("warmup", [0, 1, 5])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_learning_rates_are_those_of_numpy(schedule, warmup):
    drops, factor = ((7, 12), 0.5) if schedule == "step" else ((), 0.1)
    config = read(
        schedule=schedule,
        warmup_steps=warmup,
        drop_steps=drops,
        drop_factor=factor,
        optimizer="sgd",
    )
    rates = learning_rates(config, RATE, STEPS)
    expected = [rate_at(step, schedule, warmup, drops, factor) for step in range(STEPS)]
    if not callable(rates):
        assert (schedule, warmup, rates) == ("constant", 0, RATE)
        return
    np.testing.assert_allclose([rates(step) for step in range(STEPS)], expected, rtol=1e-5)
    np.testing.assert_allclose(
        train(make(config), steps=STEPS)["dense"]["kernel"],
        PARAMS["dense"]["kernel"] - sum(expected) * GRADS["dense"]["kernel"],
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", NAMES)
def test_numbers_that_come_with_the_steps_are_those_of_the_settings(name, schedule):
    numbers = {"learning_rate": (RATE, 0.5), "weight_decay": (0.0, 0.25)}
    if name in ("sgd", "optax:rmsprop"):
        numbers["momentum"] = (0.0, 0.75)
    drops = {"drop_steps": (2,)} if schedule == "step" else {}
    options = {"optimizer": name, "schedule": schedule, "warmup_steps": 1, **drops}
    mask = jax.tree.map(lambda x: x > 0, PARAMS)
    swept = freeze_pruned(make(read(**options, **numbers)))
    for place in (0, 1):
        own = {each: several[place] for each, several in numbers.items()}
        alone = train(freeze_pruned(make(read(**options, **own))), mask=mask)
        context = {each: jnp.float32(number) for each, number in own.items()}
        assert_close(train(swept, mask=mask, hyperparameters=context), alone)


def test_an_optimizer_that_needs_a_number_is_named():
    config = read(optimizer="tests.experiments.functions:choosing", learning_rate=(0.1, 0.2))
    with pytest.raises(ValueError) as caught:
        make(config)
    check_one_line(caught.value)
    assert str(caught.value).startswith(
        "config.learning_rate must be one number here, because one program trains all members: the "
        "optimizer tests.experiments.functions:choosing raises TracerBoolConversionError: "
    )


def test_the_optimizers_of_a_convolution_fit_its_kernel():
    params = {"conv1": {"kernel": jnp.zeros((3, 3, 2, 4)), "bias": jnp.zeros(4)}, **PARAMS}
    for name in NAMES:
        make(read(optimizer=name, weight_decay=0.5), params)


def test_settings_that_a_file_lacks_are_those_of_the_paper():
    old = tiny.config().to_dict()
    for name in settings.defaults(iterative.Settings):
        del old[name]
    config = settings.read(iterative.Settings, old)
    assert config == read(learning_rate=old["learning_rate"]) and config.recorded() == json_of(old)
    changed = dataclasses.replace(config, optimizer="sgd", drop_steps=(3,), schedule="step")
    assert changed.recorded().keys() - old.keys() == {"optimizer", "drop_steps", "schedule"}
    assert changed.of_a_member().keys() - config.of_a_member().keys() == {
        "optimizer", "drop_steps", "schedule"
    }  # fmt: skip


def json_of(config):
    return {name: tuple(x) if isinstance(x, list) else x for name, x in config.items()}
