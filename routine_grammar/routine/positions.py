"""Positions: where a run stands in a Routine, as the text that call ids and requests carry.

"start"      nothing was done yet
"2-1_1"      behind this step
"3-1_2+3"    behind calls 2 and 3 of the parallel branch 3-1
"4-1_2@5"    either of these inside a repetition, at item 5 of its list, counted from 0

Knows no Routine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from routine_grammar.errors import RoutineError
from routine_grammar.routine.ids import STEP_ID, header_of

START = "start"
MAX_POSITION_LENGTH = 200

_POSITION = re.compile(rf"(start|{STEP_ID})((?:\+[1-9][0-9]*)*)(?:@(0|[1-9][0-9]*))?")


@dataclass(frozen=True, slots=True)
class Position:
    """`node`: "start", a step's id, or the id of a parallel branch, of which the calls `done` were made."""

    node: str
    done: tuple[int, ...] = ()
    item: int | None = None

    def __str__(self) -> str:
        calls = f"_{'+'.join(map(str, self.done))}" if self.done else ""
        return f"{self.node}{calls}" + ("" if self.item is None else f"@{self.item}")


def place_name(position: str) -> str:
    """A position in words: "the start", "Step 2", "Branch 4-1 Step 2 at item 5"."""
    place = read_position(position)
    if place.node == START:
        return "the start"
    item = "" if place.item is None else f" at item {place.item}"
    first, *others = place.done or (None,)
    name = header_of(place.node if first is None else f"{place.node}_{first}")
    return name + "".join(f" and {number}" for number in others) + item


def read_position(text: str) -> Position:
    """Read a position as it is written: one call of a parallel branch still reads as a step; raises `RoutineError`."""
    match = _POSITION.fullmatch(text) if len(text) <= MAX_POSITION_LENGTH else None
    if match is None:
        raise RoutineError(f"{text[:80]!r} is no position; expected e.g. 'start', '2', '2-1_1', '3-1_1+2' or '4-1_2@5'")
    node, calls, item = match.groups()
    done: tuple[int, ...] = ()
    if calls:
        node, _, first = node.rpartition("_")
        done = (int(first or 0), *map(int, calls[1:].split("+")))
    if not node or any(later <= earlier for earlier, later in pairwise(done)):
        raise RoutineError(f"{text[:80]!r} is no position: expected calls of one branch, in ascending order, as in '3-1_1+2'")
    return Position(node, done, None if item is None else int(item))
