"""Settings that may list several numbers, each of which makes members of its own.

A member has one number of each. Numbers of the optimizer that differ between members reach it as
the item `HYPERPARAMETERS` of the member's context, so that one program trains all of them.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.problems.problem import PyTree
from experiments.runners import settings
from experiments.runners.settings import RateSettings, Settings, defaults
from experiments.storage import results

HYPERPARAMETERS = "hyperparameters"
OF_TRAINING = ("learning_rate", "weight_decay", "momentum")
OF_PRUNING = (*OF_TRAINING, "default_rate")  # of runners that also prune by rates
S = TypeVar("S", bound=Settings)


class Numbers(NamedTuple):
    """The numbers of one member; the names are those of the settings and of the columns.

    `default_rate` is None of a member that is not pruned by rates, such as a dense network.
    """

    learning_rate: float
    weight_decay: float
    momentum: float
    default_rate: float | None = None


class HasNumbers(Protocol):
    """A member of a sweep."""

    @property
    def numbers(self) -> Numbers:
        """The numbers of the member."""
        ...


def columns(names: Sequence[str]) -> results.Columns:
    """Return the columns of a table for some settings; tables are older than these columns."""
    return dict.fromkeys(names, results.Younger(results.optional_number, None))


def listed(value: Any) -> list[Any]:
    """Return the numbers of a setting, which is a number or a list of numbers."""
    return list(value) if isinstance(value, list | tuple) else [value]


def swept(config: Settings, names: Sequence[str]) -> list[str]:
    """Return those of some settings that list several numbers."""
    return [name for name in names if len(listed(getattr(config, name))) > 1]


def combinations(config: Settings, names: Sequence[str]) -> list[Numbers]:
    """Return every combination of the numbers of some settings; the last setting varies fastest."""
    choices = [listed(getattr(config, name)) for name in names]
    return [Numbers(**dict(zip(names, own, strict=True))) for own in itertools.product(*choices)]


def pruning_rates(config: RateSettings, params: PyTree) -> dict[Any, PyTree]:
    """Return the pruning rate of every leaf, by `default_rate`; see `settings.pruning_rates`."""
    return {
        rate: settings.pruning_rates(dataclasses.replace(config, default_rate=rate), params)
        for rate in listed(config.default_rate)
    }


def refuse_lists(config: Settings) -> None:
    """Check that all settings are single numbers, for a runner that sweeps none.

    Raises:
      ValueError: if one lists several; names it and the runner.
    """
    for name in swept(config, OF_PRUNING):
        raise ValueError(
            f"config.{name} is {getattr(config, name)}, expected one number: the runner "
            f"{config.runner} sweeps none; run it once per number."
        )


def of_member(config: S, numbers: Numbers) -> S:
    """Return the settings of a run of one member alone.

    Where a member has no number, the setting has its first one.
    """
    own = {name: value for name, value in numbers._asdict().items() if value is not None}
    firsts = {name: listed(getattr(config, name))[0] for name in _of(config)}
    return dataclasses.replace(config, **(firsts | own))


def alone(config: ConfigDict, row: results.Row) -> ConfigDict:
    """Return the configuration of a run that has a row's numbers alone.

    Args:
      config: the configuration of the run that made the row.
      row: the row; where it has no number, the setting has its first one.
    """
    own = config.to_dict()
    for name in own.keys() & set(OF_PRUNING):
        own[name] = listed(own[name])[0] if row.get(name) is None else row[name]
    return ConfigDict(own)


def orders(
    kind: type[Settings], config: Mapping[str, Any], names: Sequence[str]
) -> dict[str, list[float | None]]:
    """Return the order of rows by some settings, for `rows.in_order`; no number comes first.

    Args:
      kind: the class of the settings.
      config: the settings, which may lack those that have their default.
      names: of the settings.
    """
    config = defaults(kind) | dict(config)
    return {name: [None, *listed(config[name])] for name in names}


def filled(
    rows: Sequence[results.Row], kind: type[Settings], config: Mapping[str, Any]
) -> list[results.Row]:
    """Return rows with the numbers of their run, where their table is older than its columns.

    Args:
      rows: of one run.
      kind: the class of the settings.
      config: the settings, one number each if the table is older.
    """
    config = defaults(kind) | dict(config)

    def number(row: results.Row, name: str) -> float | None:
        has_none = name == "default_rate" and row["variant"] == "dense"
        return None if has_none else float(listed(config[name])[0])

    return [
        row | {name: number(row, name) for name in OF_PRUNING if row.get(name, 0) is None}
        for row in rows
    ]


def are_of(numbers: Numbers, row: results.Row) -> bool:
    """Return whether a row has a member's numbers; those that the row lacks may be any."""
    return all(row.get(name) in (None, number) for name, number in numbers._asdict().items())


def context(config: Settings, members: Sequence[HasNumbers]) -> dict[str, dict[str, np.ndarray]]:
    """Return what the context of members has for the optimizer: float32 `[P]` per setting.

    It is empty where no setting of the optimizer lists several numbers.
    """
    found = {
        name: np.array([getattr(member.numbers, name) for member in members], np.float32)
        for name in swept(config, OF_TRAINING)
    }
    return {HYPERPARAMETERS: found} if found else {}


def abstract_context(config: Settings) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """Return the shapes and types of one member's `context`."""
    scalar = jax.ShapeDtypeStruct((), np.float32)
    names = swept(config, OF_TRAINING)
    return {HYPERPARAMETERS: dict.fromkeys(names, scalar)} if names else {}


def _of(config: Settings) -> tuple[str, ...]:
    return OF_PRUNING if isinstance(config, RateSettings) else OF_TRAINING
