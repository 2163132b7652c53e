"""Checkpoints of finished rounds, each of a whole population, with checksums.

A checkpoint is a folder that Orbax writes, and a JSON file beside it with the SHA-256 of every file
in that folder. The JSON file is written last: a folder without one was never completed, and a
folder that does not match it is damaged. It also says which run made the checkpoint.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from experiments import processes
from experiments.storage import locks
from experiments.storage.files import checksum, read_json, write_json
from experiments.storage.identity import MADE_BY, Identity, RunFolder
from supermask_jax.trees import Layers

PyTree = Any
DAMAGED = "_damaged"  # suffix of the folder to which damaged checkpoints are moved


class Checkpoints:
    """The checkpoints in a folder: round 0 and the newest `keep` rounds.

    Args:
      folder: the folder; the first save creates it.
      keep: the number of newest rounds to keep.
    """

    def __init__(self, folder: RunFolder, keep: int) -> None:
        self._folder = folder.path.absolute()
        self._identity = folder.identity
        self._keep = keep

    def rounds(self) -> list[int]:
        """Return the rounds that have a checkpoint, intact or damaged, in ascending order."""
        names = [re.fullmatch(r"round_(\d+)\.json", p.name) for p in self._folder.glob("*")]
        return sorted(int(name[1]) for name in names if name)

    def save(self, round: int, tree: PyTree) -> None:
        """Save the arrays of a round, wait until they are on disk, and delete old rounds.

        Later rounds are deleted, too: they started from the round that this one replaces.

        Args:
          round: the number of the round.
          tree: arrays; the same on all processes.

        Raises:
          OSError: if the arrays cannot be saved; rounds saved earlier stay intact.
          Lost: if the folder of the run was replaced; see `locks.check`.
        """
        arrays, target = self._paths(round)
        values = _known_to_orbax(jax.tree.map(np.asarray, tree))
        locks.check(target)
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
            made_by = self._identity.stamp(target)
            write_json(target, {"sha256": _checksums(arrays), MADE_BY: made_by})
            for other in self.rounds():
                if other and not round - self._keep < other <= round:
                    self._drop(other)
        processes.meet()

    def load(self, round: int, like: PyTree) -> PyTree:
        """Load a round as numpy arrays.

        Args:
          round: the number of the round.
          like: the expected structure, shapes and types.

        Raises:
          ValueError: if the checkpoint is damaged, of another run, or has other shapes; names the
            file.
        """
        arrays, sums = self._paths(round)
        _compare(arrays, sums, self._identity)
        loaded = ocp.load(str(arrays), _known_to_orbax(jax.tree.map(_empty, like)))
        leaves, structure = jax.tree.flatten(like)
        for found, expected in zip(jax.tree.leaves(loaded), leaves, strict=True):
            if found.shape != expected.shape:
                raise ValueError(f"{arrays} has arrays {found.shape}, expected {expected.shape}")
        return structure.unflatten(jax.tree.leaves(loaded))

    def load_newest(self, before: int, like: Callable[[int], PyTree]) -> tuple[int, PyTree] | None:
        """Load the newest intact round below `before`; return its number and its arrays.

        Rounds found on the way that are damaged or of another run are reported and moved aside.

        Args:
          before: only earlier rounds are loaded.
          like: returns the structure, shapes and types of a round, given its number.

        Returns:
          The number of the round and its arrays; None if there is no intact round.
        """
        for round in reversed([number for number in self.rounds() if number < before]):
            try:
                return round, self.load(round, like(round))
            except ValueError as error:
                processes.say(f"{error}; moved to {self._set_aside(round)}")
        return None

    def go_back(self, needed: Iterable[int]) -> None:
        """Move aside the rounds from the first needed one that is damaged, and report it.

        A run that resumes after the newest round then makes them again.

        Args:
          needed: rounds; those after the newest one are still to come.
        """
        there = self.rounds()
        for round in sorted(number for number in needed if there and number < there[-1]):
            try:
                _compare(*self._paths(round), self._identity)
            except ValueError as error:
                processes.say(f"{error}; the rounds from {round} on are made again")
                for number in there:
                    if number >= round:
                        self._set_aside(number)
                return

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
        locks.check(target)
        processes.meet()  # the others may still be reading these files
        if processes.is_first():
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            sums.rename(target / sums.name)
            if arrays.exists():
                arrays.rename(target / "arrays")
        processes.meet()
        return target


def _check_disk(arrays: Path, size: int) -> None:
    """Raise errors that Orbax's threads would print in many lines, or hang on."""
    free = shutil.disk_usage(arrays.parent).free
    if not os.access(arrays.parent, os.W_OK):
        raise PermissionError(f"cannot save {arrays}: no permission to write into its folder")
    if size > free:
        needed = f"it takes {size / 1e6:.1f} MB and {free / 1e6:.1f} MB are free"
        raise OSError(f"cannot save {arrays}: no space left on the disk, {needed}")


def _known_to_orbax(tree: PyTree) -> PyTree:
    """Return a tree with tuples in the place of layers, whose keys Orbax does not know."""

    def known(node: Any) -> Any:
        return tuple(map(_known_to_orbax, node)) if isinstance(node, Layers) else node

    return jax.tree.map(known, tree, is_leaf=lambda node: isinstance(node, Layers))


def _checksums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): checksum(path) for path in files}


def _compare(folder: Path, sums: Path, identity: Identity) -> None:
    try:
        content = dict(read_json(sums))
    except FileNotFoundError:
        raise ValueError(f"{sums} is missing") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{sums} is damaged") from error
    made_by = content.pop(MADE_BY, None)
    identity.check(sums, made_by)
    expected = (
        content.get("sha256", {}) if made_by else content
    )  # before stamps, the checksums alone
    found = _checksums(folder)
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name):
            kind = "damaged" if name in found else "missing"
            raise ValueError(f"{folder / name} is {kind}")


def _reason(error: Exception) -> str:
    """Return the innermost cause in the message of an error that several libraries wrapped."""
    lines = str(error).strip().splitlines()
    return lines[0].rpartition(": ")[-1] if lines else type(error).__name__


def _empty(leaf: Any) -> np.ndarray:
    return np.empty(leaf.shape, leaf.dtype)
