"""docs/results.md says what a reader may conclude from the committed tables."""

import re
from pathlib import Path

import pytest

from tools.report import document, hours, pages, writing
from tools.report.claims import CLAIMS, CONNECTIVITY, STABILITY
from tools.report.tables import pool, read_tables
from tools.report.verdicts import NOT_RUN, REPRODUCED, judge, judge_again

ROOT = Path(__file__).parent.parent
PATH = ROOT / "docs" / "results.md"
PAGE = PATH.read_text()
BY_HAND, _, BLOCK = PAGE.partition(writing.END)[0].partition(writing.BEGIN)
LINK = re.compile(r"\]\(\.\./results/README\.md#([^)]+)\)")


@pytest.fixture(scope="module")
def tables():
    return read_tables(ROOT / "results")


def test_the_lists_are_those_of_the_committed_tables(tables):
    blocks = document.conclusions(tables, hours.measured(ROOT / "results"))
    made = pages.markdown(blocks, "../results/")
    assert writing.between_marks(PAGE, made, PATH) == PAGE


def test_links_lead_to_places_in_the_report():
    report = (ROOT / "results" / "README.md").read_text()
    places = {pages.anchor(line.lstrip("# ")) for line in report.splitlines() if line[:1] == "#"}
    places |= set(re.findall(r'<details id="([^"]+)"', report))
    assert len(LINK.findall(BLOCK)) > 20 and set(LINK.findall(PAGE)) <= places


def test_what_is_written_by_hand_follows_from_the_verdicts(tables):
    rows = pool([table for table in tables if table.is_judged])
    verdicts = judge(CLAIMS, rows)
    found = [*verdicts, *judge_again(CLAIMS, rows), *judge(STABILITY, rows, [CONNECTIVITY])]
    holds = {
        f"rows-{verdict.claim.id}{'-fresh' if verdict.fresh else ''}"
        for verdict in found
        if verdict.status == REPRODUCED
    }
    named = LINK.findall(BY_HAND)
    assert len(named) > 5 and set(named) <= holds
    post_hoc = re.split(r"^\*\*|^## ", BLOCK.partition("**Post hoc**")[2], flags=re.M)[0]
    words = " ".join(BY_HAND.split())
    assert "Most of these verdicts are post hoc" in words
    assert len(set(named) & set(LINK.findall(post_hoc))) > len(named) / 2
    assert "none of the claims on its networks has been run" in words
    assert {v.status for v in verdicts if v.claim.network != hours.NETWORK} == {NOT_RUN}
    assert not re.findall(r"\d+(?:\.\d+)? ?(?:%|points|hours|claims|seeds)", BY_HAND)
