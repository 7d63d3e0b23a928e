"""The library of leaf automata, which shares them.

In: a terminal. Out: rows of one int32 table, `next state per byte`, addressed by state ids that stay valid for the life of
the library. A string whose length has bounds is one automaton for all bounds, and a count of its characters beside it.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton import tables
from routine_grammar.automaton.compiling import LeafAutomaton, compile_counted, compile_leaf, nothing_of
from routine_grammar.automaton.counting import MAX_LAYERS, NEVER, Counting
from routine_grammar.automaton.step import COUNTED, DEAD, NO_BOUNDS, RETURN
from routine_grammar.automaton.tables import Addresses, pseudo_slot
from routine_grammar.errors import GrammarTooLargeError
from routine_grammar.grammar.terminals import JsonString, Terminal
from routine_grammar.jit import jit

MAX_UNCOUNTED = 16  # the most characters of a string that are counted by states of its automaton
MAX_LEAST = 64  # the most of its least length that are, where an upper bound is counted beside it
MAX_STATES = COUNTED
MAX_BYTES = 128 * 2**20  # of the shared library, until there is a new one
_STATE_BYTES = 4 * 256 + 64
_SHARING = threading.Lock()
_shared: LeafLibrary | None = None
_UNREACHABLE = np.int32(1 << 30)

_PLACES = {
    "table": tables.TABLE,
    "accepting": tables.ACCEPTING,
    "distance": tables.LEAF_DISTANCE,
    "counted": tables.COUNTED_ROW,
    "completes": tables.COMPLETES,
    "counts": tables.COUNTS,
    "layers": tables.LAYERS,
    "pseudo": tables.PSEUDO,
    "bounds": tables.BOUNDS,
    "extends_row": tables.EXTENDS_ROW,
    "extends_words": tables.EXTENDS_WORDS,
    "pseudo_table": tables.PSEUDO_TABLE,
}

Table = npt.NDArray[np.int32]


class LeafLibrary:
    """All leaf automata of a process in one table, compiled once a terminal. Safe to use from several threads.

    A state is a number below COUNTED, or a pseudo state from there on: a state of a counted leaf with a count and bounds.

    `table` [capacity, 256] int32, `accepting` [capacity] bool, `distance` [capacity] int32 (fewest bytes to an accepting end)
    and `counted` [capacity] int32 (its row of `counts` and `layers`, or -1) grow by replacement, as do `pseudo` [n, 3] int32
    (state, count, bounds) and `bounds` [n, 4] int32 (low, high, the last layer, slope): read the attribute again after any
    state was asked for.
    """

    table: Table
    accepting: npt.NDArray[np.bool_]
    distance: Table
    counted: Table
    completes: npt.NDArray[np.bool_]
    counts: Table
    layers: Table
    pseudo: Table
    bounds: Table
    extends_row: Table
    extends_words: Table
    pseudo_table: Table

    def __init__(self) -> None:
        self.addresses = Addresses(max(_PLACES.values()))
        self._replace(
            table=np.full((256, 256), DEAD, np.int32),
            accepting=np.zeros(256, np.bool_),
            distance=np.zeros(256, np.int32),
            counted=np.full(256, -1, np.int32),
            completes=np.zeros(0, np.bool_),
            counts=np.zeros((0, MAX_LAYERS), np.int32),
            layers=np.zeros((0, MAX_LAYERS), np.int32),
            pseudo=np.zeros((64, 3), np.int32),
            bounds=np.array([[0, NO_BOUNDS, 0, 0]], np.int32),
            extends_row=np.full(256, -1, np.int32),
            extends_words=np.zeros((64, 8), np.int32),
            pseudo_table=_pseudo_table(128, ()),
        )
        self.size = 0
        self._starts: dict[Terminal, int] = {}
        self._counts_of: dict[Terminal, int] = {}
        self._leaves: dict[JsonString, tuple[int, Counting] | None] = {}
        self._pseudo_numbers: dict[tuple[int, int, int], int] = {}
        self._bounds_numbers: dict[tuple[int, ...], int] = {}
        self._first: dict[int, int] = {}
        self._extends: dict[int, int] = {}
        self._farthest: dict[int, int] = {}
        self._strings: list[tuple[int, int]] = []  # the first state of each JSON string, and the one behind its last
        self._grows: dict[int, bool] = {}
        self._reaches: dict[int, int] = {}
        self._lock = threading.RLock()

    def _replace(self, **arrays: npt.NDArray[Any]) -> None:
        """Put arrays in the place of others, which compiled code forgets before they are gone."""
        for name, array in arrays.items():
            self.addresses.set(_PLACES[name], array)
            setattr(self, name, array)

    @classmethod
    def shared(cls) -> LeafLibrary:
        """The library of this process: a new one once it has grown past a bound.

        States are numbers for good, so that single leaves can't go; automata keep the library that they were made over.
        """
        global _shared
        with _SHARING:
            if _shared is None or _shared.nbytes > MAX_BYTES:
                _shared = cls()
            return _shared

    @property
    def nbytes(self) -> int:
        """The bytes of its states, as far as they are used, and of what is told of them."""
        return self.size * _STATE_BYTES + self.counts.nbytes + self.layers.nbytes + self.pseudo.nbytes

    def start(self, terminal: Terminal) -> int:
        """The start state of a terminal's automaton, compiled on first use. Raises as `compile_leaf` does."""
        known = self._starts.get(terminal)
        if known is not None:
            return known
        start = self._counted_start(terminal) if isinstance(terminal, JsonString) and _is_long(terminal) else None
        automaton = compile_leaf(terminal) if start is None else None
        with self._lock:
            if terminal not in self._starts:
                if automaton is not None:
                    start = self._append(automaton, is_string=isinstance(terminal, JsonString))
                    self._counts_of[terminal] = len(automaton.table)
                assert start is not None
                self._starts[terminal] = start
            return self._starts[terminal]

    def adopt(self, terminal: Terminal, automaton: LeafAutomaton) -> int:
        """The start state of a terminal whose automaton was compiled earlier, by the same code."""
        with self._lock:
            if terminal not in self._starts:
                self._starts[terminal] = self._append(automaton, is_string=isinstance(terminal, JsonString))
                self._counts_of[terminal] = len(automaton.table)
            return self._starts[terminal]

    def count(self, terminal: Terminal) -> int:
        """How many states a terminal has that is not counted, from its start on."""
        self.start(terminal)
        return self._counts_of[terminal]

    def next(self, state: int, byte: int) -> int:
        """The state after a byte, DEAD or RETURN."""
        if state < COUNTED:
            return int(self.table[state, byte])
        real, count, number = self.pseudo[state - COUNTED].tolist()
        target = int(self.table[real, byte])
        low, high = self.bounds[number, :2].tolist()
        if target < 0:
            return RETURN if target == RETURN and count >= low else DEAD
        row = int(self.counted[target])
        count += int(self.completes[row])
        if high != NO_BOUNDS and count + self._needed(row, low - count) > high:
            return DEAD
        return self.pseudo_state(target, count if high != NO_BOUNDS else min(count, low), number)

    def is_accepting(self, state: int) -> bool:
        """Whether the leaf may end in a state; a counted one ends with its last byte."""
        return state < COUNTED and bool(self.accepting[state])

    def distance_of(self, state: int) -> int:
        """Fewest bytes from a state to the end of a word."""
        if state < COUNTED:
            return int(self.distance[state])
        real, count, number = self.pseudo[state - COUNTED].tolist()
        return self._bytes_left(real, count, number)

    def first(self, state: int) -> int:
        """The bytes that may come next inside the leaf, as a bit set."""
        if state not in self._first:
            self._first[state] = _byte_set(self._allowed(state))
        return self._first[state]

    def bytes_of(self, state: int) -> int:
        """The bytes that may come anywhere in the language from a state that is not counted, as a bit set."""
        return _byte_set((self.table[: self.size][self._reachable(state)] != DEAD).any(axis=0))

    def extends(self, state: int) -> int:
        """The bytes that may follow a complete word of the language from `state`, as a bit set."""
        if state >= COUNTED:
            return 0
        if state not in self._extends:
            ends = self._reachable(state) & self.accepting[: self.size]
            extends = _byte_set((self.table[: self.size][ends] != DEAD).any(axis=0))
            with self._lock:
                row = len(self._extends)
                if row == len(self.extends_words):
                    self._replace(extends_words=np.concatenate([self.extends_words, np.zeros_like(self.extends_words)]))
                self.extends_words[row] = np.frombuffer(extends.to_bytes(32, "little"), np.int32)
                self.extends_row[state] = row
                self._extends[state] = extends
        return self._extends[state]

    def farthest(self, state: int) -> int:
        """The largest distance to the end among the states that `state` reaches, or more."""
        if state not in self._farthest:
            if state < COUNTED:
                self._farthest[state] = int(self.distance[: self.size][self._reachable(state)].max())
            else:
                real, _, number = self.pseudo[state - COUNTED].tolist()
                states = np.flatnonzero(self._reachable(real)).tolist()
                self._farthest[state] = max(self._most_bytes_left(one, number) for one in states)
        return self._farthest[state]

    def grows(self, state: int) -> bool:
        """Whether a state is of a JSON string that can still become longer and longer, but for bounds on its length."""
        if state not in self._grows:
            place = bisect_right(self._strings, (state, MAX_STATES)) - 1
            is_string = place >= 0 and state < self._strings[place][1]
            self._grows[state] = is_string and bool(self._has_cycle(np.flatnonzero(self._reachable(state))))
        return self._grows[state]

    def reaches(self, state: int) -> int:
        """How many states a state leads to: no way in which none comes twice is longer."""
        if state not in self._reaches:
            self._reaches[state] = int(np.count_nonzero(self._reachable(state)))
        return self._reaches[state]

    def lengths_left(self, state: int, count: int, number: int) -> int:
        """Of how many lengths at least a counted string may still become, after so many characters and with these bounds."""
        low, high = map(int, self.bounds[number, :2])
        if high == NO_BOUNDS:
            return NO_BOUNDS
        if self._has_upper_alone(int(self.counted[state])):
            return 0
        counts = self.counts[self.counted[state]]
        gaps = np.flatnonzero(counts != np.arange(MAX_LAYERS))
        least = int(gaps[-1]) + 1 if len(gaps) else 0
        return max(0, high - count - max(low - count, least))

    def _has_cycle(self, states: npt.NDArray[np.int64]) -> bool:
        """Whether some of these states, which lead to no others, lead to themselves."""
        inside = np.zeros(self.size, np.bool_)
        inside[states] = True
        while len(states):
            leads_on = (self.table[states] >= 0) & inside[np.maximum(self.table[states], 0)]
            kept = states[leads_on.any(axis=1)]
            if len(kept) == len(states):
                return True
            inside[states] = False
            inside[kept] = True
            states = kept
        return False

    def _allowed(self, state: int) -> npt.NDArray[np.bool_]:
        if state < COUNTED:
            return np.asarray(self.table[state] != DEAD)
        real, count, number = self.pseudo[state - COUNTED].tolist()
        low, high = self.bounds[number, :2].tolist()
        targets = self.table[real]
        rows = self.counted[np.maximum(targets, 0)]
        counts = count + self.completes[rows]
        left = np.maximum(low - counts, 0)
        needed = np.maximum(self.counts[rows, np.minimum(left, MAX_LAYERS - 1)], left)
        return np.asarray(((targets >= 0) & (counts + needed <= high)) | ((targets == RETURN) & (count >= low)))

    def _bytes_left(self, state: int, count: int, number: int) -> int:
        """Fewest bytes from a state of a counted leaf to its end, after so many characters and with these bounds."""
        row = int(self.counted[state])
        low, high, last, slope = map(int, self.bounds[number])
        if self._has_upper_alone(row):
            return int(self.layers[row, min(high - count, last)])
        more = self._needed(row, low - count)
        return int(self.layers[row, min(more, last)]) + slope * max(more - last, 0)

    def _most_bytes_left(self, state: int, number: int) -> int:
        """The most that `_bytes_left` is of a state, whatever was counted."""
        row = int(self.counted[state])
        if self._has_upper_alone(row):
            return int(self.layers[row, self.counts[row, 0]])
        return self._bytes_left(state, -1, number)

    def _has_upper_alone(self, row: int) -> bool:
        """Whether a row of counts is for upper bounds alone."""
        return bool(self.counts[row, -1] >= NEVER)

    def _needed(self, row: int, count: int) -> int:
        """The least number of further characters, of at least so many, that leads to the end."""
        count = max(count, 0)
        return max(int(self.counts[row, min(count, MAX_LAYERS - 1)]), count)

    def _reachable(self, state: int) -> npt.NDArray[np.bool_]:
        seen = np.zeros(self.size, np.bool_)
        _reach(self.table, state, seen, np.empty(self.size, np.int32))
        return seen

    def _counted_start(self, terminal: JsonString) -> int | None:
        """The start of a string that is counted beside its automaton, which all its lengths share; None where it can't be."""
        known, low = self._counted(replace(terminal, low=0, high=None)), terminal.low
        if known is None:
            return None
        if not known[1].has_lower:
            if low >= int(self.counts[self.counted[known[0]], 0]):  # which counts the quote before the string
                known = self._counted(replace(terminal, high=None)) if low <= MAX_LEAST else None
                if known is None:
                    return None
            low = 0  # no string of it is shorter
        state, counting = known
        high = NO_BOUNDS if terminal.high is None else terminal.high
        if self._needed(int(self.counted[state]), low + 1) - 1 > high:
            raise nothing_of(terminal)
        with self._lock:
            bounds = (low, high, counting.layers.shape[1] - 1, counting.slope)
            if bounds not in self._bounds_numbers:
                self._bounds_numbers[bounds] = len(self.bounds)
                self._replace(bounds=np.concatenate([self.bounds, np.array([bounds], np.int32)]))
            return self.pseudo_state(state, -1, self._bounds_numbers[bounds])

    def _counted(self, terminal: JsonString) -> tuple[int, Counting] | None:
        """The first state of a string that can be counted, whose least length is part of its automaton, and how it counts."""
        if terminal not in self._leaves:
            automaton = compile_counted(terminal)
            with self._lock:
                if terminal not in self._leaves:
                    counting = None if automaton is None else automaton.counting
                    self._leaves[terminal] = (
                        None if automaton is None or counting is None else (self._append(automaton, is_string=True), counting)
                    )
        return self._leaves[terminal]

    def pseudo_state(self, state: int, count: int, number: int) -> int:
        """The pseudo state of a state of a counted leaf, a count and bounds."""
        with self._lock:
            key = (state, count, number)
            if key not in self._pseudo_numbers:
                place = len(self._pseudo_numbers)
                if place == len(self.pseudo):
                    self._replace(pseudo=np.concatenate([self.pseudo, np.zeros_like(self.pseudo)]))
                    self._replace(pseudo_table=_pseudo_table(2 * len(self.pseudo), self._pseudo_numbers))
                self.pseudo[place] = key
                _insert_pseudo(self.pseudo_table, key, place)
                self._pseudo_numbers[key] = place
            return COUNTED + self._pseudo_numbers[key]

    def _append(self, automaton: LeafAutomaton, *, is_string: bool) -> int:
        base, count = self.size, len(automaton.table)
        if base + count > MAX_STATES:
            raise GrammarTooLargeError(f"the leaves of this process have more than {MAX_STATES} states, the bound")
        while base + count > len(self.table):
            self._replace(
                table=np.concatenate([self.table, np.full_like(self.table, DEAD)]),
                accepting=np.concatenate([self.accepting, np.zeros_like(self.accepting)]),
                distance=np.concatenate([self.distance, np.zeros_like(self.distance)]),
                counted=np.concatenate([self.counted, np.full_like(self.counted, -1)]),
                extends_row=np.concatenate([self.extends_row, np.full_like(self.extends_row, -1)]),
            )
        self.table[base : base + count] = np.where(automaton.table >= 0, automaton.table + base, automaton.table)
        self.accepting[base : base + count] = automaton.accepting
        self.distance[base : base + count] = _distances(automaton.table, automaton.accepting)
        if automaton.counting is not None:
            self._append_counting(base, automaton.counting)
        if is_string:
            self._strings.append((base, base + count))
        self.size = base + count
        return base

    def _append_counting(self, base: int, counting: Counting) -> None:
        row, (count, known) = len(self.counts), counting.counts.shape
        counts = np.tile(np.arange(MAX_LAYERS, dtype=np.int32), (count, 1))  # from the last layer on, any number will do
        layers = np.full((count, MAX_LAYERS), NEVER, np.int32)
        counts[:, :known], layers[:, :known] = counting.counts, counting.layers
        self._replace(
            completes=np.concatenate([self.completes, counting.completes]),
            counts=np.concatenate([self.counts, counts]),
            layers=np.concatenate([self.layers, layers]),
        )
        self.counted[base : base + count] = np.arange(row, row + count)


