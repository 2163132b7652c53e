"""The folder of a run, which only the same run may resume."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from experiments import processes
from experiments.storage.code import Code, identify
from experiments.storage.environment import ENVIRONMENT, changed_packages, note_environment
from experiments.storage.files import read_json, write_json
from experiments.storage.identity import UNKNOWN, Identity, RunFolder, digest, stamp_in
from experiments.storage.records import PARTS, RESULTS

CONFIG = "config.json"
# Settings that may change when a run is resumed.
MAY_CHANGE = ("figure", "num_rounds", "chunk_evals", "keep_checkpoints", "start")
# Entries of config.json that describe the folder and are not settings: the version of its files and
# random streams, the checksum of the data, the slice of the sweep, and the versions of the code
# that made its files, oldest first.
OF_FOLDER = ("format", "data", "slice", "code")
FORMAT = 3
BELOW = ("dense/", "tickets/")  # folders of the iterative pruning that a run begins with


def open_workdir(
    folder: str,
    config: Mapping[str, Any],
    part: str | None = None,
    data: str | None = None,
    code: Code | None = None,
    *,
    allow_code_change: bool = False,
) -> RunFolder:
    """Create the folder of a run, or reopen it to resume the same run.

    It is the same run if only `MAY_CHANGE` differs: the figure, the number of rounds, the chunk
    size, the number of checkpoints and the place of the ticket that it starts from. `num_rounds`
    never falls. A folder in which nothing was made yet, because the run did not fit into memory,
    say, is free for any run.

    Args:
      folder: the path.
      config: the configuration of the whole sweep.
      part: ``i/n``, the slice of the sweep in this folder; None for the whole sweep.
      data: a checksum of the data set.
      code: the code of this process; None identifies it.
      allow_code_change: resume a run that other code began; ``config.json`` records the change.

    Returns:
      The folder, with ``config.json`` and ``environment.json`` written.

    Raises:
      ValueError: if `folder` is empty, or if it holds a run with other settings, other data,
        another slice, other code or another file format; the message names the differences.
    """
    if not folder:
        raise ValueError("--workdir is empty; name a folder, for example runs/quickstart.")
    code = code or identify()
    workdir = Path(folder)
    file = workdir / CONFIG
    settings: dict[str, Any] = json.loads(json.dumps(dict(config)))
    of_folder = {"format": FORMAT, "data": data, "slice": part}
    settings |= {name: value for name, value in of_folder.items() if value is not None}
    codes = [code.version]
    before = _read_config(file) if file.exists() else {}
    if before and _is_begun(workdir):
        _check_same_run(workdir, before, settings)
        codes = _codes(workdir, before.get("code", [UNKNOWN]), code.version, allow_code_change)
        if "num_rounds" in settings:
            settings["num_rounds"] = max(before["num_rounds"], settings["num_rounds"])
        # All else is equal, though 0 may be written as 0.0: its first spelling stays.
        settings = before | {name: settings[name] for name in MAY_CHANGE if name in settings}
    identity = Identity(workdir, digest(_that_bind(settings)), tuple(codes))
    if not before:
        _check_strays(identity)
    if processes.is_first():
        write_json(file, settings | {"code": codes})
        note_environment(workdir / ENVIRONMENT, code)
    return RunFolder(workdir, identity)


def existing(workdir: Path) -> RunFolder:
    """Return the folder of a run as its config.json describes it, to read its files.

    Raises:
      ValueError: if that file is damaged.
      FileNotFoundError: if it is missing.
    """
    config = _read_config(workdir / CONFIG)
    codes = tuple(config.get("code", [UNKNOWN]))
    return RunFolder(workdir, Identity(workdir, digest(_that_bind(config)), codes))


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run, without the entries that describe its folder.

    Args:
      config: the content of its config.json.
    """
    return {name: value for name, value in config.items() if name not in OF_FOLDER}


def _is_begun(workdir: Path) -> bool:
    """Return whether a folder has files of a run, besides those that describe it."""
    made = RESULTS, PARTS, "checkpoints", "under_way", *BELOW
    return any((workdir / name).exists() for name in made)


def _that_bind(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of config.json that a file of the run is bound to."""
    return {name: x for name, x in config.items() if name not in (*MAY_CHANGE, "code")}


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
        changed = [name for name in names if before.get(name) != now.get(name)]
        told = [
            [repr(x[name]) if name in x else "not set" for x in (before, now)] for name in changed
        ]
        return ", ".join(
            f"{n}: {old} -> {new}" for n, (old, new) in zip(changed, told, strict=True)
        )

    if changes := differing(["format"]):
        raise ValueError(
            f"{workdir} was made by another version ({changes}); continue it with the version that "
            f"its {ENVIRONMENT} names, or choose another --workdir."
        )
    if changes := differing(sorted((before.keys() | now.keys()) - {*MAY_CHANGE, "code"})):
        raise ValueError(
            f"{workdir} holds a run with other settings ({changes}); "
            "choose another --workdir or delete that folder."
        )


def _codes(workdir: Path, before: list[str], now: str, allowed: bool) -> list[str]:
    """Return the versions of the code that made a folder, this process's last."""
    if before[-1] == now:
        return before
    if before[-1] == UNKNOWN:
        return [*before, now]
    changes = ", ".join([f"{before[-1]} -> {now}", *changed_packages(workdir / ENVIRONMENT)])
    if not allowed:
        raise ValueError(
            f"{workdir} was begun by other code ({changes}); go back to that code, whose commit "
            f"its {ENVIRONMENT} names, choose another --workdir, or mix the rows of both with "
            "--allow_code_change."
        )
    processes.say(f"{workdir} goes on with other code: {changes}")
    return [*(version for version in before if version != now), now]


def _check_strays(identity: Identity) -> None:
    """Check that a folder without config.json has no files of another run.

    Raises:
      ValueError: if it has one; names it.
    """
    root, missing = identity.root, f"{identity.root / CONFIG} is missing"
    checkpoints = "checkpoints/*.json"
    for pattern in (f"{PARTS}/*/*.json", *(f"{x}{checkpoints}" for x in ("", *BELOW))):
        for file in sorted(root.glob(pattern)):
            try:
                identity.check(file, stamp_in(file))
            except ValueError as error:
                raise ValueError(
                    f"{missing}, and {error}; restore it or choose another --workdir."
                ) from None
    if (root / RESULTS).exists() and not (root / PARTS).exists():
        raise ValueError(
            f"{missing}, but there is a {RESULTS}; restore it or choose another --workdir."
        )
