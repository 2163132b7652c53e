"""What the compiler says of a program, summed over its loops: cycles, bytes, collectives.

A compiled program for a TPU has an estimate of the cycles of every operation, and the layout of
every array: the tiles to which it is padded, and whether it is in on-chip memory. Operations inside
loops are written once; this module counts them as often as the loops turn.
"""

import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

BYTES = {
    "pred": 1, "s4": 1, "u4": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2,
    "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8,
}  # fmt: skip
ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([\d,]*)([^{}]*)\})?")
TILE = re.compile(r":T\((\d+(?:,\d+)*)\)")
CYCLES = re.compile(r'"estimated_cycles":"?(\d+)')
COLLECTIVE = re.compile(
    r"= [^=]*?\b(?:all-reduce|all-gather|all-to-all|collective-\w+|reduce-scatter)(?:-start)?\("
)
INSTRUCTION = re.compile(r"\s+(?:ROOT )?%([\w.-]+) = (.*)")
HEAD = re.compile(r"(?:ENTRY )?%?([\w.-]+) \(.*\{$")
NAME = re.compile(r"%([\w.-]+)")
# Neither compute nor move anything.
FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional",
    "call", "copy-done", "after-all", "custom-call", "partition-id", "async-done", "slice-done",
}  # fmt: skip
# Asynchronous copies, and the place of the copy in their result.
STARTS = {"copy-start": 0, "slice-start": 1}


class Cost(NamedTuple):
    """The cost of a part of a program on one device.

    Attributes:
      cycles: the compiler's estimate; asynchronous copies have none.
      bytes: to and from the main memory of the device, tiles included; on-chip memory is free.
    """

    cycles: float = 0.0
    bytes: float = 0.0

    def plus(self, other: "Cost", times: float = 1.0) -> "Cost":
        """Return the sum with a multiple of another cost."""
        return Cost(self.cycles + times * other.cycles, self.bytes + times * other.bytes)


