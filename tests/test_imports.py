"""The rules of imports: the library needs only jax and optax; heavy packages have one importer."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
LIBRARY = sorted((ROOT / "supermask_jax").glob("*.py"))
ROOMS = [
    pytest.param(floor, path, id=f"{floor}.{path.name}")
    for floor in ("experiments", "tools")
    for path in sorted((ROOT / floor).iterdir())
    if path.suffix == ".py" or (path / "__init__.py").exists()
]


def table(chapter):
    """Read from a chapter of docs/architecture.md what every room may import."""
    _, _, text = PAGE.partition(f"## {chapter}\n")
    text, _, _ = text.partition("\n## ")
    rows = re.findall(r"^\| `(\w+)` \| .* \| ?(.*) \|$", text, flags=re.M)
    return {room: {name for name in names.split(", ") if name} for room, names in rows}


MAY_IMPORT = {
    "supermask_jax": table("The library"),
    "experiments": table("The laboratory"),
    "tools": table("The tools"),
}
BELOW = {"experiments": {"supermask_jax"}, "tools": {"supermask_jax", "experiments"}}
FLOORS = {"supermask_jax", "experiments", "tools", "tests"}

ONLY_IN = {
    "flax": "problems/networks.py",
    "tensorflow_datasets": "datasets/*.py",
    "array_record": "datasets/*.py",
    "orbax": "storage/checkpoints.py",
    "safetensors": "storage/tickets.py",
}


def imported(source, package="supermask_jax"):
    """Return the packages that a source imports; for `package` itself, its modules."""
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
    allowed = MAY_IMPORT["supermask_jax"].get(path.stem, set()) | {"numpy"}
    assert imported(path.read_text()) <= allowed | sys.stdlib_module_names


@pytest.mark.parametrize(("floor", "room"), ROOMS)
def test_a_room_keeps_to_its_table(floor, room):
    allowed = MAY_IMPORT[floor].get(room.stem, set()) | {room.stem}
    for path in [room] if room.is_file() else room.rglob("*.py"):
        names = imported(path.read_text(), floor)
        others = names & FLOORS - BELOW[floor]
        inside = {name for name in names if (ROOT / floor / name).with_suffix(".py").exists()}
        inside |= {name for name in names if (ROOT / floor / name / "__init__.py").exists()}
        assert inside <= allowed and not others, path


@pytest.mark.parametrize("floor", MAY_IMPORT)
def test_every_room_has_a_rule_and_every_rule_a_room(floor):
    paths = (ROOT / floor).iterdir()
    rooms = {p.stem for p in paths if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert rooms - {"__init__"} == set(MAY_IMPORT[floor])


LABORATORY = sorted((ROOT / "experiments").rglob("*.py"))


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
    """The packages that jax and optax load themselves do not count."""
    modules = ", ".join(f"supermask_jax.{path.stem}" for path in LIBRARY)
    script = f"""
import sys, jax, jax.experimental.sparse, optax
before = {{name.partition(".")[0] for name in sys.modules}}
import {modules.replace("supermask_jax.__init__", "supermask_jax")}
after = {{name.partition(".")[0] for name in sys.modules}}
print(*(after - before - sys.stdlib_module_names))
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert result.stdout.split() == ["supermask_jax"]
