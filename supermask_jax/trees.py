"""Trees of parameters: the contracts of criteria and actions, prunable leaves, keys and layers.

Every tree that describes a network has the structure of its parameters: start weights `w_i`, final
weights `w_f`, scores, masks, rates, counts. So every operation is one `jax.tree.map`. In
docstrings, `[...]` is the shape of a leaf.
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
EVERY_LEAF = "on_every_leaf"  # marks actions that also set leaves which are not prunable
Predicate = Callable[[Path, Any], bool]

_BIASES = r"b|(.*_)?bias"
_NORMALISATIONS = (
    r"(scale|offset|gamma|beta)(_\d+)?|(.*_)?(ln|bn|norm)\d*_(scale|offset|gamma|beta)"
    r"|((running|moving)_)?(mean|var|variance)"
)
# Last words of the paths of leaves that are not kernels, including numbered biases (b1, bias_0) and
# the biases of transformers (b_in, b_Q), recurrent cells (bias_ih_l0) and attention (bias_k).
NOT_KERNELS = re.compile(
    rf"{_BIASES}|{_NORMALISATIONS}|b_?\d+|bias_?\d+|biases|b_(in|out|ih|hh|[qkvozrhQKVO])"
    r"|bias_(ih|hh)(_l\d+(_reverse)?)?|bias_[nkv]"
)
_VARIABLES = re.compile(rf"{_BIASES}|{_NORMALISATIONS}")  # names that "value" may follow


class Criterion(Protocol):
    """A function that scores weights; pruning keeps the highest scores."""

    def __call__(self, w_i: PyTree, w_f: PyTree, mask: PyTree | None = None, /) -> PyTree:
        """Return the scores of all weights, pruned ones included: pruning ignores the latter.

        Args:
          w_i: start weights of the round, `[...]` per leaf.
          w_f: final weights of the round, `[...]` per leaf.
          mask: the mask of the round, bool `[...]` per leaf; None keeps everything.

        Returns:
          Scores `[...]` per leaf.
        """
        ...


class Action(Protocol):
    """A function that gives weights the values from which they start the next round.

    Mask-1 actions set the weights that a round keeps; mask-0 actions set those that it prunes.
    """

    def __call__(self, key: Key, w_i: PyTree, w_f: PyTree, mask: PyTree, /) -> PyTree:
        """Return new values for the weights where `mask` is True.

        Values elsewhere are ignored. Values of leaves that are not prunable are ignored, too,
        except those of mask-1 actions marked by `actions.on_every_leaf`.

        Args:
          key: a typed key, for this action alone.
          w_i: start weights of the round, `[...]` per leaf.
          w_f: final weights of the round, `[...]` per leaf.
          mask: bool `[...]` per leaf: for a mask-1 action, the weights kept; for a mask-0 action,
            the weights pruned in this round.

        Returns:
          Values `[...]` per leaf.
        """
        ...


class RoundState(NamedTuple):
    """The start of a round of training; every field has the structure of the parameters.

    Attributes:
      w_i: start values of the kept weights, `[...]`. Entries where the mask is False are no fills,
        so that actions on whole layers never see a fill.
      fill: the values of pruned weights, `[...]`, set once, when a weight is pruned.
      mask: bool `[...]`, True for kept weights.
    """

    w_i: PyTree
    fill: PyTree
    mask: PyTree


def is_kernel(path: Path, leaf: Any) -> bool:
    """Tell whether a leaf is a kernel, of a dense layer or a convolution: rank 2 or more, no bias.

    This is the default predicate of `prunable_leaves`. A kernel holds floats. The predicate looks
    at the rank and at the name, because neither is enough: biases and normalisation parameters of
    stacked layers are matrices, too. The last word of the path (`paths.words_of`), in nested, flat
    and tuple-keyed trees alike, must not match `NOT_KERNELS`. The `value` that flax nnx appends to
    names does not count as a word.

    Leaves that names cannot identify count as kernels: embeddings, position and class tokens, the
    stacked `weight` of an equinox normalisation layer. Use `describe` to see the choice, and your
    own predicate to change it.

    Args:
      path: as `jax.tree_util.tree_leaves_with_path` returns it.
      leaf: an array or a `jax.ShapeDtypeStruct`.

    Examples:
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
    """Return which leaves may be pruned, as a tree of Python bools.

    The tree is static: make it once, for one network, and close over it in jitted code.

    Args:
      params: arrays or `jax.ShapeDtypeStruct`s (from `jax.eval_shape`).
      predicate: `(path, leaf) -> bool`.

    Raises:
      ValueError: if no weight is prunable; lists the leaves.
      TypeError: if a leaf is not an array, if the predicate returns anything but True or False, or
        if it chooses a leaf that does not hold floats.

    Examples:
      >>> prunable_leaves({"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)})
      {'bias': False, 'kernel': True}
    """
    check_shaped(params=params)
    prunable = _ask("predicate", predicate, params)
    check_shaped_weights(prunable, params=params)
    num_prunable(params, prunable)
    return prunable


