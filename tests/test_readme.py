import re
from pathlib import Path

from experiments import results
from tools import report

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_example_runs_and_prints_what_it_says(capsys):
    [code] = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    exec(compile(code, "README.md", "exec"), {})
    [printed] = re.findall(r"print\(.*\)\s+# ([0-9.]+)", code)
    assert capsys.readouterr().out.strip() == printed


def test_every_named_config_exists():
    names = re.findall(r"experiments/configs/(\w+)\.py", README)
    assert names
    for name in names:
        assert (Path(__file__).parent.parent / "experiments" / "configs" / f"{name}.py").exists()


def test_the_results_table_is_the_one_of_the_committed_rows():
    [path] = re.findall(r"`python -m tools.report (results/\S+)`", README)
    table = report.markdown(results.read_rows(Path(__file__).parent.parent / path))
    assert len(table.splitlines()) > 2
    assert table in README
