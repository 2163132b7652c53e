"""The settings of experiments, each declared once with its type, its checks and its role.

Every runner has a dataclass of `Annotated` fields. An annotation holds the checks of a field and,
if no member's numbers depend on the field, `SWEEP`. A check raises a `ValueError` whose message, of
one line, says what is wrong and what is allowed.
"""

import dataclasses
import enum
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from experiments import by_name
from experiments.problems.losses import LOSSES
from experiments.problems.problem import Problem, PyTree
from supermask_jax import rates
from supermask_jax.checks import lookup, shown, unknown_name

MOST = 10**9  # of any count: programs count in int32, and add two counts
PRECISIONS = ("default", "bfloat16", "tensorfloat32", "float32")
OPTIMIZERS = {name: f"optax.{name}" for name in ("adam", "adamw", "lamb", "sgd")}
SCHEDULES = ("constant", "cosine", "step")
FUNCTIONS = ("optimizer", "loss")  # settings that may also name a function with a dot
Check = Callable[[str, Any], None]
Numbers = float | Sequence[float]  # one for all members, or several for members of their own
S = TypeVar("S", bound="Settings")


class Role(enum.Enum):
    """The role of a setting that does not affect the numbers of a single member."""

    SWEEP = "which members there are, when they are saved, how they are shown"


SWEEP = Role.SWEEP


def text(name: str, value: Any) -> None:
    """Check that a value is a non-empty string of one line."""
    if not (isinstance(value, str) and value):
        raise ValueError(f"config.{name} is {shown(value)}, expected a non-empty string.")
    if not value.isprintable():
        raise ValueError(f"config.{name} is {shown(value)}, expected letters, signs and spaces.")


