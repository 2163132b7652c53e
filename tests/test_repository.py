"""The files that other services read agree with those of the project."""

import re
import tomllib
from pathlib import Path

import yaml

import supermask_jax

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
JOB = WORKFLOW["jobs"]["test"]
PRE_COMMIT = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
HOOKS = {hook["id"]: hook for repo in PRE_COMMIT["repos"] for hook in repo["hooks"]}


def test_the_workflow_runs_what_continuous_integration_runs():
    assert [step["run"] for step in JOB["steps"] if "run" in step] == [".ci/run"]
    assert (ROOT / ".ci/run").stat().st_mode & 0o100


def test_the_workflow_takes_the_oldest_and_the_newest_python():
    oldest = PROJECT["requires-python"].removeprefix(">=")
    newest = re.search(r"for minor in (\d+)", (ROOT / "Makefile").read_text())
    assert newest and JOB["strategy"]["matrix"]["python-version"] == [oldest, f"3.{newest[1]}"]


def test_the_workflow_may_only_read_and_its_actions_have_a_major_version():
    assert WORKFLOW["permissions"] == {"contents": "read"} and "permissions" not in JOB
    actions = [step["uses"] for step in JOB["steps"] if "uses" in step]
    assert len(actions) == 2 and all(re.fullmatch(r"actions/[\w-]+@v\d+", a) for a in actions)
    assert JOB["steps"][1]["with"]["cache"] == "pip"


def test_the_hooks_run_what_make_lint_runs():
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile, flags=re.M)
    linted = re.findall(r"\$\(BIN\)/(\w+ ?\w*)", recipe[1]) if recipe else []
    hooked = [re.match(r"\w+ ?\w*", hook["entry"]) for hook in HOOKS.values()]
    assert linted and linted == [entry[0].rstrip() for entry in hooked if entry]


def test_the_hooks_have_the_versions_of_the_constraints():
    pinned = [set(path.read_text().split()) for path in (ROOT / "constraints").glob("*.txt")]
    hooked = [package for hook in HOOKS.values() for package in hook["additional_dependencies"]]
    assert len(hooked) == len(HOOKS) and len(pinned) > 1
    assert set(hooked) <= set.intersection(*pinned)


def test_the_citation_is_of_this_version_and_names_the_paper():
    assert CITATION["cff-version"] == "1.2.0" and CITATION["message"]
    assert CITATION["version"] == supermask_jax.__version__
    assert CITATION["license"] == PROJECT["license"]
    (paper,) = CITATION["references"]
    assert [author["family-names"] for author in paper["authors"]] == [
        "Zhou",
        "Lan",
        "Liu",
        "Yosinski",
    ]
    assert paper["year"] == 2019 and paper["url"] in (supermask_jax.__doc__ or "")
