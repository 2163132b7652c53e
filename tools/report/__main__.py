"""Write the report on tables of results.

    python -m tools.report results/ --page=report/index.html --readme=README.md \\
        --conclusions=docs/results.md
    python -m tools.report results/mask_criteria_lenet300_mnist.csv

Of a folder: writes the page, the same as Markdown into the folder's README.md with pictures in
figures/. With ``--readme`` it writes the short form, and with ``--conclusions`` what a reader may
conclude, between the two marks of that file. Of one table: prints it as Markdown. Tests compare the
committed texts with what this makes.
"""

from pathlib import Path

from experiments.command_line import define_file, fail, path_of, run_program
from experiments.runners.registry import read_table
from tools.report import accuracy_tables, pages
from tools.report.writing import write

PAGE = define_file("page", "report/index.html", "Path of the HTML page to write.")
README = define_file("readme", None, "Path of a Markdown file with the two marks.")
CONCLUSIONS = define_file(
    "conclusions",
    None,
    "Path of a Markdown file with the two marks, for what a reader may conclude.",
)


def main(arguments: list[str]) -> None:
    """Report on the folder or the table named on the command line."""
    try:
        if len(arguments) != 2:
            raise ValueError("name a folder of tables or one table, for example results/.")
        readme, conclusions = (Path(f.value) if f.value else None for f in (README, CONCLUSIONS))
        for path in (readme, conclusions):
            if path and not path.is_file():
                raise ValueError(f"there is no file {path}.")
        source = path_of(arguments[1])
        if source.is_file():
            rows = read_table(source)
            if rows and "test_accuracy" not in rows[0]:
                raise ValueError(f"{source} has no accuracies; tools.figure draws it.")
            print(pages.markdown([accuracy_tables.table(rows)]), end="")
            return
        write(source, Path(PAGE.value), readme, conclusions)
    except (ValueError, OSError) as error:
        fail(error)


if __name__ == "__main__":
    run_program(main)
