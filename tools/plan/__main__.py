"""Plan a sweep for TPUs that are not there.

    python -m tools.plan --config=experiments/configs/mask_criteria.py:lenet300 \\
        --topology=v5e:4x4 [--compare=v5e:2x2,v6e:4x4,tpu7x:2x2x1] [--json] [--config.x=...]

Compiles the sweep's own programs for the devices of a slice, which only compile, and says whether
the sweep fits, in how many groups, and about how long it takes. Memory, groups and communication
are the compiler's results and hold on the slice. Cycles are its estimate, the same on every
machine; hours are cycles by the clock, and leave out asynchronous copies, the host and compiling.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from absl import flags, logging
from rich.console import Console
from rich.table import Table

from experiments.command_line import define_config, define_folder, fail, run_program
from experiments.engine.forecast import counted
from experiments.runners.registry import find_runner
from tools.plan import slices
from tools.plan.estimate import Estimate, OfProgram, OfTrainings, estimate
from tools.plan.slices import Slice

CONFIG = define_config("config", "FILE.py:NETWORK, as for experiments.run.")
DATA_DIR = define_folder(
    "data_dir", None, "Folder of prepared data sets; by default TFDS_DATA_DIR, or the TFDS default."
)
TOPOLOGY = flags.DEFINE_string(
    "topology", None, f"Slice, as generation and chips: {slices.EXAMPLES}.", required=True
)
COMPARE = flags.DEFINE_list("compare", [], "More slices, compared with the first in one table.")
JSON = flags.DEFINE_bool("json", False, "Print all numbers as JSON instead of tables.")

WIDTH = 200  # of tables, also in a narrow terminal, where rich would cut numbers off
NOTE = (
    "Known from the compiler: memory, groups, collectives, operations of products. Its estimate: "
    "bytes, cycles and so hours, without asynchronous copies, the host and compiling. No TPU was "
    "asked."
)


def main(arguments: list[str]) -> None:
    """Compile the sweep for every slice that the flags name, and print what it takes."""
    logging.set_verbosity(logging.FATAL)
    try:
        if len(arguments) > 1:
            raise ValueError(f"unknown argument {arguments[1]!r}; flags start with --.")
        wanted = [slices.find(name) for name in dict.fromkeys((TOPOLOGY.value, *COMPARE.value))]
        plans = list(_plans(wanted))
        if not plans:
            raise MemoryError("the sweep fits on none of the slices.")
    except (ValueError, TypeError, OSError, MemoryError) as error:
        fail(error)
    if JSON.value:
        print(json.dumps([_as_json(plan) for plan in plans], indent=1))
        return
    console = Console(width=WIDTH)
    if len(wanted) == 1:
        _print_one(console, plans[0])
    else:
        _print_several(console, plans)
    console.print(NOTE, style="dim")


def _plans(wanted: Sequence[Slice]) -> Iterator[Estimate]:
    runner = find_runner(CONFIG.value)
    for where in wanted:
        plan = runner.make_plan(CONFIG.value, DATA_DIR.value, None, where.devices)
        with jax.default_matmul_precision(plan.config.matmul_precision):
            try:
                yield estimate(runner.work(plan), where)
            except MemoryError as error:
                if len(wanted) == 1:
                    raise MemoryError(f"on {where.name}, {error}") from None
                print(f"on {where.name}, {error}", file=sys.stderr)


def _print_one(console: Console, plan: Estimate) -> None:
    console.print(_title(plan))
    console.print(_table(_training_cells(plan, part) for part in plan.trainings))
    if plan.programs:
        console.print(_table(_program_cells(plan, part) for part in plan.programs))
    console.print(
        f"about {_hours(plan.hours)}, {plan.chip_hours:,.2f} chip-hours; compiled here in "
        f"{plan.compile_seconds:.0f} s"
    )


def _print_several(console: Console, plans: Sequence[Estimate]) -> None:
    console.print(f"{CONFIG.value.experiment} of {CONFIG.value.network}")
    console.print(_table(_slice_cells(plan) for plan in plans))


def _title(plan: Estimate) -> str:
    config, where = CONFIG.value, plan.slice
    return (
        f"{config.experiment} of {config.network} on {where.name}: "
        f"{counted(where.chips, 'chip')}, {counted(len(where.devices), 'device')} of "
        f"{where.memory / 1e9:.1f} GB"
    )


def _table(lines: Iterator[dict[str, str]]) -> Table:
    rows = list(lines)
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*row.values())
    return table


def _training_cells(plan: Estimate, part: OfTrainings) -> dict[str, str]:
    return {
        "training of": part.what,
        "times": f"{part.times}",
        "members": f"{part.members}",
        **_fit(plan, part),
        "operations": f"{part.operations:.3g}",
        "MB moved": f"{part.bytes / 1e6:.2f}",
        "per validation": f"{part.validation_cycles:,.0f}",
        "compile s": f"{part.compile_seconds:.0f}",
        "hours": f"{part.hours:.3g}",
    }


def _fit(plan: Estimate, part: OfTrainings) -> dict[str, str]:
    """Return the cells on how a training fits a slice, and on its steps."""
    share = part.memory / plan.slice.memory
    per_chip = part.members_per_device * len(plan.slice.devices) // plan.slice.chips
    return {
        "a chip": f"{per_chip}",
        "at once": f"{part.at_once}",
        "groups": f"{part.groups}",
        "GB of a device": f"{part.memory / 1e9:.2f} ({share:.0%})",
        "collectives": f"{part.collectives}",
        "cycles per member-step": f"{part.cycles:,.0f}",
    }


def _program_cells(plan: Estimate, part: OfProgram) -> dict[str, str]:
    return {
        "between trainings": part.what,
        "calls": f"{part.calls}",
        "GB of a device": f"{part.memory / 1e9:.2f}",
        "cycles per call": f"{part.cycles:,.0f}",
        "compile s": f"{part.compile_seconds:.0f}",
        "hours": f"{part.hours:.3g}",
    }


def _slice_cells(plan: Estimate) -> dict[str, str]:
    """Return a line of the comparison, with the training that takes longest."""
    longest = max(plan.trainings, key=lambda part: part.hours)
    return {
        "slice": plan.slice.name,
        "chips": f"{plan.slice.chips}",
        "training of": longest.what,
        **_fit(plan, longest),
        "compile s": f"{plan.compile_seconds:.0f}",
        "hours": f"{plan.hours:.3g}",
        "chip-hours": f"{plan.chip_hours:.3g}",
    }


def _hours(hours: float) -> str:
    if hours >= 10:
        return f"{hours:,.0f} hours"
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.2g} minutes"


def _as_json(plan: Estimate) -> dict[str, Any]:
    where = plan.slice
    return {
        "topology": where.name,
        "chips": where.chips,
        "devices": len(where.devices),
        "device_memory": where.memory,
        "clock": where.clock,
        "trainings": [part._asdict() for part in plan.trainings],
        "programs": [part._asdict() for part in plan.programs],
        "hours": plan.hours,
        "chip_hours": plan.chip_hours,
        "compile_seconds": plan.compile_seconds,
    }


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    run_program(main)
