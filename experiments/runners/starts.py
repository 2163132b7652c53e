"""The ticket that a run starts from: the same mask and weights for all of its members.

The file holds a ticket of this laboratory, or a state dict of PyTorch of the same network.
"""

import dataclasses
import os
import warnings
from pathlib import Path
from typing import Annotated, TypeVar

import jax
import numpy as np

from experiments import processes
from experiments.problems.networks import NETWORKS, flattened
from experiments.problems.problem import Problem
from experiments.runners import settings
from experiments.runners.problems import refuse_state
from experiments.runners.settings import SWEEP
from experiments.storage import tickets
from experiments.storage.files import checksum
from supermask_jax import interop
from supermask_jax.rounds import RoundState, begin


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartSettings(settings.RateSettings):
    """The settings of runs that may start from a ticket."""

    start: Annotated[str, settings.file, SWEEP] = ""  # its file; empty: every seed from its own
    start_sha256: Annotated[str, settings.file] = ""  # of that file; empty: whatever it holds


S = TypeVar("S", bound=StartSettings)


def with_checksum(config: S) -> S:
    """Return settings that tell the content of their ticket, and not only its place.

    Raises:
      ValueError: if a checksum is given without a file, or if the file is a folder.
      FileNotFoundError: if there is no such file.
    """
    if config.start_sha256 and not config.start:
        raise ValueError(
            f"config.start_sha256 is {config.start_sha256}, but config.start is empty, expected "
            "the file of that ticket."
        )
    if not config.start or config.start_sha256:
        return config
    return dataclasses.replace(config, start_sha256=checksum(_file(config)))


def read_start(config: StartSettings, problem: Problem) -> RoundState | None:
    """Return the state that round 0 starts from, as NumPy arrays; None without a ticket.

    Args:
      config: from `with_checksum`.
      problem: the network.

    Raises:
      ValueError: if the network has state; or if the file is damaged, another than the checksum
        tells, in another format or of another network; names the file.
      FileNotFoundError: if there is no such file.
    """
    if not config.start:
        return None
    refuse_state(config.network, problem, "tickets in files")
    path = _file(config)
    if (found := checksum(path)) != config.start_sha256:
        raise ValueError(
            f"config.start: {path} has the SHA-256 {found}, expected {config.start_sha256}, that "
            "of config.start_sha256; it is another file."
        )
    try:
        arrays = tickets.read(path)
        if tickets.is_ticket(arrays):
            ticket = tickets.from_arrays(path, arrays, problem.params)
            state = RoundState(ticket.start, ticket.fill, ticket.mask)
        else:
            state = _of_torch(path, arrays, config.network, problem)
    except ValueError as error:
        raise ValueError(f"config.start: {error}") from None
    _tell_of_zeros(path, state)
    return state


def _of_torch(
    path: Path, arrays: dict[str, np.ndarray], network: str, problem: Problem
) -> RoundState:
    """Return the state of a state dict, of which zeros in kernels without a mask are pruned."""
    is_ours = network in NETWORKS
    flatten = flattened(network, problem.dataset.image_shape) if is_ours else None
    try:
        found = interop.from_torch(arrays, problem.params, flatten=flatten, zeros_are_pruned=True)
    except (ValueError, TypeError) as error:
        hint = "" if is_ours else " Or convert it yourself: docs/how_to/tickets.md says how."
        raise ValueError(f"{path}: {error}{hint}") from None
    return RoundState(found.params, jax.tree.map(np.zeros_like, found.params), found.mask)


def _tell_of_zeros(path: Path, state: RoundState) -> None:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        begin(state.w_i, state.mask)
    for warning in found:
        processes.say(f"{path}: {warning.message}")


def _file(config: StartSettings) -> Path:
    path = Path(os.path.expanduser(config.start))
    if path.is_dir():
        raise ValueError(f"config.start: {path} is a folder, expected the file of a ticket.")
    if not path.exists():
        raise FileNotFoundError(
            f"config.start: there is no file {path}; python -m tools.ticket writes one of a row."
        )
    return path
