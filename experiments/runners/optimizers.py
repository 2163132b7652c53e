"""Optimizers from the settings of a configuration, with their schedules, weight decay and clipping.

A step first clips the gradients, then decays weights, then lets the optimizer move. An optimizer
that has a weight decay of its own, as AdamW and LAMB do, decays them itself; for all others the
decay is added to the gradients (L2 regularisation). Only leaves that are prunable decay: kernels,
not biases. What freezes pruned weights goes around all of this.

Where a setting lists several numbers, the optimizer is made inside each step, of the numbers of its
member, which are traced.
"""

import inspect
from collections.abc import Callable, Mapping, Set
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np
import optax

from experiments import by_name
from experiments.problems.problem import Problem, PyTree
from experiments.runners.hyperparameters import HYPERPARAMETERS, OF_TRAINING, listed, swept
from experiments.runners.settings import OPTIMIZERS, Settings
from supermask_jax.optimizers import taking_extra_arguments, update

DECAY_MASKS = {"mask", "weight_decay_mask"}  # what optimizers of optax call the decaying leaves
Numbers = Mapping[str, Any]  # of the settings OF_TRAINING: floats, or scalars that may be traced


def make_optimizer(
    config: Settings, problem: Problem, num_steps: int
) -> optax.GradientTransformation:
    """Return the optimizer of a training, after a check that computes nothing.

    Args:
      config: the settings. Numbers of those that list several come with every step, as the extra
        argument `HYPERPARAMETERS` of the context.
      problem: its parameters may be weights or logits.
      num_steps: the steps of the training.

    Raises:
      ValueError: if settings contradict each other, or if the optimizer does not take them or
        fails on the parameters; the message names the setting.
    """
    name = by_name.with_colon(OPTIMIZERS.get(config.optimizer, config.optimizer))
    function = by_name.find("optimizer", name)
    with _explained(name):
        takes = inspect.signature(function).parameters.keys()
    _check_combination(config, takes)
    _check_schedule(config, num_steps)

    def make(numbers: Numbers) -> optax.GradientTransformationExtraArgs:
        options = _options(config, numbers, problem, takes)
        rates = learning_rates(config, numbers["learning_rate"], num_steps)
        optimizer = taking_extra_arguments(function(learning_rate=rates, **options))
        before = []
        if config.clip_norm:
            before.append(optax.clip_by_global_norm(config.clip_norm))
        if config.weight_decay and "weight_decay" not in options:
            before.append(optax.add_decayed_weights(numbers["weight_decay"], problem.prunable))
        return optax.chain(*before, optimizer) if before else optimizer

    numbers = {each: listed(getattr(config, each))[0] for each in OF_TRAINING}
    with _explained(name):
        whole = make(numbers)
    _check_step(name, whole, problem.params)
    if several := swept(config, OF_TRAINING):
        whole = _of_members(make, numbers)
        traced = {each: np.float32(numbers[each]) for each in several}
        try:
            _check_step(name, whole, problem.params, {HYPERPARAMETERS: traced})
        except ValueError as error:
            raise ValueError(
                f"{' and '.join(f'config.{each}' for each in several)} must be one number here, "
                f"because one program trains all members: {error}"
            ) from error
    return whole


def _of_members(
    make: Callable[[Numbers], optax.GradientTransformationExtraArgs], numbers: Numbers
) -> optax.GradientTransformationExtraArgs:
    """Return an optimizer that takes some numbers of each step from its extra arguments.

    Args:
      make: makes the optimizer of some numbers; its states are alike for all numbers.
      numbers: those that a step does not bring.
    """

    def update_of_member(
        updates: PyTree, state: PyTree, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        own = {**numbers, **extra.pop(HYPERPARAMETERS)}
        return make(own).update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(make(numbers).init, update_of_member)


def learning_rates(config: Settings, peak: Any, num_steps: int) -> Any:
    """Return the learning rate of every step, which counts from 0; a number if it is constant.

    Args:
      config: the settings.
      peak: the rate after the warm-up, a number or a traced scalar.
      num_steps: the steps of the training.

    Returns:
      The peak, or an `optax.Schedule`.
    """
    warmup = config.warmup_steps
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, num_steps - warmup)
    elif config.schedule == "step":
        drops = {step - warmup: config.drop_factor for step in config.drop_steps}
        after = optax.piecewise_constant_schedule(peak, drops)
    elif warmup:
        after = optax.constant_schedule(peak)
    else:
        return peak
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])


