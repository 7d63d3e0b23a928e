"""Marks on the return stack: where lists of distinct elements, and their elements, begin and end within some bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton.step import DEAD, ELEMENT, HEAD, LIST, RETURN, Configuration, approach, copy, settle
from routine_grammar.automaton.tables import Handle
from routine_grammar.jit import jit

BEGINS_LIST, ENDS_LIST, BEGINS_ELEMENT, ENDS_ELEMENT = 1, -1, 2, -2
Event = tuple[int, int]  # before which byte, and what

Events = npt.NDArray[np.int32]  # [n, 2]


@jit
def noted(before: Configuration, row: Configuration, offset: int, events: Events, count: int) -> int:
    """Write which marks are on the stack of `row` and were not `before`, and the other way round; returns the new count.

    Between two elements of a list a byte is read: so what stays on the stack is no mark that was taken off and put back.
    """
    same = 0
    while same < before[1] and same < row[1] and before[HEAD + same] == row[HEAD + same]:
        same += 1
    for place in range(before[1] - 1, same - 1, -1):
        if before[HEAD + place] == LIST or before[HEAD + place] == ELEMENT:
            events[count, 0] = offset
            events[count, 1] = ENDS_LIST if before[HEAD + place] == LIST else ENDS_ELEMENT
            count += 1
    for place in range(same, row[1]):
        if row[HEAD + place] == LIST or row[HEAD + place] == ELEMENT:
            events[count, 0] = offset
            events[count, 1] = BEGINS_LIST if row[HEAD + place] == LIST else BEGINS_ELEMENT
            count += 1
    return count


@jit
def take_noting(
    t: Handle,
    row: Configuration,
    before: Configuration,
    data: npt.NDArray[np.uint8],
    events: Events,
    done: npt.NDArray[np.int32],
) -> int:
    """Take all bytes in place, as `take_bytes`; the events go to `events` and how many they are to `done[0]`.

    `before` is scratch. A byte has at most as many events as two stacks have room for.
    """
    count = 0
    state = int(row[0])
    for place in range(len(data)):
        copy(before, row)
        target = approach(t, row, data[place])
        if target < 0 and target != RETURN:
            return target
        count = noted(before, row, place, events, count)
        copy(before, row)
        state = settle(t, row, target)
        row[0] = state
        if state < 0:
            return state
        count = noted(before, row, place + 1, events, count)
    done[0] = count
    return state


@jit
def events_of_tokens(
    t: Handle,
    start: Configuration,
    tokens: npt.NDArray[np.int32],
    blob: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    scratch: Events,
    events: npt.NDArray[np.int32],
) -> int:
    """Write the events of some allowed tokens, `[number of the token, offset, what]` each, to `events`.

    Returns how many those are, DEAD where they don't suffice, or NEED - i. `scratch` has room for the events of any token.
    """
    used = 0
    row = start.copy()
    before = start.copy()
    done = np.zeros(1, np.int32)
    for number in range(len(tokens)):
        copy(row, start)
        state = take_noting(t, row, before, blob[offsets[tokens[number]] : offsets[tokens[number] + 1]], scratch, done)
        if state < 0:
            return state
        if used + done[0] > len(events):
            return DEAD
        for place in range(done[0]):
            events[used, 0] = number
            events[used, 1] = scratch[place, 0]
            events[used, 2] = scratch[place, 1]
            used += 1
    return used
