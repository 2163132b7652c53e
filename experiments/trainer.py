"""Training of a population on a data set that lives on the devices whole."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh

from experiments.datasets import Dataset, Split
from supermask_jax import population
from supermask_jax.training import Loss, Metrics, Stream, make_training

PyTree = Any
Apply = Callable[[PyTree, jax.Array], jax.Array]
Sharing = tuple[Mesh, int | None]

EVAL_BATCH = 1000


class Trained(NamedTuple):
    """A trained population of P members, as numpy arrays.

    Attributes:
      params: the last step's parameters, leaves `[P, ...]`.
      table: `[P]` each: early_stop_step, validation_loss, validation_accuracy, test_accuracy
        at the evaluation with the lowest validation loss, final_test_accuracy at the last step;
        NaN for a member that diverged, whose parameters are not finite.
      curves: `[P, E]` each, one entry per evaluation.
    """

    params: PyTree
    table: dict[str, np.ndarray]
    curves: dict[str, np.ndarray]


class Trainer:
    """Trains populations of any size on one data set, compiling once per size.

    Args:
      apply: ``(params, images) -> logits``.
      dataset: train, validation and test.
      optimizer: from optax; gets the members' context as extra arguments.
      num_steps: steps of a training.
      batch_size: images per step.
      eval_every: steps between validations.
      chunk_evals: validations between two reports of progress.
      members_at_once: 1 maps members one by one, k by vmap; 0 chooses for the backend.
    """

    def __init__(
        self,
        apply: Apply,
        dataset: Dataset,
        optimizer: optax.GradientTransformation,
        *,
        num_steps: int,
        batch_size: int,
        eval_every: int,
        chunk_evals: int,
        members_at_once: int,
    ) -> None:
        self._apply = apply
        self._dataset = dataset
        self._members_at_once = members_at_once
        self._training = make_training(
            make_loss(apply),
            lambda params, data, context: measure(apply, params, data["validation"]),
            optimizer,
            get_batch,
            num_steps=num_steps,
            eval_every=eval_every,
            chunk_evals=chunk_evals,
        )
        self._make_batches = jax.jit(
            functools.partial(
                batch_table,
                num_examples=len(dataset.train.labels),
                num_steps=num_steps,
                batch_size=batch_size,
            )
        )
        self._init = functools.cache(self._compile_init)
        self._run_chunk = functools.cache(self._compile_chunk)
        self._run_test = functools.cache(self._compile_test)
        self._data = functools.cache(self._place_data)
        ends = np.arange(self._training.num_evals) * eval_every
        self.eval_steps = np.minimum(ends, num_steps)

    def train(
        self,
        params: PyTree,
        streams: Stream,
        batch_keys: jax.Array,
        advance: Callable[[int], None] = lambda steps: None,
    ) -> Trained:
        """Train P members from `params` to the last step.

        Args:
          params: start parameters, leaves `[P, ...]`.
          streams: `[P]`; ``batches`` are places in `batch_keys`.
          batch_keys: one key `[S]` per order of batches.
          advance: called with the number of member-steps done since the last call.
        """
        members = population.num_members(params)
        sharing = self._share(members)
        mesh, _ = sharing
        place = functools.partial(_place, sharing=sharing)
        data = self._data(mesh) | {
            "batches": population.replicate(self._make_batches(batch_keys), mesh)
        }
        streams, states = place(streams), self._init(mesh)(place(params))
        chunks = []
        for first in self._training.chunk_starts:
            states, metrics = self._run_chunk(sharing)(states, streams, jnp.int32(first), data)
            chunks.append(jax.device_get(metrics))
            advance(members * self._steps_of_chunk(first))
        tested = self._run_test(sharing)((), (states.best_params, states.params), data)[1]
        curves = {name: np.concatenate([c[name] for c in chunks], axis=1) for name in chunks[0]}
        return self._finish(members, states, tested, curves)

    def _finish(self, members: int, states: Any, tested: Metrics, curves: dict) -> Trained:
        host = jax.device_get((states.params, states.best_step, tested))
        params, best_step, tested = population.take(host, slice(members))
        curves = {name: values[:members, : len(self.eval_steps)] for name, values in curves.items()}
        best = np.arange(members), np.searchsorted(self.eval_steps, best_step)
        measured = {
            "validation_loss": curves["validation_loss"][best],
            "validation_accuracy": curves["validation_accuracy"][best],
            "test_accuracy": tested["best"],
            "final_test_accuracy": tested["last"],
        }
        finite = _all_finite(params)
        table = {name: np.where(finite, x, np.float32(np.nan)) for name, x in measured.items()}
        return Trained(params, {"early_stop_step": best_step, **table}, curves)

    def _share(self, members: int) -> Sharing:
        devices = jax.devices()[:members]
        mesh = population.make_mesh(devices)
        local = -(-members // len(devices))
        if self._members_at_once:
            width = min(self._members_at_once, local)
        else:
            width = 1 if jax.default_backend() == "cpu" else local
        return mesh, None if width == 1 else width

    def _place_data(self, mesh: Mesh) -> dict[str, PyTree]:
        train, validation, test = self._dataset.train, self._dataset.validation, self._dataset.test
        data = {
            "train": train._asdict(),
            "validation": eval_batches(validation),
            "test": eval_batches(test),
        }
        return population.replicate(data, mesh)

    def _compile_init(self, mesh: Mesh) -> Callable[[PyTree], Any]:
        sharding = population.member_sharding(mesh)
        return jax.jit(jax.vmap(self._training.init), out_shardings=sharding)

    def _compile_chunk(self, sharing: Sharing) -> Callable:
        mesh, width = sharing
        mapped = population.map_members(self._training.run_chunk, batch_size=width, mesh=mesh)
        return jax.jit(mapped, donate_argnums=0)

    def _compile_test(self, sharing: Sharing) -> Callable:
        def test(nothing: tuple, params: tuple[PyTree, PyTree], data: PyTree):
            best, last = (measure(self._apply, p, data["test"])["accuracy"] for p in params)
            return nothing, {"best": best, "last": last}

        mesh, width = sharing
        return jax.jit(population.map_members(test, batch_size=width, mesh=mesh))

    def _steps_of_chunk(self, first: int) -> int:
        last = min(first + self._training.chunk_evals, self._training.num_evals - 1)
        return int(self.eval_steps[last] - self.eval_steps[first])


def make_loss(apply: Apply) -> Loss:
    """Mean softmax cross-entropy of a batch ``{"images", "labels"}``, with the accuracy."""

    def loss(params: PyTree, batch: PyTree, key: jax.Array, context: Any, /):
        logits = apply(params, normalise(batch["images"]))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])
        return jnp.mean(losses), {"accuracy": _accuracy(logits, batch["labels"])}

    return loss


def measure(apply: Apply, params: PyTree, split: PyTree) -> Metrics:
    """Mean loss and accuracy over a split made by `eval_batches`."""
    loss = make_loss(apply)
    unused = jax.random.key(0)

    def add(total: Metrics, batch: PyTree) -> tuple[Metrics, None]:
        value, metrics = loss(params, batch, unused, {})
        return jax.tree.map(jnp.add, total, {"loss": value, **metrics}), None

    zeros = {"loss": jnp.float32(0), "accuracy": jnp.float32(0)}
    total, _ = lax.scan(add, zeros, split)
    return jax.tree.map(lambda x: x / len(split["labels"]), total)


def get_batch(data: PyTree, order: jax.Array, step: jax.Array) -> PyTree:
    """The training images and labels of a step of one order of batches."""
    chosen = data["batches"][order, step]
    return jax.tree.map(lambda x: x[chosen], data["train"])


def batch_table(
    keys: jax.Array, *, num_examples: int, num_steps: int, batch_size: int
) -> jax.Array:
    """Which examples every step sees: int32 `[S, num_steps, batch_size]` for keys `[S]`.

    A fresh permutation each epoch; the examples left over at its end are dropped.
    """
    per_epoch = num_examples // batch_size

    def epoch(key: jax.Array) -> jax.Array:
        order = jax.random.permutation(key, num_examples)[: per_epoch * batch_size]
        return order.reshape(per_epoch, batch_size).astype(jnp.int32)

    def whole(key: jax.Array) -> jax.Array:
        epochs = jnp.arange(-(-num_steps // per_epoch))
        orders = lax.map(lambda i: epoch(jax.random.fold_in(key, i)), epochs)
        return orders.reshape(-1, batch_size)[:num_steps]

    return lax.map(whole, keys)


def normalise(images: jax.Array) -> jax.Array:
    """Pixels of 0 to 255 as float32 of 0 to 1."""
    return images.astype(jnp.float32) / 255


def eval_batches(split: Split) -> PyTree:
    """A split cut into equal batches `[N, B, ...]` of at most `EVAL_BATCH`."""
    count = len(split.labels)
    size = max(b for b in range(1, min(count, EVAL_BATCH) + 1) if count % b == 0)
    return {name: x.reshape(-1, size, *x.shape[1:]) for name, x in split._asdict().items()}


def _accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.mean(jnp.argmax(logits, axis=-1) == labels, dtype=jnp.float32)


def _all_finite(params: PyTree) -> np.ndarray:
    """Whether every parameter of a member is finite: bool `[P]`."""
    leaves = [np.isfinite(x).reshape(len(x), -1).all(axis=1) for x in jax.tree.leaves(params)]
    return np.all(leaves, axis=0)


def _place(tree: PyTree, sharing: Sharing) -> PyTree:
    mesh, width = sharing
    return population.shard(population.pad(tree, mesh.size * (width or 1)), mesh)
