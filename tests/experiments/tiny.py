"""A small experiment that several test modules look at, run once per process."""

import functools
import tempfile
from pathlib import Path

from ml_collections import ConfigDict

from experiments import iterative, results
from experiments.configs import mask_criteria

VARIANTS = ("large_final", "random:reshuffle:freeze")


def config(**changes) -> ConfigDict:
    """Two variants, two seeds, two rounds of a few steps on digits."""
    tiny = mask_criteria.get_config("lenet300,tiny")
    tiny.update(variants=VARIANTS, **changes)
    return tiny


def run(workdir: Path, tiny: ConfigDict, part: str | None = None) -> list[results.Row]:
    """Plan and run into a folder, as the launcher does."""
    results.open_workdir(str(workdir), tiny.to_dict(), part)
    return iterative.run(iterative.make_plan(tiny, part=part), workdir, "a command")


@functools.cache
def finished() -> Path:
    """The folder of the whole tiny experiment."""
    workdir = Path(tempfile.mkdtemp(prefix="supermask_jax_"))
    run(workdir, config())
    return workdir
