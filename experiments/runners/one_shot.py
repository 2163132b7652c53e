"""Heuristic supermasks: one-shot masks of trained networks, evaluated on untrained weights.

    seeds -> dense networks, trained by `iterative` in the folder ``dense``
    for each seed: the scores of all criteria
        -> for each power, a mask, evaluated on every kind of untrained weights
        -> rows

The masks are not saved; `ticket` makes one again.

If the dense networks start from a ticket, masks go on from its mask.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import optax
from jax import lax
from jax.stages import Lowered
from ml_collections import ConfigDict

from experiments.engine.batches import eval_data
from experiments.engine.objectives import measure
from experiments.engine.progress import RoundProgress, announce_finished
from experiments.engine.work import Program, Work, on_a_mesh
from experiments.problems.problem import Problem
from experiments.problems.seeds import ADVANCE, seed_keys
from experiments.runners import hyperparameters, iterative, iterative_plan, settings
from experiments.runners.optimizers import make_optimizer
from experiments.runners.outcomes import Outcome, abstract_outcome
from experiments.runners.problems import refuse_state
from experiments.runners.retraining import Retrainer
from experiments.runners.rows import Origin, in_order, make_row
from experiments.runners.settings import SWEEP, integer, list_of, one_of
from experiments.runners.starts import with_checksum
from experiments.runners.untrained_weights import WEIGHTS, untrained_weights
from experiments.stopping import check_stop
from experiments.storage import results
from experiments.storage.autosave import SAVE_EVERY, Autosave
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.identity import RunFolder
from experiments.storage.records import RESULTS, Records
from experiments.storage.tickets import Ticket
from supermask_jax import masks, population
from supermask_jax.criteria import CRITERIA

PyTree = Any

LISTS = ("powers", "criteria", "weights", "seeds")
NUMBERS = ()
COLUMNS: results.Columns = {
    "id": results.identifier,
    "experiment": results.text,
    "network": results.text,
    "dataset": results.text,
    "criterion": results.text,
    "weights": results.text,
    "seed": results.integer,
    "power": results.integer,
    "density": results.number,
    "validation_accuracy": results.number,
    "test_accuracy": results.number,
    "retrained_test_accuracy": results.number,
    "code_version": results.text,
    "command": results.text,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(iterative_plan.PruningSettings):
    """The settings of one-shot masks and of the dense networks that they come from."""

    criteria: Annotated[Sequence[str], list_of(one_of("criterion", CRITERIA)), SWEEP]
    weights: Annotated[Sequence[str], list_of(one_of("kind of weights", WEIGHTS)), SWEEP]
    powers: Annotated[Sequence[int], list_of(integer(0)), SWEEP]
    retrain_power: Annotated[int, integer(-1), SWEEP]  # -1: nothing is retrained
    retrain_epochs: Annotated[int, integer(1)]

    def of_dense(self) -> iterative_plan.Settings:
        """Return the settings for training the dense networks."""
        shared = self.shared_with(iterative_plan.PruningSettings)
        return iterative_plan.Settings(**shared, variants=self.criteria, num_rounds=0)


class Plan(NamedTuple):
    """A checked configuration, with the plan of the dense networks.

    Attributes:
      config: the settings.
      dense: the plan of the dense networks.
      retraining: the optimizer of masked networks; its schedule has the length of their training.
    """

    config: Settings
    dense: iterative_plan.Plan
    retraining: optax.GradientTransformation

    @property
    def problem(self) -> Problem:
        """The network and the data set."""
        return self.dense.problem

    @property
    def mask(self) -> PyTree | None:
        """The mask of the ticket that the dense networks start from, `[...]` per leaf."""
        return self.dense.ticket and self.dense.ticket.mask

    def members(self, seed: int) -> list[str]:
        """Return the criteria to evaluate for a seed."""
        return [m.variant.criterion for m in self.dense.pruned if m.seed == seed and m.variant]


def make_plan(
    config: ConfigDict,
    data_dir: str | None = None,
    part: str | None = None,
    devices: Sequence[Any] | None = None,
) -> Plan:
    """Check a configuration of `experiments.configs.base.one_shot` and load its data.

    The interface is that of `registry.Runner.make_plan`.
    """
    checked = with_checksum(settings.read(Settings, config.to_dict()))
    hyperparameters.refuse_lists(checked)
    if checked.retrain_power not in (-1, *checked.powers):
        raise ValueError(
            f"config.retrain_power is {checked.retrain_power}, expected -1 or one of the powers."
        )
    dense = iterative_plan.plan_from(checked.of_dense(), data_dir, part, devices)
    refuse_state(checked.network, dense.problem, "untrained weights")
    steps = settings.count_steps("retrain_epochs", checked.retrain_epochs, dense.problem)
    retraining = make_optimizer(checked, dense.problem, steps)
    return Plan(checked, dense, retraining)


def run(
    plan: Plan,
    folder: RunFolder,
    command: str,
    max_memory: float | None = None,
    save_every: float = SAVE_EVERY,
) -> list[results.Row]:
    """Evaluate the masks of the seeds that are not complete on disk.

    It writes ``results.csv``, and the run of the dense networks in ``dense``. The interface is that
    of `registry.Runner.run`.
    """
    records = Records(folder, RESULTS, COLUMNS, row_key(dataclasses.asdict(plan.config)))
    todo = [seed for seed in plan.dense.seeds if _part_name(seed) not in records]
    if not todo:
        announce_finished(folder.path)
        return records.rows()
    if plan.config.retrain_power >= 0:  # refuse before the dense training what would not fit after
        networks = max(len(plan.members(seed)) for seed in todo) * len(plan.config.weights)
        make_retrainer(plan).check_memory(networks, max_memory)
    own = folder.below("dense")
    iterative.run(plan.dense, own, command, max_memory, save_every)
    checkpoints = Checkpoints(own.below("checkpoints"), plan.config.keep_checkpoints)
    dense = checkpoints.load(0, abstract_outcome(plan.dense, 0))
    bench = Bench(plan, max_memory)
    origin = Origin(folder.code_version, command)
    num_masks = {seed: len(plan.members(seed)) * len(plan.config.powers) for seed in todo}
    with (
        RoundProgress(len(todo), sum(num_masks.values()), noun="seed", unit="mask") as progress,
        jax.default_matmul_precision(plan.config.matmul_precision),
    ):
        if finished := len(plan.dense.seeds) - len(todo):
            progress.announce_resumed(folder.path, finished + 1, len(plan.dense.seeds))
        for number, seed in enumerate(todo, 1):
            check_stop()
            progress.start_round(number)
            place = plan.dense.seeds.index(seed)
            outcome: Outcome = population.take(dense, place)
            autosave = Autosave(folder, _part_name(seed), save_every)
            measured = bench.measure(seed, outcome.state.w_i, outcome.w_f, autosave)
            new = _make_rows(plan, seed, measured, origin)
            records.add(_part_name(seed), new)
            autosave.clear()
            progress.advance(num_masks[seed])
            progress.finish_round(number, new)
    return records.rows()


class Measured(NamedTuple):
    """The results of the masks of one seed, as NumPy arrays.

    There are C criteria, N powers and K kinds of weights.

    Attributes:
      density: kept / prunable weights, `[N]`.
      validation_accuracy: `[C, N, K]`.
      test_accuracy: `[C, N, K]`.
      retrained_test_accuracy: `[C, N, K]`, NaN for powers that are not retrained.
    """

    density: np.ndarray
    validation_accuracy: np.ndarray
    test_accuracy: np.ndarray
    retrained_test_accuracy: np.ndarray


class Bench:
    """The program that makes and evaluates masks, compiled once per number of criteria.

    Args:
      plan: from `make_plan`.
      max_memory: the memory limit of this process in bytes while retraining; None for what is free
        then.
    """

    def __init__(self, plan: Plan, max_memory: float | None = None) -> None:
        self._plan = plan
        self._max_memory = max_memory
        problem = plan.problem
        self._mesh = population.make_mesh(problem.devices)
        self._data = eval_data(problem.network.apply, problem.params, problem.dataset)
        self._place_data = functools.cache(
            functools.partial(population.replicate, self._data, self._mesh)
        )
        counts = [plan.dense.scope.counts(power) for power in plan.config.powers]
        self._counts = jax.tree.map(lambda *n: np.array(n, np.int32), *counts)
        self._program = jax.jit(population.map_members(self._measure_one, mesh=self._mesh))
        self._retrainer = make_retrainer(plan)

    def work(self) -> Work:
        """Return the evaluations of all masks, and the trainings of some again."""
        plan = self._plan
        criteria = max(len(plan.members(seed)) for seed in plan.dense.seeds)
        evaluate = functools.partial(self._lower, criteria)
        programs = (Program("evaluate masks", evaluate, len(plan.dense.seeds)),)
        if plan.config.retrain_power < 0:
            return Work((), programs)
        networks = criteria * len(plan.config.weights)
        retrained = self._retrainer.trainings("retrained networks", networks, len(plan.dense.seeds))
        return Work((retrained,), programs)

    def _lower(self, criteria: int) -> Lowered:
        """Make the program that evaluates the masks of some criteria, for abstract arguments."""
        params = self._plan.problem.params
        shared = jax.eval_shape(jax.random.key, 0), params, self._counts, self._data
        scores, shared = on_a_mesh(self._mesh, criteria, params, shared)
        return self._program.lower((), scores, *shared)

    def measure(
        self, seed: int, w_i: PyTree, w_f: PyTree, autosave: Autosave | None = None
    ) -> Measured:
        """Evaluate all masks of one seed; the results are NaN if its dense network diverged.

        Args:
          seed: the seed, which breaks ties and draws random weights.
          w_i: the initial weights, `[...]` per leaf.
          w_f: the trained weights, `[...]` per leaf.
          autosave: saves the retraining in progress; None does not save it.

        Raises:
          Stopped: if a signal asked for a stop; the state is on disk.
          MemoryError: if even the smallest group of members does not fit.
        """
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(w_f)):
            return self._nothing(len(self._plan.members(seed)))
        criteria = self._plan.members(seed)
        key = seed_keys([seed], 0, ADVANCE)[0]
        scores = _score(w_i, w_f, tuple(criteria), self._plan.mask)
        scores = population.pad(scores, self._mesh.size)
        shared = population.replicate((key, w_i, self._counts), self._mesh)
        placed = population.shard(scores, self._mesh)
        _, accuracies = self._program((), placed, *shared, self._place_data())
        validation, test = population.take(population.gather(accuracies), slice(len(criteria)))
        retrained = np.full_like(test, np.nan)
        if self._plan.config.retrain_power >= 0:
            place = list(self._plan.config.powers).index(self._plan.config.retrain_power)
            retrained[:, place] = self._retrain(
                seed, key, w_i, population.take(scores, slice(len(criteria))), place, autosave
            )
        return Measured(self._densities(), validation, test, retrained)

    def ticket(self, row: results.Row, w_i: PyTree, w_f: PyTree) -> tuple[PyTree, PyTree]:
        """Return the mask of a row and its untrained weights, `[...]` per leaf.

        Args:
          row: the row.
          w_i: the initial weights of its seed, `[...]` per leaf.
          w_f: the trained weights, `[...]` per leaf.
        """
        config = self._plan.config
        prune_key, weights_key = jax.random.split(seed_keys([row["seed"]], 0, ADVANCE)[0])
        num_keep = population.take(self._counts, list(config.powers).index(row["power"]))
        scores = population.take(_score(w_i, w_f, (row["criterion"],), self._plan.mask), 0)
        pruned = masks.prune(prune_key, scores, self._whole(w_i), num_keep)
        mask, weights = self._tickets(weights_key, w_i, pruned)
        return mask, weights[list(config.weights).index(row["weights"])]

    def _measure_one(
        self, nothing: tuple, scores: PyTree, key: jax.Array, w_i: PyTree, counts: PyTree,
        data: PyTree,
    ) -> tuple[tuple, tuple[jax.Array, jax.Array]]:  # fmt: skip
        """Return the validation and test accuracies of one criterion's masks, both `[N, K]`."""
        apply, losses = self._plan.problem.network.apply, self._plan.problem.losses

        def of_network(params: PyTree) -> tuple[jax.Array, jax.Array]:
            validation, test = (
                measure(apply, params, data[split], losses)["accuracy"]
                for split in ("validation", "test")
            )
            return validation, test

        def at_power(pruned: PyTree) -> tuple[jax.Array, jax.Array]:
            mask, weights = self._tickets(weights_key, w_i, pruned)
            networks = population.stack([masks.apply(mask, kind) for kind in weights])
            return lax.map(of_network, networks)

        prune_key, weights_key = jax.random.split(key)
        pruned = masks.prune_many(prune_key, scores, self._whole(w_i), counts)
        return nothing, lax.map(at_power, pruned)

    def _tickets(
        self, weights_key: jax.Array, w_i: PyTree, pruned: PyTree
    ) -> tuple[PyTree, list[PyTree]]:
        """Return a mask, whose prunable leaves are pruned, and every kind of weights for it."""
        prunable = self._plan.problem.prunable
        mask = jax.tree.map(
            lambda yes, m, one: m if yes else one, prunable, pruned, self._whole(w_i)
        )
        weights = [
            untrained_weights(kind, weights_key, w_i, prunable, mask)
            for kind in self._plan.config.weights
        ]
        return mask, weights

    def _whole(self, w_i: PyTree) -> PyTree:
        """Return the mask before pruning."""
        return masks.ones(w_i) if self._plan.mask is None else self._plan.mask

    def _nothing(self, criteria: int) -> Measured:
        shape = criteria, len(self._plan.config.powers), len(self._plan.config.weights)
        return Measured(self._densities(), *[np.full(shape, np.float32(np.nan))] * 3)

    def _retrain(
        self,
        seed: int,
        key: jax.Array,
        w_i: PyTree,
        scores: PyTree,
        place: int,
        autosave: Autosave | None,
    ) -> np.ndarray:
        """Retrain the networks of one power's masks; return their test accuracies, `[C, K]`."""
        num_keep = population.take(self._counts, place)
        prune_key, weights_key = jax.random.split(key)

        def tickets(scores: PyTree) -> tuple[PyTree, PyTree]:
            pruned = masks.prune(prune_key, scores, self._whole(w_i), num_keep)
            mask, weights = self._tickets(weights_key, w_i, pruned)
            return population.stack([mask] * len(weights)), population.stack(weights)

        mask, weights = jax.jit(lambda x: lax.map(tickets, x))(scores)
        flat = functools.partial(jax.tree.map, lambda x: x.reshape(-1, *x.shape[2:]))
        shape = population.num_members(scores), len(self._plan.config.weights)
        trained = self._retrainer.train(
            flat(weights),
            flat(mask),
            [seed] * math.prod(shape),
            self._max_memory,
            autosave=autosave,
        )
        return trained.table["test_accuracy"].reshape(shape)

    def _densities(self) -> np.ndarray:
        problem = self._plan.problem
        kept, total = np.zeros(len(self._plan.config.powers), np.int64), 0
        for counts, leaf, yes in zip(
            *(jax.tree.leaves(x) for x in (self._counts, problem.params, problem.prunable)),
            strict=True,
        ):
            if yes:
                kept, total = kept + counts, total + leaf.size
        return kept / total


