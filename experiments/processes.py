"""One experiment over many processes: who they are, and which of them speaks."""

import re
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils


def start(coordinator: str | None, count: int | None, index: int | None) -> None:
    """Join the processes of a run; must precede any other use of JAX.

    On SLURM, Kubernetes, Open MPI and TPU pods JAX finds all three arguments itself.

    Args:
      coordinator: ``host:port`` of process 0.
      count: how many processes there are.
      index: which of them this is.

    Raises:
      ValueError: if something is missing that JAX cannot find, or does not fit together.
    """
    if coordinator is not None and not re.fullmatch(r".+:[0-9]+", coordinator):
        raise ValueError(f"--coordinator is {coordinator!r}, expected HOST:PORT.")
    if count is not None and index is not None and index >= count:
        raise ValueError(f"--process_index is {index}, expected less than --num_processes={count}.")
    try:
        jax.distributed.initialize(coordinator, count, index)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"--distributed: {error} Outside of a cluster that JAX knows give --coordinator, "
            "--num_processes and --process_index."
        ) from error


def any_of(answer: bool) -> bool:
    """Whether the answer of any process is yes; all of them must ask."""
    return bool(max(_answers(float(answer))))


def least(number: float) -> float:
    """The smallest number of all processes; all of them must ask."""
    return min(_answers(number))


def _answers(number: float) -> list[float]:
    if jax.process_count() == 1:
        return [number]
    return multihost_utils.process_allgather(np.float32(number)).tolist()


def meet() -> None:
    """Wait until all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("meet")


def is_first() -> bool:
    """Whether this process prints and writes tables; there is one such in every run."""
    return jax.process_index() == 0


def say(text: str) -> None:
    """A line for the user, from one process only, on standard error."""
    if is_first():
        print(text, file=sys.stderr, flush=True)
