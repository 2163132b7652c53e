"""Data sets in a file of NumPy: x_train, y_train, x_test and y_test, as in mnist.npz of Keras."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from experiments.datasets.splits import Dataset, as_split, from_arrays

SUFFIX = ".npz"
FIELDS = {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")}
UNREADABLE = (
    ValueError, TypeError, AttributeError, OSError, EOFError, MemoryError, NotImplementedError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
NAMES = [name for pair in FIELDS.values() for name in pair]


def load(name: str, num_validation: int) -> Dataset:
    """Load a file.

    Args:
      name: its path. `x_*` are images, uint8 `[N, H, W, C]` or `[N, H, W]`, and `y_*` their labels,
        integers `[N]` that count the classes from 0.
      num_validation: how many training images are for validation; 0 takes a tenth.

    Raises:
      ValueError: if the file is damaged or holds anything else.
      FileNotFoundError: if it is missing.
    """
    from experiments.command_line import path_of  # with flags, which not all who load data have

    arrays = _read(path_of(name))
    splits = {which: as_split(name, pair, *(arrays[field] for field in pair))
              for which, pair in FIELDS.items()}  # fmt: skip
    return from_arrays(name, splits["train"], splits["test"], num_validation)


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "not there"
        raise FileNotFoundError(f"{path} is {kind} (from {Path.cwd()}), expected a file of NumPy.")
    try:
        with path.open("rb") as opened:
            file = np.load(opened, allow_pickle=False)
            names = ["one array without a name"] if isinstance(file, np.ndarray) else list(file)
            if sorted(names) != sorted(NAMES):
                found, expected = ", ".join(names) or "nothing", ", ".join(NAMES)
                raise ValueError(f"it has {found}, expected {expected}")
            return {name: file[name] for name in names}
    except UNREADABLE as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"{path} cannot be used: {said}; write it by numpy.savez({path.name!r}, x_train=..., "
            "y_train=..., x_test=..., y_test=...)."
        ) from error
