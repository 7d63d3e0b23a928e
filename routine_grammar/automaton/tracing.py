"""Reading a text along the tree of its grammar, to tell by which rules: slower than the automaton, which only knows states.

In: a grammar and a text. Out: how far the text can be read, and there every way to go on, with the rules it stands in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from routine_grammar.automaton.automaton import Automaton
from routine_grammar.errors import GrammarTooLargeError
from routine_grammar.grammar.tree import (
    Call,
    Choice,
    Distinct,
    Element,
    Grammar,
    Leaf,
    Literal,
    Marker,
    Node,
    Optional,
    Repeat,
    Sequence,
)

MAX_WAYS = 50_000


@dataclass(frozen=True, slots=True)
class Way:
    """What may be read next: a text, or a leaf (`begun`: some of it was read); `rules` are those it stands in, outermost first.

    Neither: the text may end.
    """

    rules: tuple[str, ...]
    text: bytes = b""
    leaf: Leaf | None = None
    begun: bool = False


@dataclass(frozen=True, slots=True)
class Trace:
    """`read`: how many bytes of the text can be read; `ways`: how it may go on from there."""

    read: int
    ways: tuple[Way, ...]


@dataclass(frozen=True, slots=True)
class _EndOf:
    """The end of a rule."""

    rule: str


@dataclass(frozen=True, slots=True)
class _Rest:
    """What is left of a literal."""

    data: bytes


@dataclass(frozen=True, slots=True)
class _At:
    """A place in a leaf: a configuration of its own automaton."""

    leaf: Leaf
    row: bytes
    begun: bool


_Head = Node | _EndOf | _Rest | _At
_Stack = tuple[_Head, "_Stack"] | None  # what is to be read, and what behind it


def trace(grammar: Grammar, data: bytes) -> Trace:
    """Read bytes as far as the grammar allows. Raises `GrammarTooLargeError` past a bound on ways to read them."""
    tracer = _Tracer(grammar)
    stacks = tracer.expanded([(grammar.root, None)])
    for place, byte in enumerate(data):
        after = tracer.step(stacks, byte)
        if not after:
            return Trace(place, tuple(map(_way, stacks)))
        stacks = after
    return Trace(len(data), tuple(map(_way, stacks)))


def _way(stack: _Stack) -> Way:
    rules, rest = [], stack
    while rest is not None:
        head, rest = rest
        if isinstance(head, _EndOf):
            rules.append(head.rule)
    match stack:
        case (_Rest(data), _):
            return Way(tuple(reversed(rules)), data)
        case (_At(leaf, _, begun), _):
            return Way(tuple(reversed(rules)), leaf=leaf, begun=begun)
    return Way(())


class _Tracer:
    def __init__(self, grammar: Grammar) -> None:
        self._rules = grammar.rules
        self._automata: dict[Leaf, Automaton] = {}

    def step(self, stacks: list[_Stack], byte: int) -> list[_Stack]:
        """The stacks after a byte."""
        after: list[_Stack] = []
        for stack in stacks:
            match stack:
                case (_Rest(data), rest) if data[0] == byte:
                    after.append((_Rest(data[1:]), rest) if len(data) > 1 else rest)
                case (_At(leaf, row, _), rest):
                    after += self._behind(leaf, row, byte, rest)
        return self.expanded(after)

    def _behind(self, leaf: Leaf, row: bytes, byte: int, rest: _Stack) -> Iterator[_Stack]:
        automaton = self._automata[leaf]
        taken = automaton.after(np.frombuffer(row, np.int32), bytes((byte,)))
        if taken is not None:
            if automaton.next_bytes(taken).any():
                yield _At(leaf, taken.tobytes(), True), rest
            if automaton.may_end(taken):
                yield rest

    def expanded(self, stacks: list[_Stack]) -> list[_Stack]:
        """The stacks that begin with something that reads a byte, or with nothing, to which some stacks lead."""
        seen = dict.fromkeys(stacks)
        todo, ready = deque(stacks), dict[_Stack, None]()
        while todo:
            stack = todo.popleft()
            if stack is None or isinstance(stack[0], _Rest) or (isinstance(stack[0], _At) and stack[0].begun):
                ready[stack] = None
                continue
            head, rest = stack
            for further in self._ways(head, rest):
                if further is not None and isinstance(further[0], _At):
                    ready[further] = None
                elif further not in seen:
                    seen[further] = None
                    todo.append(further)
            if len(seen) > MAX_WAYS:
                raise GrammarTooLargeError(f"there are more than {MAX_WAYS} ways to read the text, the bound")
        return list(ready)

    def _ways(self, head: _Head, rest: _Stack) -> Iterator[_Stack]:
        """What a stack may become without reading anything."""
        match head:
            case Literal(text) | Marker(text):
                yield (_Rest(text.encode()), rest) if text else rest
            case Leaf():
                automaton = self._automata.setdefault(head, Automaton(Grammar(head)))
                start = automaton.start()
                if automaton.next_bytes(start).any():
                    yield _At(head, start.tobytes(), False), rest
                if automaton.may_end(start):
                    yield rest
            case Call(rule):
                yield self._rules[rule], (_EndOf(rule), rest)
            case _EndOf():
                yield rest
            case Sequence(items):
                for item in reversed(items):
                    rest = (item, rest)
                yield rest
            case Choice(items):
                yield from ((item, rest) for item in items)
            case Distinct(item) | Element(item):
                yield item, rest
            case Optional(item):
                yield from ((item, rest), rest)
            case Repeat(item, low, high):
                yield from _repeated(item, low, high, rest)


def _repeated(item: Node, low: int, high: int | None, rest: _Stack) -> Iterator[_Stack]:
    """What the stack of a repetition may become."""
    if high != 0:
        yield item, (Repeat(item, max(low - 1, 0), None if high is None else high - 1), rest)
    if low == 0:
        yield rest