@functools.partial(jax.jit, static_argnames="criteria")
def _score(
    w_i: PyTree, w_f: PyTree, criteria: tuple[str, ...], mask: PyTree | None = None
) -> PyTree:
    """Return the scores of several criteria, `[C, ...]` per leaf."""
    return population.stack([CRITERIA[name](w_i, w_f, mask) for name in criteria])


def make_retrainer(plan: Plan) -> Retrainer:
    """Return what retrains the networks of one seed's masks."""
    return Retrainer(
        plan.problem,
        num_seeds=1,
        optimizer=plan.retraining,
        epochs=plan.config.retrain_epochs,
        eval_every=plan.config.eval_every,
        members_at_once=plan.config.members_at_once,
    )


def work(plan: Plan) -> Work:
    """Return what a run of a plan computes on its devices."""
    return iterative.work(plan.dense).then(Bench(plan).work())


def row_key(config: Mapping[str, Any]) -> Callable[[results.Row], tuple]:
    """Return a sort key for rows: by power, criterion, weights and seed, as configured."""
    names = {"power": "powers", "criterion": "criteria", "weights": "weights", "seed": "seeds"}
    return in_order({column: config[name] for column, name in names.items()})


def alone(config: ConfigDict, row: results.Row) -> ConfigDict:
    """Return the configuration that computes one row and as little else as possible."""
    config = ConfigDict(config.to_dict())
    config.update(
        criteria=[row["criterion"]],
        weights=[row["weights"]],
        seeds=[row["seed"]],
        powers=[row["power"]],
    )
    if config.retrain_power != row["power"]:
        config.retrain_power = -1
    return config


