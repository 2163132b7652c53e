"""Download a data set and prepare it for the experiments.

    python -m experiments.datasets mnist [--data_dir=DIR]

The data sets are mnist (a download of 12 MB) and cifar10 (170 MB). A data set that is already
prepared stays as it is.
"""

from experiments.command_line import define_folder, fail, run_program
from experiments.datasets import data_root, prepared
from experiments.datasets.preparation import ORIGINALS, prepare

DATA_DIR = define_folder(
    "data_dir", None, "Target folder; by default TFDS_DATA_DIR, or else ~/tensorflow_datasets."
)


def main(arguments: list[str]) -> None:
    """Prepare the data set named on the command line."""
    try:
        if len(arguments) != 2:
            raise ValueError(f"name one data set: {' or '.join(ORIGINALS)}.")
        name = arguments[1]
        was_there = prepared.find(name, data_root(DATA_DIR.value)) is not None
        folder = prepare(name, DATA_DIR.value)
    except (ValueError, OSError) as error:
        fail(error)
    print(f"{name} {'was already' if was_there else 'is now'} prepared in {folder}")


if __name__ == "__main__":
    run_program(main)