def _pseudo_table(size: int, keys: Iterable[tuple[int, int, int]]) -> Table:
    """Where the numbers of pseudo states are found by what these are: the size, a power of 2, and the slots."""
    table = np.full(1 + size, -1, np.int32)
    table[0] = size
    for number, key in enumerate(keys):
        _insert_pseudo(table, key, number)
    return table


@jit
def _insert_pseudo(table: Table, key: tuple[int, int, int], number: int) -> None:
    """Put the number of a pseudo state into the first free slot for it."""
    at = pseudo_slot(key[0], key[1], key[2], table[0])
    while table[1 + at] >= 0:
        at = (at + 1) & (table[0] - 1)
    table[1 + at] = number


def _is_long(terminal: JsonString) -> bool:
    """Whether a string's length has bounds that are too large for states."""
    return terminal.is_counted and (terminal.low if terminal.high is None else terminal.high) > MAX_UNCOUNTED


@jit
def _distances(table: Table, accepting: npt.NDArray[np.bool_]) -> Table:
    """Fewest bytes from each state to the end of a word."""
    begins, sources = _ways_back(table)
    distance = np.full(len(table), _UNREACHABLE, np.int32)
    todo = np.empty(len(table), np.int32)
    found = 0
    for state in np.flatnonzero(accepting):
        distance[state], todo[found] = 0, state
        found += 1
    done, behind = 0, found  # where those behind the accepting ones begin
    while True:
        if done == behind:
            for state in range(len(table)):
                if distance[state] == _UNREACHABLE and (table[state] == RETURN).any():
                    distance[state], todo[found] = 1, state
                    found += 1
            behind = -1
        if done == found:
            return distance
        state = todo[done]
        done += 1
        for way in range(begins[state], begins[state + 1]):
            source = sources[way]
            if distance[source] == _UNREACHABLE:
                distance[source], todo[found] = distance[state] + 1, source
                found += 1