def boolean(name: str, value: Any) -> None:
    """Check that a value is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"config.{name} is {shown(value)}, expected a bool.")


def integer(least: int, most: int = MOST) -> Check:
    """Return a check for an integer from `least` to `most`."""

    def check(name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(
                f"config.{name} has {shown(value)}, expected an integer of {least} or more."
            )
        if value > most:
            raise ValueError(f"config.{name} has {shown(value)}, expected at most {most}.")

    return check


def count_steps(name: str, epochs: int, problem: Problem) -> int:
    """Return the number of steps of a training.

    Args:
      name: the setting that gives the epochs.
      epochs: its value.
      problem: the network and the data set.

    Raises:
      ValueError: if there are more than `MOST`.
    """
    steps = epochs * problem.steps_per_epoch
    if steps > MOST:
        raise ValueError(
            f"config.{name} is {epochs}, which takes {steps} steps of {problem.batch_size} "
            f"images, expected at most {MOST} steps."
        )
    return steps


def positive(name: str, value: Any) -> None:
    """Check that a value is a finite number above 0."""
    if not (_is_finite(value) and value > 0):
        raise ValueError(f"config.{name} is {shown(value)}, expected a finite number above 0.")


def finite(name: str, value: Any) -> None:
    """Check that a value is a finite number."""
    if not _is_finite(value):
        raise ValueError(f"config.{name} has {shown(value)}, expected a finite number.")


def fraction(name: str, value: Any) -> None:
    """Check that a value is a number in [0, 1)."""
    if not (_is_finite(value) and 0 <= value < 1):
        raise ValueError(f"config.{name} is {shown(value)}, expected a number in [0, 1).")


def one_of(kind: str, registry: Mapping[str, Any]) -> Check:
    """Return a check for a name in a registry.

    Args:
      kind: what the registry holds, for the message.
      registry: its names are the keys.
    """
    return lambda name, value: lookup(kind, value, registry) and None


def function_or_one_of(kind: str, registry: Mapping[str, Any]) -> Check:
    """Return a check for a name in a registry, or ``module:function``.

    Args:
      kind: what the registry holds, for the message.
      registry: its names are the keys.
    """

    def check(name: str, value: Any) -> None:
        if isinstance(value, str) and by_name.is_named(by_name.with_colon(value)):
            by_name.find(kind, by_name.with_colon(value))
        elif not isinstance(value, str) or value not in registry:
            unknown = unknown_name(kind, value, registry)
            raise ValueError(f"{unknown}, or a function of your own, module:function")

    return check


optimizer_name = function_or_one_of("optimizer", OPTIMIZERS)


def list_of(*checks: Check) -> Check:
    """Return a check for a non-empty list without repetitions, whose entries pass all `checks`."""

    def check(name: str, values: Any) -> None:
        if not isinstance(values, Sequence) or isinstance(values, str | bytes) or not values:
            raise ValueError(f"config.{name} is {shown(values)}, expected a non-empty list.")
        refuse_repetitions(name, values)
        for value in values:
            for check_value in checks:
                check_value(name, value)

    return check


def one_or_several(check: Check) -> Check:
    """Return a check for a number, or a non-empty list of distinct numbers, that pass `check`."""

    def check_numbers(name: str, value: Any) -> None:
        is_list = isinstance(value, list | tuple)
        if is_list and not value:
            raise ValueError(
                f"config.{name} is {shown(value)}, expected a number or a list of one or more."
            )
        for number in value if is_list else [value]:
            check(name, number)
        if is_list:
            refuse_repetitions(name, value)

    return check_numbers


def refuse_repetitions(name: str, values: Sequence[Any]) -> None:
    """Check that no value of a setting occurs more than once.

    Raises:
      ValueError: if one does; names all of them.
    """
    twice = sorted({str(value) for value in values if list(values).count(value) > 1})
    if twice:
        raise ValueError(f"config.{name} has {', '.join(twice)} more than once.")


def seed(name: str, value: Any) -> None:
    """Check that a value is an integer from 0 to 2**32 - 1."""
    integer(0, 2**32 - 1)(name, value)


def at_least_0(name: str, value: Any) -> None:
    """Check that a value is a finite number of 0 or more."""
    if not (_is_finite(value) and value >= 0):
        raise ValueError(f"config.{name} is {shown(value)}, expected a finite number of 0 or more.")


def steps(name: str, values: Any) -> None:
    """Check that a value is a list, which may be empty, of growing integers of 1 or more."""
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise ValueError(f"config.{name} is {shown(values)}, expected a list of steps.")
    for value in values:
        integer(1)(name, value)
    if list(values) != sorted(set(values)):
        raise ValueError(f"config.{name} is {shown(values)}, expected steps that grow.")


def file(name: str, value: Any) -> None:
    """Check that a value is a string, which may be empty."""
    if not isinstance(value, str):
        raise ValueError(f"config.{name} is {shown(value)}, expected the path of a file.")


def precision(name: str, value: Any) -> None:
    """Check that a value is one of `PRECISIONS`."""
    if value not in PRECISIONS:
        raise ValueError(
            f"config.{name} is {shown(value)}, expected one of {', '.join(PRECISIONS)}."
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings that all runners share; `experiments.configs.base` sets their values."""

    runner: Annotated[str, SWEEP]
    experiment: Annotated[str, text, SWEEP]
    figure: Annotated[str, SWEEP]
    network: str
    dataset: str
    seeds: Annotated[Sequence[int], list_of(seed), SWEEP]
    learning_rate: Annotated[Numbers, one_or_several(positive)]
    epochs: Annotated[int, integer(1)]
    batch_size: Annotated[int, integer(1)]
    eval_every: Annotated[int, integer(1)]
    matmul_precision: Annotated[str, precision]
    members_at_once: Annotated[int, integer(0)]
    chunk_evals: Annotated[int, integer(1), SWEEP]
    optimizer: Annotated[str, optimizer_name] = "adam"
    momentum: Annotated[Numbers, one_or_several(fraction)] = 0.0
    nesterov: Annotated[bool, boolean] = False
    weight_decay: Annotated[Numbers, one_or_several(at_least_0)] = 0.0
    clip_norm: Annotated[float, at_least_0] = 0.0  # of all gradients together; 0: no clipping
    schedule: Annotated[str, one_of("schedule", dict.fromkeys(SCHEDULES))] = "constant"
    warmup_steps: Annotated[int, integer(0)] = 0
    drop_steps: Annotated[Sequence[int], steps] = ()  # of schedule "step"
    drop_factor: Annotated[float, positive] = 0.1
    loss: Annotated[str, function_or_one_of("loss", LOSSES)] = "cross_entropy"
    augment_shift: Annotated[int, integer(0)] = 0  # pixels
    augment_flip: Annotated[bool, boolean] = False
    num_validation: Annotated[int, integer(0)] = 0  # as the data set has it, see `datasets.load`

    def recorded(self) -> dict[str, Any]:
        """Return the settings for ``config.json``: all but those that have their default.

        A setting that is younger than a file has its default there, so the same settings are
        recorded in the same way by any version.
        """
        values, younger = dataclasses.asdict(self), defaults(type(self))
        return {
            name: value
            for name, value in values.items()
            if name not in younger or value != younger[name]
        }

    def shared_with(self, kind: "type[Settings]") -> dict[str, Any]:
        """Return those of these settings that a parent class declares, by name.

        Args:
          kind: the parent class.
        """
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(kind)}

    def of_a_member(self) -> dict[str, Any]:
        """Return the recorded settings that a single member's numbers depend on, for its id."""
        recorded = self.recorded()
        return {
            name: getattr(self, name)
            for name, marks in _marks(type(self))
            if SWEEP not in marks and name in recorded
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class RateSettings(Settings):
    """The settings of runners whose densities follow from pruning rates per round."""

    default_rate: Annotated[Numbers, one_or_several(fraction)]
    rates: Sequence[tuple[str, float]]  # (pattern, rate) for leaves whose path matches


def rates_of_leaves(config: RateSettings, params: PyTree) -> PyTree:
    """Return the pruning rate of every leaf.

    Args:
      config: the settings, with one `default_rate`.
      params: `[...]` per leaf, or their shapes.

    Raises:
      ValueError: if a rule is wrong or matches no leaf.
    """
    own = by_name.is_named(config.network)
    default: Any = config.default_rate
    try:
        return rates.rates_by_path(params, config.rates, default)
    except (ValueError, TypeError) as error:
        hint = " Its own rates come with --config=FILE.py:" + config.network if own else ""
        raise ValueError(f"config.rates: {error}{hint}") from None


def pruning_rates(config: RateSettings, params: PyTree) -> PyTree:
    """Return the pruning rate of every leaf, where each is pruned by itself.

    Args:
      config: the settings.
      params: `[...]` per leaf, or their shapes.

    Raises:
      ValueError: if a rule is wrong or matches no leaf, or if none is for convolutions.
    """
    tree, own = rates_of_leaves(config, params), by_name.is_named(config.network)
    if not own and "conv1" in params and not any("conv" in pattern for pattern, _ in config.rates):
        raise ValueError(
            f"config.rates has no rule for the convolutions of {config.network}; choose the "
            f"network after the colon: --config=FILE.py:{config.network}, or add it to "
            "CONVOLUTION_RATES of experiments/configs/base.py."
        )
    return tree


def defaults(kind: type[Settings]) -> dict[str, Any]:
    """Return the values of settings that a file may lack."""
    return {
        field.name: field.default
        for field in dataclasses.fields(kind)
        if field.default is not dataclasses.MISSING
    }


def modules_of(config: Mapping[str, Any]) -> list[str]:
    """Return the names of the modules whose functions the settings of a run name."""
    names = [config[name] for name in ("network", "dataset")]
    names += [by_name.with_colon(config[name]) for name in FUNCTIONS if name in config]
    return [by_name.module_of(name) for name in names if by_name.is_named(name)]


def read(kind: type[S], config: Mapping[str, Any]) -> S:
    """Check a configuration and return its settings, with floats where floats are declared.

    A list of one number is that number.

    Args:
      kind: the subclass of `Settings` of a runner.
      config: the values of its fields; those with a default may be missing.

    Raises:
      ValueError: if a setting is missing, unknown or wrong.
    """
    config = defaults(kind) | dict(config)
    _check_names(config, [field.name for field in dataclasses.fields(kind)])
    for name, marks in _marks(kind):
        for check in marks:
            if check is not SWEEP:
                check(name, config[name])
    declared = get_type_hints(kind)
    return kind(**{name: _as_declared(declared[name], value) for name, value in config.items()})


def _as_declared(kind: Any, value: Any) -> Any:
    """Return a value with floats where its declared type has them, so that 0 and 0.0 are one."""
    if kind == Numbers:
        if not isinstance(value, list | tuple):
            return _as_declared(float, value)
        several = [_as_declared(float, number) for number in value]
        return tuple(several) if len(several) > 1 else several[0]
    parts = get_args(kind)
    if kind is float and _is_finite(value):
        return float(value) + 0.0  # adding 0.0 turns -0.0 into 0.0
    if not isinstance(value, list | tuple):
        return value
    if get_origin(kind) is Sequence:
        return tuple(_as_declared(parts[0], item) for item in value)
    if get_origin(kind) is tuple and len(value) == len(parts):
        return tuple(map(_as_declared, parts, value))
    return value


def _marks(kind: type[Settings]) -> list[tuple[str, tuple[Any, ...]]]:
    """Return the checks and roles of every field."""
    hints = get_type_hints(kind, include_extras=True)
    return [(name, getattr(hint, "__metadata__", ())) for name, hint in hints.items()]


def _check_names(config: Mapping[str, Any], names: Iterable[str]) -> None:
    names = list(names)
    if missing := [name for name in names if name not in config]:
        raise ValueError(f"config has no {', '.join(missing)}, expected {', '.join(names)}.")
    if unknown := [str(name) for name in config if name not in names]:
        raise ValueError(f"config has {', '.join(unknown)}, expected only {', '.join(names)}.")


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond the range of floats
        return False
