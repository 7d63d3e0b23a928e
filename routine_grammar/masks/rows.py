"""Rows: the tokens allowed in a configuration, as a base bitmap of its leaf and a list of further tokens.

A leaf's base holds the tokens that stay in it (`leaf_rows`); what leaves the leaf within a token is walked through its
continuation; so a row inside a string costs a few hundred steps, not a vocabulary. What is known of a configuration, its row
and where its tokens lead, is kept with it: sequences that come there again find an automaton over tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton import step as stepping
from routine_grammar.automaton.automaton import Automaton
from routine_grammar.automaton.step import DEAD, HEAD, NEED, NO_BOUNDS, OVERFLOW, RETURN, SKELETON, Configuration
from routine_grammar.automaton.tables import Handle
from routine_grammar.masks import walks
from routine_grammar.masks.bits import Bitmap, set_bits
from routine_grammar.masks.leaf_rows import Ids, Reach, VocabularyRows
from routine_grammar.masks.spelling import spell, text_before
from routine_grammar.masks.vocabulary import Trie

MAX_RUN = 4096  # tokens
MAX_PLACES = 4096  # of a grammar, kept for sequences to come
_NO_BASE = np.zeros(0, np.uint32)


@dataclass(frozen=True)
class Row:
    """The tokens allowed in one configuration: those of `base` and `tokens`; `ends`: the text may end here."""

    base: Bitmap | None
    tokens: Ids
    ends: bool
    _packed: tuple[Ids, Ids, Ids] = field(repr=False)  # the base, then the words beside it and their bits

    @classmethod
    def of(cls, base: Bitmap | None, tokens: Ids, ends: bool) -> Row:
        """A row, with its list in the form that writes fastest; takes `tokens`, in any order, for its own."""
        words, bits = np.empty_like(tokens), np.empty(len(tokens), np.uint32)
        count, used = walks.pack(tokens, words, bits)
        beneath = _NO_BASE if base is None else base
        return cls(base, tokens[:count], ends, (beneath.view(np.int32), words[:used], bits[:used].view(np.int32)))

    def write(self, out: Ids) -> None:
        """Overwrite a packed row, int32, with the tokens' bits."""
        walks.write_row(out, *self._packed)

    @property
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


class Group(NamedTuple):
    """Tokens that lead to one configuration; `stays`: all within the leaf at hand."""

    tokens: Ids
    lead: Configuration
    stays: bool = False


class Place:
    """A configuration, and what is known of it by now: its `row`, and where its tokens lead.

    `key` is the same for equal configurations. `fewest` tokens suffice to end the text; `runs` are the forced tokens from here
    on, by the text before them, and `is_free` says that there are none whatever that is.
    """

    __slots__ = ("after", "configuration", "fewest", "is_free", "key", "row", "runs")

    def __init__(self, configuration: Configuration, key: bytes) -> None:
        self.configuration = configuration
        self.key = key
        self.row: Row | None = None
        self.after: dict[int, Place] = {}
        self.fewest: int | None = None
        self.runs: dict[str, Run] = {}
        self.is_free = False


