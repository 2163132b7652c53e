"""Iterative pruning: one dense training per seed, then rounds of variants x seeds.

Every round trains its members as one population:

    round 0: seeds -> w_0 [S, ...] -> train -> w_f [S, ...] -> rows, checkpoint
    round r: for each variant, advance -> RoundState [S, ...], written into [P, ...]
             start parameters [P, ...] -> train -> w_f [P, ...] -> rows, checkpoint

With late rewinding, w_0 gives way after round 0 to the weights w_k of the dense network at step k,
which later rounds prune by and restart from; their trainings begin at step k.

Settings that list several numbers make more members: then S counts seeds x the numbers of a
training, and each dense network branches into variants x pruning rates.

A run that starts from a ticket trains it in round 0, with the same weights and the same mask for
all seeds, which differ in their batches. Later rounds go on from its mask.

The results of a round are a pure function of the configuration, the seeds and the number of the
round. Rounds that are complete on disk are not computed again.
"""

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.stages import Lowered, Wrapped
from ml_collections import ConfigDict

from experiments import processes
from experiments.engine.arrays import abstract, empty, write
from experiments.engine.forecast import Forecast, check_fits, main_memory_limit, num_bytes
from experiments.engine.progress import RoundProgress, announce_finished
from experiments.engine.trainer import Advance, Schedule, Trained, Trainer
from experiments.engine.work import Program, Trainings, Work, abstract_keys, on_one_device
from experiments.problems.seeds import ADVANCE, BATCHES, INIT, LOSS, seed_keys
from experiments.runners import hyperparameters, mask_analysis, settings
from experiments.runners.iterative_plan import NUMBERS, Plan, Settings, plan_from
from experiments.runners.outcomes import (
    AnyOutcome,
    Outcome,
    OutcomeWithState,
    abstract_members,
    abstract_outcome,
    densities,
)
from experiments.runners.rows import Origin, in_order, make_row
from experiments.runners.starts import with_checksum
from experiments.runners.sweeps import seed_places
from experiments.runners.variants import Variant
from experiments.storage import results
from experiments.storage.autosave import SAVE_EVERY, Autosave
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.identity import RunFolder
from experiments.storage.records import RESULTS, Records
from experiments.storage.tickets import Ticket
from supermask_jax import population, rounds
from supermask_jax.actions import MASK_ONE, MASK_ZERO
from supermask_jax.criteria import CRITERIA
from supermask_jax.training import Stream
from supermask_jax.transforms import freeze_pruned
from supermask_jax.trees import EVERY_LEAF

PyTree = Any

LISTS = ("variants", "seeds")
ROW_BYTES = 2000  # of a row in main memory, where a run keeps its whole table

COLUMNS: results.Columns = {
    "id": results.identifier,
    "experiment": results.text,
    "network": results.text,
    "dataset": results.text,
    "variant": results.text,
    "criterion": results.text,
    "mask_one": results.text,
    "mask_zero": results.text,
    **hyperparameters.columns(NUMBERS),
    "seed": results.integer,
    "round": results.integer,
    "density": results.number,
    "early_stop_step": results.integer,
    "validation_loss": results.number,
    "validation_accuracy": results.number,
    "test_accuracy": results.number,
    "final_test_accuracy": results.number,
    "code_version": results.text,
    "command": results.text,
}


def make_plan(
    config: ConfigDict,
    data_dir: str | None = None,
    part: str | None = None,
    devices: Sequence[Any] | None = None,
) -> Plan:
    """Check a configuration of `experiments.configs.base.iterative` and load its data.

    The interface is that of `registry.Runner.make_plan`.
    """
    checked = with_checksum(settings.read(Settings, config.to_dict()))
    return plan_from(checked, data_dir, part, devices)


def run(
    plan: Plan,
    folder: RunFolder,
    command: str,
    max_memory: float | None = None,
    save_every: float = SAVE_EVERY,
) -> list[results.Row]:
    """Run the rounds that are not complete on disk.

    It writes ``results.csv``, ``analysis.csv``, ``curves/`` and ``checkpoints/``. The interface is
    that of `registry.Runner.run`.
    """
    config = plan.config
    laboratory = Laboratory(plan)
    files = RunFiles(plan, folder, command)
    first, outcome = files.resume()
    todo = range(first, config.num_rounds + 1)
    if not todo:
        announce_finished(folder.path)
        return files.rows()
    with (
        RoundProgress(config.num_rounds, plan.num_member_steps(todo)) as progress,
        jax.default_matmul_precision(config.matmul_precision),
    ):
        if first:
            progress.announce_resumed(folder.path, first)
        progress.announce(str(laboratory.prepare(todo, max_memory)))
        for round in todo:
            progress.start_round(round)
            autosave = Autosave(folder, part_name(round), save_every)
            state = laboratory.start(round, outcome)
            model_state = laboratory.start_model_state(round, outcome)
            analysed = laboratory.analyse(round, outcome, state) if outcome else []
            outcome = None  # frees its memory for the training
            trained = laboratory.train(round, state, progress.advance, autosave, model_state)
            outcome = laboratory.outcome(state, model_state, trained)
            new = files.add(round, outcome, trained, analysed, laboratory.eval_steps(round))
            autosave.clear()
            progress.finish_round(round, new)
    return files.rows()


