"""Training as one compiled chunk of steps, for any model, optimizer and data.

A chunk trains one network and knows nothing about masks or members; `population.map_members` maps
it over many networks. Evaluations lie on a fixed grid of steps: 0, `eval_every`, `2 * eval_every`,
..., and the last step. Training carries along the parameters with the lowest evaluation loss.

A network may have state besides its parameters, such as the running statistics of batch
normalisation or the counters and keys of dropout. This model state is any pytree. Pass it to
`init`; the loss and `evaluate` then take it as one more argument, and the loss returns its new
value.

Examples:
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

import dataclasses
import functools
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
    """The training loss of a network without model state, averaged over a batch."""

    def __call__(
        self, params: PyTree, batch: PyTree, key: jax.Array, context: Mapping[str, PyTree], /
    ) -> tuple[jax.Array, Metrics]:
        """Return the loss, a scalar, and a dict of scalar metrics."""
        ...


class LossWithState(Protocol):
    """The training loss of a network with model state, averaged over a batch."""

    def __call__(
        self,
        params: PyTree,
        batch: PyTree,
        key: jax.Array,
        context: Mapping[str, PyTree],
        model_state: PyTree,
        /,
    ) -> tuple[jax.Array, Metrics, PyTree]:
        """Return the loss, the metrics and the new model state.

        The new model state has the structure, shapes and types of the old one.
        """
        ...


class TrainState(NamedTuple):
    """Everything that the training of one network carries from step to step.

    A checkpoint inside a round would hold this state.

    Attributes:
      params: the current parameters.
      opt_state: the state of the optimizer.
      best_params: the parameters at the evaluation with the lowest loss, the earliest if several
        have it.
      best_loss: the lowest evaluation loss, float32 `[]`; infinite before the first evaluation.
      best_step: the number of steps done at that evaluation, int32 `[]`.
      step: the number of steps done, int32 `[]`.
      model_state: the state of the network besides its parameters, or None.
      best_model_state: the model state at the evaluation with the lowest loss.
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
    """What distinguishes the training of one network from others, apart from its parameters.

    Attributes:
      batches: the identifier of a stream of batches, int32 `[]`. It holds no batches: `get_batch`
        gets it with the step and returns the batch.
      key: a typed key `[]`. The loss gets this key folded with the step.
      context: passed as it is to the loss and to `evaluate`, and item by item to the optimizer as
        extra arguments. A mask or frozen weights, for example. Items called `value`, `grad` or
        `value_fn` replace what the optimizer would otherwise get under that name.
    """

    batches: jax.Array
    key: jax.Array
    context: Mapping[str, PyTree]


class Init(Protocol):
    """A function that makes the state at the start of training; it copies its arguments.

    Training may start late, as in late rewinding (Frankle et al. 2019): pass a `step` on the grid
    of evaluations and the parameters of that step. Then pass the number of that evaluation,
    `-(-step // eval_every)`, as `first` to the first chunk. Batches, keys and metrics are those of
    `step`.

    Schedules also start at `step`: learning rates (`optax.scale_by_schedule`), weight decay,
    `optax.inject_hyperparams`, `optax.add_noise` and the conditional transformations of optax.
    All other state of the optimizer starts afresh: averages, and moments together with the counts
    that correct their bias. (With a count of 1000 and moments of zero, the first step of Adam
    would be 2.5 times too long.) To continue with the optimizer state of that step, pass it as
    `opt_state`; it is used unchanged.
    """

    def __call__(
        self,
        params: PyTree,
        step: int = 0,
        opt_state: PyTree | None = None,
        model_state: PyTree | None = None,
    ) -> TrainState:
        """Return the state at the start of training.

        Raises:
          ValueError: if `step` is not on the grid of evaluations; or if a late start needs
            `opt_state`, because the optimizer counts the steps of its schedule together with
            others (`optax.MultiSteps`, `schedule_free` and others of `optax.contrib`).
        """
        ...


