"""Rows: the tokens allowed in a configuration, as a base bitmap of its leaf and a list of further tokens.

A leaf's base holds the tokens that stay in it (`leaf_rows`); what leaves the leaf within a token is walked through its
continuation; so a row inside a string costs a few hundred steps, not a vocabulary. What is known of a configuration, its row
and where its tokens lead, is kept with it: sequences that come there again find an automaton over tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton import step as stepping
from routine_grammar.automaton.automaton import Automaton
from routine_grammar.automaton.step import DEAD, HEAD, NO_BOUNDS, RETURN, SKELETON, STACK, Configuration
from routine_grammar.automaton.tables import Handle
from routine_grammar.masks import walks
from routine_grammar.masks.bits import Bitmap, set_bits
from routine_grammar.masks.frame import Frame
from routine_grammar.masks.leaf_rows import Ids, LeafRow, Reach, VocabularyRows
from routine_grammar.masks.row import Row
from routine_grammar.masks.spelling import text_before
from routine_grammar.masks.trie import Trie

MAX_RUN = 4096  # tokens
MAX_PLACES = 4096  # of a grammar, kept for sequences to come
_PLACE_BYTES, _ROW_BYTES = 700, 500  # about what each takes beside its words


class Run:
    """Forced tokens, where each leads, and whether the text has to end behind them.

    `steps` are what a matcher keeps of each: where it leads, the token, the run where it goes on, and how many were taken then.
    """

    __slots__ = ("after", "ends", "steps", "tokens")

    def __init__(self, tokens: tuple[int, ...], after: tuple[Any, ...], ends: bool) -> None:
        self.tokens = tokens
        self.after = after
        self.ends = ends
        last = len(tokens) - 1
        self.steps = tuple(
            (place, token, self if number < last else None, number + 1)
            for number, (token, place) in enumerate(zip(tokens, after, strict=True))
        )


_NO_RUN = Run((), (), False)


class Group(NamedTuple):
    """Tokens that lead to one configuration; `stays`: all within the leaf at hand."""

    tokens: Ids
    lead: Configuration
    stays: bool = False


class Place:
    """A configuration, and what is known of it by now: its `row`, and where its tokens lead.

    `key` is its words, as far as they count: the same for equal configurations; `state` and `bounds` are two of them. `fewest`
    tokens suffice to end the text; `runs` are the forced tokens from here on, by the text before them and by the token that it
    ends in, and `is_free` says that there are none whatever that is.
    """

    __slots__ = ("_configuration", "after", "bounds", "fewest", "is_free", "key", "row", "runs", "state")

    def __init__(self, key: bytes, state: int, bounds: int) -> None:
        self._configuration: Configuration | None = None
        self.key = key
        self.state = state
        self.bounds = bounds
        self.row: Row | None = None
        self.after: dict[int, Place] = {}
        self.fewest: int | None = None
        self.runs: dict[str | int | None, Run] = {}
        self.is_free = False

    @property
    def configuration(self) -> Configuration:
        """The configuration, not to be written to."""
        if self._configuration is None:
            self._configuration = np.zeros(HEAD + STACK, np.int32)
            self._configuration[: len(self.key) // 4] = np.frombuffer(self.key, np.int32)
        return self._configuration


class TokenRows:
    """The rows of one automaton over one vocabulary, made when first asked for."""

    def __init__(self, automaton: Automaton, rows: VocabularyRows) -> None:
        self.automaton = automaton
        self.vocabulary = rows.vocabulary
        assert automaton.library is rows.library
        self.shared = rows
        self.farthest_of_all = automaton.farthest
        self._places: dict[bytes, Place] = {}
        self._rows: dict[bytes, Row] = {}
        self.symbol_tokens = [rows.vocabulary.special[symbol] for symbol in automaton.symbols]
        self._handle = automaton.handle
        self._frame = Frame(rows, self.symbol_tokens)
        self._leaf_rows: dict[int, tuple[LeafRow, bool]] = {}
        self._kept = 0

    def start(self) -> Place:
        """Where every sequence begins."""
        return self.place(self.automaton.start())

    def place(self, configuration: Configuration) -> Place:
        """The place of a configuration, which then is the place's own."""
        key = _key(configuration)
        return self._places.get(key) or self._new_place(key, int(configuration[0]), int(configuration[3]))

    def _new_place(self, key: bytes, state: int, bounds: int) -> Place:
        if len(self._places) >= MAX_PLACES:  # sequences keep those that they are at
            self._places.clear()
            self._rows.clear()
            self._leaf_rows.clear()
            self._kept = 0
        self._kept += _PLACE_BYTES
        return self._places.setdefault(key, Place(key, state, bounds))

    @property
    def nbytes(self) -> int:
        """About how many bytes the automaton takes, with the places and rows that are kept."""
        return self.automaton.nbytes + self._kept

    def configuration(self, place: Place) -> Configuration:
        """The configuration at a place."""
        return place.configuration

    def farthest(self, place: Place) -> int:
        """How many tokens may suffice to end the text from anywhere behind a place, or more."""
        return self.automaton.farthest

    def row(self, place: Place) -> Row:
        """The tokens allowed at a place."""
        if place.row is None:
            place.row = self._counted_row(place) if place.bounds else self._new_row(place)
        return place.row

    def _new_row(self, place: Place) -> Row:
        with self.shared.lock:
            row = self._make(place)
        self._kept += _ROW_BYTES + 2 * row.packed.nbytes
        return row

    def _counted_row(self, place: Place) -> Row:
        """The row of a place in a counted leaf, which others may have too."""
        key = self._row_key(place)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = self._new_row(place)
            self._kept += 0 if row.base is None else row.base.nbytes
        return row

    def _row_key(self, place: Place) -> bytes:
        """What a row depends on: of a count no more than tells which tokens of the vocabulary pass a bound."""
        configuration = place.configuration
        low, high = self._left(configuration)
        most = self.shared.counted_row(int(configuration[0]), self.automaton.handle).most
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
            place.fewest = int(walks.fewest_tokens(self.vocabulary.trie.handle, pieces, costs))
        return place.fewest

    def reach(self, place: Place) -> Reach:
        """The tokens of `row(place)`, and how few further ones suffice to end the text after each."""
        with self.shared.lock:
            known = self.shared.reaches.get(place)
            if known is None:
                known = self._reach(place)
                self.shared.reaches.put(place, known)
            return known

    def run(self, place: Place, token: int | None) -> Run:
        """The tokens that spell what is forced from a place on, as the tokenizer writes them behind another token.

        Where the vocabulary does not know its tokenizer: the tokens that are the only ones allowed.
        """
        if place.is_free:
            return _NO_RUN
        run = place.runs.get(token)
        if run is None:
            before = text_before(self.vocabulary, token)
            run = place.runs.get(before)
            if run is None:
                with self.shared.lock:
                    run = self._run(place, before)
            if run is _NO_RUN:
                place.is_free = True
            else:
                place.runs[before] = place.runs[token] = run
        return run

    def _run(self, place: Place, before: str) -> Run:
        pieces, end = self.automaton.forced_run(place.configuration)
        follows = self.automaton.next_bytes(end)
        if not pieces and follows.any():
            return _NO_RUN
        tokens = (
            self._only_allowed(place)
            if self.vocabulary.encode is None
            else self.shared.spelling(before, tuple(pieces), follows.tobytes())
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
        if self.vocabulary.tokens[token_id]:
            after = self._after_bytes(place, token_id)
        elif (symbol := self.symbol_of(token_id)) is None:
            after = None
        else:
            configuration = self.automaton.after_symbol(place.configuration, symbol)
            after = None if configuration is None else self.place(configuration)
        if after is not None:
            place.after[token_id] = after
        return after

    def _after_bytes(self, place: Place, token_id: int) -> Place | None:
        frame, skeleton = self._frame, self.automaton.skeleton
        with skeleton.lock:
            frame.give(place.key)
            while asked := walks.take_token(self._handle, frame.address, token_id):
                skeleton.provide(asked)
            key = frame.key
            return self._places.get(key) or (self._new_place(key, frame.state, frame.bounds) if key else None)

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
        return Reach(allowed, needed, self.vocabulary.words, self.row(place).ends)

    def grouped(self, configuration: Configuration) -> list[Group]:
        """The tokens with bytes that a configuration allows, by the one that they lead to."""
        state, t = int(configuration[0]), self.automaton.handle
        if state >= SKELETON:
            return self._grouped_in(configuration, self.vocabulary.trie)
        low, high = self._left(configuration)
        if configuration[3] and self._is_tight(low, high, self.shared.counted_row(state, t).most):
            return self._grouped_in(configuration, self.vocabulary.trie)
        after = self._returned(configuration)
        found = list(self._landed(configuration, after, t))
        leaf, counted = self.shared.leaf_row(state, t), bool(configuration[3])
        exit_counts = self.shared.counted_row(state, t).exit_counts if counted else leaf.exits
        for rests, lead, _ in self._grouped_in(after, leaf.rests):
            tokens = [leaf.exits[leaf.exits_of(rest)] for rest in rests]
            if counted:
                within = (exit_counts >= low) & (exit_counts <= high)
                tokens = [ids[within[leaf.exits_of(rest)]] for ids, rest in zip(tokens, rests, strict=True)]
            found.append(Group(np.concatenate(tokens), lead))
        if self.shared.library.accepting[state] and not counted:
            found += self.grouped(after)
        return [group for group in found if len(group.tokens)]

    def _landed(self, configuration: Configuration, after: Configuration, t: Handle) -> Iterator[Group]:
        """The tokens that stay in the leaf at hand, or end it with their last byte, by where they lead."""
        for state, completed, tokens in self.shared.landings(int(configuration[0]), t):
            lead = (after if state == RETURN else configuration).copy()
            if configuration[3]:
                low, high = self.automaton.library.bounds[configuration[3], :2].tolist()
                count = int(configuration[2]) + completed
                needed = 0 if state == RETURN else stepping.needed(t, int(self.shared.library.counted[state]), low - count)
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
        rows, room = self.shared.rows, 64
        while True:
            leads = np.zeros((room, len(configuration)), np.int32)

            def group(t: Handle, leads: npt.NDArray[np.int32] = leads) -> int:
                rows[0] = configuration
                groups[:] = -1
                return walks.group_tokens(t, trie.handle, rows, groups, leads)

            used = self.automaton.run(group)
            if used != DEAD:
                break
            room *= 4
        tokens = np.flatnonzero(groups >= 0).astype(np.int32)
        order = np.argsort(groups[tokens], kind="stable")
        parts = np.split(tokens[order], np.cumsum(np.bincount(groups[tokens], minlength=used))[:-1]) if used else []
        return [Group(part, lead.copy()) for part, lead in zip(parts, leads[:used], strict=True)]

    def _make(self, place: Place) -> Row:
        if place.state >= SKELETON:
            return self._collect(place.key, None)
        if place.bounds:
            return self._counted(place)
        leaf, is_accepting = self._leaf_row(place.state)
        row = self._collect(place.key, leaf.base, leaf.handle, beneath=leaf.beneath)
        if not is_accepting:
            return row
        beside = self.row(self.place(self._returned(place.configuration)))
        return Row.of(leaf.base, np.concatenate([Row(None, row.packed, False).allowed, beside.allowed]), row.ends)

    def _leaf_row(self, state: int) -> tuple[LeafRow, bool]:
        """The leaf row of a leaf state, and whether the leaf may end there: kept, as rows stand on it."""
        known = self._leaf_rows.get(state)
        if known is None:
            row = self.shared.leaf_row(state, self._handle)
            known = self._leaf_rows[state] = row, bool(self.shared.library.accepting[state])
            self._kept += row.nbytes
        return known

    def _counted(self, place: Place) -> Row:
        """The row inside a leaf whose characters are counted."""
        state, t = place.state, self._handle
        low, high = self._left(place.configuration)
        leaf, counted = self.shared.leaf_row(state, t), self.shared.counted_row(state, t)
        if self._is_tight(low, high, counted.most):
            return self._collect(place.key, None)
        base = leaf.base
        if low > 0 or counted.most > high:
            base = np.zeros_like(leaf.base)
            ends = counted.closing[(counted.closing_counts >= low) & (counted.closing_counts <= high)]
            set_bits(base, counted.staying[: int(np.searchsorted(counted.needs, high, side="right"))])
            set_bits(base, ends)
        return self._collect(place.key, base, counted.addresses.handle, low, high)

    def _collect(
        self,
        key: bytes,
        base: Bitmap | None,
        exits: Handle = 0,
        low: int = 0,
        high: int = NO_BOUNDS,
        beneath: Ids | None = None,
    ) -> Row:
        """The row of the configuration of a key, its base given; where it is in a leaf, with the tokens of `exits`."""
        frame, skeleton = self._frame, self.automaton.skeleton
        with skeleton.lock:
            frame.give(key)
            while asked := walks.collect(self._handle, frame.address, exits, low, high):
                skeleton.provide(asked)
            return Row(base, frame.packed, frame.ends, beneath)

    def _returned(self, configuration: Configuration) -> Configuration:
        """The configuration after a leaf returns."""
        after = configuration.copy()

        def settle(t: Handle) -> int:
            after[:] = configuration
            return stepping.settle(t, after, RETURN)

        after[0] = self.automaton.run(settle)
        return after


def _key(configuration: Configuration) -> bytes:
    return configuration[: HEAD + configuration[1]].tobytes()
