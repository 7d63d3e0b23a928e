"""Stepping an automaton by bytes and symbols, on flat arrays, compiled by numba.

A configuration is one int32 row `[state, depth, count, bounds, return states…]`. A state below COUNTED is a leaf state of the
library's table; from SKELETON on it is a state of the skeleton; between the two it is a pseudo state: a leaf state to be
entered with a count of characters and bounds on it. In a leaf that is not counted, count and bounds are 0. Functions that meet
a skeleton state whose edges are not known yet answer `NEED - index`: the caller expands it and calls again with the
configuration it had before.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton.jit import jit

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
UNKNOWN, EDGES, FORWARD, MARK = 0, 1, 2, 3

Configuration = npt.NDArray[np.int32]  # [HEAD + STACK]


class Tables(NamedTuple):
    """The arrays of one automaton. Leaf arrays are the library's; the rest is indexed by skeleton state or by edge.

    An edge takes its byte and goes to its target; an edge with `edge_enters` takes nothing, pushes its return state (-1:
    none) and enters the target, which takes the byte. A FORWARD state is left for its target at once, pushing likewise; a MARK
    is left for what it returns to.
    """

    leaf_table: npt.NDArray[np.int32]
    leaf_accepting: npt.NDArray[np.bool_]
    leaf_distance: npt.NDArray[np.int32]
    leaf_counted: npt.NDArray[np.int32]
    completes: npt.NDArray[np.bool_]
    counts: npt.NDArray[np.int32]
    layers: npt.NDArray[np.int32]
    pseudo: npt.NDArray[np.int32]
    bounds: npt.NDArray[np.int32]
    kind: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.bool_]
    distance: npt.NDArray[np.int32]
    forward: npt.NDArray[np.int32]
    forward_return: npt.NDArray[np.int32]
    edge_low: npt.NDArray[np.int32]
    edge_high: npt.NDArray[np.int32]
    edge_byte: npt.NDArray[np.uint8]
    edge_target: npt.NDArray[np.int32]
    edge_enters: npt.NDArray[np.bool_]
    edge_return: npt.NDArray[np.int32]
    symbol_low: npt.NDArray[np.int32]
    symbol_high: npt.NDArray[np.int32]
    symbol: npt.NDArray[np.int32]
    symbol_target: npt.NDArray[np.int32]


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
def settle(t: Tables, row: Configuration, state: int) -> int:
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
            if t.kind[i] == UNKNOWN:
                return NEED - i
            if t.kind[i] == MARK:
                state = RETURN
                continue
            if t.kind[i] != FORWARD:
                return state
            if not push(row, t.forward_return[i]):
                return OVERFLOW
            state = int(t.forward[i])
        elif state >= COUNTED:
            entered = t.pseudo[state - COUNTED]
            row[2], row[3] = entered[1], entered[2]
            return int(entered[0])
        else:
            return state


@jit
def needed(t: Tables, entry: int, least: int) -> int:
    """The least number of further characters, of at least so many, that leads from a row of counts to the leaf's end."""
    least = max(least, 0)
    return max(int(t.counts[entry, min(least, t.counts.shape[1] - 1)]), least)


@jit
def count(t: Tables, row: Configuration, target: int) -> int:
    """Count what a byte to `target` completes of a counted leaf; returns the target, or DEAD where a bound forbids it."""
    bounds = t.bounds[row[3]]
    if target == RETURN:
        return RETURN if row[2] >= bounds[0] else DEAD
    entry = int(t.leaf_counted[target])
    number = int(row[2] + t.completes[entry])
    if bounds[1] == NO_BOUNDS:
        row[2] = min(number, bounds[0])
    elif number + needed(t, entry, bounds[0] - number) > bounds[1]:
        return DEAD
    else:
        row[2] = number
    return target


@jit
def find_edge(t: Tables, i: int, byte: int) -> int:
    """Index of the edge of skeleton state `i` for `byte`, or -1. Edges are sorted by byte."""
    low, high = t.edge_low[i], t.edge_high[i]
    while low < high:
        middle = (low + high) >> 1
        if t.edge_byte[middle] < byte:
            low = middle + 1
        else:
            high = middle
    if low < t.edge_high[i] and t.edge_byte[low] == byte:
        return int(low)
    return -1


@jit
def approach(t: Tables, row: Configuration, byte: int) -> int:
    """Return from and enter what has to be for `byte` to be taken; returns where the byte leads, not yet settled.

    That may be RETURN; else DEAD, OVERFLOW or NEED - i, and then the row's content is undefined.
    """
    state = int(row[0])
    while True:
        if state < SKELETON:
            target = int(t.leaf_table[state, byte])
            if row[3] and target != DEAD:
                target = count(t, row, target)
            if target == DEAD:
                if not t.leaf_accepting[state]:
                    return DEAD
                state = settle(t, row, RETURN)
                if state < 0:
                    return state
                continue
        else:
            i = state - SKELETON
            edge = find_edge(t, i, byte)
            if edge < 0:
                if not t.ends[i] or state == FINAL:
                    return DEAD
                state = settle(t, row, RETURN)
                if state < 0:
                    return state
                continue
            target = int(t.edge_target[edge])
            if t.edge_enters[edge]:
                if not push(row, t.edge_return[edge]):
                    return OVERFLOW
                state = settle(t, row, target)
                if state < 0:
                    return state
                continue
        return target


