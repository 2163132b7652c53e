"""Retraining: masked networks trained from untrained weights, to test supermasks as tickets."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.engine.arrays import abstract
from experiments.engine.forecast import Forecast, num_bytes
from experiments.engine.trainer import Advance, Schedule, Trained, Trainer
from experiments.engine.work import Trainings
from experiments.problems.problem import Problem
from experiments.problems.seeds import BATCHES, LOSS, places, seed_keys
from experiments.storage.autosave import Autosave
from supermask_jax import population, rounds
from supermask_jax.training import Stream
from supermask_jax.transforms import freeze_pruned

PyTree = Any
ROUND = 1  # of the random keys: retraining is the first round after the mask was found


class Retrainer:
    """Trains the kept weights of masked networks, compiling once per number of networks.

    Args:
      problem: the network and the data set.
      num_seeds: the number of distinct seeds of a population.
      optimizer: trains the kept weights.
      epochs: the number of epochs.
      eval_every: steps between validations.
      members_at_once: see `Trainer`.
      context: shapes and types of what the optimizer needs of one member, besides the mask.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        num_seeds: int,
        optimizer: optax.GradientTransformation,
        epochs: int,
        eval_every: int,
        members_at_once: int,
        context: Mapping[str, PyTree] | None = None,
    ) -> None:
        mask = abstract(problem.params, dtype=bool)
        self._begin = jax.jit(jax.vmap(rounds.begin))
        self._state = jax.eval_shape(rounds.begin, problem.params, mask)
        self._start_params = jax.jit(jax.vmap(rounds.start_params))
        self._trainer = Trainer(
            problem,
            freeze_pruned(optimizer),
            Schedule(epochs * problem.steps_per_epoch, eval_every, chunk_evals=1),
            context={"mask": mask, **(context or {})},
            num_orders=num_seeds,
            members_at_once=members_at_once,
        )

    @property
    def eval_steps(self) -> np.ndarray:
        """The step of every evaluation, int `[E]`."""
        return self._trainer.eval_steps

    def trainings(self, what: str, members: int, times: int = 1) -> Trainings:
        """Return the trainings of P networks as a part of `Work`.

        Args:
          what: what the networks are, a noun in the plural.
          members: P.
          times: the number of trainings.
        """
        return Trainings(what, self._trainer, members, times)

    def forecast(self, members: int, max_memory: float | None = None) -> Forecast:
        """Compile the training of P networks, and forecast its memory and time.

        Args:
          members: P.
          max_memory: the memory limit of this process in bytes; None for what is free now.

        Raises:
          MemoryError: if even the smallest group does not fit.
        """
        return self._trainer.forecast({members: 1}, members * num_bytes(self._state), max_memory)

    def prepare(self, members: int, max_memory: float | None = None) -> None:
        """Compile the training of P networks, in groups that fit into memory beside their states.

        Args:
          members: P.
          max_memory: the memory limit of this process in bytes; None for what is free now.

        Raises:
          MemoryError: if even the smallest group does not fit.
        """
        budget = self._trainer.budget(max_memory)
        self._trainer.prepare(members, budget, members * num_bytes(self._state))

    def check_memory(self, members: int, max_memory: float | None = None) -> None:
        """Check that main memory holds what grows with the steps of P networks; compile nothing.

        Args:
          members: P.
          max_memory: the memory limit of this process in bytes; None for what is free now.

        Raises:
          MemoryError: if it does not.
        """
        budget = self._trainer.budget(max_memory)
        self._trainer.check_memory(members, budget, members * num_bytes(self._state))

    def train(
        self,
        weights: PyTree,
        masks: PyTree,
        seeds: Sequence[int],
        max_memory: float | None = None,
        advance: Advance = lambda steps, before=False: None,
        autosave: Autosave | None = None,
        model_state: PyTree = None,
        context: Mapping[str, PyTree] | None = None,
    ) -> Trained:
        """Train P networks.

        Args:
          weights: start weights, `[P, ...]` per leaf.
          masks: bool, `[P, ...]` per leaf; pruned weights are set to 0 and stay 0.
          seeds: the seeds of the P networks; networks with the same seed see the same batches.
          max_memory: the memory limit of this process in bytes; None for what is free now.
          advance: called with the progress at every chunk boundary.
          autosave: saves the training in progress; None does not save it.
          model_state: the start states of networks with state, `[P, ...]` per leaf.
          context: what the optimizer needs of each network, `[P, ...]` per leaf.

        Raises:
          Stopped: if a signal asked for a stop; the state is on disk.
          MemoryError: if even the smallest group does not fit.
        """
        self.prepare(len(seeds), max_memory)
        state = jax.device_get(self._begin(weights, masks))
        distinct = list(dict.fromkeys(seeds))
        orders = places(seeds, distinct)
        return self._trainer.train(
            lambda chosen: jax.device_get(self._start_params(population.take(state, chosen))),
            Stream(
                jnp.asarray(orders),
                seed_keys(distinct, ROUND, LOSS)[orders],
                {"mask": state.mask, **(context or {})},
            ),
            seed_keys(distinct, ROUND, BATCHES),
            advance,
            autosave,
            model_state=model_state,
        )
