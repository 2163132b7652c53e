"""Count what the runs for an accelerator need, and divide it by the peaks of an H100.

    python -m tools.benchmark_estimates --table=results/benchmark_estimates

Operations are those of the matrix products and convolutions that each run announces before it
starts, and those of the masks that it evaluates. The time by traffic is that of the bytes which a
step of `tools.benchmark` must move (`tasks.step_bytes`); it is not known of learned masks. Nothing
is trained. No run reaches a peak: these are the shortest times, not the expected ones.
"""

import argparse
import importlib
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.engine.forecast import count_products
from experiments.runners import one_shot
from experiments.runners.registry import find_runner
from tools.benchmark import measurements
from tools.benchmark.tasks import Task, step_bytes

ACCELERATOR = "cuda"
# Of the NVIDIA H100 SXM, dense, by its data sheet: https://www.nvidia.com/en-us/data-center/h100/
FLOAT32, TENSORFLOAT32, BANDWIDTH = 67e12, 494.5e12, 3.35e12  # operations and bytes per second


class Run(NamedTuple):
    """A run of the laboratory: its configuration, and the settings that it changes."""

    config: str
    network: str
    settings: dict[str, Any]

    @property
    def flags(self) -> str:
        """The flags of `experiments.run`."""
        words = [f"--config=experiments/configs/{self.config}.py:{self.network}"]
        for name, value in self.settings.items():
            text = ",".join(map(str, value)) if isinstance(value, tuple) else value
            words.append(f"--config.{name}={text}")
        return " ".join(words)


ONE_CRITERION = {"criteria": ("large_final_same_sign",), "weights": ("init", "signed_constant")}
TWO_VARIANTS = {
    "variants": ("signed_constant", "signed_constant:rescale"),
    "epochs": 10,
    "eval_every": 450,
}
RUNS = [
    *(
        Run("heuristic_supermasks", network, ONE_CRITERION)
        for network in ("conv2", "conv4", "conv6")
    ),
    Run("learned_supermasks", "conv2", TWO_VARIANTS),
    Run("mask_criteria", "lenet300", {}),
]


class Row(NamedTuple):
    """One line of the table; the last three are the shortest times in seconds, NaN if not known."""

    experiment: str
    network: str
    members: int
    member_steps: int
    operations: float
    float32: float
    tensorfloat32: float
    traffic: float


HEAD = [
    "experiment", "network", "members", "member-steps", "operations", "s by float32",
    "s by TensorFloat-32", "s by traffic",
]  # fmt: skip


def cells(row: Row) -> list[str]:
    """Return the cells below `HEAD`."""
    sizes = f"{row.members}", f"{row.member_steps:,}", f"{row.operations:.2g}"
    times = ("" if math.isnan(seconds) else f"{seconds:.0f}" for seconds in row[5:])
    return [row.experiment, row.network, *sizes, *times]


def markdown(path: Path) -> str:
    """Return a table that this program wrote as Markdown."""
    return measurements.markdown(HEAD, map(cells, measurements.read(path, Row)))


def estimate(run: Run, data_dir: str | None = None) -> Row:
    """Count the operations and bytes of one run.

    Raises:
      ValueError: if a setting is wrong.
      FileNotFoundError: if the data set is missing.
    """
    config = importlib.import_module(f"experiments.configs.{run.config}").get_config(run.network)
    config.update(run.settings)
    runner = find_runner(config)
    plan = runner.make_plan(config, data_dir)
    trainings = runner.work(plan).trainings
    members = max(part.members for part in trainings)
    member_steps = sum(
        part.times * part.members * int(part.trainer.eval_steps[-1]) for part in trainings
    )
    operations = sum(
        part.times * part.members * part.trainer.operations(ACCELERATOR) for part in trainings
    )
    if isinstance(plan, one_shot.Plan):
        operations += _of_masks(plan)
    moved = step_bytes(Task(config.network, 1)) * member_steps
    return Row(
        run.config, config.network, members, member_steps, operations,
        operations / FLOAT32, operations / TENSORFLOAT32,
        math.nan if config.runner == "learned" else moved / BANDWIDTH,
    )  # fmt: skip


def _of_masks(plan: one_shot.Plan) -> float:
    """Count the operations of the products in the evaluations of all masks."""
    config, problem = plan.config, plan.problem
    masks = len(config.criteria) * len(config.powers) * len(config.weights) * len(config.seeds)
    dataset = problem.dataset
    images = len(dataset.validation.labels) + len(dataset.test.labels)
    image = jax.ShapeDtypeStruct((1, *dataset.image_shape), np.float32)
    return masks * images * count_products(problem.network.apply, problem.params, image)


def main(arguments: Sequence[str] | None = None) -> None:
    """Estimate all runs, print them as Markdown and write the table."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--data_dir", help="folder of prepared data sets; by default TFDS_DATA_DIR")
    parser.add_argument("--table", help="path without suffix for a .csv")
    flags = parser.parse_args(arguments)
    rows: list[Row] = []
    try:
        path = flags.table and Path(f"{flags.table}.csv").expanduser()
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
        print(measurements.markdown(HEAD, []))
        for run in RUNS:
            rows.append(estimate(run, flags.data_dir))
            print(measurements.markdown_line(cells(rows[-1])), flush=True)
        if path:
            measurements.write(path, rows)
    except (OSError, RuntimeError) as error:  # RuntimeError: ~user is not known
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
