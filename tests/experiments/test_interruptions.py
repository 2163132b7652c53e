"""Runs that are killed, that cannot write to the disk, or whose folder is in use."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.runners import iterative
from experiments.runners.outcomes import abstract_outcome
from experiments.storage import run_folder
from experiments.storage.checkpoints import Checkpoints
from tests.conftest import SHARED
from tests.experiments import command_lines, tiny
from tests.experiments.test_checkpoints import damage

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "--config=experiments/configs/mask_criteria.py:lenet300,tiny"
# Its masks depend on the trained weights, its weights on random keys, its values on both. The
# population of all rounds is of one size, so that one training is compiled.
VARIANTS = ("large_final:reshuffle:freeze",)
PROGRAMS = SHARED / "programs"
PHASES = {"S": "start", "T": "training", "C": "checkpoint", "R": "rows"}

# Runs experiments.run, writes a letter to a file when a phase begins, and kills itself some time
# after the n-th beginning of a given phase.
DRIVER = """
import os, runpy, signal, sys, threading, time

log, letter, number, delay = open(sys.argv[1], "w"), *sys.argv[2:5]
number, delay = int(number), float(delay)
sys.setswitchinterval(1e-5)
left = number
durations = open(sys.argv[5], "w")

def kill():
    time.sleep(delay)
    os.kill(os.getpid(), signal.SIGKILL)

def enter(phase):
    global left
    print(phase, end="", file=log, flush=True)
    left -= phase == letter
    if phase == letter and left == 0:
        threading.Thread(target=kill, daemon=True).start()

def mark(owner, name, phase):
    plain = getattr(owner, name)
    def marked(*arguments, **options):
        before, phases[:] = phases[:], [phase]
        enter(phase)
        start = time.monotonic()
        try:
            return plain(*arguments, **options)
        finally:
            print(phase, time.monotonic() - start, file=durations, flush=True)
            phases[:] = before
            print(phases[0], end="", file=log, flush=True)
    setattr(owner, name, marked)

