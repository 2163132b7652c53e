"""Launch an experiment.

    python -m experiments.run --config=experiments/configs/mask_criteria.py:lenet300 \\
        --workdir=runs/mask_criteria [--data_dir=DIR] [--config.seeds='(0,1,2)'] [--config.x=...]

The same command again continues where the last one stopped.
"""

import os
import shlex
import sys
from typing import NoReturn

import jax
from absl import app, flags, logging
from ml_collections import config_flags
from rich.console import Console

from experiments import iterative, results
from experiments.plots import FIGURES, save
from experiments.summary import summary
from supermask_jax.trees import lookup

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "FILE.py:NETWORK or FILE.py:NETWORK,tiny; see experiments/configs."
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder for tables, figures and checkpoints; made if missing.", required=True
)
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared data sets; by default TFDS_DATA_DIR or that of TFDS."
)

RUNNERS = {"iterative": iterative}


def main(arguments: list[str]) -> None:
    """Check everything, run, draw the figure and print the summary."""
    if len(arguments) > 1:
        sys.exit(f"error: unknown argument {arguments[1]!r}; flags start with --.")
    logging.set_verbosity(logging.WARNING)
    config = CONFIG.value
    try:
        runner = lookup("runner", config.runner, RUNNERS)
        draw = lookup("figure", config.figure, FIGURES)
        plan = runner.make_plan(config, DATA_DIR.value)
        workdir = results.open_workdir(WORKDIR.value, config.to_dict())
    except (ValueError, TypeError, OSError) as error:
        _fail(error)
    rows = runner.run(plan, workdir, _command())
    figure = workdir / "figures" / f"{config.figure}.png"
    save(draw(rows), figure)
    console = Console()
    console.print(summary(rows, width=console.width))
    for name, path in (("table", workdir / "results.csv"), ("figure", figure)):
        console.print(f"{name:<7}{path}", highlight=False, soft_wrap=True)


def _parse_flags(arguments: list[str]) -> list[str]:
    """What is left of the arguments when all flags are read; a wrong one ends the program."""
    try:
        return flags.FLAGS(arguments)
    except AttributeError as error:  # what config_flags makes of a key that is not there
        sys.exit(f"error: --config has no such setting: {error}")
    except (flags.Error, OSError) as error:
        _fail(error)


def _fail(error: Exception) -> NoReturn:
    """End with an error in one line: config_flags puts tracebacks in front of what happened."""
    last = str(error).strip().splitlines()[-1].strip()
    sys.exit(f"error: {last.removeprefix('ValueError: ')}")


def _command() -> str:
    """What was typed, without the folders of this machine."""
    words = iter(sys.argv[1:])
    kept = []
    for word in words:
        name, has_value, _ = word.lstrip("-").partition("=")
        if name not in (WORKDIR.name, DATA_DIR.name):
            kept.append(word)
        elif not has_value:
            next(words, None)
    return shlex.join(["python", "-m", "experiments.run", *kept])


def _one_device_per_core() -> None:
    """Let members run side by side on a CPU; must precede any use of JAX."""
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        has_affinity = hasattr(os, "sched_getaffinity")  # which macOS has not
        cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count()
        jax.config.update("jax_num_cpu_devices", cores or 1)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    _one_device_per_core()
    app.run(main, flags_parser=_parse_flags)
