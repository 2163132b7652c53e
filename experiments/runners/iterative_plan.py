"""The settings of iterative pruning, and what follows from them before any computation."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import optax

from experiments.problems.problem import Problem
from experiments.runners import hyperparameters, settings
from experiments.runners.optimizers import make_optimizer
from experiments.runners.problems import make_problem
from experiments.runners.scopes import Scope, ScopeSettings, make_scopes
from experiments.runners.settings import SWEEP, integer, list_of
from experiments.runners.starts import StartSettings, read_start
from experiments.runners.sweeps import parse_variants, seeds_of, take_part
from experiments.runners.variants import Member, Variant
from supermask_jax import rounds
from supermask_jax.optimizers import with_schedules_at

NUMBERS = hyperparameters.OF_PRUNING


@dataclasses.dataclass(frozen=True, kw_only=True)
class PruningSettings(StartSettings):
    """The settings that iterative and one-shot pruning share."""

    keep_checkpoints: Annotated[int, integer(1), SWEEP]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TicketSettings(ScopeSettings):
    """The settings that iterative pruning and the comparison of copies of tickets share."""

    variants: Annotated[Sequence[str], list_of(), SWEEP]
    rewind_step: Annotated[int, integer(0)] = 0  # of the dense network, where rounds restart


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(PruningSettings, TicketSettings):
    """The settings of iterative pruning."""

    num_rounds: Annotated[int, integer(0), SWEEP]


class Plan(NamedTuple):
    """A checked configuration and what follows from it, before any computation."""

    config: Settings
    pruned: tuple[Member, ...]  # the members of every round after round 0
    problem: Problem
    scopes: Mapping[Any, Scope]  # by default rate
    num_steps: int
    optimizer: optax.GradientTransformation
    ticket: rounds.RoundState | None = None  # `[...]` per leaf, the start of all seeds

    @property
    def seeds(self) -> list[int]:
        """The seeds of the members, in order of first appearance."""
        return seeds_of(self.pruned)

    @property
    def scope(self) -> Scope:
        """The scope of the first pruning rate; those of others differ in their counts alone."""
        return next(iter(self.scopes.values()))

    def first_step(self, round: int) -> int:
        """Return the step at which the trainings of a round start."""
        return self.config.rewind_step if round else 0

    def num_member_steps(self, rounds: range) -> int:
        """Return the number of steps that all members of some rounds train."""
        dense = int(0 in rounds)
        times = {0: dense, 1: len(rounds) - dense}  # all rounds but the first are alike
        return sum(
            count * len(self.members(round)) * (self.num_steps - self.first_step(round))
            for round, count in times.items()
        )

    @property
    def variants(self) -> list[Variant]:
        """The variants of the members, in order of first appearance."""
        return list(dict.fromkeys(member.variant for member in self.pruned if member.variant))

    def members(self, round: int) -> Sequence[Member]:
        """Return the members of a round in the order of the member axis: variant by variant."""
        return self.pruned if round else list(dict.fromkeys(m.dense for m in self.pruned))

    def populations(self, rounds: range) -> Counter[int]:
        """Return the numbers of members in some rounds, and how many rounds have each."""
        dense = int(0 in rounds)
        sizes = {len(self.members(0)): dense}, {len(self.pruned): len(rounds) - dense}
        return sum(map(Counter, sizes), Counter())  # without a size that no round has

    def num_rows(self, rounds: range) -> int:
        """Return the number of rows that some rounds have in the table, one per member."""
        return sum(size * count for size, count in self.populations(rounds).items())


def plan_from(
    config: Settings,
    data_dir: str | None = None,
    part: str | None = None,
    devices: Sequence[Any] | None = None,
) -> Plan:
    """Load the data of settings that have been checked, and return their plan.

    Args:
      config: the settings.
      data_dir: the folder of prepared data sets.
      part: the slice ``i/n`` of the sweep to run; None for the whole sweep.
      devices: where it will run, of all processes; None for all that JAX finds.

    Raises:
      ValueError: if settings do not fit each other or the data.
      FileNotFoundError: if the data set is missing; the message says how to get it.
    """
    problem = make_problem(config, data_dir, devices)
    steps = settings.count_steps("epochs", config.epochs, problem)
    optimizer = make_optimizer(config, problem, steps)
    _check_rewinding(config, problem, optimizer, steps)
    start = read_start(config, problem)
    return Plan(
        config=config,
        pruned=take_part(part, members_of(config)),
        problem=problem,
        scopes=make_scopes(config, problem, config.num_rounds, start and start.mask),
        num_steps=steps,
        optimizer=optimizer,
        ticket=start,
    )


def members_of(config: Settings) -> list[Member]:
    """Return the members of all rounds after round 0: by variant, numbers and seed.

    Args:
      config: the settings.

    Raises:
      ValueError: if a variant is wrong, or if two are the same.
    """
    variants = parse_variants(Variant.parse, config.variants)
    numbers = hyperparameters.combinations(config, NUMBERS)
    sweep = itertools.product(variants, numbers, config.seeds)
    return [Member(variant, seed, own) for variant, own, seed in sweep]


def _check_rewinding(
    config: Settings, problem: Problem, optimizer: optax.GradientTransformation, num_steps: int
) -> None:
    step = config.rewind_step
    if step >= num_steps or step % config.eval_every:
        raise ValueError(
            f"config.rewind_step is {step}, expected a multiple of the {config.eval_every} of "
            f"config.eval_every, less than {num_steps}, the steps of a training."
        )
    try:
        jax.eval_shape(
            lambda params: with_schedules_at(step, optimizer.init(params)), problem.params
        )
    except ValueError as error:
        why = str(error).partition(", so a late start")[0]
        raise ValueError(
            f"config.rewind_step is {step}, but {why}; expected 0, or another optimizer."
        ) from None
