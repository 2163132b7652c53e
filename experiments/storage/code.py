"""The identity of the code that makes rows: a digest of its sources, and its commit.

Code is judged by what it says, not by its commit: a commit of documents, tools or figures changes
nothing, nor do comments, docstrings and layout.
"""

import ast
import functools
import hashlib
import importlib.util
import json
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import supermask_jax

# Packages that compute a row's numbers: another version may round in another way.
NUMERICAL = ("jax", "jaxlib", "flax", "optax", "numpy")
# Parts of `experiments` that make no row: what a configuration says is in the settings of the run.
SAYS_ONLY = ("configs", "plots", "tables")
INSTALLED = {"site-packages", "dist-packages"}
LOCAL = "+s"  # precedes the digest of the sources in a version


class Code(NamedTuple):
    """The code that makes rows.

    Attributes:
      version: the version of the package, ``+s`` and ten hexadecimal digits of the SHA-256 of the
        sources of `supermask_jax` and `experiments` and of the versions of `NUMERICAL`; if a run
        brings code or data of its own, also ``.c`` and eight digits of the SHA-256 of these.
      commit: the commit of the checkout; None outside git.
      uncommitted: sources with changes that are not committed.
    """

    version: str
    commit: str | None
    uncommitted: tuple[str, ...]


def identify(
    config: Path | None = None, modules: Sequence[str] = (), data: str | None = None
) -> Code:
    """Identify the code of this process, and what a run brings of its own.

    Files and modules, with the modules that they import, are part of the identity: local ones by
    their sources, installed packages by name and version.

    Args:
      config: the file of ``--config`` if it brings code of its own.
      modules: the modules of functions that settings name; those of `NUMERICAL` bring nothing.
      data: the checksum of a data set that its name alone does not tell.
    """
    version = f"{supermask_jax.__version__}{LOCAL}{_package_digest()[:10]}"
    commit, uncommitted = _committed(_root())
    others = [name for name in dict.fromkeys(modules) if name.partition(".")[0] not in NUMERICAL]
    if config or others or data:
        brought = _brought(config, others) | ({"data set": data} if data else {})
        version += f".c{_digest(brought)[:8]}" if brought else ""
    for file in filter(None, (config, *map(_local_file, others))):
        uncommitted += tuple(_changes(file.parent, [file]))
    return Code(version, commit, uncommitted)


def is_by_sources(version: str) -> bool:
    """Return whether a version tells the sources; rows made before 0.2 tell only the commit."""
    return LOCAL in version


def of_package(version: str) -> str:
    """Return a version without the code that a configuration brought.

    >>> of_package("0.1.0+s0123456789.c01234567")
    '0.1.0+s0123456789'
    """
    return version.partition(".c")[0] if is_by_sources(version) else version


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _root() -> Path:
    return Path(__file__).resolve().parents[2]


def _committed(root: Path) -> tuple[str | None, tuple[str, ...]]:
    """Return the commit of a checkout and its sources that have uncommitted changes."""
    try:
        if Path(_git(root, "rev-parse", "--show-toplevel").strip()).resolve() != root:
            return None, ()  # an installed package inside another project's checkout
        commit = _git(root, "rev-parse", "--short=10", "HEAD").strip()
    except (OSError, subprocess.CalledProcessError):
        return None, ()
    return commit, tuple(_changes(root, _files(root)))


def _changes(folder: Path, files: Sequence[Path]) -> list[str]:
    """Return which files below a folder have uncommitted changes; none outside git."""
    words = "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--ignored=no"
    try:
        top = Path(_git(folder, "rev-parse", "--show-toplevel").strip())
        lines = _git(folder, *words, "--", ".").split("\0")
    except (OSError, subprocess.CalledProcessError):
        return []
    changed = {(top / line[3:]).resolve() for line in lines if line}
    known = {path.resolve() for path in files}
    return sorted(path.relative_to(folder).as_posix() for path in changed & known)


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@functools.cache  # a process runs the sources that it imported when it started
def _package_digest() -> str:
    sources = {path.relative_to(_root()).as_posix(): _said(path) for path in _files(_root())}
    return _digest(sources | versions_of(NUMERICAL))


def _files(root: Path) -> list[Path]:
    """Return the sources of a row."""
    left_out = {root / "experiments" / name for name in SAYS_ONLY}
    return [path for path in _all_files(root) if left_out.isdisjoint(path.parents)]


def _all_files(root: Path) -> list[Path]:
    packages = root / "supermask_jax", root / "experiments"
    return sorted(path for package in packages for path in package.rglob("*.py"))


def _digest(parts: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _said(path: Path) -> str:
    """Return what a source says to Python, without comments, docstrings and layout."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [statement for statement in node.body if not _is_text(statement)]
    return json.dumps(_plain(tree))


def _is_text(node: ast.stmt) -> bool:
    """Return whether a statement is a text that stands alone, as docstrings do."""
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _plain(node: Any) -> Any:
    """Return a syntax tree as lists, without empty fields: versions of Python differ in these."""
    if isinstance(node, ast.AST):
        fields = [[name, _plain(value)] for name, value in ast.iter_fields(node)]
        return [type(node).__name__, *(field for field in fields if field[1] not in ("None", []))]
    return [_plain(entry) for entry in node] if isinstance(node, list) else repr(node)


def _brought(config: Path | None, modules: Iterable[str]) -> dict[str, str]:
    """Return what a configuration, modules and the modules that they import say, by name.

    Other configurations count; all else in the standard library and in this package is left out.
    Installed packages stand with their versions.
    """
    configs = _root() / "experiments" / "configs"
    seen = {path for path in _all_files(_root()) if configs not in path.parents}
    found, todo = {}, [package for module in modules for package in _with_packages(module)]
    if config:
        found[config.name] = _said(config)
        seen.add(config.resolve())
        todo += _imported(config.resolve(), "")
    distributions = metadata.packages_distributions()
    while todo:
        name = todo.pop()
        path = _file_of(name)
        if path is None or path in seen:
            continue
        seen.add(path)
        if INSTALLED.isdisjoint(path.parts):
            found[name] = _said(path)
            todo += _imported(path, sys.modules[name].__package__ or "")
        else:
            found |= versions_of(distributions.get(name.partition(".")[0], []))
    return found


def _local_file(module: str) -> Path | None:
    """Return the source of an imported module that is not installed; None if it has none."""
    path = _file_of(module)
    return path if path and INSTALLED.isdisjoint(path.parts) else None


def _with_packages(module: str) -> list[str]:
    """Return a module and the packages that contain it, which Python runs first."""
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _imported(path: Path, package: str) -> Iterator[str]:
    """Yield the names of the modules that a source of a package imports, and of possible ones."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            relative = "." * node.level + (node.module or "")
            base = importlib.util.resolve_name(relative, package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _file_of(name: str) -> Path | None:
    """Return the source of an imported module; None if it has none or is Python's own."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if not (file and file.endswith(".py")):
        return None
    path = Path(file).resolve()
    own = path.is_relative_to(Path(sysconfig.get_path("stdlib")).resolve())
    return None if own and INSTALLED.isdisjoint(path.parts) else path
