"""What this library needs to know about optax: extra arguments, and counts of schedules."""

import inspect
import keyword
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from supermask_jax.checks import shown
from supermask_jax.paths import PyTree

# States that count the steps of a schedule and nothing else, with the name of the counting field.
SCHEDULES = {
    "ScaleByScheduleState": "count",
    "InjectHyperparamsState": "count",
    "InjectStatefulHyperparamsState": "count",
    "WrappedScheduleState": "count",
    "WeightDecaySchedule": "count",
    "AddNoiseState": "count",
    "ConditionallyTransformState": "step",
    "ConditionallyMaskState": "step",
}
# States whose count serves a schedule and averages at once, or counts other steps than training.
UNTOLD = (
    *("MultiStepsState", "ScheduleFreeState", "ProdigyState", "DAdaptAdamWState", "MomoState"),
    *("MomoAdamState", "MadgradState", "ScaleByAdemamixState", "ScaleBySimplifiedAdEMAMixState"),
    *("GradualState", "RegrowState"),  # of this library: the mask goes with the step
)


def taking_extra_arguments(optimizer: Any) -> optax.GradientTransformationExtraArgs:
    """Convert an optimizer of optax to a transformation that takes extra arguments.

    Args:
      optimizer: a gradient transformation, or `optax.MultiSteps`.

    Raises:
      TypeError: if `optimizer` is anything else.

    Examples:
      >>> optimizer = taking_extra_arguments(optax.sgd(0.5))
      >>> state = optimizer.init(jnp.ones(2))
      >>> optimizer.update(jnp.ones(2), state, value=3.0)[0].tolist()
      [-0.5, -0.5]
    """
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(
            f"the optimizer is {shown(optimizer)}, expected one of optax, for example "
            "optax.adam(1e-3)."
        )
    if isinstance(optimizer, optax.MultiSteps):  # gradient_transformation() drops them
        update: Any = optimizer.update
        return optax.GradientTransformationExtraArgs(optimizer.init, update)
    return optax.with_extra_args_support(optimizer)


def update(
    optimizer: optax.GradientTransformationExtraArgs,
    grads: PyTree,
    opt_state: PyTree,
    params: PyTree,
    value: jax.Array,
    value_fn: Callable[[PyTree], jax.Array],
    context: Mapping[str, PyTree],
) -> tuple[PyTree, PyTree]:
    """Return updates and the next state, passing optimizers the extra arguments that they accept.

    The extra arguments are `value`, `grad` and `value_fn`, and the items of the context; an item of
    one of these names replaces the argument. An optimizer that does not accept the three gets the
    context only.

    Args:
      optimizer: from `taking_extra_arguments`.
      grads: gradients `[...]` per leaf.
      opt_state: the state of the optimizer.
      params: parameters `[...]` per leaf.
      value: the loss.
      value_fn: the loss as a function of the parameters.
      context: named trees, see `training.Stream`.

    Returns:
      The updates and the next state.

    Examples:
      >>> optimizer = taking_extra_arguments(optax.sgd(0.5))
      >>> params, loss = jnp.array([2.0]), lambda params: jnp.sum(params**2)
      >>> state, value, grads = optimizer.init(params), loss(params), jax.grad(loss)(params)
      >>> updates, state = update(optimizer, grads, state, params, value, loss, {})
      >>> updates.tolist()
      [-2.0]
    """
    context = dict(context)
    known = {"value": value, "grad": grads, "value_fn": _naming(context, value_fn)}
    try:
        return optimizer.update(grads, opt_state, params, **(known | context))
    except TypeError as error:
        if not re.search(r"unexpected keyword argument '(value|grad|value_fn)'", str(error)):
            raise
    return optimizer.update(grads, opt_state, params, **context)


def with_schedules_at(step: int, opt_state: PyTree) -> PyTree:
    """Advance the schedules in a new optimizer state to a step; all other state stays new.

    Args:
      step: the number of steps done.
      opt_state: from the `init` of an optimizer.

    Raises:
      ValueError: if a state counts the steps of its schedule together with others.

    Examples:
      >>> optimizer = optax.sgd(optax.linear_schedule(1.0, 0.0, 10))
      >>> with_schedules_at(5, optimizer.init(jnp.ones(2)))[1].count.tolist()
      5
    """

    def is_counter(node: Any) -> bool:
        return type(node).__name__ in (*SCHEDULES, *UNTOLD)

    def move(node: Any) -> Any:
        name = type(node).__name__
        if name in UNTOLD:
            raise ValueError(
                f"the optimizer's {name} counts the steps of its schedule together with others, so "
                f"a late start needs the state at step {step}: init(params, step, opt_state)."
            )
        if name not in SCHEDULES:
            return node
        field = SCHEDULES[name]
        moved = {key: with_schedules_at(step, part) for key, part in node._asdict().items()}
        return node._replace(**{**moved, field: jnp.full_like(getattr(node, field), step)})

    return jax.tree.map(move, opt_state, is_leaf=is_counter) if step else opt_state


def _naming(context: Mapping[str, PyTree], function: Callable[[PyTree], jax.Array]) -> Callable:
    """Make a function that also accepts the items of the context, by name, and ignores them.

    Line searches pass all extra arguments to `value_fn`, and raise an error if its signature does
    not name them.
    """

    def naming(params: PyTree, **unused: PyTree) -> jax.Array:
        return function(params)

    names = [name for name in context if name.isidentifier() and not keyword.iskeyword(name)]
    naming.__signature__ = inspect.Signature(
        [inspect.Parameter("params", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        + [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
    )
    return naming
