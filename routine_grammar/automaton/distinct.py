"""Lists of distinct elements: what no automaton can hold, watched beside it.

The automaton leaves marks on its return stack for such lists and their elements. So it is known, byte by byte, where an
element begins and ends; its text is kept, and two elements of a list may not be equal JSON values. A place from which every
way to the end repeats some element is dead, and is told before it is reached.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from routine_grammar.automaton.automaton import Automaton, Piece, Symbol
from routine_grammar.automaton.marks import BEGINS_ELEMENT, BEGINS_LIST, ENDS_ELEMENT, ENDS_LIST, Event
from routine_grammar.automaton.step import ELEMENT, HEAD, LIST, Configuration
from routine_grammar.errors import UnsupportedSchemaError
from routine_grammar.grammar.schema.shapes import key_of_text
from routine_grammar.grammar.tree import Call, Distinct, Grammar, reachable

MAX_SEARCHED = 500  # places looked at for a way to the end, and some more for each element that a list has
SEARCHED_AN_ELEMENT = 50
MAX_KEPT = 1_000  # configurations of which it is kept how they go on
_NOTHING_KNOWN: Mapping[int, Any] = MappingProxyType({})


class Listed(NamedTuple):
    """A list that is being written: the `keys` of the elements that it has, and the text of the one under way, if one is."""

    keys: frozenset[str]
    text: bytes | None


Lists = tuple[Listed, ...]  # those that a text is in, outermost first


class Watched(NamedTuple):
    """Where a text stands: in the automaton, and in its lists of distinct elements."""

    row: Configuration
    lists: Lists

    @property
    def after(self) -> Mapping[int, Watched]:
        """Where tokens lead is not kept: it depends on the elements."""
        return _NOTHING_KNOWN

    @property
    def is_free(self) -> bool:
        """Whether it is known that nothing is forced: never."""
        return False


class _Shortest(NamedTuple):
    """A shortest way to the end; `events` are those within `data`, its bytes before its first symbol."""

    pieces: list[Piece]
    data: bytes
    events: list[Event]


class _Step(NamedTuple):
    """A byte that may come next, where it leads, and how far the end is before it."""

    byte: bytes
    row: Configuration
    events: list[Event]
    length: int


def _behind_element(lists: Lists, way: _Shortest) -> int | None:
    """How many bytes of a way lead past its first element; None where that is one that is there already."""
    end = next((offset + 1 for offset, what in way.events if what == ENDS_ELEMENT), len(way.data) + 1)
    if end > len(way.data):
        return None
    return end if followed(lists, way.data[:end], [event for event in way.events if event[0] <= end]) is not None else None


def _make_room(cache: dict[bytes, Any]) -> None:
    """Forget what was known first where a cache is full."""
    if len(cache) >= MAX_KEPT:
        del cache[next(iter(cache))]


def followed(lists: Lists, data: bytes, events: Sequence[Event]) -> Lists | None:
    """The lists after some bytes, in which `events` took place; None where an element comes twice in a list."""
    levels = list(lists)
    done = 0
    for offset, what in (*events, (len(data), 0)):
        if offset > done:
            levels = [Listed(keys, None if text is None else text + data[done:offset]) for keys, text in levels]
            done = offset
        if what == BEGINS_LIST:
            levels.append(Listed(frozenset(), None))
        elif what == ENDS_LIST:
            levels.pop()
        elif what == BEGINS_ELEMENT:
            levels[-1] = Listed(levels[-1].keys, b"")
        elif what == ENDS_ELEMENT:
            keys, text = levels[-1]
            assert text is not None
            key = key_of_text(text)
            if key in keys:
                return None
            levels[-1] = Listed(keys | {key}, None)
    return tuple(levels)


def _begun(row: Configuration) -> Watched:
    """A place where nothing was read yet of the lists that it is in."""
    lists = list[Listed]()
    for state in row[HEAD : HEAD + row[1]].tolist():
        if state == LIST:
            lists.append(Listed(frozenset(), None))
        elif state == ELEMENT:
            lists[-1] = Listed(frozenset(), b"")
    return Watched(row, tuple(lists))


def elements(lists: Lists) -> int:
    """How many elements the lists have that a further one may not be equal to."""
    return sum(len(level.keys) for level in lists)


def require_enough(grammar: Grammar) -> None:
    """Raise `UnsupportedSchemaError` where no text is found that has as many different elements as there have to be."""
    for rule, tree in grammar.rules.items():
        if isinstance(tree, Distinct) and tree.least > 1:
            watch = Watch(Automaton(Grammar(Call(rule), reachable(tree, grammar.rules) | {rule: tree})))
            if watch.completion(watch.start()) is None:
                keyword = tree.pointer.rpartition("/")[2]
                told = f"there are no {tree.least} different elements as they have to be, or they are too hard to find"
                raise UnsupportedSchemaError(f"{keyword!r} (rule {rule}): {told}", pointer=tree.pointer, keyword=keyword)


class Watch:
    """Follows texts through an automaton and their lists of distinct elements."""

    def __init__(self, automaton: Automaton) -> None:
        self._automaton = automaton
        self._ways: dict[bytes, _Shortest] = {}
        self._next: dict[bytes, list[_Step]] = {}

    def start(self) -> Watched:
        """Where every text begins."""
        return _begun(self._automaton.start())

    def after(self, place: Watched, data: bytes) -> Watched | None:
        """Where a text stands after some bytes; None where they are not allowed. Raises as `Automaton.after`."""
        row, events = self._automaton.after_with_events(place.row, data)
        lists = None if row is None else followed(place.lists, data, events)
        return None if row is None or lists is None else Watched(row, lists)

    def after_symbol(self, place: Watched, symbol: Symbol) -> Watched | None:
        """Where a text stands after a symbol, which is never within a list; None where it is not allowed."""
        row = self._automaton.after_symbol(place.row, symbol)
        return None if row is None else _begun(row)

    def accepts(self, data: bytes) -> bool:
        """Whether the bytes are a whole text."""
        place = self.after(self.start(), data)
        return place is not None and self._automaton.may_end(place.row)

    def read(self, data: bytes) -> tuple[int, bytes | None]:
        """How many bytes some text begins with, as far as the automaton lets them.

        With them, where an element stops it there, as much of the text of the one that could only be one that is there.
        """
        place = self.start()
        for number in range(len(data)):
            row = self._automaton.after(place.row, data[number : number + 1])
            after = None if row is None else self.after(place, data[number : number + 1])
            if after is None or not self.is_alive(after):
                if row is None:
                    return number, None
                return number, next((level.text for level in reversed(place.lists) if level.text is not None), b"")
            place = after
        return len(data), None

    def is_alive(self, place: Watched) -> bool:
        """Whether some way to the end repeats no element."""
        count = elements(place.lists)
        return not count or self._automaton.room(place.row) >= count or self.completion(place) is not None

    def completion(self, place: Watched) -> list[Piece] | None:
        """A short way to the end that repeats no element, as bytes and symbols; None where none is found.

        The shortest one, of several the first byte by byte, unless that takes too long to find: then each element to come is
        the shortest that is not there yet. From any place along the way, none is longer than its rest.
        """
        found = self._search(place, by_element=False)
        if found is not None or not self._automaton.needs_several:
            return None if found is None else found[0]
        way: list[Piece] = []
        while (found := self._search(place, by_element=True)) is not None:
            pieces, is_whole = found
            way += pieces
            if is_whole:
                return way
            after = self.after(place, bytes(piece for piece in pieces if isinstance(piece, int)))
            assert after is not None
            place = after
        return None

    def _search(self, place: Watched, *, by_element: bool) -> tuple[list[Piece], bool] | None:
        """A shortest way that repeats no element, and whether it leads to the end, or `by_element` only behind the next one.

        None where none is found. Of places with one configuration and the same elements one alone is looked at; within an
        element no more than there are elements, and one: most ways that go on alike end in different values.
        """
        todo = [(0, b"", 0)]
        places = [place]
        seen = Counter[tuple[bytes, tuple[frozenset[str], ...]]]()
        most = MAX_SEARCHED + SEARCHED_AN_ELEMENT * elements(place.lists)
        while todo and seen.total() < most:
            _, text, number = heapq.heappop(todo)
            row, lists = places[number]
            key = row[: HEAD + row[1]].tobytes(), tuple(level.keys for level in lists)
            is_within = any(level.text is not None for level in lists)
            if seen[key] > (elements(lists) if is_within else 0):
                continue
            seen[key] += 1
            shortest = self._shortest(row)
            if followed(lists, shortest.data, shortest.events) is not None:
                return [*text, *shortest.pieces], True
            if by_element and (end := _behind_element(lists, shortest)) is not None:
                return [*text, *shortest.data[:end]], False
            for step in self._steps(row):
                after = followed(lists, step.byte, step.events)
                if after is not None:
                    heapq.heappush(todo, (len(text) + step.length, text + step.byte, len(places)))
                    places.append(Watched(step.row, after))
        return None

    def _shortest(self, row: Configuration) -> _Shortest:
        """The shortest way to the end, and what begins and ends on it before its first symbol: no list goes on behind one."""
        key = row[: HEAD + row[1]].tobytes()
        if key not in self._ways:
            pieces = self._automaton.shortest_completion(row)
            end = next((number for number, piece in enumerate(pieces) if isinstance(piece, str)), len(pieces))
            data = bytes(piece for piece in pieces[:end] if isinstance(piece, int))
            _make_room(self._ways)
            self._ways[key] = _Shortest(pieces, data, self._automaton.after_with_events(row, data)[1])
        return self._ways[key]

    def _steps(self, row: Configuration) -> list[_Step]:
        """All bytes that may come next."""
        key = row[: HEAD + row[1]].tobytes()
        if key not in self._next:
            steps = []
            for byte in np.flatnonzero(self._automaton.next_bytes(row)).tolist():
                after, events = self._automaton.after_with_events(row, data := bytes((byte,)))
                assert after is not None
                steps.append(_Step(data, after, events, 1 + self._automaton.distance(after)))
            _make_room(self._next)
            self._next[key] = steps
        return self._next[key]
