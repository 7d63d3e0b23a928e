"""Terms: patterns in a canonical form that can be derived by a class of units, each term once and known by a number.

Classes are what a pattern's sets tell apart. The derivative of a term by a class is the term of what may follow a unit of
that class (Brzozowski, 1964): intersection and complement cost no more than alternatives do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from routine_grammar.errors import GrammarTooLargeError
from routine_grammar.patterns.charset import UNITS, CharSet
from routine_grammar.patterns.pattern import Both, Boundary, Chars, Concat, Edge, Either, Multiple, Not, Pattern, Times

NOTHING, EMPTY, ALL, START, END = range(5)
MAX_TERMS = 400_000
MAX_STEPS = 500_000  # some seconds; a hundred long words need 160,000, a text of at most 300 characters beside another 430,000
AT_START = -1
_UNBOUNDED = -1
_DIGITS = tuple(CharSet.chars(digit) for digit in "0123456789")
_POINT = CharSet.chars(".")


def sets_of(patterns: Iterable[Pattern]) -> dict[CharSet, None]:
    """All sets of patterns, each once."""
    found: dict[CharSet, None] = {}
    for part in (part for pattern in patterns for part in _parts(pattern)):
        match part:
            case Chars(chars) | Boundary(chars):
                found[chars] = None
            case Multiple():
                found |= dict.fromkeys((*_DIGITS, _POINT))
    return found


def has_complement(pattern: Pattern) -> bool:
    """Whether a complement is somewhere in a pattern."""
    return any(isinstance(part, Not) for part in _parts(pattern))


def has_edges(pattern: Pattern) -> bool:
    """Whether an edge of the text, or of a word, is somewhere in a pattern."""
    return any(isinstance(part, Edge | Boundary) for part in _parts(pattern))


def _parts(pattern: Pattern) -> Iterator[Pattern]:
    """A pattern and all that it is made of."""
    todo = [pattern]
    while todo:
        part = todo.pop()
        yield part
        match part:
            case Concat(items) | Either(items) | Both(items):
                todo += items
            case Times(item, _, _) | Not(item):
                todo.append(item)


class Classes:
    """The units that some sets tell apart, as classes numbered from 0; each set is a bit mask of classes.

    `lows` [n] are the beginnings of intervals that cover all units, `of` [n] the class of each.
    """

    def __init__(self, sets: Iterable[CharSet]) -> None:
        sets = list(sets)
        cuts = {0, *(bound for chars in sets for low, high in chars.ranges for bound in (low, high + 1))} - {UNITS}
        self.lows: npt.NDArray[np.int64] = np.array(sorted(cuts), np.int64)
        members = np.zeros((max(len(sets), 1), len(self.lows)), np.bool_)
        for row, chars in zip(members, sets, strict=False):
            bounds = np.array(chars.ranges, np.int64).reshape(-1, 2)
            row[:] = _covered(self.lows, bounds)
        signatures, self.of = _distinct_columns(members)
        self.count = signatures.shape[1]
        self.masks = {
            chars: sum(1 << int(number) for number in np.flatnonzero(signatures[place])) for place, chars in enumerate(sets)
        }


def _covered(lows: npt.NDArray[np.int64], bounds: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which of some interval beginnings lie inside sorted ranges."""
    if not len(bounds):
        return np.zeros(len(lows), np.bool_)
    place = np.searchsorted(bounds[:, 0], lows, side="right") - 1
    found: npt.NDArray[np.bool_] = (place >= 0) & (lows <= bounds[np.maximum(place, 0), 1])
    return found