class Instruction(NamedTuple):
    """An instruction of a computation: its result, what it does, and the rest of its line."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    rest: str


class Program:
    """A compiled program, read from its text.

    Args:
      text: `as_text()` of a compiled program.
    """

    def __init__(self, text: str) -> None:
        """Read the program."""
        self._computations, self._entry = _parse(text)
        self.collectives = len(COLLECTIVE.findall(text))

    def cost(self, turns: Sequence[int] = ()) -> Cost:
        """Return the cost of a call.

        Args:
          turns: of the loops whose number of turns is not written in the program, from the outer
            to the inner ones; loops further inside turn once.
        """

        @functools.cache
        def of(computation: str, depth: int) -> Cost:
            total, own = Cost(), self._computations[computation]
            for one in own.values():
                total = total.plus(self._own_cost(own, one))
                if one.opcode == "while":
                    body = _attribute(one, "body")
                    count = self._written_turns(own, one)
                    if count is None:
                        times = turns[depth] if depth < len(turns) else 1
                        total = total.plus(of(body, depth + 1), times)
                    else:
                        total = total.plus(of(body, depth), count)
                elif one.opcode == "conditional":
                    branches = [of(name, depth) for name in _branches(one)]
                    total = total.plus(max(branches))
                elif one.opcode == "call":
                    total = total.plus(of(_attribute(one, "to_apply"), depth))
            return total

        return of(self._entry, 0)

    def operations(self, depth: int) -> list[tuple[float, str]]:
        """Return the cycles and the origin of the operations inside loops, the costliest first.

        Args:
          depth: how many loops whose turns are not written in the program are around them.

        Returns:
          The operations that have an estimate. The origin is the code that they compute.
        """
        found = [
            (float(cycles[1]), _origin(one))
            for body in self._bodies(self._entry, depth)
            for one in self._computations[body].values()
            if (cycles := CYCLES.search(one.rest))
        ]
        return sorted(found, reverse=True)

    def _bodies(self, computation: str, depth: int) -> list[str]:
        """Return the computations that have so many open loops around them."""
        own = self._computations[computation]
        inside = [] if depth else [computation]
        for one in own.values():
            if one.opcode == "while":
                left = depth - (self._written_turns(own, one) is None)
                inside += self._bodies(_attribute(one, "body"), left) if left >= 0 else []
        return inside

    def _own_cost(self, own: Mapping[str, Instruction], one: Instruction) -> Cost:
        found = CYCLES.search(one.rest)
        cycles = float(found[1]) if found else 0.0
        if one.opcode in FREE:
            return Cost(cycles)
        if one.opcode in STARTS:
            copied = [found[0] for found in ARRAY.finditer(one.shape)][STARTS[one.opcode]]
            source = own[one.operands[0]].shape
            return Cost(cycles, _bytes(copied) + _bytes(copied, source))
        inner = self._computations.get(_attribute(one, "calls") or "", {})
        moved = _result_bytes(one, inner)
        for place, name in enumerate(one.operands):
            if name in own:
                moved += _read_bytes(own[name].shape, place, inner)
        return Cost(cycles, moved)

    def _written_turns(self, own: Mapping[str, Instruction], loop: Instruction) -> int | None:
        """Return the turns of a loop that counts from 0 to a constant; None for any other loop."""
        condition = self._computations[_attribute(loop, "condition")]
        compared = next((x for x in condition.values() if x.opcode == "compare"), None)
        if compared is None or _attribute(compared, "direction") != "LT":
            return None
        limit = condition.get(compared.operands[1])
        if limit is not None and limit.opcode == "get-tuple-element":
            start = own.get(loop.operands[0])
            index = int(_attribute(limit, "index"))
            limit = own.get(start.operands[index]) if start and start.operands else None
        if limit is None or limit.opcode != "constant":
            return None
        return int(re.findall(r"constant\((\d+)\)", limit.rest)[0])


def _parse(text: str) -> tuple[dict[str, dict[str, Instruction]], str]:
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is None:
            if head := HEAD.match(line):
                current = computations.setdefault(head[1], {})
                entry = head[1] if line.startswith("ENTRY") else entry
        elif line.startswith("}"):
            current = None
        elif found := INSTRUCTION.match(line):
            current[found[1]] = _instruction(found[1], found[2])
    return computations, entry


def _instruction(name: str, text: str) -> Instruction:
    end = _closing(text) if text.startswith("(") else text.index(" ")
    shape, call = text[:end], text[end:].strip()
    opcode = call.partition("(")[0]
    inside = call[len(opcode) :]
    arguments = inside[: _closing(inside)]
    return Instruction(name, shape, opcode, tuple(NAME.findall(arguments)), call)


def _closing(text: str) -> int:
    """Return the place after the parenthesis that closes the first one."""
    depth = 0
    for place, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if not depth and sign == ")":
            return place + 1
    return len(text)


def _attribute(one: Instruction, name: str) -> str:
    found = re.search(rf"\b{name}=%?([\w.-]+)", one.rest)
    return found[1] if found else ""


def _origin(one: Instruction) -> str:
    """Return the last words of the name that an operation has in the traced program."""
    found = re.search(r'op_name="([^"]*)"', one.rest)
    words = found[1].split("/") if found else [one.opcode]
    inner = [word for word in words if word not in ("while", "body", "closed_call", "vmap()")]
    return "/".join(inner[1:]) or one.opcode


def _branches(one: Instruction) -> list[str]:
    found = re.search(r"branch_computations=\{([^}]*)\}", one.rest)
    if found:
        return NAME.findall(found[1])
    return [_attribute(one, "true_computation"), _attribute(one, "false_computation")]


def _result_bytes(one: Instruction, inner: Mapping[str, Instruction]) -> float:
    """Return the bytes that an instruction writes; one that updates an array writes the update."""
    updates = [x for x in (*inner.values(), one) if x.opcode == "dynamic-update-slice"]
    if not updates:
        return _bytes(one.shape)
    return sum(_bytes(inner[x.operands[1]].shape) for x in updates if x.operands[1] in inner)


def _read_bytes(shape: str, place: int, inner: Mapping[str, Instruction]) -> float:
    """Return the bytes that an instruction reads of an operand; of one that it slices, a slice."""
    parameter = next(
        (x.name for x in inner.values() if x.rest.startswith(f"parameter({place})")), None
    )
    users = [x for x in inner.values() if parameter and parameter in x.operands]
    if users and all(x.opcode in ("dynamic-slice", "gather") for x in users):
        return min(_bytes(shape), sum(_bytes(x.shape, shape) for x in users))
    if users and all(
        x.opcode == "dynamic-update-slice" and x.operands[0] == parameter for x in users
    ):
        return 0.0
    return _bytes(shape)


def _bytes(shape: str, where: str | None = None) -> float:
    """Return the bytes of arrays in main memory, those in on-chip memory counting nothing.

    Args:
      shape: one array or several.
      where: the shape whose memory counts, by default that of each array.
    """
    if where is not None and "S(1)" in where:
        return 0.0
    return sum(
        _size(*found.groups())
        for found in ARRAY.finditer(shape)
        if where is not None or "S(1)" not in (found[4] or "")
    )


def _size(kind: str, dims: str, order: str | None, layout: str | None) -> float:
    if kind not in BYTES:
        return 0.0
    sizes = [int(n) for n in dims.split(",") if n]
    minor_first = [sizes[int(axis)] for axis in (order or "").split(",") if axis] or sizes[::-1]
    tile = TILE.search(layout or "")
    tiles = [int(n) for n in tile[1].split(",")][::-1] if tile else []
    for axis, own in enumerate(tiles[: len(minor_first)]):
        minor_first[axis] = -(-minor_first[axis] // own) * own
    return float(BYTES[kind] * math.prod(minor_first))
