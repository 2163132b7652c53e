"""Pages of text, tables and figures, as one self-contained HTML file and as Markdown.

    page = [Heading(1, "Results"), Paragraph("All of it."), Table(["a", "b"], [["1", "2"]])]
    html(page, "Results", files="../results/")
    markdown(page)

Text is a string, a `Link`, a `Mark`, `Code`, a `Break`, or a list of these.
"""

import html as escaping
import io
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure

from experiments.plots.styles import matplotlib_defaults


class Link(NamedTuple):
    """A link: to ``#anchor``, to ``https://...``, or to a file beside the tables."""

    text: str
    target: str


class Mark(NamedTuple):
    """A highlighted word; `kind` names its colour in STYLE."""

    text: str
    kind: str


class Code(NamedTuple):
    """A command or a name, as typed."""

    text: str


class Break(NamedTuple):
    """A new line in the cell of a table."""


Inline = str | Link | Mark | Code | Break
Text = Inline | list[Inline]
FIGURES = "figures"  # the folder of the pictures


class Heading(NamedTuple):
    """A heading of level 1, 2 or 3; its anchor is its text in lower case with hyphens."""

    level: int
    text: str


class Paragraph(NamedTuple):
    """A paragraph."""

    text: Text


class Bullets(NamedTuple):
    """A list."""

    items: Sequence[Text]


class Table(NamedTuple):
    """A table.

    Attributes:
      head: its column names.
      lines: its cells.
      is_tall: whether a phone shows every line as a card, with the column names beside the cells,
        in place of a table to scroll sideways.
    """

    head: Sequence[str]
    lines: Sequence[Sequence[Text]]
    is_tall: bool = False


class Picture(NamedTuple):
    """A figure, drawn into the HTML; Markdown shows its `file` instead.

    Attributes:
      draw: makes the figure.
      name: unique in the page.
      caption: says what it shows.
    """

    draw: Callable[[], Figure]
    name: str
    caption: str

    @property
    def file(self) -> str:
        """Return the path of the picture that Markdown shows, relative to the tables."""
        return f"{FIGURES}/{self.name}.png"


class Details(NamedTuple):
    """Blocks that open on a click."""

    summary: str
    anchor: str
    blocks: Sequence["Block"]


Block = Heading | Paragraph | Bullets | Table | Picture | Details

STYLE = """
:root { color-scheme: light dark; --text: #1b1b1b; --soft: #5c5c5c; --page: #ffffff;
  --card: #f4f4f2; --line: #d6d6d2; --link: #0a58a8; --yes: #12703a; --no: #b3261e;
  --open: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e6e3; --soft: #a5a5a0; --page: #161616;
  --card: #222221; --line: #3c3c3a; --link: #7ab8ff; --yes: #6fd096; --no: #ff9086;
  --open: #f0c060; } }
body { margin: 0 auto; max-width: 80rem; padding: 1rem; background: var(--page);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif; }
h1, h2, h3 { line-height: 1.2; margin: 2.2em 0 0.6em; overflow-wrap: anywhere; }
h1 { margin-top: 0.5em; }
h2 { border-top: 1px solid var(--line); padding-top: 1em; }
a { color: var(--link); }
p, li { max-width: 46rem; overflow-wrap: anywhere; }
code { background: var(--card); border-radius: 3px; padding: 0.1em 0.3em; font-size: 0.85em; }
.scroll { overflow-x: auto; margin: 1em 0; }
table { border-collapse: collapse; max-width: 100%; font-size: 0.875rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: 0.35em 0.7em; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
td { min-width: 3.5em; }
td:first-child { min-width: 8em; }
td code { overflow-wrap: anywhere; padding: 0; background: none; }
@media (max-width: 40rem) { th, td { padding: 0.35em 0.5em; }
  td, td:first-child { min-width: 2em; }
  .tall thead { display: none; }
  .tall, .tall tbody, .tall tr, .tall td { display: block; }
  .tall tr { background: var(--card); border-radius: 6px; margin: 0 0 0.8em; padding: 0.4em; }
  .tall td { border: 0; overflow-wrap: anywhere; }
  .tall td:not(:first-child)::before { content: attr(data-label) ": "; color: var(--soft); }
  .tall td:first-child { font-weight: 600; }
  .tall td:empty { display: none; } }
details > :target { border-left: 3px solid var(--link); padding-left: 0.7em; }
details { margin: 0.4em 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
figure { margin: 1.5em 0; overflow-x: auto; }
figure svg { background: #ffffff; border-radius: 6px; min-width: 32rem; max-width: 100%;
  height: auto; }
figcaption { color: var(--soft); font-size: 0.875rem; }
mark { background: none; color: inherit; font-weight: 600; white-space: nowrap; }
mark.reproduced { color: var(--yes); }
mark.not-reproduced { color: var(--no); }
mark.inconclusive { color: var(--open); }
mark.not-run { color: var(--soft); font-weight: 400; }
"""


