"""`import supermask_jax as sm`: lazy modules and functions, and a stub that lists the same ones."""

import ast
import importlib
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import supermask_jax as sm

PACKAGE = Path(sm.__file__).parent
INTERNAL = {  # the private parts of the public modules
    "checks",
    "draws",
    "gradual",
    "masking",
    "optimizers",
    "paths",
    "random_bits",
    "regrowth",
    "selection",
    "shardings",
    "structured",
}
FUNCTIONS = {
    "advance": "rounds",
    "begin": "rounds",
    "freeze_pruned": "transforms",
    "make_training": "training",
    "map_members": "population",
    "prunable_leaves": "trees",
    "prune": "masks",
    "start_params": "rounds",
}
MODULES = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"} - INTERNAL


def run(script):
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=PACKAGE.parent
    )


def test_the_import_alone_loads_no_package():
    script = """
import sys
before = {name.partition(".")[0] for name in sys.modules} | sys.stdlib_module_names
import supermask_jax
print(*{name.partition(".")[0] for name in sys.modules} - before)
print("checks" in dir(supermask_jax), hasattr(supermask_jax, "nothing"), "jax" in sys.modules)
"""
    assert run(script).stdout.splitlines() == [
        "supermask_jax",
        "False False False",
    ]


def test_only_what_is_used_is_loaded():
    script = """
import sys
import supermask_jax as sm
sm.prune
print("supermask_jax.masks" in sys.modules, "supermask_jax.training" in sys.modules)
"""
    assert run(script).stdout.split() == ["True", "False"]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_every_public_module_is_an_attribute(name):
    assert getattr(sm, name) is importlib.import_module(f"supermask_jax.{name}")


@pytest.mark.parametrize(("name", "module"), FUNCTIONS.items())
def test_every_function_is_that_of_its_module(name, module):
    function = getattr(importlib.import_module(f"supermask_jax.{module}"), name)
    assert getattr(sm, name) is function
    assert pickle.loads(pickle.dumps(getattr(sm, name))) is function


def test_a_fresh_process_imports_each_name_from_the_package():
    names = [*FUNCTIONS, *MODULES]
    script = (
        f"from supermask_jax import {', '.join(names)}\nprint({'.__name__, '.join(names)}.__name__)"
    )
    found = run(script).stdout.split()
    assert found == [*FUNCTIONS, *(f"supermask_jax.{name}" for name in MODULES)]


def test_the_stub_lists_exactly_what_there_is():
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text())
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    listed = {alias.name: node.module for node in imports for alias in node.names}
    assert all(alias.name == alias.asname for node in imports for alias in node.names)
    assert listed == FUNCTIONS | dict.fromkeys(MODULES)
    others = [ast.unparse(node) for node in stub.body if node not in imports]
    assert others == ["__version__: str"]


def test_dir_lists_it_before_anything_is_used():
    script = "import supermask_jax as sm; print(*(n for n in dir(sm) if not n.startswith('_')))"
    assert set(run(script).stdout.split()) == MODULES | set(FUNCTIONS)


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("prun", "'prun'; did you mean 'prune'?"),
        ("supermask", "'supermask'; did you mean 'supermasks'?"),
        ("zzz", "'zzz'"),
    ],
)
def test_an_unknown_name_is_an_error_of_one_line_with_the_nearest_name(name, end):
    message = f"module 'supermask_jax' has no attribute {end}"
    with pytest.raises(AttributeError) as error:
        getattr(sm, name)
    assert str(error.value) == message
    assert run(f"import supermask_jax as sm; sm.{name}").stderr.splitlines()[-1] == (
        f"AttributeError: {message}"  # Python adds no second guess
    )


def test_type_checkers_are_told_that_the_package_has_types():
    assert (PACKAGE / "py.typed").read_text() == ""