@jit
def _ways_back(table: Table) -> tuple[npt.NDArray[np.int64], Table]:
    """For each state the states that lead to it, some of them several times: `sources[begins[n] : begins[n + 1]]`."""
    begins = np.zeros(len(table) + 2, np.int64)
    sources = np.empty(0, np.int32)
    for is_counted in (False, True):
        if is_counted:
            begins = np.cumsum(begins)
            sources = np.empty(begins[-1], np.int32)
        for state in range(len(table)):
            before = DEAD
            for target in table[state]:
                if target >= 0 and target != before:
                    if is_counted:
                        sources[begins[target + 1]] = state
                    begins[target + 1 if is_counted else target + 2] += 1
                before = target
    return begins, sources


def _byte_set(allowed: npt.NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(allowed, bitorder="little").tobytes(), "little")


@jit
def _reach(table: Table, state: int, seen: npt.NDArray[np.bool_], todo: npt.NDArray[np.int32]) -> None:
    """Mark in `seen` every state that a state leads to, itself too; `todo` is as long."""
    seen[state] = True
    todo[0] = state
    count = 1
    while count:
        count -= 1
        row = table[todo[count]]
        for byte in range(256):
            target = row[byte]
            if target >= 0 and not seen[target]:
                seen[target] = True
                todo[count] = target
                count += 1
