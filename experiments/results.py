"""Tables of results: one row per member and round, with what is needed to make it again.

Accuracies are fractions, losses are in nats, density is kept / prunable weights. Every runner
has its own columns: what the row is about, the density, what was measured, and how it was made.
"""

import csv
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import supermask_jax
from experiments import processes

Row = dict[str, Any]

# Settings of a run that may change when it is taken up again.
MAY_CHANGE = ("num_rounds", "chunk_evals", "keep_checkpoints")

Columns = Mapping[str, Callable[[str], Any]]


def row_id(settings: Mapping[str, Any], member: Mapping[str, Any], code_version: str) -> str:
    """Twelve hexadecimal digits that name a row by all that decides its numbers.

    Args:
      settings: the part of the configuration that a single member's numbers depend on.
      member: criterion, mask_one, mask_zero, seed and round.
      code_version: see `code_version`.
    """
    text = json.dumps([settings, member, code_version], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def measured(table: Mapping[str, np.ndarray], index: int, columns: Columns) -> Row:
    """A member's entries of a table of float32 arrays `[P]`, as far as there are columns."""
    # str: the shortest decimal that reads back as the same float32
    return {name: read(str(table[name][index])) for name, read in columns.items() if name in table}


def write_rows(path: Path, rows: Iterable[Row], columns: Columns) -> None:
    """Write a table as CSV, at once or not at all."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    replace_file(path, write)


def read_rows(path: Path, columns: Columns) -> list[Row]:
    """Read a table that `write_rows` wrote, with its types; a missing one has no rows.

    Raises:
      ValueError: if the table has other columns.
    """
    if not path.exists():
        return []
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if list(reader.fieldnames or ()) != list(columns):
            raise ValueError(
                f"{path} is not a table of this version: its columns are {reader.fieldnames}."
            )
        return [{name: kind(row[name]) for name, kind in columns.items()} for row in reader]


def write_curves(
    path: Path,
    members: Sequence[Row],
    names: Sequence[str],
    steps: np.ndarray,
    curves: dict[str, Any],
) -> None:
    """Write learning curves as Parquet, one row per member and evaluation.

    Args:
      path: the file.
      members: P rows.
      names: columns of the rows that go along.
      steps: int `[E]`, the step of every evaluation.
      curves: arrays `[P, E]`. ``train_*`` are means over the steps from an evaluation to the
        next one, missing for the last.
    """
    count = len(steps)
    columns: dict[str, Any] = {
        name: np.repeat([member[name] for member in members], count) for name in names
    }
    columns["step"] = np.tile(steps, len(members))
    columns |= {name: np.asarray(values).ravel() for name, values in curves.items()}
    replace_file(path, lambda temporary: pq.write_table(pa.table(columns), temporary))


def read_curves(path: Path) -> dict[str, np.ndarray]:
    """The columns of a file that `write_curves` wrote.

    Raises:
      FileNotFoundError: if there is none.
    """
    table = pq.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text())


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, at once or not at all."""
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    replace_file(path, lambda temporary: temporary.write_text(text))


def replace_file(path: Path, write: Any) -> None:
    """Let `write(temporary)` make a file and move it into place, so that nobody sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    write(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def code_version() -> str:
    """The package's version and, in a git checkout, the commit, ``.dirty`` if files changed."""
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit = git("rev-parse", "--short=10", "HEAD")
        changed = git("status", "--porcelain", "--", "supermask_jax", "experiments")
    except (OSError, subprocess.CalledProcessError):
        return supermask_jax.__version__
    return f"{supermask_jax.__version__}+g{commit}{'.dirty' if changed else ''}"


def environment() -> dict[str, Any]:
    """What a run ran on: versions, platform and devices."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml-collections")
    return {
        "code_version": code_version(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
        "platform": platform.platform(),
        "processor": _processor(),
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{models[0]}, {len(models)} cores" if models else platform.processor()


def open_workdir(folder: str, config: Mapping[str, Any], part: str | None = None) -> Path:
    """Make a folder for a run, or take up the one that holds the same run.

    Args:
      folder: its path.
      config: the configuration of the whole sweep.
      part: ``i/n``, the slice of the sweep that the folder is for; None is all of it.

    More rounds, other checkpoints or other chunks are the same run; a folder of any other
    configuration is refused.

    Raises:
      ValueError: no name, or the folder holds another configuration; names what differs.
    """
    if not folder:
        raise ValueError("--workdir is empty; name a folder, for example runs/quickstart.")
    workdir = Path(folder)
    file = workdir / "config.json"
    settings: dict[str, Any] = json.loads(json.dumps(config))
    if part:
        settings["slice"] = part
    if file.exists():
        before = read_json(file)
        names = sorted((before.keys() | settings.keys()) - set(MAY_CHANGE))
        differ = [n for n in names if before.get(n) != settings.get(n)]
        if differ:
            changes = ", ".join(f"{n}: {before.get(n)!r} -> {settings.get(n)!r}" for n in differ)
            raise ValueError(
                f"{workdir} holds a run with other settings ({changes}); "
                "choose another --workdir or delete that folder."
            )
        if "num_rounds" in settings:
            settings["num_rounds"] = max(before["num_rounds"], settings["num_rounds"])
    if processes.is_first():
        write_json(file, settings)
        write_json(workdir / "environment.json", environment())
    return workdir
