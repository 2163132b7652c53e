"""The provenance of a run: the code, the packages and the machine."""

import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax

from experiments.storage.code import NUMERICAL, Code, versions_of
from experiments.storage.files import read_json, write_json

ENVIRONMENT = "environment.json"  # in the folder of a run
PACKAGES = (*NUMERICAL, "orbax-checkpoint", "ml-collections")
# Widest first. They decide the order in which XLA sums, so results differ in rounding between them.
VECTORS = ("avx512f", "avx2", "avx")


def environment(code: Code, packages: Iterable[str] = PACKAGES) -> dict[str, Any]:
    """Return the code, the versions of installed packages, the platform and the devices.

    Args:
      code: the code of this process.
      packages: the packages to look up; those that are not installed are left out.
    """
    return {
        "code_version": code.version,
        "commit": code.commit,
        "uncommitted": list(code.uncommitted),
        "python": platform.python_version(),
        "packages": versions_of(packages),
        "platform": platform.platform(),
        "processor": processor(),
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
    }


def processor() -> str:
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


def note_environment(file: Path, code: Code, packages: Iterable[str] = PACKAGES) -> None:
    """Append the present environment to a run's file; a run may be resumed in another one.

    Args:
      file: a JSON list of environments, oldest first; created if missing, replaced if damaged.
      code: the code of this process.
      packages: see `environment`.
    """
    now = environment(code, packages)
    write_json(file, [e for e in read_environments(file) if e != now] + [now])


def read_environments(file: Path) -> list[dict[str, Any]]:
    """Return the environments of a run, oldest first; none if the file is missing or damaged."""
    try:
        return list(read_json(file))
    except (OSError, ValueError, TypeError):  # no row depends on it
        return []


def changed_packages(file: Path) -> list[str]:
    """Return texts on numerical packages whose versions changed since the last environment.

    Args:
      file: see `note_environment`.
    """
    before = next((e["packages"] for e in reversed(read_environments(file)) if "packages" in e), {})
    now = versions_of(NUMERICAL)
    return [
        f"{name} {before[name]} -> {now.get(name)}"
        for name in NUMERICAL
        if name in before and before[name] != now.get(name)
    ]
