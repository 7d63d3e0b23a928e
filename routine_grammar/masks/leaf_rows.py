"""Leaf rows: what a vocabulary can do from one state of a leaf, made once a vocabulary and shared by all grammars."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton.automaton import Piece
from routine_grammar.automaton.compiling import LeafAutomaton
from routine_grammar.automaton.leaf import LeafLibrary
from routine_grammar.automaton.step import DEAD, HEAD, STACK
from routine_grammar.automaton.tables import Addresses, Handle
from routine_grammar.grammar.terminals import Terminal
from routine_grammar.kept import Kept
from routine_grammar.masks import walks
from routine_grammar.masks.bits import Bitmap, set_bits
from routine_grammar.masks.row import Ends, Row
from routine_grammar.masks.spelling import spell
from routine_grammar.masks.trie import Trie, build_trie
from routine_grammar.masks.vocabulary import Vocabulary

Ids = npt.NDArray[np.int32]
MAX_LEAF_BYTES = 64 * 2**20  # of each kind of what is known of leaf states
MAX_REACH_BYTES = 64 * 2**20
MAX_SINGLES = 4096
MAX_SPELLINGS = 1 << 15  # of some hundred bytes each
MAX_ENDS = 256  # sets of tokens that end a text, kept for requests to come

_MAKING = threading.Lock()
_ROWS = "_rows"  # where a vocabulary has the rows that were made for it last
_STORED = "_stored"  # and those that it began with


class LeafRow:
    """What a vocabulary can do from one leaf state: `base`, the tokens that stay, and a trie over what others leave with.

    The tokens of the trie are numbers of distinct rests: rest r is left with by `exits[starts[r] : starts[r + 1]]`.
    """

    def __init__(self, base: Bitmap, rests: Trie, starts: Ids, exits: Ids, uncounted: Ids) -> None:
        self.base = base
        self.beneath = base.view(np.int32)
        self.rests = rests
        self.starts = starts
        self.exits = exits
        self.nbytes = base.nbytes + rests.nbytes + starts.nbytes + exits.nbytes
        self._addresses = self.addressed(uncounted)
        self.handle = self._addresses.handle

    def addressed(self, counts: Ids) -> Addresses:
        """Where compiled code finds the exits, with how many characters each completes; they have to live as long."""
        addresses = Addresses(walks.COUNTS)
        self.rests.set_in(addresses)
        addresses.set(walks.STARTS, self.starts)
        addresses.set(walks.EXITS, self.exits)
        addresses.set(walks.COUNTS, counts)
        return addresses

    def exits_of(self, rest: int) -> slice:
        """Where in `exits` the tokens are that leave with a rest."""
        return slice(int(self.starts[rest]), int(self.starts[rest + 1]))


@dataclass(frozen=True, slots=True)
class CountedRow:
    """What counts need to know of the tokens from one state of a counted leaf.

    `staying` are the tokens that stay in the leaf, by rising `needs`: the characters that they complete and that it takes at
    least to the end from there. `closing` are the tokens that end it with their last byte; these, and the exits of the leaf
    row of the `leaf`, each with how many characters they complete.
    """

    staying: Ids
    needs: Ids
    closing: Ids
    closing_counts: Ids
    exit_counts: Ids
    leaf: LeafRow
    addresses: Addresses
    most: int

    @property
    def nbytes(self) -> int:
        """The bytes of its own arrays."""
        arrays = (self.staying, self.needs, self.closing, self.closing_counts, self.exit_counts)
        return sum(array.nbytes for array in arrays)


class Landing(NamedTuple):
    """Tokens that lead from one leaf state to another (RETURN: that end the leaf), and how many characters they complete."""

    state: int
    completed: int
    tokens: Ids


class Reach:
    """The tokens allowed at a place, sorted, and how few further `needed` tokens suffice to end the text after each.

    `ends`: the text may end there.
    """

    def __init__(self, tokens: Ids, needed: Ids, words: int, ends: bool) -> None:
        self.tokens = tokens
        self.needed = needed
        self.ends = ends
        self._levels: list[int] = np.unique(needed).tolist()
        self._rows: dict[int, Row] = {}
        self._words = words

    @property
    def least(self) -> int:
        """How few tokens suffice after one of them."""
        return self._levels[0] if self._levels else 0

    @property
    def nbytes(self) -> int:
        """The bytes of all that may be kept."""
        return self.tokens.nbytes + self.needed.nbytes + 4 * self._words * len(self._levels)

    def row(self, left: int) -> Row:
        """The tokens after which so many suffice.

        An engine may set a budget that is too small by now: then as many as the shortest way needs, for never an empty set.
        """
        level = bisect_right(self._levels, left if self.ends else max(left, self.least))
        if level not in self._rows:
            base = np.zeros(self._words, np.uint32)
            set_bits(base, self.tokens[self.needed <= (self._levels[level - 1] if level else -1)])
            self._rows[level] = Row(base, np.zeros(0, np.int32), self.ends)
        return self._rows[level]

    def without(self, tokens: Ids) -> Reach:
        """The same but for some tokens."""
        kept = ~np.isin(self.tokens, tokens)
        return Reach(self.tokens[kept], self.needed[kept], self._words, self.ends)


class Stored(NamedTuple):
    """A vocabulary's trie, the automata of some terminals, and the rows of all their states, by number in one row."""

    trie: Trie
    terminals: tuple[Terminal, ...]
    automata: tuple[LeafAutomaton, ...]
    row: Callable[[int], LeafRow]


