"""Rows for grammars with lists of distinct elements: those of the automaton, without the tokens that repeat an element.

Most tokens can't: they stay in a string that can become many others still. Of each configuration it is kept which tokens have
to be looked at; which of these may not come is told anew for each text, as it depends on the elements that it has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton.automaton import Automaton, Piece
from routine_grammar.automaton.distinct import Watch, Watched, elements, followed
from routine_grammar.automaton.marks import BEGINS_ELEMENT, ENDS_ELEMENT, Event, events_of_tokens
from routine_grammar.automaton.step import DEAD, HEAD, NO_BOUNDS, STACK, Configuration
from routine_grammar.automaton.tables import Handle
from routine_grammar.errors import GrammarError
from routine_grammar.grammar.schema.shapes import key_of_text
from routine_grammar.kept import Kept
from routine_grammar.masks import walks
from routine_grammar.masks.leaf_rows import Ids, Reach, VocabularyRows
from routine_grammar.masks.row import Row
from routine_grammar.masks.rows import Run, TokenRows
from routine_grammar.masks.vocabulary import Vocabulary

MAX_SUSPECT_BYTES = 4 * 2**20  # of a grammar: of which configurations it is kept which tokens have to be looked at
MAX_LIKELY = 64  # tokens of which it is told exactly how many more they need
MAX_ROOM = 1_000  # elements in a list up to which a string with room for more needs no look
_CUT_ESCAPE = re.compile(rb"(?<!\\)((?:\\\\)*)\\(?:u[0-9a-fA-F]{0,3})?\Z")
_HALF_PAIR = re.compile(rb"(?<!\\)((?:\\\\)*)\\u[dD][89abAB][0-9a-fA-F]{2}\Z")


@dataclass(frozen=True, slots=True)
class Suspects:
    """The tokens allowed in a configuration that may repeat an element, or leave no way to the end but to repeat one.

    `tokens` lead to the configurations `leads[group]`, each with `room[group]` for other texts. `events` are those of the
    tokens that have any; each `ends` so many elements, and `begins` some or none.
    """

    tokens: Ids
    groups: npt.NDArray[np.int64]
    leads: list[Configuration]
    room: npt.NDArray[np.int64]
    events: dict[int, tuple[Event, ...]]
    ends: npt.NDArray[np.int64]
    begins: npt.NDArray[np.bool_]

    @property
    def nbytes(self) -> int:
        """About how many bytes it takes."""
        arrays = (self.tokens, self.groups, self.room, self.ends, self.begins)
        return sum(array.nbytes for array in arrays) + 300 * len(self.leads) + 200 * len(self.events)


class DistinctRows:
    """As `TokenRows`, where a sequence stands in lists of distinct elements too."""

    def __init__(self, plain: TokenRows) -> None:
        self.automaton = plain.automaton
        self.vocabulary = plain.vocabulary
        self.shared = plain.shared
        self.farthest_of_all = NO_BOUNDS  # it depends on the elements
        self._plain = plain
        self._watch = Watch(plain.automaton)
        self._suspects = Kept[bytes, Suspects](MAX_SUSPECT_BYTES, attrgetter("nbytes"))
        self._last: tuple[Watched | None, Row | None] = (None, None)  # asked for several times for one token

    @property
    def nbytes(self) -> int:
        """About how many bytes it takes by now."""
        return self._plain.nbytes + self._suspects.nbytes

    def start(self) -> Watched:
        """Where every sequence begins."""
        return self._watch.start()

    def configuration(self, place: Watched) -> Configuration:
        """The configuration at a place."""
        return place.row

    def farthest(self, place: Watched) -> int:
        """As `TokenRows.farthest`: each element may cost some tokens to be told from."""
        return self.automaton.farthest + self._slack(place) + 8

    def after(self, place: Watched, token_id: int) -> Watched | None:
        """The place after a token; None where it is not allowed."""
        data = self.vocabulary.tokens[token_id]
        if not data:
            symbol = self._plain.symbol_of(token_id)
            return None if symbol is None else self._watch.after_symbol(place, symbol)
        try:
            after = self._watch.after(place, data)
        except GrammarError:  # nested deeper than the return stack: such tokens are masked
            return None
        return after if after is not None and self._watch.is_alive(after) else None

    def row(self, place: Watched) -> Row:
        """The tokens allowed at a place."""
        last, row = self._last
        if last is not place:
            row = self._plain.row(self._plain.place(place.row))
            refused = [token for token, after in self._looked_at(place) if after is None or not self._watch.is_alive(after)]
            if refused:
                row = Row.of(None, np.setdiff1d(row.allowed, np.array(refused, np.int32)), row.ends)
            self._last = place, row
        assert row is not None
        return row

    def fewest_tokens(self, place: Watched) -> int:
        """How few tokens suffice to end the text: those of its shortest completion in bytes, written in fewest tokens."""
        return int(self._costs(self._completion(place))[0])

    def reach(self, place: Watched) -> Reach:
        """The tokens of `row(place)`, and how few further ones suffice to end the text after each.

        For some that go on within a string, where much can be equal to what is there, it is more than that.
        """
        at = self._plain.place(place.row)
        plain, allowed = self._plain.row(at).allowed, self.row(place).allowed
        needed = self._several_after(place, plain) if self.automaton.needs_several else self._plain.reach(at).needed
        needed = needed[np.isin(plain, allowed)]
        if elements(place.lists) or self.automaton.needs_several:
            looked_at = dict(self._looked_at(place))
            likely, doubtful = self._going_on(place, allowed)
            needed[doubtful] += self._slack(place)
            for token in likely - looked_at.keys():
                looked_at[token] = self.after(place, token)
            for token, after in looked_at.items():
                number = int(np.searchsorted(allowed, token))
                if number < len(allowed) and allowed[number] == token and after is not None:
                    needed[number] = self.fewest_tokens(after)
            self._keep_way(place, allowed, needed)
        return Reach(allowed, needed.astype(np.int32), self.vocabulary.words, self.row(place).ends)

    def _going_on(self, place: Watched, allowed: Ids) -> tuple[set[int], npt.NDArray[np.bool_]]:
        """Of the allowed tokens those, some at most, that go on in a string as it does in an element that is there.

        And which of them may, for all that is told: where others are in question than strings as they are, or too many.
        """
        doubtful = np.zeros(len(allowed), np.bool_)
        if all(level.text is None for level in place.lists):
            return set(), doubtful
        *outer, (keys, text) = place.lists
        if elements(tuple(outer)) or text is None or not text.startswith(b'"') or b"\\" in text:
            return set(), ~doubtful
        rests = [raw.removeprefix(text) for key in keys if (raw := _spelled(key)).startswith(text)]
        if len(rests) > MAX_LIKELY:
            return set(), ~doubtful
        found = {token for rest in rests for _, token in self._spelling(rest)}
        if len(found) > MAX_LIKELY:
            return set(), ~doubtful
        likely = np.intersect1d(sorted(found), allowed)
        return set(likely.tolist()), self.vocabulary.with_backslash[allowed] if keys else doubtful

    def _spelling(self, text: bytes) -> Iterator[tuple[int, int]]:
        """The tokens that a text begins with, each behind its length."""
        trie = self.vocabulary.trie
        node = int(trie.root[text[0]]) if text else -1
        for length in range(1, len(text) + 1):
            if node < 0:
                return
            token = int(trie.token[node])
            while token >= 0:
                yield length, token
                token = int(trie.same[token])
            node = walks.child(trie.handle, node, text[length]) if length < len(text) else -1

    def _slack(self, place: Watched) -> int:
        """How many tokens more suffice to be told from all elements: each may have the next length that there is."""
        return (elements(place.lists) + 1) * self.automaton.growth(place.row)

    def _several_after(self, place: Watched, tokens: Ids) -> Ids:
        """What each token needs, where lists to come need several different elements: told by one token of a group."""
        of_token = np.zeros(self.vocabulary.size, np.int32)
        symbols = tokens[np.diff(self.vocabulary.offsets)[tokens] == 0]
        groups = [group.tokens for group in self._plain.grouped(place.row)]
        groups += [symbols[number : number + 1] for number in range(len(symbols))]
        for ids in groups:
            places = (self.after(place, token) for token in ids.tolist())
            after = next((each for each in places if each is not None), None)
            of_token[ids] = 0 if after is None else self.fewest_tokens(after)
        return of_token[tokens]

    def _keep_way(self, place: Watched, allowed: Ids, needed: Ids) -> None:
        """Set what the first tokens of a shortest way need: that way stays open when the budget is as small."""
        pieces = self._completion(place)
        costs = self._costs(pieces)
        for length, token in self._spelling(bytes(takewhile(lambda piece: isinstance(piece, int), pieces))):  # type: ignore[arg-type]
            if costs[length] == costs[0] - 1:
                needed[np.searchsorted(allowed, token)] = costs[length]

    def run(self, place: Watched, token: int | None) -> Run:
        """As `TokenRows.run`."""
        run = self._plain.run(self._plain.place(place.row), token)
        places: list[Watched] = []
        for taken in run.tokens:
            after = self.after(places[-1] if places else place, taken)
            if after is None:
                return Run(run.tokens[: len(places)], tuple(places), False)
            places.append(after)
        return Run(run.tokens, tuple(places), run.ends)

    def _completion(self, place: Watched) -> list[Piece]:
        completion = self._watch.completion(place)
        if completion is None:
            raise GrammarError("no way to the end is found that repeats no element of a list")
        return completion

    def _costs(self, pieces: list[Piece]) -> npt.NDArray[np.int32]:
        """From each piece on, how few tokens spell the rest."""
        numbers = {symbol: 256 + number for number, symbol in enumerate(self.automaton.symbols)}
        coded = np.array([piece if isinstance(piece, int) else numbers[piece] for piece in pieces], np.int32)
        costs = np.zeros(len(pieces) + 1, np.int32)
        walks.fewest_tokens(self.vocabulary.trie.handle, coded, costs)
        return costs

    # What has to be looked at

    def _looked_at(self, place: Watched) -> Iterator[tuple[int, Watched | None]]:
        """The tokens that may repeat an element, or leave no other way, and where each leads: None where it does repeat one."""
        count = elements(place.lists)
        suspects = self._suspects_of(place.row)
        if count > MAX_ROOM:
            for token in self._plain.row(self._plain.place(place.row)).allowed.tolist():
                yield token, self._watch.after(place, self.vocabulary.tokens[token])
            return
        ends, begins = suspects.ends, suspects.begins
        chosen = (ends > 1) | (begins & ((ends > 0) | (count > 0)))
        if count and self._may_repeat(place):
            chosen |= (ends > 0) | (suspects.room[suspects.groups] < count)
        for token, group in zip(suspects.tokens[chosen].tolist(), suspects.groups[chosen].tolist(), strict=True):
            lists = followed(place.lists, self.vocabulary.tokens[token], suspects.events.get(token, ()))
            yield token, None if lists is None else Watched(suspects.leads[group], lists)

    def _may_repeat(self, place: Watched) -> bool:
        """Whether the element at hand may become equal to one before it; told for strings only."""
        *outer, (keys, text) = place.lists
        if elements(tuple(outer)) or text is None or not text.startswith(b'"'):
            return True
        start = _begun_string(text)
        return any(key.startswith(start) for key in keys)

    def _suspects_of(self, row: Configuration) -> Suspects:
        key = row[: HEAD + row[1]].tobytes()
        return self._suspects.get(key) or self._suspects.put(key, self._find_suspects(row))

    def _find_suspects(self, row: Configuration) -> Suspects:
        found = self._plain.grouped(row)
        every = np.concatenate([np.zeros(0, np.int32), *(group.tokens for group in found)])
        of = np.repeat(np.arange(len(found)), [len(group.tokens) for group in found])
        leads = [group.lead for group in found]
        rooms = np.array([self.automaton.room(lead) for lead in leads], np.int64)
        # A token that stays in the leaf at hand begins and ends nothing.
        leaves = ~np.array([group.stays for group in found], np.bool_)
        events = self._events(row, every[leaves[of]]) if len(every) else {}
        ends, begins = np.zeros(self.vocabulary.size, np.int64), np.zeros(self.vocabulary.size, np.bool_)
        for token, noted in events.items():
            ends[token] = sum(what == ENDS_ELEMENT for _, what in noted)
            begins[token] = any(what == BEGINS_ELEMENT for _, what in noted)
        is_suspect = (rooms[of] < MAX_ROOM) | (ends[every] > 0) | begins[every]
        tokens = every[is_suspect]
        return Suspects(tokens, of[is_suspect], leads, rooms, events, ends[tokens], begins[tokens])

    def _events(self, row: Configuration, tokens: Ids) -> dict[int, tuple[Event, ...]]:
        vocabulary = self.vocabulary
        scratch = np.zeros((2 * STACK * (vocabulary.longest + 1), 2), np.int32)
        room = 4096
        while True:
            found = np.zeros((room, 3), np.int32)

            def note(t: Handle, found: npt.NDArray[np.int32] = found) -> int:
                return events_of_tokens(t, row, tokens, vocabulary.blob, vocabulary.offsets, scratch, found)

            used = self.automaton.run(note)
            if used != DEAD:
                break
            room *= 4
        events: dict[int, tuple[Event, ...]] = {}
        for number, offset, what in found[:used].tolist():
            token = int(tokens[number])
            events[token] = (*events.get(token, ()), (offset, what))
        return events


def _spelled(key: str) -> bytes:
    """The text of a key's value, if it is a string, with no more escapes than there have to be."""
    return json.dumps(json.loads(key), ensure_ascii=False).encode(errors="replace") if key.startswith('"') else b""


def _begun_string(text: bytes) -> str:
    """How the keys of all strings begin that a string under way can become."""
    whole = text.decode(errors="ignore").encode()  # without a character that is under way
    whole = _CUT_ESCAPE.sub(rb"\1", whole)
    whole = _HALF_PAIR.sub(rb"\1", whole)
    return key_of_text(whole + b'"')[:-1]


AnyRows = TokenRows | DistinctRows
AnyPlace = Any  # where a sequence stands: a `Place`, or a `Watched` one


def rows_of(automaton: Automaton, vocabulary: Vocabulary) -> AnyRows:
    """The rows of an automaton over a vocabulary."""
    plain = TokenRows(automaton, VocabularyRows.shared(vocabulary, automaton.library))
    return DistinctRows(plain) if automaton.is_distinct else plain
