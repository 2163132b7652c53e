"""The provenance of a run: the version of the code, the packages and the machine."""

import contextlib
import hashlib
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

import supermask_jax
from experiments.storage.files import read_json, write_json

ENVIRONMENT = "environment.json"  # in the folder of a run
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml-collections")
# Widest first. They decide the order in which XLA sums, so results differ in rounding between them.
VECTORS = ("avx512f", "avx2", "avx")
DIRTY = "dirty"  # part of the version if the sources have uncommitted changes


def code_version() -> str:
    """Return the version of the package and, in a git checkout, the commit.

    Uncommitted changes append ``.dirty.`` and eight hexadecimal digits of the SHA-256 of the
    sources.
    """
    root = Path(__file__).resolve().parents[2]
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


def environment(packages: Iterable[str] = PACKAGES) -> dict[str, Any]:
    """Return the versions of installed packages, the platform and the devices.

    Args:
      packages: the packages to look up; those that are not installed are left out.
    """
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
    """Return the model, the number of cores and, on Linux, the widest vector instructions."""
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


def note_environment(file: Path, packages: Iterable[str] = PACKAGES) -> None:
    """Append the present environment to a run's file; a run may be resumed in another one.

    Args:
      file: a JSON list of environments, oldest first; created if missing, replaced if damaged.
      packages: see `environment`.
    """
    try:
        before = list(read_json(file))
    except (OSError, ValueError):  # missing or damaged; no row depends on it
        before = []
    now = environment(packages)
    write_json(file, [e for e in before if e != now] + [now])
