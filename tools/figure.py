"""Draw a figure from one or more tables.

    python -m tools.figure mask_criteria results/mask_criteria_lenet300_mnist.csv --picture=f.png

The first argument names the figure and the others are its tables. Figures of
`experiments.plots.FIGURES` take one or more .csv tables, and heuristic_supermasks also takes those
of learned supermasks, which it draws on top. `mask_analysis` takes an .analysis.csv, and
`learning_curves` a .curves.parquet. The suffix of the picture gives its format: .png, .svg or .pdf.
"""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from experiments.command_line import define_file, fail, path_of, run_program
from experiments.plots import FIGURES, learning_curves, mask_analysis, save
from experiments.runners.registry import read_table
from experiments.storage import results
from experiments.storage.files import read_json
from supermask_jax.checks import lookup
from tools.table_files import config_of_curves

CURVES = "learning_curves"
PICTURE = define_file("picture", None, "Path of the figure to write.", required=True)


def main(arguments: list[str]) -> None:
    """Draw the figure named on the command line."""
    try:
        if len(arguments) < 3:
            raise ValueError("name a figure and at least one table.")
        picture = Path(PICTURE.value)
        save(draw(arguments[1], [path_of(name) for name in arguments[2:]]), picture)
        print(picture)
    except (ValueError, OSError) as error:
        fail(error)


def draw(name: str, paths: Sequence[Path]) -> Figure:
    """A figure of one or more tables.

    Raises:
      ValueError: an unknown name, or tables that it cannot show.
      FileNotFoundError: a table that is not there.
    """
    try:
        return _draw_curves(paths) if name == CURVES else _draw_rows(name, paths)
    except KeyError as error:
        raise ValueError(f"{name} cannot show a table that lacks the column {error}.") from None


def _draw_curves(paths: Sequence[Path]) -> Figure:
    if len(paths) != 1:
        raise ValueError(f"{CURVES} shows one .curves.parquet, not {len(paths)}.")
    return learning_curves.draw(results.read_curves(paths[0]), about=_about(paths[0]))


def _draw_rows(name: str, paths: Sequence[Path]) -> Figure:
    figure = lookup("figure", name, FIGURES | {"mask_analysis": mask_analysis.draw})
    rows = [row for path in paths for row in read_table(path)]
    for column in getattr(figure, "needs", ()):
        if rows and not any(column in row for row in rows):
            raise KeyError(column)
    return figure(rows)


def _about(curves: Path) -> str:
    """What learning curves are of; the file's name without its settings."""
    try:
        config = read_json(config_of_curves(curves))
        return learning_curves.about(config)
    except (OSError, ValueError, KeyError, TypeError):
        return curves.name


if __name__ == "__main__":
    run_program(main)
