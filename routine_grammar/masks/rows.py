"""Rows: the tokens allowed in a configuration, as a base bitmap of its leaf and a list of further tokens.

A leaf's base holds the tokens that stay in it; it is made once a vocabulary and shared by all grammars. What leaves the leaf
within a token is walked through its continuation; so a row inside a string costs a few hundred steps, not a vocabulary.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton import step as stepping
from routine_grammar.automaton.automaton import Automaton
from routine_grammar.automaton.leaf import LeafLibrary
from routine_grammar.automaton.step import DEAD, HEAD, NEED, NO_BOUNDS, RETURN, SKELETON, STACK, Configuration
from routine_grammar.automaton.tables import Handle
from routine_grammar.errors import GrammarError
from routine_grammar.masks import walks
from routine_grammar.masks.bits import Bitmap, set_bits
from routine_grammar.masks.spelling import spell, text_before
from routine_grammar.masks.vocabulary import Trie, Vocabulary, build_trie

MAX_RUN = 4096  # tokens

Ids = npt.NDArray[np.int32]
_NO_BASE = np.zeros(0, np.uint32)


@dataclass(frozen=True, slots=True)
class LeafRow:
    """What a vocabulary can do from one leaf state: `base`, the tokens that stay, and a trie over what others leave with.

    The tokens of the trie are numbers of `exits`, one array of token ids for each distinct rest.
    """

    base: Bitmap
    rests: Trie
    exits: tuple[Ids, ...]


@dataclass(frozen=True)
class Row:
    """The tokens allowed in one configuration: those of `base` and `tokens`; `ends`: the text may end here."""

    base: Bitmap | None
    tokens: Ids
    ends: bool
    _words: Ids = field(repr=False)
    _bits: Bitmap = field(repr=False)

    @classmethod
    def of(cls, base: Bitmap | None, tokens: Ids, ends: bool) -> Row:
        """A row, with its list in the form that writes fastest; takes `tokens`, in any order, for its own."""
        words, bits = np.empty_like(tokens), np.empty(len(tokens), np.uint32)
        count, used = walks.pack(tokens, words, bits)
        return cls(base, tokens[:count], ends, words[:used], bits[:used])

    def write(self, out: Bitmap) -> None:
        """Overwrite `out` with the row's bits."""
        walks.write_row(out, _NO_BASE if self.base is None else self.base, self._words, self._bits)

    @cached_property
    def allowed(self) -> Ids:
        """The allowed token ids, sorted; ends of text not among them."""
        if self.base is None:
            return self.tokens
        bits = np.unpackbits(self.base.view(np.uint8), bitorder="little")
        return np.union1d(np.flatnonzero(bits), self.tokens).astype(np.int32)


class Run(NamedTuple):
    """Forced tokens, where each leads, and whether the text has to end behind them."""

    tokens: tuple[int, ...]
    after: tuple[Any, ...]
    ends: bool


_NO_RUN = Run((), (), False)


@dataclass(frozen=True, slots=True)
class CountedRow:
    """What counts need to know of the tokens from one state of a counted leaf.

    `staying` are the tokens that stay in the leaf, by rising `needs`: the characters that they complete and that it takes at
    least to the end from there. `closing` are the tokens that end it with their last byte, `exits` [per exit of the leaf row]
    those that end it earlier, each with how many characters they complete.
    """

    staying: Ids
    needs: Ids
    closing: Ids
    closing_counts: Ids
    exit_counts: tuple[Ids, ...]
    most: int


class Landing(NamedTuple):
    """Tokens that lead from one leaf state to another (RETURN: that end the leaf), and how many characters they complete."""

    state: int
    completed: int
    tokens: Ids


class Group(NamedTuple):
    """Tokens that lead to one configuration; `stays`: all within the leaf at hand."""

    tokens: Ids
    lead: Configuration
    stays: bool = False


