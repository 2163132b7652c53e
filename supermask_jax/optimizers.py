"""What this library needs to know of optax: extra arguments, and the steps that schedules count."""

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

# States that count the steps of a schedule and nothing else, and the field that does.
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
# States whose one count is of a schedule and of averages, or of other steps than a training's.
UNTOLD = (
    *("MultiStepsState", "ScheduleFreeState", "ProdigyState", "DAdaptAdamWState", "MomoState"),
    *("MomoAdamState", "MadgradState", "ScaleByAdemamixState", "ScaleBySimplifiedAdEMAMixState"),
)


def taking_extra_arguments(optimizer: Any) -> optax.GradientTransformationExtraArgs:
    """An optimizer of optax as a transformation that takes extra arguments.

    Raises:
      TypeError: for anything else.
    """
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(
            f"the optimizer is {shown(optimizer)}, expected one of optax, for example "
            "optax.adam(1e-3)."
        )
    if isinstance(optimizer, optax.MultiSteps):  # its own transformation drops extra arguments
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
    """Updates and the next state, with what optimizers may ask for beside the gradients.

    ``value``, ``grad`` and ``value_fn`` are known to every training; items of the context go to the
    optimizer, too, and take their place where they are called the same. An optimizer that takes
    only what it names gets the context alone.
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
    """A new state of an optimizer with its schedules where they are at a step.

    Raises:
      ValueError: for a state that does not tell its schedule's steps from others.
    """

    def is_counter(node: Any) -> bool:
        return type(node).__name__ in (*SCHEDULES, *UNTOLD)

    def move(node: Any) -> Any:
        name = type(node).__name__
        if name in UNTOLD:
            raise ValueError(
                f"the optimizer's {name} counts the steps of its schedule together with others, so "
                f"that a late start needs the state of step {step}: init(params, step, opt_state)."
            )
        if name not in SCHEDULES:
            return node
        field = SCHEDULES[name]
        moved = {key: with_schedules_at(step, part) for key, part in node._asdict().items()}
        return node._replace(**{**moved, field: jnp.full_like(getattr(node, field), step)})

    return jax.tree.map(move, opt_state, is_leaf=is_counter) if step else opt_state


def _naming(context: Mapping[str, PyTree], function: Callable[[PyTree], jax.Array]) -> Callable:
    """A function that takes the items of the context, too, and looks at none.

    Line searches hand all extra arguments on to ``value_fn``, and refuse those that its signature
    does not name.
    """

    def naming(params: PyTree, **unused: PyTree) -> jax.Array:
        return function(params)

    names = [name for name in context if name.isidentifier() and not keyword.iskeyword(name)]
    naming.__signature__ = inspect.Signature(
        [inspect.Parameter("params", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        + [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
    )
    return naming
