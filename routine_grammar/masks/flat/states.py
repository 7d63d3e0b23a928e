"""All configurations that an automaton can come to, numbered: its flat form, in which a state is one number.

In: an automaton. Out: where each byte and symbol leads from each state, and from which the text may end. It exists where the
configurations are finitely many, up to a bound: what recurses, or counts far, has none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton.automaton import Automaton
from routine_grammar.automaton.step import (
    DEAD,
    HEAD,
    NEED,
    RETURN,
    SKELETON,
    STACK,
    Configuration,
    copy,
    has_edges_alone,
    may_end,
    may_take,
    settle,
    step_piece,
)
from routine_grammar.automaton.tables import (
    BYTE,
    EDGE_HIGH,
    EDGE_LOW,
    Handle,
    column_getter,
    column_setter,
    get,
    get_word,
    leaf_accepts,
    leaf_next,
    of_edge,
    of_state,
    put,
    put_word,
)
from routine_grammar.errors import GrammarTooLargeError
from routine_grammar.jit import jit
from routine_grammar.masks.flat.arrays import Arrays, size_of
from routine_grammar.masks.walks import expand_needed

Ids = npt.NDArray[np.int32]

MAX_STATES = 1 << 18
# Arrays by their places: counts of what there is; where configurations are found by; their words, and where those of each state
# begin; moves, and where those of each state begin; where symbols lead from each state; whether the text may end there; the
# state behind the leaf that it is in.
COUNTS, SLOTS, WORDS, FIRST_WORD, MOVES, FIRST_MOVE, BY_SYMBOL, ENDS, RETURNED = range(1, 10)
STATES, DONE, USED_WORDS, USED_MOVES = range(4)  # counts: of states, of those whose moves are known, …
LOW, HIGH, TO = range(3)  # columns of a move: its first byte, its last one, where these lead
# What asks for room: for states, words, moves. Past the bound on states: TOO_MANY.
FULL_OF_STATES, FULL_OF_WORDS, FULL_OF_MOVES, TOO_MANY = range(-1, -5, -1)
_MOST_MOVES = 256  # of a state

of_move, set_move = column_getter(MOVES, 3), column_setter(MOVES, 3)


class FlatStates:
    """The states of an automaton's flat form, 0 being where every text begins. Compiled code finds them by `handle`.

    Raises `GrammarTooLargeError` past `most` of them.
    """

    def __init__(self, automaton: Automaton, most: int = MAX_STATES) -> None:
        self._symbols = len(automaton.symbols)
        self._arrays = Arrays(RETURNED)
        self.handle = self._arrays.handle
        room = 1 << 6
        sizes = {COUNTS: 4, SLOTS: 4 * room, WORDS: 16 * room, FIRST_WORD: room + 1, FIRST_MOVE: room + 1, ENDS: room}
        for place, size in {**sizes, RETURNED: room}.items():
            self._arrays.put(place, np.zeros(size, np.int64 if place == COUNTS else np.int32))
        self._arrays.put(MOVES, np.zeros((4 * _MOST_MOVES, 3), np.int32))
        self._arrays.put(BY_SYMBOL, np.zeros((room, self._symbols), np.int32))
        rows = np.zeros((3, HEAD + STACK), np.int32)
        rows[0] = automaton.start()
        intern(self.handle, rows[0], most)
        with automaton.skeleton.lock:
            while asked := enumerate_states(automaton.handle, self.handle, self._symbols, rows, most):
                if asked > 0:
                    automaton.skeleton.provide(asked)
                elif asked == TOO_MANY:
                    raise GrammarTooLargeError(f"the grammar's flat form has more than {most} states, the bound")
                else:
                    self._grow(asked)

    def _grow(self, asked: int) -> None:
        arrays = self._arrays
        if asked != FULL_OF_STATES:
            place = WORDS if asked == FULL_OF_WORDS else MOVES
            arrays.lengthen(place, 4 * len(arrays[place]))
            return
        room = 4 * len(arrays[ENDS])
        for place in (BY_SYMBOL, ENDS, RETURNED):
            arrays.lengthen(place, room)
        for place in (FIRST_WORD, FIRST_MOVE):
            arrays.lengthen(place, room + 1)
        arrays.put(SLOTS, np.zeros(4 * room, np.int32))
        fill_slots(self.handle)

    def __len__(self) -> int:
        """How many states there are."""
        return int(self._arrays[COUNTS][STATES])

    @property
    def words(self) -> Ids:
        """The configurations of all states, one behind the other; that of state n begins at `first_word[n]`."""
        return self._part(WORDS, int(self._arrays[COUNTS][USED_WORDS]))

    @property
    def first_word(self) -> Ids:
        """Where the configuration of each state begins, and where the last one ends."""
        return self._part(FIRST_WORD, len(self) + 1)

    @property
    def moves(self) -> Ids:
        """The moves of all states, [n, 3], rising by bytes; those of state n begin at `first_move[n]`."""
        return self._part(MOVES, int(self._arrays[COUNTS][USED_MOVES]))

    @property
    def first_move(self) -> Ids:
        """Where the moves of each state begin, and where the last ones end."""
        return self._part(FIRST_MOVE, len(self) + 1)

    @property
    def by_symbol(self) -> Ids:
        """Where symbols lead, [states, symbols], or -1."""
        return self._part(BY_SYMBOL, len(self))

    @property
    def ends(self) -> Ids:
        """1 for states where the text may end."""
        return self._part(ENDS, len(self))

    @property
    def returned(self) -> Ids:
        """The states behind leaves, -1 for states that are in none."""
        return self._part(RETURNED, len(self))

    def _part(self, place: int, rows: int) -> Ids:
        part: Ids = self._arrays[place][:rows]
        return part

    @property
    def first_words(self) -> npt.NDArray[Any]:
        """The state of the automaton, or of a leaf, that each state is in."""
        found: npt.NDArray[Any] = self.words[self.first_word[:-1]]
        return found


@jit
def count_of(f: Handle, which: int) -> int:
    """How many of something there are."""
    return get_word(f, COUNTS, which)


@jit
def load_state(f: Handle, number: int, row: Configuration) -> None:
    """Write the configuration of a state."""
    begin = get(f, FIRST_WORD, number)
    for place in range(get(f, FIRST_WORD, number + 1) - begin):
        row[place] = get(f, WORDS, begin + place)


@jit
def slot_of(f: Handle, row: Configuration) -> int:
    """The slot that has a configuration, or the free one where it belongs; a slot has 1 + a state."""
    last = size_of(f, SLOTS) - 1
    mixed, length = 1469598103934665603, HEAD + row[1]
    for place in range(length):
        mixed = (mixed ^ row[place]) * 1099511628211
    at = (mixed ^ (mixed >> 29)) & last
    while get(f, SLOTS, at) != 0:
        begin = get(f, FIRST_WORD, get(f, SLOTS, at) - 1)
        same = get(f, FIRST_WORD, get(f, SLOTS, at)) - begin == length
        place = 0
        while same and place < length:
            same = get(f, WORDS, begin + place) == row[place]
            place += 1
        if same:
            return int(at)
        at = (at + 1) & last
    return int(at)


@jit
def find(f: Handle, row: Configuration) -> int:
    """The state of a configuration, or -1."""
    return get(f, SLOTS, slot_of(f, row)) - 1


@jit
def fill_slots(f: Handle) -> None:
    """Put all states into slots, none of which is taken."""
    row = np.zeros(HEAD + STACK, np.int32)
    for number in range(count_of(f, STATES)):
        load_state(f, number, row)
        put(f, SLOTS, slot_of(f, row), number + 1)


@jit
def intern(f: Handle, row: Configuration, most: int) -> int:
    """The state of a configuration, a new one where there is none, or what there is no room for."""
    at = slot_of(f, row)
    number = get(f, SLOTS, at) - 1
    if number >= 0:
        return number
    number, begin, length = count_of(f, STATES), count_of(f, USED_WORDS), HEAD + row[1]
    if number >= most:
        return TOO_MANY
    if number >= size_of(f, ENDS):
        return FULL_OF_STATES
    if begin + length > size_of(f, WORDS):
        return FULL_OF_WORDS
    for place in range(length):
        put(f, WORDS, begin + place, row[place])
    put(f, FIRST_WORD, number, begin)
    put(f, FIRST_WORD, number + 1, begin + length)
    put(f, SLOTS, at, number + 1)
    put_word(f, COUNTS, STATES, number + 1)
    put_word(f, COUNTS, USED_WORDS, begin + length)
    return number


@jit
def after_piece(t: Handle, row: Configuration, piece: int, trial: Configuration) -> int:
    """Take a byte, or 256 + a symbol, from `row` to `trial`; returns 0, or what the skeleton has to provide first.

    The state of `trial` is less than 0 where the piece is not allowed.
    """
    while True:
        copy(trial, row)
        state = step_piece(t, trial, piece)
        if state > NEED:
            trial[0] = state
            return 0
        asked = expand_needed(t, state)
        if asked:
            return asked


@jit
def after_leaf(t: Handle, row: Configuration, behind: Configuration) -> int:
    """As `after_piece`, for the return from the leaf that `row` is in."""
    while True:
        copy(behind, row)
        state = settle(t, behind, RETURN)
        if state > NEED:
            behind[0] = state
            return 0
        asked = expand_needed(t, state)
        if asked:
            return asked


@jit
def enumerate_states(t: Handle, f: Handle, symbols: int, rows: npt.NDArray[np.int32], most: int) -> int:
    """Find the moves of every state that has none yet; returns 0, or what is asked for: negative where it is room.

    Called again it goes on with the state at which it asked. `rows` [3, configuration] are scratch.
    """
    while count_of(f, DONE) < count_of(f, STATES):
        number = count_of(f, DONE)
        if get(f, FIRST_MOVE, number) + _MOST_MOVES > size_of(f, MOVES) // 3:
            return FULL_OF_MOVES
        put_word(f, COUNTS, USED_MOVES, get(f, FIRST_MOVE, number))
        load_state(f, number, rows[0])
        asked = enumerate_behind(t, f, number, rows, most)
        asked = asked if asked else enumerate_bytes(t, f, number, rows, most)
        asked = asked if asked else enumerate_symbols(t, f, number, symbols, rows, most)
        if asked:
            return asked
        put(f, FIRST_MOVE, number + 1, count_of(f, USED_MOVES))
        put_word(f, COUNTS, DONE, number + 1)
    return 0


@jit
def enumerate_behind(t: Handle, f: Handle, number: int, rows: npt.NDArray[np.int32], most: int) -> int:
    """Find whether the text may end at a state, and the state behind its leaf, which is left in `rows[2]`."""
    row, behind = rows[0], rows[2]
    while True:
        ended = may_end(t, row, behind)
        if ended > NEED:
            break
        asked = expand_needed(t, ended)
        if asked:
            return asked
    put(f, ENDS, number, ended)
    put(f, RETURNED, number, -1)
    if row[0] < SKELETON:
        asked = after_leaf(t, row, behind)
        if asked:
            return asked
        if behind[0] >= 0:
            target = intern(f, behind, most)
            if target < 0:
                return target
            put(f, RETURNED, number, target)
    return 0


@jit
def enumerate_bytes(t: Handle, f: Handle, number: int, rows: npt.NDArray[np.int32], most: int) -> int:
    """Find where the bytes lead from a state."""
    row, trial = rows[0], rows[1]
    state = int(row[0])
    alone = has_edges_alone(t, state)
    at, high = 0, 256
    if alone:
        at, high = of_state(t, state - SKELETON, EDGE_LOW), of_state(t, state - SKELETON, EDGE_HIGH)
    while at < high:
        byte = of_edge(t, at, BYTE) if alone else at
        last = alike(t, state, byte) if state < SKELETON else byte
        if alone or is_worth_while(t, f, number, rows, byte):
            asked = after_piece(t, row, byte, trial)
            if asked:
                return asked
            if trial[0] >= 0:
                target = intern(f, trial, most)
                if target < 0:
                    return target
                add_move(f, get(f, FIRST_MOVE, number), byte, last, target)
        at += last - byte + 1
    return 0


@jit
def alike(t: Handle, state: int, byte: int) -> int:
    """The last of the bytes from one on that lead from a leaf's state to the same one of the leaf."""
    target, last = leaf_next(t, state, byte), byte
    if target != DEAD:
        while last < 255 and leaf_next(t, state, last + 1) == target:
            last += 1
    return last


