"""The memory of a skeleton: a grammar's program and the arrays that are made of it, which grow."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton import pools, tables
from routine_grammar.automaton.expanding import address_of_expand
from routine_grammar.automaton.leaf import LeafLibrary
from routine_grammar.automaton.readings import fill_tables, make_end
from routine_grammar.automaton.states import make_first_states
from routine_grammar.automaton.tables import Addresses, Handle
from routine_grammar.automaton.taking import PLACES, RULE_BYTES, RULES, sizes_of_block, write_block
from routine_grammar.errors import GrammarTooLargeError, RoutineGrammarError, UnsupportedSchemaError
from routine_grammar.grammar.program import Program
from routine_grammar.grammar.terminals import JsonNumber, Terminal

Ints = npt.NDArray[np.int32]
Array = npt.NDArray[Any]

# The arrays of each pool, with what an element takes (0: as many words as a set of bytes has), and how many elements more
# there are than the pool has.
_ARRAYS: Mapping[int, Mapping[int, tuple[int, int]]] = {
    pools.OF_POINTS: dict.fromkeys(
        (
            *(pools.FIRST_ITEM, pools.LAST_ITEM, pools.DISTANCES, pools.SEEN),
            *(pools.MARKS_KNOWN, pools.COPY_OF, pools.WALKED),
        ),
        (1, 0),
    ),
    pools.OF_ITEMS: {pools.ITEMS: (4, 0)},
    pools.OF_SETS: {pools.FIRST_MEMBER: (1, 1), pools.CLOSURES: (1, 0), pools.BYTES_KNOWN: (1, 0), pools.SET_BYTES: (0, 0)},
    pools.OF_MEMBERS: {pools.MEMBERS: (1, 0)},
    pools.OF_READINGS: {pools.FIRST_WORD: (1, 1), pools.STATE_OF: (1, 0)},
    pools.OF_WORDS: {pools.READINGS: (1, 0)},
    pools.OF_STATES: {
        tables.STATES: (tables.STATE_COLUMNS, 0),
        **dict.fromkeys((pools.READING_OF, pools.RULE_OF, pools.STATE_SEEN, pools.VISIT), (1, 0)),
    },
    pools.OF_EDGES: {tables.EDGES: (tables.EDGE_COLUMNS, 0)},
    pools.OF_SYMBOLS: {tables.SYMBOLS: (tables.SYMBOL_COLUMNS, 0)},
    pools.OF_COPIES: {pools.COPIES: (3, 0), pools.WITHIN: (0, 0)},
    pools.OF_PAIRS: {pools.PAIRS: (1, 0)},
    pools.OF_TEXTS: {pools.TEXTS: (3, 0)},
    pools.OF_DRAFT: {pools.DRAFT: (1, 0)},
    pools.OF_TODO: {pools.TODO: (1, 0)},
    pools.OF_OPENED: {pools.OPENED: (3, 0)},
    pools.OF_NEXT: {pools.NEXT: (1, 0)},
    pools.OF_ROWS: {pools.ROWS: (0, 0)},
    pools.OF_FACTS: {pools.FACTS: (0, 0)},
}
_ROOM = {
    pools.OF_SYMBOLS: 8,
    pools.OF_COPIES: 16,
    pools.OF_OPENED: 8,
    pools.OF_NEXT: 2056,
    pools.OF_ROWS: 16,
    pools.OF_WORDS: 2048,
    pools.OF_EDGES: 1024,
}
_USUAL_ROOM = 256
# The tables of pools, and where it is told how many slots they have: some for each element.
_TABLES = {
    pools.OF_SETS: (pools.SET_TABLE, pools.SET_SLOTS),
    pools.OF_READINGS: (pools.READING_TABLE, pools.READING_SLOTS),
    pools.OF_COPIES: (pools.COPY_TABLE, pools.COPY_SLOTS),
}
_SLOTS = 4


class _Layout(NamedTuple):
    """One block for all arrays of a new skeleton, int32: where they begin, and what the first of it is set to."""

    places: Array
    starts: Array
    sizes: Array
    begins: Ints
    size: int


@cache
def _layout(words: int) -> _Layout:
    """The layout with so many words to a set of bytes; of recursive rules there are none yet."""
    slots = {table: 1 << (_SLOTS * _ROOM.get(pool, _USUAL_ROOM) - 1).bit_length() for pool, (table, _) in _TABLES.items()}
    sizes = {pools.USED: pools.COUNTERS, pools.ROOM: pools.POOLS, **slots, pools.FOUND: words, pools.EDGE_DRAFT: 256 * 3}
    for each in range(pools.POOLS):
        room = _ROOM.get(each, _USUAL_ROOM)
        for place, (_, more) in _ARRAYS[each].items():
            sizes[place] = (room + more) * _width(place, words, 0) * (2 if place == pools.PAIRS else 1)
    sizes = {place: size + size % 2 for place, size in sizes.items()}  # all begin where 64 bits may
    starts = np.concatenate([[0], np.cumsum(list(sizes.values()))])
    begins = np.full(pools.COUNTERS + 1 + pools.POOLS + 1 + sum(slots.values()), -1, np.int32)
    counters, room_of = begins[: pools.COUNTERS], begins[sizes[pools.USED] :][: pools.POOLS]
    counters[:] = 0
    counters[pools.WORDS] = words
    for table, counter in _TABLES.values():
        counters[counter] = slots[table]
    room_of[:] = [_ROOM.get(each, _USUAL_ROOM) for each in range(pools.POOLS)]
    used = sizes[pools.USED] + sizes[pools.ROOM] + sum(slots.values())
    lengths = [size // (2 if place == pools.PAIRS else 1) for place, size in sizes.items()]
    return _Layout(np.array(list(sizes)), starts[:-1], np.array(lengths), begins[:used], int(starts[-1]))


def _width(place: int, words: int, circles: int) -> int:
    """What an element of an array takes."""
    if place == pools.WITHIN:
        return circles
    if place in (pools.SET_BYTES, pools.ROWS):
        return words
    if place == pools.FACTS:
        return 2 * words + 3
    return next(width for arrays in _ARRAYS.values() for of, (width, _) in arrays.items() if of == place)


def _too_large(name: str, terminal: Terminal, pointer: str | None, error: GrammarTooLargeError) -> RoutineGrammarError:
    """What to say of a leaf that takes too much: what asks for it in a schema, where that is known."""
    if pointer is None:
        return GrammarTooLargeError(f"terminal {name}: {error}")
    keyword = "multipleOf" if isinstance(terminal, JsonNumber) else "pattern"
    return UnsupportedSchemaError(f"{keyword!r} is not supported here: {error}", pointer=pointer, keyword=keyword)


class Memory:
    """The arrays of one program. `symbols` are the numbers of the markers that are one symbol each."""

    def __init__(self, program: Program, library: LeafLibrary, symbols: Mapping[str, int]) -> None:
        self._library = library
        self._addresses = self._new_addresses()
        self._words = words = pools.BYTE_WORDS + (len(symbols) + 31) // 32
        layout = _layout(words)
        self._block = np.empty(layout.size, np.int32)
        self._block[: len(layout.begins)] = layout.begins
        self._addresses.set_block(layout.places, self._block, layout.starts, layout.sizes)
        self._arrays: dict[int, Array] = {}
        self._beside = 0  # bytes of the arrays that are not in the block
        self._take(program, symbols)
        make_end(self.handle)
        make_first_states(self.handle)

    def _new_addresses(self) -> Addresses:
        addresses = Addresses(pools.LAST)
        addresses.set_handle(tables.LIBRARY, self._library.addresses)
        addresses.set_function(pools.EXPAND, address_of_expand())
        return addresses

    def _take(self, program: Program, symbols: Mapping[str, int]) -> None:
        """Take a program, and what the library has of its leaves."""
        texts = [text.encode() for text in program.texts]
        data, rules = b"".join(texts), len(program.firsts)
        numbers = [0, *accumulate(map(len, texts)), *(symbols.get(text, -1) for text in program.texts)]
        for name, terminal in program.leaves:
            try:
                state = self._library.start(terminal)
            except GrammarTooLargeError as error:
                raise _too_large(name, terminal, program.pointers.get(name), error) from error
            numbers += (state, self._library.farthest(state))
            self._library.extends(state)
        sizes = sizes_of_block(len(program.ends), len(texts), len(program.leaves), rules, self._words, len(data))
        begins = [0, *accumulate(sizes)]
        block, starts = np.zeros(begins[-1], np.int32), np.array(begins[:-1], np.int64)
        written, text = np.array(numbers, np.int32), np.frombuffer(data, np.uint8)
        write_block(program.nodes, program.ends, program.firsts, written, text, starts, block)
        self._program = block, starts, np.array([*sizes[:-1], len(data) + 1], np.int64)
        self._place_program()
        self.used[pools.RULE_COUNT] = rules

    def _place_program(self) -> None:
        """Have compiled code find the arrays of the program's block."""
        block, begins, sizes = self._program
        self._addresses.set_block(PLACES, block, begins, sizes)
        for place, number in ((pools.RULES, RULES), (pools.RULE_BYTES, RULE_BYTES)):
            self._arrays[place] = block[begins[number] : begins[number + 1]]

    def _set(self, place: int, array: Array) -> None:
        """Have compiled code find an array at a place; the one before stays until then."""
        before = self._arrays.get(place)
        self._beside += array.nbytes - (before.nbytes if before is not None and before.base is None else 0)
        self._addresses.set(place, array)
        self._arrays[place] = array

    def _array(self, place: int) -> Array:
        """The array at a place."""
        if place not in self._arrays:
            layout = _layout(self._words)
            number = int(np.flatnonzero(layout.places == place)[0])
            start, size = int(layout.starts[number]), int(layout.sizes[number])
            if place == pools.PAIRS:
                self._arrays[place] = self._block[start : start + 2 * size].view(np.int64)
            else:
                self._arrays[place] = self._block[start : start + size]
        return self._arrays[place]

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        return self._block.nbytes + self._program[0].nbytes + self._beside

    @property
    def used(self) -> Ints:
        """The counters."""
        return self._array(pools.USED)

    @property
    def handle(self) -> Handle:
        """What compiled code finds all arrays by, as long as this lives."""
        return self._addresses.handle

    @property
    def found(self) -> Ints:
        """The set of bytes and symbols that a walk over states has found."""
        return self._array(pools.FOUND)[: self._words].copy()

    @property
    def rules(self) -> Ints:
        """The columns of all rules: [rules, RULE_COLUMNS]."""
        return self._array(pools.RULES).reshape(-1, pools.RULE_COLUMNS)

    @property
    def rule_bytes(self) -> Ints:
        """The sets of all rules: [rules, 3, words]."""
        return self._array(pools.RULE_BYTES).reshape(-1, 3, self._words)

    def without_states(self) -> Memory:
        """A copy that has no states yet, under which something can be tried."""
        trial = copy(self)
        trial._addresses = trial._new_addresses()
        trial._arrays = {}
        block, begins, sizes = self._program
        trial._program = block.copy(), begins, sizes
        trial._place_program()
        for place in {*_layout(self._words).places.tolist(), *self._arrays} - trial._arrays.keys():
            trial._set(place, self._array(place).copy())
        trial.used[[pools.OF_STATES, pools.OF_EDGES, pools.OF_SYMBOLS]] = 0
        trial._array(pools.STATE_OF)[:] = -1
        trial.rules[:, (pools.BODY_STATE, pools.START)] = pools.UNSET
        make_first_states(trial.handle)
        return trial

    def learn(self, trial: Memory) -> None:
        """Take what was found of rules in a trial of which nothing is known here, and what it cost."""
        mine, its = (each.rules[:, pools.EXTENDS_KNOWN] for each in (self, trial))
        for number in np.flatnonzero((its == 1) & (mine == 0)).tolist():
            self.set_extends(number, trial.rule_bytes[number, pools.EXTENDS])
        costs = [pools.NEW_STATES, pools.NEW_POINTS]
        self.used[costs] = trial.used[costs]

    def forget_costs(self) -> None:
        """Count the cost of an expansion anew."""
        self.used[[pools.NEW_STATES, pools.NEW_POINTS]] = 0

    def set_extends(self, rule: int, bytes_: Ints) -> None:
        """Say which bytes may follow a complete word of a rule within a longer one."""
        self.rule_bytes[rule, pools.EXTENDS] = bytes_
        self.rules[rule, pools.EXTENDS_KNOWN] = 1

    def set_follows(self, rule: int, follows: int | None) -> None:
        """Say what brackets tell of that; None: nothing."""
        written = (follows or 0).to_bytes(4 * self._words, "little")
        self.rule_bytes[rule, pools.FOLLOWS] = np.frombuffer(written, np.int32)
        self.rules[rule, pools.FOLLOWS_KNOWN] = 2 if follows is None else 1

    def grow(self, pool: int, amount: int) -> None:
        """Let a pool have room for so much, and for twice as much as it has."""
        room = max(amount, 2 * int(self._array(pools.ROOM)[pool]))
        for place, (_, more) in _ARRAYS[pool].items():
            before = self._array(place)
            array = np.empty((room + more) * _width(place, self._words, int(self.used[pools.CIRCLES])), before.dtype)
            array[: before.size] = before[: array.size]
            self._set(place, array)
        self._array(pools.ROOM)[pool] = room
        if pool in _TABLES:
            table, counter = _TABLES[pool]
            self.used[counter] = slots = 1 << (_SLOTS * room - 1).bit_length()
            self._set(table, np.empty(slots, np.int32))
            for each, _ in _TABLES.values():
                self._array(each)[:] = -1
            fill_tables(self.handle)

    def make_room_within(self) -> None:
        """Have each copy count the copies of recursive rules that it is within: how many those are is known by now."""
        if self.used[pools.CIRCLES]:
            room = int(self._array(pools.ROOM)[pools.OF_COPIES])
            self._set(pools.WITHIN, np.empty(room * int(self.used[pools.CIRCLES]), np.int32))
