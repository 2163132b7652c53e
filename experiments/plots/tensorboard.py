"""Results, learning curves and figures for TensorBoard, without TensorFlow.

A member is a run of TensorBoard, so that its charts compare members:

    tensorboard/large_final/seed_0    results/test_accuracy, results/density, ... over the rounds
                                      validation_accuracy/round_03, ... over the steps of a training
    tensorboard/figures               the figure of the experiment, over the number of results

A line between two copies is a run, too, `dense/rewind_step_0/seed_0/copy_0/other_copy_1`, which has
test_accuracy/round_03, ... over its positions in percent.

A part of the table has a file of its name in the folder of each of its members. Files are written
whole and replace those of their name, and a resumed run skips the parts that have theirs. So
nothing is there twice, and parts that were completed without this module are caught up.
"""

import math
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.plots import pixels
from experiments.storage import results
from experiments.storage.files import replace_file
from experiments.storage.listeners import Part
from experiments.storage.records import RESULTS
from experiments.tables.hyperparameters import WORDS

FOLDER = "tensorboard"  # in the folder of a run
EVENTS = "events.out.tfevents"  # TensorBoard looks for such files
AXES = ("round", "power")  # the columns that results are shown over
POSITION = "position"  # on a line between copies
IN_VARIANT = ("criterion", "mask_one", "mask_zero", "weights", "rescale")  # its name tells them

Point = tuple[str, float, int]  # the tag of a chart, a value and its step


class Board:
    """A listener that writes the parts of a run for TensorBoard.

    Args:
      workdir: the folder of the run.
      figure: the name of its figure.
      draw: draws the figure of rows.
      several: the settings that list several numbers, which names of members tell.

    Raises:
      ValueError: if tensorboardX is not installed, or if the folder is a file.
    """

    def __init__(
        self,
        workdir: Path,
        figure: str,
        draw: Callable[[Sequence[results.Row]], Figure],
        several: Sequence[str] = (),
    ) -> None:
        try:
            from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ValueError(
                "--tensorboard: tensorboardX is not installed: pip install -e '.[tensorboard]'"
            ) from None
        if (folder := workdir / FOLDER).exists() and not folder.is_dir():
            raise ValueError(f"--tensorboard: {folder} is a file, expected a folder.")
        self._workdir, self._figure, self._draw = workdir, figure, draw
        self._several = several
        self._open = SummaryWriter

    def __call__(self, part: Part) -> None:
        """Write a part, unless it was found complete and has its files."""
        if part.table.name != RESULTS:
            return
        members = {_member(row, self._several) for row in part.rows}
        if not part.is_new and all(self._file(name, part).exists() for name in members):
            return
        for member, points in _points(part, self._several).items():
            self._write(self._file(member, part), lambda writer, own=points: _add(writer, own))
        if part.table.parent == self._workdir:
            image = self._figure, pixels(self._draw(part.so_far)), len(part.so_far)
            self._write(
                self._file("figures", part),
                lambda writer: writer.add_image(*image, dataformats="HWC"),
            )

    def _file(self, run: str, part: Part) -> Path:
        return self._workdir / FOLDER / run / f"{EVENTS}.{part.name}"

    def _write(self, file: Path, fill: Callable[[Any], None]) -> None:
        def write(temporary: Path) -> None:
            with tempfile.TemporaryDirectory() as folder:
                with self._open(folder) as writer:
                    fill(writer)
                [made] = Path(folder).iterdir()
                shutil.move(made, temporary)

        replace_file(file, write)


def _add(writer: Any, points: Sequence[Point]) -> None:
    for tag, value, step in points:
        writer.add_scalar(tag, value, step)


def _points(part: Part, several: Sequence[str]) -> dict[str, list[Point]]:
    """Return the points of the charts of every member."""
    curves = part.curves()
    names = list(curves)
    metrics = names[names.index("step") + 1 :] if curves else []
    evaluations = len(curves["step"]) // len(part.rows) if curves else 0
    points = defaultdict(list)
    for place, row in enumerate(part.rows):
        own = points[_member(row, several)]
        axis, step = next(((name, row[name]) for name in AXES if name in row), ("", 0))
        training = f"{axis}_{step:02}" if axis else part.name
        for name in ("density", *results.columns_between(row, "density", "code_version")):
            if POSITION in row:
                own += _finite(f"{name}/{training}", [row[name]], [round(100 * row[POSITION])])
            else:
                own += _finite(f"results/{name}", [row[name]], [step])
        chosen = slice(place * evaluations, (place + 1) * evaluations)
        for metric in metrics:
            values = curves[metric][chosen], curves["step"][chosen]
            own += _finite(f"{metric}/{training}", *values)
    return points


def _finite(tag: str, values: Iterable[Any], steps: Iterable[Any]) -> Iterator[Point]:
    """Yield points, but none where a value is missing or a member diverged."""
    for value, step in zip(values, steps, strict=True):
        if math.isfinite(value):
            yield tag, float(value), int(step)


def _member(row: results.Row, several: Sequence[str]) -> str:
    """Return the folder of the member of a row: ``large_final/seed_0``."""
    about = results.columns_between(row, "dataset", "density")
    told = IN_VARIANT if "variant" in row else ()
    left_out = {*AXES, POSITION, *told, *(WORDS.keys() - set(several))}
    words = [
        row[name] if isinstance(row[name], str) else f"{name}_{row[name]}"
        for name in about
        if name not in left_out and row[name] is not None  # as of what a dense network lacks
    ]
    return "/".join(re.sub(r"[^\w.:+-]", "_", word) for word in words)
