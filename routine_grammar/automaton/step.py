"""Stepping an automaton by bytes and symbols, on flat arrays (`tables`), compiled by numba.

A configuration is one int32 row `[state, depth, count, bounds, return states…]`. A state below COUNTED is a leaf state of the
library's table; from SKELETON on it is a state of the skeleton; between the two it is a pseudo state: a leaf state to be
entered with a count of characters and bounds on it. In a leaf that is not counted, count and bounds are 0. Functions that meet
a skeleton state whose edges are not known yet answer `NEED - index`: the caller expands it and calls again with the
configuration it had before.

An edge takes its byte and goes to its target; an edge that enters takes nothing, pushes its return state (-1: none) and enters
the target, which takes the byte. A FORWARD state is left for its target at once, pushing likewise; a MARK is left for what it
returns to.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton import tables
from routine_grammar.automaton.counting import MAX_LAYERS, NEVER
from routine_grammar.automaton.tables import (
    AFTER,
    BYTE,
    DISTANCE,
    EDGE_HIGH,
    EDGE_LOW,
    ENDS,
    ENTERS,
    FORWARD_RETURN,
    FORWARD_TO,
    KIND,
    SYMBOL,
    SYMBOL_HIGH,
    SYMBOL_LOW,
    SYMBOL_TARGET,
    TARGET,
    Handle,
    completes,
    counted_row,
    leaf_accepts,
    leaf_distance,
    leaf_next,
    of_bounds,
    of_edge,
    of_pseudo,
    of_state,
    of_symbol,
)
from routine_grammar.jit import jit

DEAD = -1
RETURN = -2
OVERFLOW = -3
NEED = -16  # NEED - i: skeleton state i has to be expanded first
COUNTED = 1 << 23
SKELETON = 1 << 24
FINAL = SKELETON  # the skeleton's state 0: the whole grammar is complete
LIST, ELEMENT = SKELETON + 1, SKELETON + 2  # what a list of distinct elements, and each of these, returns to before its caller
HEAD = 4  # what stands in a row before the return states
STACK = 32
NO_BOUNDS = (1 << 31) - 1  # the upper bound of a count that has none
UNKNOWN, EDGES_KNOWN, FORWARD, MARK = range(4)  # kinds of states

Configuration = npt.NDArray[np.int32]  # [HEAD + STACK]


@jit
def copy(into: Configuration, row: Configuration) -> None:
    """Make a row what another one is: what stands behind the stack does not count."""
    for place in range(HEAD + row[1]):
        into[place] = row[place]


@jit
def push(row: Configuration, state: int) -> bool:
    """Push a return state; False where the stack is full. -1 pushes nothing: a call in last position returns for both."""
    if state >= 0:
        if row[1] >= STACK:
            return False
        row[HEAD + row[1]] = state
        row[1] += 1
    return True


@jit
def settle(t: Handle, row: Configuration, state: int) -> int:
    """Follow returns and forwards from `state` to where a byte can be taken."""
    while True:
        if state == RETURN:
            row[2] = row[3] = 0
            if row[1] == 0:
                return FINAL
            row[1] -= 1
            state = int(row[HEAD + row[1]])
        elif state >= SKELETON:
            i = state - SKELETON
            if of_state(t, i, KIND) == UNKNOWN:
                return NEED - i
            if of_state(t, i, KIND) == MARK:
                state = RETURN
                continue
            if of_state(t, i, KIND) != FORWARD:
                return state
            if not push(row, of_state(t, i, FORWARD_RETURN)):
                return OVERFLOW
            state = of_state(t, i, FORWARD_TO)
        elif state >= COUNTED:
            row[2], row[3] = of_pseudo(t, state - COUNTED, 1), of_pseudo(t, state - COUNTED, 2)
            return of_pseudo(t, state - COUNTED, 0)
        else:
            return state


@jit
def needed(t: Handle, entry: int, least: int) -> int:
    """The least number of further characters, of at least so many, that leads from a row of counts to the leaf's end."""
    least = max(least, 0)
    return max(tables.counts(t, entry, min(least, MAX_LAYERS - 1)), least)


@jit
def counted_after(t: Handle, target: int, number: int, bounds: int) -> tuple[int, int]:
    """Where a byte leads within a counted leaf, and the count then: `target`, or DEAD where a bound on the count forbids it.

    `target` is where the byte leads but for the count, and `number` the count before it.
    """
    low, high = of_bounds(t, bounds, 0), of_bounds(t, bounds, 1)
    if target < 0:
        return (RETURN if target == RETURN and number >= low else DEAD), number
    entry = counted_row(t, target)
    number += completes(t, entry)
    if high == NO_BOUNDS:
        return target, min(number, low)
    return (DEAD if number + needed(t, entry, low - number) > high else target), number


