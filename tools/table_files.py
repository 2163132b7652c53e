"""The paths of the files of a run and of a table under results/."""

from pathlib import Path
from typing import NamedTuple

from experiments.runners import mask_analysis
from experiments.runners.learned import CURVES
from experiments.storage import records, run_folder
from experiments.storage.environment import ENVIRONMENT

_SETTINGS = ".config.json"
_CURVES = ".curves.parquet"


class Files(NamedTuple):
    """The files of one run or table; `analysis` and `curves` need not exist."""

    rows: Path
    config: Path
    environment: Path
    analysis: Path
    curves: Path


def of_run(workdir: Path) -> Files:
    """Return the files of a run that `tools.collect` reads."""
    return Files(
        rows=workdir / records.RESULTS,
        config=workdir / run_folder.CONFIG,
        environment=workdir / ENVIRONMENT,
        analysis=workdir / mask_analysis.FILE,
        curves=workdir / CURVES,
    )


def of_table(table: Path) -> Files:
    """Return the files of a table that is named without its suffix.

    >>> of_table(Path("results/mask_criteria_lenet300_mnist")).config.name
    'mask_criteria_lenet300_mnist.config.json'
    """

    def beside(suffix: str) -> Path:
        return table.with_name(table.name + suffix)

    return Files(
        rows=beside(".csv"),
        config=beside(_SETTINGS),
        environment=beside(".environment.json"),
        analysis=beside(".analysis.csv"),
        curves=beside(_CURVES),
    )


def config_of_curves(curves: Path) -> Path:
    """Return the settings file of learning curves, in the folder of a run or beside a table.

    >>> config_of_curves(Path("runs/masks/curves/learning.parquet")).as_posix()
    'runs/masks/config.json'
    >>> config_of_curves(Path("results/masks.curves.parquet")).as_posix()
    'results/masks.config.json'
    """
    if curves.name.endswith(_CURVES):
        return of_table(curves.with_name(curves.name.removesuffix(_CURVES))).config
    return of_run(curves.parent.parent).config


def of_all(folder: Path) -> list[Files]:
    """Return the files of all tables and runs in a folder, which may be that of a run itself."""
    runs = [folder, *sorted(path.parent for path in folder.glob(f"*/{run_folder.CONFIG}"))]
    return of_tables(folder) + [of_run(run) for run in runs if (run / run_folder.CONFIG).exists()]


def of_tables(folder: Path) -> list[Files]:
    """Return the files of all tables in a folder that have their settings, sorted by name."""
    settings = sorted(folder.glob(f"*{_SETTINGS}"))
    return [of_table(path.with_name(path.name.removesuffix(_SETTINGS))) for path in settings]
