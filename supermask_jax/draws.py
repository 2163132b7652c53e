"""Draws: how the numbers that are trained beside frozen weights become a mask.

`supermasks` offers them. A draw makes a mask for each step of the training, with a gradient, and
one to evaluate. The numbers `s` are called logits or scores, as in the papers. In the formulas `u`
is uniform between 0 and 1, and `step` of a condition is 1 where it holds and 0 elsewhere. All draws
compute in at least 32 bits, and their masks have the types of the logits. Leaves that are not
prunable are ones.

Examples:
  >>> scores = jnp.array([0.3, -0.9, 0.1, -0.2])
  >>> draw = top_k(2, by="size")
  >>> draw(jax.random.key(0), scores, True).tolist(), draw.evaluate(scores, True).tolist()
  ([1.0, 1.0, 0.0, 0.0], [True, True, False, False])
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from supermask_jax import masks
from supermask_jax.checks import (
    check_count,
    check_function,
    check_integer,
    check_number,
    check_shaped_weights,
    check_structure,
    check_weights,
    concrete,
    dtype_of,
    lookup,
    shown,
    widened,
    widest,
)
from supermask_jax.paths import Path, PyTree, path_name
from supermask_jax.shardings import sharded_as
from supermask_jax.trees import Key, leaf_keys, num_prunable

Number = float | jax.Array
RANKINGS: dict[str, Callable[[jax.Array], jax.Array]] = {"score": jnp.asarray, "size": jnp.abs}
INITIALIZER = "jax.nn.initializers.uniform()"  # one for leaves of any rank, in error messages
EDGE_POPUP = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


@dataclasses.dataclass(frozen=True)
class Draw:
    """How logits become masks; itself a function `(key, logits, prunable) -> mask`.

    Attributes:
      sample: `(key, logits, prunable) -> mask`, the mask of a training step: numbers `[...]` per
        leaf in the types of the logits, with a gradient. Draws that are not random ignore the key.
      evaluate: `(logits, prunable) -> mask`, the mask to evaluate: bools `[...]` per leaf, if the
        draw does not say otherwise.
    """

    sample: Callable[[Key, PyTree, PyTree], PyTree]
    evaluate: Callable[[PyTree, PyTree], PyTree]

    def __call__(self, key: Key, logits: PyTree, prunable: PyTree) -> PyTree:
        """Return the mask of a training step."""
        return self.sample(key, logits, prunable)


def top_k(num_keep: PyTree, by: str = "score") -> Draw:
    """Keep the highest-ranked weights of every leaf: edge-popup.

    By score, `m = step(s is among the num_keep highest)` with `dm/ds = 1`; by size, |s| is ranked,
    with `dm/ds = sign(s)`. See Ramanujan et al. 2020, "What's hidden in a randomly weighted neural
    network?": the text ranks scores, the authors' code their sizes.

    Scores must start unequal, as `init_scores` makes them: among equal ones, the key of the draw
    keeps some at random, and to evaluate, a fixed key does. Nothing is sorted (see `selection`),
    and ties cost time only where there are some.

    Args:
      num_keep: the number of weights to keep, an int per leaf, Python or traced, as `masks.prune`
        takes it; those of leaves that are not prunable are not looked at.
      by: "score" or "size".

    Raises:
      ValueError: if `by` is another word; from the draw, as `masks.prune`, and, outside `jit`, if
        the scores of a leaf of which a part is kept are all equal; names the leaf.
      TypeError: from the draw, as `masks.prune`.

    Examples:
      >>> top_k(1)(jax.random.key(0), jnp.array([0.3, -0.9, 0.1]), True).tolist()
      [1.0, 0.0, 0.0]
    """
    rank = lookup("ranking", by, RANKINGS)

    def ranks(logits: PyTree, prunable: PyTree) -> PyTree:
        check_weights(prunable, logits=logits)
        return jax.tree.map(lambda s, yes: rank(s) if yes else s, logits, prunable)

    def choose(key: Key, scores: PyTree, prunable: PyTree) -> PyTree:
        check_structure(logits=scores, num_keep=num_keep)
        scores = lax.stop_gradient(scores)
        counts = jax.tree.map(lambda n, s, yes: n if yes else s.size, num_keep, scores, prunable)
        mask = masks.prune(key, scores, masks.ones(scores), counts)
        jax.tree_util.tree_map_with_path(_check_unequal, scores, counts)
        return mask

    def sample(key: Key, logits: PyTree, prunable: PyTree) -> PyTree:
        scores = ranks(logits, prunable)
        mask = choose(key, scores, prunable)
        return jax.tree.map(
            lambda m, s, yes: straight_through(m, s) if yes else jnp.ones_like(s),
            mask, scores, prunable,
        )  # fmt: skip

    def evaluate(logits: PyTree, prunable: PyTree) -> PyTree:
        return choose(jax.random.key(0), ranks(logits, prunable), prunable)

    return Draw(sample, evaluate)


def threshold(value: Number) -> Draw:
    """Keep the weights whose score reaches a value.

    `m = step(s >= value)` with `dm/ds = 1`. See Mallya et al. 2018, "Piggyback: Adapting a single
    network to multiple tasks by learning to mask weights".

    Args:
      value: the threshold, a Python or traced number in the unit of the scores.

    Raises:
      ValueError: if `value` is not a finite number.

    Examples:
      >>> threshold(0.5)(jax.random.key(0), jnp.array([0.5, 0.4]), True).tolist()
      [1.0, 0.0]
    """
    check_number("the threshold", value)

    def kept(score: jax.Array) -> jax.Array:
        return score >= _like(value, score)

    return _of_each_weight(lambda key, s: straight_through(kept(s), s), kept, bool)


def ternary(high: Number, low: Number | None = None) -> Draw:
    """Keep, hide or invert weights: masks of 1, 0 and -1.

    `m = step(s >= high) - step(s <= low)` with `dm/ds = 1`. See Koster et al. 2022, "Signing the
    supermask: Keep, hide, invert", whose thresholds are `high` and `low`. The paper's
    initialisation of weights for ELU networks is not part of the draw.

    Args:
      high: the threshold of kept weights, a Python or traced number in the unit of the scores.
      low: that of inverted weights, below `high`; `-high` if it is None.

    Returns:
      A draw whose mask to evaluate has the numbers of the one to train.

    Raises:
      ValueError: if a threshold is not a finite number, or if `low` is not below `high`.

    Examples:
      >>> ternary(0.5).evaluate(jnp.array([0.9, 0.1, -0.7]), True).tolist()
      [1.0, 0.0, -1.0]
    """
    top = check_number("the threshold high", high)
    low = -high if low is None else low
    bottom = check_number("the threshold low", low)
    if top is not None and bottom is not None and bottom >= top:
        raise ValueError(f"low is {shown(low)} and high is {shown(high)}, expected low below high.")

    def signs(score: jax.Array) -> jax.Array:
        kept, inverted = score >= _like(high, score), score <= _like(low, score)
        return kept.astype(score.dtype) - inverted.astype(score.dtype)

    return _of_each_weight(lambda key, s: straight_through(signs(s), s), signs)


def gumbel(temperature: Number) -> Draw:
    """Relax Bernoulli variables to numbers between 0 and 1: the binary Concrete distribution.

    `m = sigmoid((s + log(u) - log(1 - u)) / temperature)`, with its own gradient. The mask to
    evaluate is that of `s >= 0`. See Maddison et al. 2017, "The Concrete distribution", and Jang et
    al. 2017, "Categorical reparameterization with Gumbel-softmax". At low temperatures masks are
    nearly those of `supermasks.sample`, with probability sigmoid(s).

    Args:
      temperature: above 0, a Python or traced number.

    Raises:
      ValueError: if `temperature` is not a finite number above 0.

    Examples:
      >>> gumbel(0.5)(jax.random.key(0), jnp.array([99.0, -99.0]), True).tolist()
      [1.0, 0.0]
    """
    check_number("the temperature", temperature, positive=True)
    return _of_each_weight(
        lambda key, s: _concrete(key, s, temperature), lambda score: score >= 0, bool
    )


def hard_concrete(temperature: Number = 2 / 3, *, low: float = -0.1, high: float = 1.1) -> Draw:
    """Draw gates between 0 and 1 that are often exactly 0 or 1: the hard Concrete distribution.

    `m = clip(c (high - low) + low, 0, 1)`, with its own gradient, where `c` is a mask of `gumbel`.
    The mask to evaluate has gates, too: `clip(sigmoid(s) (high - low) + low, 0, 1)`, numbers in the
    types of the logits. See Louizos et al. 2018, "Learning sparse neural networks through L0
    regularization"; `hard_concrete_penalty` is the regularization.

    Args:
      temperature: above 0, a Python or traced number.
      low: the lower end to which Concrete variables are stretched, below 0.
      high: the upper end, above 1.

    Raises:
      ValueError: if `temperature` is not a finite number above 0, or if an end is not outside
        [0, 1].

    Examples:
      >>> hard_concrete().evaluate(jnp.array([0.0, 9.0, -9.0]), True).tolist()
      [0.5, 1.0, 0.0]
    """
    _check_stretch(temperature, low, high)

    def gates(concrete: jax.Array) -> jax.Array:
        return jnp.clip(concrete * (high - low) + low, 0, 1)

    return _of_each_weight(
        lambda key, s: gates(_concrete(key, s, temperature)), lambda s: gates(jax.nn.sigmoid(s))
    )


def hard_concrete_penalty(
    logits: PyTree,
    prunable: PyTree,
    *,
    temperature: Number = 2 / 3,
    low: float = -0.1,
    high: float = 1.1,
) -> jax.Array:
    """Compute the expected L0 norm of `hard_concrete`: how many gates are not 0, on average.

    The sum of `sigmoid(s - temperature log(-low / high))` over prunable weights. Divided by
    `trees.num_prunable`, it is a density. See Louizos et al. 2018, equation 12.

    Args:
      logits: `[...]` per leaf.
      prunable: static, from `trees.prunable_leaves`.
      temperature: as in `hard_concrete`.
      low: as in `hard_concrete`.
      high: as in `hard_concrete`.

    Returns:
      A scalar, in weights, to be added to a loss with a factor of your choice.

    Raises:
      ValueError: if no leaf is prunable, if the trees differ, or as `hard_concrete`.
      TypeError: if a leaf is not an array.

    Examples:
      >>> float(hard_concrete_penalty(jnp.array([99.0, -99.0]), True))
      1.0
    """
    _check_stretch(temperature, low, high)
    check_weights(prunable, logits=logits)
    num_prunable(logits, prunable)

    def alive(logit: jax.Array) -> jax.Array:
        score = widened(logit)
        shift = _like(temperature, score) * jnp.log(_like(-low / high, score))
        return jax.nn.sigmoid(score - shift)

    return total(
        [
            alive(logit)
            for logit, yes in zip(jax.tree.leaves(logits), jax.tree.leaves(prunable), strict=True)
            if yes
        ]
    )


def continuous(temperature: Number) -> Draw:
    """Make soft masks that harden as a temperature rises: continuous sparsification.

    `m = sigmoid(temperature s)`, with its own gradient, and without chance. The mask to evaluate is
    that of `s > 0`. See Savarese et al. 2020, "Winning the lottery with continuous sparsification":
    its temperature multiplies and rises as in `temperature_at`; that of `gumbel` divides.

    Args:
      temperature: above 0, a Python or traced number.

    Raises:
      ValueError: if `temperature` is not a finite number above 0.

    Examples:
      >>> continuous(200.0)(jax.random.key(0), jnp.array([0.5, 0.0, -0.5]), True).tolist()
      [1.0, 0.5, 0.0]
    """
    check_number("the temperature", temperature, positive=True)
    return _of_each_weight(
        lambda key, s: jax.nn.sigmoid(_like(temperature, s) * s), lambda s: s > 0, bool
    )


def temperature_at(step: int | jax.Array, num_steps: int, final: Number) -> jax.Array:
    """Compute the temperature of a step: from 1 to `final`, by the same factor in every step.

    `final ** (step / num_steps)`, the schedule of Savarese et al. 2020, who end at 200. With a
    `final` below 1, it lowers the temperature of `gumbel`.

    Args:
      step: the number of steps made, an int, Python or traced; `num_steps` or more give `final`.
      num_steps: the number of steps, static, 1 or more.
      final: the last temperature, above 0, a Python or traced number.

    Returns:
      A float32 scalar.

    Raises:
      ValueError: if `step` is negative, `num_steps` not positive, or `final` not a finite number
        above 0.
      TypeError: if `step` is not an integer.

    Examples:
      >>> [float(temperature_at(step, 2, final=100.0)) for step in range(3)]
      [1.0, 10.0, 100.0]
    """
    num_steps = check_integer("num_steps", num_steps, 1)
    check_number("the final temperature", final, positive=True)
    count, _ = check_count("the step", step, num_steps)
    return jnp.asarray(final, jnp.float32) ** (jnp.asarray(count, jnp.float32) / num_steps)


def init_scores(
    key: Key,
    params: PyTree,
    prunable: PyTree,
    initializer: jax.nn.initializers.Initializer = EDGE_POPUP,
) -> PyTree:
    """Draw unequal start scores, which `top_k` needs; any draw may start from them.

    By default they are uniform between -1 / sqrt(fan_in) and 1 / sqrt(fan_in): the Kaiming uniform
    scores of Ramanujan et al. 2020, in the code with a slope of sqrt(5). The fan-in is that of
    kernels of flax `[..., in, out]`. For those of equinox dense layers `[out, in]`, pass
    `jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform", in_axis=-1, out_axis=-2)`.

    Args:
      key: a typed key.
      params: arrays or `jax.ShapeDtypeStruct`s `[...]`.
      prunable: static, from `trees.prunable_leaves`.
      initializer: `(key, shape, dtype) -> scores`; it draws in at least 32 bits.

    Returns:
      Scores `[...]` per leaf, in the types of the leaves; zeros where leaves are not prunable.

    Raises:
      ValueError: if no leaf is prunable, if the trees differ, or if the initializer makes no array
        of the shape of a leaf, as the default for one of rank 1; names the leaf.
      TypeError: if a prunable leaf does not hold floats, if `key` is not a typed key, or if the
        initializer is not a function.

    Examples:
      >>> scores = init_scores(jax.random.key(0), jnp.ones((4, 500)), True)
      >>> bool(abs(scores).max() <= 0.5), bool(abs(scores).max() > 0.49)
      (True, True)
    """
    check_function("initializer", initializer, INITIALIZER, ("key", "shape", "dtype"))
    check_shaped_weights(prunable, params=params)
    num_prunable(params, prunable)

    def fill(path: Path, key: Key, leaf: Any, yes: bool) -> jax.Array:
        if not yes or not leaf.size:
            return jnp.zeros_like(leaf, dtype_of(leaf))
        where = f"leaf '{path_name(path)}' of shape {list(leaf.shape)}"
        try:
            scores = initializer(key, leaf.shape, widest([leaf]))
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"the initializer makes no scores for {where} ({reason}); pass another one, such "
                f"as {INITIALIZER}."
            ) from None
        if getattr(scores, "shape", None) != leaf.shape:
            raise ValueError(f"the initializer makes {shown(scores)} for {where}.")
        return sharded_as(scores.astype(dtype_of(leaf)), leaf)

    return jax.tree_util.tree_map_with_path(fill, leaf_keys(key, params), params, prunable)


@jax.custom_jvp
def straight_through(drawn: jax.Array, probability: jax.Array) -> jax.Array:
    """Return what is drawn, `[...]`, in the type of `probability` and with its derivative."""
    return drawn.astype(probability.dtype)


@straight_through.defjvp
def _straight_through_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    # `b + p - stop_gradient(p)` has this gradient too, but is not exactly 0 or 1.
    out, tangent = straight_through(*primals), tangents[1]
    if jax.typeof(out) != jax.typeof(tangent):
        # Inside jax.shard_map, values that vary over devices have another type. The sample varies
        # if its key does; a choice that depends on it gives the tangent the same type.
        tangent = jnp.where(out > 0, tangent, tangent)
    return out, tangent


def total(leaves: list[jax.Array]) -> jax.Array:
    """Sum all numbers of several leaves, in at least 32 bits: a float16 sum ends at 65504."""
    common = widest(leaves)
    return jnp.sum(jnp.stack([jnp.sum(widened(leaf)).astype(common) for leaf in leaves]))


def _of_each_weight(
    sample: Callable[[Key, jax.Array], jax.Array],
    evaluate: Callable[[jax.Array], jax.Array],
    dtype: Any = None,
) -> Draw:
    """Make the draw of functions of one leaf, in at least 32 bits.

    Args:
      sample: `(key, score) -> mask`, `[...]`.
      evaluate: `score -> mask`, `[...]`.
      dtype: the type of the mask to evaluate; None is that of the logits.
    """

    def sample_all(key: Key, logits: PyTree, prunable: PyTree) -> PyTree:
        check_weights(prunable, logits=logits)

        def draw(key: Key, s: jax.Array, yes: bool) -> jax.Array:
            return sample(key, widened(s)).astype(dtype_of(s)) if yes else jnp.ones_like(s)

        return jax.tree.map(draw, leaf_keys(key, logits), logits, prunable)

    def evaluate_all(logits: PyTree, prunable: PyTree) -> PyTree:
        check_weights(prunable, logits=logits)

        def mask(s: jax.Array, yes: bool) -> jax.Array:
            own = dtype or dtype_of(s)
            return evaluate(widened(s)).astype(own) if yes else jnp.ones_like(s, own)

        return jax.tree.map(mask, logits, prunable)

    return Draw(sample_all, evaluate_all)


def _concrete(key: Key, score: jax.Array, temperature: Number) -> jax.Array:
    noise = jax.random.logistic(key, score.shape, score.dtype)
    return jax.nn.sigmoid((score + noise) / _like(temperature, score))


def _like(number: Number, score: jax.Array) -> jax.Array:
    return jnp.asarray(number, score.dtype)


def _check_stretch(temperature: Number, low: float, high: float) -> None:
    check_number("the temperature", temperature, positive=True)
    for name, end in (("low", low), ("high", high)):
        if check_number(name, end) is None:
            raise ValueError(f"{name} is traced, expected a Python number.")
    if not low < 0 < 1 < high:
        raise ValueError(
            f"low is {shown(low)} and high is {shown(high)}, expected low below 0 and high above 1."
        )


def _check_unequal(path: Path, score: jax.Array, count: Any) -> None:
    """Check, outside `jit`, that the scores of a leaf tell which of its weights to keep."""
    number = concrete(count)
    if number is None or not 0 < number < score.size:
        return
    if concrete(jnp.min(score) == jnp.max(score)):
        raise ValueError(
            f"the scores of leaf '{path_name(path)}' are all equal, so that top_k cannot rank "
            "them; start from supermasks.init_scores."
        )
