"""Progress of long work: a live bar on a terminal, and a line per round."""

import math
import time
from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from experiments import processes
from experiments.storage.results import Row

SECONDS_PER_LINE = 60


class RoundProgress:
    """Shows the round, the rate in member-steps per second and the time left.

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
        self._console = console or Console(quiet=not processes.is_first())
        self._num_rounds = num_rounds
        self._total = member_steps
        self._done = self._done_before = 0
        self._noun = noun
        self._start = self._round_start = self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            _Rate(unit),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=member_steps)

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
        self._console.print(text, highlight=False, soft_wrap=True)

    def start_round(self, number: int) -> None:
        """Show which round is in progress."""
        self._round_start = time.monotonic()
        self._bar.update(self._task, description=f"{self._noun} {number}/{self._num_rounds}")

    def advance(self, member_steps: int, *, before: bool = False) -> None:
        """Count steps as done; without a bar, print a line every `SECONDS_PER_LINE`.

        Args:
          member_steps: the steps done since the last call.
          before: they were done before the run was resumed, and took none of its time.
        """
        self._done += member_steps
        self._done_before += member_steps * before
        self._bar.advance(self._task, member_steps)
        now = time.monotonic()
        if self._bar.disable and now - self._last_line > SECONDS_PER_LINE:
            self._last_line = now
            self.announce(f"{self._done / self._total:.0%} done, {self._left(now)} left")

    def finish_round(self, number: int, rows: Sequence[Row]) -> None:
        """Print a summary line of a round whose results are on disk."""
        now = time.monotonic()
        self._last_line = now
        density = sum(row["density"] for row in rows) / len(rows)
        accuracies = [row["test_accuracy"] for row in rows if math.isfinite(row["test_accuracy"])]
        accuracy = sum(accuracies) / max(len(accuracies), 1)
        diverged = len(rows) - len(accuracies)
        note = f"  {diverged} diverged" if diverged else ""
        self._console.print(
            f"{self._noun} {number:>2}/{self._num_rounds}  {len(rows)} results  "
            f"{density:7.2%} of the weights  mean test accuracy {accuracy:.2%}  "
            f"{now - self._round_start:.1f} s  {self._left(now)} left{note}",
            highlight=False,
            soft_wrap=True,
        )

    def _left(self, now: float) -> timedelta:
        done_here = max(self._done - self._done_before, 1)
        left = (now - self._start) / done_here * (self._total - self._done)
        return timedelta(seconds=round(left))


class _Rate(ProgressColumn):
    """The steps per second of all members."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f} {self._unit}s/s")