@jit
def leaf_allows(t: Handle, state: int, byte: int) -> bool:
    """Whether a byte may come within a leaf, counted or not."""
    if state < COUNTED:
        return leaf_next(t, state, byte) != DEAD
    target = leaf_next(t, of_pseudo(t, state - COUNTED, 0), byte)
    target, _ = counted_after(t, target, of_pseudo(t, state - COUNTED, 1), of_pseudo(t, state - COUNTED, 2))
    return target != DEAD


@jit
def find_edge(t: Handle, i: int, byte: int) -> int:
    """Index of the edge of skeleton state `i` for `byte`, or -1. Edges are sorted by byte."""
    low, last = of_state(t, i, EDGE_LOW), of_state(t, i, EDGE_HIGH)
    high = last
    while low < high:
        middle = (low + high) >> 1
        if of_edge(t, middle, BYTE) < byte:
            low = middle + 1
        else:
            high = middle
    if low < last and of_edge(t, low, BYTE) == byte:
        return low
    return -1


@jit
def may_take(t: Handle, row: Configuration, byte: int) -> bool:
    """Whether a byte may be taken from a settled configuration; False only where `step` would answer DEAD."""
    state = int(row[0])
    if state < SKELETON:
        return leaf_next(t, state, byte) != DEAD or leaf_accepts(t, state)
    i = state - SKELETON
    return find_edge(t, i, byte) >= 0 or (of_state(t, i, ENDS) != 0 and state != FINAL)


@jit
def has_edges_alone(t: Handle, state: int) -> bool:
    """Whether a settled state takes nothing but what it has edges for."""
    return state >= SKELETON and (state == FINAL or not of_state(t, state - SKELETON, ENDS))


@jit
def approach(t: Handle, row: Configuration, byte: int) -> int:
    """Return from and enter what has to be for `byte` to be taken; returns where the byte leads, not yet settled.

    That may be RETURN; else DEAD, OVERFLOW or NEED - i, and then the row's content is undefined.
    """
    state = int(row[0])
    while True:
        if state < SKELETON:
            target = leaf_next(t, state, byte)
            if row[3] and target != DEAD:
                target, number = counted_after(t, target, row[2], row[3])
                row[2] = number
            if target == DEAD:
                if not leaf_accepts(t, state):
                    return DEAD
                state = settle(t, row, RETURN)
                if state < 0:
                    return state
                continue
        else:
            i = state - SKELETON
            edge = find_edge(t, i, byte)
            if edge < 0:
                if not of_state(t, i, ENDS) or state == FINAL:
                    return DEAD
                state = settle(t, row, RETURN)
                if state < 0:
                    return state
                continue
            target = of_edge(t, edge, TARGET)
            if of_edge(t, edge, ENTERS):
                if not push(row, of_edge(t, edge, AFTER)):
                    return OVERFLOW
                state = settle(t, row, target)
                if state < 0:
                    return state
                continue
        return target


@jit
def step(t: Handle, row: Configuration, byte: int) -> int:
    """Take one byte from the settled configuration `row`, in place.

    Returns the new state (also stored in the row), or DEAD, OVERFLOW or NEED - i; then the row's content is undefined.
    """
    target = approach(t, row, byte)
    if target >= 0 or target == RETURN:
        target = settle(t, row, target)
        row[0] = target
    return target


@jit
def step_symbol(t: Handle, row: Configuration, symbol: int) -> int:
    """Take one symbol; returns as `step` does."""
    state = int(row[0])
    while True:
        if state < SKELETON:
            if not leaf_accepts(t, state):
                return DEAD
        else:
            i = state - SKELETON
            for edge in range(of_state(t, i, SYMBOL_LOW), of_state(t, i, SYMBOL_HIGH)):
                if of_symbol(t, edge, SYMBOL) == symbol:
                    target = settle(t, row, of_symbol(t, edge, SYMBOL_TARGET))
                    row[0] = target
                    return target
            if not of_state(t, i, ENDS) or state == FINAL:
                return DEAD
        state = settle(t, row, RETURN)
        if state < 0:
            return state


@jit
def may_end(t: Handle, row: Configuration, scratch: Configuration) -> int:
    """1 if the grammar may end in the settled configuration `row`, else 0; NEED - i as `step`. `scratch` is overwritten."""
    copy(scratch, row)
    state = int(scratch[0])
    while True:
        if state == FINAL:
            return 1
        if state < SKELETON:
            if not leaf_accepts(t, state):
                return 0
        elif not of_state(t, state - SKELETON, ENDS):
            return 0
        state = settle(t, scratch, RETURN)
        if state < 0:
            return state


@jit
def counted_distance(t: Handle, state: int, number: int, bounds: int) -> int:
    """Fewest bytes from a state of a counted leaf, after so many characters, to the end of the leaf."""
    entry, last = counted_row(t, state), of_bounds(t, bounds, 2)
    if tables.counts(t, entry, MAX_LAYERS - 1) >= NEVER:  # counted for upper bounds alone
        return tables.layer(t, entry, min(of_bounds(t, bounds, 1) - number, last))
    more = needed(t, entry, of_bounds(t, bounds, 0) - number)
    return tables.layer(t, entry, min(more, last)) + of_bounds(t, bounds, 3) * max(more - last, 0)


