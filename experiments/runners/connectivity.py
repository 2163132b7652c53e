"""Linear mode connectivity: copies of a ticket, trained in other orders of batches (Frankle 2020).

    seeds x variants -> tickets of all rounds, by `iterative` in the folder ``tickets``
    for each configured round: its tickets -> copies [P, ...] -> train as one population
        for each two copies of a ticket: the error at points of the line between them -> rows

Where the error stays low on the line, training is stable: whatever the order of the batches, it
ends in the same basin. The copies are not saved.
"""

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.stages import Lowered
from ml_collections import ConfigDict

from experiments.engine.arrays import abstract
from experiments.engine.batches import eval_data
from experiments.engine.forecast import Forecast, main_memory_limit, num_bytes
from experiments.engine.objectives import measure
from experiments.engine.progress import RoundProgress, announce_finished
from experiments.engine.trainer import Advance, Schedule, Trainer
from experiments.engine.work import Program, Trainings, Work, on_a_mesh
from experiments.problems.problem import Problem
from experiments.problems.seeds import BATCHES, COPIES, LOSS, seed_keys
from experiments.runners import hyperparameters, iterative, iterative_plan, settings
from experiments.runners.iterative import part_name
from experiments.runners.outcomes import Outcome, abstract_outcome, densities
from experiments.runners.problems import refuse_state
from experiments.runners.rows import Origin, in_order, make_row
from experiments.runners.settings import SWEEP, integer, list_of
from experiments.runners.sweeps import seed_places
from experiments.runners.variants import Variant
from experiments.stopping import check_stop
from experiments.storage import results
from experiments.storage.autosave import SAVE_EVERY, Autosave
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.identity import RunFolder
from experiments.storage.records import RESULTS, Records
from experiments.storage.tickets import Ticket
from supermask_jax import population, rounds
from supermask_jax.training import Stream
from supermask_jax.transforms import freeze_pruned

PyTree = Any

