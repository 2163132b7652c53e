"""Training as one compiled chunk of steps, for any model, optimizer and data.

Nothing here knows about masks or members: a chunk trains one network, `population` maps it
over many. Evaluations lie on a fixed grid of steps: 0, `eval_every`, 2 `eval_every`, ... and
after the last step. The parameters with the lowest evaluation loss are carried along.

A network may have state beside its parameters (running statistics of a batch normalisation,
counters and keys of dropout): any pytree, given to `init` and carried from step to step. The loss
and `evaluate` then take it as one more argument, and the loss returns what it has become:

>>> def loss(params, batch, key, context, model_state):
...     mean = 0.9 * model_state["mean"] + 0.1 * batch
...     return (params - mean) ** 2, {}, {"mean": mean}
>>> def evaluate(params, data, context, model_state):
...     return {"loss": (params - model_state["mean"]) ** 2}
>>> training = make_training(
...     loss, evaluate, optax.sgd(0.25), lambda data, stream, step: data[stream],
...     num_steps=2, eval_every=1, chunk_evals=3)
>>> start = training.init(jnp.float32(8), model_state={"mean": jnp.float32(0)})
>>> stream = Stream(jnp.int32(0), jax.random.key(0), {})
>>> state, _ = training.run_chunk(start, stream, jnp.int32(0), jnp.array([10.0]))
>>> round(float(state.model_state["mean"]), 3), int(state.best_step)
(1.9, 2)
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax import lax

from supermask_jax import optimizers
from supermask_jax.checks import check_integer, check_unchanged, shown
from supermask_jax.paths import PyTree

Metrics = dict[str, jax.Array]


class Loss(Protocol):
    """The training loss: a scalar and a dict of scalar metrics, averaged over a batch."""

    def __call__(
        self, params: PyTree, batch: PyTree, key: jax.Array, context: Mapping[str, PyTree], /
    ) -> tuple[jax.Array, Metrics]:
        """Return the loss and the metrics."""
        ...


class LossWithState(Protocol):
    """The training loss of a network with state beside its parameters."""

    def __call__(
        self,
        params: PyTree,
        batch: PyTree,
        key: jax.Array,
        context: Mapping[str, PyTree],
        model_state: PyTree,
        /,
    ) -> tuple[jax.Array, Metrics, PyTree]:
        """Return the loss, the metrics and the state in the structure, shapes and types it had."""
        ...


class TrainState(NamedTuple):
    """All that one network's training carries; what a checkpoint inside a round would hold.

    Attributes:
      params: the current parameters.
      opt_state: the optimizer's state.
      best_params: parameters at the evaluation with the lowest loss, the earliest of equals.
      best_loss: that loss, float32 `[]`; infinite before the first evaluation.
      best_step: int32 `[]`, the steps done at that evaluation.
      step: int32 `[]`, steps done.
      model_state: what the network has beside its parameters, None if nothing.
      best_model_state: the same at the evaluation with the lowest loss.
    """

    params: PyTree
    opt_state: PyTree
    best_params: PyTree
    best_loss: jax.Array
    best_step: jax.Array
    step: jax.Array
    model_state: PyTree = None
    best_model_state: PyTree = None


class Stream(NamedTuple):
    """What makes one network's training its own, beside its parameters.

    Attributes:
      batches: int32 `[]`, handed to `get_batch`: which stream of batches to read.
      key: typed key `[]`; the loss gets it folded with the step.
      context: passed to the loss, to `evaluate` and, item by item, to the optimizer's extra
        arguments; training never looks inside. A mask or frozen weights, say. An item called
        value, grad or value_fn takes the place of what the optimizer would get by that name.
    """

    batches: jax.Array
    key: jax.Array
    context: Mapping[str, PyTree]


class Init(Protocol):
    """Makes the state that a training starts from, from copies of what it is given.

    Training may start late (late rewinding, Frankle et al. 2019): at a `step` on the grid of
    evaluations, from parameters of that step. The caller passes the number of that evaluation,
    ``-(-step // eval_every)``, as the `first` of the first chunk. Batches, keys of the loss and
    metrics are then those of `step`, and so are the counts of schedules: of learning rates
    (`optax.scale_by_schedule`), of weight decay, of `optax.inject_hyperparams`, `optax.add_noise`
    and optax's conditional transformations. All other state of the optimizer starts anew, moments
    and the counts that correct their bias together (one count of 1000 with moments of zero would
    make Adam's first step 2.5 times too long), averages too. Pass the optimizer's own state of that
    step as `opt_state` to go on from it instead; it is then taken as it is.
    """

    def __call__(
        self,
        params: PyTree,
        step: int = 0,
        opt_state: PyTree | None = None,
        model_state: PyTree | None = None,
    ) -> TrainState:
        """Return the state.

        Raises:
          ValueError: a step that is not on the grid of evaluations; or, without the state of that
            step, an optimizer that counts its schedule's steps together with others
            (`optax.MultiSteps`, `schedule_free` and others of `optax.contrib`).
        """
        ...


class Training(NamedTuple):
    """A compiled-once training program, made by `make_training`.

    Attributes:
      init: ``(params, step=0, opt_state=None, model_state=None) -> TrainState``, see `Init`.
      run_chunk: ``(state, stream, first, data) -> (state, metrics)``: evaluations number
        `first` (int32 `[]`) to ``first + chunk_evals - 1``, each followed by its steps.
        Metrics are `[chunk_evals]`. Where there is nothing to report, past the last evaluation and
        for the steps that do not follow it, they are infinite: no number to be taken for a result,
        and no NaN, so that ``jax_debug_nans`` finds only what diverged.
      num_evals: evaluations of a whole training.
      chunk_evals: evaluations of a chunk.
    """

    init: Init
    run_chunk: Callable[[TrainState, Stream, jax.Array, PyTree], tuple[TrainState, Metrics]]
    num_evals: int
    chunk_evals: int


def make_training(
    loss: Loss | LossWithState,
    evaluate: Callable[..., Metrics],
    optimizer: optax.GradientTransformation,
    get_batch: Callable[[PyTree, jax.Array, jax.Array], PyTree],
    *,
    num_steps: int,
    eval_every: int,
    chunk_evals: int,
) -> Training:
    """Build the training of one network; `jit`, `population.map_members` and the loop over
    chunks are the caller's.

    Args:
      loss: ``(params, batch, key, context) -> (loss, metrics)``; metrics are averaged over the
        steps between two evaluations and reported as ``train_<name>``, with ``train_loss``, so
        none may be called ``"loss"``. With state beside the parameters
        ``(params, batch, key, context, model_state) -> (loss, metrics, model_state)``.
      evaluate: ``(params, data, context) -> metrics`` with at least ``"loss"``; reported as
        ``validation_<name>``. With state ``(params, data, context, model_state) -> metrics``.
      optimizer: from optax; extra arguments are the loss's ``value``, its ``grad`` and
        ``value_fn(params)``, its value on the same batch, for those that want them
        (`optax.contrib.reduce_on_plateau`, `optax.polyak_sgd`, `optax.lbfgs`), and the items of the
        context.
      get_batch: ``(data, stream.batches, step) -> batch``.
      num_steps: steps of a whole training.
      eval_every: steps between evaluations.
      chunk_evals: evaluations (with the steps that follow each) of one call of `run_chunk`.

    Raises:
      ValueError: a number of steps or evaluations below 1; when called, a metric ``"loss"`` of
        the loss, or none of `evaluate`, or a model state in other shapes than it had.
      TypeError: when called, a loss that does not return a pair (a triple with model state).

    >>> def loss(params, batch, key, context): return (params - batch) ** 2, {}
    >>> training = make_training(
    ...     loss, lambda params, data, context: {"loss": params**2}, optax.sgd(0.25),
    ...     lambda data, stream, step: data[stream], num_steps=5, eval_every=2, chunk_evals=4)
    >>> stream = Stream(jnp.int32(0), jax.random.key(0), {})
    >>> state, metrics = jax.jit(training.run_chunk)(
    ...     training.init(jnp.float32(8)), stream, jnp.int32(0), jnp.array([0.0]))
    >>> metrics["validation_loss"].tolist(), int(state.step), int(state.best_step)
    ([64.0, 4.0, 0.25, 0.0625], 5, 5)
    """
    for name, value in (
        ("num_steps", num_steps),
        ("eval_every", eval_every),
        ("chunk_evals", chunk_evals),
    ):
        check_integer(name, value, 1)
    optimizer = optimizers.taking_extra_arguments(optimizer)
    num_evals = -(-num_steps // eval_every) + 1
    chunk_evals = min(chunk_evals, num_evals)

    def init(
        params: PyTree,
        step: int = 0,
        opt_state: PyTree | None = None,
        model_state: PyTree | None = None,
    ) -> TrainState:
        start = check_integer("step", step, 0)
        if start != num_steps and (start > num_steps or start % eval_every):
            raise ValueError(
                f"step is {start}, expected one of an evaluation: a multiple of {eval_every} or "
                f"{num_steps}."
            )
        if opt_state is None:
            opt_state = optimizers.with_schedules_at(start, optimizer.init(params))
        # Copies: a state may be donated, the caller's trees and each other's may not.
        return TrainState(
            params=jax.tree.map(jnp.copy, params),
            opt_state=jax.tree.map(jnp.copy, opt_state),
            best_params=jax.tree.map(jnp.copy, params),
            best_loss=jnp.float32(jnp.inf),
            best_step=jnp.int32(start),
            step=jnp.int32(start),
            model_state=jax.tree.map(jnp.copy, model_state),
            best_model_state=jax.tree.map(jnp.copy, model_state),
        )

    def train_step(state: TrainState, stream: Stream, data: PyTree, step: jax.Array):
        batch = get_batch(data, stream.batches, step)
        key = jax.random.fold_in(stream.key, step)

        def value_of(params: PyTree) -> tuple[jax.Array, tuple[Metrics, PyTree]]:
            return _call(loss, (params, batch, key, stream.context), state.model_state)

        (value, (metrics, model_state)), grads = jax.value_and_grad(value_of, has_aux=True)(
            state.params
        )
        if "loss" in metrics:
            raise ValueError("loss returns a metric called 'loss', which is the loss's own name.")
        updates, opt_state = optimizers.update(
            optimizer, grads, state.opt_state, state.params,
            value, lambda params: value_of(params)[0], stream.context,
        )  # fmt: skip
        params = optax.apply_updates(state.params, updates)
        state = state._replace(
            params=params, opt_state=opt_state, step=state.step + 1, model_state=model_state
        )
        return state, jax.tree.map(jnp.float32, {"loss": value, **metrics})

    def train_steps(state: TrainState, stream: Stream, data: PyTree, first, stop):
        def body(step, carry):
            state, sums = carry
            state, metrics = train_step(state, stream, data, step)
            return state, jax.tree.map(jnp.add, sums, metrics)

        _, metrics = jax.eval_shape(lambda: train_step(state, stream, data, jnp.int32(0)))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics)
        state, sums = lax.fori_loop(first, stop, body, (state, zeros))
        steps = jnp.maximum(stop - first, 1).astype(jnp.float32)
        means = jax.tree.map(lambda x: jnp.where(stop > first, x / steps, jnp.inf), sums)
        return state, {f"train_{name}": mean for name, mean in means.items()}

    def measure(state: TrainState, stream: Stream, data: PyTree) -> tuple[TrainState, Metrics]:
        more = () if state.model_state is None else (state.model_state,)
        metrics = evaluate(state.params, data, stream.context, *more)
        metrics = jax.tree.map(jnp.float32, metrics)
        if "loss" not in metrics:
            raise ValueError(f"evaluate returns {', '.join(metrics)}, expected 'loss' among them.")
        improved = metrics["loss"] < state.best_loss
        now = (state.params, metrics["loss"], state.step, state.model_state)
        best = (state.best_params, state.best_loss, state.best_step, state.best_model_state)
        best = jax.tree.map(lambda new, old: jnp.where(improved, new, old), now, best)
        best_params, best_loss, best_step, best_model_state = best
        state = state._replace(
            best_params=best_params,
            best_loss=best_loss,
            best_step=best_step,
            best_model_state=best_model_state,
        )
        return state, {f"validation_{name}": value for name, value in metrics.items()}

    def block(
        state: TrainState, stream: Stream, data: PyTree, number
    ) -> tuple[TrainState, Metrics]:
        first = jnp.minimum(number * eval_every, num_steps)
        stop = jnp.minimum(first + eval_every, num_steps)
        state, measured = measure(state, stream, data)
        state, trained = train_steps(state, stream, data, first, stop)
        return state, measured | trained

    def run_chunk(
        state: TrainState, stream: Stream, first: jax.Array, data: PyTree
    ) -> tuple[TrainState, Metrics]:
        def body(number, carry):
            state, table = carry
            state, row = block(state, stream, data, number)
            return state, jax.tree.map(lambda t, x: t.at[number - first].set(x), table, row)

        _, row = jax.eval_shape(lambda: block(state, stream, data, first))
        table = jax.tree.map(lambda x: jnp.full((chunk_evals, *x.shape), jnp.inf, x.dtype), row)
        stop = jnp.minimum(first + chunk_evals, num_evals)
        return lax.fori_loop(first, stop, body, (state, table))

    return Training(init, run_chunk, num_evals, chunk_evals)


def _call(loss: Callable[..., Any], arguments: tuple, model_state: PyTree) -> tuple:
    """The loss as (value, (metrics, model state)), whether the network has state or not."""
    more = () if model_state is None else (model_state,)
    found, expected = loss(*arguments, *more), ("loss", "metrics", "model_state")[: 2 + len(more)]
    if not (isinstance(found, tuple | list) and len(found) == len(expected)):
        raise TypeError(f"loss returns {shown(found)}, expected ({', '.join(expected)}).")
    value, metrics, *new = found
    if new:
        check_unchanged("loss", "model state", model_state, new[0])
    return value, (metrics, new[0] if new else None)