class RunFiles:
    """The files of a run: written after every round, and read when the run is resumed.

    Args:
      plan: from `make_plan`.
      folder: the folder of the run.
      command: the command that was typed, for the table.
    """

    def __init__(self, plan: Plan, folder: RunFolder, command: str) -> None:
        self._plan, self._folder = plan, folder
        self._origin = Origin(folder.code_version, command)
        self._checkpoints = Checkpoints(folder.below("checkpoints"), plan.config.keep_checkpoints)
        order = row_key(dataclasses.asdict(plan.config))
        self._records = Records(folder, RESULTS, COLUMNS, order)
        self._analyses = Records(
            folder, mask_analysis.FILE, mask_analysis.COLUMNS, lambda row: row["round"]
        )

    def resume(self) -> tuple[int, AnyOutcome | None]:
        """Return the next round to run and the outcome of the round before it.

        The run resumes after the newest round with an intact checkpoint, provided that this round
        and all earlier ones have all their rows. The outcome is None if the next round is round 0.
        """
        whole = next(round for round in itertools.count() if not self._has_rows(round))
        found = self._checkpoints.load_newest(
            whole, lambda round: abstract_outcome(self._plan, round)
        )
        return (found[0] + 1, found[1]) if found else (0, None)

    def add(
        self,
        round: int,
        outcome: AnyOutcome,
        trained: Trained,
        analysed: list[results.Row],
        eval_steps: np.ndarray,
    ) -> list[results.Row]:
        """Write the files of a finished round, the checkpoint last, and return its rows.

        Args:
          round: the number of the round.
          outcome: its states and parameters.
          trained: its table and curves.
          analysed: its rows of `mask_analysis`; empty for round 0.
          eval_steps: int `[E]`, the step of every evaluation.
        """
        name = part_name(round)
        new = _make_rows(self._plan, round, outcome.state.mask, trained.table, self._origin)
        curves = self._folder.path / "curves" / f"{name}.parquet"
        if processes.is_first():
            several = hyperparameters.swept(self._plan.config, NUMBERS)
            names = ("variant", *several, "seed", "round")
            results.write_curves(curves, new, names, eval_steps, trained.curves)
        if round:
            self._analyses.add(name, analysed)
        self._records.add(name, new, [curves])
        self._checkpoints.save(round, outcome)
        return new

    def rows(self) -> list[results.Row]:
        """Return the rows of all rounds."""
        return self._records.rows()

    def _has_rows(self, round: int) -> bool:
        name = part_name(round)
        analysed = round == 0 or name in self._analyses
        return analysed and len(self._records.part(name)) == len(self._plan.members(round))


