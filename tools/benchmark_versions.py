"""Measure runs of this checkout against those of another one, in turn, and compare what they write.

    git worktree add ../before 3f8b09a
    python -m tools.benchmark_versions ../before --table=results/benchmark_versions

Every turn runs each command of `RUNS` in both checkouts, first in the other, with an empty workdir
and this Python; the seconds are those of the whole command, their median is shown, and ratios are
computed within each turn. Before that, each checkout runs once with a cache of compiled programs,
whose size is the number of programs. Rows are compared to the last digit, in the columns that both
versions have, and so are learning curves and the arrays of the last checkpoint.
"""

import argparse
import csv
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from supermask_jax.checks import check_integer, lookup
from tools.benchmark import measurements

# The paper's experiments, short enough to be repeated: by name, the flags of experiments.run.
RUNS = {
    "mask_criteria": "mask_criteria.py:lenet300 --config.variants=('large_final','random') "
    "--config.epochs=2 --config.num_rounds=1",
    "mask_one_actions": "mask_one_actions.py:lenet300 --config.epochs=1 --config.num_rounds=1",
    "mask_zero_actions": "mask_zero_actions.py:lenet300 --config.epochs=1 --config.num_rounds=1",
    "heuristic_supermasks": "heuristic_supermasks.py:lenet300 --config.seeds=0, "
    "--config.epochs=2 --config.criteria=('large_final_same_sign','random')",
    "learned_supermasks": "learned_supermasks.py:lenet300 --config.epochs=10",
}
OF_THE_VERSION = ("id", "code_version", "command")  # columns


class Row(NamedTuple):
    """One line of the table.

    `before` and `now` are seconds; `ratio` is now by before in the same turns. `differing` is the
    number of numbers that differ among the `compared` ones.
    """

    run: str
    before: float
    now: float
    ratio: float
    programs_before: int
    programs_now: int
    compared: int
    differing: int


HEAD = [
    "run", "seconds before", "seconds now", "time", "programs before", "programs now",
    "numbers compared", "differing",
]  # fmt: skip


def markdown(path: Path) -> str:
    """Return a table that this program wrote as Markdown."""
    return measurements.markdown(HEAD, map(cells, measurements.read(path, Row)))


def cells(row: Row) -> list[str]:
    """Return the cells of a line below `HEAD`."""
    seconds = f"{row.before:.3g}", f"{row.now:.3g}", f"{row.ratio:.3f}"
    return [row.run, *seconds, *map(str, row[4:])]


def measure(name: str, checkouts: Sequence[Path], turns: int, more: Sequence[str]) -> Row:
    """Run one command in two checkouts, in turn.

    Args:
      name: a key of `RUNS`.
      checkouts: the one before and this one.
      turns: of each.
      more: flags for all runs.

    Raises:
      ValueError: if a run fails; names the checkout and what it said last.
    """
    taken: list[tuple[float, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder, side) for side in ("before", "now")]
        for checkout, place in zip(checkouts, places, strict=True):
            _run(checkout, name, place, [*more, f"--compilation_cache={place}.programs"])
        programs = [len(list(Path(f"{place}.programs").glob("*-cache"))) for place in places]
        same = list(comparisons(*places))
        for turn in range(turns):
            taken.append(
                tuple(
                    _run(checkout, name, Path(f"{place}.{turn}"), more)
                    for checkout, place in zip(checkouts, places, strict=True)
                )
            )
    before, now = (statistics.median(times) for times in zip(*taken, strict=True))
    return Row(
        run=name,
        before=before,
        now=now,
        ratio=statistics.median(b / a for a, b in taken),
        programs_before=programs[0],
        programs_now=programs[1],
        compared=len(same),
        differing=same.count(False),
    )


def _run(checkout: Path, name: str, workdir: Path, more: Sequence[str]) -> float:
    """Run a command in a checkout, and return the seconds that it took."""
    config, *own = RUNS[name].split()
    words = [f"--config=experiments/configs/{config}", f"--workdir={workdir}", *own, *more]
    command = [sys.executable, "-m", "experiments.run", *words]
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begin
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ValueError(f"{name} in {checkout}: {said}")
    return seconds


def comparisons(before: Path, now: Path) -> Iterator[bool]:
    """Yield for every number that two runs have in common whether it is equal in both.

    Args:
      before: the folder of one run.
      now: that of the other.
    """
    for table in ("results.csv", "analysis.csv"):
        if (before / table).exists():
            yield from _tables(*(_read(place / table) for place in (before, now)))
    # Curves and checkpoints, also those of the dense networks that a run begins with.
    for file in sorted(before.rglob("*.parquet")):
        yield from _curves(file, now / file.relative_to(before))
    for folder in sorted(path.with_suffix("") for path in before.rglob("checkpoints/*.json")):
        yield from _arrays(folder, now / folder.relative_to(before))


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _tables(before: list[dict[str, str]], now: list[dict[str, str]]) -> Iterator[bool]:
    for old, new in itertools.zip_longest(before, now, fillvalue={}):
        for name in (old or new).keys() - set(OF_THE_VERSION):
            if not old or not new or name in new:  # else a column of one version alone
                yield old.get(name) == new.get(name)


def _curves(before: Path, now: Path) -> Iterator[bool]:
    import pyarrow.parquet as pq

    old, new = (pq.read_table(path) for path in (before, now))
    for name in set(old.column_names) & set(new.column_names):
        pairs = (table[name].to_pylist() for table in (old, new))
        yield from (repr(a) == repr(b) for a, b in itertools.zip_longest(*pairs))


def _arrays(before: Path, now: Path) -> Iterator[bool]:
    from orbax.checkpoint import v1 as ocp

    old, new = (ocp.load(str(path.absolute())) for path in (before, now))
    for a, b in itertools.zip_longest(*(jax.tree.leaves(tree) for tree in (old, new))):
        yield a is not None and b is not None and np.array_equal(a, b, equal_nan=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the runs that the flags name."""
    flags = _parser().parse_args(arguments)
    here, rows = Path(__file__).absolute().parents[1], []
    try:
        names = [name for name in flags.runs.split(",") if lookup("run", name, RUNS)]
        turns = check_integer("--turns", int(flags.turns) if flags.turns.isdecimal() else 0, 1)
        other = Path(flags.other).expanduser()
        if not (other / "experiments" / "run.py").exists():
            raise ValueError(f"{other} is not a checkout: it has no experiments/run.py.")
        print(measurements.markdown(HEAD, []))
        for name in names:
            rows.append(measure(name, (other.absolute(), here), turns, flags.more.split()))
            print(measurements.markdown_line(cells(rows[-1])), flush=True)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    if flags.table:
        measurements.write(Path(f"{flags.table}.csv"), rows)
        measurements.write_machine(Path(f"{flags.table}.csv"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument("other", help="the folder of the other checkout")
    parser.add_argument("--runs", default=",".join(RUNS), help="runs")
    parser.add_argument("--turns", default="3", help="turns of each run")
    parser.add_argument("--more", default="", help="more flags of experiments.run, in one word")
    parser.add_argument("--table", help="path without suffix for a .csv")
    return parser


if __name__ == "__main__":
    main()
