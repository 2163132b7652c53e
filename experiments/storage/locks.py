"""A lock that admits one process at a time to the folder of a run."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

FILE = "lock"


@contextlib.contextmanager
def hold(workdir: Path) -> Iterator[None]:
    """Lock a folder, created if missing, within the context.

    The operating system releases the lock when the process ends, however it ends. The lock file
    stays.

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
        yield
