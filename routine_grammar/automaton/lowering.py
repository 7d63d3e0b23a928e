"""From units to bytes: an automaton over characters and escapes as one over the bytes that spell them.

A character is its UTF-8; an escape is each of JSON's spellings of it: `\\n`, `\\u000A` in either case, two in a row for what
UTF-16 writes with a pair. States within a unit are shared by all that goes on alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from routine_grammar.errors import GrammarTooLargeError
from routine_grammar.patterns.automaton import DEAD, UnitAutomaton
from routine_grammar.patterns.charset import ESCAPED
from routine_grammar.patterns.json_escapes import SHORT_ESCAPES

MAX_LEAF_STATES = 50_000
# Of the characters of 1 to 4 bytes: the first and the last, the first byte's base, and how many bytes follow.
_UTF8 = ((0, 0x7F, 0, 0), (0x80, 0x7FF, 0xC0, 1), (0x800, 0xFFFF, 0xE0, 2), (0x10000, 0x10FFFF, 0xF0, 3))

Moves = tuple[tuple[int, int, int], ...]  # first, last, state: in order and apart


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
    lowering = _Lowering()
    rows = lowering.rows
    rows += [{} for _ in automaton.accepting]
    for state in range(len(automaton.accepting)):
        rows[state] = lowering.row(tuple(automaton.moves(state)))
    table = np.full((len(rows), 256), DEAD, np.int32)
    for out, edges in zip(table, rows, strict=True):
        out[list(edges)] = list(edges.values())
    return ByteAutomaton(table, automaton.accepting)


class _Lowering:
    """`rows`: the edges of every state by byte. States within a unit are known by what may be read there."""

    def __init__(self) -> None:
        self.rows: list[dict[int, int]] = []
        self._numbers: dict[tuple[tuple[int, int], ...], int] = {}
        self._tails: dict[tuple[int, Moves], int] = {}
        self._digits: dict[tuple[int, Moves], int] = {}
        self._escapes: dict[Moves, int] = {}

    def row(self, moves: Moves) -> dict[int, int]:
        """The edges of a state between units."""
        edges: dict[int, int] = {}
        for first, last, base, count in _UTF8:
            for low, high, rest in _blocks(_within(moves, first, last), 1 << 6 * count):
                target = self._tail(count, rest)
                edges.update(dict.fromkeys(range(base + low, base + high + 1), target))
        if escapes := tuple((low - ESCAPED, high - ESCAPED, to) for low, high, to in _within(moves, ESCAPED, 2 * ESCAPED)):
            edges[ord("\\")] = self._escape(escapes)
        return edges

    def _new(self, edges: dict[int, int]) -> int:
        """A state within a unit."""
        key = tuple(edges.items())
        if key not in self._numbers:
            if len(self.rows) >= MAX_LEAF_STATES:
                raise GrammarTooLargeError(f"a pattern needs more than {MAX_LEAF_STATES} states over bytes, the bound")
            self._numbers[key] = len(self.rows)
            self.rows.append(edges)
        return self._numbers[key]

    def _tail(self, count: int, moves: Moves) -> int:
        """The state before the last `count` bytes of a character."""
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
        """The state behind a backslash."""
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
        """The first code units of pairs, each leading to a state before the second."""
        moves = tuple((low - 0x10000, high - 0x10000, to) for low, high, to in moves)
        found = []
        for low, high, rest in _blocks(moves, 0x400):
            second = self._number(4, tuple((0xDC00 + first, 0xDC00 + last, to) for first, last, to in rest))
            found.append((0xD800 + low, 0xD800 + high, self._new({ord("\\"): self._new({ord("u"): second})})))
        return tuple(found)

    def _number(self, count: int, moves: Moves) -> int:
        """The state before `count` hexadecimal digits of a code unit."""
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