class Laboratory:
    """The compiled programs of a plan.

    There is one training per population size, one program per criterion that scores the weights,
    and one per pair of actions that advances a round by these scores.

    Args:
      plan: from `make_plan`.
    """

    def __init__(self, plan: Plan) -> None:
        config = plan.config
        self._plan = plan
        self._trainer = Trainer(
            plan.problem,
            freeze_pruned(plan.optimizer),
            Schedule(plan.num_steps, config.eval_every, config.chunk_evals, config.rewind_step),
            context={
                "mask": abstract(plan.problem.params, dtype=bool),
                **hyperparameters.abstract_context(config),
            },
            num_orders=len(plan.seeds),
            members_at_once=config.members_at_once,
        )
        self._score = {name: _compile_score(name) for name in {v.criterion for v in plan.variants}}
        self._advance = {
            actions: self._compile_advance(*actions)
            for actions in {(v.mask_one, v.mask_zero) for v in plan.variants}
        }
        self._analysis = mask_analysis.Analysis(plan.problem.prunable)
        self._start_params = jax.jit(jax.vmap(rounds.start_params))

    def eval_steps(self, round: int) -> np.ndarray:
        """Return the step of every evaluation of a round, int `[E]`."""
        steps = self._trainer.eval_steps
        return steps[steps >= self._plan.first_step(round)]

    def prepare(self, todo: range, max_memory: float | None = None) -> Forecast:
        """Compile the trainings of the rounds to run, and forecast their memory and time.

        Args:
          todo: the numbers of the rounds.
          max_memory: the memory limit of this process in bytes; None for what is free now.

        Raises:
          MemoryError: if even the smallest group of members does not fit.
        """
        populations, rows = self._plan.populations(todo), self._plan.num_rows(range(todo.stop))
        what = f"the {rows} results of {todo.stop} rounds of {max(populations)} members"
        limit = main_memory_limit(max_memory, self._trainer.platform)
        check_fits(what, rows * ROW_BYTES, limit)
        # The start states and final weights of all members stay in main memory during a round.
        held = num_bytes(abstract_outcome(self._plan, todo[-1])) + rows * ROW_BYTES
        steps = self._plan.num_member_steps(todo)
        return self._trainer.forecast(populations, held, max_memory, steps)

    def work(self) -> Work:
        """Return the trainings of all rounds, and the programs between them."""
        plan, times = self._plan, self._plan.config.num_rounds
        dense = Trainings("dense networks", self._trainer, len(plan.members(0)), 1)
        if not times:
            return Work((dense,))
        pruned = Trainings(
            "pruned networks", self._trainer, len(plan.pruned), times, plan.first_step(1)
        )
        sizes = Counter(member.variant for member in plan.pruned if member.variant).items()
        scores = Counter((variant.criterion, count) for variant, count in sizes)
        moves = Counter((variant.mask_one, variant.mask_zero, count) for variant, count in sizes)
        programs = [
            Program(f"score by {what[0]}", functools.partial(self._lower_score, *what), times * n)
            for what, n in scores.items()
        ] + [
            Program(
                f"advance by {what[0]}, {what[1]}",
                functools.partial(self._lower_advance, *what),
                times * n,
            )
            for what, n in moves.items()
        ]
        return Work((dense, pruned), tuple(programs))

    def start(self, round: int, previous: AnyOutcome | None) -> rounds.RoundState:
        """Return the states that a round starts from, `[P, ...]` per leaf, on the host.

        Args:
          round: the number of the round; round 0 trains the dense networks, or the ticket.
          previous: the outcome of the previous round; None for round 0.
        """
        return self._first_state() if previous is None else self._next_state(round, previous)

    def start_model_state(self, round: int, previous: AnyOutcome | None) -> PyTree:
        """Return the model states that a round starts with, `[P, ...]` per leaf, on the host.

        Weights that are rewound meet the state that they had then. A mask-1 action on every leaf
        goes on from the trained weights, and so from the trained state.

        Args:
          round: the number of the round.
          previous: the outcome of the previous round; None for round 0.

        Returns:
          The states; None for networks without state.
        """
        if previous is None:
            return self._first_model_state()
        if not isinstance(previous, OutcomeWithState):
            return None
        members = self._plan.members(round)
        actions = [MASK_ONE[member.variant.mask_one] for member in members if member.variant]
        goes_on = np.array([getattr(action, EVERY_LEAF, False) for action in actions])

        def choose(start: np.ndarray, end: np.ndarray) -> np.ndarray:
            return np.where(goes_on.reshape(-1, *[1] * (start.ndim - 1)), end, start)

        before = population.take(previous, self._parents(round))
        return jax.tree.map(choose, before.model_start, before.model_end)

    def analyse(
        self, round: int, previous: AnyOutcome, state: rounds.RoundState
    ) -> list[results.Row]:
        """Return the rows of `mask_analysis` for the masks that a round starts with.

        Args:
          round: the number of the round, 1 or more.
          previous: the outcome of the previous round.
          state: from `start`.
        """
        members = [
            mask_analysis.Member(str(member.variant), member.seed, member.numbers)
            for member in self._plan.members(round)
        ]
        parents = self._parents(round)
        rows = self._analysis.rows(members, parents, previous.state, previous.w_f, state)
        config = self._plan.config
        shared = {
            "experiment": config.experiment,
            "network": config.network,
            "dataset": config.dataset,
            "round": round,
        }
        return [shared | row for row in rows]

    def train(
        self,
        round: int,
        state: rounds.RoundState,
        advance: Advance,
        autosave: Autosave | None = None,
        model_state: PyTree = None,
    ) -> Trained:
        """Train the population of a round.

        Args:
          round: the number of the round.
          state: from `start`.
          advance: called with the progress at every chunk boundary.
          autosave: saves the training in progress; None does not save it.
          model_state: from `start_model_state`.

        Raises:
          Stopped: if a signal asked for a stop; the state is on disk.
        """
        orders = self._places(round)
        streams = Stream(
            batches=jnp.asarray(orders),
            key=self._keys(round, LOSS)[orders],
            context={
                "mask": state.mask,
                **hyperparameters.context(self._plan.config, self._plan.members(round)),
            },
        )

        def start_params(chosen: slice) -> PyTree:
            return jax.device_get(self._start_params(population.take(state, chosen)))

        return self._trainer.train(
            start_params,
            streams,
            self._keys(round, BATCHES),
            advance,
            autosave,
            first_step=self._plan.first_step(round),
            model_state=model_state,
        )

    def outcome(
        self, state: rounds.RoundState, model_state: PyTree, trained: Trained
    ) -> AnyOutcome:
        """Return the outcome of a round, after which the next one rewinds.

        Args:
          state: from `start`.
          model_state: from `start_model_state`.
          trained: from `train`.
        """
        if trained.snapshot is not None:
            w_i, model_state = trained.snapshot
            state = state._replace(w_i=w_i)
        if model_state is None:
            return Outcome(state, trained.params)
        return OutcomeWithState(state, trained.params, model_state, trained.model_state)

    def _first_state(self) -> rounds.RoundState:
        if ticket := self._plan.ticket:
            return jax.tree.map(lambda x: np.stack([x] * len(self._plan.members(0))), ticket)

        def begin(keys: jax.Array) -> rounds.RoundState:
            return lax.map(lambda key: rounds.begin(self._plan.problem.network.init(key)), keys)

        return jax.device_get(jax.jit(begin)(self._keys(0, INIT)[self._places(0)]))

    def _first_model_state(self) -> PyTree:
        init_state = self._plan.problem.network.init_state
        if init_state is None:
            return None
        keys = self._keys(0, INIT)[self._places(0)]
        return jax.device_get(jax.jit(lambda keys: lax.map(init_state, keys))(keys))

    def _next_state(self, round: int, previous: AnyOutcome) -> rounds.RoundState:
        members = self._plan.members(round)
        keys, orders = self._keys(round, ADVANCE), self._places(round)
        num_keep, parents = self._num_keep(round), self._parents(round)
        state = empty(abstract_outcome(self._plan, round).state)
        for variant in self._plan.variants:
            own = np.array([i for i, member in enumerate(members) if member.variant == variant])
            before = population.take(previous, parents[own])
            counts = population.take(num_keep, own)
            scores = self._score[variant.criterion](before)
            advance = self._advance[variant.mask_one, variant.mask_zero]
            write(state, own, jax.device_get(advance(keys[orders[own]], before, scores, counts)))
        return state

    def _num_keep(self, round: int) -> PyTree:
        """Return how many weights each member of a round keeps, int32 `[P]` per leaf or for all."""
        by_rate = {rate: scope.counts(round) for rate, scope in self._plan.scopes.items()}
        counts = [by_rate[own.numbers.default_rate] for own in self._plan.members(round)]
        return jax.tree.map(lambda *numbers: np.array(numbers, np.int32), *counts)

    def _parents(self, round: int) -> np.ndarray:
        """Return the place of every member's parent in the previous population, int `[P]`."""
        members = self._plan.members(round)
        if round > 1:
            return np.arange(len(members))
        places = {dense: place for place, dense in enumerate(self._plan.members(0))}
        return np.array([places[member.dense] for member in members])

    def _places(self, round: int) -> np.ndarray:
        """Return the index of every member's seed in `Plan.seeds`, int32 `[P]`."""
        return seed_places(self._plan.members(round), self._plan.seeds)

    def _compile_advance(self, mask_one: str, mask_zero: str) -> Wrapped:
        advance = functools.partial(
            rounds.advance,
            mask_one=MASK_ONE[mask_one],
            mask_zero=MASK_ZERO[mask_zero],
            prunable=self._plan.scope.prunable,
            least=self._plan.scope.least,
        )

        def advance_one(
            key: jax.Array, own: AnyOutcome, scores: PyTree, num_keep: PyTree
        ) -> rounds.RoundState:
            state = advance(key, own.state, own.w_f, criterion=lambda *_: scores, num_keep=num_keep)
            ends = own.w_f, own.model_end if isinstance(own, OutcomeWithState) else ()
            # The scores of a diverged member are meaningless. Keep it NaN, so that its rows say so.
            finite = jnp.all(jnp.array([jnp.isfinite(x).all() for x in jax.tree.leaves(ends)]))
            w_i = jax.tree.map(lambda w: jnp.where(finite, w, jnp.nan), state.w_i)
            return state._replace(w_i=w_i)

        def advance_seeds(
            keys: jax.Array, own: AnyOutcome, scores: PyTree, num_keep: PyTree
        ) -> rounds.RoundState:
            return lax.map(lambda x: advance_one(*x), (keys, own, scores, num_keep))

        return jax.jit(advance_seeds)

    def _lower_score(self, criterion: str, count: int) -> Lowered:
        return self._score[criterion].lower(self._abstract_parents(count))

    def _lower_advance(self, mask_one: str, mask_zero: str, count: int) -> Lowered:
        own, problem = self._abstract_parents(count), self._plan.problem
        num_keep = jax.tree.map(np.int32, self._plan.scope.counts(1))
        keys, num_keep = (
            on_one_device(problem, tree, leading)
            for tree, leading in ((abstract_keys(count), ()), (num_keep, (count,)))
        )
        return self._advance[mask_one, mask_zero].lower(keys, own, own.w_f, num_keep)

    def _abstract_parents(self, count: int) -> AnyOutcome:
        return on_one_device(self._plan.problem, abstract_members(self._plan, count))

    def _keys(self, round: int, purpose: int) -> jax.Array:
        return seed_keys(self._plan.seeds, round, purpose)


