"""Learned supermasks: logits trained on frozen weights, for variants x initial logits x seeds.

All members train as one population:

    seeds -> w_0 [S, ...] -> frozen weights [P, ...]
    initial logits [P, ...] -> train -> the logits with the lowest validation loss [P, ...]
    optionally: the most probable masks and their weights -> retrain as tickets
    -> rows, curves, checkpoint of the logits
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from ml_collections import ConfigDict

from experiments import processes
from experiments.engine.arrays import abstract
from experiments.engine.forecast import Forecast, num_bytes
from experiments.engine.objectives import Objective, measure, training_loss
from experiments.engine.progress import RoundProgress, announce_finished
from experiments.engine.trainer import Advance, Schedule, Trained, Trainer
from experiments.engine.work import Trainings, Work
from experiments.problems.problem import Problem
from experiments.problems.seeds import ADVANCE, BATCHES, DRAWS, INIT, LOSS, SCORING, seed_keys
from experiments.runners import hyperparameters, settings
from experiments.runners.draws import NamedDraw, Training, check_draw
from experiments.runners.hyperparameters import Numbers
from experiments.runners.optimizers import make_optimizer
from experiments.runners.problems import make_problem, refuse_state
from experiments.runners.retraining import Retrainer
from experiments.runners.rows import Origin, in_order, make_row
from experiments.runners.settings import SWEEP, boolean, finite, integer, list_of, positive
from experiments.runners.sweeps import parse_variants, seed_places, seeds_of, take_part
from experiments.runners.untrained_weights import WEIGHTS, untrained_weights
from experiments.storage import results
from experiments.storage.autosave import SAVE_EVERY, Autosave
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.identity import RunFolder
from experiments.storage.records import RESULTS, Records
from experiments.storage.tickets import Ticket
from supermask_jax import masks, population, supermasks
from supermask_jax.checks import lookup, shown
from supermask_jax.training import Metrics, Stream

PyTree = Any

LISTS = ("variants", "initial_logits", "seeds")
NUMBERS = hyperparameters.OF_TRAINING
PART = "learning"
BERNOULLI = "bernoulli"  # the draw of Zhou et al. 2019
CURVES = Path("curves") / f"{PART}.parquet"  # relative to the folder of a run

COLUMNS: results.Columns = {
    "id": results.identifier,
    "experiment": results.text,
    "network": results.text,
    "dataset": results.text,
    "variant": results.text,
    "weights": results.text,
    "rescale": results.boolean,
    "draw": results.Younger(results.text, BERNOULLI),
    "initial_logit": results.number,
    **hyperparameters.columns(NUMBERS),
    "seed": results.integer,
    "density": results.number,
    "early_stop_step": results.integer,
    "validation_loss": results.number,
    "validation_accuracy": results.number,
    "test_accuracy": results.number,
    "test_most_probable_accuracy": results.number,
    "test_expected_accuracy": results.number,
    "final_test_accuracy": results.number,
    "retrained_test_accuracy": results.number,
    "code_version": results.text,
    "command": results.text,
}


class Variant(NamedTuple):
    """The kind of frozen weights, a key of `WEIGHTS`, and whether to rescale them dynamically."""

    weights: str
    rescale: bool

    @classmethod
    def parse(cls, text: str) -> "Variant":
        """Parse ``weights[:rescale]``.

        Raises:
          ValueError: for any other text.
        """
        weights, colon, rescale = str(text).partition(":")
        lookup("kind of weights", weights, WEIGHTS)
        if colon and rescale != "rescale":
            raise ValueError(f"variant {shown(text)}, expected weights or weights:rescale.")
        return cls(weights, bool(colon))

    def __str__(self) -> str:
        """Return the text that `parse` reads as this variant."""
        return self.weights + ":rescale" * self.rescale


class Member(NamedTuple):
    """One member of the population."""

    variant: Variant
    initial_logit: float
    seed: int
    numbers: Numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(settings.Settings):
    """The settings of learned supermasks; the optimizer is that of the logits."""

    variants: Annotated[Sequence[str], list_of(), SWEEP]
    initial_logits: Annotated[Sequence[float], list_of(finite), SWEEP]
    optimizer: Annotated[str, settings.optimizer_name] = "sgd"
    momentum: Annotated[settings.Numbers, settings.one_or_several(settings.fraction)] = (
        dataclasses.field()  # every file has it
    )
    num_draws: Annotated[int, integer(1)]
    count_gradient: Annotated[bool, boolean]
    retrain_epochs: Annotated[int, integer(0)]
    retrain_learning_rate: Annotated[float, positive]
    draw: Annotated[str, check_draw] = BERNOULLI


class Plan(NamedTuple):
    """A checked configuration and what follows from it, before any computation."""

    config: Settings
    members: tuple[Member, ...]
    problem: Problem
    num_steps: int
    retrain_steps: int
    optimizer: optax.GradientTransformation

    @property
    def draw(self) -> NamedDraw:
        """The draw, by name."""
        return NamedDraw.parse(self.config.draw)

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
    """Check a configuration of `experiments.configs.base.learned` and load its data.

    The interface is that of `registry.Runner.make_plan`.
    """
    checked = settings.read(Settings, config.to_dict())
    variants = parse_variants(Variant.parse, checked.variants)
    members = [
        Member(variant, logit, seed, numbers)
        for variant in variants
        for logit in checked.initial_logits
        for numbers in hyperparameters.combinations(checked, NUMBERS)
        for seed in checked.seeds
    ]
    problem = make_problem(checked, data_dir, devices)
    refuse_state(checked.network, problem, "untrained weights")
    num_steps, retrain_steps = (
        settings.count_steps(name, getattr(checked, name), problem)
        for name in ("epochs", "retrain_epochs")
    )
    return Plan(
        config=checked,
        members=take_part(part, members),
        problem=problem,
        num_steps=num_steps,
        retrain_steps=retrain_steps,
        optimizer=make_optimizer(checked, problem, num_steps),
    )


def run(
    plan: Plan,
    folder: RunFolder,
    command: str,
    max_memory: float | None = None,
    save_every: float = SAVE_EVERY,
) -> list[results.Row]:
    """Learn the masks of an experiment, unless they are complete on disk.

    It writes ``results.csv``, ``curves/`` and ``checkpoints/``. The interface is that of
    `registry.Runner.run`.
    """
    records = Records(folder, RESULTS, COLUMNS, row_key(dataclasses.asdict(plan.config)))
    if PART in records:
        announce_finished(folder.path)
        return records.rows()
    checkpoints = Checkpoints(folder.below("checkpoints"), keep=1)
    learner = Learner(plan)
    origin = Origin(folder.code_version, command)
    total = len(plan.members) * (plan.num_steps + plan.retrain_steps)
    with (
        RoundProgress(1, total, noun="training") as progress,
        jax.default_matmul_precision(plan.config.matmul_precision),
    ):
        progress.announce(str(learner.forecast(max_memory)))
        progress.start_round(1)
        autosaves = [Autosave(folder, name, save_every) for name in (PART, "retraining")]
        found = learner.train(progress.advance, autosaves[0])
        if plan.config.retrain_epochs:
            found.table["retrained_test_accuracy"] = learner.retrain(
                found.params, progress.advance, max_memory, autosaves[1]
            )
        rows = _make_rows(plan, found.table, origin)
        curves = folder.path / CURVES
        if processes.is_first():
            several = hyperparameters.swept(plan.config, NUMBERS)
            names = ("variant", "initial_logit", *several, "seed")
            results.write_curves(curves, rows, names, learner.eval_steps, found.curves)
        checkpoints.save(0, found.params)
        records.add(PART, rows, [curves])
        autosaves[0].clear()
        progress.finish_round(1, rows)
    return records.rows()


class Learner:
    """The compiled programs of a plan: one training of all logits, and optionally retraining.

    Args:
      plan: from `make_plan`.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        config, problem = plan.config, plan.problem
        key = jax.eval_shape(jax.random.key, 0)
        self._trainer = Trainer(
            problem,
            plan.optimizer,
            Schedule(plan.num_steps, config.eval_every, config.chunk_evals),
            context={
                "weights": problem.params,
                "rescale": jax.ShapeDtypeStruct((), bool),
                "draws": key,
                **hyperparameters.abstract_context(config),
            },
            num_orders=len(plan.seeds),
            members_at_once=config.members_at_once,
            objective=masked_classification(
                problem, plan.draw, plan.num_steps, config.num_draws, config.count_gradient
            ),
            keep_best=True,
        )
        self._retrainer = None
        if config.retrain_epochs:
            self._retrainer = Retrainer(
                problem,
                num_seeds=len(plan.seeds),
                optimizer=optax.adam(config.retrain_learning_rate),
                epochs=config.retrain_epochs,
                eval_every=config.eval_every,
                members_at_once=config.members_at_once,
            )

    @property
    def eval_steps(self) -> np.ndarray:
        """The step of every evaluation, int `[E]`."""
        return self._trainer.eval_steps

    def work(self) -> Work:
        """Return the training of the logits, and that of the networks of their masks."""
        members = len(self._plan.members)
        logits = Trainings("logits", self._trainer, members, 1)
        if not self._retrainer:
            return Work((logits,))
        return Work((logits, self._retrainer.trainings("retrained networks", members)))

    def forecast(self, max_memory: float | None) -> Forecast:
        """Compile all trainings, and forecast the memory and time of learning the masks.

        Args:
          max_memory: the memory limit of this process in bytes; None for what is free now.

        Raises:
          MemoryError: if even the smallest group of members does not fit.
        """
        if self._retrainer:
            self._retrainer.prepare(len(self._plan.members), max_memory)
        held = 2 * num_bytes(self.abstract_logits())  # the frozen weights and the learned logits
        return self._trainer.forecast({len(self._plan.members): 1}, held, max_memory)

    def train(self, advance: Advance, autosave: Autosave | None = None) -> Trained:
        """Learn the masks of all members.

        Args:
          advance: called with the progress at every chunk boundary.
          autosave: saves the training in progress, and its final state if retraining follows.

        Raises:
          Stopped: if a signal asked for a stop; the state is on disk.
        """
        members, seeds = self._plan.members, self._plan.seeds
        orders = self._places()
        streams = Stream(
            batches=jnp.asarray(orders),
            key=seed_keys(seeds, 0, LOSS)[orders],
            context={
                "weights": self.weights(),
                "rescale": jnp.array([member.variant.rescale for member in members]),
                "draws": seed_keys(seeds, 0, DRAWS)[orders],
                **hyperparameters.context(self._plan.config, members),
            },
        )
        starts = np.array([member.initial_logit for member in members], np.float32)
        keys = seed_keys(seeds, 0, SCORING)[orders]
        make = jax.vmap(self.start_logits)

        def start_params(chosen: slice) -> PyTree:
            return jax.device_get(make(jnp.asarray(starts[chosen]), keys[chosen]))

        batch_keys = seed_keys(seeds, 0, BATCHES)
        keep_end = self._plan.config.retrain_epochs > 0
        return self._trainer.train(start_params, streams, batch_keys, advance, autosave, keep_end)

    def retrain(
        self,
        logits: PyTree,
        advance: Advance,
        max_memory: float | None = None,
        autosave: Autosave | None = None,
    ) -> np.ndarray:
        """Retrain the networks of the most probable masks; return their test accuracies, `[P]`.

        Args:
          logits: `[P, ...]` per leaf.
          advance: called with the progress at every chunk boundary.
          max_memory: the memory limit of this process in bytes; None for what is free now.
          autosave: saves the training in progress; None does not save it.

        Raises:
          ValueError: if ``config.retrain_epochs`` is 0.
          Stopped: if a signal asked for a stop; the state is on disk.
          MemoryError: if even the smallest group of members does not fit.
        """
        if not self._retrainer:
            raise ValueError("config.retrain_epochs is 0, expected 1 or more to retrain.")
        weights, kept = self.networks(logits, self.weights())
        seeds = [member.seed for member in self._plan.members]
        trained = self._retrainer.train(weights, kept, seeds, max_memory, advance, autosave)
        return trained.table["test_accuracy"]

    def networks(self, logits: PyTree, weights: PyTree) -> tuple[PyTree, PyTree]:
        """Return the networks of the most probable masks: their weights, and which are kept.

        Args:
          logits: `[P, ...]` per leaf.
          weights: the frozen weights `[P, ...]`, from `weights`.
        """
        prunable, steps = self._plan.problem.prunable, self._plan.num_steps
        draw = self._plan.draw.make(Training(self._plan.problem.params, prunable, steps, steps))

        def network(logits: PyTree, weights: PyTree, rescale: jax.Array) -> tuple[PyTree, PyTree]:
            mask = draw.evaluate(logits, prunable)
            own = supermasks.masked_params(mask, weights, prunable, rescale=rescale)
            return own, jax.tree.map(lambda m: m != 0, mask)

        rescale = np.array([member.variant.rescale for member in self._plan.members])
        return jax.jit(jax.vmap(network))(logits, weights, rescale)

    def abstract_logits(self) -> PyTree:
        """Return the shapes and types of all logits, as `Checkpoints.load` needs them."""
        return abstract(self._plan.problem.params, leading=(len(self._plan.members),))

    def start_logits(self, value: jax.Array, key: jax.Array) -> PyTree:
        """Return the logits of one member before the training."""
        problem = self._plan.problem
        logits = supermasks.init_logits(problem.params, problem.prunable, value)
        if not self._plan.draw.is_unequal:
            return logits
        scores = supermasks.init_scores(key, problem.params, problem.prunable)
        return jax.tree.map(jnp.add, logits, scores)

    def weights(self) -> PyTree:
        """Return the frozen weights of all members, `[P, ...]` per leaf."""
        problem, names = self._plan.problem, sorted({m.variant.weights for m in self._plan.members})

        def of_member(init_key: jax.Array, key: jax.Array, name: jax.Array) -> PyTree:
            w_i = problem.network.init(init_key)
            kinds = [
                functools.partial(untrained_weights, kind, key, w_i, problem.prunable)
                for kind in names
            ]
            return lax.switch(name, kinds)

        of_seeds = [
            seed_keys(self._plan.seeds, 0, purpose)[self._places()] for purpose in (INIT, ADVANCE)
        ]
        kinds = jnp.array([names.index(m.variant.weights) for m in self._plan.members])
        make = jax.jit(lambda members: lax.map(lambda member: of_member(*member), members))
        return jax.device_get(make((*of_seeds, kinds)))

    def _places(self) -> np.ndarray:
        """Return the index of every member's seed in `Plan.seeds`, int32 `[P]`."""
        return seed_places(self._plan.members, self._plan.seeds)


