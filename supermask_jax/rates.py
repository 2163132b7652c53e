"""How many weights to keep: rates by path rules, densities of layers, schedules, exact counts.

A rate is the fraction of the kept weights that a round removes; a density is the fraction of all
weights that is kept. This is arithmetic on the host, in Python numbers.

Examples:
  >>> import jax.numpy as jnp
  >>> kernels = {"dense1": (784, 300), "output": (300, 10)}
  >>> params = {name: {"kernel": jnp.ones(shape)} for name, shape in kernels.items()}
  >>> rates = rates_by_path(params, [(".*output/kernel.*", 0.1)], default=0.2)
  >>> rates
  {'dense1': {'kernel': 0.2}, 'output': {'kernel': 0.1}}
  >>> keep_counts(params, rates, round=2)
  {'dense1': {'kernel': 150528}, 'output': {'kernel': 2430}}
"""

import dataclasses
import heapq
import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from supermask_jax.checks import (
    check_integer,
    check_masks,
    check_prunable,
    check_shaped,
    check_share,
    check_structure,
    concrete,
    exact,
    lookup,
    shown,
)
from supermask_jax.paths import PyTree, path_name
from supermask_jax.trees import num_prunable, prunable_leaves

Number = float | Fraction
Rules = Sequence[tuple[str, Number]]
DIGITS = 40  # of a density of an exponential schedule

# How many of `kept` weights a round removes at a rate above 0: functions of both.
REMOVED: dict[str, Callable[[Fraction, int], int]] = {
    "floor": lambda rate, kept: math.floor(rate * kept),
    "round": lambda rate, kept: round(float(rate) * kept),
    "open_lth": lambda rate, kept: min(kept, math.ceil(float(rate) * kept) + 1),
}
# How many weights a leaf keeps in proportion to other leaves: functions of its shape.
DISTRIBUTIONS: dict[str, Callable[[Sequence[int]], int]] = {
    "uniform": math.prod,
    "erdos_renyi": lambda shape: math.prod(shape[:-2]) * sum(shape[-2:]),
    "erk": sum,
}


def rates_by_path(
    params: PyTree,
    rules: Rules,
    default: float = 0.0,
    prunable: PyTree | None = None,
) -> PyTree:
    """Return the pruning rate of each leaf: the fraction of its kept weights that a round removes.

    Args:
      params: arrays or `jax.ShapeDtypeStruct`s.
      rules: pairs of a regular expression and a rate in [0, 1). The expression must match the whole
        path of a leaf; the first match wins. `".*output/kernel.*"` finds the kernel of a layer in
        nested trees, in flat trees and in those of flax nnx, whose paths end in `/value`.
      default: the rate of prunable leaves that no rule matches.
      prunable: from `trees.prunable_leaves`, which is also the default.

    Returns:
      A tree of rates; 0 for leaves that are not prunable.

    Raises:
      ValueError: if a rate is outside [0, 1), if a rule applies to no leaf, if a leaf that is not
        prunable gets a rate above 0, or if a pattern is not a regular expression.

    Examples:
      >>> params = {"hidden": np.ones((4, 3)), "output": np.ones((3, 2))}
      >>> rates_by_path(params, [("output", 0.1)], default=0.2)
      {'hidden': 0.2, 'output': 0.1}
    """
    prunable = _prunable(params, prunable)
    default = check_share("rate", default, "default")
    by_rule = _match(params, prunable, rules, "rate", idle=0)
    found = [
        rate if rate is not None else default if yes else 0.0
        for rate, yes in zip(by_rule, jax.tree.leaves(prunable), strict=True)
    ]
    return jax.tree.structure(params).unflatten(found)


