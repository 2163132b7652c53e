"""Training of masked networks from untrained weights: what a supermask is worth as a ticket."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.problems import BATCHES, LOSS, Problem, seed_keys
from experiments.trainer import Trainer
from supermask_jax import population, rounds
from supermask_jax.training import Stream
from supermask_jax.transforms import freeze_pruned

PyTree = Any
ROUND = 1  # of the keys: the first training after the mask was found


def retrain(
    problem: Problem,
    weights: PyTree,
    masks: PyTree,
    seeds: Sequence[int],
    *,
    learning_rate: float,
    epochs: int,
    eval_every: int,
    members_at_once: int,
    advance: Callable[[int], None] = lambda steps: None,
) -> np.ndarray:
    """Test accuracies `[P]` at the lowest validation loss, after training the kept weights.

    Args:
      problem: what is learned.
      weights: start weights, `[P, ...]` per leaf.
      masks: bools `[P, ...]` per leaf; pruned weights are 0 and stay 0.
      seeds: `[P]`; members of one seed see the same batches.
      learning_rate: Adam's.
      epochs: of training.
      eval_every: steps between validations.
      members_at_once: see `Trainer`.
      advance: called with the number of member-steps done since the last call.
    """
    state = jax.jit(jax.vmap(rounds.begin))(weights, masks)
    distinct = list(dict.fromkeys(seeds))
    places = np.array([distinct.index(seed) for seed in seeds], np.int32)
    abstract_mask = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, bool), problem.params)
    trainer = Trainer(
        problem.network.apply,
        problem.dataset,
        freeze_pruned(optax.adam(learning_rate)),
        params=problem.params,
        context={"mask": abstract_mask},
        num_orders=len(distinct),
        num_steps=epochs * problem.steps_per_epoch,
        batch_size=problem.batch_size,
        eval_every=eval_every,
        chunk_evals=1,
        members_at_once=members_at_once,
    )
    start_params = jax.jit(jax.vmap(rounds.start_params))
    streams = Stream(
        jnp.asarray(places), seed_keys(distinct, ROUND, LOSS)[places], {"mask": state.mask}
    )
    trained = trainer.train(
        lambda chosen: jax.device_get(start_params(population.take(state, chosen))),
        streams,
        seed_keys(distinct, ROUND, BATCHES),
        advance,
    )
    return trained.table["test_accuracy"]
