"""How tables are read, in plain Python over tensors: where a token leads, which state a row of a batch is in, what it allows.

In: tables, a batch, a ring of states. Out: numbers. It waits for the device at every step: what the kernels are held against.
"""

from __future__ import annotations

import torch

from routine_grammar.kernels.grammar_tables import (
    AFTER,
    BASE,
    CLASS_COUNT,
    CLASS_WORDS,
    CLASSES,
    COMB,
    COUNT,
    ENTRY,
    FIRST,
    FORCED,
    LISTED,
    NOWHERE,
    ROW_COLUMNS,
    START,
    THINKING,
    UNTOUCHED,
    Batch,
    Tables,
)

_LOW = (1 << 32) - 1


class Reader:
    """Reads what is in tables, for one slot."""

    def __init__(self, tables: Tables, slot: int) -> None:
        self._tables = tables
        self._slot: list[int] = tables.slots[slot].tolist()
        self._bytes = tables.arena.view(torch.uint8)
        self._ints = tables.arena.view(torch.int32)

    @property
    def has_grammar(self) -> bool:
        """Whether the slot decodes under a grammar."""
        return self._slot[COMB] >= 0

    def column(self, column: int) -> int:
        """A column of the slot."""
        return self._slot[column]

    def after(self, state: int, token: int) -> int:
        """Where a token leads from a state."""
        if state == THINKING:
            if token != self._tables.opening:
                return self._slot[START] if token == self._tables.thinking_end else THINKING
            state = self._slot[START]
        if not 0 <= token < self._tables.vocab_size:
            return NOWHERE
        row = self.row(state)
        if row[FORCED] == token:
            return row[AFTER]
        word = int(self._tables.arena[token])
        begin, length = word >> 32, word & _LOW
        if not length:
            return self._entry(state, self._slot[CLASS_COUNT] + begin - 1, NOWHERE) if begin else NOWHERE
        for byte in self._bytes[begin : begin + length].tolist():
            of_class = int(self._bytes[8 * self._slot[CLASSES] + byte])
            state = self._entry(state, of_class, self._word(state) & _LOW)
        return state

    def _entry(self, state: int, column: int, default: int) -> int:
        word = self._word(state + 1 + column)
        return word & _LOW if word >> 32 == state else default

    def _word(self, place: int) -> int:
        return int(self._tables.arena[self._slot[COMB] + place])

    def row(self, state: int) -> list[int]:
        """The columns of a state's row."""
        number = -1 - (self._word(state) >> 32)
        begin = 2 * (self._slot[CLASSES] + CLASS_WORDS) + ROW_COLUMNS * number
        columns: list[int] = self._ints[begin : begin + ROW_COLUMNS].tolist()
        return columns

    def allowed(self, state: int) -> torch.Tensor:
        """The packed row of a state, [words] int32."""
        row, words = self.row(state), (self._tables.vocab_size + 31) // 32
        packed = torch.zeros(words, dtype=torch.int32, device=self._ints.device)
        if row[BASE] >= 0:
            packed |= self._ints[2 * row[BASE] : 2 * row[BASE] + words]
        begin = 2 * (self._slot[LISTED] + row[FIRST])
        listed = self._ints[begin : begin + 2 * row[COUNT]].view(-1, 2)
        packed[listed[:, 0].long()] |= listed[:, 1]
        return packed


def state_of_row(tables: Tables, batch: Batch, ring: torch.Tensor, row: int) -> int:
    """The state of a row of a batch, UNTOUCHED where it has none: no grammar, or a prompt that goes on behind it."""
    slot, position = int(batch.slots[row]), int(batch.positions[row])
    reader = Reader(tables, slot)
    if not reader.has_grammar or position < reader.column(ENTRY):
        return UNTOUCHED
    known = max(position - int(batch.places[row]) - 1, reader.column(ENTRY))
    state = state_at(ring, slot, known)
    for at in range(row - (position - known) + 1, row + 1):
        state = reader.after(state, int(batch.tokens[at]))
    return state


def kept_state(tables: Tables, batch: Batch, ring: torch.Tensor, row: int) -> int:
    """The state of a row as the ring has it, UNTOUCHED where it has none."""
    slot, position = int(batch.slots[row]), int(batch.positions[row])
    reader = Reader(tables, slot)
    if not reader.has_grammar or position < reader.column(ENTRY):
        return UNTOUCHED
    return state_at(ring, slot, position)


def state_at(ring: torch.Tensor, slot: int, position: int) -> int:
    """The state that a ring has of a slot behind the token at a position; NOWHERE where it has none."""
    word = int(ring[slot, position % ring.shape[1]])
    return _signed(word) if word >> 32 == position else NOWHERE


def ring_word(position: int, state: int) -> int:
    """The word of a ring that says which state is behind the token at a position."""
    return position << 32 | state & _LOW


def _signed(word: int) -> int:
    low = word & _LOW
    return low - (1 << 32) if low >> 31 else low
