"""From units to bytes: an automaton over characters and escapes as one over the bytes that spell them.

A character is its UTF-8; an escape is each of JSON's spellings of it: `\\n`, `\\u000A` in either case, two in a row for what
UTF-16 writes with a pair. Units are spelled once for all states of an automaton: what comes of a place within a unit depends
on the state alone that the unit was begun in. States within a unit are shared by all that goes on alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from routine_grammar.errors import GrammarTooLargeError
from routine_grammar.jit import jit
from routine_grammar.patterns.automaton import UnitAutomaton
from routine_grammar.patterns.charset import ESCAPED, UNITS
from routine_grammar.patterns.json_escapes import SHORT_ESCAPES
from routine_grammar.patterns.minimizing import DEAD

MAX_LEAF_STATES = 50_000
# Of the characters of 1 to 4 bytes: the first and the last, the first byte's base, and how many bytes follow.
_UTF8 = ((0, 0x7F, 0, 0), (0x80, 0x7FF, 0xC0, 1), (0x800, 0xFFFF, 0xE0, 2), (0x10000, 0x10FFFF, 0xF0, 3))

Ints = npt.NDArray[np.int32]
Moves = tuple[tuple[int, int, int], ...]  # first, last, class: in order and apart


@dataclass(frozen=True, slots=True)
class ByteAutomaton:
    """A DFA over bytes; state 0 is the start.

    `table` [states, 256] int32 holds the next state or DEAD. The first `len(accepting)` states are those of the automaton
    over units, the others are within a unit.
    """

    table: npt.NDArray[np.int32]
    accepting: npt.NDArray[np.bool_]


def to_bytes(automaton: UnitAutomaton) -> ByteAutomaton:
    """The automaton over bytes. Raises `GrammarTooLargeError` past the bound on states."""
    starts, edges = _spellings(automaton)
    table = _lowered(automaton.table, starts, edges, MAX_LEAF_STATES)
    if not len(table):
        raise GrammarTooLargeError(f"a pattern needs more than {MAX_LEAF_STATES} states over bytes, the bound")
    return ByteAutomaton(table, automaton.accepting)


def _spellings(automaton: UnitAutomaton) -> tuple[Ints, Ints]:
    """How the units of each class are spelled: places within a unit, each behind all that it leads to, the start last.

    Edges `starts[n]` to `starts[n + 1]` are those of place n: first byte, last byte, and what they lead to, a class or, from
    the number of classes on, a place.
    """
    table, lows = automaton.table, automaton.lows
    is_read = (table != DEAD).any(axis=0)
    ends = np.r_[lows[1:], UNITS] - 1
    moves = [move for move in zip(lows.tolist(), ends.tolist(), automaton.of.tolist(), strict=True) if is_read[move[2]]]
    spelling = _Spelling(table.shape[1])
    start = spelling.start(tuple(moves))
    places = [_runs(place) for place in (*spelling.places, start)]
    edges = [run for runs in places for run in runs]
    return np.cumsum([0, *map(len, places)]).astype(np.int32), np.array(edges, np.int32).reshape(-1, 3)


def _runs(edges: dict[int, int]) -> list[tuple[int, int, int]]:
    """Edges by runs of bytes that lead to the same."""
    runs: list[tuple[int, int, int]] = []
    for byte, to in sorted(edges.items()):
        if runs and runs[-1][1:] == (byte - 1, to):
            runs[-1] = runs[-1][0], byte, to
        else:
            runs.append((byte, byte, to))
    return runs


class _Spelling:
    """`places`: the edges of every place within a unit, by byte. Places are known by what may be read there."""

    def __init__(self, classes: int) -> None:
        self.places: list[dict[int, int]] = []
        self._classes = classes
        self._numbers: dict[tuple[tuple[int, int], ...], int] = {}
        self._tails: dict[tuple[int, Moves], int] = {}
        self._digits: dict[tuple[int, Moves], int] = {}
        self._escapes: dict[Moves, int] = {}

    def start(self, moves: Moves) -> dict[int, int]:
        """The edges of the place between units."""
        edges: dict[int, int] = {}
        for first, last, base, count in _UTF8:
            for low, high, rest in _blocks(_within(moves, first, last), 1 << 6 * count):
                target = self._tail(count, rest)
                edges.update(dict.fromkeys(range(base + low, base + high + 1), target))
        if escapes := tuple((low - ESCAPED, high - ESCAPED, to) for low, high, to in _within(moves, ESCAPED, 2 * ESCAPED)):
            edges[ord("\\")] = self._escape(escapes)
        return edges

    def _new(self, edges: dict[int, int]) -> int:
        """A place within a unit."""
        key = tuple(edges.items())
        if key not in self._numbers:
            self._numbers[key] = self._classes + len(self.places)
            self.places.append(edges)
        return self._numbers[key]

    def _tail(self, count: int, moves: Moves) -> int:
        """The place before the last `count` bytes of a character."""
        if count == 0:
            return moves[0][2]
        key = (count, moves)
        if key not in self._tails:
            edges: dict[int, int] = {}
            for low, high, rest in _blocks(moves, 1 << 6 * (count - 1)):
                edges.update(dict.fromkeys(range(0x80 + low, 0x80 + high + 1), self._tail(count - 1, rest)))
            self._tails[key] = self._new(edges)
        return self._tails[key]

    def _escape(self, moves: Moves) -> int:
        """The place behind a backslash."""
        if moves not in self._escapes:
            edges = {}
            for char, letter in SHORT_ESCAPES.items():
                if found := _within(moves, ord(char), ord(char)):
                    edges[ord(letter)] = found[0][2]
            units = (*_within(moves, 0, 0xFFFF), *self._pairs(_within(moves, 0x10000, 0x10FFFF)))
            edges[ord("u")] = self._number(4, tuple(sorted(units)))
            self._escapes[moves] = self._new(edges)
        return self._escapes[moves]

    def _pairs(self, moves: Moves) -> Moves:
        """The first code units of pairs, each leading to a place before the second."""
        moves = tuple((low - 0x10000, high - 0x10000, to) for low, high, to in moves)
        found = []
        for low, high, rest in _blocks(moves, 0x400):
            second = self._number(4, tuple((0xDC00 + first, 0xDC00 + last, to) for first, last, to in rest))
            found.append((0xD800 + low, 0xD800 + high, self._new({ord("\\"): self._new({ord("u"): second})})))
        return tuple(found)

    def _number(self, count: int, moves: Moves) -> int:
        """The place before `count` hexadecimal digits of a code unit."""
        if count == 0:
            return moves[0][2]
        key = (count, moves)
        if key not in self._digits:
            edges = {}
            for low, high, rest in _blocks(moves, 16 ** (count - 1)):
                target = self._number(count - 1, rest)
                for digit in range(low, high + 1):
                    edges[ord(f"{digit:x}")] = edges[ord(f"{digit:X}")] = target
            self._digits[key] = self._new(edges)
        return self._digits[key]


def _within(moves: Moves, first: int, last: int) -> Moves:
    """The moves on the units from `first` to `last`."""
    return tuple((max(low, first), min(high, last), to) for low, high, to in moves if low <= last and first <= high)


def _blocks(moves: Moves, size: int) -> Iterator[tuple[int, int, Moves]]:
    """Moves by blocks of `size` units: runs of blocks that are alike, each with the moves inside such a block."""
    open_block, inside = -1, list[tuple[int, int, int]]()
    for low, high, to in moves:
        while low <= high:
            block = low // size
            if block != open_block and inside:
                yield open_block, open_block, tuple(inside)
                inside = []
            if low == block * size and high >= low + size - 1:
                last = (high + 1) // size - 1
                yield block, last, ((0, size - 1, to),)
                low = (last + 1) * size
            else:
                end = min(high, (block + 1) * size - 1)
                open_block = block
                inside.append((low - block * size, end - block * size, to))
                low = end + 1
    if inside:
        yield open_block, open_block, tuple(inside)


@jit
def _lowered(table: Ints, starts: Ints, edges: Ints, most: int) -> Ints:
    """The table [states, 256] of an automaton with `table` [states, classes] whose units are spelled so (`_spellings`).

    Its own states first, then those within a unit, of which two that go on alike are one; none for more than `most`.
    """
    states, classes = table.shape
    count, used = states, 0
    runs = np.empty((1024, 3), np.int32)  # first byte, last byte, state
    spans = np.empty((2 * states + 64, 2), np.int32)  # of each state, where its runs are
    slots = np.full(1024, -1, np.int32)  # states within a unit, by what they are
    value = np.empty(classes + len(starts) - 1, np.int32)  # what classes and places are, for a state
    for state in range(states):
        value[:classes] = table[state]
        for place in range(len(starts) - 2):
            if used + 256 > len(runs):
                runs = _grown(runs)
            end = _read_on(edges[starts[place] : starts[place + 1]], value, runs, used)
            value[classes + place] = DEAD
            if end == used:
                continue
            at = _slot(runs, spans, slots, used, end)
            if slots[at] < 0:
                if count == most:
                    return np.empty((0, 256), np.int32)
                if count == len(spans):
                    spans = _grown(spans)
                spans[count, 0], spans[count, 1] = used, end
                slots[at] = count
                used = end
                count += 1
                slots = _roomy(runs, spans, slots, states, count)
                value[classes + place] = count - 1
            else:
                value[classes + place] = slots[at]
        if used + 256 > len(runs):
            runs = _grown(runs)
        end = _read_on(edges[starts[-2] :], value, runs, used)
        spans[state, 0], spans[state, 1] = used, end
        used = end
    return _tabled(runs, spans[:count])


@jit
def _grown(array: Ints) -> Ints:
    """A table in twice the room."""
    grown = np.empty((2 * len(array), array.shape[1]), np.int32)
    grown[: len(array)] = array
    return grown


@jit
def _read_on(edges: Ints, value: Ints, runs: Ints, begin: int) -> int:
    """Write the runs of a place from `begin` on, and where they end."""
    end = begin
    for low, high, to in edges:
        target = value[to]
        if target == DEAD:
            continue
        if end > begin and runs[end - 1, 2] == target and runs[end - 1, 1] + 1 == low:
            runs[end - 1, 1] = high
        else:
            runs[end, 0], runs[end, 1], runs[end, 2] = low, high, target
            end += 1
    return end


@jit
def _slot(runs: Ints, spans: Ints, slots: Ints, begin: int, end: int) -> int:
    """Where the state with these runs is, or the free slot where it would be."""
    key = 0
    for run in range(begin, end):
        for part in range(3):
            key = (key ^ runs[run, part]) * 0x100000001B3
    at = (key ^ (key >> 29)) & (len(slots) - 1)
    while slots[at] >= 0:
        first, behind = spans[slots[at], 0], spans[slots[at], 1]
        if behind - first == end - begin and (runs[first:behind] == runs[begin:end]).all():
            break
        at = (at + 1) & (len(slots) - 1)
    return at


@jit
def _roomy(runs: Ints, spans: Ints, slots: Ints, first: int, count: int) -> Ints:
    """The slots of the states from `first` on, in more of them where half are taken."""
    if 2 * (count - first) < len(slots):
        return slots
    slots = np.full(2 * len(slots), -1, np.int32)
    for state in range(first, count):
        slots[_slot(runs, spans, slots, spans[state, 0], spans[state, 1])] = state
    return slots


@jit
def _tabled(runs: Ints, spans: Ints) -> Ints:
    """Runs as a table [states, 256]."""
    table = np.full((len(spans), 256), DEAD, np.int32)
    for state in range(len(spans)):
        for run in range(spans[state, 0], spans[state, 1]):
            table[state, runs[run, 0] : runs[run, 1] + 1] = runs[run, 2]
    return table
