"""Points: patterns as nondeterministic automata. What holds at once, or does not hold, is followed at once.

A point is a place in a pattern. It reads a unit of a set and leads to another point, or leads to others at once, some of them
only between certain units. A whole pattern is several items, each with an end of its own, which is reached by a text or is
not: so intersection and complement need no automaton of their own, but where something stands before or behind them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from routine_grammar.effort import A_PATTERN, A_PLACE, CELLS_A_UNIT, spend
from routine_grammar.errors import GrammarTooLargeError
from routine_grammar.patterns.classes import DIGITS, POINT, Classes, parts_of
from routine_grammar.patterns.determining import Flat, determined
from routine_grammar.patterns.minimizing import DEAD, Determined
from routine_grammar.patterns.pattern import Both, Boundary, Chars, Concat, Edge, Either, Multiple, Not, Pattern, Times

MAX_POINTS = 200_000
MAX_STATES = 20_000
MAX_WORK = 20_000_000  # points and units looked at: some tenths of a second
MAX_CONTEXTS = 60
_AT_EDGE = 0  # the context of no unit: before the first, and behind the last

Matrix = npt.NDArray[np.bool_]


class _Item(NamedTuple):
    """A part of a whole: whether it has to match, or may not, its first point and its end."""

    holds: bool
    first: int
    end: int


class Contexts:
    """What boundaries tell apart of units: `of` [classes] is the context of each class, from 1 on, and `count` how many."""

    def __init__(self, classes: Classes, pattern: Pattern) -> None:
        words = dict.fromkeys(classes.masks[part.words] for part in parts_of(pattern) if isinstance(part, Boundary))
        self._words = {mask: place for place, mask in enumerate(words)}
        places = self._words.items()
        signatures = [sum((mask >> number & 1) << place for mask, place in places) for number in range(classes.count)]
        self._told = [0, *dict.fromkeys(signatures)]
        self.count = len(self._told)
        if self.count > MAX_CONTEXTS:
            raise GrammarTooLargeError(f"a pattern has boundaries of more than {MAX_CONTEXTS} kinds, the bound")
        numbers = {signature: 1 + number for number, signature in enumerate(self._told[1:])}
        self.of = np.array([numbers[signature] for signature in signatures], np.int32)

    def between(self, mask: int, negative: bool, of_empty: bool) -> Matrix:
        """Between which contexts a boundary is: [before, behind]."""
        inside = np.array([told >> self._words[mask] & 1 for told in self._told], np.bool_)
        found: Matrix = (inside[:, None] != inside[None, :]) != negative
        found[_AT_EDGE, _AT_EDGE] = of_empty
        return found


class Points:
    """The points of one pattern, or of a part of it that is determined before the rest."""

    def __init__(self, classes: Classes, contexts: Contexts) -> None:
        self._classes = classes
        self._contexts = contexts
        self._sets: list[int] = []  # of each point the number of its set; -1: none
        self._targets: list[int] = []
        self._item: list[int] = []
        self._known: dict[tuple[object, ...], int] = {}  # points by what they are: what goes on alike is there once
        self._ways: list[tuple[int, int, int]] = []  # from, to, condition
        self._loops: list[tuple[int, int, int]] = []  # a point that reads units of a mask over and over, and what is behind it
        self._masks: dict[int, int] = {}
        self._read = 0  # the classes that the item at hand reads
        always = np.ones((contexts.count, contexts.count), np.bool_)
        self._conditions: dict[bytes, int] = {always.tobytes(): 0}
        self._matrices = [always]
        self._items: list[_Item] = []

    def determine(self, pattern: Pattern, *, everywhere: bool) -> Determined:
        """The deterministic automaton of a pattern, of which all texts are its own; `everywhere`: of a part of another pattern.

        Raises `GrammarTooLargeError` past the bounds.
        """
        allowed = (1 << self._classes.count) - 1
        for holds, part in _parts_at_once(True, pattern, at_start=not everywhere):
            match part:
                case Times(Chars(chars), 0, None) if holds:
                    allowed &= self._classes.masks[chars]
                case _:
                    self._add(holds, part)
                    allowed &= self._read if holds else -1  # what an item that has to match never reads is in no text
        found = determined(self._flat(allowed), everywhere=everywhere, states=MAX_STATES, work=MAX_WORK)
        spend(A_PATTERN + found.table.size // CELLS_A_UNIT)
        return found

    def _add(self, holds: bool, part: Pattern) -> None:
        number = len(self._items)
        self._read = 0
        end = self._point(number)
        self._items.append(_Item(holds, self._place(part, end), end))

    def _flat(self, allowed: int) -> Flat:
        """All of it as arrays."""
        count = len(self._sets)
        ways = np.array(self._ways, np.int32).reshape(-1, 3)
        ways = ways[np.argsort(ways[:, 0], kind="stable")]
        ends = np.full(count, -1, np.int32)
        ends[[item.end for item in self._items]] = np.arange(len(self._items))
        members = self._classes.members([*self._masks, allowed])
        places, inside = np.nonzero(members)
        universal = np.zeros(count, np.uint8)
        universal[list(self._endless(allowed))] = 1
        return Flat(
            sets=np.array(self._sets, np.int32),
            targets=np.array(self._targets, np.int32),
            items=np.array(self._item, np.int32),
            ends=ends,
            universal=universal,
            begins=np.searchsorted(ways[:, 0], np.arange(count + 1)).astype(np.int32),
            to=np.ascontiguousarray(ways[:, 1]),
            conditions=np.ascontiguousarray(ways[:, 2]),
            matrices=np.array(self._matrices).astype(np.uint8),
            members=members,
            rows=np.searchsorted(places, np.arange(len(members) + 1)).astype(np.int32),
            classes=inside.astype(np.int32),
            contexts=self._contexts.of,
            holds=np.array([item.holds for item in self._items], np.uint8),
            firsts=np.array(sorted(item.first for item in self._items), np.int32),
        )

    def _endless(self, allowed: int) -> Iterator[int]:
        """Points from which an item's end is reached by all texts of allowed units."""
        loops = [(point, behind) for point, mask, behind in self._loops if allowed & ~mask == 0]
        if not loops:
            return
        before: dict[int, list[int]] = {}
        for source, to, condition in self._ways:
            if not condition:
                before.setdefault(to, []).append(source)
        todo = [item.end for item in self._items]
        ending = set(todo)
        while todo:
            further = set(before.get(todo.pop(), ())) - ending
            ending |= further
            todo += further
        yield from (point for point, behind in loops if behind in ending)

    # Making points

    def _point(self, item: int = -1, chars: int = -1, target: int = -1) -> int:
        point = len(self._sets)
        if point >= MAX_POINTS:
            raise GrammarTooLargeError(f"a pattern needs more than {MAX_POINTS} points, the bound")
        self._sets.append(chars)
        self._targets.append(target)
        self._item.append(len(self._items) if item < 0 else item)
        return point

    def _reading(self, mask: int, target: int) -> int:
        """A point that reads a unit of a mask."""
        key = (len(self._items), mask, target)
        self._read |= mask
        if key not in self._known:
            self._known[key] = self._point(chars=self._masks.setdefault(mask, len(self._masks)), target=target)
        return self._known[key]

    def _leading(self, *targets: int, condition: int = 0) -> int:
        """A point that leads to others at once."""
        key = (len(self._items), targets, condition)
        if key not in self._known:
            point = self._known[key] = self._point()
            self._ways += [(point, target, condition) for target in targets]
        return self._known[key]

    def _condition(self, matrix: Matrix) -> int:
        """The number of a condition: [before, behind], whether it holds between units of two contexts."""
        number = self._conditions.setdefault(matrix.tobytes(), len(self._matrices))
        if number == len(self._matrices):
            self._matrices.append(matrix)
        return number

    def _place(self, pattern: Pattern, then: int) -> int:
        """The first point of a pattern that goes on to a point."""
        spend(A_PLACE)
        match pattern:
            case Chars(chars):
                return self._reading(self._classes.masks[chars], then)
            case Concat(items):
                for item in reversed(items):
                    then = self._place(item, then)
                return then
            case Either(items):
                return self._leading(*(self._place(item, then) for item in items))
            case Times(item, low, high):
                return self._place_times(item, low, high, then)
            case Multiple(divisor):
                return self._place_multiple(divisor, then)
            case Both() | Not():
                return self._place_determined(pattern, then)
            case Boundary(words, negative, of_empty):
                matrix = self._contexts.between(self._classes.masks[words], negative, of_empty)
            case Edge():
                matrix = np.zeros_like(self._matrices[0])
                matrix[(_AT_EDGE, slice(None)) if pattern is Edge.START else (slice(None), _AT_EDGE)] = True
        return self._leading(then, condition=self._condition(matrix))

    def _place_times(self, item: Pattern, low: int, high: int | None, then: int) -> int:
        entry = then
        if high is None:
            entry = self._place_loop(item, then)
        else:
            for _ in range(high - low):
                entry = self._leading(self._place(item, entry), then)
        for _ in range(low):
            entry = self._place(item, entry)
        return entry

    def _place_loop(self, item: Pattern, then: int) -> int:
        key = (len(self._items), "again", item, then)
        if key not in self._known:
            entry = self._known[key] = self._point()
            self._ways += [(entry, self._place(item, entry), 0), (entry, then, 0)]
            if isinstance(item, Chars):
                self._loops.append((entry, self._classes.masks[item.chars], then))
        return self._known[key]

    def _place_multiple(self, divisor: int, then: int) -> int:
        digits, point = [self._classes.masks[chars] for chars in DIGITS], self._classes.masks[POINT]
        if 12 * divisor > MAX_POINTS:
            raise GrammarTooLargeError(f"multiples of {divisor} need more than {MAX_POINTS} points, the bound")
        rests = [self._point() for _ in range(divisor)]
        for rest, entry in enumerate(rests):
            self._ways += [(entry, self._reading(point, entry), 0)]
            for digit, mask in enumerate(digits):
                self._ways.append((entry, self._reading(mask, rests[(10 * rest + digit) % divisor]), 0))
        self._ways.append((rests[0], then, 0))
        return rests[0]

    def _place_determined(self, pattern: Pattern, then: int) -> int:
        """Points for the states of a part with items that hold at once."""
        part = Points(self._classes, self._contexts).determine(pattern, everywhere=True)
        points = [self._point() for _ in part.table]
        for point, row, ends in zip(points, part.table.tolist(), part.ends.tolist(), strict=True):
            masks: dict[int, int] = {}
            for number, target in enumerate(row):
                if target != DEAD:
                    masks[target] = masks.get(target, 0) | 1 << number
            self._ways += [(point, self._reading(mask, points[target]), 0) for target, mask in masks.items()]
            if ends:
                matrix = np.zeros_like(self._matrices[0])
                matrix[:, [behind for behind in range(self._contexts.count) if ends >> behind & 1]] = True
                self._ways.append((point, then, self._condition(matrix)))
        starts = part.starts.tolist()
        if len(set(starts)) == 1:
            return points[int(part.starts[0])]
        first = self._point()
        for before, start in enumerate(starts):
            matrix = np.zeros_like(self._matrices[0])
            matrix[before] = True
            self._ways.append((first, points[start], self._condition(matrix)))
        return first


def _parts_at_once(holds: bool, pattern: Pattern, *, at_start: bool) -> Iterator[tuple[bool, Pattern]]:
    """What has to match a whole text, or may not (False): of intersections and complements one within another."""
    while at_start and isinstance(pattern, Concat):  # a text's start is looked for at its start alone
        match pattern.items:
            case (Edge.START, *rest) | (Times(Chars(), 0, None), Edge.START, *rest):
                pattern = rest[0] if len(rest) == 1 else Concat(tuple(rest))
            case _:
                break
    match pattern:
        case Both(items) if holds:
            for item in items:
                yield from _parts_at_once(True, item, at_start=at_start)
        case Either(items) if not holds and items:
            for item in items:
                yield from _parts_at_once(False, item, at_start=at_start)
        case Not(item):
            yield from _parts_at_once(not holds, item, at_start=at_start)
        case _:
            yield holds, pattern
