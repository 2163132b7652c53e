"""The folder of a run, which only the same run may resume."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from experiments import processes
from experiments.storage.environment import ENVIRONMENT, note_environment
from experiments.storage.files import read_json, write_json

CONFIG = "config.json"
# Settings that may change when a run is resumed.
MAY_CHANGE = ("figure", "num_rounds", "chunk_evals", "keep_checkpoints")
# Entries of config.json that describe the folder and are not settings: the version of its files and
# random streams, the checksum of the data, and the slice of the sweep.
OF_FOLDER = ("format", "data", "slice")
FORMAT = 3


def open_workdir(
    folder: str, config: Mapping[str, Any], part: str | None = None, data: str | None = None
) -> Path:
    """Create the folder of a run, or reopen it to resume the same run.

    It is the same run if only `MAY_CHANGE` differs: the figure, the number of rounds, the chunk
    size and the number of checkpoints. `num_rounds` never falls.

    Args:
      folder: the path.
      config: the configuration of the whole sweep.
      part: ``i/n``, the slice of the sweep in this folder; None for the whole sweep.
      data: a checksum of the data set.

    Returns:
      The folder, with ``config.json`` and ``environment.json`` written.

    Raises:
      ValueError: if `folder` is empty, or if it holds a run with other settings, other data,
        another slice or another file format; the message names the differences.
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
    """Return the settings of a run, without the entries that describe its folder.

    Args:
      config: the content of its config.json.
    """
    return {name: value for name, value in config.items() if name not in OF_FOLDER}


def _read_config(file: Path) -> dict[str, Any]:
    try:
        return dict(read_json(file))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{file} is damaged ({error}); repair it, choose another --workdir or delete that "
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