class Training(NamedTuple):
    """The training of one network, made by `make_training`.

    Attributes:
      init: `(params, step=0, opt_state=None, model_state=None) -> TrainState`; see `Init`.
      run_chunk: `(state, stream, first, data) -> (state, metrics)`. Does the evaluations `first`
        (int32 `[]`) to `first + chunk_evals - 1`, each followed by the steps up to the next one.
        Metrics have shape `[chunk_evals]`. Entries without a value, namely those past the last
        evaluation and the training metrics of the last evaluation, which no step follows, are
        infinite: they cannot be mistaken for results, and `jax_debug_nans` still finds only
        divergence.
      num_evals: the number of evaluations of a whole training.
      chunk_evals: the number of evaluations of a chunk.
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
    """Build the training of one network.

    The caller applies `jit` and `population.map_members`, and loops over chunks.

    Args:
      loss: `(params, batch, key, context) -> (loss, metrics)`. With model state,
        `(params, batch, key, context, model_state) -> (loss, metrics, model_state)`. The loss and
        the metrics are averaged over the steps between two evaluations and reported as
        `train_loss` and `train_<name>`; hence no metric may be called `"loss"`.
      evaluate: `(params, data, context) -> metrics`, with at least the metric `"loss"`. With
        model state, `(params, data, context, model_state) -> metrics`. Metrics are reported as
        `validation_<name>`.
      optimizer: an optimizer of optax. Its extra arguments are the items of the context, and, if
        it accepts them (as `optax.contrib.reduce_on_plateau`, `optax.polyak_sgd` and
        `optax.lbfgs` do), the `value` of the loss, its `grad`, and `value_fn(params)`, its value on
        the same batch.
      get_batch: `(data, stream.batches, step) -> batch`.
      num_steps: the number of steps of a whole training.
      eval_every: the number of steps between evaluations.
      chunk_evals: the number of evaluations, with the steps that follow each, in one call of
        `run_chunk`.

    Returns:
      The functions `init` and `run_chunk`, and the number of evaluations.

    Raises:
      ValueError: if a number of steps or evaluations is below 1. When called: if the loss returns
        a metric called `"loss"`, if `evaluate` returns none, or if the loss returns a model state
        of other shapes.
      TypeError: if the optimizer is not one of optax. When called: if the loss does not return a
        pair (with model state, a triple).

    Examples:
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
    program = _Program(
        loss, evaluate, optimizer, get_batch, num_steps, eval_every, num_evals, chunk_evals
    )
    return Training(program.init, program.run_chunk, num_evals, chunk_evals)


