"""The names of leaves, in messages, in rules by path, in tables and in files."""

import collections
import dataclasses
import re
from typing import Any

import jax

PyTree = Any
Path = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class LayerKey:
    """The index of a layer that `trees.unstack_layers` has taken out of a stacked leaf."""

    idx: int

    def __str__(self) -> str:
        """Return the index as in the path of a tuple."""
        return str(self.idx)


def path_name(path: Path) -> str:
    """Return the name of a leaf, such as `"dense1/kernel"`, or `""` if the tree is a single array.

    Args:
      path: as `jax.tree_util.tree_leaves_with_path` returns it.

    Examples:
      >>> path_name((jax.tree_util.DictKey("dense1"), jax.tree_util.DictKey("kernel")))
      'dense1/kernel'
    """
    return jax.tree_util.keystr(path, simple=True, separator="/")


def leaf_names(tree: PyTree) -> list[str]:
    """Return the names of all leaves, in the order of the tree; no two are equal.

    Leaves that would share a `path_name` are spelled out.

    Args:
      tree: any tree.

    Examples:
      >>> leaf_names({"a/b": 1, "a": {"b": 2}, "c": 3})
      ["['a']['b']", "['a/b']", 'c']
    """
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    short = [path_name(path) for path in paths]
    number = collections.Counter(short)
    return [
        name if number[name] == 1 else jax.tree_util.keystr(path)
        for path, name in zip(paths, short, strict=True)
    ]


def bare_names(names: list[str]) -> list[str]:
    """Drop the `/value` of flax nnx from the names of leaves, unless two would then be equal.

    Args:
      names: from `leaf_names`.

    Examples:
      >>> bare_names(["dense/kernel/value", "dense/bias/value"])
      ['dense/kernel', 'dense/bias']
    """
    bare = [name.removesuffix("/value") for name in names]
    return bare if len({*bare}) == len(bare) else names


def words_of(path: Path) -> list[str]:
    """Return the words of a path, from the root to the leaf, however the tree spells them.

    Keys may be nested, flat (`"attn/query/bias"`, `"0.bias"`) or tuples. The number of an output
    (`"bias:0"`) and the numbers of layers (`trees.unstack_layers`) are left out.

    Args:
      path: as `jax.tree_util.tree_leaves_with_path` returns it.

    Examples:
      >>> for flat in ({("attn", "query", "bias"): 1}, {"mlp.0.kernel": 2}):
      ...     [words_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(flat)]
      [['attn', 'query', 'bias']]
      [['mlp', '0', 'kernel']]
    """
    return [word for key in path if not isinstance(key, LayerKey) for word in _words(key)]


def _words(key: Any) -> list[str]:
    spelled = getattr(key, "key", None)
    parts = spelled if isinstance(spelled, tuple) else (path_name((key,)),)
    spelled_out = (re.sub(r":\d+$", "", str(part)) for part in parts)
    return [word for part in spelled_out for word in re.split("[/.]", part) if word]