def ticket(plan: Plan, folder: RunFolder, row: results.Row) -> Ticket:
    """Return the mask of a row, made again from its dense network, and its untrained weights.

    Raises:
      FileNotFoundError: if the run has no checkpoint of its dense networks.
      ValueError: if the checkpoint is damaged, or if the dense network diverged.
    """
    of_dense = {"variant": "dense", "seed": row["seed"], "round": 0}
    dense = iterative.ticket(plan.dense, folder.below("dense"), of_dense)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(dense.final)):
        raise ValueError(f"row {row['id']} diverged: its dense network is NaN or infinite.")
    mask, start = jax.device_get(Bench(plan).ticket(row, dense.start, dense.final))
    zeros = jax.tree.map(np.zeros_like, start)
    return Ticket(mask, start, zeros, jax.tree.map(np.where, mask, start, zeros))


def _part_name(seed: int) -> str:
    return f"seed_{seed}"


def _make_rows(plan: Plan, seed: int, measured: Measured, origin: Origin) -> list[results.Row]:
    config, criteria = plan.config, plan.members(seed)
    [numbers] = hyperparameters.combinations(config, hyperparameters.OF_PRUNING)
    places = itertools.product(*map(enumerate, (criteria, config.powers, config.weights)))
    rows = []
    for (c, criterion), (n, power), (k, weights) in places:
        own = {"criterion": criterion, "weights": weights, "seed": seed, "power": power}
        table = {
            name: getattr(measured, name)[c : c + 1, n, k]
            for name in ("validation_accuracy", "test_accuracy", "retrained_test_accuracy")
        }
        values = results.measured(table, 0, COLUMNS) | {"density": float(measured.density[n])}
        rows.append(make_row(COLUMNS, config, origin, numbers, own, values))
    return rows
