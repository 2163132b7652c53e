"""Multi-process runs: startup, synchronisation, and output by process 0 only."""

import re
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils


def start(coordinator: str | None, count: int | None, index: int | None) -> None:
    """Connect this process to the others of the run; must precede any other use of JAX.

    On SLURM, Kubernetes, Open MPI and TPU pods, JAX detects all three arguments.

    Args:
      coordinator: ``host:port`` of process 0, or None to detect it.
      count: the number of processes, or None to detect it.
      index: the index of this process, from 0, or None to detect it.

    Raises:
      ValueError: if the arguments contradict each other, or one is missing and JAX cannot detect
        it.
    """
    match = re.fullmatch(".+:([0-9]{1,5})", coordinator or "host:0")
    if not match or int(match[1]) >= 2**16:
        raise ValueError(f"--coordinator is {coordinator!r}, expected HOST:PORT.")
    if count is not None and index is not None and index >= count:
        raise ValueError(f"--process_index is {index}, expected less than --num_processes={count}.")
    try:
        jax.distributed.initialize(coordinator, count, index)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"--distributed: {error} If JAX does not detect your cluster, give --coordinator, "
            "--num_processes and --process_index."
        ) from error


def any_of(answer: bool) -> bool:
    """Return whether `answer` is True on any process; all processes must call this."""
    return bool(max(_answers(float(answer))))


def least(number: float) -> float:
    """Return the smallest `number` of all processes; all processes must call this."""
    return min(_answers(number))


def _answers(number: float) -> list[float]:
    if jax.process_count() == 1:
        return [number]
    return multihost_utils.process_allgather(np.float32(number)).tolist()


def meet() -> None:
    """Wait until all processes have called this."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("meet")


def is_first() -> bool:
    """Return whether this is process 0, the only one that prints and writes tables."""
    return jax.process_index() == 0


def say(text: str) -> None:
    """Print a line to standard error, on process 0 only."""
    if is_first():
        print(text, file=sys.stderr, flush=True)
