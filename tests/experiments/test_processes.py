"""One population on two processes with two devices each, connected by the loopback interface."""

import os
import socket

import pytest

from experiments import processes
from experiments.runners import iterative
from experiments.storage import results
from tests.experiments import command_lines, tiny

CONFIG = "--config=experiments/configs/mask_criteria.py:lenet300,tiny"
NUM_PROCESSES = 2

# Runs experiments.run and writes what Python prints to a file: Gloo prints to the terminal itself.
PRINTING = """
import jax, runpy, sys
sys.stdout = open(sys.argv[1], "w")
sys.argv[:2] = ["run"]
try:
    runpy.run_module("experiments.run", run_name="__main__", alter_sys=True)
finally:
    jax.distributed.shutdown()
"""


def run_together(folder, *arguments):
    """Run all processes to the end and return the lines that each prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = [
        CONFIG, f"--config.variants={tiny.VARIANTS}", f"--workdir={folder / 'run'}",
        "--distributed", f"--coordinator=127.0.0.1:{port}", f"--num_processes={NUM_PROCESSES}",
        *arguments,
    ]  # fmt: skip
    printed = [folder / f"printed_{index}" for index in range(NUM_PROCESSES)]
    commands = [
        ("run", str(file), *flags, f"--process_index={index}") for index, file in enumerate(printed)
    ]
    xla_flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", xla_flags)
        ends = command_lines.forks(commands, PRINTING)
    assert [end.returncode for end in ends] == [0, 0], ends
    return [file.read_text().splitlines() for file in printed]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """A run of two processes that ends after round 1 and is resumed."""
    folder = tmp_path_factory.mktemp("together")
    run_together(folder, "--config.num_rounds=1")
    return folder / "run", run_together(folder)


def test_processes_make_the_table_that_one_makes(together):
    workdir, _ = together
    rows = results.read_rows(workdir / "results.csv", iterative.COLUMNS)
    alone = results.read_rows(tiny.finished() / "results.csv", iterative.COLUMNS)
    for row in (*rows, *alone):
        del row["command"]
    assert rows == alone


def test_only_the_first_process_speaks(together):
    _, (first, second) = together
    assert any("4 members, 4 side by side on 4 devices; 1 round;" in line for line in first)
    assert first[-2].startswith("table") and first[-1].startswith("figure")
    assert not second


def test_a_process_that_finds_no_cluster_asks_for_the_flags():
    with pytest.raises(ValueError, match="give --coordinator, --num_processes and --process_index"):
        processes.start(None, None, None)
