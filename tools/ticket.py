"""Take the ticket of a row out of a run: its mask and its weights, in one file.

    python -m tools.ticket RUN --row=ID --output=ticket.safetensors [--format=mask|npz|torch]

RUN is the folder of a run, or one of tables. What the run keeps is read; a row without a checkpoint
is computed again, as tools.rerun does. docs/how_to/tickets.md says what the file holds, how to read
it and how to start a run from it.
"""

import json
import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict

from experiments.additions import identify_with
from experiments.command_line import config_file, define_file, fail, path_of, run_program
from experiments.problems.networks import NETWORKS, flattened
from experiments.problems.problem import Problem
from experiments.runners.problems import refuse_state
from experiments.runners.registry import Plan
from experiments.storage import results, run_folder, tickets
from experiments.storage.environment import environment, read_environments
from experiments.storage.files import read_json, replace_file
from experiments.storage.tickets import Ticket
from supermask_jax import interop, mask_files
from tools.one_row import (
    CONFIG,
    DATA_DIR,
    Found,
    check_config,
    check_data,
    differing,
    find,
    reason,
    recompute,
)

ROW = flags.DEFINE_string("row", None, "The id of the row.", required=True)
OUTPUT = define_file("output", None, "Path of the file to write.", required=True)
FORMAT = flags.DEFINE_enum(
    "format",
    "safetensors",
    ["safetensors", "mask", "npz", "torch"],
    "The whole ticket for torch, NumPy and JAX; its mask alone; the whole for NumPy; or start "
    "weights and mask as a state dict of PyTorch, in safetensors.",
)
flags.declare_key_flag(DATA_DIR.name)
flags.declare_key_flag(CONFIG.name)


class TakenOut(NamedTuple):
    """A ticket, and what it is of.

    Attributes:
      ticket: the mask and the weights.
      problem: its network and data set.
      about: its row, the settings that compute the row, the versions and the checksum of its data.
    """

    ticket: Ticket
    problem: Problem
    about: dict[str, Any]


def main(arguments: list[str]) -> None:
    """Write the ticket of the row named on the command line."""
    logging.set_verbosity(logging.WARNING)
    own, output = config_file(CONFIG), Path(OUTPUT.value)
    try:
        if len(arguments) != 2:
            raise ValueError("name the folder of one run.")
        if FORMAT.value in ("safetensors", "torch"):
            tickets.library()  # refuse before a training what could not be written after it
        found = find(str(ROW.value), path_of(arguments[1]))
        check_config(found, own)
        taken = take_out(found, own)
        tickets.check_finite(f"row {found.row['id']}", taken.ticket)
        output.parent.mkdir(parents=True, exist_ok=True)
        WRITERS[FORMAT.value](output, taken)
    except (ValueError, TypeError, OSError, MemoryError) as error:
        fail(error)
    print(output)


def take_out(found: Found, own: Path | None) -> TakenOut:
    """Return the ticket of a row: from what its run keeps, or else computed again.

    Args:
      found: the row.
      own: the file of ``--config``; None if none is given.
    """
    if found.table.config.name == run_folder.CONFIG:
        config = read_json(found.table.config)
        settings = ConfigDict(run_folder.settings(config))
        plan = found.runner.make_plan(settings, DATA_DIR.value, config.get("slice"))
        _check(found, plan)
        folder = run_folder.existing(found.table.config.parent)
        try:
            ticket = found.runner.ticket(plan, folder, found.row)
        except FileNotFoundError as error:
            print(f"{error} The row is computed again.", file=sys.stderr)
        else:
            about = _about(found, found.row, plan, _environment_then(found))
            return TakenOut(ticket, plan.problem, about)
    plan = found.runner.make_plan(found.config, DATA_DIR.value)
    _check(found, plan)
    return _computed_again(found, plan, own)


def _check(found: Found, plan: Plan) -> None:
    check_data(found, plan)
    refuse_state(plan.config.network, plan.problem, "tickets in files")


def _computed_again(found: Found, plan: Plan, own: Path | None) -> TakenOut:
    code = identify_with(own, plan.config.recorded(), plan.problem.dataset)
    with tempfile.TemporaryDirectory() as folder:
        row = recompute(found, plan, folder, code)
        ticket = found.runner.ticket(plan, run_folder.existing(Path(folder)), row)
    if names := differing(found.row, row):
        why = reason(found, code.version)
        print(f"{', '.join(names)} differ ({why}): the ticket is of the row now.", file=sys.stderr)
    return TakenOut(ticket, plan.problem, _about(found, row, plan, environment(code)))


def _environment_then(found: Found) -> dict[str, Any]:
    """Return the environment in which the code of a row last ran; empty if it is not known."""
    known = read_environments(found.table.environment)
    made_by = found.row["code_version"]
    return next((e for e in reversed(known) if e.get("code_version") == made_by), {})


def _about(
    found: Found, row: results.Row, plan: Plan, environment: dict[str, Any]
) -> dict[str, Any]:
    unmeasured = {name for name, x in row.items() if isinstance(x, float) and not math.isfinite(x)}
    return {
        "row": row | dict.fromkeys(unmeasured),  # JSON has no NaN
        "config": found.config.to_dict(),
        "versions": {
            name: environment[name] for name in ("python", "packages") if name in environment
        },
        "data": plan.problem.dataset.checksum(),
    }


def _write_safetensors(path: Path, taken: TakenOut) -> None:
    tickets.save(path, tickets.arrays_of(taken.ticket), taken.about)


def _write_npz(path: Path, taken: TakenOut) -> None:
    arrays: dict[str, Any] = {**tickets.arrays_of(taken.ticket), "about": json.dumps(taken.about)}

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # NumPy adds a suffix to a path
            np.savez(file, **arrays)

    replace_file(path, write)


def _write_mask(path: Path, taken: TakenOut) -> None:
    row = {name: value for name, value in taken.about["row"].items() if name != "command"}
    mask_files.save(path, taken.ticket.mask, {"row": row, "data": taken.about["data"]})


def _write_torch(path: Path, taken: TakenOut) -> None:
    mask, start, fill, _ = taken.ticket
    network, shape = taken.about["config"]["network"], taken.problem.dataset.image_shape
    if filled := [name for name, x in tickets.named(fill).items() if x.any()]:
        raise ValueError(
            f"pruned weights of {', '.join(filled)} are not 0, which a mask of PyTorch makes them; "
            "write --format=safetensors or npz."
        )
    try:
        flatten = flattened(network, shape) if network in NETWORKS else None
        state_dict = interop.to_torch(start, mask, flatten=flatten)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{error} Write --format=npz, and call interop.to_torch yourself."
        ) from None
    tickets.save(path, state_dict, taken.about)


WRITERS: dict[str, Callable[[Path, TakenOut], None]] = {
    "safetensors": _write_safetensors,
    "mask": _write_mask,
    "npz": _write_npz,
    "torch": _write_torch,
}

if __name__ == "__main__":
    run_program(main)
