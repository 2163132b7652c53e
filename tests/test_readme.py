"""README.md is short and complete, and has the results of the committed tables.

Its examples and commands are tested with those of the documentation.
"""

import re
from pathlib import Path

from supermask_jax.actions import MASK_ONE, MASK_ZERO
from supermask_jax.criteria import CRITERIA
from tools.report import document, pages, writing
from tools.report.tables import read_tables

ROOT = Path(__file__).parent.parent
PATH = ROOT / "README.md"
README = PATH.read_text()


def test_it_is_short():
    assert len(README.splitlines()) < 180


def test_every_registered_name_has_a_line_with_its_formula():
    listed = re.findall(r"^  (\w+) {2,}\S.*$", README, flags=re.M)
    assert listed == [*CRITERIA, *MASK_ONE, *MASK_ZERO]


def test_every_config_is_named_and_every_named_one_exists():
    configs = {path.stem for path in ROOT.glob("experiments/configs/*.py")} - {"__init__", "base"}
    laboratory = re.search(r"^## The laboratory\n(.*?)^## ", README, flags=re.M | re.S)
    assert laboratory and configs <= set(re.findall(r"`(\w+)`", laboratory[1]))
    named = re.findall(r"experiments/configs/(\w+)\.py", README)
    assert named and configs.issuperset(named)


def test_its_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert len(links) > 10 and all((ROOT / link).exists() for link in links)


def test_the_results_are_those_of_the_committed_tables():
    tables = read_tables(ROOT / "results")
    short = pages.markdown(document.readme(tables), "results/")
    assert len(short.splitlines()) == 7
    assert writing.between_marks(README, short, PATH) == README
    assert pages.markdown(document.report(tables)) == (ROOT / "results/README.md").read_text()


def test_marks_of_trust_are_explained_beside_the_results():
    before, _, block = README.partition(writing.BEGIN)
    marks = set(re.findall(r"\[([PNRM])\]", block))
    assert "M" in marks
    assert marks <= set(re.findall(r"\[([PNRM])\]", before.rpartition("## ")[2]))
