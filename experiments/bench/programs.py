"""What a compiled program exchanges between devices: read from its own text."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

_KINDS = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter|collective-broadcast"
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_COLLECTIVE = re.compile(rf"= (.*?) ({_KINDS})(?:-start)?\(")
_CALLED = re.compile(r"(?:body|to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_BYTES = {"pred": 1, "bf16": 2}


class Collective(NamedTuple):
    """One exchange of a compiled program."""

    kind: str  # as XLA calls it: all-reduce, all-gather, …
    size: int  # bytes of its result on each device
    times: int  # that it happens in one call of the program
    name: str  # of the operation that it is there for

    @property
    def total(self) -> int:
        """Bytes in one call."""
        return self.size * self.times


def collectives(text: str) -> list[Collective]:
    """All exchanges of a program, those in loops with how often they happen.

    Args:
      text: ``jax.jit(f).lower(…).compile().as_text()``. A loop whose length XLA does not know
        counts once, a branch as if it were always taken.
    """
    computations, entry = _computations(text)
    found: list[Collective] = []

    def visit(name: str, times: int) -> None:
        for line in computations.get(name, ()):
            if match := _COLLECTIVE.search(line):
                told = re.search(r'op_name="([^"]*)"', line)
                found.append(Collective(match[2], _size(match[1]), times, told[1] if told else ""))
                continue  # what it calls is the sum of two numbers
            trips = _TRIPS.search(line)
            branches = _BRANCHES.search(line)
            called = _CALLED.findall(line)
            called += re.findall(r"%?([\w.\-]+)", branches[1]) if branches else []
            for other in called:
                visit(other, times * (int(trips[1]) if trips and " while(" in line else 1))

    visit(entry, 1)
    return found


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """The lines of each computation by its name, and the name of the first to run."""
    computations: dict[str, list[str]] = {}
    lines, entry = [""], ""
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            lines = computations.setdefault(match[2], [])
            entry = match[2] if match[1] else entry
        else:
            lines.append(line)
    return computations, entry


def _size(shapes: str) -> int:
    """Bytes of all arrays of a type, ``(f32[2,3]{1,0}, s32[])`` for instance."""
    return sum(
        _BYTES.get(kind, int(re.sub(r"\D", "", kind) or 8) // 8)
        * math.prod(map(int, filter(None, shape.split(","))))
        for kind, shape in _ARRAY.findall(shapes)
    )
