import os
import subprocess
import sys

import pytest

from experiments.storage import locks

HOLDER = """
import sys
from pathlib import Path
from experiments.storage import locks
with locks.hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def check_refused(workdir, owner):
    with pytest.raises(
        ValueError, match=f"{workdir.name} is in use by process {owner} on .* since"
    ):
        locks.hold(workdir).__enter__()


def test_a_second_holder_is_refused_and_the_first_is_named(tmp_path):
    with locks.hold(tmp_path / "new"):
        check_refused(tmp_path / "new", os.getpid())
    with locks.hold(tmp_path / "new"):
        pass


def test_a_killed_process_releases_its_lock(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as holder:
        assert holder.stdout.readline() == "held\n"
        check_refused(tmp_path, holder.pid)
        holder.kill()
    with locks.hold(tmp_path):
        pass