LISTS = ("variants", "rounds", "seeds")
NUMBERS = ()
COLUMNS: results.Columns = {
    "id": results.identifier,
    "experiment": results.text,
    "network": results.text,
    "dataset": results.text,
    "variant": results.text,
    "rewind_step": results.integer,
    "seed": results.integer,
    "round": results.integer,
    "copy": results.integer,
    "other_copy": results.integer,
    "position": results.number,
    "density": results.number,
    "validation_loss": results.number,
    "validation_accuracy": results.number,
    "test_loss": results.number,
    "test_accuracy": results.number,
    "code_version": results.text,
    "command": results.text,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(iterative_plan.TicketSettings):
    """The settings of copies, of the lines between them, and of the tickets."""

    rounds: Annotated[Sequence[int], list_of(integer(0)), SWEEP]
    copies: Annotated[int, integer(2), SWEEP]
    points: Annotated[int, integer(3), SWEEP]  # on a line, both ends among them

    def of_tickets(self) -> iterative_plan.Settings:
        """Return the settings for making the tickets, whose checkpoints are all kept."""
        shared, last = self.shared_with(iterative_plan.TicketSettings), max(self.rounds)
        return iterative_plan.Settings(**shared, num_rounds=last, keep_checkpoints=last + 1)


class Plan(NamedTuple):
    """A checked configuration, with the plan of the tickets."""

    config: Settings
    tickets: iterative_plan.Plan

    @property
    def problem(self) -> Problem:
        """The network and the data set."""
        return self.tickets.problem

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Every two copies of a ticket."""
        return list(itertools.combinations(range(self.config.copies), 2))

    @property
    def positions(self) -> np.ndarray:
        """The points of a line, from 0 at one copy to 1 at the other, `[points]`."""
        return np.linspace(0, 1, self.config.points)

    def num_copies(self, round: int) -> int:
        """Return the number of copies that a round trains."""
        return len(self.tickets.members(round)) * self.config.copies


def make_plan(
    config: ConfigDict,
    data_dir: str | None = None,
    part: str | None = None,
    devices: Sequence[Any] | None = None,
) -> Plan:
    """Check a configuration of `experiments.configs.base.connectivity` and load its data.

    The interface is that of `registry.Runner.make_plan`.
    """
    checked = settings.read(Settings, config.to_dict())
    hyperparameters.refuse_lists(checked)
    tickets = iterative_plan.plan_from(checked.of_tickets(), data_dir, part, devices)
    refuse_state(checked.network, tickets.problem, "networks between two trained ones")
    return Plan(checked, tickets)


def run(
    plan: Plan,
    folder: RunFolder,
    command: str,
    max_memory: float | None = None,
    save_every: float = SAVE_EVERY,
) -> list[results.Row]:
    """Make the tickets, and compare their copies in the rounds that are not complete on disk.

    It writes ``results.csv``, and the run of the tickets in ``tickets``. The interface is that of
    `registry.Runner.run`.
    """
    config = plan.config
    records = Records(folder, RESULTS, COLUMNS, row_key(dataclasses.asdict(config)))
    todo = [round for round in sorted(config.rounds) if part_name(round) not in records]
    if not todo:
        announce_finished(folder.path)
        return records.rows()
    copier = Copier(plan)
    copier.check_memory(max(map(plan.num_copies, todo)), max_memory)
    own = folder.below("tickets")
    tickets = Checkpoints(own.below("checkpoints"), plan.tickets.config.keep_checkpoints)
    tickets.go_back(todo)
    iterative.run(plan.tickets, own, command, max_memory, save_every)
    origin = Origin(folder.code_version, command)
    with (
        RoundProgress(len(todo), copier.num_steps(todo), noun="comparison") as progress,
        jax.default_matmul_precision(config.matmul_precision),
    ):
        progress.announce(str(copier.forecast(todo, max_memory)))
        for number, round in enumerate(todo, 1):
            check_stop()
            progress.start_round(number)
            autosave = Autosave(folder, part_name(round), save_every)
            ticket: Outcome = tickets.load(round, abstract_outcome(plan.tickets, round))
            copies = copier.train(round, ticket.state, progress.advance, autosave)
            new = _make_rows(plan, round, ticket.state.mask, copier.measure(copies), origin)
            records.add(part_name(round), new)
            autosave.clear()
            progress.finish_round(number, new)
    return records.rows()


class Copier:
    """The programs that train copies of tickets and measure networks between them.

    Args:
      plan: from `make_plan`.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        config, problem, tickets = plan.config, plan.problem, plan.tickets
        self._trainer = Trainer(
            problem,
            freeze_pruned(tickets.optimizer),
            Schedule(tickets.num_steps, config.eval_every, config.chunk_evals),
            context={"mask": abstract(problem.params, dtype=bool)},
            num_orders=len(tickets.seeds) * config.copies,
            members_at_once=config.members_at_once,
        )
        self._start_params = jax.jit(jax.vmap(rounds.start_params))
        self._mesh = population.make_mesh(problem.devices)
        self._program = jax.jit(population.map_members(self._measure_line, mesh=self._mesh))

    def work(self) -> Work:
        """Return the trainings of all copies, and the measurements between them."""
        plan = self._plan
        sizes = Counter(map(plan.num_copies, plan.config.rounds)).items()
        start = plan.config.rewind_step
        return Work(
            tuple(Trainings("copies", self._trainer, size, n, start) for size, n in sizes),
            tuple(
                Program("measure lines", functools.partial(self._lower, size), n)
                for size, n in sizes
            ),
        )

    def _lower(self, copies: int) -> Lowered:
        """Make the program that measures the lines between copies, for abstract arguments."""
        problem = self._plan.problem
        lines = copies // self._plan.config.copies * len(self._plan.pairs)
        data = eval_data(problem.network.apply, problem.params, problem.dataset)
        shared = np.float32(self._plan.positions), data
        ends, shared = on_a_mesh(self._mesh, lines, (problem.params, problem.params), shared)
        return self._program.lower((), ends, *shared)

    def num_steps(self, todo: Sequence[int]) -> int:
        """Return the number of steps that all copies of some rounds train."""
        length = self._plan.tickets.num_steps - self._plan.config.rewind_step
        return length * sum(map(self._plan.num_copies, todo))

    def check_memory(self, copies: int, max_memory: float | None) -> None:
        """Check that main memory holds what grows with the steps of some copies."""
        limit = main_memory_limit(max_memory, self._trainer.platform)
        self._trainer.check_memory(copies, limit, self._held(copies))

    def forecast(self, todo: Sequence[int], max_memory: float | None) -> Forecast:
        """Compile the trainings of some rounds, and forecast their memory and time.

        Args:
          todo: the numbers of the rounds.
          max_memory: the memory limit of this process in bytes; None for what is free now.

        Raises:
          MemoryError: if even the smallest group of members does not fit.
        """
        sizes = Counter(map(self._plan.num_copies, todo))
        steps = self.num_steps(todo)
        return self._trainer.forecast(sizes, self._held(max(sizes)), max_memory, steps)

    def train(
        self,
        round: int,
        state: rounds.RoundState,
        advance: Advance = lambda steps, before=False: None,
        autosave: Autosave | None = None,
    ) -> PyTree:
        """Train the copies of all tickets of a round, and return their last weights `[P, ...]`.

        Args:
          round: the number of the round.
          state: `[T, ...]` per leaf, what the training of the tickets started from; P is T times
            the number of copies, those of a ticket one after the other.
          advance: called with the progress at every chunk boundary.
          autosave: saves the training in progress; None does not save it.

        Raises:
          Stopped: if a signal asked for a stop; the state is on disk.
        """
        tickets, number = self._plan.tickets, self._plan.config.copies
        ticket_of = np.repeat(np.arange(len(tickets.members(round))), number)
        copy_of = np.tile(np.arange(number), len(tickets.members(round)))
        orders = seed_places(tickets.members(round), tickets.seeds)[ticket_of] * number + copy_of
        keys = jnp.concatenate([copy_keys(seed, number) for seed in tickets.seeds])
        loss_keys, batch_keys = (
            jax.vmap(lambda key, purpose=purpose: jax.random.fold_in(key, purpose))(keys)
            for purpose in (LOSS, BATCHES)
        )

        def start_params(chosen: slice) -> PyTree:
            return jax.device_get(self._start_params(population.take(state, ticket_of[chosen])))

        trained = self._trainer.train(
            start_params,
            Stream(
                jnp.asarray(orders, jnp.int32),
                loss_keys[orders],
                {"mask": population.take(state.mask, ticket_of)},
            ),
            batch_keys,
            advance,
            autosave,
            first_step=self._plan.config.rewind_step,
        )
        return trained.params

    def measure(self, copies: PyTree) -> dict[str, np.ndarray]:
        """Measure networks on the lines between copies, `[T, pairs, points]` per metric.

        A line with an end that diverged has NaN everywhere.

        Args:
          copies: from `train`, T tickets.
        """
        number, pairs = self._plan.config.copies, np.array(self._plan.pairs)
        tickets = population.num_members(copies) // number
        places = (np.arange(tickets)[:, None, None] * number + pairs).reshape(-1, 2)
        ends = tuple(population.take(copies, places[:, side]) for side in (0, 1))
        padded = population.pad(ends, -(-len(places) // self._mesh.size) * self._mesh.size)
        problem = self._plan.problem
        data = eval_data(problem.network.apply, problem.params, problem.dataset)
        shared = population.replicate((np.float32(self._plan.positions), data), self._mesh)
        _, found = self._program((), population.shard(padded, self._mesh), *shared)
        found = population.take(population.gather(found), slice(len(places)))
        return {name: x.reshape(tickets, len(pairs), -1) for name, x in found.items()}

    def _measure_line(
        self, nothing: tuple, ends: tuple[PyTree, PyTree], positions: jax.Array, data: PyTree
    ) -> tuple[tuple, dict[str, jax.Array]]:
        apply, losses = self._plan.problem.network.apply, self._plan.problem.losses
        finite = jnp.all(jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(ends)]))

        def at(position: jax.Array) -> dict[str, jax.Array]:
            params = jax.tree.map(lambda a, b: (1 - position) * a + position * b, *ends)
            found = {
                f"{split}_{name}": value
                for split in ("validation", "test")
                for name, value in measure(apply, params, data[split], losses).items()
            }
            return jax.tree.map(lambda value: jnp.where(finite, value, jnp.nan), found)

        return nothing, lax.map(at, positions)

    def _held(self, copies: int) -> int:
        """Return the bytes of the copies in main memory: where they start, their masks and ends."""
        weights = abstract(self._plan.problem.params, leading=(copies,))
        return 2 * num_bytes(weights) + num_bytes(abstract(weights, dtype=bool))


def copy_keys(seed: int, number: int) -> jax.Array:
    """Return the keys of the copies of a seed, `[number]`; all variants and rounds share them."""
    [key] = seed_keys([seed], 0, COPIES)
    return jnp.stack([jax.random.fold_in(key, copy) for copy in range(number)])


def work(plan: Plan) -> Work:
    """Return what a run of a plan computes on its devices."""
    return iterative.work(plan.tickets).then(Copier(plan).work())


def row_key(config: Mapping[str, Any]) -> Callable[[results.Row], tuple]:
    """Return a sort key for rows: by round, variant, seed, copies and position."""
    variants = ["dense", *(str(Variant.parse(text)) for text in config["variants"])]
    of_ticket = in_order({"variant": variants, "seed": config["seeds"]})
    on_line = "copy", "other_copy", "position"
    return lambda row: (row["round"], *of_ticket(row), *(row[name] for name in on_line))


def alone(config: ConfigDict, row: results.Row) -> ConfigDict:
    """Return the configuration that computes the ticket of a row and its copies."""
    config = ConfigDict(config.to_dict())
    variants = config.variants if row["round"] == 0 else [row["variant"]]
    config.update(variants=variants, seeds=[row["seed"]], rounds=[row["round"]])
    return config


def ticket(plan: Plan, folder: RunFolder, row: results.Row) -> Ticket:
    """Return the ticket whose copies a row compares, with its own final weights.

    Raises:
      FileNotFoundError: if the run keeps no checkpoint of its round.
      ValueError: if the checkpoint is damaged.
    """
    return iterative.ticket(plan.tickets, folder.below("tickets"), row)


def _make_rows(
    plan: Plan, round: int, mask: PyTree, measured: dict[str, np.ndarray], origin: Origin
) -> list[results.Row]:
    shares = densities(mask, plan.problem.prunable)
    rows = []
    for t, member in enumerate(plan.tickets.members(round)):
        for p, (copy, other) in enumerate(plan.pairs):
            table = {name: values[t, p] for name, values in measured.items()}
            for i, position in enumerate(plan.positions):
                own = {
                    "variant": str(member.variant or "dense"),
                    "rewind_step": plan.config.rewind_step,
                    "seed": member.seed,
                    "round": round,
                    "copy": copy,
                    "other_copy": other,
                    "position": float(position),
                }
                values = results.measured(table, i, COLUMNS) | {"density": shares[t]}
                rows.append(make_row(COLUMNS, plan.config, origin, member.numbers, own, values))
    return rows