def keep_counts(
    params: PyTree,
    rates: PyTree,
    round: int,
    start: PyTree | None = None,
    *,
    removed: str = "floor",
) -> PyTree:
    """Return how many weights of every leaf are left after `round` rounds, as Python ints.

    A round removes `floor(rate * kept)` weights, in decimal arithmetic: 0.1 of 30 is 3. To match
    the runs of other programs, name how many `removed` weights they round to:

    * `"floor"`: the above, as in Zhou et al. 2019.
    * `"round"`: `round(rate * kept)`, half to even, in float64, as `torch.nn.utils.prune` removes
      of a tensor, or of all together in `global_unstructured`.
    * `"open_lth"`: `ceil(rate * kept) + 1`, in float64. open_lth has one threshold over all layers,
      the weight after the `ceil(rate * kept)` smallest, and keeps only larger ones. So count all
      prunable weights as one leaf, and prune with `masks.prune_global`.

    A rate of 0 removes nothing.

    Args:
      params: arrays or `jax.ShapeDtypeStruct`s.
      rates: from `rates_by_path`.
      round: the number of rounds.
      start: the mask before the first round, if the network is not dense then: the mask that
        `rounds.begin` got.
      removed: a name of `REMOVED`, as above.

    Returns:
      A tree of ints.

    Raises:
      ValueError: if a rate is outside [0, 1), if `round` is negative, if trees or shapes differ, or
        if no such name is known.
      TypeError: if `start` is not a mask, or is traced: counts must be known outside `jit`.

    Examples:
      >>> sparse = {"kernel": np.arange(100) < 30}
      >>> keep_counts({"kernel": np.ones(100)}, {"kernel": 0.2}, 1, start=sparse)
      {'kernel': 24}
      >>> all_weights = jax.ShapeDtypeStruct((266_200,), np.float32)
      >>> [keep_counts(all_weights, 0.2, 3, removed=name) for name in REMOVED]
      [136295, 136294, 136291]
    """
    check_shaped(params=params)
    check_structure(params=params, rates=rates)
    number = check_integer("round", round, 0)
    num_removed = lookup("way to count what is removed", removed, REMOVED)
    begun = jax.tree.map(lambda leaf: math.prod(leaf.shape), params)
    if start is not None:
        check_masks(start=start)
        check_shaped(params=params, start=start)
        begun = jax.tree_util.tree_map_with_path(_count_known, start)

    def count(path: Any, kept: int, rate: Any) -> int:
        fraction = exact("rate", rate, f"leaf '{path_name(path)}'")
        for _ in range(number if fraction else 0):
            gone = num_removed(fraction, kept)
            if not gone:
                break  # nor will any later round remove one
            kept -= gone
        return kept

    return jax.tree_util.tree_map_with_path(count, begun, rates)


def layer_densities(
    params: PyTree,
    density: Number,
    distribution: str,
    rules: Rules = (),
    prunable: PyTree | None = None,
) -> PyTree:
    """Return the density of each leaf such that all prunable weights together have a given one.

    With `d(l)` for the density of leaf `l` and one `e` for all leaves, the distributions are

    * `"uniform"`: `d(l) = e`.
    * `"erdos_renyi"`: `d(l) = min(1, e (n_in + n_out) / (n_in n_out))`, of Mocanu et al. 2018,
      "Scalable training of artificial neural networks with adaptive sparse connectivity".
    * `"erk"`: `d(l) = min(1, e (n_in + n_out + k_1 + k_2 + ...) / (n_in n_out k_1 k_2 ...))`, with
      the sizes `k` of convolution windows, of Evci et al. 2020, "Rigging the lottery".

    The number `e` is solved for, again whenever leaves turn out to be dense. Shapes are
    `[..., n_in, n_out]`, as in flax; `"erk"` does not depend on the order. Stacked layers need
    leaves of their own: `trees.unstack_layers`.

    Args:
      params: arrays or `jax.ShapeDtypeStruct`s.
      density: of all prunable weights, in [0, 1].
      distribution: a name of `DISTRIBUTIONS`.
      rules: pairs of a regular expression and a density in [0, 1] for the leaves whose path it
        matches, as in `rates_by_path`. The other leaves share what is left.
      prunable: from `trees.prunable_leaves`, which is also the default.

    Returns:
      A tree of `Fraction`s; 1 for leaves that are not prunable.

    Raises:
      ValueError: if a density is outside [0, 1], if the other leaves are too small for what the
        rules leave to them or the rules keep more than all may, if the distribution is unknown or
        needs a kernel and a leaf is none; also as `rates_by_path`.

    Examples:
      >>> params = {"hidden": np.ones((100, 100)), "output": np.ones((100, 10))}
      >>> {name: str(d) for name, d in layer_densities(params, 0.1, "erk").items()}
      {'hidden': '11/155', 'output': '121/310'}
    """
    plan = _plan(params, density, distribution, rules, prunable)
    fixed = sum((rule or 0) * size for rule, size in zip(plan.by_rule, plan.sizes, strict=True))
    amounts = _share(plan, plan.density * sum(plan.sizes) - fixed)
    shared = [amount / (size or 1) for amount, size in zip(amounts, plan.sizes, strict=True)]
    found = [e if d is None else d for d, e in zip(plan.by_rule, shared, strict=True)]
    return plan.fill([Fraction(1)] * len(plan.all_sizes), found)