class TokenRows:
    """The rows of one automaton over one vocabulary, made when first asked for."""

    def __init__(self, automaton: Automaton, rows: VocabularyRows) -> None:
        self.automaton = automaton
        self.vocabulary = rows.vocabulary
        self._shared = rows
        self._places: dict[bytes, Place] = {}
        self._rows: dict[bytes, Row] = {}
        self.symbol_tokens = [rows.vocabulary.special[symbol] for symbol in automaton.symbols]
        self._symbol_ids = np.array(self.symbol_tokens, np.int32)

    def start(self) -> Place:
        """Where every sequence begins."""
        return self.place(self.automaton.start())

    def place(self, configuration: Configuration) -> Place:
        """The place of a configuration, which then is the place's own."""
        key = _key(configuration)
        known = self._places.get(key)
        if known is not None:
            return known
        if len(self._places) >= MAX_PLACES:  # sequences keep those that they are at
            self._places.clear()
            self._rows.clear()
        return self._places.setdefault(key, Place(configuration, key))

    def configuration(self, place: Place) -> Configuration:
        """The configuration at a place."""
        return place.configuration

    def farthest(self, place: Place) -> int:
        """How many tokens may suffice to end the text from anywhere behind a place, or more."""
        return self.automaton.farthest

    def row(self, place: Place) -> Row:
        """The tokens allowed at a place."""
        row = place.row
        if row is None:
            key = self._row_key(place)
            row = self._rows.get(key)
            if row is None:
                with self._shared.lock:
                    row = self._rows[key] = self._make(place.configuration)
            place.row = row
        return row

    def _row_key(self, place: Place) -> bytes:
        """What a row depends on: of a count no more than tells which tokens of the vocabulary pass a bound."""
        configuration = place.configuration
        if not configuration[3]:
            return place.key
        low, high = self._left(configuration)
        most = self._shared.counted_row(int(configuration[0]), self.automaton.handle).most
        if self._is_tight(low, high, most):
            return place.key
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

    def fewest_tokens(self, place: Place) -> int:
        """How few tokens suffice to end the text: those of its shortest completion in bytes, written in fewest tokens."""
        if place.fewest is None:
            numbers = {symbol: 256 + number for number, symbol in enumerate(self.automaton.symbols)}
            completion = self.automaton.shortest_completion(place.configuration)
            pieces = np.array([piece if isinstance(piece, int) else numbers[piece] for piece in completion], np.int32)
            costs = np.zeros(len(pieces) + 1, np.int32)
            place.fewest = int(walks.fewest_tokens(self.vocabulary.trie, pieces, costs))
        return place.fewest

    def reach(self, place: Place) -> Reach:
        """The tokens of `row(place)`, and how few further ones suffice to end the text after each."""
        with self._shared.lock:
            known = self._shared.reaches.get(place)
            if known is None:
                known = self._reach(place)
                self._shared.reaches.put(place, known)
            return known

    def run(self, place: Place, token: int | None) -> Run:
        """The tokens that spell what is forced from a place on, as the tokenizer writes them behind another token.

        Where the vocabulary does not know its tokenizer: the tokens that are the only ones allowed.
        """
        if place.is_free:
            return _NO_RUN
        before = text_before(self.vocabulary, token)
        run = place.runs.get(before)
        if run is None:
            with self._shared.lock:
                run = self._run(place, before)
            if run is _NO_RUN:
                place.is_free = True
            else:
                place.runs[before] = run
        return run

    def _run(self, place: Place, before: str) -> Run:
        pieces, end = self.automaton.forced_run(place.configuration)
        follows = self.automaton.next_bytes(end)
        if not pieces and follows.any():
            return _NO_RUN
        tokens = (
            self._only_allowed(place) if self.vocabulary.encode is None else spell(self.vocabulary, before, pieces, follows)
        )
        ways = [place]
        for token in tokens:
            after = self.after(ways[-1], token)
            assert after is not None
            ways.append(after)
        ends = not follows.any() and (last := self.row(ways[-1])).ends and not len(last.allowed)
        return Run(tuple(tokens), tuple(ways[1:]), ends)

    def _only_allowed(self, place: Place) -> list[int]:
        """The tokens that follow as long as there is but one, and not the end."""
        tokens: list[int] = []
        while len(tokens) < MAX_RUN and not (row := self.row(place)).ends and len(row.allowed) == 1:
            tokens.append(int(row.allowed[0]))
            after = self.after(place, tokens[-1])
            assert after is not None
            place = after
        return tokens

    def after(self, place: Place, token_id: int) -> Place | None:
        """The place after a token; None where it is not allowed."""
        known = place.after.get(token_id)
        if known is not None:
            return known
        configuration = self._configuration_after(place.configuration, token_id)
        if configuration is None:
            return None
        after = place.after[token_id] = self.place(configuration)
        return after

    def _configuration_after(self, configuration: Configuration, token_id: int) -> Configuration | None:
        if not self.vocabulary.tokens[token_id]:
            symbol = self.symbol_of(token_id)
            return None if symbol is None else self.automaton.after_symbol(configuration, symbol)
        after = np.empty_like(configuration)
        blob, offsets = self.vocabulary.blob, self.vocabulary.offsets
        state = self.automaton.run(lambda t: walks.take_token(t, configuration, after, blob, offsets, token_id))
        return None if state in (DEAD, OVERFLOW) else after  # nested deeper than the return stack: such tokens are masked

    def symbol_of(self, token_id: int) -> str | None:
        """The symbol of the automaton that a token is, if it is one."""
        return self.automaton.symbols[self.symbol_tokens.index(token_id)] if token_id in self.symbol_tokens else None

    def _reach(self, place: Place) -> Reach:
        configuration, allowed = place.configuration, self.row(place).allowed
        symbols = np.isin(allowed, self.symbol_tokens)
        needed = np.zeros(len(allowed), np.int32)
        for number in np.flatnonzero(symbols):
            symbol = self.automaton.symbols[self.symbol_tokens.index(int(allowed[number]))]
            after = self.automaton.after_symbol(configuration, symbol)
            assert after is not None
            needed[number] = self.fewest_tokens(self.place(after))
        of_token = np.zeros(self.vocabulary.size, np.int32)
        for group in self.grouped(configuration):
            of_token[group.tokens] = self.fewest_tokens(self.place(group.lead))
        needed[~symbols] = of_token[allowed[~symbols]]
        return Reach(allowed, needed, self.vocabulary.words)

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
        return [Group(part, lead.copy()) for part, lead in zip(parts, leads[:used], strict=True)]

    def _make(self, configuration: Configuration) -> Row:
        ends = self.automaton.may_end(configuration)
        symbols = self._symbol_ids[self.automaton.next_symbols(configuration)]
        base = None
        if configuration[0] >= SKELETON:
            tokens = self._walked(configuration, self.vocabulary.trie)
        else:
            base, tokens = self._leaf_tokens(configuration)
        return Row.of(base, np.concatenate([tokens, symbols]), ends)

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
            continuation = self.row(self.place(after))
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
