"""Small experiments that several test modules share, each run once per test session."""

import fcntl
import functools
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from ml_collections import ConfigDict

from experiments.configs import (
    heuristic_supermasks,
    learned_supermasks,
    linear_mode_connectivity,
    mask_criteria,
    pruning_at_init,
)
from experiments.runners.registry import RUNNERS
from experiments.storage import results, run_folder
from experiments.storage.code import Code
from experiments.storage.identity import Identity, RunFolder
from experiments.storage.listeners import Listener
from tests.conftest import SHARED

COMMITTED = Code("0.1.0+s0123456789", "0123456789", ())
VARIANTS = ("large_final", "random:reshuffle:freeze")


def config(**changes) -> ConfigDict:
    """Iterative pruning of two variants and two seeds, for two rounds of a few steps on digits."""
    tiny = mask_criteria.get_config("lenet300,tiny")
    tiny.update(variants=VARIANTS, chunk_evals=1)
    tiny.update(**changes)
    return tiny


def rewound(**changes) -> ConfigDict:
    """Iterative pruning that ranks two layers together and rewinds to the end of an epoch."""
    tiny = config(variants=("large_final", "random:finetune"), epochs=2, eval_every=21)
    tiny.update(rewind_step=21, scope="global", least=6000, rates=(("output/kernel", 0.0),))
    tiny.default_rate = 0.5
    tiny.update(**changes)
    return tiny


def learned(**changes) -> ConfigDict:
    """Learned masks of two kinds of weights, two initial logits and two seeds, with retraining."""
    tiny = learned_supermasks.get_config("lenet300,tiny")
    tiny.update(variants=("init", "signed_constant:rescale"), initial_logits=(0.0, 1.0))
    tiny.update(retrain_epochs=1)
    tiny.update(**changes)
    return tiny


def one_shot(**changes) -> ConfigDict:
    """One-shot masks of two criteria, two powers and two seeds, with retraining at one power."""
    tiny = heuristic_supermasks.get_config("lenet300,tiny")
    tiny.update(criteria=("large_final_same_sign", "random"), powers=(0, 2))
    tiny.update(weights=("init", "signed_constant", "reinit", "reshuffle"))
    tiny.update(retrain_power=2, retrain_epochs=1, chunk_evals=1)
    tiny.update(**changes)
    return tiny


def at_init(**changes) -> ConfigDict:
    """Networks pruned by two scores at two densities and two seeds, before training."""
    tiny = pruning_at_init.get_config("lenet300,tiny")
    tiny.update(variants=("magnitude", "synflow:3"))
    tiny.update(**changes)
    return tiny


def connected(**changes) -> ConfigDict:
    """Three copies of the dense networks and of the tickets of a round, for two seeds."""
    tiny = linear_mode_connectivity.get_config("lenet300,tiny")
    tiny.update(variants=("large_final", "random"), copies=3, chunk_evals=1)
    tiny.update(**changes)
    return tiny


def blank_row(columns: results.Columns) -> results.Row:
    """A row of any table, whose cells all read 1, except its id."""
    return {name: read("r1" if name == "id" else "1") for name, read in columns.items()}


def run(
    workdir: Path,
    tiny: ConfigDict,
    part: str | None = None,
    code: Code | None = None,
    listeners: Iterable[Listener] = (),
) -> list[results.Row]:
    """Plan and run an experiment in a folder, as experiments.run does."""
    folder = run_folder.open_workdir(str(workdir), tiny.to_dict(), part, code=code)
    folder = folder._replace(listeners=tuple(listeners))
    runner = RUNNERS[tiny.runner]
    return runner.run(runner.make_plan(tiny, part=part), folder, "a command")


def folder(path: Path) -> RunFolder:
    """Return a folder for files of a run that has no settings."""
    return RunFolder(path, Identity(path, "settings", ("code",)))


@functools.cache
def finished(make_config: Callable[[], ConfigDict] = config) -> Path:
    """Return this process's copy of the folder of a completed tiny experiment."""
    whole = SHARED / make_config.__name__
    with open(f"{whole}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            workdir = Path(tempfile.mkdtemp(dir=SHARED))
            run(workdir, make_config())
            workdir.rename(whole)
    return Path(shutil.copytree(whole, tempfile.mkdtemp(dir=SHARED), dirs_exist_ok=True))