def layer_counts(
    params: PyTree,
    density: Number,
    distribution: str,
    rules: Rules = (),
    prunable: PyTree | None = None,
) -> PyTree:
    """Return how many weights of each leaf to keep: `layer_densities` in whole weights.

    All prunable leaves together keep exactly `n - floor((1 - density) n)` of their `n` weights.
    Leaves of a rule keep `size - floor((1 - density) size)`; others are rounded down, and the
    weights then missing go to those that are next to have one more if `e` grows. So no count
    grows when `density` falls.

    Args:
      params: as `layer_densities`.
      density: as `layer_densities`.
      distribution: as `layer_densities`.
      rules: as `layer_densities`.
      prunable: as `layer_densities`.

    Returns:
      A tree of ints; the size for leaves that are not prunable.

    Raises:
      ValueError: as `layer_densities`.

    Examples:
      >>> params = {"hidden": np.ones((100, 100)), "output": np.ones((100, 10))}
      >>> layer_counts(params, 0.1, "erk")
      {'hidden': 710, 'output': 390}
      >>> layer_counts(params, 0.1, "erk", rules=[("output", 1)])
      {'hidden': 100, 'output': 1000}
    """
    plan = _plan(params, density, distribution, rules, prunable)
    fixed = [_kept_at(rule or 0, size) for rule, size in zip(plan.by_rule, plan.sizes, strict=True)]
    left = _kept_at(plan.density, sum(plan.sizes)) - sum(fixed)
    amounts = _share(plan, Fraction(left))
    counts = [math.floor(amount) for amount in amounts]
    later = [  # the `e` at which each leaf gets its next weight
        (Fraction(count + 1, plan.shares[i]), i)
        for i, count in enumerate(counts)
        if plan.by_rule[i] is None and count < plan.sizes[i]
    ]
    heapq.heapify(later)
    for _ in range(left - sum(counts)):
        _, i = heapq.heappop(later)
        counts[i] += 1
        if counts[i] < plan.sizes[i]:
            heapq.heappush(later, (Fraction(counts[i] + 1, plan.shares[i]), i))
    both = [count + number for count, number in zip(counts, fixed, strict=True)]
    return plan.fill(plan.all_sizes, both)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When to prune inside a training, and to which density: events at regular steps.

    The functions `cubic`, `linear`, `exponential` and `one_shot` make schedules. A schedule is
    static: close over it in jitted code.

    Attributes:
      begin: the step of the first event.
      every: the number of steps between events.
      densities: the density after each event, [0, 1], not growing; kept as `Fraction`s.

    Raises:
      ValueError: if a number is out of its range, or if a density is larger than that before.

    Examples:
      >>> schedule = Schedule(begin=100, every=10, densities=(0.5, 0.2))
      >>> [float(schedule(step)) for step in (99, 100, 109, 110, 999)]
      [1.0, 0.5, 0.5, 0.2, 0.2]
    """

    begin: int
    every: int
    densities: Sequence[Number]

    def __post_init__(self) -> None:
        """Check the numbers, and keep them as Python's."""
        if not isinstance(self.densities, Sequence) or not self.densities:
            raise ValueError(
                f"densities is {shown(self.densities)}, expected a list of one number or more."
            )
        densities = tuple(
            exact("density", density, f"event {event}")
            for event, density in enumerate(self.densities)
        )
        for event in range(1, len(densities)):
            if densities[event] > densities[event - 1]:
                raise ValueError(
                    f"the density of event {event} is {self.densities[event]}, more than "
                    f"{self.densities[event - 1]} before it, but a pruned weight never returns."
                )
        object.__setattr__(self, "begin", check_integer("begin", self.begin, 0))
        object.__setattr__(self, "every", check_integer("every", self.every, 1))
        object.__setattr__(self, "densities", densities)

    def __call__(self, step: int) -> Fraction:
        """Return the density after the event of a step, if it has one; 1 before the first."""
        since = (check_integer("step", step, 0) - self.begin) // self.every
        number = min(max(since + 1, 0), len(self.densities))
        return Fraction(self.densities[number - 1]) if number else Fraction(1)

    def num_events(self, step: int | jax.Array) -> jax.Array:
        """Count the events up to and including a step: int32, 0 before the first.

        In jitted code, `counts[num_events(step) - 1]` are exact numbers of `schedule_counts`, and
        there is an event at `step` where `num_events` differs from that of `step - 1`.

        Args:
          step: an integer, Python or traced.

        Examples:
          >>> one_shot(0.2, at=5).num_events(jnp.arange(3, 8)).tolist()
          [0, 0, 1, 1, 1]
        """
        since = (jnp.asarray(step, jnp.int32) - self.begin) // self.every
        return jnp.clip(since + 1, 0, len(self.densities))


