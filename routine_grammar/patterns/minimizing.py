"""Minimizing: a deterministic automaton with one state for all that go on alike, in compiled code."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from routine_grammar.jit import jit

DEAD = -1

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint64]


class Determined(NamedTuple):
    """A DFA: `table` [states, classes] holds the next state or DEAD; `ends` [states] the contexts behind which a text ends, as
    bits; `starts` [contexts] the start behind each context, 0 that of a whole text. Every state but a start leads to an end.
    """

    table: Ints
    ends: Bits
    starts: Ints


def minimized(table: Ints, ends: Bits, starts: Ints) -> Determined:
    """The same with one state for all that go on alike, numbered breadth first from the starts on."""
    table = np.ascontiguousarray(table)
    backward = _ways_back(table)
    trim(table, _distances(len(table), table.shape[1], backward, ends != 0) >= 0)
    block = _blocks(table, np.unique(ends, return_inverse=True)[1].astype(np.int32))
    return Determined(*_numbered(table, ends, block, starts))


def distances(table: Ints, goal: npt.NDArray[np.bool_]) -> Ints:
    """How few units lead from each state of a `table` [states, classes] to a goal; -1 where none do."""
    found: Ints = _distances(len(table), table.shape[1], _ways_back(np.ascontiguousarray(table)), goal)
    return found


@jit
def _ways_back(table: Ints) -> tuple[Ints, Ints]:
    """The states from which a class leads to a state: `sources[begins[n]:begins[n + 1]]`, n of a class and then a state."""
    states, classes = table.shape
    begins = np.zeros(states * classes + 2, np.int32)
    for number in range(classes):
        for state in range(states):
            if table[state, number] >= 0:
                begins[number * states + table[state, number] + 2] += 1
    for place in range(2, len(begins)):
        begins[place] += begins[place - 1]
    sources = np.empty(begins[-1], np.int32)
    for number in range(classes):
        for state in range(states):
            if table[state, number] >= 0:
                place = number * states + table[state, number] + 1
                sources[begins[place]] = state
                begins[place] += 1
    return begins, sources


@jit
def _distances(states: int, classes: int, backward: tuple[Ints, Ints], goal: npt.NDArray[np.bool_]) -> Ints:
    """How few units lead from each state to a goal; -1 where none do."""
    begins, sources = backward
    found = np.full(states, -1, np.int32)
    todo = np.empty(states, np.int32)
    known = 0
    for state in range(states):
        if goal[state]:
            found[state], todo[known] = 0, state
            known += 1
    done = 0
    while done < known:
        state = todo[done]
        done += 1
        for number in range(classes):
            for way in range(begins[number * states + state], begins[number * states + state + 1]):
                if found[sources[way]] < 0:
                    found[sources[way]], todo[known] = found[state] + 1, sources[way]
                    known += 1
    return found


@jit
def trim(table: Ints, useful: npt.NDArray[np.bool_]) -> None:
    """Take the ways to states that are of no use out of a table."""
    for state in range(len(table)):
        for number in range(table.shape[1]):
            if table[state, number] >= 0 and not useful[table[state, number]]:
                table[state, number] = DEAD


class _Blocks(NamedTuple):
    """States by block: `order` has those of a block in a row, from `first` on, those that were marked before the others."""

    order: Ints
    place: Ints
    of: Ints
    first: Ints
    size: Ints
    marked: Ints


@jit
def _blocks(table: Ints, kinds: Ints) -> Ints:
    """The block of each state of those that go on alike; states of two kinds do not. Hopcroft, 1971."""
    states, classes = table.shape
    begins, sources = _ways_back(table)
    blocks, count = _first_blocks(kinds)
    todo, is_waiting = np.arange(states).astype(np.int32), np.zeros(states, np.bool_)
    waiting = count
    is_waiting[:count] = True
    splitter, touched = np.empty(states, np.int32), np.empty(states, np.int32)
    while waiting:
        waiting -= 1
        block = todo[waiting]
        is_waiting[block] = False
        size = blocks.size[block]
        splitter[:size] = blocks.order[blocks.first[block] : blocks.first[block] + size]
        for number in range(classes):
            several = 0
            for state in splitter[:size]:
                low = number * states + state
                for way in range(begins[low], begins[low + 1]):
                    several = _mark(blocks, sources[way], touched, several)
            for one in touched[:several]:
                if blocks.marked[one] < blocks.size[one]:
                    other = _split(blocks, one, count)
                    further = other if is_waiting[one] or blocks.size[other] <= blocks.size[one] else one
                    is_waiting[further], todo[waiting] = True, further
                    waiting += 1
                    count += 1
                blocks.marked[one] = 0
    return blocks.of


@jit
def _first_blocks(kinds: Ints) -> tuple[_Blocks, int]:
    """A block for each kind, numbered from 0; returns how many too."""
    states = len(kinds)
    count = kinds.max() + 1
    order = np.argsort(kinds, kind="mergesort").astype(np.int32)
    place, of = np.empty(states, np.int32), kinds.copy()
    first, size, marked = np.zeros(states, np.int32), np.zeros(states, np.int32), np.zeros(states, np.int32)
    for at in range(states):
        place[order[at]] = at
        size[kinds[order[at]]] += 1
        if at and kinds[order[at]] != kinds[order[at - 1]]:
            first[kinds[order[at]]] = at
    return _Blocks(order, place, of, first, size, marked), count


@jit
def _mark(blocks: _Blocks, state: int, touched: Ints, several: int) -> int:
    """Put a state among those of its block that are marked; returns how many blocks have some."""
    block = blocks.of[state]
    at, first_free = blocks.place[state], blocks.first[block] + blocks.marked[block]
    if at < first_free:
        return several
    if not blocks.marked[block]:
        touched[several] = block
        several += 1
    other = blocks.order[first_free]
    blocks.order[at], blocks.order[first_free] = other, state
    blocks.place[other], blocks.place[state] = at, first_free
    blocks.marked[block] += 1
    return several


@jit
def _split(blocks: _Blocks, block: int, other: int) -> int:
    """Make the marked states of a block another one; returns its number."""
    first, size = blocks.first[block], blocks.marked[block]
    blocks.first[other], blocks.size[other], blocks.marked[other] = first, size, 0
    blocks.first[block] += size
    blocks.size[block] -= size
    for at in range(first, first + size):
        blocks.of[blocks.order[at]] = other
    return other


@jit
def _numbered(table: Ints, ends: Bits, block: Ints, starts: Ints) -> tuple[Ints, Bits, Ints]:
    """One state for each block that is reached, breadth first from the starts on."""
    states, classes = table.shape
    number, order = np.full(states, -1, np.int32), np.empty(states, np.int32)
    count = 0
    for start in starts:
        if number[block[start]] < 0:
            number[block[start]], order[count] = count, start
            count += 1
    state = 0
    while state < count:
        for target in table[order[state]]:
            if target >= 0 and number[block[target]] < 0:
                number[block[target]], order[count] = count, target
                count += 1
        state += 1
    made, told = np.full((count, classes), DEAD, np.int32), np.empty(count, np.uint64)
    for state in range(count):
        told[state] = ends[order[state]]
        for place in range(classes):
            target = table[order[state], place]
            if target >= 0:
                made[state, place] = number[block[target]]
    return made, told, number[block[starts]]