def _check_schedule(config: Settings, num_steps: int) -> None:
    steps, warmup = config.drop_steps, config.warmup_steps
    if warmup >= num_steps:
        raise ValueError(
            f"config.warmup_steps is {warmup}, expected less than the {num_steps} steps of a "
            "training."
        )
    if config.schedule != "step":
        if given := {"drop_steps", "drop_factor"} & config.recorded().keys():
            raise ValueError(
                f"config.{min(given)} is set, but config.schedule is {config.schedule}, expected "
                "step."
            )
    elif not steps:
        raise ValueError("config.drop_steps is empty, expected a step or more with schedule=step.")
    elif not warmup < steps[0] <= steps[-1] < num_steps:
        wrong = steps[0] if steps[0] <= warmup else steps[-1]
        raise ValueError(
            f"config.drop_steps has {wrong}, expected more than the {warmup} of "
            f"config.warmup_steps and less than {num_steps}, the steps of a training."
        )


def _check_combination(config: Settings, takes: Set[str]) -> None:
    name = config.optimizer
    if "learning_rate" not in takes:
        raise ValueError(
            f"config.optimizer: {name} has no argument learning_rate, expected a function "
            "(learning_rate) -> optimizer of optax."
        )
    momenta = listed(config.momentum)
    if any(momenta) and "momentum" not in takes:
        raise ValueError(
            f"config.momentum is {config.momentum}, but {name} has no argument momentum, "
            "expected 0."
        )
    if config.nesterov and not (all(momenta) and "nesterov" in takes):
        raise ValueError(
            f"config.nesterov is True, but {name} has no Nesterov momentum here, expected False, "
            "or sgd with config.momentum above 0."
        )


def _options(
    config: Settings, numbers: Numbers, problem: Problem, takes: Set[str]
) -> dict[str, Any]:
    """Return what an optimizer is told of the settings, besides its learning rate."""
    options: dict[str, Any] = {}
    if "momentum" in takes:
        options["momentum"] = numbers["momentum"]
    if config.nesterov:
        options["nesterov"] = True
    masks = takes & DECAY_MASKS
    if "weight_decay" in takes and masks:
        decay = numbers["weight_decay"]
        options |= {"weight_decay": decay, **dict.fromkeys(masks, problem.prunable)}
    return options


def _check_step(
    name: str,
    optimizer: optax.GradientTransformation,
    params: PyTree,
    context: Mapping[str, PyTree] | None = None,
) -> None:
    def loss(params: PyTree) -> jax.Array:
        return optax.tree.norm(params, squared=True)

    def step(params: PyTree, context: Mapping[str, PyTree]) -> tuple[PyTree, PyTree, PyTree]:
        state, known = optimizer.init(params), taking_extra_arguments(optimizer)
        return state, *update(known, params, state, params, loss(params), loss, context)

    with _explained(name):
        state, updates, new = jax.eval_shape(step, params, context or {})
    for what, here, expected in (("updates", updates, params), ("a state", new, state)):
        if not _are_alike(here, expected):
            raise ValueError(
                f"config.optimizer: a step of {name} returns {what} of other shapes or types, "
                f"expected those of {'the weights' if what == 'updates' else 'the state before'}."
            )


def _explained(name: str) -> AbstractContextManager[None]:
    return by_name.explained(f"the optimizer {name}", by_name.module_of(name))


def _are_alike(tree: PyTree, other: PyTree) -> bool:
    """Return whether two trees have one structure, and their leaves the same shapes and types."""
    if jax.tree.structure(tree) != jax.tree.structure(other):
        return False
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    return all((x.shape, x.dtype) == (y.shape, y.dtype) for x, y in pairs)
