import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from experiments.storage import locks
from experiments.storage.autosave import Autosave
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.files import write_json
from tests.bad_input import check_one_line
from tests.experiments import tiny

W = np.arange(3.0)

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


def replace_lock(folder):
    (folder / locks.FILE).unlink()
    (folder / locks.FILE).touch()


def replace_folder(folder):
    folder.rename(folder.with_name("old"))
    folder.mkdir()
    (folder / locks.FILE).touch()


LOSSES = {
    "lock deleted": lambda folder: (folder / locks.FILE).unlink(),
    "lock replaced": replace_lock,
    "folder deleted": shutil.rmtree,
    "folder moved": lambda folder: folder.rename(folder.with_name("new")),
    "folder replaced": replace_folder,
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("linked", [False, True])
def test_nothing_is_written_to_a_folder_that_is_not_the_locked_one(tmp_path, loss, linked):
    folder, real = tmp_path / "run", tmp_path / "real"
    if linked:
        real.mkdir()
        folder.symlink_to(real)
    with locks.hold(folder):
        write_json(folder / "parts" / "one.json", 1)
        LOSSES[loss](real if linked else folder)
        left = sorted(tmp_path.rglob("*"))
        for write in (
            lambda: write_json(folder / "parts" / "two.json", 2),
            lambda: Checkpoints(tiny.folder(folder).below("checkpoints"), 2).save(0, {"w": W}),
            lambda: Autosave(tiny.folder(folder), "own").clear(),
        ):
            with pytest.raises(locks.Lost) as caught:
                write()
            check_one_line(caught.value)
            assert f"{folder / locks.FILE} was moved, deleted or replaced" in str(caught.value)
        assert sorted(tmp_path.rglob("*")) == left
    write_json(folder.with_name("other") / "three.json", 3)


def test_files_elsewhere_are_written_while_a_folder_is_held(tmp_path):
    with locks.hold(tmp_path / "run"):
        shutil.rmtree(tmp_path / "run")
        write_json(tmp_path / "run_2" / "file.json", 1)
        write_json(tmp_path / "file.json", 1)
