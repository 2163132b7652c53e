"""Masks in files: one bit per weight, readable from any language.

A file consists of, in this order:

* 16 bytes: `supermask_jax 1` and a newline;
* 8 bytes: the length of the header, an unsigned little-endian integer;
* the header: JSON in UTF-8, `{"leaves": [{"path": "dense1/kernel", "shape": [784, 300]}, ...],
  "metadata": {...}}`;
* the bits, leaf by leaf in the order of the header: each leaf in C order, eight weights to a byte,
  the highest bit first, 1 for kept weights, and the last byte of a leaf padded with zeros;
* 32 bytes: the SHA-256 of everything before.

A file is pure data. Reading one from an untrusted source never runs code: the worst that can happen
is that it is rejected.

Examples:
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
from supermask_jax.paths import PyTree, bare_names, leaf_names, path_name

MAGIC = b"supermask_jax 1\n"
LENGTH = 8  # bytes
CHECKSUM = 32  # bytes
MOST_METADATA = 3072  # bytes
MOST_RANK = 32
MOST_AXIS = 2**31


class MaskFile(NamedTuple):
    """The contents of a mask file.

    Attributes:
      leaves: the path and the bools `[...]` of every leaf, in the order of the tree.
      metadata: the metadata saved with the mask.
    """

    leaves: list[tuple[str, np.ndarray]]
    metadata: dict[str, Any]


def save(
    path: str | os.PathLike[str], mask: PyTree, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write a mask to a file, atomically.

    An existing file is replaced only once the new one is complete on disk. If several processes
    save at the same time, the last one wins. An existing file keeps its permissions, and a symbolic
    link keeps pointing to the file, which is replaced.

    Args:
      path: the file; its folder must exist.
      mask: bools `[...]` per leaf.
      metadata: a dict of anything that JSON can hold, and of NumPy and JAX numbers; at most 3 KiB.

    Raises:
      TypeError: if a leaf is not boolean, or if the metadata cannot be written as JSON.
      ValueError: if the metadata is too long or has numbers that are not finite.
      OSError: if the file cannot be written (`FileNotFoundError`, `IsADirectoryError` or
        `PermissionError` where they apply).

    Examples:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "ticket.mask"
      >>> save(path, {"kernel": jnp.array([True, False])}, {"round": 3})
      >>> path.read_bytes()[:16]
      b'supermask_jax 1\\n'
    """
    check_mask(mask)
    target = _writable(path)
    if not isinstance(metadata, Mapping | None):
        raise TypeError(f"metadata is {shown(metadata)}, expected a dict.")
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(mask)]
    try:
        described = json.dumps(dict(metadata or {}), allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise type(error)(f"the metadata cannot be written as JSON: {error}.") from None
    if len(described) > MOST_METADATA:
        raise ValueError(f"metadata has {len(described)} bytes, expected at most {MOST_METADATA}.")
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

    Leaves are matched by name. Hence a mask also loads into the same network in other containers or
    in another order: a list of layers and a dict of their numbers, or the state of flax nnx (whose
    names end in `/value`) and its pure dict.

    Args:
      path: the file.
      like: a tree with the leaves and shapes of the mask: parameters, shapes or another mask.

    Returns:
      Bools `[...]` per leaf, in the structure of `like`.

    Raises:
      FileNotFoundError: if the file does not exist.
      ValueError: if the file is damaged, is not a mask, or holds the mask of another network; names
        the leaf that differs.
      TypeError: if a leaf of `like` is not an array.

    Examples:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "ticket.mask"
      >>> save(path, {"kernel": jnp.array([True, False])})
      >>> load(path, {"kernel": jnp.ones(2)})["kernel"].tolist()
      [True, False]
    """
    check_shaped(like=like)
    leaves = read(path).leaves
    paths, treedef = jax.tree_util.tree_flatten_with_path(like)
    expected = [(path_name(p), tuple(x.shape)) for p, x in paths]
    if [(name, x.shape) for name, x in leaves] == expected:
        return treedef.unflatten([jnp.asarray(x) for _, x in leaves])
    found = dict(zip(bare_names([name for name, _ in leaves]), (x for _, x in leaves), strict=True))
    wanted = dict(zip(bare_names(leaf_names(like)), (shape for _, shape in expected), strict=True))
    for name, shape in wanted.items():
        if name not in found:
            raise ValueError(_of_another(path, f"no leaf '{name}', which the tree has"))
        if found[name].shape != shape:
            here = f"leaf '{name}' {list(found[name].shape)} where the tree has {list(shape)}"
            raise ValueError(_of_another(path, here))
    if len(found) != len(wanted) or len(leaves) != len(wanted):
        more = next((name for name in found if name not in wanted), leaves[-1][0])
        raise ValueError(_of_another(path, f"leaf '{more}', which the tree lacks"))
    return treedef.unflatten([jnp.asarray(found[name]) for name in wanted])


def read(path: str | os.PathLike[str]) -> MaskFile:
    """Read a file without knowing the tree.

    Args:
      path: the file.

    Returns:
      The leaves and the metadata.

    Raises:
      FileNotFoundError: if the file does not exist.
      ValueError: if the file is damaged or is not a mask.

    Examples:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "ticket.mask"
      >>> save(path, {"kernel": jnp.array([True, False])})
      >>> [(name, leaf.tolist()) for name, leaf in read(path).leaves]
      [('kernel', [True, False])]
    """
    content = Path(path).read_bytes()
    start = len(MAGIC) + LENGTH
    if not content.startswith(MAGIC[:-2]):
        raise ValueError(f"{path} is not a mask of supermask_jax.")
    if not content.startswith(MAGIC):
        raise ValueError(f"{path} is a mask in the format of another version.")
    body, checksum = content[:-CHECKSUM], content[-CHECKSUM:]
    if len(body) < start or hashlib.sha256(body).digest() != checksum:
        raise ValueError(f"{path} is damaged: its checksum does not match.")
    end = start + int.from_bytes(body[len(MAGIC) : start], "little")
    try:
        if end > len(body):
            raise ValueError("its header extends past its end.")
        shapes, metadata = _parse(body[start:end])
        return MaskFile(_unpack(shapes, body[end:]), metadata)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path} is not a mask that supermask_jax wrote: {error}") from None


def _writable(path: str | os.PathLike[str]) -> Path:
    """Return the file to create or to replace, with links resolved."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"{path} is a folder, expected the path of a file.")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {target.parent} to save {target.name} in.")
    if target.exists() and not target.is_file():
        raise OSError(f"{path} is not a regular file, so it cannot be replaced.")
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(f"{path} is not writable.")
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
    """Convert a NumPy or JAX number to a Python number."""
    if hasattr(value, "dtype") and is_number_type(value.dtype) and value.shape == ():
        return value.item()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


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
        raise ValueError(f"it has {len(bits)} bytes of bits, but its shapes need {sum(lengths)}.")
    leaves, start = [], 0
    for (name, shape), length in zip(shapes, lengths, strict=True):
        packed = np.frombuffer(bits, np.uint8, length, start)
        flat = np.unpackbits(packed).astype(bool)
        size = math.prod(shape)
        if flat[size:].any():
            raise ValueError("bits are set past the last weight of a leaf.")
        leaves.append((name, flat[:size].reshape(shape)))
        start += length
    return leaves
