import re
from pathlib import Path

import pytest

from tools.report import document, pages, writing
from tools.report.tables import read_tables

ROOT = Path(__file__).parent.parent
PAGES = {path.name: path.read_text() for path in (ROOT / "README.md",)}
BLOCKS = [
    pytest.param(code, id=f"{name}-{place}")
    for name, text in PAGES.items()
    for place, code in enumerate(re.findall(r"```python\n(.*?)```", text, flags=re.S))
]


@pytest.mark.parametrize("code", BLOCKS)
def test_an_example_runs_and_prints_what_it_says(code, capsys):
    for package in re.findall(r"^import (flax|equinox)", code, flags=re.M):
        pytest.importorskip(package)
    exec(compile(code, "example", "exec"), {})
    said = re.findall(r"print\(.*\)\s+# ([0-9.]+(?: [0-9.]+)*)", code)
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == said


@pytest.mark.parametrize("name", PAGES)
def test_every_named_config_exists(name):
    names = re.findall(r"experiments/configs/(\w+)\.py", PAGES[name])
    assert names or name != "README.md"
    for config in names:
        assert (ROOT / "experiments" / "configs" / f"{config}.py").exists()


def test_the_results_are_those_of_the_committed_tables():
    tables = read_tables(ROOT / "results")
    short = pages.markdown(document.readme(tables), "results/")
    assert 5 < len(short.splitlines()) < 16
    readme = ROOT / "README.md"
    assert writing.between_marks(PAGES["README.md"], short, readme) == PAGES["README.md"]
    assert pages.markdown(document.report(tables)) == (ROOT / "results/README.md").read_text()
