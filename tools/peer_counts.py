"""Print how many weights this and other programs keep, round by round, as Markdown.

    python -m tools.peer_counts

Every round removes 20 % of the kept weights of one layer. What PyTorch and open_lth keep is counted
by `rates.keep_counts`; tests compare it with PyTorch itself, where that is installed, and with the
lines of open_lth. jaxpruner knows no rounds; it is asked for the density `0.8**round`.
"""

import sys
from collections.abc import Callable

import jax
import numpy as np

from supermask_jax import rates

RATE = 0.2
ROUNDS = range(1, 11)
SIZES = (235_200, 30_000, 1_000, 7)  # dense1 and dense2 of lenet300, its output layer, and a few


def by_rounds(size: int, removed: str) -> list[int]:
    """Return what is left of a layer after every round.

    Args:
      size: the number of its weights.
      removed: how many weights a round removes, see `rates.keep_counts`.
    """
    leaf = jax.ShapeDtypeStruct((size,), np.float32)
    return [rates.keep_counts(leaf, RATE, round, removed=removed) for round in ROUNDS]


def by_densities(size: int) -> list[int]:
    """Return what jaxpruner keeps of a layer at the density of every round, in its float32."""
    sparsities = [np.float32(1 - (1 - RATE) ** round) for round in ROUNDS]
    return [max(1, int(np.round(np.float32(size) * (1 - share)))) for share in sparsities]


PROGRAMS: dict[str, Callable[[int], list[int]]] = {
    "ours": lambda size: by_rounds(size, "floor"),
    'PyTorch; ours, `removed="round"`': lambda size: by_rounds(size, "round"),
    'open_lth; ours, `removed="open_lth"`': lambda size: by_rounds(size, "open_lth"),
    "jaxpruner": by_densities,
}


def markdown() -> str:
    """Return the table, a line per number of weights and program."""
    head = ["weights", "program", *map(str, ROUNDS)]
    lines = [head, ["---"] * 2 + ["--:"] * len(ROUNDS)]
    for size in SIZES:
        for name, count in PROGRAMS.items():
            lines.append([f"{size:,}", name, *(f"{kept:,}" for kept in count(size))])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def main() -> None:
    """Print the table."""
    if len(sys.argv) > 1:
        sys.exit(f"error: unknown argument {sys.argv[1]!r}, expected none.")
    print(markdown(), end="")


if __name__ == "__main__":
    main()
