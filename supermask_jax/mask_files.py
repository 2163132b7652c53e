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
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from supermask_jax.checks import check_mask, check_shaped, is_number_type, shown
from supermask_jax.paths import PyTree, leaf_names, path_name

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

    A file that is there is replaced at once, when the new one is on disk; of two that save at the
    same time one is the last. Its permissions stay, and a link stays a link to the file that is
    replaced.

    Args:
      path: of the file; its folder must be there.
      mask: bools `[...]` per leaf.
      metadata: anything that JSON can hold, numbers of numpy too, up to 3 KiB of it.

    Raises:
      TypeError: a leaf that is not boolean, or metadata that is not JSON.
      ValueError: metadata that is too long, or that has numbers which are not finite.
      FileNotFoundError, IsADirectoryError, PermissionError, OSError: the path of no file, or of one
        that may not be written.
    """
    check_mask(mask)
    target = _writable(path)
    if not isinstance(metadata, Mapping | None):
        raise TypeError(f"metadata is {shown(metadata)}, expected a dict.")
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(mask)]
    try:
        described = json.dumps(dict(metadata or {}), allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise type(error)(f"the metadata is no JSON: {error}.") from None
    if len(described) > MOST_METADATA:
        raise ValueError(f"metadata takes {len(described)} bytes, allowed are {MOST_METADATA}.")
    shapes = [
        {"path": name, "shape": list(leaf.shape)}
        for name, leaf in zip(leaf_names(mask), leaves, strict=True)
    ]
    header = json.dumps({"leaves": shapes, "metadata": json.loads(described)}).encode()
    bits = b"".join(np.packbits(leaf.ravel()).tobytes() for leaf in leaves)
    content = MAGIC + len(header).to_bytes(LENGTH, "little") + header + bits
    _replace(target, content + hashlib.sha256(content).digest())


def load(path: str | os.PathLike[str], like: PyTree) -> PyTree:
    """Read a mask into a tree.

    Leaves are found by name, so that the mask of a network loads into the same network in another
    container or order: a list of layers and a dict of their numbers, flax nnx's state (whose names
    end in ``/value``) and its pure dict.

    Args:
      path: of the file.
      like: a tree of the mask's leaves and shapes: parameters, shapes or another mask.

    Returns:
      Bools `[...]` per leaf, in the structure of `like`.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a damaged file, one that is no mask, or the mask of another network; names the
        leaf that is different.
      TypeError: a leaf of `like` that is no array.
    """
    check_shaped(like=like)
    leaves = read(path).leaves
    paths, treedef = jax.tree_util.tree_flatten_with_path(like)
    expected = [(path_name(p), tuple(x.shape)) for p, x in paths]
    if [(name, x.shape) for name, x in leaves] == expected:
        return treedef.unflatten([jnp.asarray(x) for _, x in leaves])
    found = dict(zip(_bare([name for name, _ in leaves]), (x for _, x in leaves), strict=True))
    wanted = dict(zip(_bare(leaf_names(like)), (shape for _, shape in expected), strict=True))
    for name, shape in wanted.items():
        if name not in found:
            raise ValueError(_of_another(path, f"no leaf '{name}', which the tree has"))
        if found[name].shape != shape:
            here = f"leaf '{name}' {list(found[name].shape)} where the tree has {list(shape)}"
            raise ValueError(_of_another(path, here))
    if len(found) != len(wanted) or len(leaves) != len(wanted):
        more = next((name for name in found if name not in wanted), leaves[-1][0])
        raise ValueError(_of_another(path, f"leaf '{more}', which the tree has not"))
    return treedef.unflatten([jnp.asarray(found[name]) for name in wanted])


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


def _writable(path: str | os.PathLike[str]) -> Path:
    """The file to replace, or to make."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"{path} is a folder, expected the path of a file.")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {target.parent} to save {target.name} in.")
    if target.exists() and not target.is_file():
        raise OSError(f"{path} is no ordinary file, which could be replaced by another.")
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(f"{path} may not be written.")
    return target


def _replace(target: Path, content: bytes) -> None:
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _plain(value: Any) -> Any:
    """A number of numpy or JAX as Python's."""
    if hasattr(value, "dtype") and is_number_type(value.dtype) and value.shape == ():
        return value.item()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _bare(names: list[str]) -> list[str]:
    """Names without the ``/value`` of flax nnx, where they tell leaves apart without it."""
    bare = [name.removesuffix("/value") for name in names]
    return bare if len({*bare}) == len(bare) else names


def _of_another(path: str | os.PathLike[str], difference: str) -> str:
    return f"{path} has {difference}; it is the mask of another network."


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
