"""Atomic file writes, JSON files and checksums."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.storage import locks


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
      OSError: if the file cannot be read.
      ValueError: if it is not JSON.
    """
    return json.loads(path.read_text())


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically."""
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    replace_file(path, lambda temporary: temporary.write_text(text))


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Replace a file atomically: readers see the old content or the new, never a part of it.

    Args:
      path: the file; its folder is created if missing.
      write: writes the new content to the temporary path that it is given.

    Raises:
      OSError: if the file cannot be written, or is a folder.
      Lost: if its folder was replaced since it was locked, see `locks.check`.
    """
    locks.check(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, expected a file.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    write(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    locks.check(path)
    temporary.replace(path)


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