def cubic(final: Number, *, begin: int, every: int, number: int, initial: Number = 1) -> Schedule:
    """Make the schedule of Zhu & Gupta 2017, "To prune, or not to prune".

    The density after event i = 0, ..., `number`, at step `begin + i every`, is
    `final + (initial - final) (1 - i / number)**3`, as is one minus the paper's sparsity. Events
    prune most at first. At the first one the density is `initial`: nothing is pruned if it is 1.

    Args:
      final: the density after the last event, in [0, `initial`].
      begin: the step of the first event.
      every: the number of steps between events.
      number: the number of intervals between events, 1 or more.
      initial: the density after the first event, at most 1.

    Raises:
      ValueError: if a number is out of its range.

    Examples:
      >>> schedule = cubic(0.1, begin=0, every=10, number=3)
      >>> [round(float(density), 3) for density in schedule.densities]
      [1.0, 0.367, 0.133, 0.1]
    """
    return _interpolated(
        lambda a, b, x: b + (a - b) * (1 - x) ** 3, final, begin, every, number, initial
    )


def linear(final: Number, *, begin: int, every: int, number: int, initial: Number = 1) -> Schedule:
    """Make a schedule whose events prune equal numbers of weights.

    The density after event i is `initial + (final - initial) i / number`. Arguments and errors are
    those of `cubic`.

    Examples:
      >>> [float(density) for density in linear(0.5, begin=0, every=10, number=2).densities]
      [1.0, 0.75, 0.5]
    """
    return _interpolated(lambda a, b, x: a + (b - a) * x, final, begin, every, number, initial)


def exponential(
    final: Number, *, begin: int, every: int, number: int, initial: Number = 1
) -> Schedule:
    """Make a schedule whose events prune equal fractions of the weights that are left.

    The density after event i is `initial (final / initial)**(i / number)`, to 40 digits. Arguments
    and errors are those of `cubic`, but `final` is above 0.

    Examples:
      >>> [float(density) for density in exponential(0.25, begin=0, every=10, number=2).densities]
      [1.0, 0.5, 0.25]
    """
    if not exact("density", final, "final"):
        raise ValueError(f"final is {shown(final)}, but an exponential schedule never reaches 0.")
    return _interpolated(lambda a, b, x: a * _power(b / a, x), final, begin, every, number, initial)


def one_shot(density: Number, *, at: int) -> Schedule:
    """Make the schedule of one event.

    Args:
      density: the density after it, in [0, 1].
      at: its step.

    Raises:
      ValueError: if a number is out of its range.

    Examples:
      >>> one_shot(0.2, at=500)
      Schedule(begin=500, every=1, densities=(Fraction(1, 5),))
    """
    return Schedule(at, 1, (density,))


