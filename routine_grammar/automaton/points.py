"""Points: a grammar tree as places with continuations, the states of the nondeterministic automaton behind the skeleton.

Each point lists what may be read there and the point that follows. Point END is the end of the rule being read. Rules are
not copied into their callers: a call is an item of its own, so that what it calls can be shared.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

from routine_grammar.automaton.facts import INFINITE, Analysis, joined_length
from routine_grammar.automaton.leaf import LeafLibrary
from routine_grammar.automaton.reading import Reading
from routine_grammar.errors import GrammarTooLargeError
from routine_grammar.grammar.tree import (
    Call,
    Choice,
    Distinct,
    Element,
    Leaf,
    Literal,
    Marker,
    Node,
    Optional,
    Repeat,
    Sequence,
    reachable,
)

MAX_POINTS = 200_000
END = 0


class Read(IntEnum):
    """What an item reads before it goes on to its point."""

    NOTHING = 0
    BYTES = 1
    LEAF = 2
    RULE = 3
    SYMBOL = 4


class Item(NamedTuple):
    """One thing that may be read at a point: `what` is bytes, a leaf state, a rule's name or a symbol's number."""

    read: Read
    what: bytes | int | str | None
    then: int


class Points:
    """The points of one grammar, made as they are needed: a rule's body when it is first entered."""

    def __init__(self, rules: Mapping[str, Node], analysis: Analysis, library: LeafLibrary, symbols: Mapping[str, int]) -> None:
        self._rules = rules
        self._analysis = analysis
        self._library = library
        self._symbols = symbols
        self._items: list[tuple[Item, ...]] = [()]
        self._distance: list[int] = [0]
        self._bodies: dict[tuple[str, tuple[int, ...]], int] = {}
        self._within: list[Mapping[str, int]] = [{}]  # per point: of which rules' copies it is part, one within the other
        self._copy: dict[str, int] = {}  # of the copy that is being made
        self.deepest: dict[str, int] = {}  # how many copies of a rule were made within each other

    def items(self, point: int) -> tuple[Item, ...]:
        """What may be read at a point."""
        return self._items[point]

    def distance(self, point: int) -> int:
        """Fewest bytes and symbols from a point to the end of its rule."""
        return self._distance[point]

    def body(self, rule: str, then: tuple[int, ...] = (END,)) -> int:
        """The first point of a rule that goes on to any of `then` (a copy of the rule, where that is not the end)."""
        key = (rule, then)
        if key not in self._bodies:
            after = then[0] if len(then) == 1 else self._point([Item(Read.NOTHING, None, k) for k in then])
            if then != (END,):
                around = [self._within[point] for point in then]
                self._copy = {name: max(each.get(name, 0) for each in around) for name in {rule}.union(*around)}
                self._copy[rule] += 1
                self.deepest[rule] = max(self.deepest.get(rule, 0), self._copy[rule])
            self._bodies[key] = self.place(self._rules[rule], after)
            self._copy = {}
        return self._bodies[key]

    def place(self, node: Node, then: int) -> int:
        """The point where `node` may be read and after it what `then` reads."""
        match node:
            case Literal(text):
                return self._point([Item(Read.BYTES, text.encode(), then)]) if text else then
            case Marker(text) if text in self._symbols:
                return self._point([Item(Read.SYMBOL, self._symbols[text], then)])
            case Marker(text):
                return self._point([Item(Read.BYTES, text.encode(), then)])
            case Leaf(_, pattern):
                return self._point([Item(Read.LEAF, self._library.start(pattern), then)])
            case Call(rule):
                return self._point([Item(Read.RULE, rule, then)])
            case Sequence(items):
                for item in reversed(items):
                    then = self.place(item, then)
                return then
            case Choice(items):
                return self._point([self._way(item, then) for item in items])
            case Optional(item):
                return self._point([Item(Read.NOTHING, None, self.place(item, then)), Item(Read.NOTHING, None, then)])
            case Repeat(item, low, high):
                return self._repeat(item, low, high, then)
            case Distinct(item) | Element(item):
                return self.place(item, then)

    def _way(self, node: Node, then: int) -> Item:
        """One way of a choice; a literal needs no point of its own."""
        if isinstance(node, Literal) and node.text:
            return Item(Read.BYTES, node.text.encode(), then)
        return Item(Read.NOTHING, None, self.place(node, then))

    def _repeat(self, item: Node, low: int, high: int | None, then: int) -> int:
        if high is None:
            loop = self._point([Item(Read.NOTHING, None, then)])
            again = self.place(item, loop)
            self._items[loop] = (Item(Read.NOTHING, None, again), *self._items[loop])
            start = loop
        else:
            start = then
            for _ in range(high - low):
                more = self.place(item, start)
                start = self._point([Item(Read.NOTHING, None, more), Item(Read.NOTHING, None, then)])
        for _ in range(low):
            start = self.place(item, start)
        return start

    def _point(self, items: list[Item]) -> int:
        if len(self._items) >= MAX_POINTS:
            raise GrammarTooLargeError(
                f"grammar has more than {MAX_POINTS} points once its repetitions are unrolled, the bound"
            )
        self._items.append(tuple(items))
        self._within.append(self._copy)
        self._distance.append(min(map(self._item_distance, items), default=INFINITE))
        return len(self._items) - 1

    def _item_distance(self, item: Item) -> int:
        what = item.what
        if what is None:
            return self._distance[item.then]
        if isinstance(what, bytes):
            length = len(what)
        elif isinstance(what, str):
            length = self._analysis.rule(what).shortest
        else:
            length = self._library.distance_of(what) if item.read is Read.LEAF else 1
        return joined_length(length, self._distance[item.then])


class MarksAhead:
    """Tells of readings whether a list of distinct elements, or one of these, may come before the rule at hand ends."""

    def __init__(self, rules: Mapping[str, Node], points: Points) -> None:
        self._rules = rules
        self._points = points
        self._rule_has: dict[str, bool] = {}
        self._has: dict[int, bool] = {END: False}

    def of(self, reading: Reading) -> bool:
        """Whether it may."""
        groups = (*reading.leaves, *reading.rules, *reading.symbols)
        after = {then for _, then in reading.literals}.union(*(ends for _, ends in groups))
        return any(self._of_rule(rule) for rule, _ in reading.rules) or any(map(self._of_point, after))

    def _of_rule(self, rule: str) -> bool:
        if rule not in self._rule_has:
            called = reachable(Call(rule), self._rules).values()
            self._rule_has[rule] = any(isinstance(tree, Distinct | Element) for tree in called)
        return self._rule_has[rule]

    def _of_point(self, point: int) -> bool:
        if point not in self._has:
            seen, todo = {point}, [point]
            while todo:
                for item in self._points.items(todo.pop()):
                    if self._has.get(item.then) or (isinstance(item.what, str) and self._of_rule(item.what)):
                        self._has[point] = True
                        return True
                    if item.then not in seen and item.then not in self._has:
                        seen.add(item.then)
                        todo.append(item.then)
            self._has |= dict.fromkeys(seen, False)
        return self._has[point]
