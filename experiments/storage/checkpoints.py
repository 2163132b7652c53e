"""Checkpoints of finished rounds: the whole population of a round at once, with checksums.

A round is a folder that Orbax writes and a file beside it with the SHA-256 of every file in that
folder, written last: what has no such file was never finished, what differs from it is damaged.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from experiments import processes
from experiments.storage.files import read_json, write_json

PyTree = Any
DAMAGED = "_damaged"  # behind the name of a folder: where its damaged rounds are moved


class Checkpoints:
    """The finished rounds in a folder; the newest `keep` and round 0 stay.

    Args:
      folder: made by the first round.
      keep: how many of the newest rounds to keep.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder.resolve()
        self._keep = keep

    def rounds(self) -> list[int]:
        """The rounds that were finished, whole or damaged."""
        names = [re.fullmatch(r"round_(\d+)\.json", p.name) for p in self._folder.glob("*")]
        return sorted(int(name[1]) for name in names if name)

    def save(self, round: int, tree: PyTree) -> None:
        """Save a round's arrays, wait until they are on disk, and drop rounds not to keep.

        Raises:
          OSError: if the disk does not take them; rounds saved before stay as they are.
        """
        arrays, target = self._paths(round)
        values = jax.tree.map(np.asarray, tree)
        if processes.is_first():
            self._folder.mkdir(parents=True, exist_ok=True)
            _check_disk(arrays, sum(x.nbytes for x in jax.tree.leaves(values)))
            target.unlink(missing_ok=True)
        processes.meet()
        try:
            ocp.save(str(arrays), values, overwrite=True)
        except Exception as error:
            raise OSError(f"cannot save {arrays}: {_reason(error)}") from error
        if processes.is_first():
            write_json(target, _checksums(arrays))
            for other in self.rounds():
                if other and not round - self._keep < other <= round:
                    self._drop(other)
        processes.meet()

    def load(self, round: int, like: PyTree) -> PyTree:
        """Load a round as numpy arrays of the shapes and types of `like`.

        Raises:
          ValueError: if the round is damaged, names the file; or if its shapes are others.
        """
        arrays, sums = self._paths(round)
        _compare(arrays, sums)
        loaded = ocp.load(str(arrays), jax.tree.map(_empty, like))
        for found, expected in zip(jax.tree.leaves(loaded), jax.tree.leaves(like), strict=True):
            if found.shape != expected.shape:
                raise ValueError(f"{arrays} has arrays {found.shape}, expected {expected.shape}")
        return loaded

    def load_newest(self, before: int, like: Callable[[int], PyTree]) -> tuple[int, PyTree] | None:
        """The newest whole round below `before` and its arrays; None if there is none.

        A damaged round is named and moved out of the way.

        Args:
          before: a round.
          like: gives the shapes and types of a round.
        """
        for round in reversed([number for number in self.rounds() if number < before]):
            try:
                return round, self.load(round, like(round))
            except ValueError as error:
                processes.say(f"{error}; moved to {self._set_aside(round)}")
        return None

    def _paths(self, round: int) -> tuple[Path, Path]:
        arrays = self._folder / f"round_{round:02}"
        return arrays, arrays.with_name(f"{arrays.name}.json")

    def _drop(self, round: int) -> None:
        arrays, sums = self._paths(round)
        sums.unlink()
        shutil.rmtree(arrays, ignore_errors=True)

    def _set_aside(self, round: int) -> Path:
        arrays, sums = self._paths(round)
        damaged = self._folder.with_name(self._folder.name + DAMAGED)
        target = damaged / arrays.name
        processes.meet()  # until the others, too, have read what is to be moved
        if processes.is_first():
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            sums.rename(target / sums.name)
            if arrays.exists():
                arrays.rename(target / "arrays")
        processes.meet()
        return target


def _check_disk(arrays: Path, size: int) -> None:
    """Raise here what Orbax's threads would also print, in many lines, or wait for."""
    free = shutil.disk_usage(arrays.parent).free
    if not os.access(arrays.parent, os.W_OK):
        raise PermissionError(f"cannot save {arrays}: no permission to write into its folder")
    if size > free:
        needed = f"it takes {size / 1e6:.1f} MB and {free / 1e6:.1f} MB are free"
        raise OSError(f"cannot save {arrays}: no space left on the disk, {needed}")


def _checksums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _checksum(path) for path in files}


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _compare(folder: Path, sums: Path) -> None:
    try:
        expected = read_json(sums)
    except ValueError as error:
        raise ValueError(f"{sums} is damaged") from error
    found = _checksums(folder)
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name):
            kind = "damaged" if name in found else "missing"
            raise ValueError(f"{folder / name} is {kind}")


def _reason(error: Exception) -> str:
    """What happened at last, of an error that libraries have wrapped in their own words."""
    lines = str(error).strip().splitlines()
    return lines[0].rpartition(": ")[-1] if lines else type(error).__name__


def _empty(leaf: Any) -> np.ndarray:
    return np.empty(leaf.shape, leaf.dtype)