def _compile_score(criterion: str) -> Wrapped:
    """Return the program that scores the weights of members, `[S, ...]` per leaf."""

    def score(own: AnyOutcome) -> PyTree:
        return CRITERIA[criterion](own.state.w_i, own.w_f, own.state.mask)

    def score_seeds(own: AnyOutcome) -> PyTree:
        return lax.map(score, own)

    return jax.jit(score_seeds)


def work(plan: Plan) -> Work:
    """Return what a run of a plan computes on its devices."""
    return Laboratory(plan).work()


def row_key(config: Mapping[str, Any]) -> Callable[[results.Row], tuple]:
    """Return a sort key for rows: by round, variant, numbers and seed, as configured."""
    variants = ["dense", *(str(Variant.parse(text)) for text in config["variants"])]
    numbers = hyperparameters.orders(Settings, config, NUMBERS)
    of_member = in_order({"variant": variants, **numbers, "seed": config["seeds"]})
    return lambda row: (row["round"], *of_member(row))


def alone(config: ConfigDict, row: results.Row) -> ConfigDict:
    """Return the configuration that trains only the member of a row, up to its round."""
    config = hyperparameters.alone(config, row)
    variants = config.variants if row["round"] == 0 else [row["variant"]]
    config.update(variants=variants, seeds=[row["seed"]], num_rounds=row["round"])
    return config