phases = ["S"]
enter("S")
from experiments.engine import trainer
from experiments.storage import checkpoints, records, results
mark(trainer.Trainer, "_train_group", "T")
mark(checkpoints.Checkpoints, "save", "C")
mark(results, "write_curves", "R")
mark(records.Records, "add", "R")
sys.argv = ["run", *sys.argv[6:]]
runpy.run_module("experiments.run", run_name="__main__", alter_sys=True)
"""


def checkpoints_of(workdir):
    return Checkpoints(run_folder.existing(workdir).below("checkpoints"), keep=2)


class Sweep:
    """A small sweep to run many times."""

    def __init__(self, folder):
        self.folder = folder
        self.flags = [
            CONFIG, f"--config.variants={VARIANTS}", "--config.chunk_evals=1",
            "--checkpoint_minutes=0", f"--compilation_cache={PROGRAMS}",
        ]  # fmt: skip
        self.whole = folder / "whole"
        status, _ = self.drive(self.whole, "-", 0, 0.0)
        assert status == 0
        lines = [line.split() for line in (folder / "durations").read_text().splitlines()]
        self.durations = {
            phase: [float(seconds) for name, seconds in lines if name == phase] for phase in "TCR"
        }
        self.durations["S"] = [self.seconds]

    def drive(self, workdir, letter, number, delay):
        """Run the sweep and kill it in a phase; return its exit status and its phases."""
        log, durations = self.folder / "phases", self.folder / "durations"
        start = time.monotonic()
        run = command_lines.fork(
            "run", str(log), letter, str(number), str(delay), str(durations), *self.flags,
            f"--workdir={workdir}", code=DRIVER,
        )  # fmt: skip
        self.seconds = time.monotonic() - start
        assert run.returncode in (0, -signal.SIGKILL), run.stderr
        return run.returncode, log.read_text()

    def check_part(self, workdir):
        """Check that every row of the table equals that of the uninterrupted run."""
        table = workdir / "results.csv"
        whole = (self.whole / "results.csv").read_bytes()
        assert not table.exists() or whole.startswith(table.read_bytes())

    def check_whole(self, workdir):
        """Check that table, masks and weights equal those of the uninterrupted run bit for bit."""
        assert (workdir / "results.csv").read_bytes() == (self.whole / "results.csv").read_bytes()
        plan = iterative.make_plan(tiny.config(variants=VARIANTS))
        outcomes = [
            checkpoints_of(folder).load(2, abstract_outcome(plan, 2))
            for folder in (workdir, self.whole)
        ]
        jax.tree.map(np.testing.assert_array_equal, *outcomes)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return Sweep(tmp_path_factory.mktemp("sweep"))


@pytest.mark.parametrize(
    ("kills", "in_each"), [(4, 1), pytest.param(20, 3, marks=pytest.mark.slow)]
)
def test_kills_at_any_moment_leave_no_trace(sweep, tmp_path, kills, in_each):
    chance = random.Random(kills)
    counts = dict.fromkeys(PHASES, 0)
    attempt, workdir = 0, tmp_path / "0"
    while sum(counts.values()) < kills or min(counts.values()) < in_each:
        letter = min(counts, key=lambda phase: (counts[phase], chance.random()))
        attempt += 1
        assert attempt < 6 * kills
        number = chance.randint(1, 2)
        delay = chance.random() * max(sweep.durations[letter]) * (0.5 if letter == "S" else 0.9)
        delay *= attempt < 3 * kills  # on a machine whose speed varies, kill as the phase begins
        status, phases = sweep.drive(workdir, letter, number if letter != "S" else 1, delay)
        if status == 0:
            sweep.check_whole(workdir)
            workdir = tmp_path / str(attempt)
            continue
        counts[phases[-1]] += 1
        print(f"kill {sum(counts.values())}: {PHASES[phases[-1]]}, after {phases}")
        sweep.check_part(workdir)
    status, _ = sweep.drive(workdir, "-", 0, 0.0)
    assert status == 0
    sweep.check_whole(workdir)
    assert not (workdir / "under_way").exists()


def launch(workdir, code=command_lines.MODULE, file_size=0):
    flags = [CONFIG, f"--config.variants={VARIANTS}", "--config.num_rounds=1"]
    flags.append("--config.chunk_evals=1")  # the programs of the sweep
    flags += [f"--compilation_cache={PROGRAMS}", f"--workdir={workdir}"]
    return command_lines.fork("experiments.run", *flags, code=code, file_size=file_size)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The table of an uninterrupted run by `launch`."""
    workdir = tmp_path_factory.mktemp("uninterrupted")
    assert launch(workdir).returncode == 0
    return (workdir / "results.csv").read_bytes()


def check_error(run, *words):
    assert run.returncode == 1
    assert len(run.stderr.splitlines()) == 1, run.stderr
    assert run.stderr.startswith("error: ") and all(word in run.stderr for word in words)


def test_a_full_quota_is_reported_and_the_run_resumes_later(tmp_path, uninterrupted):
    run = launch(tmp_path, file_size=400 * 512)
    assert run.returncode == 1
    # The disk has enough space, so Orbax starts to write, and its threads may print, too.
    assert f"error: cannot save {tmp_path}" in run.stderr
    assert "finished work is kept; run the same command to continue" in run.stderr
    assert launch(tmp_path).returncode == 0
    assert (tmp_path / "results.csv").read_bytes() == uninterrupted


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no small file system can be mounted here: {error}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_reported_and_the_run_resumes_later(small_disk, uninterrupted):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(small_disk.stat().st_blksize * 16200))  # about 500 kB stay free
    run = launch(small_disk / "run")
    check_error(run, "cannot save", "finished work is kept; run the same command to continue")
    ballast.unlink()
    assert launch(small_disk / "run").returncode == 0
    assert (small_disk / "run" / "results.csv").read_bytes() == uninterrupted