def describe(params: PyTree, prunable: PyTree) -> str:
    """Return a table of the leaves: path, shape, size, and whether the leaf is prunable.

    Args:
      params: arrays or `jax.ShapeDtypeStruct`s.
      prunable: from `prunable_leaves`.

    Raises:
      TypeError: if a leaf is not an array.
      ValueError: if the trees differ.

    Examples:
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
    """Count the prunable weights.

    Args:
      tree: any tree with the shapes of the parameters.
      prunable: from `prunable_leaves`.

    Raises:
      ValueError: if there are none; lists the leaves.

    Examples:
      >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> num_prunable(params, {"kernel": True, "bias": False})
      6
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
    """Return a key for each leaf: `key` with the index of the leaf folded in.

    Args:
      key: a typed key, as `jax.random.key` makes it.
      tree: any tree.

    Returns:
      A tree of keys.

    Raises:
      TypeError: if `key` is not a single typed key.

    Examples:
      >>> keys = leaf_keys(jax.random.key(0), {"a": 1, "b": 2})
      >>> bool(keys["a"] == keys["b"])
      False
    """
    check_key(key)
    leaves, treedef = jax.tree.flatten(tree)
    return treedef.unflatten([jax.random.fold_in(key, i) for i in range(len(leaves))])


class Layers(tuple):
    """The layers of one stacked leaf, in its place in the tree; a tuple of a distinct type."""


jax.tree_util.register_pytree_with_keys(
    Layers,
    lambda layers: ([(LayerKey(i), layer) for i, layer in enumerate(layers)], None),
    lambda _, layers: Layers(layers),
)


def unstack_layers(
    tree: PyTree, rule: Predicate, like: PyTree | None = None
) -> tuple[PyTree, Callable[[PyTree], PyTree]]:
    """Split leaves that stack several layers, so that each layer has leaves of its own.

    Scanned and vmapped networks (flax linen `scan`, nnx `scan` and `vmap`, `eqx.filter_vmap`, haiku
    `layer_stack`) keep L layers in one leaf `[L, ...]`. But the functions of this library treat a
    leaf as a layer: it is ranked as one, permuted as one, and has one rate. After splitting,
    results equal bit for bit those for the same layers in separate leaves. Stack the layers again
    to train. Both directions are slices and `jnp.stack`, which are cheap under `jit`. For layers
    inside layers, call the function again on its result.

    Args:
      tree: weights, a mask, scores, a `rounds.RoundState` (split field by field), or any other tree
        of this library. Python bools and numbers, as in `prunable_leaves` or `rates.keep_counts`,
        are repeated for every layer.
      rule: `(path, leaf) -> bool` on the leaves of `like`, True for stacked leaves `[L, ...]`.
      like: the stacked parameters; by default, `tree` itself. Needed if `tree` holds no arrays.

    Returns:
      The tree, with each stacked leaf replaced by L leaves `path/0`, `path/1`, ..., and a function
      that stacks the layers of any such tree again.

    Raises:
      ValueError: if the rule chooses no leaf or a leaf without layers, or if trees differ. When
        stacking: if the bools or numbers of the layers of a leaf differ.
      TypeError: if the rule returns anything but True or False, or if a leaf is not an array.

    Examples:
      >>> shapes = {"blocks": (2, 3, 4), "output": (4, 5)}
      >>> params = {name: {"kernel": jnp.ones(shape)} for name, shape in shapes.items()}
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
        raise TypeError("the tree has no arrays to count layers in; pass like=params too.")
    like = tree if like is None else like
    check_shaped(like=like)
    check_structure(like=like, tree=tree)
    chosen = _ask("rule", rule, like)
    if not any(jax.tree.leaves(chosen)):
        raise ValueError(f"the rule is True for no leaf; the leaves are: {_listed(like)}.")

    def unstack(path: Path, leaf: Any, whole: Any, yes: bool) -> Any:
        if not yes:
            return leaf
        if not (whole.shape and whole.shape[0]):
            raise ValueError(
                f"leaf '{path_name(path)}' of shape {list(whole.shape)} has no layers; "
                "the rule must be False for it."
            )
        if jnp.shape(leaf) not in ((), whole.shape):
            raise ValueError(
                f"leaf '{path_name(path)}' has shape {list(leaf.shape)} in the tree but "
                f"{list(whole.shape)} in like; both must describe the same network."
            )
        return Layers(_layer(leaf, i) for i in range(whole.shape[0]))

    return jax.tree_util.tree_map_with_path(unstack, tree, like, chosen), _stack_layers


def _layer(leaf: Any, place: int) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
    return leaf[place] if jnp.shape(leaf) else leaf


def _stack_layers(tree: PyTree) -> PyTree:
    """Undo `unstack_layers`, for any tree with its structure."""

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
                f"the layers of leaf '{path_name(path)}' have {shown(layers)}, but a stacked leaf "
                "holds one value for all of them."
            )
        return layers[0]

    return jax.tree_util.tree_map_with_path(stack, tree, is_leaf=is_layers)


def _ask(kind: str, predicate: Predicate, tree: PyTree) -> PyTree:
    """Call a predicate on every leaf; its answers as Python bools."""

    def ask(path: Path, leaf: Any) -> bool:
        answer = predicate(path, leaf)
        if not isinstance(answer, bool | np.bool_):
            raise TypeError(
                f"the {kind} returns {shown(answer)} for leaf '{path_name(path)}', expected True "
                "or False."
            )
        return bool(answer)

    return jax.tree_util.tree_map_with_path(ask, tree)


def _listed(tree: PyTree) -> str:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return (
        ", ".join(f"'{path_name(path)}' {x.dtype}{list(x.shape)}" for path, x in leaves) or "none"
    )