@jit
def step(t: Tables, row: Configuration, byte: int) -> int:
    """Take one byte from the settled configuration `row`, in place.

    Returns the new state (also stored in the row), or DEAD, OVERFLOW or NEED - i; then the row's content is undefined.
    """
    target = approach(t, row, byte)
    if target >= 0 or target == RETURN:
        target = settle(t, row, target)
        row[0] = target
    return target


@jit
def step_symbol(t: Tables, row: Configuration, symbol: int) -> int:
    """Take one symbol; returns as `step` does."""
    state = int(row[0])
    while True:
        if state < SKELETON:
            if not t.leaf_accepting[state]:
                return DEAD
        else:
            i = state - SKELETON
            for edge in range(t.symbol_low[i], t.symbol_high[i]):
                if t.symbol[edge] == symbol:
                    target = settle(t, row, t.symbol_target[edge])
                    row[0] = target
                    return target
            if not t.ends[i] or state == FINAL:
                return DEAD
        state = settle(t, row, RETURN)
        if state < 0:
            return state


@jit
def may_end(t: Tables, row: Configuration, scratch: Configuration) -> int:
    """1 if the grammar may end in the settled configuration `row`, else 0; NEED - i as `step`. `scratch` is overwritten."""
    scratch[:] = row
    state = int(scratch[0])
    while True:
        if state == FINAL:
            return 1
        if state < SKELETON:
            if not t.leaf_accepting[state]:
                return 0
        elif not t.ends[state - SKELETON]:
            return 0
        state = settle(t, scratch, RETURN)
        if state < 0:
            return state


@jit
def counted_distance(t: Tables, row: Configuration) -> int:
    """Fewest bytes from a configuration in a counted leaf to the end of the leaf."""
    bounds = t.bounds[row[3]]
    entry = int(t.leaf_counted[row[0]])
    number = needed(t, entry, bounds[0] - row[2])
    return int(t.layers[entry, min(number, bounds[2])] + bounds[3] * max(number - bounds[2], 0))


@jit
def distance_to_end(t: Tables, row: Configuration) -> int:
    """Fewest bytes and symbols from a settled configuration to the end of the grammar."""
    state = int(row[0])
    if state >= SKELETON:
        total = int(t.distance[state - SKELETON])
    elif row[3]:
        total = counted_distance(t, row)
    else:
        total = int(t.leaf_distance[state])
    for i in range(row[1]):
        total += t.distance[row[HEAD + i] - SKELETON]
    return total


@jit
def take_bytes(t: Tables, row: Configuration, data: npt.NDArray[np.uint8]) -> int:
    """Take all bytes in place; returns the new state or the code that stopped it."""
    state = int(row[0])
    for byte in data:
        state = step(t, row, byte)
        if state < 0:
            return state
    return state


@jit
def step_piece(t: Tables, row: Configuration, piece: int) -> int:
    """Take one piece: a byte, or 256 + a symbol."""
    if piece < 256:
        return step(t, row, piece)
    return step_symbol(t, row, piece - 256)


@jit
def next_bytes(t: Tables, row: Configuration, trial: Configuration, allowed: npt.NDArray[np.bool_]) -> int:
    """Write which bytes may follow `row`, to `allowed` [256]; returns how many, or NEED - i. `trial` is scratch."""
    count = 0
    for byte in range(256):
        trial[:] = row
        state = step(t, trial, byte)
        if state <= NEED:
            return state
        allowed[byte] = state >= 0
        count += state >= 0
    return count


@jit
def only_edge(t: Tables, state: int) -> int:
    """The edge of a state that can do nothing else but take it, or -1."""
    if state < SKELETON:
        return -1
    i = state - SKELETON
    if t.ends[i] or t.edge_high[i] - t.edge_low[i] != 1 or t.symbol_high[i] != t.symbol_low[i]:
        return -1
    return int(t.edge_low[i])


@jit
def shortest_completion(
    t: Tables, row: Configuration, symbols: int, pieces: npt.NDArray[np.int32], trial: Configuration
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
            pieces[count] = t.edge_byte[edge]
            state = step(t, row, t.edge_byte[edge])
            if state < 0:
                return state
            count += 1
            left -= 1
            continue
        found = False
        for piece in range(256 + symbols):
            trial[:] = row
            state = step_piece(t, trial, piece)
            if state <= NEED:
                return state
            if state >= 0 and distance_to_end(t, trial) == left - 1:
                row[:] = trial
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
    t: Tables,
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
            only[:] = row
            state = step(t, only, t.edge_byte[edge])
            if state <= NEED:
                return state
            if state < 0:
                return count
            pieces[count] = t.edge_byte[edge]
            row[:] = only
            continue
        ended = may_end(t, row, trial)
        if ended <= NEED:
            return ended
        options = 1 if ended else 0
        for piece in range(256 + symbols):
            trial[:] = row
            state = step_piece(t, trial, piece)
            if state <= NEED:
                return state
            if state >= 0:
                options += 1
                if options > 1:
                    break
                only[:] = trial
                pieces[count] = piece
        if options != 1 or ended:
            return count
        row[:] = only
    return len(pieces)
