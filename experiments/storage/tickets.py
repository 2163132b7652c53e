"""Tickets in files: the mask, the weights around it, and what they are of.

    mask/dense1/kernel    bool       which weights are kept
    start/dense1/kernel   float32    what training starts from, also where the mask prunes
    fill/dense1/kernel    float32    what pruned weights are set to
    final/dense1/kernel   float32    what training ended with

A file of safetensors holds these for every leaf, and in its metadata one string of JSON. It is pure
data: reading one from an untrusted source never runs code, and the worst that can happen is that it
is refused.
"""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.storage.files import replace_file
from supermask_jax.checks import is_floating
from supermask_jax.interop import to_bools
from supermask_jax.paths import bare_names, leaf_names

PyTree = Any
ABOUT = "supermask_jax"  # the key of the metadata: one key, since several have no fixed order
UNPICKLE = (
    "import sys, torch; from safetensors.torch import save_file; "
    "save_file({name: x.clone().contiguous() for name, x in torch.load(sys.argv[1], "
    "map_location='cpu', weights_only=True).items()}, sys.argv[2])"
)


class Ticket(NamedTuple):
    """A mask and the weights of one network, in NumPy arrays.

    Attributes:
      mask: bool `[...]` per leaf.
      start: start weights `[...]`, also where the mask prunes.
      fill: the values of pruned weights `[...]`.
      final: the weights `[...]` after training, or, if none were trained, those that were measured.
    """

    mask: PyTree
    start: PyTree
    fill: PyTree
    final: PyTree


def named(tree: PyTree) -> dict[str, np.ndarray]:
    """Return the leaves of a tree by their names."""
    names = bare_names(leaf_names(tree))
    return dict(zip(names, map(np.asarray, jax.tree.leaves(tree)), strict=True))


def arrays_of(ticket: Ticket) -> dict[str, np.ndarray]:
    """Return the arrays of a ticket by their names in a file, each in C order."""
    return {
        f"{part}/{name}": np.array(leaf, order="C")
        for part, tree in ticket._asdict().items()
        for name, leaf in named(tree).items()
    }


def check_finite(what: str, ticket: Ticket) -> None:
    """Check that no weight of a ticket is NaN or infinite.

    Args:
      what: the file or the row, for the message.
      ticket: the ticket.

    Raises:
      ValueError: if one is; names the leaf.
    """
    for name, x in arrays_of(ticket).items():
        if bad := np.count_nonzero(~np.isfinite(x)):
            raise ValueError(
                f"{what}: '{name}' {list(x.shape)} has {bad} of {x.size} values that are NaN or "
                "infinite; did training diverge?"
            )


def save(path: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write arrays to a file of safetensors, atomically; the same arrays give the same bytes.

    Args:
      path: the file; its folder is created if missing.
      arrays: names to arrays in C order, since the file holds their memory.
      about: what JSON can hold, for the metadata.

    Raises:
      ValueError: if safetensors is not installed.
      OSError: if the file cannot be written.
    """
    content = library().save(dict(arrays), {ABOUT: json.dumps(dict(about), allow_nan=False)})
    replace_file(path, lambda temporary: temporary.write_bytes(content))


def read(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a file of safetensors, whoever wrote it.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is damaged or in another format, or if safetensors is not installed; the
        message names the file.
    """
    load, content = library().load, path.read_bytes()
    try:
        arrays = load(content)
    except KeyError as error:
        raise ValueError(
            f"{path} has a tensor of {error}, which NumPy lacks; save it as float32."
        ) from None
    except Exception as error:  # of Rust; its class is not a ValueError
        raise ValueError(_refusal(path, content, error)) from None
    for name, x in arrays.items():
        if x.dtype == bool and (x.view(np.uint8) > 1).any():
            raise ValueError(f"{path} is damaged: '{name}' {list(x.shape)} has bytes above 1.")
    return arrays


def is_ticket(arrays: Mapping[str, np.ndarray]) -> bool:
    """Return whether arrays have the names that tickets have here."""
    return any(name.startswith(("mask/", "start/")) for name in arrays)


def from_arrays(path: Path, arrays: Mapping[str, np.ndarray], like: PyTree) -> Ticket:
    """Return the ticket that a file holds, for a given network.

    Args:
      path: the file, for messages.
      arrays: from `read`. Without ``fill/`` it is 0, and without ``final/`` it is ``start/``.
      like: the parameters, or their shapes; leaves are found by name.

    Raises:
      ValueError: if leaves are missing, unknown or of other shapes, if a mask has a value other
        than 0 and 1, or if a weight is NaN or infinite; names file and leaf.
    """
    left = dict(arrays)

    def take(part: str) -> PyTree:
        return _take(path, left, part, like)

    def take_or(part: str, default: PyTree) -> PyTree:
        return take(part) if any(name.startswith(f"{part}/") for name in left) else default

    mask, start = take("mask"), take("start")
    fill = take_or("fill", jax.tree.map(np.zeros_like, start))
    ticket = Ticket(mask, start, fill, take_or("final", start))
    check_finite(str(path), ticket)
    if left:
        name, x = next(iter(left.items()))
        raise ValueError(_of_another(path, f"'{name}' {list(x.shape)}, which this network lacks"))
    return ticket


def _take(path: Path, left: dict[str, np.ndarray], part: str, like: PyTree) -> PyTree:
    """Take the leaves of a part out of the arrays that are left."""
    leaves, treedef = jax.tree.flatten(like)
    found = []
    for name, leaf in zip(bare_names(leaf_names(like)), leaves, strict=True):
        key = f"{part}/{name}"
        if key not in left:
            raise ValueError(_of_another(path, f"no '{key}' {list(leaf.shape)}"))
        x = left.pop(key)
        if x.shape != leaf.shape:
            here = f"'{key}' {list(x.shape)} where this network has {list(leaf.shape)}"
            raise ValueError(_of_another(path, here))
        found.append(_bools(path, key, x) if part == "mask" else _floats(path, key, x, leaf.dtype))
    return treedef.unflatten(found)


def _bools(path: Path, name: str, x: np.ndarray) -> np.ndarray:
    try:
        return to_bools({name: x})[name]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _floats(path: Path, name: str, x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if not is_floating(x):
        raise ValueError(f"{path}: '{name}' {list(x.shape)} has dtype {x.dtype}, expected floats.")
    with np.errstate(over="ignore"):  # what is too large for the leaf counts as infinite
        return x.astype(dtype)


def _of_another(path: Path, difference: str) -> str:
    return f"{path} has {difference}; it is the ticket of another network."


def _refusal(path: Path, content: bytes, error: Exception) -> str:
    """Return why a file is not read, and how to go on."""
    if content[:1] == b"\x80" or (content[:2] == b"PK" and b"data.pkl" in content):
        names = shlex.quote(str(path)), shlex.quote(str(path.with_suffix(".safetensors")))
        command = f'python -c "{UNPICKLE}" {" ".join(names)}'
        return f"{path} is a pickle, which may run code; convert it where torch is: {command}"
    reason = " ".join(str(error).split())
    return (
        f"{path} is damaged, or no file of safetensors, as python -m tools.ticket writes "
        f"without --format ({reason})"
    )


def library() -> Any:
    """Return the module of safetensors for NumPy.

    Raises:
      ValueError: if it is not installed; the message says how to install it.
    """
    try:
        import safetensors.numpy  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError(
            "tickets need safetensors, which is not installed: pip install -e '.[tickets]'"
        ) from None
    return safetensors.numpy
