"""The work of a sweep as a list of programs, which can be compiled before any of it is done."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding
from jax.stages import Lowered

from experiments.engine.arrays import abstract
from experiments.engine.trainer import Trainer
from experiments.problems.problem import Problem
from supermask_jax import population

PyTree = Any


class Trainings(NamedTuple):
    """Trainings of equally many members, one after the other.

    Attributes:
      what: what they train, a noun in the plural.
      trainer: trains them.
      members: the number of members of each.
      times: the number of trainings.
      first_step: the step at which they start.
    """

    what: str
    trainer: Trainer
    members: int
    times: int
    first_step: int = 0


class Program(NamedTuple):
    """A program between trainings.

    Attributes:
      what: what it does.
      lower: makes it for abstract arguments on the devices of the sweep.
      calls: how often a sweep calls it.
    """

    what: str
    lower: Callable[[], Lowered]
    calls: int


class Work(NamedTuple):
    """All that a sweep computes on its devices, except what takes seconds once.

    Attributes:
      trainings: in the order in which they run.
      programs: what runs between them.
    """

    trainings: tuple[Trainings, ...]
    programs: tuple[Program, ...] = ()

    def then(self, other: "Work") -> "Work":
        """Return this work, followed by another."""
        return Work(self.trainings + other.trainings, self.programs + other.programs)


def on_one_device(problem: Problem, tree: PyTree, leading: tuple[int, ...] = ()) -> PyTree:
    """Return the shapes and types of a tree on the device that computes between trainings.

    Args:
      problem: names the devices.
      tree: arrays or abstract arrays, `[...]` per leaf.
      leading: the sizes of axes to add in front, giving `[*leading, ...]`.
    """
    return abstract(tree, SingleDeviceSharding(problem.devices[0]), leading)


def on_a_mesh(mesh: Mesh, count: int, member: PyTree, shared: PyTree) -> tuple[PyTree, PyTree]:
    """Return the shapes and types of some members that a mesh shares, and of what it replicates.

    Args:
      mesh: from `population.make_mesh`.
      count: the number of members, before they are padded to a multiple of the devices.
      member: of one member, `[...]` per leaf.
      shared: on every device.
    """
    padded = -(-count // mesh.size) * mesh.size
    members = abstract(member, population.member_sharding(mesh), (padded,))
    return members, abstract(shared, NamedSharding(mesh, PartitionSpec()))


def abstract_keys(count: int) -> jax.ShapeDtypeStruct:
    """Return the shape and type of some typed keys, `[count]`."""
    return jax.eval_shape(lambda: jax.random.split(jax.random.key(0), count))
