"""Leaf patterns to minimal automata over characters, for peers whose grammars have no regular expressions.

In: a pattern in the subset that leaves are written in. Out: its states with the characters that lead from one to another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

LAST_CHARACTER = 0x10FFFF
Ranges = tuple[tuple[int, int], ...]  # code points, both ends included, sorted and apart
Parts = frozenset[int]

_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "0": "\0"}


@dataclass(frozen=True, slots=True)
class CharacterAutomaton:
    """`edges[state]` gives the characters that lead to each next state; state 0 is the start."""

    edges: tuple[Mapping[int, Ranges], ...]
    accepting: frozenset[int]

    def accepts(self, text: str) -> bool:
        """Whether the whole text is accepted."""
        state: int | None = 0
        for char in text:
            ways = self.edges[state] if state is not None else {}
            state = next((to for to, ranges in ways.items() if _within(ord(char), ranges)), None)
        return state in self.accepting


def pattern_to_automaton(pattern: str) -> CharacterAutomaton:
    """The smallest deterministic automaton of a pattern; raises `ValueError` for what is not in the subset."""
    parser = _Parser(pattern)
    end = parser.alternatives(parser.nfa.add_state())
    if parser.place < len(pattern):
        raise ValueError(f"pattern {pattern!r:.80}: unexpected {pattern[parser.place]!r} at {parser.place}")
    return _minimal(*_determined(parser.nfa, end))


@dataclass(slots=True)
class _Nfa:
    """`edges[state]`: characters and where they lead; `empty[state]`: where nothing leads."""

    edges: list[list[tuple[Ranges, int]]] = field(default_factory=list)
    empty: list[list[int]] = field(default_factory=list)

    def add_state(self) -> int:
        self.edges.append([])
        self.empty.append([])
        return len(self.edges) - 1

    def closed(self, states: Iterable[int]) -> Parts:
        reached, todo = set(states), list(states)
        while todo:
            new = [to for to in self.empty[todo.pop()] if to not in reached]
            reached.update(new)
            todo += new
        return frozenset(reached)


@dataclass(slots=True)
class _Parser:
    """Reads a pattern into an NFA; a repeated item is read again for every copy of it."""

    text: str
    place: int = 0
    nfa: _Nfa = field(default_factory=_Nfa)

    def alternatives(self, start: int) -> int:
        end = self.nfa.add_state()
        self.nfa.empty[self._sequence(start)].append(end)
        while self._take("|"):
            self.nfa.empty[self._sequence(start)].append(end)
        return end

    def _sequence(self, start: int) -> int:
        while self.place < len(self.text) and self.text[self.place] not in "|)":
            start = self._repeated(start)
        return start

    def _repeated(self, start: int) -> int:
        first = self.nfa.add_state()  # what leads back to it must not lead back before it
        self.nfa.empty[start].append(first)
        begin = self.place
        ends = [first, self._item(first)]
        low, high = self._counts()
        if (low, high) == (1, 1):
            return ends[-1]
        after = self.place
        for _ in range(max(low, high or 1) - 1):
            self.place = begin
            ends.append(self._item(ends[-1]))
        self.place = after
        if high is None:
            self.nfa.empty[ends[-1]].append(ends[-2])
        last = self.nfa.add_state()
        for end in ends[low:]:
            self.nfa.empty[end].append(last)
        return last

    def _item(self, start: int) -> int:
        if self._take("(?:"):
            end = self.alternatives(start)
            self._expect(")")
            return end
        ranges = self._set() if self._take("[") else _single(self._character())
        end = self.nfa.add_state()
        self.nfa.edges[start].append((ranges, end))
        return end

    def _counts(self) -> tuple[int, int | None]:
        for sign, counts in {"*": (0, None), "+": (1, None), "?": (0, 1)}.items():
            if self._take(sign):
                return counts
        if not self._take("{"):
            return 1, 1
        inside = self.text[self.place : self.text.index("}", self.place)]
        self.place += len(inside) + 1
        low, comma, high = inside.partition(",")
        return int(low), (int(high) if high else None) if comma else int(low)

    def _set(self) -> Ranges:
        negated = self._take("^")
        ranges = []
        while not self._take("]"):
            low = self._character(inside=True)
            dash = self.text.startswith("-", self.place) and not self.text.startswith("-]", self.place)
            self.place += dash
            ranges.append((low, self._character(inside=True) if dash else low))
        joined = _joined(ranges)
        return _others(joined) if negated else joined

    def _character(self, *, inside: bool = False) -> int:
        char = self.text[self.place : self.place + 1]
        self.place += 1
        if char != "\\":
            if not char or (not inside and char in ".^$*+?{}[]()|"):
                raise ValueError(f"pattern {self.text!r:.80}: {char!r} at {self.place - 1} is not in the subset")
            return ord(char)
        char = self.text[self.place]
        self.place += 1
        if char == "x":
            self.place += 2
            return int(self.text[self.place - 2 : self.place], 16)
        if char.isalnum() and char not in _ESCAPED:
            raise ValueError(f"pattern {self.text!r:.80}: \\{char} at {self.place - 2} is not in the subset")
        return ord(_ESCAPED.get(char, char))

    def _take(self, text: str) -> bool:
        found = self.text.startswith(text, self.place)
        self.place += len(text) * found
        return found

    def _expect(self, text: str) -> None:
        if not self._take(text):
            raise ValueError(f"pattern {self.text!r:.80}: expected {text!r} at {self.place}")


def _determined(nfa: _Nfa, end: int) -> tuple[list[dict[tuple[int, int], int]], set[int]]:
    """Subset construction over the smallest ranges that no edge tells apart."""
    bounds = [bound for edges in nfa.edges for ranges, _ in edges for bound in ranges]
    cuts = sorted({0, LAST_CHARACTER + 1} | {low for low, _ in bounds} | {high + 1 for _, high in bounds})
    pieces = [(low, high - 1) for low, high in pairwise(cuts)]
    numbers: dict[Parts, int] = {nfa.closed([0]): 0}
    todo = list(numbers)
    edges: list[dict[tuple[int, int], int]] = []
    for states in todo:
        ways = [(ranges, to) for state in states for ranges, to in nfa.edges[state]]
        found = {}
        for piece in pieces:
            reached = nfa.closed([to for ranges, to in ways if _within(piece[0], ranges)])
            if reached:
                if reached not in numbers:
                    numbers[reached] = len(numbers)
                    todo.append(reached)
                found[piece] = numbers[reached]
        edges.append(found)
    return edges, {number for states, number in numbers.items() if end in states}


def _minimal(edges: list[dict[tuple[int, int], int]], accepting: set[int]) -> CharacterAutomaton:
    """Join the states that nothing tells apart (Moore's refinement)."""
    group = [int(state in accepting) for state in range(len(edges))]
    while True:
        seen: dict[object, int] = {}
        looks = [(group[s], tuple((piece, group[to]) for piece, to in found.items())) for s, found in enumerate(edges)]
        finer = [seen.setdefault(look, len(seen)) for look in looks]
        if len(seen) == len(set(group)):
            break
        group = finer
    group = finer
    merged: list[dict[int, Ranges]] = [{} for _ in seen]
    for state, found in enumerate(edges):
        ranges: dict[int, list[tuple[int, int]]] = {}
        for piece, to in found.items():
            ranges.setdefault(group[to], []).append(piece)
        merged[group[state]] = {to: _joined(pieces) for to, pieces in ranges.items()}
    return CharacterAutomaton(tuple(merged), frozenset(group[state] for state in accepting))


def _single(char: int) -> Ranges:
    return ((char, char),)


def _joined(ranges: Iterable[tuple[int, int]]) -> Ranges:
    joined: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return tuple(joined)


def _others(ranges: Ranges) -> Ranges:
    bounds = [-1, *(bound for r in ranges for bound in r), LAST_CHARACTER + 1]
    gaps = zip(bounds[::2], bounds[1::2], strict=True)
    return tuple((low + 1, high - 1) for low, high in gaps if low + 1 <= high - 1)


def _within(char: int, ranges: Ranges) -> bool:
    return any(low <= char <= high for low, high in ranges)
