"""Run an experiment.

    python -m experiments.run --config=experiments/configs/mask_criteria.py:lenet300 \\
        --workdir=runs/mask_criteria [--data_dir=DIR] [--config.seeds=0,1,2] [--config.x=...]

To resume a run that was stopped or killed, run the same command again. Ctrl-C and SIGTERM stop a
run at the next chunk boundary, with exit status 75. docs/how_to/clusters.md describes the flags for
more than one machine.
"""

if __name__ == "__main__":
    from experiments import stopping

    stopping.exit_on_signals()  # importing the packages below takes seconds

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import jax
from absl import flags, logging
from rich.console import Console

from experiments import by_name, processes, stopping
from experiments.additions import brings_code, identify_with
from experiments.command_line import (
    config_file,
    define_allow_code_change,
    define_config,
    define_folder,
    fail,
    last_line,
    refuse_nan,
    run_program,
)
from experiments.plots import FIGURES, find_figure, learning_curves, save, tensorboard
from experiments.plots import mask_analysis as mask_figure
from experiments.runners import hyperparameters, learned, mask_analysis
from experiments.runners.registry import Plan, find_runner
from experiments.storage import locks, results, run_folder
from experiments.storage.autosave import SAVE_EVERY
from experiments.storage.identity import RunFolder
from experiments.storage.listeners import Listener, Part
from experiments.tables.curves import setting
from experiments.tables.summary import summary

CONFIG = define_config(
    "config",
    "FILE.py:NETWORK or FILE.py:NETWORK,tiny, from experiments/configs; NETWORK may be "
    "MODULE:FUNCTION of your own. --config.NAME=VALUE changes a setting; lists are a,b or "
    "('a','b'). The learning rate, weight decay, momentum and default_rate may be lists, too.",
)
WORKDIR = define_folder(
    "workdir",
    None,
    "Folder for tables, figures and checkpoints, created if missing.",
    required=True,
)
DATA_DIR = define_folder(
    "data_dir", None, "Folder of prepared data sets; by default TFDS_DATA_DIR, or the TFDS default."
)

SLICE = flags.DEFINE_string(
    "slice",
    None,
    "i/n: run only part i (from 0) of n of the sweep; tools.collect joins the parts.",
)
MAX_MEMORY = flags.DEFINE_float(
    "max_memory",
    None,
    "Memory limit of this process in GB, by default what is free. A population that needs more "
    "trains in groups, with the same results.",
    lower_bound=0.0,
)
CHECKPOINT_MINUTES = flags.DEFINE_float(
    "checkpoint_minutes",
    SAVE_EVERY / 60,
    "Minutes between autosaves of the training in progress: about as much work as a kill loses.",
    lower_bound=0.0,
)
TENSORBOARD = flags.DEFINE_bool(
    "tensorboard",
    False,
    "Write results, learning curves and figures for TensorBoard into WORKDIR/tensorboard, part by "
    "part; needs pip install -e '.[tensorboard]'.",
)
LOG_TO = flags.DEFINE_string(
    "log_to",
    None,
    "MODULE:FUNCTION of your own that logs each part elsewhere; see docs/how_to/watch_a_run.md.",
)
COMPILATION_CACHE = define_folder(
    "compilation_cache",
    None,
    "Folder that caches compiled programs for later runs; do not share it between unlike machines.",
)
DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Train one population on the devices of several processes, all started by the same command. On "
    "SLURM, Kubernetes, Open MPI and TPU pods they find each other; elsewhere, set --coordinator.",
)
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT where the other processes reach process 0, for --distributed."
)
NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "Number of processes, for --distributed.", lower_bound=1
)
PROCESS_INDEX = flags.DEFINE_integer(
    "process_index", None, "Index of this process, from 0, for --distributed.", lower_bound=0
)

ALLOW_CODE_CHANGE = define_allow_code_change()
flags.declare_key_flag(ALLOW_CODE_CHANGE.name)

refuse_nan(MAX_MEMORY, CHECKPOINT_MINUTES)

# Where and how to run. These flags affect no row, so the recorded command omits them.
PLACES = (
    WORKDIR,
    DATA_DIR,
    SLICE,
    MAX_MEMORY,
    CHECKPOINT_MINUTES,
    COMPILATION_CACHE,
    TENSORBOARD,
    LOG_TO,
    DISTRIBUTED,
    COORDINATOR,
    NUM_PROCESSES,
    PROCESS_INDEX,
    ALLOW_CODE_CHANGE,
)


def main(arguments: list[str]) -> None:
    """Check all input, run the experiment, draw its figures and print a summary."""
    if len(arguments) > 1:
        sys.exit(f"error: unknown argument {arguments[1]!r}; flags start with --.")
    logging.set_verbosity(logging.FATAL)  # libraries also raise what they log; report it only once
    config = CONFIG.value
    with contextlib.ExitStack() as stack:
        try:
            _start_processes()
            _use_compilation_cache()
            runner = find_runner(config)
            plan = runner.make_plan(config, DATA_DIR.value, SLICE.value)
            draw = find_figure(config.figure, runner.COLUMNS)
            several = hyperparameters.swept(plan.config, runner.NUMBERS)
            listeners = tuple(_listeners(config.figure, draw, several))
            if processes.is_first():
                stack.enter_context(locks.hold(Path(WORKDIR.value)))
            folder = _open_folder(plan)._replace(listeners=listeners)
        except (ValueError, TypeError, OSError) as error:
            fail(error)
        stopping.stop_on_signals()
        limits = _max_memory(), 60 * CHECKPOINT_MINUTES.value
        try:
            rows = runner.run(plan, folder, _command(), *limits)
            if processes.is_first():
                _report(rows, folder.path, config.figure, draw)
        except MemoryError as error:
            fail(error)
        except locks.Lost as error:
            _end_at_once(f"error: {error}")
        except OSError as error:
            hint = "finished work is kept; run the same command to continue"
            _end_at_once(f"error: {last_line(error)}; {hint}")
        except KeyboardInterrupt:
            _end_at_once("stopped at once; run the same command to continue from the last save")
        except stopping.Stopped:
            processes.say("stopped; run the same command to continue")
            sys.exit(stopping.EXIT_CODE)


