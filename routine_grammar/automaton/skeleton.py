"""The skeleton: a deterministic automaton over the points of a grammar that calls leaves and rules and returns from them.

A state is a set of configurations (rests of literals, leaf states, rules to enter, symbols, the end), made by the subset
construction when it is first needed. Where bytes alone decide, leaves and rules are entered and shared; where two readings
need the same byte, their product is built until one is left. So it is exact, and no copy of a leaf is made but in products.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from copy import copy

from routine_grammar.automaton.arrays import Edge, SkeletonArrays
from routine_grammar.automaton.facts import ELSEWHERE, INFINITE, LONGEST, Analysis
from routine_grammar.automaton.leaf import LeafLibrary
from routine_grammar.automaton.nesting import Nestings
from routine_grammar.automaton.points import END, MarksAhead, Points, Read
from routine_grammar.automaton.reading import JUST_END, Ends, Gathering, Reading, size_of
from routine_grammar.automaton.step import DEAD, ELEMENT, LIST, RETURN, SKELETON
from routine_grammar.errors import GrammarError, GrammarTooLargeError, UnsupportedSchemaError
from routine_grammar.grammar.tree import Distinct, Element, Grammar, calls_of

MAX_STATES = 1_000_000
# What may be made and looked at at once to tell how a text may go on. Real schemas need ten states.
MOST_LOOKED_AT = 3_000
MAX_COPIES = 8  # of a rule within each other: real schemas, however they overlap, need one or two
MAX_MARKED = 20_000  # states of a grammar with lists of distinct elements
MAX_EXPLORED = {"states": 2_000, "points": 400_000}
ALL_BYTES = (1 << 256) - 1


class Skeleton:
    """The states of one grammar. `expand` may be called from several threads; everything else only through it."""

    def __init__(self, grammar: Grammar, library: LeafLibrary, symbols: Mapping[str, int]) -> None:
        self._library = library
        self._analysis = Analysis(grammar.rules, library, symbols)
        self._nestings = Nestings(grammar.rules, library, symbols)
        self._points = Points(grammar.rules, self._analysis, library, symbols)
        self._lock = threading.Lock()
        self._explored = Counter[str]()  # of the expansion under way, shared by its trials
        self._numbers: dict[Reading, int] = {}
        self._readings: list[Reading | None] = []
        self._closures: dict[Ends, Reading] = {}
        self._firsts: dict[Ends, int] = {}
        self._extends: dict[str, int] = {}
        self._rules = grammar.rules
        self._bodies: dict[str, int] = {}
        self._rule_starts: dict[str, int] = {}
        self._rule_of_start: dict[int, str] = {}
        self.arrays = SkeletonArrays(library)
        self.root_facts = self._analysis.of(grammar.root)
        if self.root_facts.shortest >= INFINITE:
            raise GrammarError("the grammar allows no text at all")
        if self.root_facts.shortest >= LONGEST:
            raise GrammarTooLargeError(f"the grammar's shortest text has at least {LONGEST} bytes, the bound")
        self._begin()
        self.start = self._state(self._closure((self._points.place(grammar.root, END),)))

    def _begin(self) -> None:
        """Make FINAL, which only ends, and the marks LIST and ELEMENT."""
        self._number(JUST_END)
        self._expand(0)
        for _ in (LIST, ELEMENT):
            self.arrays.set_mark(self._new(None, 0, True))

    @property
    def size(self) -> int:
        """How many states there are by now."""
        return len(self._readings)

    def expand(self, index: int) -> None:
        """Make the edges of a state. Raises `GrammarTooLargeError` past the bound on states."""
        with self._lock:
            self._explored.clear()
            try:
                self._expand(index)
            except RecursionError as error:
                raise GrammarTooLargeError("rules are nested too deep in rules") from error

    def require_clear(self) -> None:
        """Raise as `expand` would where recursive rules can be read in too many ways, as far as some states tell."""
        if self._analysis.recursive:
            self._look_at(MOST_LOOKED_AT)
            if any(count > MAX_COPIES for count in self._points.deepest.values()):
                raise self._too_many_ways("automaton has states without end")

    def require_marks(self) -> None:
        """Raise where lists of distinct elements can't be told from what else may stand there.

        Makes all states from which such a list may come, before the rule at hand ends.
        """
        ahead = MarksAhead(self._rules, self._points)
        looked_at = self._look_at(MAX_MARKED, ahead.of)
        if looked_at >= MAX_MARKED:
            raise GrammarTooLargeError(f"a grammar of lists of distinct elements has more than {MAX_MARKED} states, the bound")

    def _look_at(self, most: int, wanted: Callable[[Reading], bool] = lambda reading: True) -> int:
        """Expand at most so many states that are wanted; returns how many it did."""
        looked_at = index = 0
        while looked_at < most and index < self.size:
            reading = self._readings[index]
            if reading is not None and wanted(reading):
                self.expand(index)
                looked_at += 1
            index += 1
        return looked_at

    # States and their numbers

    def _state(self, reading: Reading) -> int:
        """The state of a reading: RETURN where only the end is left."""
        if reading == JUST_END:
            return RETURN
        return SKELETON + self._number(reading)

    def _number(self, reading: Reading) -> int:
        index = self._numbers.get(reading)
        if index is None:
            self._count("states", 1)
            self._count("points", size_of(reading))
            index = self._numbers[reading] = self._new(reading, self._distance(reading), self._saturated(reading).end)
        return index

    def _count(self, what: str, number: int) -> None:
        """Count what the expansion under way costs; raises `GrammarTooLargeError` past its bound."""
        self._explored[what] += number
        if self._explored[what] > MAX_EXPLORED[what]:
            message = f"automaton needs more than {MAX_EXPLORED[what]} {what}, the bound, to tell how a text may go on"
            raise self._too_many_ways(message)

    def _too_many_ways(self, message: str) -> GrammarTooLargeError:
        recursive = self._analysis.recursive
        rules = f"rule {min(recursive)} calls itself and" if recursive else "its rules"
        told = f"{message}: {rules} can be read in too many ways"
        return GrammarTooLargeError(f"{told}; {ELSEWHERE}" if recursive else told)

    def _new(self, reading: Reading | None, distance: int, ends: bool) -> int:
        self._read(reading)
        self.arrays.add_state(distance, ends)
        return len(self._readings) - 1

    def _read(self, *readings: Reading | None) -> None:
        if len(self._readings) + len(readings) > MAX_STATES:
            raise GrammarTooLargeError(f"automaton has more than {MAX_STATES} states, the bound")
        self._readings += readings

    def _distance(self, reading: Reading) -> int:
        if reading.end:
            return 0
        distance = self._points.distance
        return min(
            min((len(text) + distance(then) for text, then in reading.literals), default=INFINITE),
            min((self._library.distance_of(s) + self._nearest(ends) for s, ends in reading.leaves), default=INFINITE),
            min((self._analysis.rule(r).shortest + self._nearest(ends) for r, ends in reading.rules), default=INFINITE),
            min((1 + self._nearest(ends) for _, ends in reading.symbols), default=INFINITE),
        )

    def _nearest(self, ends: Ends) -> int:
        return min(self._points.distance(point) for point in ends)

    # Sets of points

    def _closure(self, points: Iterable[int]) -> Reading:
        """All that may be read at some points, through what reads nothing and past what may be empty."""
        key = tuple(sorted(set(points)))
        known = self._closures.get(key)
        if known is not None:
            return known
        found, seen, todo = Gathering(), set(key), list(key)
        while todo:
            point = todo.pop()
            if point == END:
                found.end = True
                continue
            for item in self._points.items(point):
                if self._points.distance(item.then) >= INFINITE:
                    continue
                passes = item.read is Read.NOTHING
                if item.read is Read.BYTES:
                    found.literals.add((item.what, item.then))  # type: ignore[arg-type]
                elif item.read is Read.LEAF:
                    found.leaves.setdefault(item.what, set()).add(item.then)  # type: ignore[arg-type]
                    passes = self._library.is_accepting(item.what)  # type: ignore[arg-type]
                elif item.read is Read.RULE:
                    facts = self._analysis.rule(item.what)  # type: ignore[arg-type]
                    if facts.shortest < INFINITE:
                        found.rules.setdefault(item.what, set()).add(item.then)  # type: ignore[arg-type]
                    passes = facts.nullable
                elif item.read is Read.SYMBOL:
                    found.symbols.setdefault(item.what, set()).add(item.then)  # type: ignore[arg-type]
                if passes and item.then not in seen:
                    seen.add(item.then)
                    todo.append(item.then)
        self._count("points", len(seen))
        reading = self._closures[key] = found.reading()
        return reading

    def _first(self, ends: Ends) -> int:
        """The bytes and symbols that may come at some points."""
        if ends not in self._firsts:
            reading = self._closure(ends)
            first = 0
            for text, _ in reading.literals:
                first |= 1 << text[0]
            for state, _ in reading.leaves:
                first |= self._library.first(state)
            for rule, _ in reading.rules:
                first |= self._analysis.rule(rule).first
            for symbol, _ in reading.symbols:
                first |= 1 << 256 + symbol
            self._firsts[ends] = first
        return self._firsts[ends]

    def _saturated(self, reading: Reading) -> Reading:
        """The reading with all that may follow leaves that may end here."""
        if not any(self._library.is_accepting(state) for state, _ in reading.leaves):
            return reading
        found, done = Gathering(), set()
        found.add(reading)
        while todo := [
            (state, key)
            for state, ends in found.leaves.items()
            if self._library.is_accepting(state) and (state, key := tuple(sorted(ends))) not in done
        ]:
            for state, ends in todo:
                done.add((state, ends))
                found.add(self._closure(ends))
        return found.reading()

    # Entering leaves and rules

    def _leaf_is_clear(self, state: int, ends: Ends) -> bool:
        """Whether no byte can both go on in the leaf after a complete word and begin what follows it."""
        return not self._library.extends(state) & self._first(ends)

    def _rule_is_clear(self, rule: str, ends: Ends) -> bool:
        if self._analysis.rule(rule).extends is None:  # brackets may tell what else takes many states
            follows = self._nestings.follows(rule)
            if follows is not None and not follows & self._first(ends):
                return True
        return not self._rule_extends(rule) & self._first(ends)

    def _rule_extends(self, rule: str) -> int:
        facts = self._analysis.rule(rule)
        if facts.extends is not None:
            return facts.extends
        if self._nestings.follows(rule) == 0:
            return 0
        if rule not in self._extends:
            circle = self._analysis.circle(rule)
            self._extends |= self._circle_extends(circle) if circle else {rule: self._explored_extends(rule)}
        return self._extends[rule]

    def _circle_extends(self, circle: Iterable[str]) -> dict[str, int]:
        """`extends` of rules that call each other.

        The first guess is that no word goes on into a longer one. States that are made under a guess tell what may follow,
        which is the next guess, until one holds. It holds for words of any depth then: by induction, as the words of one
        depth are told from what follows them by the `extends` of the depths below.
        """
        guess = {rule: 0 for rule in circle if self._analysis.rule(rule).extends is None}
        while True:
            trial = self._trial(guess)
            found = {rule: trial._explored_extends(rule) | bytes_ for rule, bytes_ in guess.items()}
            self._extends |= {rule: bytes_ for rule, bytes_ in trial._extends.items() if rule not in guess}
            if found == guess:
                return guess
            guess = found

    def _trial(self, guess: Mapping[str, int]) -> Skeleton:
        """A skeleton of the same grammar with states of its own, under a guess of what `extends` some rules."""
        trial = copy(self)
        trial._numbers, trial._readings, trial.arrays = {}, [], SkeletonArrays(self._library)
        trial._rule_starts, trial._rule_of_start = {}, {}
        trial._extends = {**self._extends, **guess}
        trial._bodies = {}
        trial._begin()
        return trial

    def _explored_extends(self, rule: str) -> int:
        """`extends` of a rule, read off its states."""
        extends, todo, seen = 0, [self._body(rule)], set[int]()
        while todo:
            state = todo.pop()
            if state < SKELETON or state in seen:
                continue
            seen.add(state)
            self._expand(state - SKELETON)
            node = self.arrays.state(state - SKELETON)
            if node.ends:
                for edge in node.edges:
                    extends |= 1 << edge.byte
            for entered, after in node.entered():
                if after < 0 or self.arrays.ends(after - SKELETON):
                    extends |= self._state_extends(entered)
                todo.append(after)
            todo += [edge.target for edge in node.edges if not edge.enters]
            for symbol, target in node.symbols:
                extends |= 1 << 256 + symbol if node.ends else 0
                todo.append(target)
        return extends

    def _state_extends(self, state: int) -> int:
        """`extends` of what is entered at `state`: a leaf or the start of a rule."""
        if state < SKELETON:
            return self._library.extends(state)
        return self._rule_extends(self._rule_of_start[state])

    def _rule_start(self, rule: str) -> int:
        """The state in which a rule is entered: a list or an element of one leaves a mark on the stack."""
        if rule not in self._rule_starts:
            start = body = self._body(rule)
            if isinstance(self._rules[rule], Distinct | Element):
                index = self._new(None, self._analysis.rule(rule).shortest, False)
                self.arrays.set_forward(index, body, LIST if isinstance(self._rules[rule], Distinct) else ELEMENT)
                start = SKELETON + index
            self._rule_starts[rule] = start
            self._rule_of_start.setdefault(start, rule)
        return self._rule_starts[rule]

    def _body(self, rule: str) -> int:
        """The first state of what a rule reads."""
        if rule not in self._bodies:
            start = self._bodies[rule] = self._state(self._closure((self._points.body(rule),)))
            self._rule_of_start.setdefault(start, rule)
        return self._bodies[rule]

    def _entered(self, reading: Reading) -> tuple[int, int] | None:
        """`(state to enter, state to return to)` where a reading is nothing but one clear call, else None."""
        if reading.literals or reading.symbols or reading.end or len(reading.leaves) + len(reading.rules) != 1:
            return None
        if reading.leaves:
            ((state, ends),) = reading.leaves
            return (state, self._return(ends)) if self._leaf_is_clear(state, ends) else None
        ((rule, ends),) = reading.rules
        return (self._rule_start(rule), self._return(ends)) if self._rule_is_clear(rule, ends) else None

    def _return(self, ends: Ends) -> int:
        """The state to return to: -1 where the caller ends there too."""
        state = self._state(self._closure(ends))
        return -1 if state == RETURN else state

    # Edges

    def _expand(self, index: int) -> None:
        if self.arrays.is_expanded(index):
            return
        reading = self._readings[index]
        assert reading is not None, "states within a literal are made expanded"
        entered = self._entered(reading)
        if entered:
            self.arrays.set_forward(index, *entered)
            return
        reading = self._inlined(self._saturated(reading))
        text = self._common_text(reading)
        if text:
            self._expand_text(index, reading, text)
        else:
            self._expand_bytes(index, reading)

    def _common_text(self, reading: Reading) -> bytes:
        """The text that has to come next, where a state reads nothing but literals."""
        if reading.leaves or reading.rules or reading.symbols or reading.end or not reading.literals:
            return b""
        return _common_prefix(reading.literals[0][0], reading.literals[-1][0])  # of the sorted ends, so of all

    def _expand_text(self, index: int, reading: Reading, text: bytes) -> None:
        self._read(*[None] * (len(text) - 1))
        inner = self.arrays.add_states(len(text) - 1)
        last = self._state(self._after([(rest[len(text) :], then) for rest, then in reading.literals], ()))
        self.arrays.set_text(index, text, inner, last)

    def _expand_bytes(self, index: int, reading: Reading) -> None:
        """Edges byte by byte: what one group alone can take enters it, what several can take is their product."""
        shared = self._shared_bytes(reading)
        edges: list[Edge] = []
        for state, ends in reading.leaves:
            after = self._return(ends) if self._library.first(state) & ~shared else -1
            edges += [Edge(byte, state, True, after) for byte in _bytes_of(self._library.first(state) & ~shared)]
        for rule, ends in reading.rules:
            start, after = self._rule_start(rule), self._return(ends)
            edges += [Edge(byte, start, True, after) for byte in _bytes_of(self._analysis.rule(rule).first)]
        rests: dict[int, list[tuple[bytes, int]]] = {}
        for text, then in reading.literals:
            rests.setdefault(text[0], []).append((text[1:], then))
        targets: dict[tuple[object, ...], int] = {}
        for byte in {*rests, *_bytes_of(shared)}:
            leaves = self._next_leaves(reading, byte) if shared >> byte & 1 else ()
            key = (tuple(rests.get(byte, ())), leaves)
            if key not in targets:
                targets[key] = self._state(self._after(rests.get(byte, []), leaves))
            edges.append(Edge(byte, targets[key]))
        symbols = [(symbol, self._state(self._closure(ends))) for symbol, ends in reading.symbols]
        self.arrays.set_edges(index, edges, symbols)

    def _shared_bytes(self, reading: Reading) -> int:
        """The bytes that more than one group can take, or that a leaf can take which cannot be entered and left clearly."""
        seen = shared = 0
        for first in self._group_firsts(reading):
            shared |= seen & first
            seen |= first
        for state, ends in reading.leaves:
            if not self._leaf_is_clear(state, ends):
                shared |= self._library.first(state)
        return shared & ALL_BYTES

    def _group_firsts(self, reading: Reading) -> list[int]:
        literals = 0
        for text, _ in reading.literals:
            literals |= 1 << text[0]
        leaves = [self._library.first(state) for state, _ in reading.leaves]
        return [literals, *leaves, *(self._analysis.rule(rule).first for rule, _ in reading.rules)]

    def _next_leaves(self, reading: Reading, byte: int) -> tuple[tuple[int, Ends], ...]:
        """Every leaf of the reading after a byte, RETURN where it ended."""
        after = ((self._library.next(state, byte), ends) for state, ends in reading.leaves)
        return tuple((state, ends) for state, ends in after if state != DEAD)

    def _after(self, rests: Iterable[tuple[bytes, int]], leaves: Iterable[tuple[int, Ends]]) -> Reading:
        """The reading of rests of literals and of leaves under way, either possibly complete."""
        found, points = Gathering(), set[int]()
        for text, then in rests:
            if text:
                found.literals.add((text, then))
            else:
                points.add(then)
        for state, ends in leaves:
            if state == RETURN:
                points.update(ends)
            else:
                found.leaves.setdefault(state, set()).update(ends)
        if points:
            found.add(self._closure(points))
        return found.reading()

    def _inlined(self, reading: Reading) -> Reading:
        """The reading with every rule opened that cannot be entered and left by its bytes alone."""
        opened = set[tuple[str, Ends]]()
        while True:
            calls = [call for call in reading.rules if call not in opened]  # what was opened is in the reading already
            reading = reading._replace(rules=tuple(calls))
            firsts = self._group_firsts(reading)
            of_rules = len(firsts) - len(calls)
            unclear = [
                call
                for position, call in enumerate(calls, of_rules)
                if firsts[position] & _others(firsts, position)
                or firsts[position] > ALL_BYTES
                or not self._rule_is_clear(*call)
            ]
            if not unclear:
                return reading
            opened.update(unclear)
            found = Gathering()
            found.add(reading._replace(rules=tuple(call for call in calls if call not in opened)))
            for rule, ends in unclear:
                self._require_unmarked(rule)
                found.add(self._closure((self._points.body(rule, ends),)))
            reading = self._saturated(found.reading())

    def _require_unmarked(self, rule: str) -> None:
        """Raise where a rule would be read beside others and not be entered: what it leaves a mark for would not be watched."""
        tree = self._rules[rule]
        if isinstance(tree, Element):
            tree = next(tree for tree in self._rules.values() if isinstance(tree, Distinct) and rule in calls_of(tree))
        if isinstance(tree, Distinct):
            keyword = tree.pointer.rpartition("/")[2]
            message = f"{keyword!r} is not supported where something else may stand there as well (rule {rule})"
            raise UnsupportedSchemaError(message, pointer=tree.pointer, keyword=keyword)


def _others(firsts: list[int], position: int) -> int:
    """The bytes that any group but one can take."""
    others = 0
    for place, first in enumerate(firsts):
        others |= first if place != position else 0
    return others


def _common_prefix(first: bytes, last: bytes) -> bytes:
    length = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:length]


def _bytes_of(byte_set: int) -> list[int]:
    return [byte for byte in range(256) if byte_set >> byte & 1]