# Runs a module without the right of root to pass over the permissions of files (capabilities 1
# and 2, of Linux).
OBEYING = """
import ctypes, os

libc = ctypes.CDLL(None, use_errno=True)
header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
if not os.getuid():
    assert not libc.capget(header, sets), os.strerror(ctypes.get_errno())
    sets[0] &= ~0b110  # the effective ones
    assert not libc.capset(header, sets), os.strerror(ctypes.get_errno())
"""


@pytest.mark.skipif(
    not os.getuid() and sys.platform != "linux", reason="root can write anywhere here"
)
def test_a_read_only_folder_is_reported_and_the_run_resumes_later(tmp_path, uninterrupted):
    code = OBEYING + command_lines.MODULE
    tmp_path.chmod(0o500)
    check_error(launch(tmp_path / "run", code), "Permission denied", str(tmp_path / "run"))
    check_error(launch(tmp_path, code), "Permission denied", str(tmp_path))
    tmp_path.chmod(0o700)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True, mode=0o500)
    check_error(launch(tmp_path / "run", code), "cannot save", "run the same command")
    (tmp_path / "run" / "checkpoints").chmod(0o700)
    assert launch(tmp_path / "run").returncode == 0
    assert (tmp_path / "run" / "results.csv").read_bytes() == uninterrupted


@pytest.fixture
def paused(sweep, tmp_path):
    """A run in a process that is stopped while it trains, and its flags."""
    flags = [*sweep.flags, f"--workdir={tmp_path / 'run'}"]
    command = [sys.executable, "-c", command_lines.SIGNALLED, str(int(signal.SIGSTOP)), *flags]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as first:
        os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert (tmp_path / "run" / "under_way").exists()
        yield first, flags


def test_a_second_process_is_refused_and_the_first_is_named(sweep, tmp_path, paused):
    first, flags = paused
    second = command_lines.fork("experiments.run", *flags)
    check_error(second, f"{tmp_path / 'run'} is in use by process {first.pid} on ")
    first.send_signal(signal.SIGCONT)
    assert first.wait() == 0
    sweep.check_whole(tmp_path / "run")


def test_a_run_whose_folder_became_another_runs_stops_and_leaves_it_alone(tmp_path, paused):
    first, flags = paused
    run = tmp_path / "run"
    shutil.rmtree(run)
    other = command_lines.fork("experiments.run", *flags, "--config.seeds=(2,3)")
    assert other.returncode == 0, other.stderr
    left = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    first.send_signal(signal.SIGCONT)
    errors = first.stderr.read().splitlines()
    assert first.wait() == 1
    assert errors[-1].startswith(f"error: {run / 'lock'} was moved, deleted or replaced while")
    assert left == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("files", "how", "again"),
    [
        ("results.csv", "cut", set()),
        ("parts/results/round_02.json", "flipped", {2}),
        ("parts/results/round_01.json", "emptied", {1, 2}),
        ("checkpoints/round_02/**/manifest.ocdbt", "deleted", {2}),
        ("checkpoints/round_*/**/manifest.ocdbt", "flipped", {0, 1, 2}),
    ],
)
def test_damage_costs_time_but_no_row(tmp_path, monkeypatch, capsys, files, how, again):
    whole = tiny.finished()
    shutil.copytree(whole, tmp_path / "run")
    for path in (tmp_path / "run").glob(files):
        damage(path, how)
    trained, train = set(), iterative.Laboratory.train

    def counting(self, round, *arguments):
        trained.add(round)
        return train(self, round, *arguments)

    monkeypatch.setattr(iterative.Laboratory, "train", counting)
    tiny.run(tmp_path / "run", tiny.config())
    table = (tmp_path / "run" / "results.csv").read_bytes()
    assert table == (whole / "results.csv").read_bytes()
    assert trained == again
    assert str(tmp_path / "run") in capsys.readouterr().err
