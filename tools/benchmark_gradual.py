"""Measure steps of optimizers that prune while training, in steps that neither prune nor grow.

    python -m tools.benchmark_gradual --table=results/benchmark_gradual

A step is the gradient of a dense network on a batch of 60 and an update by Adam: one compiled step
that is called from Python, or a compiled loop of steps, for one member or for several, one after
the other. The ways take turns; the milliseconds are the median, and ratios are computed within each
turn. Lines are printed as Markdown.
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from supermask_jax import criteria, masks, population, rates, transforms, trees
from supermask_jax.checks import check_integer, lookup
from tools.benchmark import measurements

NETWORKS = {"lenet300": (784, 300, 100, 10), "wide": (784, 1024, 1024, 10), "tiny": (8, 6, 4)}
BATCH_SIZE = 60
NEVER = 2**30  # a step that no benchmark reaches
BASE = "freeze_pruned"  # what ratios compare with


class Row(NamedTuple):
    """One line of the table.

    `steps` are those of one compiled call. `bytes_per_weight` is the state of the optimizer.
    `ratio` is the time of this way by that of `freeze_pruned` in the same turns.
    """

    network: str
    weights: int
    members: int
    steps: int
    way: str
    milliseconds: float
    bytes_per_weight: float
    ratio: float


HEAD = [
    "network", "weights", "members", "steps per call", "way", "ms per step",
    "state bytes per weight", "time",
]  # fmt: skip


def lines(rows: Sequence[Row]) -> list[list[str]]:
    """Return the cells below `HEAD`."""
    return [
        [
            row.network, str(row.weights), str(row.members), str(row.steps), row.way,
            f"{row.milliseconds:.3g}", f"{row.bytes_per_weight:.1f}", f"{row.ratio:.2f}",
        ]
        for row in rows
    ]  # fmt: skip


def markdown(path: Path) -> str:
    """Return a table that this program wrote as Markdown."""
    return measurements.markdown(HEAD, lines(measurements.read(path, Row)))


def _gradually(criterion: trees.Criterion, prunable: Any) -> Any:
    schedule, key = rates.one_shot(0.2, at=NEVER), jax.random.key(0)
    return transforms.prune_gradually(optax.adam(1e-3), criterion, schedule, prunable, key=key)


# Optimizers of given parameters and prunable leaves.
WAYS: dict[str, Callable[[Any, Any], Any]] = {
    "adam": lambda params, prunable: optax.adam(1e-3),
    BASE: lambda params, prunable: transforms.freeze_pruned(optax.adam(1e-3), masks.ones(params)),
    "prune_gradually": lambda params, prunable: _gradually(criteria.large_final, prunable),
    "prune_gradually, keeping the start": lambda params, prunable: _gradually(
        criteria.movement, prunable
    ),
    "regrow": lambda params, prunable: transforms.regrow(
        optax.adam(1e-3), 0.2, prunable, every=NEVER - 1, last=NEVER, key=jax.random.key(0)
    ),
}


class Timed:
    """A network in training.

    Attributes:
      bytes_per_weight: of the state of its optimizer.
    """

    def __init__(self, network: str, members: int, way: str, steps: int, calls: int) -> None:
        """Make weights, data and states, and compile `steps` steps; a turn has `calls` calls."""
        params = _make_params(network)
        optimizer = WAYS[way](params, trees.prunable_leaves(params))
        opt_state = optimizer.init(params)
        held = sum(leaf.nbytes for leaf in jax.tree.leaves(opt_state))
        self.bytes_per_weight = held / num_weights(network)
        self._calls, self._member_steps = calls, calls * steps * members
        sizes = NETWORKS[network]
        images = jax.random.normal(jax.random.key(1), (BATCH_SIZE, sizes[0]))
        self._data = images, jnp.arange(BATCH_SIZE) % sizes[-1]
        state = jax.tree.map(jnp.copy, (params, opt_state))
        self._state = state if steps == 1 else population.stack([state] * members)
        self._run = _alone(optimizer) if steps == 1 else _together(optimizer, steps)
        self.turn()  # compiles, and warms caches

    def turn(self) -> float:
        """Train for some steps, and return the milliseconds of one step of one member."""
        begin = time.perf_counter()
        for _ in range(self._calls):
            self._state = self._run(self._state, self._data)
        jax.block_until_ready(self._state)
        return 1e3 * (time.perf_counter() - begin) / self._member_steps


def num_weights(network: str) -> int:
    """Count the parameters of a network."""
    return sum(leaf.size for leaf in jax.tree.leaves(_make_params(network)))


def measure(network: str, members: int, steps: int, calls: int, turns: int) -> list[Row]:
    """Measure all ways on one network, in turn."""
    timed = {way: Timed(network, members, way, steps, calls) for way in WAYS}
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for _, way in itertools.product(range(turns), WAYS):
        taken[way].append(timed[way].turn())
    return [
        Row(
            network, num_weights(network), members, steps, way, statistics.median(times),
            timed[way].bytes_per_weight,
            statistics.median(a / b for a, b in zip(times, taken[BASE], strict=True)),
        )
        for way, times in taken.items()
    ]  # fmt: skip


def _make_params(network: str) -> dict[str, Any]:
    he, sizes = jax.nn.initializers.he_normal(), NETWORKS[network]
    return {
        f"dense{i}": {"kernel": he(jax.random.key(i), shape), "bias": jnp.zeros(shape[1])}
        for i, shape in enumerate(itertools.pairwise(sizes))
    }


def _loss(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
    *hidden, output = params.values()
    for layer in hidden:
        images = jax.nn.relu(images @ layer["kernel"] + layer["bias"])
    logits = images @ output["kernel"] + output["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _step(optimizer: Any, state: Any, data: Any) -> Any:
    params, opt_state = state
    updates, opt_state = optimizer.update(jax.grad(_loss)(params, *data), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def _alone(optimizer: Any) -> Callable[[Any, Any], Any]:
    return jax.jit(lambda state, data: _step(optimizer, state, data), donate_argnums=0)


def _together(optimizer: Any, steps: int) -> Callable[[Any, Any], Any]:
    def train(state: Any, _: Any, data: Any) -> tuple[Any, Any]:
        return lax.fori_loop(0, steps, lambda _, s: _step(optimizer, s, data), state), ()

    mapped = population.map_members(train)
    return jax.jit(lambda states, data: mapped(states, (), data)[0], donate_argnums=0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the networks and numbers of members that the flags name."""
    flags = _parser().parse_args(arguments)
    try:
        networks = [name for name in flags.networks.split(",") if lookup("network", name, NETWORKS)]
        members = [_number("--members", text) for text in flags.members.split(",")]
        steps, turns = _number("--steps", flags.steps, 2), _number("--turns", flags.turns)
    except ValueError as error:
        sys.exit(f"error: {error}")
    rows: list[Row] = []
    print(measurements.markdown(HEAD, []))
    layouts = [(1, 1, steps), *((number, steps, 1) for number in members)]
    for network, layout in itertools.product(networks, layouts):
        rows += measure(network, *layout, turns)
        print("\n".join(map(measurements.markdown_line, lines(rows[-len(WAYS) :]))), flush=True)
    if flags.table:
        measurements.write(Path(f"{flags.table}.csv"), rows)
        measurements.write_machine(Path(f"{flags.table}.csv"))


def _number(flag: str, text: str, least: int = 1) -> int:
    return check_integer(flag, int(text) if text.isdecimal() else text, least)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--networks", default="lenet300,wide", help="networks")
    parser.add_argument("--members", default="1,8", help="numbers of members of a compiled loop")
    parser.add_argument("--steps", default="30", help="steps of a turn")
    parser.add_argument("--turns", default="15", help="turns of each way")
    parser.add_argument("--table", help="path without suffix for a .csv")
    return parser


if __name__ == "__main__":
    main()
