"""Running many command lines in forks of one process, which imports the packages only once."""

import atexit
import functools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess

ROOT = Path(__file__).resolve().parents[2]

SERVER = """
import json, os, resource, runpy, sys, tempfile, threading, traceback, warnings
import experiments.plots, experiments.runners.registry, experiments.tables.summary
import sklearn.datasets
from absl import app
from experiments.engine import forecast
from experiments.storage.code import identify
from matplotlib.figure import Figure
from ml_collections import config_flags

warnings.simplefilter("ignore")
forecast.PRODUCT = 64  # measuring the speed takes a second otherwise
identify()  # reads all sources, which takes a third of a second, once
savefig = Figure.savefig  # a picture of 200 dpi takes twice as long
Figure.savefig = lambda *arguments, **options: savefig(*arguments, **options | {"dpi": 20})

def run(code, words, environment, file_size):
    os.environ.clear()
    os.environ.update(environment)
    if file_size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    sys.argv = words
    try:
        exec(code, {"__name__": "__main__"})
        status = 0
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        status = traceback.format_exc()
    # Exit as Python does, but without its teardown, which takes most of the time.
    if isinstance(status, str):
        print(status, file=sys.stderr)
        status = 1
    threading._shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

def start(request):
    out, err = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")
    if not (child := os.fork()):
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        run(*request)
    return child, out, err

def finish(child, out, err):
    with out, err:
        _, status = os.waitpid(child, 0)
        out.seek(0)
        err.seek(0)
        return os.waitstatus_to_exitcode(status), out.read(), err.read()

for requests in sys.stdin:
    started = [start(request) for request in json.loads(requests)]
    print(json.dumps([finish(*child) for child in started]), flush=True)
"""

MODULE = """
import runpy, sys
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""

# Runs experiments.run, which sends itself a signal when the first state of a training is on disk.
SIGNALLED = """
import os, runpy, sys
from experiments.storage.autosave import Autosave

number, save = int(sys.argv[1]), Autosave.save_if_due

def save_and_signal(self, *arguments, **options):
    Autosave.save_if_due = save
    save(self, *arguments, **options)
    os.kill(os.getpid(), number)

Autosave.save_if_due = save_and_signal
sys.argv[:2] = ["run"]
runpy.run_module("experiments.run", run_name="__main__", alter_sys=True)
"""


@functools.cache
def _server() -> subprocess.Popen:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    atexit.register(server.communicate)  # ends it
    return server


def fork(*words: str, code: str = MODULE, file_size: int = 0) -> CompletedProcess[str]:
    """Run a module with arguments, or code, in a fork of a process that has imported the packages.

    Args:
      words: `sys.argv`: by default a module's name and its arguments.
      code: what to run.
      file_size: the largest number of bytes that it may write to a file; 0 is no limit.
    """
    [completed] = forks([words], code, file_size)
    return completed


def forks(
    commands: Sequence[Sequence[str]], code: str = MODULE, file_size: int = 0
) -> list[CompletedProcess[str]]:
    """Run several commands side by side, each in a fork; see `fork`."""
    server = _server()
    requests = [[code, words, dict(os.environ), file_size] for words in commands]
    print(json.dumps(requests), file=server.stdin, flush=True)
    answer = server.stdout.readline()
    assert answer, "the process that forks has ended"
    ends = zip(commands, json.loads(answer), strict=True)
    return [
        CompletedProcess(words, status, out, _without_note(err))
        for words, (status, out, err) in ends
    ]


def _without_note(errors: str) -> str:
    """Drop the note of a run on uncommitted sources, which a developer's checkout may have."""
    lines = errors.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("uncommitted changes in "))


def python(*words: str) -> CompletedProcess[str]:
    """Run Python in the root of the repository and return the completed process."""
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def answers(commands: Sequence[Sequence[str]]) -> list[tuple[int, str]]:
    """Run commands, each a module and its arguments; return their exit statuses and outputs."""
    ends = [fork(*command) for command in commands]
    return [(end.returncode, end.stdout + end.stderr) for end in ends]
