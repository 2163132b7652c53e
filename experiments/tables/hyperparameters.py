"""What tells apart the lines of a table whose settings list several numbers."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

# Columns of numbers that members may differ in, in words.
WORDS = {
    "learning_rate": "learning rate",
    "weight_decay": "weight decay",
    "momentum": "momentum",
    "default_rate": "pruning rate",
}
METHOD = ("variant", "criterion", "weights", "rescale", "draw")


def swept(rows: Sequence[Row]) -> list[str]:
    """Return the columns in which rows of one method have several numbers."""
    found = defaultdict(set)
    for row in rows:
        method = tuple(row.get(name) for name in METHOD)
        for name in WORDS:
            if row.get(name) is not None:
                found[name, method].add(row[name])
    several = {name for (name, _), numbers in found.items() if len(numbers) > 1}
    return [name for name in WORDS if name in several]


def in_words(row: Row, names: Sequence[str]) -> str:
    """Return some numbers of a row in words, without those that it does not have.

    Examples:
      >>> in_words({"learning_rate": 0.003, "momentum": 0.0}, ["learning_rate", "momentum"])
      'learning rate 0.003, momentum 0'
      >>> in_words({"learning_rate": 0.003, "default_rate": None}, ["default_rate"])
      ''
    """
    told = [name for name in names if row.get(name) is not None]
    return ", ".join(f"{WORDS[name]} {str(row[name]).removesuffix('.0')}" for name in told)


def by_numbers(rows: Sequence[Row], names: Sequence[str]) -> dict[str, list[Row]]:
    """Return rows by some of their numbers, which the keys tell in words."""
    groups = defaultdict(list)
    for row in rows:
        groups[in_words(row, names)].append(row)
    return groups


def joined(method: str, numbers: str) -> str:
    """Return the name of a line: that of its method, and its numbers if there are any."""
    return f"{method}, {numbers}" if numbers else method
