"""Files that appear at once or not at all, and JSON."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text())


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, at once or not at all."""
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    replace_file(path, lambda temporary: temporary.write_text(text))


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write(temporary)` make a file and move it into place, so that nobody sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    write(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
