"""Every cell of ours in docs/comparison leads to an example or a test; others to fixed versions."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "comparison" / "index.md"
TEXT = PAGE.read_text()
TABLES = [
    [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]
    for table in re.findall(r"^(?:\|.*\n)+", TEXT, flags=re.M)
]
FEATURES = [table for table in TABLES if table[0][1] == "ours"]
CELLS = {row[0]: row[1] for table in FEATURES for row in table[2:]}
LINKS = sorted({link for cell in CELLS.values() for link in re.findall(r"\]\((.*?)\)", cell)})
REFERENCES = dict(re.findall(r"^\[([\w-]+)\]: (\S+)$", TEXT, flags=re.M))


def check(link):
    """Raise an error unless a link leads to a test, or to a page with an example."""
    path, _, place = link.partition("#")
    text = (PAGE.parent / path).read_text()
    if path.endswith(".py"):
        assert re.search(rf"^def {place}\(", text, flags=re.M)
    else:
        assert re.search(r"^(```(python|sh)|::: supermask_jax)", text, flags=re.M)
        titles = re.findall(r"^#+ (.*)$", text, flags=re.M)
        anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
        assert place in {"", *anchors}


@pytest.mark.parametrize("feature", CELLS)
def test_a_cell_of_ours_says_no_or_leads_somewhere(feature):
    assert re.fullmatch(r"no|\[[^]]+\]\([^)]+\)", CELLS[feature]), CELLS[feature]


@pytest.mark.parametrize("link", LINKS)
def test_a_cell_of_ours_leads_to_an_example_or_a_test(link):
    check(link)


@pytest.mark.parametrize(
    "link",
    [
        "../how_to/bake_a_cake.md",
        "../how_to/global_pruning.md#sugar",
        "../concepts/glossary.md",  # a page without an example
        "../../tests/test_cake.py#test_it_rises",
        "../../tests/test_masks.py#test_it_rises",
        "../../tests/test_masks.py",
    ],
)
def test_a_wrong_link_is_detected(link):
    with pytest.raises((AssertionError, OSError)):
        check(link)


def test_tables_of_features_have_the_same_columns_and_name_a_feature_once():
    assert len(FEATURES) == 8 and len(CELLS) == sum(len(table) - 2 for table in FEATURES)
    assert all(table[0] == FEATURES[0][0] for table in FEATURES)
    assert all(len(row) == len(table[0]) for table in TABLES for row in table)


def test_what_is_said_of_others_leads_to_fixed_versions():
    body = TEXT.partition("\n[jaxpruner]: ")[0]
    cell = r"no|\[[^]]+\]\[[\w-]+\](, \[[^]]+\]\[[\w-]+\])*"
    rows = [row[2:] for table in FEATURES for row in table[2:]]
    assert all(re.fullmatch(cell, said) for row in rows for said in row)
    used = {*re.findall(r"\]\[([\w-]+)\]", body)}
    others = {name for name in REFERENCES if re.fullmatch(r"[a-z]-\w+", name)}
    assert used == others
    fixed = r"https://github\.com/[\w-]+/[\w-]+/(blob|tree)/([0-9a-f]{40}|v[0-9.]+)/\S+"
    assert all(re.fullmatch(fixed, REFERENCES[name]) for name in used)
