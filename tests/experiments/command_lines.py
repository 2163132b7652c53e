"""Running many command lines in forks of one process, which imports the packages only once."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

FORKS = """
import json, os, runpy, sys, tempfile, warnings
import experiments.runners.registry, experiments.plots, experiments.tables.summary
import sklearn.datasets
from absl import app
from ml_collections import config_flags

warnings.simplefilter("ignore")
answers = []
for module, *words in json.load(sys.stdin):
    with tempfile.TemporaryFile("w+") as output:
        if not (child := os.fork()):
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            sys.argv = [module, *words]
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
                status = None
            except SystemExit as end:
                status = end.code
            # Exit as Python does, but without its teardown, which takes most of the time.
            if isinstance(status, str):
                print(status, file=sys.stderr)
            sys.stdout.flush()
            os._exit(1 if isinstance(status, str) else status or 0)
        _, status = os.waitpid(child, 0)
        output.seek(0)
        answers.append((os.waitstatus_to_exitcode(status), output.read()))
json.dump(answers, sys.stdout)
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


def python(*words, **more):
    """Run Python in the root of the repository and return the completed process."""
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **more)


def answers(commands: Sequence[Sequence[str]]) -> list[tuple[int, str]]:
    """Run commands, each a module and its arguments; return their exit statuses and outputs."""
    forks = python("-c", FORKS, input=json.dumps(list(commands)))
    assert forks.returncode == 0, forks.stderr
    return [(status, output) for status, output in json.loads(forks.stdout)]
