"""Who may import whom: the library stands on jax and optax, the laboratory's tools stay apart."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
LIBRARY = sorted((ROOT / "supermask_jax").glob("*.py"))
LABORATORY = sorted((ROOT / "experiments").rglob("*.py"))

# Beside numpy and the standard library; a module without an entry may import nothing else.
MAY_IMPORT = {
    "paths": {"jax"},
    "checks": {"jax", "paths"},
    "trees": {"jax", "checks", "paths"},
    "criteria": {"jax", "checks", "paths", "trees"},
    "actions": {"jax", "checks", "paths", "trees"},
    "masks": {"jax", "checks", "paths", "trees"},
    "mask_files": {"jax", "checks", "paths"},
    "analysis": {"jax", "checks", "paths", "trees", "masks"},
    "rates": {"jax", "checks", "paths", "trees"},
    "rounds": {"jax", "checks", "paths", "trees", "masks"},
    "supermasks": {"jax", "checks", "paths", "trees"},
    "optimizers": {"jax", "optax", "checks", "paths"},
    "transforms": {"jax", "optax", "checks", "paths", "optimizers"},
    "training": {"jax", "optax", "checks", "paths", "optimizers"},
    "population": {"jax", "checks", "paths"},
}

ONLY_IN = {
    "flax": "problems/networks.py",
    "tensorflow_datasets": "datasets/*.py",
    "orbax": "storage/checkpoints.py",
}


def imported(source, package="supermask_jax"):
    """Top-level names of all imports, anywhere in the source; names inside for the package."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            inside = module == package or node.level
            names = [f"{module}.{alias.name}" if inside else module for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            found.add(".".join(parts[1:2]) if parts[0] == package else parts[0] or name)
    return found


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_the_library_keeps_to_its_table(path):
    allowed = MAY_IMPORT.get(path.stem, set()) | {"numpy"} | sys.stdlib_module_names
    assert imported(path.read_text()) <= allowed


def test_the_table_is_that_of_the_documentation():
    page = (ROOT / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", page, flags=re.M)
    assert {module: set(names.split(", ")) for module, names in rows} == MAY_IMPORT


def test_every_module_has_an_entry():
    assert {path.stem for path in LIBRARY} - {"__init__"} <= set(MAY_IMPORT)


@pytest.mark.parametrize("path", LABORATORY, ids=lambda path: path.stem)
def test_heavy_packages_have_one_door_each(path):
    names = imported(path.read_text())
    assert {package for package in ONLY_IN if package in names} <= {
        package for package, door in ONLY_IN.items() if path.match(f"experiments/{door}")
    }


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import flax.linen as nn", {"flax"}),
        ("from orbax.checkpoint import v1", {"orbax"}),
        ("def f():\n    import optax", {"optax"}),
        ("from supermask_jax import masks, trees", {"masks", "trees"}),
        ("from supermask_jax.trees import Key", {"trees"}),
        ("import supermask_jax.rounds", {"rounds"}),
        ("from . import masks", {"..masks"}),
    ],
)
def test_the_reader_sees_every_kind_of_import(source, found):
    assert imported(source) == found


def test_importing_the_library_loads_no_third_package():
    """Beyond what jax and optax load themselves."""
    modules = ", ".join(f"supermask_jax.{path.stem}" for path in LIBRARY)
    script = f"""
import sys, jax, optax
before = {{name.partition(".")[0] for name in sys.modules}}
import {modules.replace("supermask_jax.__init__", "supermask_jax")}
after = {{name.partition(".")[0] for name in sys.modules}}
print(*(after - before - sys.stdlib_module_names))
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert result.stdout.split() == ["supermask_jax"]
