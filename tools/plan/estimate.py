"""What the work of a sweep takes on a slice: memory that is known, and time that is estimated."""

import time
from typing import NamedTuple

from experiments.engine.groups import Group, compile_if_room, memory_of
from experiments.engine.work import Program, Trainings, Work
from tools.plan import hlo
from tools.plan.slices import Slice

PASSES = 16  # over scores, at most, to select the highest: two of 32 bits in each


class OfTrainings(NamedTuple):
    """What trainings of equally many members take.

    Attributes:
      what: what they train.
      times: the number of trainings.
      members: the members of each.
      members_per_device: those that a device holds at the same time, with padding.
      at_once: those that a device trains at once, by `vmap`.
      groups: the number of groups that train in turn.
      memory: bytes of a device that a group takes.
      temporaries: the part of them that is working memory.
      cycles: of a device per member-step.
      bytes: of main memory that a device moves per member-step.
      operations: of the products per member-step.
      validation_cycles: of a device per validation of a member.
      collectives: operations of the training in which devices communicate.
      costliest: the ten costliest operations of a step, as cycles per member-step and origin.
      compile_seconds: on this machine.
      hours: of all these trainings on the slice.
    """

    what: str
    times: int
    members: int
    members_per_device: int
    at_once: int
    groups: int
    memory: int
    temporaries: int
    cycles: float
    bytes: float
    operations: float
    validation_cycles: float
    collectives: int
    costliest: list[tuple[float, str]]
    compile_seconds: float
    hours: float


class OfProgram(NamedTuple):
    """What a program between trainings takes.

    Attributes:
      what: what it does.
      calls: how often the sweep calls it.
      memory: bytes of a device.
      cycles: of a device per call.
      compile_seconds: on this machine.
      hours: of all calls.
    """

    what: str
    calls: int
    memory: int
    cycles: float
    compile_seconds: float
    hours: float


class Estimate(NamedTuple):
    """What a sweep takes on a slice.

    Attributes:
      slice: the slice.
      trainings: its trainings.
      programs: what runs between them.
    """

    slice: Slice
    trainings: tuple[OfTrainings, ...]
    programs: tuple[OfProgram, ...]

    @property
    def hours(self) -> float:
        """Hours of the whole sweep on the slice."""
        return sum(part.hours for part in (*self.trainings, *self.programs))

    @property
    def chip_hours(self) -> float:
        """Hours times chips."""
        return self.hours * self.slice.chips

    @property
    def compile_seconds(self) -> float:
        """Seconds that all programs took to compile on this machine."""
        return sum(part.compile_seconds for part in (*self.trainings, *self.programs))


def estimate(work: Work, where: Slice) -> Estimate:
    """Compile the work of a sweep for a slice, and add up what the compiler says of it.

    Args:
      work: made for the devices of the slice.
      where: the slice.

    Raises:
      MemoryError: if a device does not hold the smallest group of a training, or a program.
    """
    return Estimate(
        where,
        tuple(_of_trainings(part, where) for part in work.trainings),
        tuple(_of_program(part, where) for part in work.programs),
    )


def _of_trainings(part: Trainings, where: Slice) -> OfTrainings:
    trainer = part.trainer
    begin = time.perf_counter()
    programs = trainer.fit(part.members, where.memory * _devices_of_a_host(where))
    seconds = time.perf_counter() - begin
    group = programs.group
    read = hlo.Program(programs.run_chunk.as_text() or "")
    chunk = trainer.chunk
    once, evaluated, trained = (read.cost(turns) for turns in ((0, 0), (1, 0), (1, 1)))
    per_eval, per_step = evaluated.plus(once, -1), trained.plus(evaluated, -1)
    steps = trainer.eval_steps[trainer.eval_steps >= part.first_step]
    evals, length = len(steps), int(steps[-1]) - part.first_step
    chunks, groups = -(-evals // chunk[0]), -(-part.members // group.members)
    own = group.padded // group.mesh.size
    cycles = chunks * once.cycles + evals * per_eval.cycles + length * per_step.cycles
    return OfTrainings(
        what=part.what,
        times=part.times,
        members=part.members,
        members_per_device=own,
        at_once=group.width or 1,
        groups=groups,
        memory=_per_device(group),
        temporaries=programs.run_chunk.memory_analysis().temp_size_in_bytes,  # pyright: ignore
        cycles=per_step.cycles / own,
        bytes=per_step.bytes / own,
        operations=trainer.products(trainer.platform)[0],
        validation_cycles=per_eval.cycles / own,
        collectives=read.collectives,
        costliest=[
            (cycles / (group.width or 1), origin) for cycles, origin in read.operations(2)[:10]
        ],
        compile_seconds=seconds,
        hours=part.times * groups * cycles / where.clock / 3600,
    )


def _devices_of_a_host(where: Slice) -> int:
    return sum(device.process_index == 0 for device in where.devices)


def _per_device(group: Group) -> int:
    return group.memory // len(group.mesh.local_devices)


def _of_program(part: Program, where: Slice) -> OfProgram:
    begin = time.perf_counter()
    compiled = compile_if_room(part.lower())
    if compiled is None:
        raise MemoryError(f"{part.what!r} takes more memory than a device has.")
    seconds = time.perf_counter() - begin
    cycles = hlo.Program(compiled.as_text() or "").cost([PASSES]).cycles
    hours = part.calls * cycles / where.clock / 3600
    return OfProgram(part.what, part.calls, memory_of(compiled), cycles, seconds, hours)
