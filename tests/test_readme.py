import re
from pathlib import Path

import pytest

from experiments.runners import read_table
from tools import report

ROOT = Path(__file__).parent.parent
PAGES = {path.name: path.read_text() for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"))}
BLOCKS = [
    pytest.param(code, id=f"{name}-{place}")
    for name, text in PAGES.items()
    for place, code in enumerate(re.findall(r"```python\n(.*?)```", text, flags=re.S))
]
TABLES = [
    pytest.param(name, path, id=path)
    for name, text in PAGES.items()
    for path in re.findall(r"`python -m tools.report (results/\S+)`", text)
]


@pytest.mark.parametrize("code", BLOCKS)
def test_an_example_runs_and_prints_what_it_says(code, capsys):
    for package in re.findall(r"^import (flax|equinox)", code, flags=re.M):
        pytest.importorskip(package)
    exec(compile(code, "example", "exec"), {})
    said = re.findall(r"print\(.*\)\s+# ([0-9.]+)", code)
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == said


@pytest.mark.parametrize("name", PAGES)
def test_every_named_config_exists(name):
    names = re.findall(r"experiments/configs/(\w+)\.py", PAGES[name])
    assert names or name != "README.md"
    for config in names:
        assert (ROOT / "experiments" / "configs" / f"{config}.py").exists()


@pytest.mark.parametrize(("name", "path"), TABLES)
def test_a_results_table_is_the_one_of_the_committed_rows(name, path):
    table = report.markdown(read_table(ROOT / path))
    assert len(table.splitlines()) > 2
    assert table in PAGES[name]


def test_the_readme_shows_results():
    assert any(param.values[0] == "README.md" for param in TABLES)
