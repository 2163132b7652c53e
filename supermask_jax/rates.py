"""How many weights to keep: pruning rates by path rules, and exact counts.

This is arithmetic on the host, in Python numbers.

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

import math
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import jax
import numpy as np

from supermask_jax.checks import (
    check_integer,
    check_masks,
    check_prunable,
    check_shaped,
    check_structure,
    concrete,
    shown,
)
from supermask_jax.paths import PyTree, path_name
from supermask_jax.trees import prunable_leaves


def rates_by_path(
    params: PyTree,
    rules: Sequence[tuple[str, float]],
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
    check_shaped(params=params)
    prunable = prunable_leaves(params) if prunable is None else prunable
    check_prunable(prunable, params=params)
    default = _check_rate(default, "default")
    if not isinstance(rules, Sequence) or isinstance(rules, str):
        raise ValueError(f"rules is {shown(rules)}, expected a list of pairs (pattern, rate).")
    compiled = [_compile_rule(rule) for rule in rules]
    used: set[int] = set()

    def rate_of(path: Any, leaf: Any, may_be_pruned: bool) -> float:
        name = path_name(path)
        for place, (pattern, rate) in enumerate(compiled):
            if pattern.fullmatch(name):
                used.add(place)
                if rate and not may_be_pruned:
                    raise ValueError(
                        f"rule {shown(pattern.pattern)} gives leaf '{name}' a rate of {rate}, "
                        "but it is not prunable; narrow the pattern (for example "
                        "'.*dense1/kernel.*')."
                    )
                return rate
        return default if may_be_pruned else 0.0

    rates = jax.tree_util.tree_map_with_path(rate_of, params, prunable)
    unused = [pattern.pattern for i, (pattern, _) in enumerate(compiled) if i not in used]
    if unused:
        names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        raise ValueError(
            f"rule {shown(unused[0])} matches no leaf that an earlier rule left; a pattern must "
            f"match the whole path{_suggestion(unused[0], names)}. "
            f"The leaves are: {', '.join(names)}."
        )
    return rates


def _suggestion(pattern: str, names: Sequence[str]) -> str:
    """Suggest a pattern for the whole path in place of one that matches only a part of it."""
    for longer in (f".*{pattern}", f"{pattern}.*", f".*{pattern}.*"):
        try:
            if any(re.fullmatch(longer, name) for name in names):
                return f" (did you mean {shown(longer)}?)"
        except re.error:  # global flags, which must come first
            continue
    return ""


def keep_counts(params: PyTree, rates: PyTree, round: int, start: PyTree | None = None) -> PyTree:
    """Return how many weights of every leaf are left after `round` rounds, as Python ints.

    A round removes `floor(rate * kept)` weights, in decimal arithmetic: 0.1 of 30 is 3.

    Args:
      params: arrays or `jax.ShapeDtypeStruct`s.
      rates: from `rates_by_path`.
      round: the number of rounds.
      start: the mask before the first round, if the network is not dense then: the mask that
        `rounds.begin` got.

    Returns:
      A tree of ints.

    Raises:
      ValueError: if a rate is outside [0, 1), if `round` is negative, or if trees or shapes differ.
      TypeError: if `start` is not a mask, or is traced: counts must be known outside `jit`.

    Examples:
      >>> sparse = {"kernel": np.arange(100) < 30}
      >>> keep_counts({"kernel": np.ones(100)}, {"kernel": 0.2}, 1, start=sparse)
      {'kernel': 24}
    """
    check_shaped(params=params)
    check_structure(params=params, rates=rates)
    number = check_integer("round", round, 0)
    begun = jax.tree.map(lambda leaf: math.prod(leaf.shape), params)
    if start is not None:
        check_masks(start=start)
        check_shaped(params=params, start=start)
        begun = jax.tree_util.tree_map_with_path(_count_known, start)

    def count(path: Any, kept: int, rate: Any) -> int:
        fraction = Fraction(str(_check_rate(rate, f"leaf '{path_name(path)}'")))
        for _ in range(number):
            removed = math.floor(kept * fraction)
            if not removed:
                break  # nor will any later round remove one
            kept -= removed
        return kept

    return jax.tree_util.tree_map_with_path(count, begun, rates)


def _count_known(path: Any, mask: Any) -> int:
    known = concrete(mask)
    if known is None:
        raise TypeError(
            f"leaf '{path_name(path)}' of start is traced; count outside jit, where it is known."
        )
    return int(np.count_nonzero(known))


def _check_rate(rate: Any, where: str) -> Any:
    try:
        valid = not isinstance(rate, bool | str) and np.shape(rate) == () and 0 <= rate < 1
    except (TypeError, ArithmeticError):  # decimal's NaN raises an ArithmeticError
        valid = False
    if not valid:
        raise ValueError(f"the rate of {where} is {shown(rate)}, expected a number in [0, 1).")
    return rate


def _compile_rule(rule: Any) -> tuple[re.Pattern[str], Any]:
    if not isinstance(rule, Sequence) or isinstance(rule, str) or len(rule) != 2:
        raise ValueError(f"rule {shown(rule)} is not a pair (pattern, rate).")
    pattern, rate = rule
    try:
        compiled = re.compile(pattern)
        if not isinstance(compiled.pattern, str):
            raise TypeError("it must be text")
    except (re.error, TypeError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"rule {shown(pattern)} is not a regular expression: {reason}.") from None
    return compiled, _check_rate(rate, f"rule {shown(compiled.pattern)}")