class VocabularyRows:
    """A vocabulary with what is computed once for it: its leaf rows. Safe to use from several threads."""

    _made: ClassVar[weakref.WeakKeyDictionary[Vocabulary, VocabularyRows]] = weakref.WeakKeyDictionary()
    _making: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, vocabulary: Vocabulary, library: LeafLibrary) -> None:
        self.vocabulary = vocabulary
        self.library = library
        self._leaf_rows: dict[int, LeafRow] = {}
        self._counted_rows: dict[int, CountedRow] = {}
        self._landings: dict[int, tuple[Landing, ...]] = {}
        self.lock = threading.RLock()
        self.out = np.zeros(vocabulary.size, np.int32)
        self.rows = np.zeros((vocabulary.longest + 2, HEAD + STACK), np.int32)
        self._states = np.zeros(vocabulary.longest + 1, np.int32)
        self._exits = np.zeros(vocabulary.size, np.int32)

    @classmethod
    def shared(cls, vocabulary: Vocabulary) -> VocabularyRows:
        """The one of this process for a vocabulary, over the shared leaf library."""
        with cls._making:
            made = cls._made.get(vocabulary)
            if made is None:
                made = cls._made[vocabulary] = cls(vocabulary, LeafLibrary.shared())
            return made

    def leaf_row(self, state: int, t: Handle) -> LeafRow:
        """The leaf row of a leaf state, made on first use."""
        with self.lock:
            if state not in self._leaf_rows:
                self._leaf_rows[state] = self._make(state, t)
            return self._leaf_rows[state]

    def counted_row(self, state: int, t: Handle) -> CountedRow:
        """The counts of a state of a counted leaf, made on first use."""
        with self.lock:
            if state not in self._counted_rows:
                self._counted_rows[state] = self._count(state, t)
            return self._counted_rows[state]

    def landings(self, state: int, t: Handle) -> tuple[Landing, ...]:
        """Where the tokens lead that stay in a leaf from a state; looked for on first use."""
        with self.lock:
            if state not in self._landings:
                self._landings[state] = self._land(state, t)
            return self._landings[state]

    def _land(self, state: int, t: Handle) -> tuple[Landing, ...]:
        lands, completed = np.full(self.vocabulary.size, DEAD, np.int32), np.zeros(self.vocabulary.size, np.int32)
        counts = np.zeros_like(self._states)
        walks.scan_landings(t, self.vocabulary.trie, state, self._states, counts, lands, completed)
        staying = np.flatnonzero(lands != DEAD).astype(np.int32)
        ways, groups = np.unique(np.stack([lands[staying], completed[staying]]), axis=1, return_inverse=True)
        order = np.argsort(groups, kind="stable")
        parts = np.split(staying[order], np.cumsum(np.bincount(groups, minlength=ways.shape[1]))[:-1])
        return tuple(Landing(state, completed, ids) for (state, completed), ids in zip(ways.T.tolist(), parts, strict=True))

    def _count(self, state: int, t: Handle) -> CountedRow:
        vocabulary = self.vocabulary
        needs = np.full(vocabulary.size, -1, np.int32)
        counts = np.zeros_like(self._states)
        found = walks.scan_counted(t, vocabulary.trie, state, self._states, counts, needs, self.out, self._exits)
        of_token = dict(zip(self.out[:found].tolist(), self._exits[:found].tolist(), strict=True))
        exits = tuple(np.array([of_token[token] for token in ids.tolist()], np.int32) for ids in self.leaf_row(state, t).exits)
        staying = np.flatnonzero(needs >= 0).astype(np.int32)
        staying = staying[np.argsort(needs[staying], kind="stable")]
        closing = np.flatnonzero(needs <= -2).astype(np.int32)
        closing_counts = -2 - needs[closing]
        most = max((int(part.max(initial=0)) for part in (needs, closing_counts, *exits)), default=0)
        return CountedRow(staying, needs[staying], closing, closing_counts, exits, most)

    def _make(self, state: int, t: Handle) -> LeafRow:
        tokens = self.vocabulary.tokens
        base = np.zeros(self.vocabulary.words, np.uint32)
        count = walks.scan_leaf(t, self.vocabulary.trie, state, self._states, base, self.out, self._exits)
        rests: dict[bytes, list[int]] = {}
        for token, taken in zip(self.out[:count].tolist(), self._exits[:count].tolist(), strict=True):
            rests.setdefault(tokens[token][taken:], []).append(token)
        exits = tuple(np.array(ids, np.int32) for ids in rests.values())
        return LeafRow(base, build_trie(list(rests)), exits)


