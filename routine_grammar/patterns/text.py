"""Patterns to regular expressions, in the subset that Python's `re`, Rust's regex crates read alike.

Complements and intersections have no place there: `as_expression` rewrites a pattern without them, through its automaton.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from routine_grammar.effort import A_WAY, spend
from routine_grammar.errors import GrammarError, GrammarTooLargeError
from routine_grammar.patterns.automaton import UnitAutomaton, automaton_of
from routine_grammar.patterns.charset import CHARS, CharSet
from routine_grammar.patterns.json_escapes import escapes_of
from routine_grammar.patterns.pattern import (
    EMPTY,
    NOTHING,
    Both,
    Boundary,
    Chars,
    Concat,
    Edge,
    Either,
    Multiple,
    Not,
    Pattern,
    Times,
    concat,
    either,
    optional,
)

MAX_TEXT_CHARS = 2**20
MAX_ITEMS = 100_000
_SPECIAL = frozenset("\\.^$|?*+()[]{}")
_IN_CLASS = frozenset("\\^-[]&~|")  # the last three begin set operations where they are doubled, in some readers


def pattern_to_regex(pattern: Pattern) -> str:
    """A regular expression that matches whole what the pattern does; escapes are spelled as JSON spells them.

    Raises `GrammarError` for what has a complement, an intersection or an edge; `GrammarTooLargeError` past the bound.
    """
    return _Writer().write(pattern)


def as_expression(pattern: Pattern) -> Pattern:
    """The same language without complement, intersection, edge and multiple; raises `GrammarTooLargeError` past a bound."""
    return pattern if _is_plain(pattern) else _eliminated(automaton_of(pattern))


def escape(text: str) -> str:
    """A pattern that matches exactly `text`."""
    return "".join(_escaped(char) for char in text)


def _escaped(char: str) -> str:
    if char in _SPECIAL:
        return "\\" + char
    if char < " " or char == "\x7f":
        return f"\\x{ord(char):02x}"
    return char


def trie_of(words: Sequence[str]) -> dict[str, Any]:
    """Words as nested dictionaries of characters; a word ends at an empty one.

    A word that begins with another is the other's already.
    """
    root: dict[str, Any] = {}
    for word in sorted(words, key=len):
        node = root
        for place, char in enumerate(word):
            if char in node and not node[char]:
                break
            node = node.setdefault(char, {})
            if place == len(word) - 1:
                node.clear()
    return root


def beginning_otherwise(words: Sequence[str], without: str) -> str:
    """A pattern of the texts that begin with none of these words and have no character of `without`; they are not empty."""

    def after(trie: dict[str, Any]) -> str:
        ways = [_none_of((*without, *trie)) + f"{_none_of(without)}*"]
        ways += [f"{escape(char)}(?:{after(below)})?" for char, below in trie.items() if below]
        return "|".join(ways)

    return after(trie_of(words))


def _none_of(chars: Iterable[str]) -> str:
    """A pattern of any character but these."""
    excluded = "".join("\\" + char if char in "-^" else escape(char) for char in chars)
    return f"[^{excluded}]" if excluded else r"(?:.|\n)"


class _Writer:
    def __init__(self) -> None:
        self._chars = 0

    def write(self, pattern: Pattern) -> str:
        text = self._write(pattern)
        self._chars += len(text)
        if self._chars > MAX_TEXT_CHARS:
            raise GrammarTooLargeError(f"a regular expression needs more than {MAX_TEXT_CHARS} characters, the bound")
        return text

    def _write(self, pattern: Pattern) -> str:
        match pattern:
            case Chars(chars) if not chars.escaped:
                return char_class(chars)
            case Chars(units):
                escapes = escapes_of(units.escaped)
                return self._grouped(either(Chars(units.as_is), escapes) if units.as_is else escapes)
            case Concat(items):
                return "".join(self._grouped(item) if isinstance(item, Either) else self.write(item) for item in items)
            case Either(()):
                raise GrammarError("a pattern that matches nothing can't be written")
            case Either(items):
                return "|".join(map(self.write, items))
            case Times(item, low, high):
                return self._repeated(item) + _count(low, high)
            case _:
                raise GrammarError(f"a {type(pattern).__name__.lower()} can't be written as a regular expression")

    def _grouped(self, pattern: Pattern) -> str:
        return f"(?:{self.write(pattern)})"

    def _repeated(self, item: Pattern) -> str:
        """An item to be counted: a single character needs no group."""
        if isinstance(item, Chars) and not item.chars.escaped:
            return char_class(item.chars)
        return self._grouped(item)


def _count(low: int, high: int | None) -> str:
    match low, high:
        case 0, None:
            return "*"
        case 1, None:
            return "+"
        case 0, 1:
            return "?"
        case _, None:
            return f"{{{low},}}"
    return f"{{{low}}}" if low == high else f"{{{low},{high}}}"


def char_class(chars: CharSet) -> str:
    """One character of a set, written by what it lacks where that is shorter."""
    if not chars:
        raise GrammarError("a pattern that matches nothing can't be written")
    if len(chars) == 1:
        return _escaped(chr(chars.ranges[0][0]))
    lacking = CHARS - chars
    if not lacking:
        return r"(?:.|\n)"
    return f"[^{_spans(lacking)}]" if len(lacking.ranges) < len(chars.ranges) else f"[{_spans(chars)}]"


def _spans(chars: CharSet) -> str:
    spans = []
    for low, high in chars.ranges:
        between = "-" if high > low + 1 else ""
        spans.append(_in_class(chr(low)) + (between + _in_class(chr(high)) if high > low else ""))
    return "".join(spans)


def _in_class(char: str) -> str:
    return "\\" + char if char in _IN_CLASS else f"\\x{ord(char):02x}" if char < " " or char == "\x7f" else char


def _is_plain(pattern: Pattern) -> bool:
    todo = [pattern]
    while todo:
        match todo.pop():
            case Both(_) | Not(_) | Edge() | Boundary() | Multiple() | Either(()):
                return False
            case Chars(chars) if not chars:
                return False
            case Concat(items) | Either(items):
                todo += items
            case Times(item, _, _):
                todo.append(item)
    return True


def _eliminated(automaton: UnitAutomaton) -> Pattern:
    """An automaton as an expression: states are taken out one by one, those with the fewest ways through them first."""
    count = len(automaton.accepting)
    ways = _Ways(count)
    for state in range(count):
        by_target: dict[int, list[tuple[int, int]]] = {}
        for low, high, target in automaton.moves(state):
            by_target.setdefault(target, []).append((low, high))
        for target, ranges in by_target.items():
            ways.add(state, target, Chars(CharSet.of(*ranges)), 1)
        if automaton.accepting[state]:
            ways.add(state, _END, EMPTY, 0)
    left = set(range(count))
    while left:
        state = min(left, key=lambda one: (ways.through(one), one))
        left.discard(state)
        ways.take_out(state)
    return ways.whole()


_START, _END = -1, -2


class _Ways:
    """Expressions that lead from state to state, each with its size: what is written twice counts twice."""

    def __init__(self, count: int) -> None:
        self._from: dict[int, dict[int, tuple[Pattern, int]]] = {state: {} for state in (_START, *range(count))}
        self._to: dict[int, set[int]] = {state: set() for state in (_END, *range(count))}
        self.add(_START, 0, EMPTY, 0)

    def add(self, source: int, target: int, way: Pattern, size: int) -> None:
        """Another way. Raises `GrammarTooLargeError` past the bound on sizes."""
        known, known_size = self._from[source].get(target, (None, 0))
        if size + known_size > MAX_ITEMS:
            raise GrammarTooLargeError(f"a regular expression needs more than {MAX_ITEMS} items, the bound")
        self._from[source][target] = (way if known is None else _either(known, way), size + known_size)
        self._to[target].add(source)

    def through(self, state: int) -> int:
        """By how much expressions grow when a state is taken out, about."""
        spend(A_WAY)
        sources = [source for source in self._to[state] if source != state]
        targets = [target for target in self._from[state] if target != state]
        out = sum(self._from[state][target][1] + 1 for target in targets)
        into = sum(self._from[source][state][1] + 1 for source in sources)
        return len(sources) * out + len(targets) * into

    def take_out(self, state: int) -> None:
        """Take a state out, and put what leads through it in its place."""
        row = self._from.pop(state)
        loop, loop_size = row.pop(state, (None, 0))
        again = () if loop is None else (Times(loop, 0, None),)
        for source in self._to.pop(state) - {state}:
            into, into_size = self._from[source].pop(state)
            for target, (out, out_size) in row.items():
                self.add(source, target, concat(into, *again, out), into_size + loop_size + out_size)
        for target in row:
            self._to[target].discard(state)

    def whole(self) -> Pattern:
        """What leads from start to end."""
        return self._from[_START].get(_END, (NOTHING, 0))[0]


def _either(one: Pattern, other: Pattern) -> Pattern:
    """One or the other, the empty text as an option."""
    if EMPTY in (one, other):
        rest = other if one == EMPTY else one
        return rest if isinstance(rest, Times) and rest.low == 0 else optional(rest)
    items = [part for item in (one, other) for part in (item.items if isinstance(item, Either) else (item,))]
    chars = [part.chars for part in items if isinstance(part, Chars)]
    others: list[Pattern] = [part for part in items if not isinstance(part, Chars)]
    if chars:
        others.insert(0, Chars(CharSet.of(*(bounds for part in chars for bounds in part.ranges))))
    return others[0] if len(others) == 1 else Either(tuple(others))