def ticket(plan: Plan, folder: RunFolder, row: results.Row) -> Ticket:
    """Return the ticket of a row, from the checkpoint of its round.

    With late rewinding, the start weights of a dense network are those that later rounds rewind to.

    Raises:
      FileNotFoundError: if the run keeps no checkpoint of the round.
      ValueError: if the checkpoint is damaged.
    """
    checkpoints = Checkpoints(folder.below("checkpoints"), plan.config.keep_checkpoints)
    number, kept = row["round"], checkpoints.rounds()
    if number not in kept:
        raise FileNotFoundError(
            f"{folder.path} has checkpoints of the rounds {', '.join(map(str, kept)) or 'none'}, "
            f"not of round {number}; see keep_checkpoints."
        )
    place = next(
        place
        for place, member in enumerate(plan.members(number))
        if (str(member.variant or "dense"), member.seed) == (row["variant"], row["seed"])
        and hyperparameters.are_of(member.numbers, row)
    )
    outcome = checkpoints.load(number, abstract_outcome(plan, number))
    own: AnyOutcome = population.take(outcome, place)
    return Ticket(own.state.mask, own.state.w_i, own.state.fill, own.w_f)


def part_name(round: int) -> str:
    """Return the name of a round's files, without suffix."""
    return f"round_{round:02}"


def _make_rows(
    plan: Plan, round: int, mask: PyTree, table: dict[str, np.ndarray], origin: Origin
) -> list[results.Row]:
    shares = densities(mask, plan.problem.prunable)
    rows = []
    for i, member in enumerate(plan.members(round)):
        criterion, mask_one, mask_zero = member.variant or ("", "", "")
        own = {
            "criterion": criterion,
            "mask_one": mask_one,
            "mask_zero": mask_zero,
            "seed": member.seed,
            "round": round,
        }
        values = results.measured(table, i, COLUMNS) | {
            "variant": str(member.variant or "dense"),
            "density": shares[i],
        }
        rows.append(make_row(COLUMNS, plan.config, origin, member.numbers, own, values))
    return rows