def schedule_counts(
    params: PyTree,
    schedule: Schedule,
    distribution: str = "uniform",
    rules: Rules = (),
    prunable: PyTree | None = None,
) -> PyTree:
    """Return how many weights of each leaf every event of a schedule keeps.

    Each event has the counts of `layer_counts` at its density. They are constants of the host: a
    jitted training picks those of an event by its number, `Schedule.num_events`, so they are exact
    there, too.

    Args:
      params: arrays or `jax.ShapeDtypeStruct`s.
      schedule: from `cubic` or another such function.
      distribution: as `layer_densities`.
      rules: as `layer_densities`; their leaves have the same density at every event.
      prunable: from `trees.prunable_leaves`, which is also the default.

    Returns:
      NumPy arrays int32 `[E]` per leaf, for the E events; none grows from event to event.

    Raises:
      ValueError: as `layer_counts`, at any event.
      TypeError: if `schedule` is no `Schedule`.

    Examples:
      >>> params = {"kernel": np.ones((10, 10)), "bias": np.ones(10)}
      >>> counts = schedule_counts(params, linear(0.5, begin=0, every=10, number=2))
      >>> counts["kernel"].tolist(), counts["bias"].tolist()
      ([100, 75, 50], [10, 10, 10])
    """
    if not isinstance(schedule, Schedule):
        raise TypeError(
            f"schedule is {shown(schedule)}, expected a Schedule, such as "
            "rates.one_shot(0.2, at=0)."
        )
    events = [
        layer_counts(params, density, distribution, rules, prunable)
        for density in schedule.densities
    ]
    return jax.tree.map(lambda *counts: np.array(counts, np.int32), *events)


def _interpolated(
    formula: Callable[[Fraction, Fraction, Fraction], Fraction],
    final: Number,
    begin: int,
    every: int,
    number: int,
    initial: Number,
) -> Schedule:
    """Make a schedule from a formula of the initial and the final density and of `i / number`."""
    first, last = exact("density", initial, "initial"), exact("density", final, "final")
    if last > first:
        raise ValueError(
            f"final is {shown(final)}, more than initial, which is {shown(initial)}, but a pruned "
            "weight never returns."
        )
    number = check_integer("number", number, 1)
    places = (Fraction(i, number) for i in range(number + 1))
    return Schedule(begin, every, tuple(formula(first, last, place) for place in places))


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    """Compute a power in decimal arithmetic, which is the same on every machine."""
    if exponent.denominator == 1:
        return base**exponent.numerator
    with localcontext() as context:
        context.prec = DIGITS + 10
        logarithm = (Decimal(base.numerator) / base.denominator).ln()
        power = (logarithm * exponent.numerator / exponent.denominator).exp()
        context.prec = DIGITS
        return Fraction(+power)


@dataclasses.dataclass
class _Plan:
    """What a density is shared among: the prunable leaves, in order, and where they belong.

    Attributes:
      density: of all of them together.
      sizes: the number of weights of each.
      shares: how many weights each keeps in proportion to others.
      by_rule: the density that a rule gives to each, or None.
      all_sizes: the sizes of all leaves of the tree.
      fill: puts values of the prunable leaves among those of all leaves, and returns the tree.
    """

    density: Fraction
    sizes: list[int]
    shares: list[int]
    by_rule: list[Fraction | None]
    all_sizes: list[int]
    fill: Callable[[Sequence[Any], Sequence[Any]], PyTree]


def _plan(
    params: PyTree, density: Number, distribution: str, rules: Rules, prunable: PyTree | None
) -> _Plan:
    share_of = lookup("distribution", distribution, DISTRIBUTIONS)
    prunable = _prunable(params, prunable)
    num_prunable(params, prunable)
    total = exact("density", density, "all weights")
    by_rule = _match(params, prunable, rules, "density", idle=1)
    leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
    chosen = [i for i, yes in enumerate(jax.tree.leaves(prunable)) if yes]
    for i in chosen:
        path, leaf = leaves[i]
        if len(leaf.shape) < 2 and distribution != "uniform":
            raise ValueError(
                f"leaf '{path_name(path)}' of shape {list(leaf.shape)} has no input and output "
                f"axis, which distribution '{distribution}' needs; set it to False in prunable, or "
                "take 'uniform'."
            )

    def fill(of_all: Sequence[Any], of_chosen: Sequence[Any]) -> PyTree:
        values = dict(enumerate(of_all)) | dict(zip(chosen, of_chosen, strict=True))
        return treedef.unflatten(values.values())

    return _Plan(
        total,
        [math.prod(leaves[i][1].shape) for i in chosen],
        [share_of(leaves[i][1].shape) for i in chosen],
        [None if by_rule[i] is None else Fraction(str(by_rule[i])) for i in chosen],
        [math.prod(leaf.shape) for _, leaf in leaves],
        fill,
    )


