"""Progress of long work: a live bar on a terminal, and a line per round."""

import math
import statistics
import time
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from experiments import processes
from experiments.storage.results import Row

SECONDS_PER_LINE = 60
RECENT = 20  # chunks whose median rate gives the time left


def announce_finished(workdir: Path, console: Console | None = None) -> None:
    """Print that all results of a run are on disk already.

    Args:
      workdir: the folder of the run.
      console: where to write; by default standard output, on process 0 only.
    """
    _print(console or _console(), f"{workdir} is complete")


class RoundProgress:
    """Shows the round, the rate in member-steps per second and the time left.

    The rate is the median of the last `RECENT` chunks. A chunk counts from the call of `advance`
    before it. So what is compiled before a training's call of ``advance(0)`` does not count, nor
    does the first chunk of work that makes no such call.

    Args:
      num_rounds: the number of the last round.
      member_steps: the steps of all members in all rounds still to train.
      console: where to write; by default standard output, on process 0 only.
      noun: the word for a round.
      unit: the word for a step.
    """

    def __init__(
        self,
        num_rounds: int,
        member_steps: int,
        console: Console | None = None,
        noun: str = "round",
        unit: str = "member-step",
    ) -> None:
        self._console = console or _console()
        self._num_rounds = num_rounds
        self._total = member_steps
        self._done = 0
        self._noun, self._unit = noun, unit
        self._round_start = self._last_line = time.monotonic()
        self._last_chunk: float | None = None
        self._seconds_per_step: deque[float] = deque(maxlen=RECENT)
        self._is_resumed = False  # the training in progress
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[speed]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=member_steps, speed="")

    def __enter__(self) -> "RoundProgress":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def announce(self, text: str) -> None:
        """Print a line above the bar."""
        _print(self._console, text)

    def announce_resumed(self, workdir: Path, number: int, last: int | None = None) -> None:
        """Print the round at which a run resumes.

        Args:
          workdir: the folder of the run.
          number: the first round that is not complete on disk.
          last: the number of the last round, if it differs from `num_rounds`.
        """
        last = self._num_rounds if last is None else last
        self.announce(f"resuming {workdir} at {self._noun} {number} of {last}")

    def start_round(self, number: int) -> None:
        """Show which round is in progress."""
        self._round_start = time.monotonic()
        self._is_resumed = False
        self._bar.update(self._task, description=f"{self._noun} {number}/{self._num_rounds}")

    def advance(self, member_steps: int, *, before: bool = False) -> None:
        """Count steps as done; without a bar, print a line every `SECONDS_PER_LINE`.

        Args:
          member_steps: the steps done since the last call; 0 starts the clock.
          before: they were done before the run was resumed, and took none of its time.
        """
        now = time.monotonic()
        self._done += member_steps
        if before:
            self._announce_under_way()
        else:
            self._measure(member_steps, now)
        self._bar.update(self._task, advance=member_steps, speed=self._speed())
        if self._bar.disable and now - self._last_line > SECONDS_PER_LINE:
            self._last_line = now
            self.announce(", ".join([f"{self._done / self._total:.0%} done", *self._left()]))

    def finish_round(self, number: int, rows: Sequence[Row]) -> None:
        """Print a summary line of a round whose results are on disk.

        Args:
          number: the number of the round.
          rows: its rows, with ``density`` and ``test_accuracy``; NaN accuracies count as diverged.
        """
        now = time.monotonic()
        self._last_line = now
        density = sum(row["density"] for row in rows) / len(rows)
        accuracies = [row["test_accuracy"] for row in rows if math.isfinite(row["test_accuracy"])]
        accuracy = sum(accuracies) / max(len(accuracies), 1)
        diverged = len(rows) - len(accuracies)
        parts = [
            f"{self._noun} {number:>2}/{self._num_rounds}",
            f"{len(rows)} results",
            f"{density:7.2%} of the weights",
            f"mean test accuracy {accuracy:.2%}",
            f"{now - self._round_start:.1f} s",
            *self._left(),
        ]
        parts += [f"{diverged} diverged"] if diverged else []
        self.announce("  ".join(parts))

    def _announce_under_way(self) -> None:
        """Report a resumed training once, although every group of its members calls this."""
        if not self._is_resumed:
            self.announce("resuming the training in progress")
        self._is_resumed = True

    def _measure(self, member_steps: int, now: float) -> None:
        if member_steps and self._last_chunk is not None:
            self._seconds_per_step.append((now - self._last_chunk) / member_steps)
        self._last_chunk = now

    def _left(self) -> list[str]:
        """Return the time left as text; an empty list if it is unknown or zero."""
        left = self._total - self._done
        if not self._seconds_per_step or not left:
            return []
        seconds = statistics.median_low(self._seconds_per_step) * left
        return [f"{timedelta(seconds=round(seconds))} left"]

    def _speed(self) -> str:
        """Return the rate and the time left as text for the bar; empty if they are unknown."""
        if not self._seconds_per_step:
            return ""
        rate = 1 / max(statistics.median_low(self._seconds_per_step), 1e-9)
        return "  ".join([f"{rate:,.0f} {self._unit}s/s", *self._left()])


def _console() -> Console:
    """Return a console for standard output, which is quiet except on process 0."""
    return Console(quiet=not processes.is_first())


def _print(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)
