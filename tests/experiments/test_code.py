"""The identity of code: what changes it, and what does not."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import supermask_jax
from experiments import additions
from experiments.configs import base
from experiments.storage import code
from supermask_jax.criteria import CRITERIA

VERSION = re.escape(supermask_jax.__version__) + r"\+s[0-9a-f]{10}"
SOURCE = '"""Texts."""\n\n\ndef score(w):\n    """More texts."""\n    return 2 * w\n'


def git(folder, *words):
    user = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *user, *words], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A committed checkout with a few files."""
    root = tmp_path.resolve() / "checkout"
    monkeypatch.setattr(code, "_root", lambda: root)
    monkeypatch.setattr(code, "_package_digest", code._package_digest.__wrapped__)
    for name in (
        "supermask_jax/masks.py", "experiments/run.py", "experiments/engine/trainer.py",
        "experiments/configs/base.py", "experiments/plots/rounds.py",
        "experiments/tables/curves.py", "tools/collect.py", "tests/test_masks.py",
    ):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(SOURCE)
    (root / "README.md").write_text("texts")
    git(root, "init")
    git(root, "add", ".")
    git(root, "commit", "-m", "all")
    return root


def test_a_version_tells_the_sources_and_the_commit(checkout):
    found = code.identify()
    assert re.fullmatch(VERSION, found.version) and code.is_by_sources(found.version)
    assert re.fullmatch("[0-9a-f]{10}", found.commit) and found.uncommitted == ()


OF_A_ROW = ["supermask_jax/masks.py", "experiments/run.py", "experiments/engine/trainer.py"]


@pytest.mark.parametrize("file", OF_A_ROW)
@pytest.mark.parametrize(
    "change", [lambda s: s.replace("2 * w", "w * 2"), lambda s: s + "x = 1\n", lambda s: "", None]
)
def test_a_changed_source_is_other_code(checkout, file, change):
    before = code.identify()
    if change:
        (checkout / file).write_text(change(SOURCE))
    else:
        (checkout / file).rename(checkout / file.replace(".py", "_moved.py"))
    changed = code.identify()
    assert changed.version != before.version and changed.commit == before.commit
    assert changed.uncommitted == ((file,) if change else (file.replace(".py", "_moved.py"),))
    git(checkout, "add", ".")
    git(checkout, "commit", "-m", "more")
    committed = code.identify()
    assert committed.version == changed.version and not committed.uncommitted
    assert committed.commit != before.commit


@pytest.mark.parametrize(
    "text", [
        SOURCE.replace("Texts", "Other texts"), "# A comment.\n" + SOURCE,
        SOURCE.replace("2 * w", "(2\n            * w)"), SOURCE.replace("More", "Longer"),
    ],
)  # fmt: skip
def test_texts_and_layout_are_not_code(checkout, text):
    before = code.identify()
    (checkout / "supermask_jax" / "masks.py").write_text(text)
    assert code.identify().version == before.version


@pytest.mark.parametrize(
    "file", ["README.md", "tools/collect.py", "tests/test_masks.py", "experiments/plots/rounds.py",
             "experiments/tables/curves.py", "experiments/configs/base.py", "tools/new.py"],
)  # fmt: skip
def test_what_makes_no_row_changes_nothing(checkout, file):
    before = code.identify()
    (checkout / file).write_text("x = 1\n")
    assert code.identify() == before
    git(checkout, "add", ".")
    git(checkout, "commit", "-m", "more")
    assert code.identify().version == before.version and code.identify().commit != before.commit


def test_another_version_of_a_package_that_computes_is_other_code(checkout, monkeypatch):
    before = code.identify()
    monkeypatch.setattr(code.metadata, "version", lambda name: "1.2.3")
    assert code.identify().version != before.version


