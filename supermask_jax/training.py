"""Training as one compiled chunk of steps, for any model, optimizer and data.

Nothing here knows about masks or members: a chunk trains one network, `population` maps it
over many. Evaluations lie on a fixed grid of steps: 0, `eval_every`, 2 `eval_every`, ... and
after the last step. The parameters with the lowest evaluation loss are carried along.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax import lax

from supermask_jax.checks import check_integer, check_optimizer
from supermask_jax.paths import PyTree

Metrics = dict[str, jax.Array]


class Loss(Protocol):
    """The training loss: a scalar and a dict of scalar metrics, averaged over a batch."""

    def __call__(
        self, params: PyTree, batch: PyTree, key: jax.Array, context: Mapping[str, PyTree], /
    ) -> tuple[jax.Array, Metrics]:
        """Return the loss and the metrics."""
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
    """

    params: PyTree
    opt_state: PyTree
    best_params: PyTree
    best_loss: jax.Array
    best_step: jax.Array
    step: jax.Array


class Stream(NamedTuple):
    """What makes one network's training its own, beside its parameters.

    Attributes:
      batches: int32 `[]`, handed to `get_batch`: which stream of batches to read.
      key: typed key `[]`; the loss gets it folded with the step.
      context: passed to the loss, to `evaluate` and, item by item, to the optimizer's extra
        arguments; training never looks inside. A mask or frozen weights, say.
    """

    batches: jax.Array
    key: jax.Array
    context: Mapping[str, PyTree]


class Training(NamedTuple):
    """A compiled-once training program, made by `make_training`.

    Attributes:
      init: ``params -> TrainState``.
      run_chunk: ``(state, stream, first, data) -> (state, metrics)``: evaluations number
        `first` (int32 `[]`) to ``first + chunk_evals - 1``, each followed by its steps.
        Metrics are `[chunk_evals]`; those past the last evaluation are NaN.
      num_evals: evaluations of a whole training.
      chunk_evals: evaluations of a chunk.
    """

    init: Callable[[PyTree], TrainState]
    run_chunk: Callable[[TrainState, Stream, jax.Array, PyTree], tuple[TrainState, Metrics]]
    num_evals: int
    chunk_evals: int


def make_training(
    loss: Loss,
    evaluate: Callable[[PyTree, PyTree, Mapping[str, PyTree]], Metrics],
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
        none may be called ``"loss"``.
      evaluate: ``(params, data, context) -> metrics`` with at least ``"loss"``; reported as
        ``validation_<name>``.
      optimizer: from optax; extra arguments are the items of the context.
      get_batch: ``(data, stream.batches, step) -> batch``.
      num_steps: steps of a whole training.
      eval_every: steps between evaluations.
      chunk_evals: evaluations (with the steps that follow each) of one call of `run_chunk`.

    Raises:
      ValueError: a number of steps or evaluations below 1; when called, a metric ``"loss"`` of
        the loss, or none of `evaluate`.

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
    check_optimizer(optimizer)
    optimizer = optax.with_extra_args_support(optimizer)
    num_evals = -(-num_steps // eval_every) + 1
    chunk_evals = min(chunk_evals, num_evals)

    def init(params: PyTree) -> TrainState:
        # Copies: a state may be donated, the caller's parameters and each other's may not.
        return TrainState(
            params=jax.tree.map(jnp.copy, params),
            opt_state=optimizer.init(params),
            best_params=jax.tree.map(jnp.copy, params),
            best_loss=jnp.float32(jnp.inf),
            best_step=jnp.int32(0),
            step=jnp.int32(0),
        )

    def train_step(state: TrainState, stream: Stream, data: PyTree, step: jax.Array):
        batch = get_batch(data, stream.batches, step)
        key = jax.random.fold_in(stream.key, step)
        (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(
            state.params, batch, key, stream.context
        )
        if "loss" in metrics:
            raise ValueError("loss returns a metric called 'loss', which is the loss's own name.")
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.params, **stream.context
        )
        params = optax.apply_updates(state.params, updates)
        state = state._replace(params=params, opt_state=opt_state, step=state.step + 1)
        return state, jax.tree.map(jnp.float32, {"loss": value, **metrics})

    def train_steps(state: TrainState, stream: Stream, data: PyTree, first, stop):
        def body(step, carry):
            state, sums = carry
            state, metrics = train_step(state, stream, data, step)
            return state, jax.tree.map(jnp.add, sums, metrics)

        _, metrics = jax.eval_shape(lambda: train_step(state, stream, data, jnp.int32(0)))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics)
        state, sums = lax.fori_loop(first, stop, body, (state, zeros))
        means = jax.tree.map(lambda x: x / (stop - first), sums)
        return state, {f"train_{name}": mean for name, mean in means.items()}

    def measure(state: TrainState, stream: Stream, data: PyTree) -> tuple[TrainState, Metrics]:
        metrics = jax.tree.map(jnp.float32, evaluate(state.params, data, stream.context))
        if "loss" not in metrics:
            raise ValueError(f"evaluate returns {', '.join(metrics)}, expected 'loss' among them.")
        improved = metrics["loss"] < state.best_loss
        best_params, best_loss, best_step = jax.tree.map(
            lambda new, old: jnp.where(improved, new, old),
            (state.params, metrics["loss"], state.step),
            (state.best_params, state.best_loss, state.best_step),
        )
        state = state._replace(best_params=best_params, best_loss=best_loss, best_step=best_step)
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
        table = jax.tree.map(lambda x: jnp.full((chunk_evals, *x.shape), jnp.nan, x.dtype), row)
        stop = jnp.minimum(first + chunk_evals, num_evals)
        return lax.fori_loop(first, stop, body, (state, table))

    return Training(init, run_chunk, num_evals, chunk_evals)
