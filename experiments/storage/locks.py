"""A lock that admits one process at a time to the folder of a run."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

FILE = "lock"

_held: dict[Path, os.stat_result] = {}  # folders that this process holds, with their lock files


class Lost(OSError):
    """The folder of a run was replaced while the run went on, so it must not write there."""


@contextlib.contextmanager
def hold(workdir: Path) -> Iterator[None]:
    """Lock a folder, created if missing, within the context.

    The operating system releases the lock when the process ends, however it ends. The lock file
    stays. `check` tells whether the folder is still the one that was locked.

    Raises:
      ValueError: if another process holds the lock, naming that process; or if `workdir` is a file.
    """
    if workdir.exists() and not workdir.is_dir():
        raise ValueError(f"--workdir: {workdir} is a file, expected a folder.")
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / FILE).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(
                f"{workdir} is in use by {file.read().strip()}; wait for it or choose another "
                "--workdir."
            ) from None
        file.truncate(0)
        now = datetime.now().isoformat(" ", "seconds")
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {now}\n")
        file.flush()
        folder = workdir.absolute()
        _held[folder] = os.fstat(file.fileno())
        try:
            yield
        finally:
            del _held[folder]


def check(path: Path) -> None:
    """Check, before a file changes, that no folder above it was replaced since it was locked.

    Args:
      path: the file or folder that will be written, moved or deleted.

    Raises:
      Lost: if the lock file of a folder above, locked by this process, is gone or another one.
    """
    for folder, locked in _held.items():
        if not path.absolute().is_relative_to(folder):
            continue
        try:
            same = os.path.samestat(locked, (folder / FILE).stat())
        except OSError:
            same = False
        if not same:
            raise Lost(
                f"{folder / FILE} was moved, deleted or replaced while this run held it, so "
                f"{path.name} is not written: another run may be there; choose another --workdir, "
                "or run the same command to continue what is left."
            )
