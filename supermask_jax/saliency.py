"""Scores from gradients, for pruning before training or after it, and pruning in many rounds.

Every score is a function `(loss, params, *batch, mask=None) -> scores`. It returns one score per
weight, in the structure of the parameters, of which `masks.prune`, `masks.prune_global` and
`prune_iteratively` keep the highest. `loss` is any function `(params, *batch) -> scalar`. With a
mask, the network is that of the kept weights: pruned weights are 0, their gradients count nowhere,
and their scores are 0. Nothing is kept from call to call, so all of it works under `jit` and, for
populations, under `vmap`.

The loss gets parameters in their own types. Scores are computed from the weights and gradients in
at least 32 bits. Leaves without floats are constants; their scores are zeros of their own type.
Where a leaf is not prunable, as biases mostly are, pruning does not look at its scores.

Examples:
  >>> import functools
  >>> loss = lambda w, x, y: jnp.mean((x @ w - y) ** 2)
  >>> w, x, y = jnp.array([1.0, -2.0, 0.5]), jnp.eye(3), jnp.array([1.0, 0.0, 2.0])
  >>> snip(loss, w, x, y).tolist()
  [0.0, 2.6666667461395264, 0.5]
  >>> score = functools.partial(snip, loss, w, x, y)
  >>> counts = exponential_counts(3, 1, num_rounds=2)
  >>> prune_iteratively(jax.random.key(0), score, jnp.ones(3, bool), counts, True).tolist()
  [False, True, False]

  A round of `rounds.advance` takes such a score as its criterion:

  >>> criterion = lambda w_i, w_f, mask=None: snip(loss, w_f, x, y, mask=mask)
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from supermask_jax import masks
from supermask_jax.checks import (
    check_integer,
    check_key,
    check_mask,
    check_masks,
    check_prunable,
    check_trees,
    concrete,
    dtype_of,
    is_floating,
    own,
    shown,
    warn_of_lost_leaves,
    widened,
)
from supermask_jax.paths import PyTree, path_name
from supermask_jax.shardings import sharded_as
from supermask_jax.trees import Key, num_prunable

Loss = Callable[..., jax.Array]
Floats = list[jax.Array]


def gradient_magnitude(
    loss: Loss, params: PyTree, *batch: PyTree, mask: PyTree | None = None
) -> PyTree:
    """Score weights by `|g|`, where g is the gradient of the loss.

    These are the weights whose change by a small step changes the loss most.

    Args:
      loss: `(params, *batch) -> scalar`.
      params: `[...]` per leaf.
      *batch: any trees, passed to the loss.
      mask: bool `[...]` per leaf, the weights kept so far; by default, all.

    Returns:
      Scores `[...]` per leaf, at least float32.

    Raises:
      ValueError: if the mask has another structure or other shapes; names the leaf.
      TypeError: if the loss is not a function or does not return one float, if a leaf is not an
        array, or if the mask is not boolean.

    Examples:
      >>> gradient_magnitude(lambda w: jnp.sum(w**2), jnp.array([1.0, -3.0])).tolist()
      [2.0, 6.0]
    """
    kept = _kept(params, mask)
    grads = jax.grad(_loss_of(kept, loss))(kept.floats, *batch)
    return kept.scores([jnp.abs(g) for g in grads])


def snip(loss: Loss, params: PyTree, *batch: PyTree, mask: PyTree | None = None) -> PyTree:
    """Score weights by `|w g|`, the sensitivity of the loss to their connection.

    Source: Lee et al. 2019, SNIP. With a factor c of 1 on every weight, `w g` is the derivative of
    the loss by c. The paper divides the scores by their sum over the whole network. This changes no
    ranking, and is left out.

    Args:
      loss: `(params, *batch) -> scalar`.
      params: `[...]` per leaf; in the paper, untrained weights of well-scaled layers.
      *batch: any trees, passed to the loss; in the paper, one batch of training data.
      mask: bool `[...]` per leaf, the weights kept so far; by default, all.

    Returns:
      Scores `[...]` per leaf, at least float32.

    Raises:
      ValueError: as `gradient_magnitude`.
      TypeError: as `gradient_magnitude`.

    Examples:
      >>> snip(lambda w: jnp.sum(w**2), jnp.array([1.0, -3.0])).tolist()
      [2.0, 18.0]
    """
    kept = _kept(params, mask)
    grads = jax.grad(_loss_of(kept, loss))(kept.floats, *batch)
    return kept.scores([jnp.abs(w * g) for w, g in zip(kept.floats, grads, strict=True)])


def grasp(loss: Loss, params: PyTree, *batch: PyTree, mask: PyTree | None = None) -> PyTree:
    """Score weights by `w (H g)`: the gradient flow that is lost without them.

    Source: Wang et al. 2020, GraSP. g is the gradient and H the Hessian of the loss. To first
    order, setting a weight to 0 changes the squared norm of the gradient, `g·g`, by `-2 w (H g)`.
    The paper's score is `-w (H g)`, and the weights with the highest ones are removed. Here the
    highest scores are kept, so the sign is the opposite. Scores may be negative: the gradient
    grows if such a weight goes.

    `H g` is the derivative of g along g (forward over reverse mode), for about the time and memory
    of two gradients. The norm is that of the gradient by all floating leaves of `params`. The
    authors' code leaves out biases: let the loss close over them, and pass the kernels alone. It
    also divides the logits by a temperature of 200, which is up to the loss.

    Args:
      loss: `(params, *batch) -> scalar`.
      params: `[...]` per leaf; in the paper, untrained weights.
      *batch: any trees, passed to the loss; in the paper, ten examples of each class.
      mask: bool `[...]` per leaf, the weights kept so far; by default, all.

    Returns:
      Scores `[...]` per leaf, at least float32.

    Raises:
      ValueError: as `gradient_magnitude`.
      TypeError: as `gradient_magnitude`.

    Examples:
      For the loss `w0 w1`, `H g` is w itself:

      >>> grasp(lambda w: w[0] * w[1], jnp.array([1.0, -3.0])).tolist()
      [1.0, 9.0]
    """
    kept = _kept(params, mask)
    of_floats = _loss_of(kept, loss)

    def gradient(floats: Floats) -> Floats:
        return jax.grad(of_floats)(floats, *batch)

    _, curved = jax.jvp(gradient, (kept.floats,), (gradient(kept.floats),))
    return kept.scores([w * hg for w, hg in zip(kept.floats, curved, strict=True)])


def empirical_fisher(
    loss: Loss, params: PyTree, *batch: PyTree, mask: PyTree | None = None
) -> PyTree:
    """Score weights by the mean of `g**2` over examples: the diagonal of the empirical Fisher.

    Source: Sung et al. 2021, FISH Mask, which keeps the weights with the highest ones trainable. g
    is the gradient of the loss of one example. If the loss is the negative logarithm of the
    probability of the example's label, `w**2 / 2` times this score estimates how much the loss of a
    trained network grows without a weight (Theis et al. 2018, Fisher pruning).

    The gradients are computed one by one and added up (`lax.scan`), so the memory is that of two
    gradients, however many examples there are.

    Args:
      loss: `(params, *example) -> scalar`, the loss of one example.
      params: `[...]` per leaf.
      *batch: trees of arrays `[N, ...]` of N examples; the loss gets the `[...]` of one of them.
      mask: bool `[...]` per leaf, the weights kept so far; by default, all.

    Returns:
      Scores `[...]` per leaf, at least float32.

    Raises:
      ValueError: as `gradient_magnitude`; also if leaves of the batch differ in the number of
        examples, or if there are none.
      TypeError: as `gradient_magnitude`.

    Examples:
      >>> loss = lambda w, x, y: (w @ x - y) ** 2 / 2
      >>> x, y = jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.array([0.0, 1.0])
      >>> empirical_fisher(loss, jnp.array([1.0, -3.0]), x, y).tolist()
      [0.5, 98.0]
    """
    kept = _kept(params, mask)
    gradient = jax.grad(_loss_of(kept, loss))
    number = _num_examples(batch)

    def add(sums: Floats, example: tuple[PyTree, ...]) -> tuple[Floats, None]:
        grads = gradient(kept.floats, *example)
        pairs = zip(sums, grads, strict=True)
        return [total + sharded_as(g * g, total) for total, g in pairs], None

    # On a mesh with Explicit axes, neither zeros nor a gradient need be sharded as their leaf is.
    zeros = [sharded_as(jnp.zeros_like(w), w) for w in kept.floats]
    sums, _ = lax.scan(add, zeros, batch)
    return kept.scores([total / number for total in sums])


def synflow(
    apply: Callable[..., jax.Array],
    params: PyTree,
    *inputs: PyTree,
    mask: PyTree | None = None,
) -> PyTree:
    """Score weights by `|w| dR/d|w|`: how much of all that flows through the network takes them.

    Source: Tanaka et al. 2020, SynFlow. R is the sum of the outputs of the network with the
    absolute values of its weights. No data is needed: the input is ones. The paper prunes in 100
    rounds (`prune_iteratively` with `exponential_counts`). In one round, whole layers are lost:
    without biases, all layers have the same sum of scores, so those of the largest are the lowest.

    The network must be linear in its input where everything is positive. `apply` is thus the
    network without normalisation, softmax and dropout; ReLU and pooling may stay, since they let
    positive numbers pass. Biases take part with their absolute values, as in the authors' code.

    R grows or shrinks by a factor with every layer, and the authors compute in float64. In float32
    it overflows for some twenty wide layers: scores are then infinite or NaN, which pruning refuses
    outside `jit`. Scores that underflow to 0 tie. Either make the parameters float64
    (`jax_enable_x64`), or scale: without biases, R is proportional to the input and to the output,
    so a factor on either, or on both, changes no ranking.

    Args:
      apply: `(params, *inputs) -> outputs`, floats of any shape; it gets absolute values.
      params: `[...]` per leaf.
      *inputs: passed to `apply`: ones in the shape of one input, such as `[1, 784]`.
      mask: bool `[...]` per leaf, the weights kept so far; by default, all.

    Returns:
      Scores `[...]` per leaf, at least float32.

    Raises:
      ValueError: as `gradient_magnitude`.
      TypeError: as `gradient_magnitude`, for `apply` in place of the loss.

    Examples:
      >>> apply = lambda params, x: jax.nn.relu(x @ params[0]) @ params[1]
      >>> params = [jnp.array([[1.0, -3.0]]), jnp.array([[2.0], [-1.0]])]
      >>> [leaf.tolist() for leaf in synflow(apply, params, jnp.ones((1, 1)))]
      [[[2.0, 3.0]], [[2.0], [3.0]]]

      Scaled, for a deep network:

      >>> scaled = lambda params, x: 1e-15 * apply(params, x)
      >>> scores = synflow(scaled, params, jnp.full((1, 1), 1e-15))
    """
    kept = _kept(params, mask)
    _check_function("apply", apply, "(params, *inputs) -> outputs")

    def flow(floats: Floats) -> jax.Array:
        outputs = apply(kept.params(floats), *inputs)
        if not _is_float(outputs):
            raise TypeError(f"apply returns {_described(outputs)}, expected an array of floats.")
        return jnp.sum(widened(outputs))

    sizes = [jnp.abs(w) for w in kept.floats]
    slopes = jax.grad(flow)(sizes)
    return kept.scores([jnp.abs(w * slope) for w, slope in zip(sizes, slopes, strict=True)])


def prune_iteratively(
    key: Key,
    score: Callable[..., PyTree],
    mask: PyTree,
    num_keep: Sequence[int] | np.ndarray | jax.Array,
    prunable: PyTree,
    least: PyTree = 0,
) -> PyTree:
    """Prune in rounds, each with the scores of what the last one left, without training between.

    Every round is a `masks.prune_global`; all rounds are one compiled loop. With `synflow` and 100
    rounds of `exponential_counts`, this is the algorithm of Tanaka et al. 2020; with `snip`, the
    Iterative SNIP of de Jorge et al. 2021.

    Args:
      key: breaks ties at random; the key of a round is folded with its number.
      score: `(mask=mask) -> scores`, such as `functools.partial(snip, loss, params, *batch)`.
      mask: bool `[...]` per leaf, the weights kept so far.
      num_keep: integers `[N]`, the number of prunable weights that each of N rounds keeps, Python
        or traced, such as `exponential_counts`.
      prunable: static, from `trees.prunable_leaves`; the masks of other leaves do not change.
      least: the number of weights that every prunable leaf keeps in any case, one int or one per
        leaf: see `masks.prune_global`. Rounds that should keep fewer in all keep just these.

    Returns:
      The new mask, a subset of `mask`.

    Warns:
      UserWarning: outside `jit`, if leaves lose their last weight; names them.

    Raises:
      ValueError: if trees or shapes differ, if there are no rounds, if a number is negative, or,
        outside `jit`, if in any round the score of a kept weight is NaN or infinite; names the
        leaf.
      TypeError: if `score` is not such a function, if the mask is not boolean, if the numbers are
        not integers, or if `key` is not a typed key.

    Examples:
      >>> scores = jnp.array([3.0, 1.0, 2.0, 4.0])
      >>> start = jnp.ones(4, bool)
      >>> prune_iteratively(jax.random.key(0), lambda mask: scores, start, [3, 2], True).tolist()
      [True, False, False, True]
    """
    check_key(key)
    check_masks(mask=mask)
    check_prunable(prunable, mask=mask)
    _check_score(score)
    counts = _check_counts(num_keep, num_prunable(mask, prunable))

    def prune_once(
        carry: tuple[PyTree, PyTree], turn: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[PyTree, PyTree], None]:
        (kept, unusable), (number, count) = carry, turn
        scores = score(mask=kept)
        check_mask(kept, scores=scores)
        new = masks.prune_global(
            jax.random.fold_in(key, number), scores, kept, count, prunable, least
        )
        now = jax.tree.map(lambda m, s: jnp.any(m & ~jnp.isfinite(s)), kept, scores)
        return (new, jax.tree.map(jnp.logical_or, unusable, now)), None

    start = jax.tree.map(own, mask)
    none = jax.tree.map(lambda leaf: jnp.zeros((), bool), start)
    turns = jnp.arange(len(counts), dtype=jnp.int32), counts
    (new, unusable), _ = lax.scan(prune_once, (start, none), turns)
    _check_usable(unusable, prunable)
    warn_of_lost_leaves(start, new)
    return new


def exponential_counts(start: int, end: int, num_rounds: int = 100) -> list[int]:
    """Return how many weights each round keeps if every round keeps the same share of them.

    Source: Tanaka et al. 2020. After round k of n, `start (end / start)**(k / n)` weights are left,
    rounded to the nearest integer.

    Args:
      start: the number of weights kept before the first round, such as `trees.num_prunable`.
      end: the number of weights to keep in the end.
      num_rounds: the number of rounds.

    Returns:
      `num_rounds` integers, of which the last one is `end`.

    Raises:
      ValueError: if a number is not an integer of at least 1, or if `end` is more than `start`.

    Examples:
      >>> exponential_counts(1000, 10, num_rounds=4)
      [316, 100, 32, 10]
    """
    start, end, rounds = (
        check_integer(name, value, 1)
        for name, value in (("start", start), ("end", end), ("num_rounds", num_rounds))
    )
    if end > start:
        raise ValueError(f"end is {end}, expected at most the {start} weights of the start.")
    left = [round(start * (end / start) ** (number / rounds)) for number in range(1, rounds)]
    return [*left, end]


class _Kept(NamedTuple):
    """The network of the kept weights, with its floats apart from what has no gradient.

    Attributes:
      floats: `[...]` per floating leaf, in at least 32 bits; 0 where pruned.
      params: makes parameters of such floats, in their own types; 0 where pruned, whatever the
        floats, so that gradients are 0 there, too.
      scores: makes a tree of the scores of floating leaves.
    """

    floats: Floats
    params: Callable[[Floats], PyTree]
    scores: Callable[[Floats], PyTree]


def _kept(params: PyTree, mask: PyTree | None) -> _Kept:
    check_trees(params=params)
    if mask is not None:
        check_mask(mask, params=params)
    leaves, treedef = jax.tree.flatten(params)
    places = [i for i, leaf in enumerate(leaves) if is_floating(leaf)]
    kept = None if mask is None else [jax.tree.leaves(mask)[i] for i in places]

    def masked(floats: Floats) -> Floats:
        if kept is None:
            return floats
        return [jnp.where(m, w, 0) for m, w in zip(kept, floats, strict=True)]

    def of_floats(floats: Floats) -> PyTree:
        new = list(leaves)
        for i, w in zip(places, masked(floats), strict=True):
            new[i] = w.astype(dtype_of(leaves[i]))
        return treedef.unflatten(new)

    def of_scores(floats: Floats) -> PyTree:
        new = [jnp.zeros_like(leaf) for leaf in leaves]
        for i, score in zip(places, floats, strict=True):
            new[i] = score
        return treedef.unflatten(new)

    return _Kept(masked([widened(leaves[i]) for i in places]), of_floats, of_scores)


def _loss_of(kept: _Kept, loss: Loss) -> Loss:
    """Return the loss as a function of floats, checked to be one float."""
    _check_function("loss", loss, "(params, *batch) -> scalar")

    def of_floats(floats: Floats, *batch: PyTree) -> jax.Array:
        value = loss(kept.params(floats), *batch)
        if not _is_float(value) or jnp.shape(value):
            raise TypeError(
                f"the loss returns {_described(value)}, expected one float, such as the mean over "
                "the batch, without metrics."
            )
        return widened(value)

    return of_floats


def _check_function(name: str, function: Any, form: str) -> None:
    if not callable(function):
        raise TypeError(f"{name} is {shown(function)}, expected a function {form}.")


def _check_score(score: Any) -> None:
    _check_function("score", score, "(mask=mask) -> scores")
    try:
        inspect.signature(score).bind(mask=None)
    except TypeError:
        raise TypeError(
            "score does not take (mask=mask) alone; give it the rest first: "
            "functools.partial(saliency.snip, loss, params, *batch)."
        ) from None


def _check_counts(num_keep: Any, size: int) -> jax.Array:
    """Return the numbers of weights that the rounds keep, at most `size`, as int32 `[N]`."""
    known = concrete(num_keep)
    numbers = jnp.asarray(num_keep) if known is None else known
    if numbers.ndim != 1 or not numbers.size:
        raise ValueError(
            f"num_keep is {shown(num_keep)}, expected a number for every round; "
            "saliency.exponential_counts makes them."
        )
    if not jnp.issubdtype(numbers.dtype, jnp.integer):
        raise TypeError(f"num_keep is {shown(num_keep)}, expected integers.")
    if known is None:
        most = min(size, jnp.iinfo(numbers.dtype).max)
        return jnp.minimum(numbers, most).astype(jnp.int32)
    if (known < 0).any():
        raise ValueError(f"num_keep is {shown(num_keep)}, expected numbers of 0 or more.")
    return jnp.asarray([min(int(number), size) for number in known], jnp.int32)


def _check_usable(unusable: PyTree, prunable: PyTree) -> None:
    """Raise an error if scores of kept weights were NaN or infinite, unless this is traced."""
    leaves = jax.tree_util.tree_leaves_with_path(unusable)
    named = [
        f"'{path_name(path)}'"
        for (path, bad), yes in zip(leaves, jax.tree.leaves(prunable), strict=True)
        if yes and concrete(bad)
    ]
    if named:
        raise ValueError(
            f"scores of {', '.join(named)} are NaN or infinite in some round; if the network is "
            "deep, scale its input or output, or compute in float64."
        )


def _num_examples(batch: tuple[PyTree, ...]) -> int:
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(batch)}
    if len(lengths) != 1 or not all(length and length[0] for length in lengths):
        shapes = [list(jnp.shape(leaf)) for leaf in jax.tree.leaves(batch)]
        raise ValueError(
            f"the batch has arrays of shapes {shown(shapes)}, expected [N, ...] with as many "
            "examples N in all of them."
        )
    ((number,),) = lengths
    return number


def _is_float(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape") and is_floating(value)


def _described(value: Any) -> str:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype}{list(value.shape)}"
    return f"a value of type {type(value).__name__}"
