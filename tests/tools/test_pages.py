import re
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure

from tools.report.pages import (
    Break,
    Bullets,
    Code,
    Details,
    Heading,
    Link,
    Mark,
    Paragraph,
    Picture,
    Table,
    anchor,
    html,
    markdown,
    svg,
)

EMPTY = {"meta", "br", "path", "use", "rect"}
PAGE = [
    Heading(1, "All & more"),
    Paragraph(["p < 0.05, ", Code("a | b"), ", ", Link("rows", "a.csv"), ", ", Mark("no", "no")]),
    Bullets(["one", ["two: ", Link("here", "#all--more")]]),
    Table(["name", "value"], [["a|b", "<b>"], [[Code("x"), Break(), "y"], ""]]),
    Picture(lambda: drawing(), "figure-a", "A line."),
    Details("More", "more", [Paragraph("inside")]),
]  # fmt: skip


def drawing():
    figure = Figure()
    figure.subplots().plot([1, 2], [3, 4], marker="o")
    return figure


class Reader(HTMLParser):
    """Checks that tags close in order, and collects tags, ids, targets and text."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.ids, self.targets, self.words = [], [], [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.open += [tag] if tag not in EMPTY else []
        values = dict(attributes)
        self.ids += [values["id"]] if "id" in values else []
        self.targets += [values[name] for name in ("href", "src", "xlink:href") if name in values]

    def handle_endtag(self, tag):
        if tag not in EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_a_page_is_whole_and_needs_nothing_else():
    page = Reader(html(PAGE, "Title", "../results/"))
    assert "script" not in page.tags and "img" not in page.tags and "link" not in page.tags
    assert page.tags.count("svg") == 1
    assert len(page.ids) == len(set(page.ids))
    inside = {target for target in page.targets if target.startswith("#")}
    assert "#all--more" in inside
    assert {target[1:] for target in inside} <= set(page.ids)
    assert [target for target in page.targets if target[0] != "#"] == ["../results/a.csv"]
    assert "p < 0.05, " in page.words and "<b>" in page.words and "inside" in page.words


def test_cells_of_a_tall_table_carry_their_column():
    lines = [["first", "1"], ["second", ""]]
    wide, tall = (html([Table(["a", "b & c"], lines, kind)], "", "") for kind in (False, True))
    assert wide.count("data-label=") == 0
    assert tall.count('data-label="a"') == tall.count('data-label="b &amp; c"') == 2
    assert '<table class="tall">' in tall and '<table class="tall">' not in wide


def test_two_figures_of_a_page_share_no_id():
    twice = [Picture(drawing, name, name) for name in ("a", "b")]
    ids = Reader(html(twice, "", "")).ids
    assert len(ids) == len(set(ids)) > 10


def test_a_drawing_is_the_same_text_each_time():
    assert svg(drawing(), "a", "A") == svg(drawing(), "a", "A")
    assert 'aria-label="A &quot;b&quot;"' in svg(drawing(), "a", 'A "b"')
    assert not re.search(r"<metadata|<\?xml|DOCTYPE|Matplotlib", svg(drawing(), "a", "A"))


def test_the_same_as_markdown():
    assert (
        markdown(PAGE, "results/")
        == """\
# All & more

p &lt; 0.05, `a | b`, [rows](results/a.csv), **no**

* one
* two: [here](#all--more)

| name | value |
| --- | --- |
| a\\|b | &lt;b> |
| `x`<br>y |  |

![A line.](results/figures/figure-a.png)

A line.

<details id="more"><summary>More</summary>

inside

</details>
"""
    )


@pytest.mark.parametrize(
    ("text", "name"),
    [("How claims are judged", "how-claims-are-judged"), ("mask_one (a)", "mask_one-a")],
)
def test_an_anchor_is_that_of_github(text, name):
    assert anchor(text) == name