class TokenRows:
    """The rows of one automaton over one vocabulary, made when first asked for."""

    def __init__(self, automaton: Automaton, rows: VocabularyRows) -> None:
        self.automaton = automaton
        self.vocabulary = rows.vocabulary
        self._shared = rows
        self._rows: dict[bytes, Row] = {}
        self._reach: dict[bytes, Ids] = {}
        self._needed: dict[bytes, int] = {}
        self._runs: dict[tuple[bytes, str], Run] = {}
        self._unforced: set[bytes] = set()
        self.symbol_tokens = [rows.vocabulary.special[symbol] for symbol in automaton.symbols]

    def start(self) -> Configuration:
        """Where every sequence begins."""
        return self.automaton.start()

    def configuration(self, place: Configuration) -> Configuration:
        """The configuration at a place: itself."""
        return place

    def farthest(self, configuration: Configuration) -> int:
        """How many tokens may suffice to end the text from anywhere behind a configuration, or more."""
        return self.automaton.farthest

    def row(self, configuration: Configuration) -> Row:
        """The tokens allowed in a configuration."""
        key = self._row_key(configuration)
        row = self._rows.get(key)
        if row is None:
            with self._shared.lock:
                row = self._rows[key] = self._make(configuration)
        return row

    def _row_key(self, configuration: Configuration) -> bytes:
        """What a row depends on: of a count no more than tells which tokens of the vocabulary pass a bound."""
        if not configuration[3]:
            return _key(configuration)
        low, high = self._left(configuration)
        most = self._shared.counted_row(int(configuration[0]), self.automaton.handle).most
        if self._is_tight(low, high, most):
            return _key(configuration)
        key = configuration.copy()
        key[2], key[3] = min(max(low, 0), most + 1), -1 - min(high, most)
        return _key(key)

    def _is_tight(self, low: int, high: int, most: int) -> bool:
        """Whether both bounds on a count may matter to one token: too few characters yet, and nearly too many."""
        return low > 0 and high - low < most + self.automaton.library.counts.shape[1]

    def _left(self, configuration: Configuration) -> tuple[int, int]:
        """How many characters a counted leaf needs at least from a configuration on, and how many it may have at most."""
        low, high = self.automaton.library.bounds[configuration[3], :2].tolist()
        count = int(configuration[2])
        return low - count, NO_BOUNDS if high == NO_BOUNDS else high - count

    def fewest_tokens(self, configuration: Configuration) -> int:
        """How few tokens suffice to end the text: those of its shortest completion in bytes, written in fewest tokens."""
        key = _key(configuration)
        if key not in self._needed:
            numbers = {symbol: 256 + number for number, symbol in enumerate(self.automaton.symbols)}
            completion = self.automaton.shortest_completion(configuration)
            pieces = np.array([piece if isinstance(piece, int) else numbers[piece] for piece in completion], np.int32)
            costs = np.zeros(len(pieces) + 1, np.int32)
            self._needed[key] = int(walks.fewest_tokens(self.vocabulary.trie, pieces, costs))
        return self._needed[key]

    def tokens_after(self, configuration: Configuration) -> Ids:
        """For each token of `row(configuration).allowed`: how few further tokens suffice to end the text after it."""
        key = _key(configuration)
        if key not in self._reach:
            with self._shared.lock:
                self._reach[key] = self._tokens_after(configuration)
        return self._reach[key]

    def run(self, configuration: Configuration, token: int | None) -> Run:
        """The tokens that spell what is forced from a configuration on, as the tokenizer writes them behind another token.

        Where the vocabulary does not know its tokenizer: the tokens that are the only ones allowed.
        """
        configuration_key = _key(configuration)
        if configuration_key in self._unforced:
            return _NO_RUN
        key = configuration_key, text_before(self.vocabulary, token)
        run = self._runs.get(key)
        if run is None:
            with self._shared.lock:
                run = self._run(configuration, key[1])
            if run is _NO_RUN:
                self._unforced.add(configuration_key)
            else:
                self._runs[key] = run
        return run

    def _run(self, configuration: Configuration, before: str) -> Run:
        pieces, end = self.automaton.forced_run(configuration)
        follows = self.automaton.next_bytes(end)
        if not pieces and follows.any():
            return _NO_RUN
        if self.vocabulary.encode is not None:
            tokens = spell(self.vocabulary, before, pieces, follows)
        else:
            tokens = self._only_allowed(configuration)
        ways = [configuration]
        for token in tokens:
            after = self.after(ways[-1], token)
            assert after is not None
            ways.append(after)
        ends = not follows.any() and (last := self.row(ways[-1])).ends and not len(last.allowed)
        return Run(tuple(tokens), tuple(ways[1:]), ends)

    def _only_allowed(self, configuration: Configuration) -> list[int]:
        """The tokens that follow as long as there is but one, and not the end."""
        tokens: list[int] = []
        while len(tokens) < MAX_RUN and not (row := self.row(configuration)).ends and len(row.allowed) == 1:
            tokens.append(int(row.allowed[0]))
            after = self.after(configuration, tokens[-1])
            assert after is not None
            configuration = after
        return tokens

    def after(self, configuration: Configuration, token_id: int) -> Configuration | None:
        """The configuration after a token; None where it is not allowed."""
        data = self.vocabulary.tokens[token_id]
        if data:
            try:
                return self.automaton.after(configuration, data)
            except GrammarError:  # nested deeper than the return stack: such tokens are masked
                return None
        symbol = self.symbol_of(token_id)
        return None if symbol is None else self.automaton.after_symbol(configuration, symbol)

    def symbol_of(self, token_id: int) -> str | None:
        """The symbol of the automaton that a token is, if it is one."""
        return self.automaton.symbols[self.symbol_tokens.index(token_id)] if token_id in self.symbol_tokens else None

    def _tokens_after(self, configuration: Configuration) -> Ids:
        allowed = self.row(configuration).allowed
        symbols = np.isin(allowed, self.symbol_tokens)
        needed = np.zeros(len(allowed), np.int32)
        for place in np.flatnonzero(symbols):
            symbol = self.automaton.symbols[self.symbol_tokens.index(int(allowed[place]))]
            after = self.automaton.after_symbol(configuration, symbol)
            assert after is not None
            needed[place] = self.fewest_tokens(after)
        of_token = np.zeros(self.vocabulary.size, np.int32)
        for group in self.grouped(configuration):
            of_token[group.tokens] = self.fewest_tokens(group.lead)
        needed[~symbols] = of_token[allowed[~symbols]]
        return needed

    def grouped(self, configuration: Configuration) -> list[Group]:
        """The tokens with bytes that a configuration allows, by the one that they lead to."""
        state, t = int(configuration[0]), self.automaton.handle
        if state >= SKELETON:
            return self._grouped_in(configuration, self.vocabulary.trie)
        low, high = self._left(configuration)
        if configuration[3] and self._is_tight(low, high, self._shared.counted_row(state, t).most):
            return self._grouped_in(configuration, self.vocabulary.trie)
        after = self._returned(configuration)
        found = list(self._landed(configuration, after, t))
        leaf, counted = self._shared.leaf_row(state, t), bool(configuration[3])
        exit_counts = self._shared.counted_row(state, t).exit_counts if counted else ()
        for rests, lead, _ in self._grouped_in(after, leaf.rests):
            tokens = [leaf.exits[rest] for rest in rests]
            if counted:
                tokens = [leaf.exits[r][(exit_counts[r] >= low) & (exit_counts[r] <= high)] for r in rests]
            found.append(Group(np.concatenate(tokens), lead))
        if self._shared.library.accepting[state] and not counted:
            found += self.grouped(after)
        return [group for group in found if len(group.tokens)]

    def _landed(self, configuration: Configuration, after: Configuration, t: Handle) -> Iterator[Group]:
        """The tokens that stay in the leaf at hand, or end it with their last byte, by where they lead."""
        for state, completed, tokens in self._shared.landings(int(configuration[0]), t):
            lead = (after if state == RETURN else configuration).copy()
            if configuration[3]:
                low, high = self.automaton.library.bounds[configuration[3], :2].tolist()
                count = int(configuration[2]) + completed
                needed = 0 if state == RETURN else stepping.needed(t, int(self._shared.library.counted[state]), low - count)
                if (state == RETURN and count < low) or (high != NO_BOUNDS and count + needed > high):
                    continue
                if state != RETURN:
                    lead[2] = min(count, low) if high == NO_BOUNDS else count
            if state != RETURN:
                lead[0] = state
            yield Group(tokens, lead, state != RETURN)

    def _grouped_in(self, configuration: Configuration, trie: Trie) -> list[Group]:
        """The tokens of a trie that a configuration allows, by the one that they lead to."""
        groups = np.zeros(len(trie.same), np.int32)
        rows, room = self._shared.rows, 64
        while True:
            leads = np.zeros((room, len(configuration)), np.int32)

            def group(t: Handle, leads: npt.NDArray[np.int32] = leads) -> int:
                rows[0] = configuration
                groups[:] = -1
                return walks.group_tokens(t, trie, rows, groups, leads)

            used = self.automaton.run(group)
            if used != DEAD:
                break
            room *= 4
        tokens = np.flatnonzero(groups >= 0).astype(np.int32)
        order = np.argsort(groups[tokens], kind="stable")
        parts = np.split(tokens[order], np.cumsum(np.bincount(groups[tokens], minlength=used))[:-1]) if used else []
        return [Group(part, lead) for part, lead in zip(parts, leads[:used], strict=True)]

    def _make(self, configuration: Configuration) -> Row:
        ends = self.automaton.may_end(configuration)
        symbols = [
            token
            for symbol, token in zip(self.automaton.symbols, self.symbol_tokens, strict=True)
            if self.automaton.after_symbol(configuration, symbol) is not None
        ]
        base = None
        if configuration[0] >= SKELETON:
            tokens = self._walked(configuration, self.vocabulary.trie)
        else:
            base, tokens = self._leaf_tokens(configuration)
        return Row.of(base, np.concatenate([tokens, np.array(symbols, np.int32)]), ends)

    def _leaf_tokens(self, configuration: Configuration) -> tuple[Bitmap, Ids]:
        """The base of a configuration inside a leaf, and the tokens that leave the leaf, by its continuation."""
        state = int(configuration[0])
        t = self.automaton.handle
        if configuration[3]:
            return self._counted_tokens(configuration, t)
        leaf = self._shared.leaf_row(state, t)
        after = self._returned(configuration)
        tokens = [leaf.exits[rest] for rest in self._walked(after, leaf.rests)]
        if self._shared.library.accepting[state]:
            continuation = self.row(after)
            tokens.append(continuation.allowed)
        return leaf.base, np.concatenate(tokens) if tokens else np.zeros(0, np.int32)

    def _counted_tokens(self, configuration: Configuration, t: Handle) -> tuple[Bitmap, Ids]:
        """As `_leaf_tokens`, inside a leaf whose characters are counted."""
        state = int(configuration[0])
        low, high = self._left(configuration)
        leaf, counted = self._shared.leaf_row(state, t), self._shared.counted_row(state, t)
        if self._is_tight(low, high, counted.most):
            return np.zeros_like(leaf.base), self._walked(configuration, self.vocabulary.trie)
        tokens: list[Ids] = []
        if low <= 0 and counted.most <= high:
            base = leaf.base
        else:
            base = np.zeros_like(leaf.base)
            ends = counted.closing[(counted.closing_counts >= low) & (counted.closing_counts <= high)]
            set_bits(base, counted.staying[: int(np.searchsorted(counted.needs, high, side="right"))])
            set_bits(base, ends)
        for rest in self._walked(self._returned(configuration), leaf.rests):
            counts = counted.exit_counts[rest]
            tokens.append(leaf.exits[rest][(counts >= low) & (counts <= high)])
        return base, np.concatenate(tokens) if tokens else np.zeros(0, np.int32)

    def _returned(self, configuration: Configuration) -> Configuration:
        """The configuration after a leaf returns."""
        after = configuration.copy()

        def settle(t: Handle) -> int:
            after[:] = configuration
            return stepping.settle(t, after, RETURN)

        after[0] = self.automaton.run(settle)
        return after

    def _walked(self, configuration: Configuration, trie: Trie) -> Ids:
        """The tokens of a trie that a configuration allows."""
        rows, out = self._shared.rows, self._shared.out

        def walk(t: Handle) -> int:
            rows[0] = configuration
            return walks.walk_trie(t, trie, rows, out)

        count = self.automaton.run(walk)
        assert count > NEED
        return out[:count].copy()


def _key(configuration: Configuration) -> bytes:
    return configuration[: HEAD + configuration[1]].tobytes()
