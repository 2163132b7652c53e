"""What a run was made by: the code's version, the packages and the machine."""

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
# Widest first. XLA sums in the order that they suggest, so rows of other ones differ in rounding.
VECTORS = ("avx512f", "avx2", "avx")
DIRTY = "dirty"  # in the version of code that was changed after its commit


def code_version() -> str:
    """The package's version and, in a git checkout, the commit.

    If files changed since: ``.dirty`` and eight digits that tell one state of them from another.
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


def note_environment(file: Path, packages: Iterable[str] = PACKAGES) -> None:
    """Add what a run goes on with to what it ran on before."""
    try:
        before = list(read_json(file))
    except (OSError, ValueError):  # none yet, or damaged: of no influence on a row
        before = []
    now = environment(packages)
    write_json(file, [e for e in before if e != now] + [now])
