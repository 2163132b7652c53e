"""The examples of the documentation run and print what it says; its commands are valid."""

import importlib.util
import re
import shlex
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from experiments.plots import FIGURES

ROOT = Path(__file__).parent.parent
LAB = ROOT / "tests" / "example_lab"
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")))
}
EXAMPLES = [name for name, text in TEXTS.items() if "```python" in text]
MAY_BE_MISSING = r"^(?:import|from) (flax|equinox|pandas|polars)\b"
MAKEFILE = (ROOT / "Makefile").read_text()
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


class Fence(NamedTuple):
    language: str
    code: str
    output: str  # of a fence of text that follows at once


def fences(text):
    found = re.finditer(
        r"^```(\w+)\n(.*?)^```$(?:\s*^```text\n(.*?)^```$)?", text, flags=re.M | re.S
    )
    return [Fence(match[1], match[2], match[3] or "") for match in found]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_a_page_run_in_order_and_print_what_it_says(name, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    namespace = {}
    for place, fence in enumerate(fences(TEXTS[name])):
        if fence.language != "python":
            continue
        for package in re.findall(MAY_BE_MISSING, fence.code, flags=re.M):
            pytest.importorskip(package)
        exec(compile(fence.code, f"{name}, block {place}", "exec"), namespace)
        said = re.findall(r"^ *print\(.*\)  # (.*)$", fence.code, flags=re.M)
        assert_same(capsys.readouterr().out, "\n".join([*said, fence.output]))


def assert_same(printed, said):
    """Equal but for blanks; shares in percent, which are results of trainings, within 3 points."""
    percent = r"([0-9.]+)%"
    words = [re.sub(percent, "%", text).split() for text in (printed, said)]
    assert words[0] == words[1]
    shares = ([float(share) for share in re.findall(percent, text)] for text in (printed, said))
    assert next(shares) == pytest.approx(next(shares), abs=3)


def commands(text):
    """The words of every command that a page gives in a fence or between backquotes."""
    shell = [fence.code.replace("\\\n", " ") for fence in fences(text) if fence.language == "sh"]
    lines = [line for code in shell for line in code.splitlines()]
    inline = [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]
    for line in [*lines, *inline]:
        for command in re.findall(r"(?:python -m|pip install|make) [^|&]*", line):
            quotes_more = command.count('"') % 2
            yield shlex.split(command[: command.rindex('"')] if quotes_more else command, True)


COMMANDS = {
    shlex.join(words): words for text in TEXTS.values() for words in commands(text) if words[1:]
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_names_what_exists(command, monkeypatch):
    monkeypatch.syspath_prepend(str(LAB))
    program, *words = COMMANDS[command]
    if program == "make":
        assert re.search(rf"^{words[0]}:", MAKEFILE, flags=re.M)
    elif program == "pip":
        asked = re.findall(r"\[(.*?)\]", command)
        assert {extra for extras in asked for extra in extras.split(",")} <= EXTRAS.keys()
    else:
        check_module(*words[1:])


def check_module(module, *words):
    spec = importlib.util.find_spec(module)
    assert spec and spec.origin
    sources = program_sources(Path(spec.origin))
    assert 'if __name__ == "__main__"' in sources or spec.submodule_search_locations
    flags = dict(word.removeprefix("--").partition("=")[::2] for word in words if word[:2] == "--")
    settings = {name.removeprefix("config.") for name in flags if name.startswith("config.")}
    for name in flags.keys() - {f"config.{setting}" for setting in settings}:
        assert re.search(rf"""["'](--)?{name}["']""", sources), f"--{name}"
    if ".py" in flags.get("config", ""):
        assert settings <= {*load_config(flags["config"])}
    named = [word for word in words if re.match(r"(results|experiments)/[a-z]", word)]
    assert all((ROOT / name).exists() or (ROOT / f"{name}.csv").exists() for name in named)
    if module == "tools.figure" and words[0].islower():
        assert words[0] in {*FIGURES, "mask_analysis"}


def program_sources(path):
    """The source of a module, or of a package, with what it imports of this repository."""
    files = sorted(path.parent.glob("*.py")) if path.name == "__init__.py" else [path]
    own = "\n".join(file.read_text() for file in files)
    pairs = re.findall(r"^from ((?:experiments|tools)[\w.]*) import (.*)$", own, flags=re.M)
    names = {f"{module}.{name}" for module, found in pairs for name in re.findall(r"\w+", found)}
    names |= {module for module, _ in pairs}
    near = (ROOT / f"{name.replace('.', '/')}.py" for name in sorted(names))
    return "\n".join([own, *(file.read_text() for file in near if file.exists())])


def load_config(named):
    file, _, argument = named.partition(":")
    path = LAB / file if (LAB / file).is_file() else ROOT / file
    spec = importlib.util.spec_from_file_location("config_of_a_page", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument or None)


def test_many_commands_are_checked():
    assert {words[0] for words in COMMANDS.values()} == {"make", "pip", "python"}
    assert len(COMMANDS) > 25


@pytest.mark.parametrize(
    "command",
    [
        "make pudding",
        "pip install '.[chocolate]'",
        "python -m experiments.bake",
        "python -m experiments.run --workdir=runs/a --config=experiments/configs/cake.py",
        "python -m experiments.run --config=experiments/configs/quickstart.py --config.sugar=2",
        "python -m experiments.run --oven=hot",
        "python -m tools.launch --gpus=1 --ovens=2",
        "python -m tools.collect results/cake --output=results/NAME",
        "python -m tools.figure cake results/NAME.csv --picture=FILE.png",
    ],
)
def test_a_wrong_command_is_detected(command, monkeypatch):
    monkeypatch.setitem(COMMANDS, command, shlex.split(command))
    with pytest.raises((AssertionError, ImportError, OSError)):
        test_a_command_names_what_exists(command, monkeypatch)


def test_every_page_is_in_the_navigation():
    navigation = re.findall(
        r"^ +- (?:.*: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.M
    )
    pages = {name.removeprefix("docs/") for name in TEXTS if name.startswith("docs/")}
    assert pages <= {*navigation} and len(navigation) == len({*navigation})


def test_every_module_and_every_registered_name_is_in_the_pages():
    from supermask_jax import __dir__ as listed
    from supermask_jax.actions import MASK_ONE, MASK_ZERO
    from supermask_jax.criteria import CRITERIA

    api = "".join(text for name, text in TEXTS.items() if name.startswith("docs/api/"))
    modules = {path.stem for path in (ROOT / "supermask_jax").glob("*.py")} & {*listed()}
    missing = (
        modules
        - {"checks", "draws", "optimizers", "paths"}
        - {"gradual", "masking", "random_bits", "regrowth", "selection", "shardings", "structured"}
        - {*re.findall(r"^::: supermask_jax\.(\w+)", api, flags=re.M)}
    )
    assert modules and not missing
    formulas = TEXTS["docs/concepts/decomposition.md"]
    assert all(f"| `{name}` | " in formulas for name in (*CRITERIA, *MASK_ONE, *MASK_ZERO))
