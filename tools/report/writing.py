"""Write the report on a folder of tables as HTML, as Markdown and, in short, into other pages."""

import os
from collections.abc import Sequence
from pathlib import Path

from experiments import plots
from experiments.storage.files import replace_file
from tools.report import document, hours, pages
from tools.report.tables import read_tables

BEGIN, END = "<!-- made by make report: begin -->", "<!-- made by make report: end -->"


def write(folder: Path, page: Path, readme: Path | None, conclusions: Path | None) -> None:
    """Write all forms of the report on a folder of tables.

    Args:
      folder: has the tables.
      page: the HTML to write.
      readme: gets the short form between its marks.
      conclusions: gets what a reader may conclude between its marks.

    Raises:
      FileNotFoundError: no such folder, no such readme or conclusions, or no benchmark for these.
      ValueError: no tables, or a readme or conclusions without the two marks.
    """
    tables = read_tables(folder)
    if not tables:
        raise ValueError(f"{folder} has no table of tools.collect: none with its .config.json.")
    blocks = document.report(tables)
    files = f"{os.path.relpath(folder, page.parent)}/"
    _write(page, pages.html(blocks, document.TITLE, files))
    _write(folder / "README.md", pages.markdown(blocks))
    _draw(folder, list(pages.pictures(blocks)))
    if readme:
        _write_between_marks(readme, document.readme(tables), folder)
    if conclusions:
        seconds = hours.measured(folder)
        _write_between_marks(conclusions, document.conclusions(tables, seconds), folder)


def between_marks(text: str, content: str, path: Path) -> str:
    """Return a text with new content between its marks.

    Raises:
      ValueError: if it does not have each mark once, in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} lacks the lines {BEGIN!r} and {END!r}, in this order.")
    return f"{before}{BEGIN}\n\n{content}\n{END}{after}"


def _write_between_marks(path: Path, blocks: Sequence[pages.Block], folder: Path) -> None:
    content = pages.markdown(blocks, f"{os.path.relpath(folder, path.parent)}/")
    _write(path, between_marks(path.read_text(), content, path))


def _draw(folder: Path, pictures: Sequence[pages.Picture]) -> None:
    """Write the pictures of a page and delete those of an earlier one."""
    for picture in pictures:
        plots.save(picture.draw(), folder / picture.file)
    current = {folder / picture.file for picture in pictures}
    for path in (folder / pages.FIGURES).glob("*.png"):
        if path not in current:
            path.unlink()


def _write(path: Path, text: str) -> None:
    replace_file(path, lambda temporary: temporary.write_text(text))
    print(path)
