"""Masks on disk: one bit per weight, readable from any language, and data only.

A file is, in this order:

* 16 bytes: ``supermask_jax 1`` and a newline;
* 8 bytes: the length of the header, an unsigned little-endian integer;
* the header: JSON in UTF-8, ``{"leaves": [{"path": "dense1/kernel", "shape": [784, 300]}, ...],
  "metadata": {...}}``;
* the bits, leaf after leaf in the header's order, each in C order, eight weights to a byte from the
  highest bit on, 1 for kept, the last byte of a leaf filled up with zeros;
* 32 bytes: the SHA-256 of all that comes before.

Nothing in it is code: a file from a stranger can only be refused.

>>> import tempfile
>>> mask = {"kernel": jnp.array([[True, False], [False, True]]), "bias": jnp.ones(2, bool)}
>>> path = Path(tempfile.mkdtemp()) / "ticket.mask"
>>> save(path, mask, {"seed": 3})
>>> load(path, mask)["kernel"].tolist(), read(path).metadata
([[True, False], [False, True]], {'seed': 3})
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from supermask_jax.checks import check_mask, check_shaped, shown
from supermask_jax.paths import PyTree, path_name

MAGIC = b"supermask_jax 1\n"
LENGTH = 8  # bytes
CHECKSUM = 32  # bytes
MOST_METADATA = 3072  # bytes
MOST_RANK = 32
MOST_AXIS = 2**31


class MaskFile(NamedTuple):
    """What a file holds.

    Attributes:
      leaves: path and bools `[...]` of every leaf, in the tree's order.
      metadata: what was saved with them.
    """

    leaves: list[tuple[str, np.ndarray]]
    metadata: dict[str, Any]


def save(
    path: str | os.PathLike[str], mask: PyTree, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write a mask, whole or not at all.

    Args:
      path: of the file; its folder must be there.
      mask: bools `[...]` per leaf.
      metadata: anything that JSON can hold, up to 3 KiB of it.

    Raises:
      TypeError: a leaf that is not boolean, or metadata that is not JSON.
      ValueError: metadata that is too long, or that has numbers which are not finite.
      FileNotFoundError, IsADirectoryError: the path of no file.
    """
    check_mask(mask)
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder, expected the path of a file.")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {target.parent} to save {target.name} in.")
    if not isinstance(metadata, Mapping | None):
        raise TypeError(f"metadata is {shown(metadata)}, expected a dict.")
    leaves = [(path_name(p), np.asarray(x)) for p, x in jax.tree_util.tree_leaves_with_path(mask)]
    try:
        described = json.dumps(dict(metadata or {}), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise type(error)(f"the metadata is no JSON: {error}.") from None
    if len(described) > MOST_METADATA:
        raise ValueError(f"metadata takes {len(described)} bytes, allowed are {MOST_METADATA}.")
    shapes = [{"path": name, "shape": list(x.shape)} for name, x in leaves]
    header = json.dumps({"leaves": shapes, "metadata": json.loads(described)}).encode()
    bits = b"".join(np.packbits(x.ravel()).tobytes() for _, x in leaves)
    content = MAGIC + len(header).to_bytes(LENGTH, "little") + header + bits
    temporary = target.with_name(target.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content + hashlib.sha256(content).digest())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(target)


def load(path: str | os.PathLike[str], like: PyTree) -> PyTree:
    """Read a mask into a tree.

    Args:
      path: of the file.
      like: a tree of the mask's structure and shapes: parameters, shapes or another mask.

    Returns:
      Bools `[...]` per leaf.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a damaged file, one that is no mask, or the mask of another tree.
      TypeError: a leaf of `like` that is no array.
    """
    check_shaped(like=like)
    leaves = read(path).leaves
    paths, treedef = jax.tree_util.tree_flatten_with_path(like)
    expected = [(path_name(p), tuple(x.shape)) for p, x in paths]
    found = [(name, x.shape) for name, x in leaves]
    for one, other in zip(found, expected, strict=False):
        if one != other:
            raise ValueError(
                f"{path} has leaf '{one[0]}' {list(one[1])} where the tree has "
                f"'{other[0]}' {list(other[1])}; it is the mask of another network."
            )
    if len(found) != len(expected):
        raise ValueError(f"{path} has {len(found)} leaves, the tree has {len(expected)}.")
    return treedef.unflatten([jnp.asarray(x) for _, x in leaves])


def read(path: str | os.PathLike[str]) -> MaskFile:
    """Read a file without knowing its tree.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a damaged file, or one that is no mask.
    """
    content = Path(path).read_bytes()
    start = len(MAGIC) + LENGTH
    if not content.startswith(MAGIC[:-2]):
        raise ValueError(f"{path} is not a mask of supermask_jax.")
    if not content.startswith(MAGIC):
        raise ValueError(f"{path} is a mask in another version's format.")
    body, checksum = content[:-CHECKSUM], content[-CHECKSUM:]
    if len(body) < start or hashlib.sha256(body).digest() != checksum:
        raise ValueError(f"{path} is damaged: its checksum does not match.")
    end = start + int.from_bytes(body[len(MAGIC) : start], "little")
    try:
        if end > len(body):
            raise ValueError("its header ends behind its end.")
        shapes, metadata = _parse(body[start:end])
        return MaskFile(_unpack(shapes, body[end:]), metadata)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path} is not a mask that supermask_jax wrote: {error}") from None


def _parse(header: bytes) -> tuple[list[tuple[str, tuple[int, ...]]], dict[str, Any]]:
    described = json.loads(header)
    shapes = []
    for leaf in described["leaves"]:
        name, shape = leaf["path"], leaf["shape"]
        sizes = isinstance(shape, list) and all(
            type(n) is int and 0 <= n < MOST_AXIS for n in shape
        )
        if not (isinstance(name, str) and sizes and len(shape) <= MOST_RANK):
            raise ValueError("a leaf has no path or no shape.")
        shapes.append((name, tuple(shape)))
    if not isinstance(described["metadata"], dict):
        raise ValueError("its metadata is not an object.")
    return shapes, described["metadata"]


def _unpack(shapes: list[tuple[str, tuple[int, ...]]], bits: bytes) -> list[tuple[str, np.ndarray]]:
    lengths = [-(-math.prod(shape) // 8) for _, shape in shapes]
    if sum(lengths) != len(bits):
        raise ValueError(f"it has {len(bits)} bytes of bits, its shapes need {sum(lengths)}.")
    leaves, start = [], 0
    for (name, shape), length in zip(shapes, lengths, strict=True):
        packed = np.frombuffer(bits, np.uint8, length, start)
        flat = np.unpackbits(packed).astype(bool)
        size = math.prod(shape)
        if flat[size:].any():
            raise ValueError("bits are set behind the last weight of a leaf.")
        leaves.append((name, flat[:size].reshape(shape)))
        start += length
    return leaves