def masked_classification(
    problem: Problem, draw: NamedDraw, num_steps: int, num_draws: int, count_gradient: bool
) -> Objective:
    """Return the objective of learned supermasks, whose parameters are the logits of a mask.

    The loss is that of a network with one mask, drawn at every step. For Bernoulli draws, the
    metrics are loss and accuracy averaged over `num_draws` masks, which are the same at every
    evaluation; the accuracies of the most probable and of the expected mask; and the expected
    density. For all others, they are loss, accuracy and density of the mask to evaluate.

    The context of a member holds its frozen weights (``weights``), whether to rescale them
    (``rescale``, bool) and the key of the masks that measure it (``draws``).

    Args:
      problem: the network and the data set.
      draw: how logits become masks.
      num_steps: the steps of the training.
      num_draws: the number of masks drawn per evaluation.
      count_gradient: see `supermasks.loss_of_logits`.
    """
    apply, prunable = problem.network.apply, problem.prunable
    plain = training_loss(problem)

    def at(step: int | jax.Array) -> supermasks.Draw:
        return draw.make(Training(problem.params, prunable, num_steps, step))

    def loss(logits: PyTree, batch: PyTree, key: jax.Array, context: Mapping[str, PyTree], /):
        of_logits = supermasks.loss_of_logits(
            plain,
            context["weights"],
            prunable,
            draw=at(batch["step"]),
            rescale=context["rescale"],
            count_gradient=count_gradient,
        )
        return of_logits(logits, key, batch, key, {})

    def of_mask(mask: PyTree, split: PyTree, context: Mapping[str, PyTree]) -> Metrics:
        params = supermasks.masked_params(
            mask, context["weights"], prunable, rescale=context["rescale"]
        )
        return measure(apply, params, split, problem.losses)

    def measure_draws(logits: PyTree, split: PyTree, context: Mapping[str, PyTree]) -> Metrics:
        def of_draw(key: jax.Array) -> Metrics:
            return of_mask(supermasks.sample(key, logits, prunable), split, context)

        draws = lax.map(of_draw, jax.random.split(context["draws"], num_draws))
        most_probable = of_mask(supermasks.most_probable(logits, prunable), split, context)
        expected = of_mask(supermasks.expected(logits, prunable), split, context)
        return jax.tree.map(jnp.mean, draws) | {
            "most_probable_accuracy": most_probable["accuracy"],
            "expected_accuracy": expected["accuracy"],
            "density": supermasks.expected_density(logits, prunable),
        }

    def measure_mask(logits: PyTree, split: PyTree, context: Mapping[str, PyTree]) -> Metrics:
        mask = at(num_steps).evaluate(logits, prunable)
        found = of_mask(mask, split, context)
        kept = jax.tree.map(lambda m: m != 0, mask)
        return found | {
            "most_probable_accuracy": found["accuracy"],
            "density": masks.density(kept, prunable),
        }

    return Objective(loss, measure_draws if draw.name == BERNOULLI else measure_mask)


