"""Where the files of a run's folder and of a table under results/ lie."""

from pathlib import Path
from typing import NamedTuple

from experiments.runners import mask_analysis
from experiments.runners.learned import CURVES
from experiments.storage import records, run_folder
from experiments.storage.environment import ENVIRONMENT

_SETTINGS = ".config.json"
_CURVES = ".curves.parquet"


class Files(NamedTuple):
    """Of one run or table; the last two are missing where nothing was analysed or followed."""

    rows: Path
    config: Path
    environment: Path
    analysis: Path
    curves: Path


def of_run(workdir: Path) -> Files:
    """The files in the folder of a run that a table is collected from."""
    return Files(
        rows=workdir / records.RESULTS,
        config=workdir / run_folder.CONFIG,
        environment=workdir / ENVIRONMENT,
        analysis=workdir / mask_analysis.FILE,
        curves=workdir / CURVES,
    )


def of_table(table: Path) -> Files:
    """The files of a table that is named without a suffix.

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
    """The settings that learning curves were made with, in the folder of a run or beside a table.

    >>> config_of_curves(Path("runs/masks/curves/learning.parquet")).as_posix()
    'runs/masks/config.json'
    >>> config_of_curves(Path("results/masks.curves.parquet")).as_posix()
    'results/masks.config.json'
    """
    if curves.name.endswith(_CURVES):
        return of_table(curves.with_name(curves.name.removesuffix(_CURVES))).config
    return of_run(curves.parent.parent).config


def of_tables(folder: Path) -> list[Files]:
    """The files of all tables of a folder, by name: of those that have their settings beside."""
    settings = sorted(folder.glob(f"*{_SETTINGS}"))
    return [of_table(path.with_name(path.name.removesuffix(_SETTINGS))) for path in settings]
