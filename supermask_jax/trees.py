"""What a tree of parameters is to this library: contracts, which leaves may be pruned, keys.

Every tree that describes a network, be it start weights `w_i`, final weights `w_f`, scores,
a mask, rates or counts, has the structure of its parameters, so that every operation is one
`jax.tree.map`. In docstrings `[...]` is the shape of a leaf.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from supermask_jax.checks import (
    check_key,
    check_prunable,
    check_shaped,
    check_shaped_weights,
    check_structure,
    is_floating,
    shown,
)
from supermask_jax.paths import LayerKey, Path, PyTree, leaf_names, path_name, words_of

Key = jax.Array
EVERY_LEAF = "on_every_leaf"  # the attribute of an action for leaves that are not prunable, too
Predicate = Callable[[Path, Any], bool]

_BIASES = r"b|(.*_)?bias"
_NORMALISATIONS = (
    r"(scale|offset|gamma|beta)(_\d+)?|(.*_)?(ln|bn|norm)\d*_(scale|offset|gamma|beta)"
    r"|((running|moving)_)?(mean|var|variance)"
)
# What a leaf that is no kernel is called, by its last word: also biases with numbers (b1, bias_0),
# those of transformers (b_in, b_Q), of recurrent cells (bias_ih_l0) and of attention (bias_k).
NOT_KERNELS = re.compile(
    rf"{_BIASES}|{_NORMALISATIONS}|b_?\d+|bias_?\d+|biases|b_(in|out|ih|hh|[qkvozrhQKVO])"
    r"|bias_(ih|hh)(_l\d+(_reverse)?)?|bias_[nkv]"
)
_VARIABLES = re.compile(rf"{_BIASES}|{_NORMALISATIONS}")  # in what "value" is no name of its own


class Criterion(Protocol):
    """Scores weights; within a layer the highest scores are kept.

    Called with the start weights `w_i` and the final weights `w_f` of a round's training and
    the mask of that round, all `[...]` per leaf (a missing mask keeps everything). Returns
    scores `[...]`, defined for every weight: whoever prunes skips the pruned ones.
    """

    def __call__(self, w_i: PyTree, w_f: PyTree, mask: PyTree | None = None, /) -> PyTree:
        """Return scores `[...]` per leaf."""
        ...


class Action(Protocol):
    """Gives weights the values that they start the next round from.

    Called with a key, consumed whole, with the start weights `w_i` and the final weights `w_f`
    of the round, and with a boolean tree: for a mask-1 action the weights now kept, for a
    mask-0 action the weights pruned just now. Values elsewhere are ignored, and so are all values
    of leaves that are not prunable, unless a mask-1 action is marked by `actions.on_every_leaf`.
    """

    def __call__(self, key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree, /) -> PyTree:
        """Return values `[...]` per leaf."""
        ...


class RoundState(NamedTuple):
    """What a round of training starts from; every field has the structure of the parameters.

    Attributes:
      w_i: start values of the kept weights `[...]`. Entries behind the mask hold no fill, so
        that actions on whole layers never see one.
      fill: what pruned weights are set to `[...]`, decided once, when they are pruned.
      mask: bool `[...]`, True for kept weights.
    """

    w_i: PyTree
    fill: PyTree
    mask: PyTree


def is_kernel(path: Path, leaf: Any) -> bool:
    """Whether a leaf is a weight matrix or a convolution kernel: floating, rank 2 or more, no bias.

    Rank alone does not tell (biases and normalisations of stacked layers are matrices) and names
    alone do not either, so both decide: the last word of the path (`paths.words_of`), be the tree
    nested, flat or keyed by tuples, must be none of `NOT_KERNELS`; the ``value`` that flax nnx puts
    behind a name does not count. This is the default answer to "what may be pruned?".

    What names cannot tell counts as a kernel: embeddings, tokens of position and class, the stacked
    `weight` of an equinox normalisation. `describe` shows what was chosen; a predicate of your own
    decides otherwise:

    >>> params = {"embedding": jnp.ones((9, 4)), "dense": {"kernel": jnp.ones((4, 4))}}
    >>> def but_embeddings(path, leaf):
    ...     return is_kernel(path, leaf) and "embedding" not in path_name(path)
    >>> prunable_leaves(params, but_embeddings)
    {'dense': {'kernel': True}, 'embedding': False}
    """
    return is_floating(leaf) and leaf.ndim >= 2 and not NOT_KERNELS.fullmatch(_last_word(path))


def _last_word(path: Path) -> str:
    words = words_of(path)
    if words[-1:] == ["value"]:
        of_nnx = isinstance(path[-1], jax.tree_util.GetAttrKey)
        if of_nnx or _VARIABLES.fullmatch("".join(words[-2:-1])):
            words.pop()
    return words[-1] if words else ""


def prunable_leaves(params: PyTree, predicate: Predicate = is_kernel) -> PyTree:
    """Which leaves may be pruned, as a tree of Python bools.

    Static on purpose: decide it once, on one network, and close over it in jitted code.

    Args:
      params: arrays or `jax.ShapeDtypeStruct`s (from `jax.eval_shape`).
      predicate: called with the path and the leaf.

    Raises:
      ValueError: if no weight is prunable; lists the leaves there are.
      TypeError: if a leaf is not an array, if the predicate says anything but True or False, or
        if it chooses a leaf that does not hold floats.

    >>> prunable_leaves({"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)})
    {'bias': False, 'kernel': True}
    """
    check_shaped(params=params)
    prunable = _ask("predicate", predicate, params)
    check_shaped_weights(prunable, params=params)
    num_prunable(params, prunable)
    return prunable


def describe(params: PyTree, prunable: PyTree) -> str:
    """A short table of the leaves: path, shape, size and whether it may be pruned.

    Args:
      params: arrays or `jax.ShapeDtypeStruct`s.
      prunable: from `prunable_leaves`.

    Raises:
      TypeError, ValueError: leaves that are not arrays, trees that differ.

    >>> params = {"dense": {"kernel": jnp.ones((784, 300)), "bias": jnp.zeros(300)}}
    >>> print(describe(params, prunable_leaves(params)))
    leaf          shape        size  prunable
    dense/bias    300           300  no
    dense/kernel  784 x 300  235200  yes
    235200 of 235500 weights in 1 of 2 leaves may be pruned.
    """
    check_shaped(params=params)
    check_prunable(prunable, params=params)
    leaves, chosen = jax.tree.leaves(params), jax.tree.leaves(prunable)
    rows = [("leaf", "shape", "size", "prunable")]
    for name, leaf, yes in zip(leaf_names(params), leaves, chosen, strict=True):
        shape = " x ".join(map(str, leaf.shape)) or "scalar"
        rows.append((name, shape, str(leaf.size), "yes" if yes else "no"))
    name, shape, size = (max(len(row[column]) for row in rows) for column in range(3))
    lines = [f"{a:{name}}  {b:{shape}}  {c:>{size}}  {d}" for a, b, c, d in rows]
    sizes = [leaf.size for leaf in leaves]
    may_go = sum(size for size, yes in zip(sizes, chosen, strict=True) if yes)
    lines.append(
        f"{may_go} of {sum(sizes)} weights in {sum(chosen)} of {len(chosen)} leaves may be pruned."
    )
    return "\n".join(lines)


def num_prunable(tree: PyTree, prunable: PyTree) -> int:
    """How many weights may be pruned.

    Args:
      tree: anything with the shapes of the parameters.
      prunable: from `prunable_leaves`.

    Raises:
      ValueError: if there is none; lists the leaves there are.
    """
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(prunable), strict=True)
    number = sum(leaf.size for leaf, yes in pairs if yes)
    if not number:
        raise ValueError(
            f"no leaf is prunable; the leaves are: {_listed(tree)}. Pass a predicate(path, leaf) "
            "to prunable_leaves that is True for at least one of them."
        )
    return number


def leaf_keys(key: Key, tree: PyTree) -> PyTree:
    """One key per leaf, folded in by the leaf's place in the tree.

    Raises:
      TypeError: if `key` is not one typed key, as `jax.random.key` makes them.
    """
    check_key(key)
    leaves, treedef = jax.tree.flatten(tree)
    return treedef.unflatten([jax.random.fold_in(key, i) for i in range(len(leaves))])


class Layers(tuple):
    """The layers of one stacked leaf, in the leaf's place: a tuple that knows what it is."""


jax.tree_util.register_pytree_with_keys(
    Layers,
    lambda layers: ([(LayerKey(i), layer) for i, layer in enumerate(layers)], None),
    lambda _, layers: Layers(layers),
)


def unstack_layers(
    tree: PyTree, rule: Predicate, like: PyTree | None = None
) -> tuple[PyTree, Callable[[PyTree], PyTree]]:
    """Give layers that share a leaf leaves of their own, so that each is treated as a layer.

    Scanned and vmapped networks (flax linen `scan`, nnx `scan` and `vmap`, `eqx.filter_vmap`, haiku
    `layer_stack`) keep L layers in one leaf `[L, ...]`. To every function of this library a leaf is
    a layer: ranked as one, permuted as one, with one rate. Take such leaves apart, and all that
    follows equals, to the bit, the same layers as separate leaves; stack them to train. Both ways
    are slices and `jnp.stack`, cheap under `jit`. For layers of layers, call it once more.

    Args:
      tree: any of the library: weights, a mask, scores, a `rounds.RoundState` (field by field).
        Python's bools and numbers, of `prunable_leaves` or `rates.keep_counts` say, go to every
        layer as they are.
      rule: called with the path and the leaf of `like`; True for leaves `[L, ...]` of L layers.
      like: the stacked parameters; by default `tree` itself. Needed where `tree` holds no arrays.

    Returns:
      The tree with L leaves ``path/0``, ``path/1``, ... in this order in place of each stacked
      one, and the function that stacks the layers of any such tree again.

    Raises:
      ValueError: a rule that chooses no leaf, a chosen leaf without layers, trees that differ; when
        stacking, layers whose bools or numbers differ.
      TypeError: a rule that says anything but True or False, leaves that are not arrays.

    >>> params = {"blocks": {"kernel": jnp.ones((2, 3, 4))}, "output": {"kernel": jnp.ones((4, 5))}}
    >>> layers, stack = unstack_layers(params, lambda path, leaf: "blocks" in path_name(path))
    >>> print(describe(layers, prunable_leaves(layers)))
    leaf             shape  size  prunable
    blocks/kernel/0  3 x 4    12  yes
    blocks/kernel/1  3 x 4    12  yes
    output/kernel    4 x 5    20  yes
    44 of 44 weights in 3 of 3 leaves may be pruned.
    >>> jax.tree.map(jnp.shape, stack(layers))["blocks"]
    {'kernel': (2, 3, 4)}
    """
    if isinstance(tree, RoundState):
        like = tree.w_i if like is None else like
        fields = [unstack_layers(field, rule, like)[0] for field in tree]
        return RoundState(*fields), _stack_layers
    if like is None and not all(hasattr(leaf, "shape") for leaf in jax.tree.leaves(tree)):
        raise TypeError("the tree does not tell how many layers there are; pass like=params too.")
    like = tree if like is None else like
    check_shaped(like=like)
    check_structure(like=like, tree=tree)
    chosen = _ask("rule", rule, like)
    if not any(jax.tree.leaves(chosen)):
        raise ValueError(f"the rule is True of no leaf; the leaves are: {_listed(like)}.")

    def unstack(path: Path, leaf: Any, whole: Any, yes: bool) -> Any:
        if not yes:
            return leaf
        if not (whole.shape and whole.shape[0]):
            raise ValueError(
                f"leaf '{path_name(path)}' of shape {list(whole.shape)} has no layers; "
                "the rule must be False of it."
            )
        if jnp.shape(leaf) not in ((), whole.shape):
            raise ValueError(
                f"leaf '{path_name(path)}' has shape {list(leaf.shape)}, in like "
                f"{list(whole.shape)}; both must describe the same network."
            )
        return Layers(_layer(leaf, i) for i in range(whole.shape[0]))

    return jax.tree_util.tree_map_with_path(unstack, tree, like, chosen), _stack_layers


def _layer(leaf: Any, place: int) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
    return leaf[place] if jnp.shape(leaf) else leaf


def _stack_layers(tree: PyTree) -> PyTree:
    """Undo `unstack_layers`, for any tree of that structure."""

    def is_layers(node: Any) -> bool:
        return isinstance(node, Layers)

    def stack(path: Path, node: Any) -> Any:
        if not is_layers(node):
            return node
        layers = [stack((*path, LayerKey(i)), layer) for i, layer in enumerate(node)]
        if all(isinstance(layer, jax.ShapeDtypeStruct) for layer in layers):
            return jax.ShapeDtypeStruct((len(layers), *layers[0].shape), layers[0].dtype)
        if all(hasattr(layer, "shape") for layer in layers):
            return jnp.stack(layers)
        if any(layer != layers[0] for layer in layers):
            raise ValueError(
                f"the layers of leaf '{path_name(path)}' have {shown(layers)}, which no stacked "
                "leaf can tell apart."
            )
        return layers[0]

    return jax.tree_util.tree_map_with_path(stack, tree, is_leaf=is_layers)


def _ask(kind: str, predicate: Predicate, tree: PyTree) -> PyTree:
    """What a predicate says of every leaf, as Python's bools."""

    def ask(path: Path, leaf: Any) -> bool:
        answer = predicate(path, leaf)
        if not isinstance(answer, bool | np.bool_):
            raise TypeError(
                f"the {kind} says {shown(answer)} of leaf '{path_name(path)}', expected True or "
                "False."
            )
        return bool(answer)

    return jax.tree_util.tree_map_with_path(ask, tree)


def _listed(tree: PyTree) -> str:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return (
        ", ".join(f"'{path_name(path)}' {x.dtype}{list(x.shape)}" for path, x in leaves) or "none"
    )