def _distinct_columns(members: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    packed = np.packbits(members, axis=0)
    numbers: dict[bytes, int] = {}
    of = np.array([numbers.setdefault(packed[:, place].tobytes(), len(numbers)) for place in range(members.shape[1])], np.int64)
    firsts = [int(np.argmax(of == number)) for number in range(len(numbers))]
    return members[:, firsts], of


class Place(NamedTuple):
    """A place between units: whether it is at an edge of the text, and the contexts of the units on its sides."""

    is_start: bool = False
    is_end: bool = False
    before: int = 0
    after: int = 0


BEHIND = Place(is_end=True)


class Terms:
    """The terms of some patterns over their classes. `MAX_TERMS` bounds how many are made."""

    def __init__(self, classes: Classes) -> None:
        self._classes = classes
        self._full = (1 << classes.count) - 1
        self._what: list[tuple[Any, ...]] = [("o",), ("e",), ("n", NOTHING), ("^",), ("$",)]
        self._nullable = [False, True, True, False, False]
        self._edged = [False, False, False, True, True]
        self._bounded = [False] * len(self._what)
        self._words: list[int] = []  # the sets of characters that boundaries stand between, each a bit of a context
        self._numbers: dict[tuple[Any, ...], int] = {what: number for number, what in enumerate(self._what)}
        self._derived: dict[tuple[int, int, int], int] = {}
        self._steps = 0  # parts of terms whose derivatives were made
        self._fronts: dict[int, frozenset[int]] = {}
        self._cells: dict[frozenset[int], tuple[tuple[int, ...], ...]] = {}

    # Making terms

    def of(self, pattern: Pattern) -> int:
        """The term of a pattern."""
        match pattern:
            case Chars(chars):
                return self._chars(self._classes.masks[chars])
            case Concat(items):
                term = EMPTY
                for item in reversed(items):
                    term = self.concat(self.of(item), term)
                return term
            case Either(items):
                return self.either([self.of(item) for item in items])
            case Both(items):
                return self.both([self.of(item) for item in items])
            case Times(item, low, high):
                return self._times(self.of(item), low, _UNBOUNDED if high is None else high)
            case Not(item):
                return self._not(self.of(item))
            case Multiple(divisor):
                return self._multiple(divisor, 0)
            case Edge.START:
                return START
            case Edge.END:
                return END
            case Boundary(words, negative, of_empty):
                return self._boundary(self._classes.masks[words], negative, of_empty)

    def _boundary(self, mask: int, negative: bool, of_empty: bool) -> int:
        if mask not in self._words:
            self._words.append(mask)
        return self._made(("b", self._words.index(mask), negative, of_empty), False, True)

    def context(self, number: int) -> int:
        """In which of the sets that boundaries stand between a unit of a class is, as bits."""
        return sum((mask >> number & 1) << place for place, mask in enumerate(self._words))

    def is_bounded(self, term: int) -> bool:
        """Whether a term depends on the unit before it."""
        return self._bounded[term]

    def _made(self, what: tuple[Any, ...], nullable: bool, edged: bool) -> int:
        number = self._numbers.get(what)
        if number is None:
            number = self._numbers[what] = len(self._what)
            if number >= MAX_TERMS:
                raise GrammarTooLargeError(f"a pattern needs more than {MAX_TERMS} terms, the bound, to become an automaton")
            self._what.append(what)
            self._nullable.append(nullable)
            self._edged.append(edged)
            parts = {"s": what[1:], "o": what[1:], "a": what[1:], "n": what[1:], "t": what[1:2]}.get(what[0], ())
            self._bounded.append(what[0] == "b" or any(self._bounded[part] for part in parts))
        return number

    def _chars(self, mask: int) -> int:
        return self._made(("c", mask), False, False) if mask else NOTHING

    def concat(self, head: int, tail: int) -> int:
        """One term and then another."""
        if NOTHING in (head, tail):
            return NOTHING
        if head == EMPTY:
            return tail
        if tail == EMPTY or head == tail == ALL:
            return head
        parts = []
        while self._what[head][0] == "s":
            parts.append(self._what[head][1])
            head = self._what[head][2]
        parts.append(head)
        for part in reversed(parts):
            nullable = self._nullable[part] and self._nullable[tail]
            tail = self._made(("s", part, tail), nullable, self._edged[part] or self._edged[tail])
        return tail

    def either(self, terms: Iterable[int]) -> int:
        """Any of some terms; what begins with the same characters begins with them once."""
        flat, mask, tails = set[int](), 0, dict[int, list[int]]()
        todo = list(terms)
        while todo:
            term = todo.pop()
            what = self._what[term]
            if what[0] == "o":
                todo += what[1:]
            elif what[0] == "c":
                mask |= what[1]
            elif what[0] == "s" and self._what[what[1]][0] == "c":
                tails.setdefault(what[1], []).append(what[2])
            else:
                flat.add(term)
        if ALL in flat:
            return ALL
        for head, rests in tails.items():
            flat.add(self.concat(head, rests[0] if len(rests) == 1 else self.either(rests)))
        if mask:
            flat.add(self._chars(mask))
        return self._group("o", flat, NOTHING, any)

    def both(self, terms: Iterable[int]) -> int:
        """What all of some terms match."""
        flat, todo = set[int](), list(terms)
        while todo:
            term = todo.pop()
            if self._what[term][0] == "a":
                todo += self._what[term][1:]
            else:
                flat.add(term)
        flat.discard(ALL)
        if NOTHING in flat or (EMPTY in flat and not any(self._edged[term] for term in flat) and not self._all_nullable(flat)):
            return NOTHING
        return self._group("a", flat, ALL, all)

    def _all_nullable(self, terms: Iterable[int]) -> bool:
        return all(self._nullable[term] for term in terms)

    def _group(self, kind: str, terms: set[int], of_none: int, nullable: Any) -> int:
        if len(terms) < 2:
            return next(iter(terms), of_none)
        edged = any(self._edged[term] for term in terms)
        return self._made((kind, *sorted(terms)), nullable(self._nullable[term] for term in terms), edged)

    def _not(self, term: int) -> int:
        what = self._what[term]
        if what[0] == "n":
            return int(what[1])
        return self._made(("n", term), not self._nullable[term], self._edged[term])

    def _multiple(self, divisor: int, rest: int) -> int:
        """Digits that make a multiple of what has left a rest so far."""
        return self._made(("m", divisor, rest), rest == 0, False)

    def _times(self, term: int, low: int, high: int) -> int:
        if high == 0 or term == EMPTY:
            return EMPTY
        if term == NOTHING:
            return NOTHING if low else EMPTY
        if (low, high) == (1, 1):
            return term
        if self._nullable[term]:
            low = 0
            if term == ALL:
                return ALL
        what = self._what[term]
        if (low, high) == (0, _UNBOUNDED):
            if what == ("c", self._full):
                return ALL
            if what[0] == "t" and what[2] <= 1 and what[3] == _UNBOUNDED:
                term = what[1]
        return self._made(("t", term, low, high), low == 0, self._edged[term])

    # Reading terms

    def nullable(self, term: int, at: Place = BEHIND) -> bool:
        """Whether a term matches the empty text at a place."""
        if not self._edged[term]:
            return self._nullable[term]
        what = self._what[term]
        match what[0]:
            case "^" | "$":
                return at.is_start if what[0] == "^" else at.is_end
            case "b":
                is_boundary = bool((at.before ^ at.after) >> what[1] & 1)
                return bool(what[3]) if at.is_start and at.is_end else is_boundary is not what[2]
            case "s":
                return self.nullable(what[1], at) and self.nullable(what[2], at)
            case "o":
                return any(self.nullable(part, at) for part in what[1:])
            case "a":
                return all(self.nullable(part, at) for part in what[1:])
            case "n":
                return not self.nullable(what[1], at)
        return bool(what[2] == 0 or self.nullable(what[1], at))

    def derivative(self, term: int, number: int, at_start: bool = False, before: int = 0) -> int:
        """The term of what may follow a unit of a class; behind the start no START matches any more.

        `before` is the context of the unit before it.
        """
        at = Place(at_start, False, before, self.context(number) if self._bounded[term] else 0)
        return self._stripped(self._derive(term, number, at), {}) if at_start else self._derive(term, number, at)

    def _derive(self, term: int, number: int, at: Place) -> int:
        key = (term, number, at.before if self._bounded[term] else 0)
        if not at.is_start and (known := self._derived.get(key)) is not None:
            return known
        what = self._what[term]
        match what[0]:
            case "c":
                found = EMPTY if what[1] >> number & 1 else NOTHING
            case "s":
                found = self._derive_row(term, number, at)
            case "o":
                found = self.either([self._derive(part, number, at) for part in what[1:]])
            case "a":
                found = self.both([self._derive(part, number, at) for part in what[1:]])
            case "n":
                found = self._not(self._derive(what[1], number, at))
            case "t":
                _, item, low, high = what
                if self._edged[item] and self.nullable(item, at):
                    low = 0
                rest = self._times(item, max(low - 1, 0), high if high == _UNBOUNDED else high - 1)
                found = self.concat(self._derive(item, number, at), rest)
            case "m":
                found = self._derive_multiple(what[1], what[2], number)
            case _:
                found = NOTHING
        if not at.is_start:
            self._derived[key] = found
            self._steps += len(what)
            if self._steps > MAX_STEPS:
                raise GrammarTooLargeError(f"a pattern needs more than {MAX_STEPS} steps, the bound, to become an automaton")
        return found

    def _derive_multiple(self, divisor: int, rest: int, number: int) -> int:
        for digit, chars in enumerate(_DIGITS):
            if self._classes.masks[chars] >> number & 1:
                return self._multiple(divisor, (10 * rest + digit) % divisor)
        return self._multiple(divisor, rest) if self._classes.masks[_POINT] >> number & 1 else NOTHING

    def _derive_row(self, term: int, number: int, at: Place) -> int:
        """The derivative of terms in a row, which may be long and each of them nullable."""
        ways = []
        while self._what[term][0] == "s":
            _, head, tail = self._what[term]
            ways.append(self.concat(self._derive(head, number, at), tail))
            if not self.nullable(head, at):
                return self.either(ways)
            term = tail
        ways.append(self._derive(term, number, at))
        return self.either(ways)

    def _stripped(self, term: int, known: dict[int, int]) -> int:
        """A term behind the start of the text."""
        if not self._edged[term]:
            return term
        if term not in known:
            what = self._what[term]
            match what[0]:
                case "^":
                    known[term] = NOTHING
                case "s":
                    known[term] = self.concat(self._stripped(what[1], known), self._stripped(what[2], known))
                case "o":
                    known[term] = self.either([self._stripped(part, known) for part in what[1:]])
                case "a":
                    known[term] = self.both([self._stripped(part, known) for part in what[1:]])
                case "n":
                    known[term] = self._not(self._stripped(what[1], known))
                case "t":
                    known[term] = self._times(self._stripped(what[1], known), what[2], what[3])
                case _:
                    known[term] = term
        return known[term]

    def cells(self, term: int) -> tuple[tuple[int, ...], ...]:
        """Groups of classes by which a term has the same derivative, as far as its first sets tell."""
        fronts = self._front(term)
        if self._bounded[term]:  # what comes next is what stands before the term after it
            fronts |= frozenset(self._words)
        if fronts not in self._cells:
            groups: dict[tuple[int, ...], list[int]] = {}
            for number in range(self._classes.count):
                groups.setdefault(tuple(mask >> number & 1 for mask in fronts), []).append(number)
            self._cells[fronts] = tuple(map(tuple, groups.values()))
        return self._cells[fronts]

    def _front(self, term: int) -> frozenset[int]:
        """The sets that may be looked at first."""
        if term not in self._fronts:
            what = self._what[term]
            match what[0]:
                case "c":
                    found = frozenset((what[1],))
                case "s":
                    found = self._front_of_row(term)
                case "o" | "a":
                    found = frozenset[int]().union(*map(self._front, what[1:]))
                case "n" | "t":
                    found = self._front(what[1])
                case "m":
                    found = frozenset(self._classes.masks[chars] for chars in (*_DIGITS, _POINT))
                case _:
                    found = frozenset()
            self._fronts[term] = found
        return self._fronts[term]

    def _front_of_row(self, term: int) -> frozenset[int]:
        found = frozenset[int]()
        while self._what[term][0] == "s":
            _, head, tail = self._what[term]
            found |= self._front(head)
            if not self._nullable[head] and not self._edged[head]:
                return found
            term = tail
        return found | self._front(term)


Cells = tuple[tuple[int, ...], ...]


def reached(terms: Terms, start: int, most: int) -> tuple[list[tuple[int, int]], list[Sequence[int]], list[Cells]]:
    """All terms that a term becomes, itself first, each with the context before it, as far as that matters.

    For each the places of its derivatives, and the classes of each of these. The context at the start is AT_START.
    """
    order = [(start, AT_START)]
    places = {order[0]: 0}
    rows: list[Sequence[int]] = []
    cells: list[Cells] = []
    for place, (term, before) in enumerate(order):
        cells.append(terms.cells(term))
        row = []
        for cell in cells[-1]:
            derived = terms.derivative(term, cell[0], place == 0, max(before, 0))
            after = (derived, terms.context(cell[0]) if terms.is_bounded(derived) else 0)
            if after not in places:
                if len(order) >= most:
                    raise GrammarTooLargeError(f"a pattern needs more than {most} states, the bound")
                places[after] = len(order)
                order.append(after)
            row.append(places[after])
        rows.append(row)
    return order, rows, cells