class VocabularyRows:
    """A vocabulary with what is computed once for it: rows of leaf states. Safe to use from several threads.

    Bounded, each kind by its bytes: what was not used for longest is made again when it is needed.
    """

    def __init__(self, vocabulary: Vocabulary, library: LeafLibrary) -> None:
        self.vocabulary = vocabulary
        self.library = library
        self._leaf_rows = Kept[int, LeafRow](MAX_LEAF_BYTES, attrgetter("nbytes"))
        self._counted_rows = Kept[int, CountedRow](MAX_LEAF_BYTES, attrgetter("nbytes"))
        self._landings = Kept[int, tuple[Landing, ...]](MAX_LEAF_BYTES, lambda ways: sum(way.tokens.nbytes for way in ways))
        self.reaches = Kept[object, Reach](MAX_REACH_BYTES, attrgetter("nbytes"))
        self._spellings = Kept[Any, tuple[int, ...]](MAX_SPELLINGS, lambda tokens: 1)
        self.lock = threading.RLock()
        self.out = np.zeros(vocabulary.size, np.int32)
        self.rows = np.zeros((vocabulary.longest + 2, HEAD + STACK), np.int32)
        self._states = np.zeros(vocabulary.longest + 1, np.int32)
        self._exits = np.zeros(vocabulary.size, np.int32)
        self.scratch = np.zeros((3, max(vocabulary.size, 64)), np.int32)
        self.frame = self._framed()
        self._uncounted = np.zeros(vocabulary.size, np.int32)  # how many characters exits complete that are not counted
        self._ends: dict[frozenset[int], Ends] = {}
        self._given: dict[int, tuple[Stored, int]] = {}  # leaf states whose rows were made earlier
        self._singles: dict[int, Row] = {}

    def _framed(self) -> npt.NDArray[np.int64]:
        """What walks find by a frame, but for what belongs to one automaton."""
        frame = np.zeros(walks.FRAME, np.int64)
        arrays: dict[int, npt.NDArray[Any]] = {
            walks.ROWS: self.rows,
            walks.SCRATCH: self.scratch,
            walks.BLOB: self.vocabulary.blob,
            walks.OFFSETS: self.vocabulary.offsets,
        }
        for place, array in arrays.items():
            assert array.flags.c_contiguous
            frame[place] = array.ctypes.data
        frame[walks.DEPTH], frame[walks.WIDTH] = len(self.rows), self.scratch.shape[1]
        self._trie = self.vocabulary.trie  # which has to live as long
        frame[walks.TRIE] = self._trie.handle
        return frame

    @classmethod
    def shared(cls, vocabulary: Vocabulary, library: LeafLibrary | None = None) -> VocabularyRows:
        """The one of this process for a vocabulary and a library (None: the shared one); those for libraries before it go."""
        library = library or LeafLibrary.shared()
        with _MAKING:
            known: VocabularyRows | None = vocabulary.__dict__.get(_ROWS)
            if known is None or known.library is not library:
                known = vocabulary.__dict__[_ROWS] = cls(vocabulary, library)
                if (stored := vocabulary.__dict__.get(_STORED)) is not None:
                    known._take(stored)
            return known

    @staticmethod
    def has_stored(vocabulary: Vocabulary) -> bool:
        """Whether a vocabulary has taken rows that were made earlier."""
        return _STORED in vocabulary.__dict__

    def adopt(self, stored: Stored) -> None:
        """Take rows that were made earlier, and keep them for libraries to come."""
        self.vocabulary.__dict__[_STORED] = stored
        self._take(stored)

    def _take(self, stored: Stored) -> None:
        number = 0
        for terminal, automaton in zip(stored.terminals, stored.automata, strict=True):
            start, count = self.library.adopt(terminal, automaton), len(automaton.table)
            self._given |= {start + state: (stored, number + state) for state in range(count)}
            number += count

    @property
    def nbytes(self) -> int:
        """The bytes of what is kept."""
        return self._leaf_rows.nbytes + self._counted_rows.nbytes + self._landings.nbytes + self.reaches.nbytes

    def ends(self, ids: Iterable[int] | None) -> Ends:
        """Tokens that end a text, the same object for the same ones; None: those of the vocabulary."""
        key = frozenset(self.vocabulary.eos if ids is None else ids)
        with self.lock:
            if key not in self._ends:
                if len(self._ends) >= MAX_ENDS:
                    self._ends.clear()
                self._ends[key] = Ends(key, self.vocabulary.tokens)
            return self._ends[key]

    def single(self, token: int) -> Row:
        """The row of one token."""
        row = self._singles.get(token)
        if row is None:
            if len(self._singles) >= MAX_SINGLES:
                self._singles.clear()
            row = self._singles.setdefault(token, Row.single(token))
        return row

    def spelling(self, before: str, pieces: tuple[Piece, ...], follows: bytes) -> tuple[int, ...]:
        """As `spell`, of the same text again and again: what is forced at a place is forced in the next turn as well."""
        key = before, pieces, follows
        with self.lock:
            known = self._spellings.get(key)
            if known is None:
                tokens = spell(self.vocabulary, before, pieces, np.frombuffer(follows, np.bool_).copy())
                known = self._spellings.put(key, tuple(tokens))
            return known

    def leaf_row(self, state: int, t: Handle) -> LeafRow:
        """The leaf row of a leaf state, made on first use."""
        with self.lock:
            return self._leaf_rows.get(state) or self._leaf_rows.put(state, self._new_leaf_row(state, t))

    def _new_leaf_row(self, state: int, t: Handle) -> LeafRow:
        if state in self._given:
            stored, number = self._given[state]
            return stored.row(number)
        return self._make(state, t)

    def counted_row(self, state: int, t: Handle) -> CountedRow:
        """The counts of a state of a counted leaf, made on first use."""
        with self.lock:
            return self._counted_rows.get(state) or self._counted_rows.put(state, self._count(state, t))

    def landings(self, state: int, t: Handle) -> tuple[Landing, ...]:
        """Where the tokens lead that stay in a leaf from a state; looked for on first use."""
        with self.lock:
            known = self._landings.get(state)
            return self._landings.put(state, self._land(state, t)) if known is None else known

    def _land(self, state: int, t: Handle) -> tuple[Landing, ...]:
        lands, completed = np.full(self.vocabulary.size, DEAD, np.int32), np.zeros(self.vocabulary.size, np.int32)
        counts = np.zeros_like(self._states)
        walks.scan_landings(t, self.vocabulary.trie.handle, state, self._states, counts, lands, completed)
        staying = np.flatnonzero(lands != DEAD).astype(np.int32)
        ways, groups = np.unique(np.stack([lands[staying], completed[staying]]), axis=1, return_inverse=True)
        order = np.argsort(groups, kind="stable")
        parts = np.split(staying[order], np.cumsum(np.bincount(groups, minlength=ways.shape[1]))[:-1])
        return tuple(Landing(state, completed, ids) for (state, completed), ids in zip(ways.T.tolist(), parts, strict=True))

    def _count(self, state: int, t: Handle) -> CountedRow:
        vocabulary = self.vocabulary
        needs = np.full(vocabulary.size, -1, np.int32)
        counts = np.zeros_like(self._states)
        found = walks.scan_counted(t, vocabulary.trie.handle, state, self._states, counts, needs, self.out, self._exits)
        of_token = dict(zip(self.out[:found].tolist(), self._exits[:found].tolist(), strict=True))
        leaf = self.leaf_row(state, t)
        exits = np.array([of_token[token] for token in leaf.exits.tolist()], np.int32)
        staying = np.flatnonzero(needs >= 0).astype(np.int32)
        staying = staying[np.argsort(needs[staying], kind="stable")]
        closing = np.flatnonzero(needs <= -2).astype(np.int32)
        closing_counts = -2 - needs[closing]
        most = max((int(part.max(initial=0)) for part in (needs, closing_counts, exits)), default=0)
        return CountedRow(staying, needs[staying], closing, closing_counts, exits, leaf, leaf.addressed(exits), most)

    def _make(self, state: int, t: Handle) -> LeafRow:
        tokens = self.vocabulary.tokens
        base = np.zeros(self.vocabulary.words, np.uint32)
        count = walks.scan_leaf(t, self.vocabulary.trie.handle, state, self._states, base, self.out, self._exits)
        rests: dict[bytes, list[int]] = {}
        for token, taken in zip(self.out[:count].tolist(), self._exits[:count].tolist(), strict=True):
            rests.setdefault(tokens[token][taken:], []).append(token)
        starts = np.cumsum([0, *map(len, rests.values())], dtype=np.int32)
        exits = np.array([token for ids in rests.values() for token in ids], np.int32)
        return LeafRow(base, build_trie(list(rests)), starts, exits, self._uncounted)