@pytest.mark.parametrize("where", ["no program", "no checkout", "inside another checkout"])
def test_outside_git_there_is_no_commit(checkout, monkeypatch, where):
    before = code.identify()
    if where == "no program":
        monkeypatch.setenv("PATH", "")
    else:
        (checkout / ".git").rename(checkout.parent / "was_git")
    if where == "inside another checkout":
        git(checkout.parent, "init")
        git(checkout.parent, "add", "checkout/README.md")
        git(checkout.parent, "commit", "-m", "other")
    assert code.identify() == code.Code(before.version, None, ())


OWN = "import json\nimport numpy\nfrom own_package import helper\n\n\ndef get_config():\n    pass\n"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A configuration that imports a local package, which imports one of its modules."""
    package = tmp_path / "own_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "helper.py").write_text("from . import deeper\n")
    (package / "deeper.py").write_text(SOURCE)
    (package / "unused.py").write_text(SOURCE)
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("own_package.helper")
    yield tmp_path / "own.py"
    for name in [name for name in sys.modules if name.startswith("own_package")]:
        del sys.modules[name]


def test_a_configuration_that_brings_code_is_part_of_the_identity(own):
    plain, found = code.identify(), code.identify(own)
    assert re.fullmatch(VERSION + r"\.c[0-9a-f]{8}", found.version)
    assert code.of_package(found.version) == code.of_package(plain.version) == plain.version
    assert set(code._brought(own, ())) == {
        "own.py", "numpy", "own_package", "own_package.helper", "own_package.deeper"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("file", "counts"),
    [("own.py", True), ("own_package/helper.py", True), ("own_package/deeper.py", True),
     ("own_package/unused.py", False)],
)  # fmt: skip
def test_what_a_configuration_imports_counts(own, file, counts):
    before = code.identify(own)
    path = own.parent / file
    path.write_text(path.read_text() + "x = 1\n")
    assert (code.identify(own).version != before.version) == counts


def test_a_module_whose_function_a_setting_names_counts_with_what_it_imports(own):
    names, plain = ["own_package.helper"], code.identify()
    found = code.identify(modules=names)
    assert re.fullmatch(VERSION + r"\.c[0-9a-f]{8}", found.version)
    assert code.of_package(found.version) == plain.version
    assert set(code._brought(None, names)) == {
        "own_package.helper", "own_package", "own_package.deeper"
    }  # fmt: skip
    (own.parent / "own_package" / "deeper.py").write_text(SOURCE + "x = 1\n")
    changed = code.identify(modules=names).version
    assert changed != found.version
    assert code.identify(own, names).version == code.identify(own).version  # it imports the module
    (own.parent / "own_package" / "unused.py").write_text("x = 1\n")
    assert code.identify(modules=names).version == changed


def test_functions_of_packages_that_always_count_bring_no_code():
    assert code.identify(modules=["optax.contrib", "optax"]) == code.identify()


def test_an_uncommitted_module_is_named(own):
    git(own.parent, "init")
    assert "helper.py" in code.identify(modules=["own_package.helper"]).uncommitted
    git(own.parent, "add", "own_package")
    git(own.parent, "commit", "-m", "own")
    assert "helper.py" not in code.identify(modules=["own_package.helper"]).uncommitted


def test_an_uncommitted_configuration_is_named(own):
    assert "own.py" not in code.identify(own).uncommitted  # nothing tells, outside git
    git(own.parent, "init")
    assert "own.py" in code.identify(own).uncommitted
    git(own.parent, "add", "own.py")
    git(own.parent, "commit", "-m", "own")
    assert "own.py" not in code.identify(own).uncommitted


def test_which_configurations_bring_code(tmp_path, monkeypatch):
    ours = Path(base.__file__)
    for path in ours.parent.glob("[!_]*.py"):
        importlib.import_module(f"experiments.configs.{path.stem}")
        assert not additions.brings_code(path)
    assert additions.brings_code(tmp_path / "own.py")
    monkeypatch.setitem(CRITERIA, "mine", CRITERIA["movement"])
    assert additions.brings_code(ours)
    monkeypatch.delitem(CRITERIA, "mine")
    monkeypatch.setitem(CRITERIA, "random", CRITERIA["movement"])
    assert additions.brings_code(ours)
