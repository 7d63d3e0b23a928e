"""The flat table of a grammar over a vocabulary: a few arrays that say all that decoding under it needs, token by token.

In: the rows of a grammar's automaton. Out: arrays that a device walks as they are: where bytes and special tokens lead, the
row of each state that a text may stand at between two tokens, and how far the end is. It exists for most grammars, and not for
those that recurse, count characters, or are large; the host's matcher follows any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from routine_grammar.errors import GrammarError
from routine_grammar.masks.bits import Bitmap
from routine_grammar.masks.flat.comb import NOWHERE, after_byte, lay_out
from routine_grammar.masks.flat.rows import FlatRows
from routine_grammar.masks.flat.states import FlatStates
from routine_grammar.masks.row import Ends
from routine_grammar.masks.rows import TokenRows
from routine_grammar.masks.vocabulary import Vocabulary

Ids = npt.NDArray[np.int32]

MAX_TABLE_STATES = 1 << 16
# Columns of `rows`: the base's number or -1, where the row's words begin and how many there are, how few further tokens end the
# text, how few do behind the token for which that is most, the one token that is allowed, or -1, and the state behind it.
BASE, FIRST, COUNT, DISTANCE, FARTHEST, FORCED, AFTER = range(7)
COLUMNS = 8


@dataclass(frozen=True, eq=False)
class FlatTable:
    """`comb` as in `comb.Comb`, its headers' rows being rows of `rows` int32 [n, COLUMNS]; row 0 is that of NOWHERE.

    A row allows the tokens of the bitmap `bases[base]` and those of `words` int32 [w, 2] (place, 32 tokens), by rising places.
    `start` is the state where every text begins.
    """

    comb: npt.NDArray[np.int64]
    classes: npt.NDArray[np.uint8]
    class_count: int
    start: int
    rows: Ids
    words: Ids
    bases: tuple[Bitmap, ...]
    vocabulary: Vocabulary

    @classmethod
    def of(cls, rows: TokenRows, ends: Ends, *, canonical: bool, most: int = MAX_TABLE_STATES) -> FlatTable:
        """The table of a grammar whose texts end with the tokens `ends`; `canonical` as for a `Matcher`.

        Raises `GrammarError` where there is none: it says why.
        """
        automaton, vocabulary = rows.automaton, rows.vocabulary
        if automaton.is_distinct:
            raise GrammarError("lists of distinct elements have no flat form")
        if automaton.skeleton.is_recursive:
            raise GrammarError("rules that call themselves have no flat form")
        states = FlatStates(automaton, most)
        numbers = special_numbers(vocabulary)
        symbols = np.array([numbers[token] for token in rows.symbol_tokens], np.int32)
        comb = lay_out(states, symbols, len(numbers))
        found = FlatRows(states, comb, rows, ends, canonical=canonical)
        refused = words_of_refused(vocabulary, ends)
        words, table = comb.words.copy(), _rows_of(found, refused, comb.offsets)
        landed = np.flatnonzero(found.row_of >= 0)
        defaults = words[comb.offsets[landed]] & 0xFFFFFFFF
        words[comb.offsets[landed]] = (-1 - np.arange(1, 1 + len(landed), dtype=np.int64)) << 32 | defaults
        bases = tuple(row.base for row in found.bases)
        listed = np.concatenate([refused, found.words])
        return cls(words, comb.classes, comb.class_count, int(comb.offsets[0]), table, listed, bases, vocabulary)

    @property
    def nbytes(self) -> int:
        """The bytes of its own arrays; bases are shared with other tables."""
        return self.comb.nbytes + self.classes.nbytes + self.rows.nbytes + self.words.nbytes

    @cached_property
    def specials(self) -> Mapping[int, int]:
        """The numbers of special tokens."""
        return special_numbers(self.vocabulary)

    def row_number(self, state: int) -> int:
        """The row of a state; 0 where no token ends there."""
        return -1 - (int(self.comb[state]) >> 32)

    def after(self, state: int, token: int) -> int:
        """The state after a token, NOWHERE where it is not allowed: what a device does."""
        if not 0 <= token < self.vocabulary.size:
            return NOWHERE
        data = self.vocabulary.tokens[token]
        for byte in data:
            state = after_byte(self.comb, self.classes, state, byte)
        if data:
            return state
        number = self.specials.get(token)
        entry = NOWHERE if number is None else int(self.comb[state + 1 + self.class_count + number])
        return entry & 0xFFFFFFFF if entry >> 32 == state else NOWHERE

    def allowed(self, state: int) -> Ids:
        """The packed row of a state, int32 [words]."""
        row = self.rows[self.row_number(state)]
        out = np.zeros(self.vocabulary.words, np.int32)
        if row[BASE] >= 0:
            base = self.bases[row[BASE]].view(np.int32)
            out[: len(base)] = base
        words = self.words[row[FIRST] : row[FIRST] + row[COUNT]]
        out[words[:, 0]] |= words[:, 1]
        return out


def special_numbers(vocabulary: Vocabulary) -> Mapping[int, int]:
    """Numbers of the special tokens of a vocabulary, the same for all tables over it."""
    tokens = sorted(token for token in set(vocabulary.special.values()) if not vocabulary.tokens[token])
    return {token: number for number, token in enumerate(tokens)}


def words_of_refused(vocabulary: Vocabulary, ends: Ends) -> Ids:
    """The words of the row of NOWHERE, int32 [1, 2]: one token that spells nothing, so that no row is empty.

    A text that takes it is refused by whoever follows it: it is no marker of a grammar, or else one that may not come there.
    """
    silent = (token for token, data in enumerate(vocabulary.tokens) if not data)
    last = max((token for token in silent if token not in ends.ids), default=min(ends.ids, default=0))
    return np.array([[last >> 5, np.uint32(1 << (last & 31)).astype(np.int32)]], np.int32)


def _rows_of(found: FlatRows, refused: Ids, offsets: Ids) -> Ids:
    """The rows of all states at which tokens end, behind that of NOWHERE."""
    landed = np.flatnonzero(found.row_of >= 0)
    after = np.full(len(offsets), NOWHERE, np.int32)
    after[found.edges[:, 0]] = offsets[found.edges[:, 1]]
    rows = np.zeros((1 + len(landed), COLUMNS), np.int32)
    rows[0, [BASE, FIRST, COUNT, FORCED]] = -1, 0, len(refused), -1
    of = found.row_of[landed]
    first, last = found.first[of], found.first[of + 1]
    for column, values in (
        (BASE, found.base_of[of]),
        (FIRST, first + len(refused)),
        (COUNT, last - first),
        (DISTANCE, found.distance[landed]),
        (FARTHEST, found.farthest[landed]),
        (FORCED, np.maximum(found.forced[landed], -1)),
        (AFTER, np.where(found.forced[landed] >= 0, after[landed], NOWHERE)),
    ):
        rows[1:, column] = values
    return rows
