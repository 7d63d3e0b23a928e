"""Determining: points as a deterministic automaton with as few states as there can be, in compiled code.

A state is a set of points behind a unit, and where it matters the context of that unit. It is dead where an item that has to
match has no point left, or one that may not matches whatever follows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from routine_grammar.errors import GrammarTooLargeError
from routine_grammar.jit import jit
from routine_grammar.patterns.minimizing import DEAD, Bits, Determined, Ints, Longs, minimized

_TOO_MANY_STATES, _TOO_MUCH_WORK = -1, -2
_FEW = 32

Flags = npt.NDArray[np.uint8]


class Flat(NamedTuple):
    """Points as arrays.

    Of each point: the number of its set (-1: it reads nothing), the point behind that, its item, which item it is the end of
    (-1: of none), and whether any text leads from it to that end. `to[begins[n]:begins[n + 1]]` is where point n leads at
    once, under `conditions`, whose `matrices` [conditions, before, behind] say between which contexts they hold; 0 always does.
    `members` [sets, classes]: the last are the classes that there are at all; `classes[rows[n]:rows[n + 1]]` are those of
    set n. `contexts` [classes], from 1 on. `holds` [items]: whether it has to match; `firsts` [items]: where they begin.
    """

    sets: Ints
    targets: Ints
    items: Ints
    ends: Ints
    universal: Flags
    begins: Ints
    to: Ints
    conditions: Ints
    matrices: Flags
    members: Flags
    rows: Ints
    classes: Ints
    contexts: Ints
    holds: Flags
    firsts: Ints


def determined(flat: Flat, *, everywhere: bool, states: int, work: int) -> Determined:
    """The automaton of some points; `everywhere`: with a start behind each context. Raises `GrammarTooLargeError`."""
    contexts = flat.matrices.shape[1]
    is_open = _leading_conditionally(flat.begins, flat.to, flat.conditions)
    starts = contexts if everywhere and is_open[flat.firsts].any() else 1
    table, ends, code = _determine(flat, is_open, starts, contexts, states, work)
    if code == _TOO_MANY_STATES:
        raise GrammarTooLargeError(f"a pattern needs more than {states} states, the bound")
    if code == _TOO_MUCH_WORK:
        raise GrammarTooLargeError(f"a pattern needs more than {work} steps, the bound, to become an automaton")
    first = np.arange(contexts if everywhere else 1, dtype=np.int32)
    # Of a whole text it is only told whether it may end where nothing follows.
    told = ends if everywhere else ends & np.uint64(1)
    return minimized(table, told, first if starts > 1 else np.zeros_like(first))


@jit
def _leading_conditionally(begins: Ints, to: Ints, conditions: Ints) -> Flags:
    """Which points lead to others under a condition, at once or past others."""
    count = len(begins) - 1
    found = np.zeros(count, np.uint8)
    into = np.zeros(count + 2, np.int64)
    for way in range(len(to)):
        into[to[way] + 2] += 1
    into = np.cumsum(into)
    sources = np.empty(len(to), np.int32)
    todo = np.empty(count, np.int32)
    waiting = 0
    for point in range(count):
        for way in range(begins[point], begins[point + 1]):
            sources[into[to[way] + 1]] = point
            into[to[way] + 1] += 1
            if conditions[way] and not found[point]:
                found[point], todo[waiting] = 1, point
                waiting += 1
    while waiting:
        waiting -= 1
        point = todo[waiting]
        for way in range(into[point], into[point + 1]):
            if not found[sources[way]]:
                found[sources[way]], todo[waiting] = 1, sources[way]
                waiting += 1
    return found


class _Scratch(NamedTuple):
    """What is used again from state to state: of points when they were seen, some of them, of items when they ended, of classes
    where those begin that read it.
    """

    seen: Longs
    todo: Ints
    found: Ints
    behind: Ints
    ended: Longs
    alive: Flags
    begins: Ints


class _States(NamedTuple):
    """States by number: in `spans` [states, 3] where their points are in `points`, and the context before them.

    `slots` are numbers of states by what they are, `table` and `ends` as in `Determined`.
    """

    points: Ints
    spans: Longs
    slots: Ints
    table: Ints
    ends: Bits


@jit
def _scratch_for(flat: Flat) -> _Scratch:
    """What is used again, as large as it has to be."""
    points, items = len(flat.sets), len(flat.holds)
    return _Scratch(
        np.zeros(points, np.int64),
        np.empty(points, np.int32),
        np.empty(points, np.int32),
        np.empty(max(points, items), np.int32),
        np.zeros(items, np.int64),
        np.zeros(items, np.uint8),
        np.empty(flat.members.shape[1] + 2, np.int32),
    )


@jit
def _determine(flat: Flat, is_open: Flags, starts: int, contexts: int, most: int, work: int) -> tuple[Ints, Bits, int]:
    """The table of all states that are reached, and what ends behind each; the code is 0, or why there is none."""
    items, scratch = len(flat.holds), _scratch_for(flat)
    states = _States(
        np.empty(1024, np.int32),
        np.zeros((64, 3), np.int64),
        np.full(256, -1, np.int32),
        np.empty((64, flat.members.shape[1]), np.int32),
        np.zeros(64, np.uint64),
    )
    scratch.behind[:items] = flat.firsts
    read = np.empty(256, np.int32)
    count = stamp = done = 0
    for before in range(starts):
        states = _roomy(states, count, items)
        count = max(count, _number(states, scratch.behind[:items], before, count) + 1)
    state = 0
    while state < count:
        opened = 0
        for place in range(states.spans[state, 0], states.spans[state, 1]):
            opened |= is_open[states.points[place]]
        states.table[state] = DEAD
        for context in range(contexts if opened else 1):
            stamp += 1
            reading = _closed(flat, states, state, context, scratch, stamp)
            states.ends[state] |= _ending(flat.holds, scratch.ended, stamp, context, opened)
            read = _by_class(flat, reading, scratch, read)
            done += reading + scratch.begins[-1]
            for number in range(flat.members.shape[1]):
                if flat.members[-1, number] and (not opened or flat.contexts[number] == context):
                    stamp += 1
                    size = _behind(flat, read[scratch.begins[number] : scratch.begins[number + 1]], scratch, stamp)
                    done += 1
                    if size >= 0:
                        behind = scratch.behind[:size]
                        states = _roomy(states, count, size)
                        target = _number(states, behind, _context_before(is_open, behind, flat.contexts[number]), count)
                        states.table[state, number] = target
                        count = max(count, target + 1)
        if count > most or done > work:
            return states.table, states.ends, _TOO_MANY_STATES if count > most else _TOO_MUCH_WORK
        state += 1
    return states.table[:count].copy(), states.ends[:count].copy(), 0


@jit
def _closed(flat: Flat, states: _States, state: int, context: int, scratch: _Scratch, stamp: int) -> int:
    """Find the points that read something and are led to from a state before a context; returns how many.

    Marks the items that have ended there.
    """
    before = states.spans[state, 2]
    waiting = count = 0
    for place in range(states.spans[state, 0], states.spans[state, 1]):
        scratch.seen[states.points[place]] = stamp
        scratch.todo[waiting] = states.points[place]
        waiting += 1
    while waiting:
        waiting -= 1
        point = scratch.todo[waiting]
        if flat.sets[point] >= 0:
            scratch.found[count] = point
            count += 1
        if flat.ends[point] >= 0:
            scratch.ended[flat.ends[point]] = stamp
        for way in range(flat.begins[point], flat.begins[point + 1]):
            target = flat.to[way]
            if scratch.seen[target] != stamp and flat.matrices[flat.conditions[way], before, context]:
                scratch.seen[target] = stamp
                scratch.todo[waiting] = target
                waiting += 1
    return count


@jit
def _ending(holds: Flags, ended: Longs, stamp: int, context: int, opened: int) -> Any:
    """The contexts before which a text may end, as far as this one tells, as bits."""
    for item in range(len(holds)):
        if (ended[item] == stamp) != (holds[item] != 0):
            return np.uint64(0)
    return np.uint64(1) << np.uint64(context) if opened else ~np.uint64(0)


@jit
def _by_class(flat: Flat, reading: int, scratch: _Scratch, read: Ints) -> Ints:
    """Write the points behind those that read by the classes that they read, from `begins` of a class on."""
    begins = scratch.begins
    begins[:] = 0
    for place in range(reading):
        chars = flat.sets[scratch.found[place]]
        for number in flat.classes[flat.rows[chars] : flat.rows[chars + 1]]:
            begins[number + 2] += 1
    for number in range(2, len(begins)):
        begins[number] += begins[number - 1]
    if begins[-1] > len(read):
        read = np.empty(2 * begins[-1], np.int32)
    for place in range(reading):
        point = scratch.found[place]
        chars = flat.sets[point]
        for number in flat.classes[flat.rows[chars] : flat.rows[chars + 1]]:
            read[begins[number + 1]] = flat.targets[point]
            begins[number + 1] += 1
    return read


@jit
def _behind(flat: Flat, read: Ints, scratch: _Scratch, stamp: int) -> int:
    """Put the points behind a unit in order, each once, without those that others make up for; returns how many, or DEAD."""
    size = 0
    scratch.alive[:] = 0
    for target in read:
        if scratch.seen[target] != stamp:
            scratch.seen[target] = stamp
            scratch.behind[size] = target
            size += 1
            scratch.alive[flat.items[target]] |= 1 + flat.universal[target]
    for item in range(len(flat.holds)):
        alive = scratch.alive[item]
        if (not alive) if flat.holds[item] else alive >= 2:
            return DEAD
    kept = 0
    for place in range(size):
        target = scratch.behind[place]
        if scratch.alive[flat.items[target]] < 2 or flat.universal[target]:
            scratch.behind[kept] = target
            kept += 1
    _sort(scratch.behind, kept)
    return kept


@jit
def _sort(points: Ints, count: int) -> None:
    """Sort the first so many points: nearly always few."""
    if count > _FEW:
        points[:count].sort()
        return
    for place in range(1, count):
        point, at = points[place], place
        while at and points[at - 1] > point:
            points[at] = points[at - 1]
            at -= 1
        points[at] = point


@jit
def _context_before(is_open: Flags, points: Ints, context: int) -> int:
    """The context before some points, 0 where it does not matter to them."""
    for point in points:
        if is_open[point]:
            return context
    return 0


@jit
def _number(states: _States, points: Ints, before: int, count: int) -> int:
    """The number of a state, a new one where there is none yet."""
    at = _slot(states.points, states.spans, states.slots, points, before)
    if states.slots[at] < 0:
        begin = states.spans[count - 1, 1] if count else 0
        states.points[begin : begin + len(points)] = points
        states.spans[count, 0], states.spans[count, 1], states.spans[count, 2] = begin, begin + len(points), before
        states.slots[at] = count
    return int(states.slots[at])


@jit
def _slot(known: Ints, spans: Longs, slots: Ints, points: Ints, before: int) -> int:
    """Where the number of a state is, or the free slot where it would be."""
    key = before + 1
    for point in points:
        key = (key ^ point) * 0x100000001B3
    at = (key ^ (key >> 29)) & (len(slots) - 1)
    while slots[at] >= 0:
        low, high = spans[slots[at], 0], spans[slots[at], 1]
        if spans[slots[at], 2] == before and high - low == len(points):
            place = 0
            while place < len(points) and known[low + place] == points[place]:
                place += 1
            if place == len(points):
                break
        at = (at + 1) & (len(slots) - 1)
    return at


@jit
def _roomy(states: _States, count: int, size: int) -> _States:
    """The states with room for one more of so many points."""
    used = states.spans[count - 1, 1] if count else 0
    points, spans, slots, table, ends = states
    while used + size > len(points):
        points = np.concatenate((points, points))
    if count == len(table):
        spans = np.concatenate((spans, spans))
        table = np.concatenate((table, table))
        ends = np.concatenate((ends, np.zeros_like(ends)))
    if 2 * count > len(slots):
        slots = np.full(4 * len(slots), -1, np.int32)
        for state in range(count):
            low, high, before = spans[state]
            slots[_slot(points, spans, slots, points[low:high], before)] = state
    return _States(points, spans, slots, table, ends)