@jit
def leaf_length(t: Handle, state: int) -> int:
    """Fewest bytes from a leaf's state, counted or not, to the end of the leaf."""
    if state < COUNTED:
        return leaf_distance(t, state)
    i = state - COUNTED
    return counted_distance(t, of_pseudo(t, i, 0), of_pseudo(t, i, 1), of_pseudo(t, i, 2))


@jit
def distance_to_end(t: Handle, row: Configuration) -> int:
    """Fewest bytes and symbols from a settled configuration to the end of the grammar."""
    state = int(row[0])
    if state >= SKELETON:
        total = of_state(t, state - SKELETON, DISTANCE)
    elif row[3]:
        total = counted_distance(t, state, row[2], row[3])
    else:
        total = leaf_distance(t, state)
    for i in range(row[1]):
        total += of_state(t, row[HEAD + i] - SKELETON, DISTANCE)
    return total


@jit
def take_bytes(t: Handle, row: Configuration, data: npt.NDArray[np.uint8]) -> int:
    """Take all bytes in place; returns the new state or the code that stopped it."""
    state = int(row[0])
    for byte in data:
        state = step(t, row, byte)
        if state < 0:
            return state
    return state


@jit
def step_piece(t: Handle, row: Configuration, piece: int) -> int:
    """Take one piece: a byte, or 256 + a symbol."""
    if piece < 256:
        return step(t, row, piece)
    return step_symbol(t, row, piece - 256)


@jit
def next_pieces(t: Handle, row: Configuration, first: int, trial: Configuration, allowed: npt.NDArray[np.bool_]) -> int:
    """Write which of the pieces from `first` on may follow `row`, to `allowed`; returns how many, or NEED - i.

    `trial` is scratch.
    """
    count = 0
    for place in range(len(allowed)):
        copy(trial, row)
        state = step_piece(t, trial, first + place)
        if state <= NEED:
            return state
        allowed[place] = state >= 0
        count += state >= 0
    return count


@jit
def only_edge(t: Handle, state: int) -> int:
    """The edge of a state that can do nothing else but take it, or -1."""
    if state < SKELETON:
        return -1
    i = state - SKELETON
    low, has_one = of_state(t, i, EDGE_LOW), of_state(t, i, EDGE_HIGH) - of_state(t, i, EDGE_LOW) == 1
    if of_state(t, i, ENDS) or not has_one or of_state(t, i, SYMBOL_HIGH) != of_state(t, i, SYMBOL_LOW):
        return -1
    return low


@jit
def shortest_completion(
    t: Handle, row: Configuration, symbols: int, pieces: npt.NDArray[np.int32], trial: Configuration
) -> int:
    """Write the pieces of a shortest way to the end from `row` (used up); returns how many, or NEED - i.

    Of several, the one that is smallest piece by piece: so from any place along it, the rest of it is the answer.
    `pieces` has room for the distance; `trial` is scratch.
    """
    count = 0
    left = distance_to_end(t, row)
    while left > 0:
        edge = only_edge(t, int(row[0]))
        if edge >= 0:  # the middle of a literal, as most of what has to come is
            pieces[count] = of_edge(t, edge, BYTE)
            state = step(t, row, of_edge(t, edge, BYTE))
            if state < 0:
                return state
            count += 1
            left -= 1
            continue
        found = False
        for piece in range(256 + symbols):
            copy(trial, row)
            state = step_piece(t, trial, piece)
            if state <= NEED:
                return state
            if state >= 0 and distance_to_end(t, trial) == left - 1:
                copy(row, trial)
                pieces[count] = piece
                found = True
                break
        if not found:
            return DEAD
        count += 1
        left -= 1
    return count


@jit
def forced_run(
    t: Handle,
    row: Configuration,
    symbols: int,
    pieces: npt.NDArray[np.int32],
    trial: Configuration,
    only: Configuration,
) -> int:
    """Write the only pieces that can follow `row` (used up), up to the first choice, the end, or the room in `pieces`."""
    for count in range(len(pieces)):
        edge = only_edge(t, int(row[0]))
        if edge >= 0:  # the middle of a literal, as most forced text is
            copy(only, row)
            state = step(t, only, of_edge(t, edge, BYTE))
            if state <= NEED:
                return state
            if state < 0:
                return count
            pieces[count] = of_edge(t, edge, BYTE)
            copy(row, only)
            continue
        ended = may_end(t, row, trial)
        if ended <= NEED:
            return ended
        options = 1 if ended else 0
        for piece in range(256 + symbols):
            copy(trial, row)
            state = step_piece(t, trial, piece)
            if state <= NEED:
                return state
            if state >= 0:
                options += 1
                if options > 1:
                    break
                copy(only, trial)
                pieces[count] = piece
        if options != 1 or ended:
            return count
        copy(row, only)
    return len(pieces)
