"""Over a flat form and a vocabulary: at which states tokens end, which tokens may follow there, and how far the end is.

In: flat states with their comb, rows of leaf states. Out: for each state that a text may stand at between two tokens a row, the
states that its tokens lead to, and the fewest tokens to the end. Where text is forced and its tokenizer known, a row is the one
token that the tokenizer would write, as a canonical matcher has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton.automaton import Piece
from routine_grammar.automaton.step import SKELETON
from routine_grammar.errors import GrammarError
from routine_grammar.masks.flat import landing
from routine_grammar.masks.flat.arrays import Arrays
from routine_grammar.masks.flat.comb import Comb
from routine_grammar.masks.flat.states import FlatStates
from routine_grammar.masks.leaf_rows import LeafRow
from routine_grammar.masks.row import Ends
from routine_grammar.masks.rows import MAX_RUN, TokenRows
from routine_grammar.masks.spelling import BEGINNING

Ids = npt.NDArray[np.int32]
MAX_SMALL = 256  # words of a leaf's base up to which they stand in the row itself
_TWO_WAYS = "forced text is spelled in two ways, by what is before it"


class FlatRows:
    """The rows of a flat form. Raises `GrammarError` where there is no such table; it says why.

    `row_of[n]` is the row of state n, -1 where no token ends there. Row r is of base `bases[base_of[r]]`, -1: none, and of the
    words `words[first[r] : first[r + 1]]` [place, 32 bits], by rising places. `forced[n]` is the one token that is allowed
    at state n, or less than 0. `distance[n]` is how few further tokens end the text, but for the one that says so, and
    `farthest[n]` how many do behind any of its tokens.
    """

    def __init__(self, states: FlatStates, comb: Comb, rows: TokenRows, ends: Ends, *, canonical: bool) -> None:
        if len(ends.within):
            raise GrammarError("a token that ends a text spells something")
        self._states, self._comb, self._rows = states, comb, rows
        self._arrays = Arrays(landing.LAST)
        self._handle = self._arrays.handle
        self.bases: Sequence[LeafRow] = _put_leaves(self._arrays, states, rows)
        spells = canonical and rows.vocabulary.encode is not None
        self._put(len(states), spells)
        self._put_tokens(ends, canonical)
        self._forced_pieces = np.zeros(MAX_RUN, np.int32)
        self._incoming = np.zeros((len(states), 32), np.uint8)
        landing.incoming_bytes(states.handle, self._incoming)
        self._land_at(0)
        self._fill()
        self.distance = landing.measure(self._handle, states.handle, len(states))
        self.farthest = np.zeros(len(states), np.int32)
        np.maximum.at(self.farthest, self.edges[:, 0], self.distance[self.edges[:, 1]])

    def _put(self, size: int, spells: bool) -> None:
        for place, shape in {
            landing.LANDED: (size,),
            landing.TODO: (size,),
            landing.PENDING: (size,),
            landing.EDGES: (4 * size + 64, 2),
            landing.BASE_OF: (size + 1,),
            landing.FIRST: (size + 2,),
            landing.ROW_WORDS: (1 << 12, 2),
            landing.ROW_SLOTS: (4 << size.bit_length(),),
        }.items():
            self._arrays.put(place, np.zeros(shape, np.int32))
        for place, value in (
            (landing.ROW_OF, -1),
            (landing.SEEN, -1),
            (landing.FORCED, landing.UNTOLD if spells else landing.FREE),
        ):
            self._arrays.put(place, np.full(size, value, np.int32))
        self._arrays.put(landing.COUNTS, np.zeros(landing.USED_WORDS + 1, np.int64))
        comb = self._comb
        for place, array in (
            (landing.COMB, comb.words),
            (landing.OFFSETS, comb.offsets),
            (landing.NUMBERS, comb.numbers),
            (landing.CLASSES, comb.classes),
        ):
            self._arrays.put(place, array)

    def _put_tokens(self, ends: Ends, canonical: bool) -> None:
        vocabulary = self._rows.vocabulary
        likely = [token for token in (*vocabulary.eos, *sorted(ends.ids)) if token in ends.ids]
        self._arrays.put(landing.END_TOKENS, np.array(sorted(ends.ids), np.int32))
        self._arrays.put(landing.LIKELY_END, np.array([likely[0] if canonical and likely else -1], np.int32))
        self._arrays.put(landing.SYMBOL_TOKENS, np.array(self._rows.symbol_tokens, np.int32))
        self._arrays.put(landing.TRIE, np.array([vocabulary.trie.handle], np.int64))
        self._arrays.put(landing.WALKED, np.zeros(vocabulary.longest + 1, np.int32))

    @property
    def row_of(self) -> Ids:
        """The row of each state."""
        return self._array(landing.ROW_OF)

    @property
    def forced(self) -> Ids:
        """The token that is forced at each state, or less than 0."""
        return self._array(landing.FORCED)

    @property
    def edges(self) -> Ids:
        """The states that each state's tokens lead to, [edges, 2]."""
        return self._part(landing.EDGES, landing.USED_EDGES)

    @property
    def base_of(self) -> Ids:
        """The base of each row."""
        return self._part(landing.BASE_OF, landing.USED_ROWS)

    @property
    def first(self) -> Ids:
        """Where the words of each row begin, and where the last ones end."""
        return self._array(landing.FIRST)[: len(self.base_of) + 1]

    @property
    def words(self) -> Ids:
        """The words of all rows."""
        return self._part(landing.ROW_WORDS, landing.USED_WORDS)

    def _array(self, place: int) -> Ids:
        array: Ids = self._arrays[place]
        return array

    def _part(self, place: int, count: int) -> Ids:
        return self._array(place)[: self._arrays[landing.COUNTS][count]]

    def _land_at(self, number: int) -> None:
        """Have a row made of a state, which tokens end at."""
        counts = self._arrays[landing.COUNTS]
        self._arrays[landing.LANDED][number] = 1
        self._arrays[landing.TODO][counts[landing.USED_TODO]] = number
        counts[landing.USED_TODO] += 1

    def _fill(self) -> None:
        """Make the row of every state at which a token may end."""
        counts, scratch = self._arrays[landing.COUNTS], self._rows.shared.scratch
        while True:
            while landing.land(self._handle, self._states.handle, scratch) == landing.FULL:
                self._grow()
            pending = self._part(landing.PENDING, landing.USED_PENDING).tolist()
            counts[landing.USED_PENDING] = 0
            if not pending:
                return
            for number in pending:
                self._spell(number)

    def _grow(self) -> None:
        for place in (landing.EDGES, landing.ROW_WORDS):
            self._arrays.lengthen(place, 2 * len(self._arrays[place]))

    # Forced text

    def _spell(self, number: int) -> None:
        """Have the tokens that spell forced text be the rows of their states, where they are the same whatever is before it."""
        pieces, follows = self._forced_text(number)
        spelled = [self._rows.shared.spelling(before, pieces, follows) for before in self._before(number)]
        tokens = spelled[0]
        if any(other[:1] != tokens[:1] for other in spelled) or (not tokens and self.forced[number] >= 0):
            raise GrammarError(_TWO_WAYS)
        if not tokens:
            self.forced[number] = landing.FREE
            self._land_at(number)
            return
        listed, vocabulary = np.array(tokens, np.int32), self._rows.vocabulary
        while True:
            end = landing.take_run(self._handle, self._states.handle, number, listed, vocabulary.blob, vocabulary.offsets)
            if end != -landing.FULL:
                break
            self._grow()
        if end < 0:
            raise GrammarError(_TWO_WAYS)
        if not self._arrays[landing.LANDED][end]:
            self._land_at(end)

    def _forced_text(self, number: int) -> tuple[tuple[Piece, ...], bytes]:
        """The only bytes and markers that can come at a state, and which bytes may follow them: bool [256]."""
        states, symbols = self._states, self._rows.automaton.symbols
        length, end = landing.forced_text(states.handle, len(symbols), number, self._forced_pieces)
        pieces: list[int] = self._forced_pieces[:length].tolist()
        follows = np.zeros(256, np.bool_)
        for low, high, _ in states.moves[states.first_move[end] : states.first_move[end + 1]].tolist():
            follows[low : high + 1] = True
        told = tuple(piece if piece < 256 else symbols[piece - 256] for piece in pieces) if symbols else tuple(pieces)
        return told, follows.tobytes()

    def _before(self, number: int) -> Iterator[str]:
        """What of the text before a state may matter to how the text behind it is spelled (`spelling.text_before`)."""
        if number == 0:
            yield BEGINNING
        for symbol, marker in enumerate(self._rows.automaton.symbols):
            if number in self._states.by_symbol[:, symbol]:
                yield marker
        incoming = self._bytes_to(number)
        yield from (chr(byte) for byte in incoming if byte < 128)
        if incoming and incoming[-1] >= 128:
            yield ""  # behind a token that is the end of a character alone
            yield self._last_character(number)

    def _bytes_to(self, number: int) -> list[int]:
        """The bytes that lead to a state, rising."""
        bytes_: list[int] = np.flatnonzero(np.unpackbits(self._incoming[number], bitorder="little")).tolist()
        return bytes_

    def _last_character(self, number: int) -> str:
        """The character of several bytes that ends at a state; nothing where none does."""
        data = b""
        while len(data) < 4:
            incoming, sources = self._bytes_to(number), np.flatnonzero(self._states.moves[:, 2] == number)
            if len(incoming) != 1 or len(sources) != 1:
                raise GrammarError("forced text stands behind several characters that are not ASCII")
            data = bytes(incoming) + data
            try:
                return data.decode()
            except UnicodeDecodeError:
                number = int(np.searchsorted(self._states.first_move, sources[0], side="right")) - 1
        return ""


