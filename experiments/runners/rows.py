"""The rows of a runner's table: what they share and in which order they come."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.runners.settings import Settings
from experiments.storage import environment, results


class Origin(NamedTuple):
    """What made a row.

    Attributes:
      code_version: see `environment.code_version`.
      command: what was typed.
    """

    code_version: str
    command: str

    @classmethod
    def now(cls, command: str) -> "Origin":
        """This code and a command."""
        return cls(environment.code_version(), command)


def make_row(
    columns: results.Columns,
    settings: Settings,
    origin: Origin,
    member: Mapping[str, Any],
    values: Mapping[str, Any],
) -> results.Row:
    """A row in the order of its columns.

    Args:
      columns: of the table.
      settings: of the run.
      origin: what makes the row.
      member: what tells it from the others; with the settings it decides the id.
      values: all columns that are neither of the member nor shared by all rows of a run.
    """
    row = {
        "id": results.row_id(settings.of_a_member(), member, origin.code_version),
        "experiment": settings.experiment,
        "network": settings.network,
        "dataset": settings.dataset,
        **member,
        **values,
        **origin._asdict(),
    }
    return {name: row[name] for name in columns}


def in_order(orders: Mapping[str, Sequence[Any]]) -> Callable[[results.Row], tuple]:
    """A key that sorts rows by columns, each in an order of its own, the first column first.

    >>> rows = [{"seed": 0, "variant": "b"}, {"seed": 1, "variant": "a"}]
    >>> sorted(rows, key=in_order({"variant": ["a", "b"], "seed": [0, 1]}))[0]["variant"]
    'a'
    """
    return lambda row: tuple(order.index(row[name]) for name, order in orders.items())
