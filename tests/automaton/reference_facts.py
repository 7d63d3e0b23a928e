"""What can be said of a grammar tree without building its automaton: first bytes, emptiness, extensions, lengths.

A byte set is an int with bit `b` set for byte `b`, and bit 256 + i for the i-th symbol (a marker that is one token).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import NamedTuple

from routine_grammar.automaton.components import components
from routine_grammar.automaton.leaf import LeafLibrary
from routine_grammar.automaton.pools import INFINITE, LONGEST
from routine_grammar.errors import GrammarError
from routine_grammar.grammar.terminals import Terminal
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
    calls_of,
)

_FAR = INFINITE >> 1
ELSEWHERE = "vLLM's own guidance backend can take such a grammar (--grammar-backend auto hands it over)"


class Facts(NamedTuple):
    """Of a language: `first` bytes of its words, whether it holds the empty word (`nullable`), which bytes may follow a
    complete word inside a longer one (`extends`; None where the tree alone does not tell), the length of the `shortest`
    word, and the largest distance to the end that a word under way can have (`farthest`), both in bytes and symbols.
    """

    first: int
    nullable: bool
    extends: int | None
    shortest: int
    farthest: int


NOTHING = Facts(0, False, 0, INFINITE, 0)
EMPTY_WORD = Facts(0, True, 0, 0, 0)


class Analysis:
    """Facts of every rule of a grammar, found as a least fixpoint, callees first, and of any node on request."""

    def __init__(self, rules: Mapping[str, Node], library: LeafLibrary, symbols: Mapping[str, int]) -> None:
        self._library = library
        self._symbols = symbols
        self._rules: dict[str, Facts] = dict.fromkeys(rules, NOTHING)
        self._circles: dict[str, tuple[str, ...]] = {}
        calls = {name: calls_of(tree) for name, tree in rules.items()}
        for component in components(calls):
            if len(component) == 1 and component[0] not in calls[component[0]]:
                self._rules[component[0]] = self.of(rules[component[0]])
            else:
                self._solve({name: rules[name] for name in component})
                self._circles.update(dict.fromkeys(component, component))
        self._refuse_left_recursion({name: rules[name] for name in self._circles})

    def _refuse_left_recursion(self, rules: Mapping[str, Node]) -> None:
        """A rule that can come to itself without reading anything would be entered for ever; `rules` are the recursive ones."""
        leading = {name: self._leading_calls(tree) & rules.keys() for name, tree in rules.items()}
        for component in components(leading):
            if len(component) > 1 or component[0] in leading[component[0]]:
                told = f"rule {min(component)} begins with itself: rewrite it without left recursion"
                raise GrammarError(f"{told}; {ELSEWHERE}")

    def _leading_calls(self, node: Node) -> set[str]:
        """The rules that may be called at the very beginning of a node."""
        match node:
            case Call(rule):
                return {rule}
            case Sequence(items):
                calls = set[str]()
                for item in items:
                    calls |= self._leading_calls(item)
                    if not self.of(item).nullable:
                        break
                return calls
            case Choice(items):
                return set[str]().union(*(self._leading_calls(item) for item in items))
            case Optional(item) | Repeat(item, _, _) | Distinct(item) | Element(item):
                return self._leading_calls(item)
            case _:
                return set()

    def _solve(self, rules: Mapping[str, Node]) -> None:
        """Facts of rules that call each other in a circle, all but `farthest` by rising (or falling) to a fixpoint."""
        changed = True
        while changed:
            changed = False
            for name, tree in rules.items():
                facts = self.of(tree)._replace(farthest=0)
                changed = changed or facts != self._rules[name]
                self._rules[name] = facts
        # `farthest` of a call is its rule's own and what is owed after the call. Where anything is owed within the circle,
        # it grows without bound; else the largest of all is everyone's.
        own = max(self.of(tree).farthest for tree in rules.values())
        for name in rules:
            self._rules[name] = self._rules[name]._replace(farthest=_FAR)
        owed = max(self.of(tree).farthest for tree in rules.values()) > _FAR
        for name in rules:
            self._rules[name] = self._rules[name]._replace(farthest=INFINITE if owed else own)

    def rule(self, name: str) -> Facts:
        """Facts of a rule."""
        return self._rules[name]

    @property
    def recursive(self) -> tuple[str, ...]:
        """The rules that call themselves, at any remove."""
        return tuple(self._circles)

    def circle(self, name: str) -> tuple[str, ...]:
        """The rules that a recursive rule calls and that call it, at any remove, itself among them; else none."""
        return self._circles.get(name, ())

    def of(self, node: Node) -> Facts:
        """Facts of a node."""
        match node:
            case Literal(text):
                data = text.encode()
                return _word(1 << data[0], len(data)) if data else EMPTY_WORD
            case Marker(text):
                if text in self._symbols:
                    return _word(1 << 256 + self._symbols[text], 1)
                return self.of(Literal(text))
            case Leaf(_, pattern):
                return self._leaf(pattern)
            case Call(rule):
                return self._rules[rule]
            case Sequence(items):
                return _fold(items, self.of)
            case Choice(items):
                return self._choice(items)
            case Optional(item):
                return _optional(self.of(item))
            case Repeat(item, low, high):
                return _repeat(self.of(item), low, high)
            case Distinct(item) | Element(item):
                return self.of(item)

    def _leaf(self, pattern: Terminal) -> Facts:
        library = self._library
        start = library.start(pattern)
        shortest = library.distance_of(start)
        farthest = library.farthest(start)
        return Facts(library.first(start), shortest == 0, library.extends(start), shortest, farthest)

    def _choice(self, items: tuple[Node, ...]) -> Facts:
        parts = [self.of(item) for item in items]
        first, disjoint = 0, True
        for part in parts:
            disjoint = disjoint and not first & part.first
            first |= part.first
        nullable = any(part.nullable for part in parts)
        extends = _union(part.extends for part in parts) if disjoint else _literal_extensions(items)
        if extends is not None and nullable:
            extends |= first
        shortest = min((part.shortest for part in parts), default=INFINITE)
        return Facts(first, nullable, extends, shortest, max((part.farthest for part in parts), default=0))


def joined_length(first: int, second: int) -> int:
    """The length of two texts in a row, where there are such texts."""
    if first == INFINITE or second == INFINITE:
        return INFINITE
    return min(first + second, LONGEST)


def _word(first: int, length: int) -> Facts:
    return Facts(first, False, 0, length, length)


def _union(sets: Iterable[int | None]) -> int | None:
    total = 0
    for part in sets:
        if part is None:
            return None
        total |= part
    return total


def _fold(items: tuple[Node, ...], facts_of: Callable[[Node], Facts]) -> Facts:
    """Facts of a sequence, from its end."""
    rest = EMPTY_WORD
    for item in reversed(items):
        part = facts_of(item)
        extends: int | None = None
        if part.extends is not None and rest.extends is not None and not part.extends & rest.first:
            extends = rest.extends | (part.extends | rest.first if rest.nullable else 0)
        rest = Facts(
            part.first | (rest.first if part.nullable else 0),
            part.nullable and rest.nullable,
            extends,
            joined_length(part.shortest, rest.shortest),
            min(max(part.farthest + rest.shortest, rest.farthest), INFINITE),
        )
    return rest


def _optional(part: Facts) -> Facts:
    extends = None if part.extends is None else part.extends | part.first
    return Facts(part.first, True, extends, 0, part.farthest)


def _repeat(part: Facts, low: int, high: int | None) -> Facts:
    if high == 0:
        return EMPTY_WORD
    decided = part.extends is not None and not part.extends & part.first
    extends = (part.extends or 0) | part.first if decided else None
    owed = max(low - 1, 0) * part.shortest
    return Facts(
        part.first,
        low == 0 or part.nullable,
        extends,
        0 if low == 0 else part.shortest if part.shortest == INFINITE else min(low * part.shortest, LONGEST),
        min(part.farthest + owed, INFINITE),
    )


def _literal_extensions(items: tuple[Node, ...]) -> int | None:
    """`extends` of a choice of literals alone: the bytes that go on from a literal that is the prefix of another."""
    words = sorted(item.text.encode() for item in items if isinstance(item, Literal))
    if len(words) != len(items):
        return None
    if not any(longer.startswith(shorter) for shorter, longer in pairwise(words)):
        return 0
    known = set(words)
    extends = 0
    for word in words:
        for length in range(1, len(word)):
            if word[:length] in known:
                extends |= 1 << word[length]
    return extends