def _share(plan: _Plan, total: Fraction) -> list[Fraction]:
    """Share weights among the leaves without a rule: `min(size, e share)`, with the right `e`."""
    free = [i for i, rule in enumerate(plan.by_rule) if rule is None]
    room = sum(plan.sizes[i] for i in free)
    if not 0 <= total <= room:
        raise ValueError(
            f"the rules leave {math.floor(total)} weights to other leaves, which have {room}, if "
            f"all prunable weights have density {float(plan.density):g}; change it or the rules."
        )
    amounts = [Fraction(0)] * len(plan.sizes)
    while free and total:
        e = total / sum(plan.shares[i] for i in free)
        full = [i for i in free if e * plan.shares[i] >= plan.sizes[i]]
        for i in full or free:
            amounts[i] = Fraction(plan.sizes[i]) if full else e * plan.shares[i]
            total -= amounts[i]
        free = [i for i in free if i not in full]
    return amounts


def _kept_at(density: Fraction | int, size: int) -> int:
    return size - math.floor((1 - density) * size)


def _prunable(params: PyTree, prunable: PyTree | None) -> PyTree:
    check_shaped(params=params)
    prunable = prunable_leaves(params) if prunable is None else prunable
    check_prunable(prunable, params=params)
    return prunable


def _match(params: PyTree, prunable: PyTree, rules: Rules, kind: str, idle: int) -> list[Any]:
    """Return for each leaf the number of the first rule that matches its path, or None.

    Args:
      params: the leaves.
      prunable: which of them may be pruned.
      rules: pairs of a pattern and a number.
      kind: what the numbers are, a rate or a density.
      idle: the number that keeps all weights.
    """
    if not isinstance(rules, Sequence) or isinstance(rules, str):
        raise ValueError(f"rules is {shown(rules)}, expected a list of pairs (pattern, {kind}).")
    compiled = [_compile_rule(rule, kind) for rule in rules]
    used: set[int] = set()

    def number_of(name: str, may_be_pruned: bool) -> Any:
        for place, (pattern, number) in enumerate(compiled):
            if pattern.fullmatch(name):
                used.add(place)
                if number != idle and not may_be_pruned:
                    raise ValueError(
                        f"rule {shown(pattern.pattern)} gives leaf '{name}' a {kind} of {number}, "
                        "but it is not prunable; narrow the pattern (for example "
                        "'.*dense1/kernel.*')."
                    )
                return number
        return None

    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    found = [
        number_of(name, yes) for name, yes in zip(names, jax.tree.leaves(prunable), strict=True)
    ]
    unused = [pattern.pattern for i, (pattern, _) in enumerate(compiled) if i not in used]
    if unused:
        raise ValueError(
            f"rule {shown(unused[0])} matches no leaf that an earlier rule left; a pattern must "
            f"match the whole path{_suggestion(unused[0], names)}. "
            f"The leaves are: {', '.join(names)}."
        )
    return found


def _suggestion(pattern: str, names: Sequence[str]) -> str:
    """Suggest a pattern for the whole path in place of one that matches only a part of it."""
    for longer in (f".*{pattern}", f"{pattern}.*", f".*{pattern}.*"):
        try:
            if any(re.fullmatch(longer, name) for name in names):
                return f" (did you mean {shown(longer)}?)"
        except re.error:  # global flags, which must come first
            continue
    return ""


def _count_known(path: Any, mask: Any) -> int:
    known = concrete(mask)
    if known is None:
        raise TypeError(
            f"leaf '{path_name(path)}' of start is traced; count outside jit, where it is known."
        )
    return int(np.count_nonzero(known))


def _compile_rule(rule: Any, kind: str) -> tuple[re.Pattern[str], Any]:
    if not isinstance(rule, Sequence) or isinstance(rule, str) or len(rule) != 2:
        raise ValueError(f"rule {shown(rule)} is not a pair (pattern, {kind}).")
    pattern, number = rule
    try:
        compiled = re.compile(pattern)
        if not isinstance(compiled.pattern, str):
            raise TypeError("it must be text")
    except (re.error, TypeError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"rule {shown(pattern)} is not a regular expression: {reason}.") from None
    return compiled, check_share(kind, number, f"rule {shown(compiled.pattern)}")
