"""The rows of a runner's table: their shared columns and their order."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.runners import hyperparameters
from experiments.runners.hyperparameters import Numbers
from experiments.runners.settings import Settings
from experiments.storage import results


class Origin(NamedTuple):
    """The provenance of a row.

    Attributes:
      code_version: see `experiments.storage.code`.
      command: the command that was typed.
    """

    code_version: str
    command: str


def make_row(
    columns: results.Columns,
    settings: Settings,
    origin: Origin,
    numbers: Numbers,
    member: Mapping[str, Any],
    values: Mapping[str, Any],
) -> results.Row:
    """Return a row, in the order of its columns.

    Args:
      columns: the columns of the table.
      settings: the settings of the run.
      origin: the provenance of the row.
      numbers: those of the member.
      member: the columns that distinguish the row; with settings and code they determine its id.
      values: all other columns that differ between the rows of a run.
    """
    own = hyperparameters.of_member(settings, numbers)
    row = {
        "id": results.row_id(own.of_a_member(), member, origin.code_version),
        "experiment": settings.experiment,
        "network": settings.network,
        "dataset": settings.dataset,
        **numbers._asdict(),
        **member,
        **values,
        **origin._asdict(),
    }
    return {name: row[name] for name in columns}


def in_order(orders: Mapping[str, Sequence[Any]]) -> Callable[[results.Row], tuple]:
    """Return a sort key for rows: by the first column, then the next, each in a given order.

    Args:
      orders: for each column, its values in order.

    Examples:
      >>> rows = [{"seed": 0, "variant": "b"}, {"seed": 1, "variant": "a"}]
      >>> sorted(rows, key=in_order({"variant": ["a", "b"], "seed": [0, 1]}))[0]["variant"]
      'a'
    """
    return lambda row: tuple(order.index(row[name]) for name, order in orders.items())
