"""What made the files of a run, so that a file of another run is never taken for one of its own."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments.storage.files import read_json
from experiments.storage.listeners import Listener

UNKNOWN = "unknown"  # the code of files that were made before files said what made them
MADE_BY = "made_by"  # the key of a stamp in a JSON file


class Identity(NamedTuple):
    """What the files of a run are bound to.

    Attributes:
      root: the folder of the run.
      settings: a digest of all that decides its numbers and its members, see `digest`.
      codes: the versions of the code whose files are accepted, oldest first; the last one is that
        of this process.
    """

    root: Path
    settings: str
    codes: tuple[str, ...]

    def stamp(self, file: Path) -> dict[str, str]:
        """Return what a new file says of itself: its run, its code and its place."""
        return {"settings": self.settings, "code": self.codes[-1], "place": self._place(file)}

    def check(self, file: Path, stamp: Any) -> None:
        """Check that this run made a file, at this place.

        Args:
          file: the file.
          stamp: what it says of itself; None if it says nothing.

        Raises:
          ValueError: if another run made it, or if it is a copy; the message names the file.
        """
        if stamp is None and UNKNOWN in self.codes:
            return
        said: Mapping[str, Any] = stamp if isinstance(stamp, dict) else {}
        if said.get("settings") != self.settings:
            raise ValueError(f"{file} was made with other settings, seeds or data")
        if said.get("code") not in self.codes:
            raise ValueError(f"{file} was made by other code ({said.get('code')})")
        if said.get("place") != self._place(file):
            raise ValueError(f"{file} is a copy of {said.get('place')}")

    def _place(self, file: Path) -> str:
        return file.absolute().relative_to(self.root.absolute()).with_suffix("").as_posix()


class RunFolder(NamedTuple):
    """A folder for the files of a run, or a folder in it.

    Attributes:
      path: the folder.
      identity: what its files are bound to.
      listeners: they hear of every part of its tables.
    """

    path: Path
    identity: Identity
    listeners: tuple[Listener, ...] = ()

    @property
    def code_version(self) -> str:
        """The version of the code of this process."""
        return self.identity.codes[-1]

    def below(self, name: str) -> "RunFolder":
        """Return a folder in this one, which belongs to the same run."""
        return self._replace(path=self.path / name)


def stamp_in(file: Path) -> Any:
    """Return what a JSON file says of itself; None if it says nothing or is damaged."""
    try:
        content = read_json(file)
    except ValueError:
        return None
    return content.get(MADE_BY) if isinstance(content, dict) else None


def digest(settings: Mapping[str, Any]) -> str:
    """Return sixteen hexadecimal digits of the SHA-256 of settings.

    >>> digest({"seeds": (0, 1), "epochs": 2}) == digest({"epochs": 2, "seeds": [0, 1]})
    True
    """
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
