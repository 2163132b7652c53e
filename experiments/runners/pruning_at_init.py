"""Pruning at initialisation: networks pruned by a score before they are trained, then trained.

    seeds -> w_i and a few labelled examples
    for each score and round: a mask of the whole network, as dense as the ticket of that round
    all masked networks [P, ...] -> train as one population
    -> rows, curves

The masks are not saved; `ticket` makes one again.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import optax
from jax import lax
from ml_collections import ConfigDict

from experiments import processes
from experiments.engine.progress import RoundProgress, announce_finished
from experiments.engine.trainer import Trained
from experiments.engine.work import Work
from experiments.problems.problem import Problem
from experiments.problems.seeds import ADVANCE, INIT, SCORING, seed_keys
from experiments.runners import hyperparameters, settings
from experiments.runners.hyperparameters import Numbers
from experiments.runners.initial_scores import SCORES
from experiments.runners.optimizers import make_optimizer
from experiments.runners.problems import make_problem
from experiments.runners.retraining import Retrainer
from experiments.runners.rows import Origin, in_order, make_row
from experiments.runners.settings import SWEEP, integer, list_of
from experiments.runners.sweeps import parse_variants, seed_places, seeds_of, take_part
from experiments.storage import results
from experiments.storage.autosave import SAVE_EVERY, Autosave
from experiments.storage.identity import RunFolder
from experiments.storage.records import RESULTS, Records
from experiments.storage.tickets import Ticket
from supermask_jax import masks, population, rates, saliency
from supermask_jax.checks import lookup, shown
from supermask_jax.trees import num_prunable

PyTree = Any

LISTS = ("variants", "ticket_rounds", "seeds")
NUMBERS = hyperparameters.OF_PRUNING
PART = "training"
MOST = 10_000  # rounds of one pruning
CURVES = Path("curves") / f"{PART}.parquet"  # relative to the folder of a run
COLUMNS: results.Columns = {
    "id": results.identifier,
    "experiment": results.text,
    "network": results.text,
    "dataset": results.text,
    "variant": results.text,
    **hyperparameters.columns(NUMBERS),
    "seed": results.integer,
    "round": results.integer,
    "density": results.number,
    "empty_layers": results.integer,
    "early_stop_step": results.integer,
    "validation_loss": results.number,
    "validation_accuracy": results.number,
    "test_accuracy": results.number,
    "final_test_accuracy": results.number,
    "code_version": results.text,
    "command": results.text,
}


class Variant(NamedTuple):
    """A score, a key of `SCORES`, and the number of rounds in which it prunes."""

    score: str
    rounds: int

    @classmethod
    def parse(cls, text: str) -> "Variant":
        """Parse ``score[:rounds]``; one round if they are left out.

        Raises:
          ValueError: for any other text.
        """
        score, colon, rounds = str(text).partition(":")
        lookup("score", score, SCORES)
        if colon and not (rounds.isascii() and rounds.isdecimal() and 0 < int(rounds) <= MOST):
            raise ValueError(
                f"variant {shown(text)}, expected score or score:rounds with 1 to {MOST} rounds."
            )
        return cls(score, int(rounds or 1))

    def __str__(self) -> str:
        """Return the text that `parse` reads as this variant."""
        return self.score if self.rounds == 1 else f"{self.score}:{self.rounds}"


class Member(NamedTuple):
    """One member of the population, as dense as the ticket of a round of iterative pruning."""

    variant: Variant
    round: int
    seed: int
    numbers: Numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(settings.RateSettings):
    """The settings of pruning at initialisation."""

    variants: Annotated[Sequence[str], list_of(), SWEEP]
    ticket_rounds: Annotated[Sequence[int], list_of(integer(0)), SWEEP]
    examples_per_class: Annotated[int, integer(1)]


class Plan(NamedTuple):
    """A checked configuration and what follows from it, before any computation.

    Attributes:
      config: the settings.
      members: in the order of the sweep: by variant, round, numbers and seed.
      problem: the network and the data set.
      num_keep: the prunable weights that a ticket keeps, by default rate and round.
      num_steps: the steps of a training.
      optimizer: trains the kept weights.
    """

    config: Settings
    members: tuple[Member, ...]
    problem: Problem
    num_keep: Mapping[tuple[Any, int], int]
    num_steps: int
    optimizer: optax.GradientTransformation

    @property
    def seeds(self) -> list[int]:
        """The seeds of the members, in order of first appearance."""
        return seeds_of(self.members)


def make_plan(
    config: ConfigDict,
    data_dir: str | None = None,
    part: str | None = None,
    devices: Sequence[Any] | None = None,
) -> Plan:
    """Check a configuration of `experiments.configs.base.pruning_at_init` and load its data.

    The interface is that of `registry.Runner.make_plan`.
    """
    checked = settings.read(Settings, config.to_dict())
    variants = parse_variants(Variant.parse, checked.variants)
    numbers = hyperparameters.combinations(checked, NUMBERS)
    sweep = itertools.product(variants, checked.ticket_rounds, numbers, checked.seeds)
    members = [Member(variant, round, seed, own) for variant, round, own, seed in sweep]
    problem = make_problem(checked, data_dir, devices)
    _check_examples(checked.examples_per_class, problem)
    steps = settings.count_steps("epochs", checked.epochs, problem)
    return Plan(
        config=checked,
        members=take_part(part, members),
        problem=problem,
        num_keep=_num_keep(checked, problem),
        num_steps=steps,
        optimizer=make_optimizer(checked, problem, steps),
    )


def _num_keep(config: Settings, problem: Problem) -> dict[tuple[Any, int], int]:
    """Return the number of prunable weights that a ticket keeps, by default rate and round."""

    def kept(of_layers: PyTree, round: int) -> int:
        counts = rates.keep_counts(problem.params, of_layers, round)
        pairs = zip(jax.tree.leaves(counts), jax.tree.leaves(problem.prunable), strict=True)
        return sum(int(count) for count, yes in pairs if yes)

    return {
        (rate, round): kept(of_layers, round)
        for rate, of_layers in hyperparameters.pruning_rates(config, problem.params).items()
        for round in config.ticket_rounds
    }


def _check_examples(number: int, problem: Problem) -> None:
    labels = problem.dataset.train.labels
    classes, counts = np.unique(labels, return_counts=True)  # of emnist/letters some are unused
    if number > counts.min():
        raise ValueError(
            f"config.examples_per_class is {number}, expected at most {counts.min()}, the training "
            f"images of class {classes[counts.argmin()]}."
        )


def run(
    plan: Plan,
    folder: RunFolder,
    command: str,
    max_memory: float | None = None,
    save_every: float = SAVE_EVERY,
) -> list[results.Row]:
    """Prune and train the networks of an experiment, unless they are complete on disk.

    It writes ``results.csv`` and ``curves/``. The interface is that of `registry.Runner.run`.
    """
    records = Records(folder, RESULTS, COLUMNS, row_key(dataclasses.asdict(plan.config)))
    if PART in records:
        announce_finished(folder.path)
        return records.rows()
    retrainer = make_retrainer(plan)
    total = len(plan.members) * plan.num_steps
    with (
        RoundProgress(1, total, noun="training") as progress,
        jax.default_matmul_precision(plan.config.matmul_precision),
    ):
        progress.announce(str(retrainer.forecast(len(plan.members), max_memory)))
        progress.start_round(1)
        autosave = Autosave(folder, PART, save_every)
        w_i, pruned = prune_members(plan)
        seeds = [member.seed for member in plan.members]
        trained = retrainer.train(
            w_i,
            pruned,
            seeds,
            max_memory,
            progress.advance,
            autosave,
            start_model_state(plan),
            hyperparameters.context(plan.config, plan.members),
        )
        rows = _make_rows(plan, pruned, trained, Origin(folder.code_version, command))
        curves = folder.path / CURVES
        if processes.is_first():
            several = hyperparameters.swept(plan.config, NUMBERS)
            names = ("variant", *several, "seed", "round")
            results.write_curves(curves, rows, names, retrainer.eval_steps, trained.curves)
        records.add(PART, rows, [curves])
        autosave.clear()
        progress.finish_round(1, rows)
    return records.rows()


def make_retrainer(plan: Plan) -> Retrainer:
    """Return what trains the masked networks."""
    return Retrainer(
        plan.problem,
        num_seeds=len(plan.seeds),
        optimizer=plan.optimizer,
        epochs=plan.config.epochs,
        eval_every=plan.config.eval_every,
        members_at_once=plan.config.members_at_once,
        context=hyperparameters.abstract_context(plan.config),
    )


def prune_members(plan: Plan) -> tuple[PyTree, PyTree]:
    """Return the initial weights and the masks of all members, `[P, ...]` per leaf.

    Args:
      plan: from `make_plan`.
    """
    places = seed_places(plan.members, plan.seeds)
    init = jax.jit(lambda keys: lax.map(plan.problem.network.init, keys))
    of_seeds = {
        "w_i": init(seed_keys(plan.seeds, 0, INIT)),
        "batch": population.stack([examples(plan, seed) for seed in plan.seeds]),
        "key": seed_keys(plan.seeds, 0, ADVANCE),
        "model_state": _states_of_seeds(plan),
    }
    found, order = [], []
    # Members that prune in equally many rounds share a program.
    for rounds in dict.fromkeys(member.variant.rounds for member in plan.members):
        own = [i for i, member in enumerate(plan.members) if member.variant.rounds == rounds]
        found.append(_prune(plan, own, population.take(of_seeds, places[own])))
        order += own
    pruned = population.take(population.concatenate(found), np.argsort(order))
    return jax.device_get((population.take(of_seeds["w_i"], places), pruned))


def start_model_state(plan: Plan) -> PyTree:
    """Return the model states that all members start with, `[P, ...]` per leaf.

    Args:
      plan: from `make_plan`.

    Returns:
      The states; None for networks without state.
    """
    states = _states_of_seeds(plan)
    if states is None:
        return None
    return jax.device_get(population.take(states, seed_places(plan.members, plan.seeds)))


def _states_of_seeds(plan: Plan) -> PyTree:
    init_state = plan.problem.network.init_state
    if init_state is None:
        return None
    make = jax.jit(lambda keys: lax.map(init_state, keys))
    return make(seed_keys(plan.seeds, 0, INIT))


def _prune(plan: Plan, own: Sequence[int], inputs: Mapping[str, PyTree]) -> PyTree:
    """Return the masks of the members at some places, which prune in equally many rounds."""
    members = [plan.members[i] for i in own]
    names = sorted({member.variant.score for member in members})

    def prune_one(inputs: Mapping[str, PyTree]) -> PyTree:
        w_i = inputs["w_i"]
        prune_key, score_key = jax.random.split(inputs["key"])

        def score(mask: PyTree) -> PyTree:
            arguments = score_key, w_i, inputs["batch"], mask, inputs["model_state"]
            kinds = [functools.partial(SCORES[name], plan.problem) for name in names]
            return lax.switch(inputs["name"], kinds, *arguments)

        counts, prunable = inputs["counts"], plan.problem.prunable
        return saliency.prune_iteratively(prune_key, score, masks.ones(w_i), counts, prunable)

    return jax.jit(lambda inputs: lax.map(prune_one, inputs))(
        {
            **inputs,
            "name": np.array([names.index(member.variant.score) for member in members]),
            "counts": np.array([_counts(plan, member) for member in members], np.int32),
        }
    )


def _counts(plan: Plan, member: Member) -> list[int]:
    """Return the number of weights that every round of a pruning keeps."""
    whole = num_prunable(plan.problem.params, plan.problem.prunable)
    kept = plan.num_keep[member.numbers.default_rate, member.round]
    return saliency.exponential_counts(whole, kept, member.variant.rounds)


def examples(plan: Plan, seed: int) -> dict[str, np.ndarray]:
    """Return as many training examples of each class as configured, drawn with a seed.

    Args:
      plan: from `make_plan`.
      seed: one of its seeds.
    """
    images, labels = plan.problem.dataset.train
    order = np.asarray(jax.random.permutation(seed_keys([seed], 0, SCORING)[0], len(labels)))
    classes = range(plan.problem.dataset.num_classes)
    number = plan.config.examples_per_class
    chosen = np.concatenate([order[labels[order] == each][:number] for each in classes])
    return {"images": images[chosen], "labels": labels[chosen]}


def work(plan: Plan) -> Work:
    """Return what a run of a plan computes on its devices, but the scores, which take seconds."""
    return Work((make_retrainer(plan).trainings("pruned networks", len(plan.members)),))


def row_key(config: Mapping[str, Any]) -> Callable[[results.Row], tuple]:
    """Return a sort key for rows: by variant, round, numbers and seed, as configured."""
    variants = [str(Variant.parse(text)) for text in config["variants"]]
    numbers = hyperparameters.orders(Settings, config, NUMBERS)
    rounds, seeds = config["ticket_rounds"], config["seeds"]
    return in_order({"variant": variants, "round": rounds, **numbers, "seed": seeds})


def alone(config: ConfigDict, row: results.Row) -> ConfigDict:
    """Return the configuration that computes only one row."""
    config = hyperparameters.alone(config, row)
    config.update(variants=[row["variant"]], ticket_rounds=[row["round"]], seeds=[row["seed"]])
    return config


def ticket(plan: Plan, folder: RunFolder, row: results.Row) -> Ticket:
    """Return the ticket of a row, which is pruned and trained again: a run keeps no weights."""
    wanted = row["variant"], row["round"], row["seed"]
    own = next(
        member
        for member in plan.members
        if (str(member.variant), member.round, member.seed) == wanted
        and hyperparameters.are_of(member.numbers, row)
    )
    alone = plan._replace(members=(own,))
    context = hyperparameters.context(plan.config, [own])
    with jax.default_matmul_precision(plan.config.matmul_precision):
        w_i, pruned = prune_members(alone)
        trained = make_retrainer(alone).train(w_i, pruned, [own.seed], context=context)
    mask, start, final = jax.device_get(population.take((pruned, w_i, trained.params), 0))
    return Ticket(mask, start, jax.tree.map(np.zeros_like, start), final)


def _make_rows(plan: Plan, pruned: PyTree, trained: Trained, origin: Origin) -> list[results.Row]:
    leaves, prunable = jax.tree.leaves(pruned), jax.tree.leaves(plan.problem.prunable)
    kept = [
        np.array([np.count_nonzero(mask) for mask in leaf])
        for leaf, yes in zip(leaves, prunable, strict=True)
        if yes
    ]
    whole = num_prunable(plan.problem.params, plan.problem.prunable)
    rows = []
    for i, member in enumerate(plan.members):
        own = {"variant": str(member.variant), "seed": member.seed, "round": member.round}
        of_layers = [int(counts[i]) for counts in kept]
        values = results.measured(trained.table, i, COLUMNS) | {
            "density": sum(of_layers) / whole,
            "empty_layers": of_layers.count(0),
        }
        rows.append(make_row(COLUMNS, plan.config, origin, member.numbers, own, values))
    return rows
