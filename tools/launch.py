"""Run a sweep in slices, one job per slice: as a SLURM array, or side by side on this machine.

    python -m tools.launch --slices=5 --cluster=slurm --partition=gpu --hours=12 --gpus=1 \\
        --config=experiments/configs/mask_criteria.py:conv6 --workdir=runs/conv6

The command takes all flags of `experiments.run`, checks them and submits the run once per slice,
with the folder WORKDIR/slice_I. A job that starts again resumes where it stopped. `tools.collect`
joins the folders into one table.

WORKDIR/logs has what the jobs print, and two pickles per job, which submitit makes: what the job is
to do, which the job loads when it starts, and how it ended, which this program loads with
--cluster=local. Then it deletes both. On SLURM nothing waits for the jobs: delete the pickles when
all have ended.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags, logging

from experiments import run
from experiments.command_line import fail, refuse_nan, run_program
from experiments.runners.registry import find_runner

MOST = 1e6  # hours, and GB
SLICES = flags.DEFINE_integer(
    "slices",
    None,
    "parts of variants x seeds; one per seed trains no dense network twice",
    lower_bound=1,
)
CLUSTER = flags.DEFINE_enum("cluster", "slurm", ["slurm", "local"], "where to run the jobs")
PARALLEL = flags.DEFINE_integer("parallel", 256, "how many SLURM jobs run at once", lower_bound=1)
PARTITION = flags.DEFINE_string("partition", None, "SLURM partition")
HOURS = flags.DEFINE_float("hours", 24, "time limit of a job", 0.1, MOST)
CPUS = flags.DEFINE_integer("cpus", 2, "cores of a job", lower_bound=1)
GPUS = flags.DEFINE_integer("gpus", 0, "GPUs of a job", lower_bound=0)
MEMORY = flags.DEFINE_float("memory_gb", 16, "main memory of a job", 0.1, MOST)
refuse_nan(HOURS, MEMORY)
OWN = (SLICES, CLUSTER, PARALLEL, PARTITION, HOURS, CPUS, GPUS, MEMORY)


def main(arguments: Sequence[str]) -> None:
    """Check the command, submit its slices and, on this machine, wait for them."""
    if len(arguments) > 1:
        sys.exit(f"error: unknown argument {arguments[1]!r}; flags start with --.")
    logging.set_verbosity(logging.WARNING)
    try:
        workdir = run.WORKDIR.value
        if run.SLICE.value is not None:
            raise ValueError("--slice is set by tools.launch; give --slices.")
        runner = find_runner(run.CONFIG.value)
        runner.make_plan(run.CONFIG.value, run.DATA_DIR.value, f"0/{SLICES.value}")
        executor = make_executor(Path(workdir) / "logs")
    except (ValueError, TypeError, OSError) as error:
        fail(error)
    folders = [f"{workdir}/slice_{index}" for index in range(SLICES.value or 0)]
    jobs = submit(executor, folders)
    print(f"{len(jobs)} slices submitted as {jobs[0].job_id.split('_')[0]}")
    failed = CLUSTER.value == "local" and not wait(jobs)
    print(f"to join them: python -m tools.collect {' '.join(folders)} --output=results/NAME")
    if failed:
        sys.exit(1)


def make_executor(logs: Path) -> Any:
    """Return the submitit executor with the resources that the flags name.

    Raises:
      ValueError: if submitit is not installed, or if the cluster is not available here.
    """
    try:
        import submitit
    except ImportError:
        raise ValueError("submitit is not installed: pip install -e '.[slurm]'") from None
    try:
        executor = submitit.AutoExecutor(folder=logs, cluster=CLUSTER.value)
    except RuntimeError as error:
        raise ValueError(f"--cluster={CLUSTER.value}: {error}") from None
    slurm = {"slurm_array_parallelism": PARALLEL.value, "slurm_partition": PARTITION.value}
    executor.update_parameters(
        name="supermask_jax",
        timeout_min=round(60 * HOURS.value),
        cpus_per_task=CPUS.value,
        gpus_per_node=GPUS.value,
        mem_gb=MEMORY.value,
        **({name: x for name, x in slurm.items() if x} if CLUSTER.value == "slurm" else {}),
    )
    return executor


def submit(executor: Any, folders: Sequence[str]) -> list[Any]:
    """Submit one array of jobs, a slice per folder, and return the jobs."""
    from submitit.helpers import CommandFunction

    words = run.without(sys.argv[1:], (*OWN, run.WORKDIR))
    base = [sys.executable, "-m", "experiments.run", *words]
    with executor.batch():
        return [
            executor.submit(
                CommandFunction(
                    [*base, f"--slice={index}/{len(folders)}", f"--workdir={folder}"],
                    cwd=Path.cwd(),
                )
            )
            for index, folder in enumerate(folders)
        ]


def wait(jobs: Sequence[Any]) -> bool:
    """Wait for all jobs, print how each ended and return whether all succeeded."""
    succeeded = True
    for index, job in enumerate(jobs):
        error = job.exception()
        for pickle in (job.paths.submitted_pickle, job.paths.result_pickle):
            pickle.unlink(missing_ok=True)  # on SLURM, jobs that start again still need them
        if error is None:
            print(f"slice {index}/{len(jobs)} finished", flush=True)
        else:
            succeeded = False
            reason = str(error).strip().splitlines()[-1]
            print(f"slice {index}/{len(jobs)} failed: {reason} (see {job.paths.stderr})")
    return succeeded


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "slices"])
    run_program(main)