def _open_folder(plan: Plan) -> RunFolder:
    """Open the folder of the run, and say if other people will not find its code."""
    file = config_file(CONFIG)
    own = file if file and brings_code(file) else None
    config = plan.config.recorded()
    code = identify_with(own, config, plan.problem.dataset)
    if code.uncommitted:
        files = ", ".join(code.uncommitted[:3]) + ", ..." * (len(code.uncommitted) > 3)
        processes.say(
            f"uncommitted changes in {files}: tools.collect refuses rows of this code until it is "
            "committed"
        )
    return run_folder.open_workdir(
        WORKDIR.value,
        config,
        SLICE.value,
        plan.problem.dataset.checksum(),
        code,
        allow_code_change=ALLOW_CODE_CHANGE.value,
    )


def _listeners(figure: str, draw: Callable, several: Sequence[str]) -> Iterator[Listener]:
    """Yield what the flags ask to hear of every part."""
    if TENSORBOARD.value:
        board = tensorboard.Board(Path(WORKDIR.value), figure, draw, several)
        yield _explained("--tensorboard", board, tensorboard.__name__)
    if name := LOG_TO.value:
        own = by_name.find("listener", name, ("part",))
        yield _explained(f"the listener {name}", own, by_name.module_of(name))


def _explained(what: str, listener: Listener, module: str) -> Listener:
    """Return a listener whose errors say in one line where they come from."""

    def explained(part: Part) -> None:
        with by_name.explained(what, module):
            listener(part)

    return explained


def _end_at_once(message: str) -> NoReturn:
    """End with exit status 1 without waiting: after a failed save, Orbax's threads may deadlock."""
    processes.say(message)
    sys.stdout.flush()
    os._exit(1)


def _report(rows: list[results.Row], workdir: Path, name: str, draw: Callable) -> None:
    figure = workdir / "figures" / f"{name}.png"
    save(draw(rows), figure)
    if convergence := FIGURES.get(f"{name}_convergence"):
        save(convergence(rows), figure.with_stem(f"{name}_convergence"))
    if analysed := results.read_rows(workdir / mask_analysis.FILE, mask_analysis.COLUMNS):
        save(mask_figure.draw(analysed), figure.with_stem("mask_analysis"))
    if (curves := workdir / learned.CURVES).exists():
        _draw_curves(curves, " on ".join(setting(rows)), figure.with_stem("learning_curves"))
    console = Console()
    console.print(summary(rows, console.width))
    for kind, path in (("table", workdir / "results.csv"), ("figure", figure)):
        console.print(f"{kind:<7}{path}", highlight=False, soft_wrap=True)


def _draw_curves(curves: Path, about: str, figure: Path) -> None:
    try:
        drawn = learning_curves.draw(results.read_curves(curves), about)
    except ValueError as error:  # named when the run was opened; the table does not need them
        processes.say(f"{error}; {figure.name} is not drawn")
    else:
        save(drawn, figure)


def _start_processes() -> None:
    arguments = (COORDINATOR.value, NUM_PROCESSES.value, PROCESS_INDEX.value)
    if DISTRIBUTED.value:
        processes.start(*arguments)
    elif any(argument is not None for argument in arguments):
        raise ValueError("--coordinator, --num_processes and --process_index need --distributed.")


def _use_compilation_cache() -> None:
    if COMPILATION_CACHE.value:
        jax.config.update("jax_compilation_cache_dir", COMPILATION_CACHE.value)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _max_memory() -> float | None:
    """Return the value of --max_memory in bytes."""
    return None if MAX_MEMORY.value is None else 1e9 * MAX_MEMORY.value


def without(words: Sequence[str], dropped: Sequence[flags.FlagHolder]) -> list[str]:
    """Return the words of a command line without some flags and their values.

    Args:
      words: the command line, without the program.
      dropped: the flags to remove, as ``--flag=value``, ``--flag value`` or a bare boolean.
    """
    names = {flag.name for flag in dropped}
    left = iter(words)
    kept = []
    for word in left:
        name, has_value, _ = word.lstrip("-").partition("=")
        if name not in names:
            kept.append(word)
        elif not has_value and not flags.FLAGS[name].boolean:
            next(left, None)
    return kept


def _command() -> str:
    """Return the command that was typed, without `PLACES`."""
    return shlex.join(["python", "-m", "experiments.run", *without(sys.argv[1:], PLACES)])


def _one_device_per_core() -> None:
    """Make one JAX device per CPU core, so that members train in parallel.

    Must run before any other use of JAX.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        has_affinity = hasattr(os, "sched_getaffinity")  # not on macOS
        cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count()
        jax.config.update("jax_num_cpu_devices", cores or 1)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    _one_device_per_core()
    run_program(main)