def work(plan: Plan) -> Work:
    """Return what a run of a plan computes on its devices."""
    return Learner(plan).work()


def row_key(config: Mapping[str, Any]) -> Callable[[results.Row], tuple]:
    """Return a sort key for rows: by variant, initial logit, numbers and seed, as configured."""
    variants = [str(Variant.parse(text)) for text in config["variants"]]
    numbers = hyperparameters.orders(Settings, config, NUMBERS)
    logits, seeds = config["initial_logits"], config["seeds"]
    return in_order({"variant": variants, "initial_logit": logits, **numbers, "seed": seeds})


def alone(config: ConfigDict, row: results.Row) -> ConfigDict:
    """Return the configuration that computes only one row."""
    config = hyperparameters.alone(config, row)
    config.update(
        variants=[row["variant"]], initial_logits=[row["initial_logit"]], seeds=[row["seed"]]
    )
    return config


def ticket(plan: Plan, folder: RunFolder, row: results.Row) -> Ticket:
    """Return the most probable mask of a row, and the weights of its network.

    The start weights are those that retraining starts from, with the sign and the scale that the
    mask gives them; where it prunes, they are the frozen weights.

    Raises:
      FileNotFoundError: if the run has no checkpoint of its logits.
      ValueError: if the checkpoint is damaged, or if the logits diverged.
    """
    checkpoints = Checkpoints(folder.below("checkpoints"), keep=1)
    if not checkpoints.rounds():
        raise FileNotFoundError(f"{folder.path} has no checkpoint of its logits.")
    wanted = row["variant"], row["initial_logit"], row["seed"]
    place = next(
        place
        for place, member in enumerate(plan.members)
        if (str(member.variant), member.initial_logit, member.seed) == wanted
        and hyperparameters.are_of(member.numbers, row)
    )
    alone = Learner(plan._replace(members=plan.members[place : place + 1]))
    whole = checkpoints.load(0, Learner(plan).abstract_logits())
    logits = population.take(whole, slice(place, place + 1))
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(logits)):
        raise ValueError(f"row {row['id']} diverged: its logits are NaN or infinite.")
    frozen = alone.weights()
    found, kept = alone.networks(logits, frozen)
    own, mask, w = jax.device_get(population.take((found, kept, frozen), 0))
    zeros = jax.tree.map(np.zeros_like, own)
    return Ticket(mask, jax.tree.map(np.where, mask, own, w), zeros, own)


def _make_rows(plan: Plan, table: dict[str, np.ndarray], origin: Origin) -> list[results.Row]:
    unmeasured = np.full(len(plan.members), np.float32(np.nan))
    some = "retrained_test_accuracy", "test_expected_accuracy"
    table = dict.fromkeys(some, unmeasured) | table
    rows = []
    for i, member in enumerate(plan.members):
        own = {
            "weights": member.variant.weights,
            "rescale": member.variant.rescale,
            "draw": plan.config.draw,
            "initial_logit": member.initial_logit,
            "seed": member.seed,
        }
        values = results.measured(table, i, COLUMNS) | {
            "variant": str(member.variant),
            "density": float(str(table["test_density"][i])),
        }
        rows.append(make_row(COLUMNS, plan.config, origin, member.numbers, own, values))
    return rows