def html(blocks: Sequence[Block], title: str, files: str) -> str:
    """Return a self-contained HTML page.

    Args:
      blocks: its content.
      title: the title of the window.
      files: the path from the page to the folder of the tables, for example ``../results/``.
    """
    body = "\n".join(_html(block, files) for block in blocks)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaping.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def markdown(blocks: Sequence[Block], files: str = "") -> str:
    """Return the page as Markdown; see `html`."""
    return "\n\n".join(_markdown(block, files) for block in blocks) + "\n"


def pictures(blocks: Sequence[Block]) -> Iterator[Picture]:
    """Yield all figures of a page."""
    for block in blocks:
        match block:
            case Picture():
                yield block
            case Details(_, _, inside):
                yield from pictures(inside)


def svg(figure: Figure, name: str, label: str) -> str:
    """Return a figure as an SVG element; the same figure gives the same text.

    Args:
      figure: the figure.
      name: unique in the page; the prefix of all ids inside.
      label: the text for screen readers.
    """
    file = io.StringIO()
    with matplotlib_defaults(), matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"\s*\n\s*", " ", text).replace("> <", "><")
    return text.replace("<svg", f'<svg role="img" aria-label="{escaping.escape(label)}"', 1)


def anchor(text: str) -> str:
    """Return the anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def _html(block: Block, files: str) -> str:
    match block:
        case Heading(level, text):
            return f'<h{level} id="{anchor(text)}">{escaping.escape(text)}</h{level}>'
        case Paragraph(text):
            return f"<p>{_html_text(text, files)}</p>"
        case Bullets(items):
            lines = "\n".join(f"<li>{_html_text(item, files)}</li>" for item in items)
            return f"<ul>\n{lines}\n</ul>"
        case Table():
            return _html_table(block, files)
        case Picture(draw, name, caption):
            drawing = svg(draw(), name, caption)
            note = f"<figcaption>{escaping.escape(caption)}</figcaption>"
            return f'<figure id="{name}">{drawing}{note}</figure>'
        case Details(summary, place, blocks):
            inside = "\n".join(_html(inner, files) for inner in blocks)
            head = f"<summary>{escaping.escape(summary)}</summary>"
            # A link to what is inside opens it.
            return f'<details>{head}\n<div id="{place}">\n{inside}\n</div>\n</details>'


def _html_table(table: Table, files: str) -> str:
    def cell(name: str, text: Text) -> str:
        label = f' data-label="{escaping.escape(name)}"' if table.is_tall else ""
        return f"<td{label}>{_html_text(text, files)}</td>"

    top = "".join(f'<th scope="col">{escaping.escape(name)}</th>' for name in table.head)
    rows = "\n".join(f"<tr>{''.join(map(cell, table.head, line))}</tr>" for line in table.lines)
    kind = ' class="tall"' if table.is_tall else ""
    return (
        f'<div class="scroll" tabindex="0"><table{kind}>\n<thead><tr>{top}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _html_text(text: Text, files: str) -> str:
    match text:
        case list():
            return "".join(_html_text(part, files) for part in text)
        case Link(words, target):
            return (
                f'<a href="{escaping.escape(_target(target, files))}">{escaping.escape(words)}</a>'
            )
        case Mark(words, kind):
            return f'<mark class="{kind.replace(" ", "-")}">{escaping.escape(words)}</mark>'
        case Code(words):
            return f"<code>{escaping.escape(words)}</code>"
        case Break():
            return "<br>"
    return escaping.escape(text)


def _markdown(block: Block, files: str) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {text}"
        case Paragraph(text):
            return _markdown_text(text, files)
        case Bullets(items):
            return "\n".join(f"* {_markdown_text(item, files)}" for item in items)
        case Table(head, lines, _):
            cells = [[_markdown_text(cell, files) for cell in line] for line in lines]
            return "\n".join(
                f"| {' | '.join(line)} |" for line in [[*head], ["---"] * len(head), *cells]
            )
        case Picture(_, _, caption):
            return f"![{caption}]({files}{block.file})\n\n{caption}"
        case Details(summary, place, blocks):
            inside = "\n\n".join(_markdown(inner, files) for inner in blocks)
            head = f"<summary>{escaping.escape(summary)}</summary>"
            return f'<details id="{place}">{head}\n\n{inside}\n\n</details>'


def _markdown_text(text: Text, files: str) -> str:
    match text:
        case list():
            return "".join(_markdown_text(part, files) for part in text)
        case Link(words, target):
            return f"[{words}]({_target(target, files)})"
        case Mark(words, _):
            return f"**{words}**"
        case Code(words):
            return f"`{words}`"
        case Break():
            return "<br>"
    return text.replace("|", "\\|").replace("<", "&lt;")


def _target(target: str, files: str) -> str:
    return target if target.startswith(("#", "https:")) else files + target
