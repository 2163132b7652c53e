"""Tables of results: one row per member and round, with what is needed to make it again.

Accuracies are fractions, losses are in nats, density is kept / prunable weights. Every runner
has its own columns: what the row is about, the density, what was measured, and how it was made.
"""

import contextlib
import csv
import hashlib
import io
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

import supermask_jax
from experiments import processes

Row = dict[str, Any]

# In the folder of a run: its settings, and what it ran on.
CONFIG = "config.json"
ENVIRONMENT = "environment.json"
# Settings of a run that may change when it is taken up again.
MAY_CHANGE = ("figure", "num_rounds", "chunk_evals", "keep_checkpoints")
# What config.json says of a folder beside the settings: the version of its files and of its streams
# of random numbers, a checksum of the data, and the part of the sweep.
OF_FOLDER = ("format", "data", "slice")
FORMAT = 3
# Widest first. XLA sums in the order that they suggest, so rows of other ones differ in rounding.
VECTORS = ("avx512f", "avx2", "avx")
DIRTY = "dirty"  # in the version of code that was changed after its commit

Columns = Mapping[str, Callable[[str], Any]]


def row_id(settings: Mapping[str, Any], member: Mapping[str, Any], code_version: str) -> str:
    """Twelve hexadecimal digits that name a row by all that decides its numbers.

    Args:
      settings: the part of the configuration that a single member's numbers depend on.
      member: what tells it from the others: criterion, mask_one, mask_zero, seed and round, say.
      code_version: see `code_version`.
    """
    text = json.dumps([settings, member, code_version], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def columns_between(row: Row, after: str, before: str) -> list[str]:
    """The columns of a row that stand between two others."""
    names = list(row)
    return names[names.index(after) + 1 : names.index(before)]


def measured(table: Mapping[str, np.ndarray], index: int, columns: Columns) -> Row:
    """A member's entries of a table of float32 arrays `[P]`, as far as there are columns."""
    # str: the shortest decimal that reads back as the same float32
    return {name: read(str(table[name][index])) for name, read in columns.items() if name in table}


def write_rows(path: Path, rows: Iterable[Row], columns: Columns) -> None:
    """Write a table as CSV, at once or not at all."""
    text = format_rows(rows, columns)
    replace_file(path, lambda temporary: temporary.write_text(text, newline=""))


def read_rows(path: Path, columns: Columns) -> list[Row]:
    """Read a table that `write_rows` wrote, with its types; a missing one has no rows.

    Raises:
      ValueError: if the table has other columns or is damaged.
    """
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return parse_rows(file.read(), columns, path)


def format_rows(rows: Iterable[Row], columns: Columns) -> str:
    """A table as the text of a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def parse_rows(text: str, columns: Columns, path: Path) -> list[Row]:
    """The rows of `format_rows`, with their types.

    Args:
      text: of a CSV file.
      columns: of the table.
      path: the file, for the message.

    Raises:
      ValueError: if the table has other columns or is damaged.
    """
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if list(reader.fieldnames or ()) != list(columns):
        raise ValueError(
            f"{path} is not a table of this version: its columns are {reader.fieldnames}."
        )
    try:
        return [{name: kind(row[name]) for name, kind in columns.items()} for row in reader]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged in line {reader.line_num}: {error}") from error


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
    import pyarrow as pa
    import pyarrow.parquet as pq

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
    import pyarrow.parquet as pq

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
    """The package's version and, in a git checkout, the commit.

    If files changed since: ``.dirty`` and eight digits that tell one state of them from another.
    """
    root = Path(__file__).resolve().parent.parent
    folders = "supermask_jax", "experiments"

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit = git("rev-parse", "--short=10", "HEAD")
        changed = git("status", "--porcelain", "--", *folders)
    except (OSError, subprocess.CalledProcessError):
        return supermask_jax.__version__
    version = f"{supermask_jax.__version__}+g{commit}"
    if not changed:
        return version
    sources = sorted(path for folder in folders for path in (root / folder).rglob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources))
    return f"{version}.{DIRTY}.{digest.hexdigest()[:8]}"


PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml-collections")


def environment(packages: Iterable[str] = PACKAGES) -> dict[str, Any]:
    """What a run ran on: versions of those packages that are there, platform and devices."""
    return {
        "code_version": code_version(),
        "python": platform.python_version(),
        "packages": _versions(packages),
        "platform": platform.platform(),
        "processor": _processor(),
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
    }


def _versions(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _processor() -> str:
    """Model, cores and, where Linux tells, the widest vector instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    if not models:
        return platform.processor()
    flags = {word for line in lines if line.startswith("flags") for word in line.split()}
    widest = [name for name in VECTORS if name in flags][:1]
    return ", ".join([models[0], f"{len(models)} cores", *widest])


def open_workdir(
    folder: str, config: Mapping[str, Any], part: str | None = None, data: str | None = None
) -> Path:
    """Make a folder for a run, or take up the one that holds the same run.

    Args:
      folder: its path.
      config: the configuration of the whole sweep.
      part: ``i/n``, the slice of the sweep that the folder is for; None is all of it.
      data: a checksum of the data set.

    More rounds, another figure, other checkpoints or other chunks are the same run; a folder of
    any other configuration, of other data or of a version that wrote other files is refused.

    Raises:
      ValueError: no name, or the folder holds another run; names what differs.
    """
    if not folder:
        raise ValueError("--workdir is empty; name a folder, for example runs/quickstart.")
    workdir = Path(folder)
    file = workdir / CONFIG
    of_folder = dict(zip(OF_FOLDER, (FORMAT, data, part), strict=True))
    settings: dict[str, Any] = json.loads(json.dumps(dict(config)))
    settings |= {name: value for name, value in of_folder.items() if value is not None}
    if file.exists():
        before = _read_config(file)
        _check_same_run(workdir, before, settings)
        if "num_rounds" in settings:
            settings["num_rounds"] = max(before["num_rounds"], settings["num_rounds"])
    if processes.is_first():
        write_json(file, settings)
        note_environment(workdir / ENVIRONMENT)
    return workdir


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the config.json of a run says, without what it says of the folder."""
    return {name: value for name, value in config.items() if name not in OF_FOLDER}


def _read_config(file: Path) -> dict[str, Any]:
    try:
        return dict(read_json(file))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{file} is damaged ({error}); put it right, choose another --workdir or delete that "
            "folder."
        ) from error


def _check_same_run(workdir: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    def differing(names: Iterable[str]) -> str:
        pairs = [(name, before.get(name), now.get(name)) for name in names]
        return ", ".join(f"{name}: {old!r} -> {new!r}" for name, old, new in pairs if old != new)

    if changes := differing(["format"]):
        raise ValueError(
            f"{workdir} was made by another version ({changes}); continue it with the version that "
            f"its {ENVIRONMENT} names, or choose another --workdir."
        )
    if changes := differing(sorted((before.keys() | now.keys()) - set(MAY_CHANGE))):
        raise ValueError(
            f"{workdir} holds a run with other settings ({changes}); "
            "choose another --workdir or delete that folder."
        )


def note_environment(file: Path, packages: Iterable[str] = PACKAGES) -> None:
    """Add what a run goes on with to what it ran on before."""
    try:
        before = list(read_json(file))
    except (OSError, ValueError):  # none yet, or damaged: of no influence on a row
        before = []
    now = environment(packages)
    write_json(file, [e for e in before if e != now] + [now])