def _put_leaves(arrays: Arrays, states: FlatStates, rows: TokenRows) -> list[LeafRow]:
    """Put the leaves' states that a flat form is in, each once, with what a vocabulary can do from it; returns large bases."""
    shared, automaton = rows.shared, rows.automaton
    if (states.words[states.first_word[:-1] + 3] > 0).any():
        raise GrammarError("a string whose characters are counted has no flat form")
    known, of_state = np.unique(np.where(states.first_words < SKELETON, states.first_words, -1), return_inverse=True)
    begins = int(known[0] < 0)
    large, bases = list[LeafRow](), list[int]()
    small, ways, handles, accepting = list[Ids](), list[list[int]](), list[int](), list[int]()
    for leaf in known[begins:].tolist():
        row = shared.leaf_row(leaf, automaton.handle)
        arrays.keep(row)
        handles.append(row.handle)
        accepting.append(int(automaton.library.accepting[leaf]))
        places = np.flatnonzero(row.beneath).astype(np.int32)
        bases.append(len(large) if len(places) > MAX_SMALL else -1)
        if bases[-1] >= 0:
            large.append(row)
            places = places[:0]
        small.append(np.stack([places, row.beneath[places]], axis=1))
        ways.append(sorted({way.state for way in shared.landings(leaf, automaton.handle)}))
    for place, array in (
        (landing.LEAF_OF, (of_state - begins).astype(np.int32)),
        (landing.HANDLES, np.array(handles, np.int64)),
        (landing.ACCEPTING, np.array(accepting, np.int32)),
        (landing.BASE, np.array(bases, np.int32)),
        (landing.SMALL, np.concatenate([np.zeros((0, 2), np.int32), *small])),
        (landing.FIRST_SMALL, np.cumsum([0, *map(len, small)], dtype=np.int32)),
        (landing.WAYS, np.array([way for listed in ways for way in listed], np.int32)),
        (landing.FIRST_WAY, np.cumsum([0, *map(len, ways)], dtype=np.int32)),
    ):
        arrays.put(place, array)
    return large
