"""One population on two processes with two devices each, connected by the loopback interface."""

import os
import socket
import subprocess
import sys

import pytest

from experiments import processes
from experiments.runners import iterative
from experiments.storage import results
from tests.experiments import tiny

CONFIG = "--config=experiments/configs/mask_criteria.py:lenet300,tiny"
NUM_PROCESSES = 2


def run_together(*arguments):
    """Run all processes to the end and return their outputs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "experiments.run", CONFIG, f"--config.variants={tiny.VARIANTS}",
        "--distributed", f"--coordinator=127.0.0.1:{port}", f"--num_processes={NUM_PROCESSES}",
        *arguments,
    ]  # fmt: skip
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    started = [
        subprocess.Popen(
            [*command, f"--process_index={index}"],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for index in range(NUM_PROCESSES)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=240) for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    return [
        [line for line in stdout.splitlines() if not line.startswith("[Gloo]")]
        for stdout, _ in outputs
    ]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """A run of two processes that ends after round 1 and is resumed."""
    workdir = tmp_path_factory.mktemp("together")
    run_together(f"--workdir={workdir}", "--config.num_rounds=1")
    return workdir, run_together(f"--workdir={workdir}")


def test_processes_make_the_table_that_one_makes(together):
    workdir, _ = together
    rows = results.read_rows(workdir / "results.csv", iterative.COLUMNS)
    alone = results.read_rows(tiny.finished() / "results.csv", iterative.COLUMNS)
    for row in (*rows, *alone):
        del row["command"]
    assert rows == alone


def test_only_the_first_process_speaks(together):
    _, (first, second) = together
    assert "4 members, 4 side by side on 4 devices; 1 round;" in first[0]
    assert first[-2].startswith("table") and first[-1].startswith("figure")
    assert not second


def test_a_process_that_finds_no_cluster_asks_for_the_flags():
    with pytest.raises(ValueError, match="give --coordinator, --num_processes and --process_index"):
        processes.start(None, None, None)
