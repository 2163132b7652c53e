"""How many weights to keep: pruning rates by path rule and exact counts, host arithmetic.

>>> import jax.numpy as jnp
>>> kernels = {"dense1": (784, 300), "output": (300, 10)}
>>> params = {name: {"kernel": jnp.ones(shape)} for name, shape in kernels.items()}
>>> rates = rates_by_path(params, [("output/.*", 0.1)], default=0.2)
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

from supermask_jax.checks import check_integer, check_prunable, check_structure, check_trees, shown
from supermask_jax.paths import PyTree, path_name
from supermask_jax.trees import prunable_leaves


def rates_by_path(
    params: PyTree,
    rules: Sequence[tuple[str, float]],
    default: float = 0.0,
    prunable: PyTree | None = None,
) -> PyTree:
    """The share of the still kept weights that a round removes, per leaf.

    Args:
      params: arrays or `jax.ShapeDtypeStruct`s.
      rules: pairs of a regular expression for the leaf's whole path and a rate in [0, 1);
        the first match wins.
      default: the rate of prunable leaves that no rule matches.
      prunable: from `trees.prunable_leaves`, which is also the default.

    Returns:
      A tree of rates; 0 for leaves that are not prunable.

    Raises:
      ValueError: a rate outside [0, 1), a rule that decides for no leaf, a rate above 0 for a
        leaf that is not prunable, a pattern that is no regular expression.
    """
    check_trees(params=params)
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
                        "but it is not prunable; narrow the pattern (for example 'dense1/kernel')."
                    )
                return rate
        return default if may_be_pruned else 0.0

    rates = jax.tree_util.tree_map_with_path(rate_of, params, prunable)
    unused = [pattern.pattern for i, (pattern, _) in enumerate(compiled) if i not in used]
    if unused:
        names = ", ".join(path_name(p) for p, _ in jax.tree_util.tree_leaves_with_path(params))
        raise ValueError(
            f"rule {shown(unused[0])} matches no leaf that an earlier rule left; a pattern must "
            f"match the whole path. The leaves are: {names}."
        )
    return rates


def keep_counts(params: PyTree, rates: PyTree, round: int) -> PyTree:
    """How many weights of every leaf are left after `round` rounds, as Python ints.

    A round removes ``floor(rate * kept)``, in decimal arithmetic: 0.1 of 30 is 3.

    Raises:
      ValueError: a rate outside [0, 1) or a negative round.
    """
    check_trees(params=params)
    check_structure(params=params, rates=rates)
    number = check_integer("round", round, 0)

    def count(path: Any, leaf: Any, rate: Any) -> int:
        fraction = Fraction(str(_check_rate(rate, f"leaf '{path_name(path)}'")))
        kept = math.prod(leaf.shape)
        for _ in range(number):
            kept -= math.floor(kept * fraction)
        return kept

    return jax.tree_util.tree_map_with_path(count, params, rates)


def _check_rate(rate: Any, where: str) -> Any:
    try:
        valid = not isinstance(rate, bool | str) and np.shape(rate) == () and 0 <= rate < 1
    except (TypeError, ArithmeticError):  # an ArithmeticError is what decimal's NaN raises
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
