"""The results as a page to read.

    python -m tools.report results/ --page=report/index.html --readme=README.md
    python -m tools.report results/mask_criteria_lenet300_mnist.csv

Of a folder: writes the page, the same as Markdown into the folder's README.md with pictures in
figures/, and, with ``--readme``, the short form between the two marks of that file. Of one table:
prints it as Markdown. Tests compare the committed texts with what this makes.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from experiments import plots
from experiments.command_line import fail, given, parse_flags
from experiments.runners.registry import read_table
from experiments.storage.files import replace_file
from tools import accuracies, contents, pages
from tools.tables import read_tables

PAGE = flags.DEFINE_string("page", "report/index.html", "Path of the HTML page to write.")
README = flags.DEFINE_string("readme", None, "Path of a Markdown file with the two marks.")

BEGIN, END = "<!-- made by make report: begin -->", "<!-- made by make report: end -->"


def main(arguments: list[str]) -> None:
    """Report on the folder or the table named on the command line."""
    try:
        if len(arguments) != 2:
            raise ValueError("name a folder of tables or one table, for example results/.")
        source = Path(arguments[1])
        if source.is_file():
            rows = read_table(source)
            if rows and "test_accuracy" not in rows[0]:
                raise ValueError(f"{source} has no accuracies; tools.figure draws it.")
            print(pages.markdown([accuracies.table(rows)]), end="")
            return
        write(source, Path(given(PAGE)), Path(README.value) if README.value else None)
    except (ValueError, OSError) as error:
        fail(error)


def write(folder: Path, page: Path, readme: Path | None) -> None:
    """Write all forms of the report on a folder of tables.

    Raises:
      FileNotFoundError: no such folder, or no such readme.
      ValueError: no tables, or a readme without the two marks.
    """
    tables = read_tables(folder)
    if not tables:
        raise ValueError(f"{folder} has no table of tools.collect: none with its .config.json.")
    blocks = contents.report(tables)
    files = f"{os.path.relpath(folder, page.parent)}/"
    _write(page, pages.html(blocks, contents.TITLE, files))
    _write(folder / "README.md", pages.markdown(blocks))
    _draw(folder, list(pages.pictures(blocks)))
    if readme:
        files = f"{os.path.relpath(folder, readme.parent)}/"
        short = pages.markdown(contents.readme(tables), files)
        _write(readme, between_marks(readme.read_text(), short, readme))


def between_marks(text: str, content: str, path: Path) -> str:
    """A text with other content between its marks.

    Raises:
      ValueError: if it does not have each mark once, in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} lacks the lines {BEGIN!r} and {END!r}, in this order.")
    return f"{before}{BEGIN}\n\n{content}\n{END}{after}"


def _draw(folder: Path, pictures: Sequence[pages.Picture]) -> None:
    """Write the pictures of a page and drop those of an earlier one."""
    for picture in pictures:
        plots.save(picture.draw(), folder / picture.file)
    current = {folder / picture.file for picture in pictures}
    for path in (folder / pages.FIGURES).glob("*.png"):
        if path not in current:
            path.unlink()


def _write(path: Path, text: str) -> None:
    replace_file(path, lambda temporary: temporary.write_text(text))
    print(path)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