@dataclasses.dataclass(frozen=True)
class _Program:
    """The training that `make_training` builds, from the whole chunk down to the single step."""

    loss: Callable[..., Any]
    evaluate: Callable[..., Metrics]
    optimizer: optax.GradientTransformationExtraArgs
    get_batch: Callable[[PyTree, jax.Array, jax.Array], PyTree]
    num_steps: int
    eval_every: int
    num_evals: int
    chunk_evals: int

    def init(
        self,
        params: PyTree,
        step: int = 0,
        opt_state: PyTree | None = None,
        model_state: PyTree | None = None,
    ) -> TrainState:
        """Make the state at the start of training: see `Init`."""
        start = check_integer("step", step, 0)
        if start != self.num_steps and (start > self.num_steps or start % self.eval_every):
            raise ValueError(
                f"step is {start}, expected the step of an evaluation: a multiple of "
                f"{self.eval_every} or {self.num_steps}."
            )
        if opt_state is None:
            opt_state = optimizers.with_schedules_at(start, self.optimizer.init(params))
        # The state may be donated, so its fields share no memory with each other or the arguments.
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

    def run_chunk(
        self, state: TrainState, stream: Stream, first: jax.Array, data: PyTree
    ) -> tuple[TrainState, Metrics]:
        """Evaluate and train `chunk_evals` times: see `Training`."""

        # Traced once. `stream` and `data` are not arguments: they may hold more than arrays.
        @functools.partial(jax.jit, inline=True)
        def evaluate_and_train(state: TrainState, number: jax.Array) -> tuple[TrainState, Metrics]:
            return self.evaluate_and_train(state, stream, data, number)

        def body(number: jax.Array, carry: tuple[TrainState, Metrics]):
            state, table = carry
            state, row = evaluate_and_train(state, number)
            return state, jax.tree.map(lambda t, x: t.at[number - first].set(x), table, row)

        _, row = jax.eval_shape(evaluate_and_train, state, first)
        rows = self.chunk_evals
        table = jax.tree.map(lambda x: jnp.full((rows, *x.shape), jnp.inf, x.dtype), row)
        stop = jnp.minimum(first + self.chunk_evals, self.num_evals)
        return lax.fori_loop(first, stop, body, (state, table))

    def evaluate_and_train(
        self, state: TrainState, stream: Stream, data: PyTree, number: jax.Array
    ) -> tuple[TrainState, Metrics]:
        """Do the evaluation of this number and the steps up to the next one."""
        first = jnp.minimum(number * self.eval_every, self.num_steps)
        stop = jnp.minimum(first + self.eval_every, self.num_steps)
        measured = self.measure(state, stream, data)
        state = _keep_best(state, measured["validation_loss"])
        state, trained = self.train_steps(state, stream, data, first, stop)
        return state, measured | trained

    def measure(self, state: TrainState, stream: Stream, data: PyTree) -> Metrics:
        """Evaluate the current parameters."""
        more = () if state.model_state is None else (state.model_state,)
        metrics = self.evaluate(state.params, data, stream.context, *more)
        metrics = jax.tree.map(jnp.float32, metrics)
        if "loss" not in metrics:
            raise ValueError(f"evaluate returns {', '.join(metrics)}, expected 'loss' among them.")
        return {f"validation_{name}": value for name, value in metrics.items()}

    def train_steps(
        self, state: TrainState, stream: Stream, data: PyTree, first: jax.Array, stop: jax.Array
    ) -> tuple[TrainState, Metrics]:
        """Do the steps from `first` up to `stop` and average their metrics."""

        @functools.partial(jax.jit, inline=True)  # traced once: see `run_chunk`
        def train_step(state: TrainState, step: jax.Array) -> tuple[TrainState, Metrics]:
            return self.train_step(state, stream, data, step)

        def body(step: jax.Array, carry: tuple[TrainState, Metrics]):
            state, sums = carry
            state, metrics = train_step(state, step)
            return state, jax.tree.map(jnp.add, sums, metrics)

        _, metrics = jax.eval_shape(train_step, state, first)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics)
        state, sums = lax.fori_loop(first, stop, body, (state, zeros))
        steps = jnp.maximum(stop - first, 1).astype(jnp.float32)
        means = jax.tree.map(lambda x: jnp.where(stop > first, x / steps, jnp.inf), sums)
        return state, {f"train_{name}": mean for name, mean in means.items()}

    def train_step(
        self, state: TrainState, stream: Stream, data: PyTree, step: jax.Array
    ) -> tuple[TrainState, Metrics]:
        """Do one step of the optimizer on one batch."""
        batch = self.get_batch(data, stream.batches, step)
        key = jax.random.fold_in(stream.key, step)

        def value_of(params: PyTree) -> tuple[jax.Array, tuple[Metrics, PyTree]]:
            return _call(self.loss, (params, batch, key, stream.context), state.model_state)

        (value, (metrics, model_state)), grads = jax.value_and_grad(value_of, has_aux=True)(
            state.params
        )
        if "loss" in metrics:
            raise ValueError("loss returns a metric called 'loss', the name of the loss itself.")
        updates, opt_state = optimizers.update(
            self.optimizer, grads, state.opt_state, state.params,
            value, lambda params: value_of(params)[0], stream.context,
        )  # fmt: skip
        params = optax.apply_updates(state.params, updates)
        state = state._replace(
            params=params, opt_state=opt_state, step=state.step + 1, model_state=model_state
        )
        return state, jax.tree.map(jnp.float32, {"loss": value, **metrics})


def _keep_best(state: TrainState, loss: jax.Array) -> TrainState:
    """Make the current parameters the best if their evaluation loss is the lowest so far."""
    improved = loss < state.best_loss
    now = (state.params, loss, state.step, state.model_state)
    best = (state.best_params, state.best_loss, state.best_step, state.best_model_state)
    best = jax.tree.map(lambda new, old: jnp.where(improved, new, old), now, best)
    best_params, best_loss, best_step, best_model_state = best
    return state._replace(
        best_params=best_params,
        best_loss=best_loss,
        best_step=best_step,
        best_model_state=best_model_state,
    )


def _call(loss: Callable[..., Any], arguments: tuple, model_state: PyTree) -> tuple:
    """Call a loss with or without model state and return `(value, (metrics, model_state))`."""
    more = () if model_state is None else (model_state,)
    found, expected = loss(*arguments, *more), ("loss", "metrics", "model_state")[: 2 + len(more)]
    if not (isinstance(found, tuple | list) and len(found) == len(expected)):
        raise TypeError(f"loss returns {shown(found)}, expected ({', '.join(expected)}).")
    value, metrics, *new = found
    if new:
        check_unchanged("loss", "model state", model_state, new[0])
    return value, (metrics, new[0] if new else None)
