"""Write the report on tables of results.

    python -m tools.report results/ --page=report/index.html --readme=README.md
    python -m tools.report results/mask_criteria_lenet300_mnist.csv

Of a folder: writes the page, the same as Markdown into the folder's README.md with pictures in
figures/, and, with ``--readme``, the short form between the two marks of that file. Of one table:
prints it as Markdown. Tests compare the committed texts with what this makes.
"""

from pathlib import Path

from experiments.command_line import define_file, fail, path_of, run_program
from experiments.runners.registry import read_table
from tools.report import accuracy_tables, pages
from tools.report.writing import write

PAGE = define_file("page", "report/index.html", "Path of the HTML page to write.")
README = define_file("readme", None, "Path of a Markdown file with the two marks.")


def main(arguments: list[str]) -> None:
    """Report on the folder or the table named on the command line."""
    try:
        if len(arguments) != 2:
            raise ValueError("name a folder of tables or one table, for example results/.")
        if README.value and not Path(README.value).is_file():
            raise ValueError(f"there is no file {README.value}.")
        source = path_of(arguments[1])
        if source.is_file():
            rows = read_table(source)
            if rows and "test_accuracy" not in rows[0]:
                raise ValueError(f"{source} has no accuracies; tools.figure draws it.")
            print(pages.markdown([accuracy_tables.table(rows)]), end="")
            return
        write(source, Path(PAGE.value), Path(README.value) if README.value else None)
    except (ValueError, OSError) as error:
        fail(error)


if __name__ == "__main__":
    run_program(main)
