"""How the leaves of a tree are called."""

from typing import Any

import jax

PyTree = Any
Path = tuple[Any, ...]


def path_name(path: Path) -> str:
    """The name of a leaf, such as ``"dense1/kernel"``; a tree that is one array has ``""``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")
