import io
from pathlib import Path

import pytest
from rich.console import Console

from experiments.engine import progress
from experiments.engine.progress import RoundProgress
from tests.experiments import command_lines

ROWS = [{"density": 0.5, "test_accuracy": 0.9}, {"density": 0.5, "test_accuracy": float("nan")}]
COMMANDS = (
    "experiments.run", "experiments.datasets", "tools.report", "tools.figure", "tools.plane",
    "tools.launch", "tools.collect", "tools.rerun", "tools.ticket", "tools.benchmark",
)  # fmt: skip


class Clock:
    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def text():
    return io.StringIO()


def make(text, num_rounds, member_steps, **more):
    return RoundProgress(num_rounds, member_steps, Console(file=text, width=200), **more)


def test_the_time_left_does_not_count_the_compilation_of_the_first_chunk(clock, text):
    with make(text, 1, 1000) as bar:
        bar.start_round(0)
        for seconds, steps in ((300, 100), (61, 100), (61, 200)):
            clock.now += seconds
            bar.advance(steps)
    # 61 seconds for 100 steps, then 61 for 200: the lower median of two.
    assert text.getvalue().splitlines() == [
        "10% done",
        "20% done, 0:08:08 left",
        "40% done, 0:03:03 left",
    ]


def test_the_time_left_does_not_count_what_is_done_between_trainings(clock, text):
    with make(text, 1, 300) as bar:
        for number in range(2):
            bar.start_round(number)
            clock.now += 1000
            bar.advance(0)
            clock.now += 70
            bar.advance(100)
    assert "33% done, 0:02:20 left" in text.getvalue()
    assert "67% done, 0:01:10 left" in text.getvalue()


def test_rounds_of_one_chunk_have_an_estimate_from_the_second_on(clock, text):
    with make(text, 2, 300) as bar:
        for number in range(3):
            bar.start_round(number)
            clock.now += 50 if number == 0 else 10
            bar.advance(100)
            bar.advance(0)
            bar.finish_round(number, ROWS)
    first, second, last = text.getvalue().splitlines()
    assert "50.0 s  1 diverged" in first and "left" not in first
    assert "10.0 s  0:00:10 left  1 diverged" in second
    assert "left" not in last
    assert first.startswith(
        "round  0/2  2 results   50.00% of the weights  mean test accuracy 90.0"
    )


def test_steps_of_an_earlier_process_take_no_time_and_are_reported_once(clock, text):
    with make(text, 1, 1000) as bar:
        bar.announce_resumed(Path("runs/x"), 1)
        bar.start_round(1)
        bar.advance(300, before=True)
        bar.advance(100, before=True)
        for _ in range(3):
            clock.now += 70
            bar.advance(100)
    assert text.getvalue().splitlines() == [
        "resuming runs/x at round 1 of 1",
        "resuming the training in progress",
        "50% done",
        "60% done, 0:04:40 left",
        "70% done, 0:03:30 left",
    ]


def test_a_finished_run_says_so(text):
    progress.announce_finished(Path("runs/x"), Console(file=text))
    assert text.getvalue() == "runs/x is complete\n"


def test_the_bar_shows_the_same_estimate(clock, text):
    console = Console(file=text, width=200, force_terminal=True, legacy_windows=False)
    with RoundProgress(1, 1000, console) as bar:
        bar.start_round(1)
        for seconds in (300, 50):
            clock.now += seconds
            bar.advance(100)
    assert "2 member-steps/s  0:06:40 left" in text.getvalue()


def test_help_ends_with_exit_status_0():
    commands = [(name, flag) for name in COMMANDS for flag in ("--help", "--helpfull")]
    commands += [("experiments.run", "--helpshort"), ("experiments.run", "--workdir=x", "--help")]
    for command, (status, output) in zip(commands, command_lines.answers(commands), strict=True):
        assert status == 0, command
        assert "flags:" in output and "Traceback" not in output