@jit
def is_worth_while(t: Handle, f: Handle, number: int, rows: npt.NDArray[np.int32], byte: int) -> bool:
    """Whether a byte may be taken at a state; False only where it may not."""
    state = int(rows[0, 0])
    if state >= SKELETON:
        return may_take(t, rows[0], byte)
    if leaf_next(t, state, byte) != DEAD:
        return True
    return leaf_accepts(t, state) and get(f, RETURNED, number) >= 0 and may_take(t, rows[2], byte)


@jit
def enumerate_symbols(t: Handle, f: Handle, number: int, symbols: int, rows: npt.NDArray[np.int32], most: int) -> int:
    """Find where the symbols lead from a state."""
    for symbol in range(symbols):
        asked = after_piece(t, rows[0], 256 + symbol, rows[1])
        if asked:
            return asked
        target = -1
        if rows[1, 0] >= 0:
            target = intern(f, rows[1], most)
            if target < 0:
                return target
        put(f, BY_SYMBOL, number * symbols + symbol, target)
    return 0


@jit
def add_move(f: Handle, first: int, low: int, high: int, target: int) -> None:
    """Add a move to those of a state, which begin at `first`."""
    last = count_of(f, USED_MOVES) - 1
    if last >= first and of_move(f, last, TO) == target and of_move(f, last, HIGH) == low - 1:
        set_move(f, last, HIGH, high)
        return
    set_move(f, last + 1, LOW, low)
    set_move(f, last + 1, HIGH, high)
    set_move(f, last + 1, TO, target)
    put_word(f, COUNTS, USED_MOVES, last + 2)
