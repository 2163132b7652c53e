"""How the leaves of a tree are called: in messages, in rules by path, in tables and in files."""

import collections
import dataclasses
import re
from typing import Any

import jax

PyTree = Any
Path = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class LayerKey:
    """The place of a layer among those that `trees.unstack_layers` took apart."""

    idx: int

    def __str__(self) -> str:
        """As the place in a tuple reads."""
        return str(self.idx)


def path_name(path: Path) -> str:
    """The name of a leaf, such as ``"dense1/kernel"``; a tree that is one array has ``""``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def leaf_names(tree: PyTree) -> list[str]:
    """The names of all leaves, in the tree's order, no two alike.

    Leaves whose `path_name` would read alike are spelled in full:

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


def words_of(path: Path) -> list[str]:
    """What a leaf is called and what it is in, word by word, however its tree spells it.

    Of a nested, a flat (``"attn/query/bias"``, ``"0.bias"``) or a tuple key, without the number of
    an output (``"bias:0"``) and without numbers of layers (`trees.unstack_layers`).

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
