"""Which bytes may follow a complete word within a longer one, as far as brackets tell: found on trees, without states.

A JSON array, object or string ends with the bracket or quote that closes its first one, whatever it holds. So of two of them
none goes on where the other ends, however much their beginnings have in common: that need not be found by trying all ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from routine_grammar.automaton.components import components
from routine_grammar.automaton.leaf import LeafLibrary
from routine_grammar.grammar.terminals import JsonString, Terminal
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
    reachable,
)

_OPENING, _CLOSING, _QUOTE, _BACKSLASH = b"[{", b"]}", ord('"'), ord("\\")
_STRUCTURE = sum(1 << byte for byte in b'[]{}"\\')
_DEEPEST = 64  # brackets closed that were not opened: recursion could close ever more, real trees close one or two


@dataclass(frozen=True, slots=True)
class Nesting:
    """How the words of a node open and close brackets; all of them begin and end outside of strings.

    A quote that opens a string counts as a bracket. `change`: how many are opened less those that are closed, the same for
    all words. `levels`: by depth, up to 0, the bytes that stand there, those at the very beginning of a word left out.
    `first`: those at the beginning. `may_be_empty`: the empty word is among the words. `has_words`: there are any, as far as
    is known yet.
    """

    change: int = 0
    levels: tuple[tuple[int, int], ...] = ()
    first: int = 0
    may_be_empty: bool = False
    has_words: bool = True


_EMPTY_WORD = Nesting(may_be_empty=True)
_NO_WORDS = Nesting(has_words=False)


class Nestings:
    """The nesting of rules, found when it is first asked for, with that of all rules that they call."""

    def __init__(self, rules: Mapping[str, Node], library: LeafLibrary, symbols: Mapping[str, int]) -> None:
        self._rules = rules
        self._library = library
        self._symbols = symbols
        self._of: dict[str, Nesting | None] = {}

    def follows(self, rule: str) -> int | None:
        """The bytes (and symbols) of which one follows a complete word of a rule inside a longer one, or more than these.

        None where brackets don't tell.
        """
        if rule not in self._of:
            self._solve(rule)
        nesting = self._of[rule]
        if nesting is None or nesting.change:
            return None
        return dict(nesting.levels).get(0, 0) | (nesting.first if nesting.may_be_empty else 0)

    def _solve(self, rule: str) -> None:
        calls = {name: calls_of(tree) for name, tree in reachable(Call(rule), self._rules).items()}
        for component in components(calls):
            if all(name in self._of for name in component):
                continue
            self._of |= dict.fromkeys(component, _NO_WORDS)
            callers: dict[str, list[str]] = {name: [] for name in component}
            for name in component:
                for callee in calls[name] & callers.keys():
                    callers[callee].append(name)
            todo = dict.fromkeys(component)
            while todo:  # levels rise, and what differs can't be told: that ends
                name, _ = todo.popitem()
                found = self._nesting(self._rules[name])
                if found != self._of[name]:
                    self._of[name] = found
                    todo |= dict.fromkeys(callers[name])

    def _nesting(self, node: Node) -> Nesting | None:
        match node:
            case Literal(text):
                return _of_text(text.encode())
            case Marker(text):
                symbol = self._symbols.get(text)
                return _of_text(text.encode()) if symbol is None else Nesting(first=1 << 256 + symbol)
            case Leaf(_, terminal):
                return self._of_leaf(terminal)
            case Call(rule):
                return self._of[rule]
            case Sequence(items):
                return _folded(_joined, map(self._nesting, items), _EMPTY_WORD)
            case Choice(items):
                return _folded(_either, map(self._nesting, items), _NO_WORDS)
            case Optional(item):
                return _folded(_either, (self._nesting(item), _EMPTY_WORD), _NO_WORDS)
            case Repeat(item, low, high):
                return _repeated(self._nesting(item), low, high)
            case Distinct(item) | Element(item):
                return self._nesting(item)

    def _of_leaf(self, terminal: Terminal) -> Nesting | None:
        if isinstance(terminal, JsonString):
            return Nesting(first=1 << _QUOTE)
        state = self._library.start(terminal)
        bytes_ = self._library.bytes_of(state)
        if bytes_ & _STRUCTURE:
            return None
        return Nesting(0, ((0, bytes_),), self._library.first(state), self._library.is_accepting(state))


def _folded(
    combine: Callable[[Nesting, Nesting], Nesting | None], parts: Iterable[Nesting | None], start: Nesting
) -> Nesting | None:
    """Some nestings combined from the left; None where one is not known."""
    found: Nesting | None = start
    for part in parts:
        found = None if found is None or part is None else combine(found, part)
    return found


@lru_cache(maxsize=4096)
def _of_text(data: bytes) -> Nesting | None:
    """The nesting of one word; None where it ends within a string."""
    depth = 0
    levels: dict[int, int] = {}
    in_string = is_escaped = False
    for place, byte in enumerate(data):
        if place and depth <= 0:
            levels[depth] = levels.get(depth, 0) | 1 << byte
        if in_string:
            if is_escaped:
                is_escaped = False
            elif byte == _BACKSLASH:
                is_escaped = True
            elif byte == _QUOTE:
                in_string, depth = False, depth - 1
        elif byte == _QUOTE:
            in_string, depth = True, depth + 1
        else:
            depth += (byte in _OPENING) - (byte in _CLOSING)
    if in_string:
        return None
    return Nesting(depth, tuple(sorted(levels.items())), 1 << data[0]) if data else _EMPTY_WORD


def _joined(one: Nesting, other: Nesting) -> Nesting | None:
    """The nesting of two words in a row."""
    if not (one.has_words and other.has_words):
        return _NO_WORDS
    if one == _EMPTY_WORD:
        return other
    levels = dict(one.levels)
    for depth, bytes_ in ((0, other.first), *other.levels):
        if (at := one.change + depth) <= 0 and bytes_:
            levels[at] = levels.get(at, 0) | bytes_
    if levels and min(levels) < -_DEEPEST:
        return None
    first = one.first | (other.first if one.may_be_empty else 0)
    may_be_empty = one.may_be_empty and other.may_be_empty
    return Nesting(one.change + other.change, tuple(sorted(levels.items())), first, may_be_empty)


def _either(one: Nesting, other: Nesting) -> Nesting | None:
    if not (one.has_words and other.has_words):
        return one if one.has_words else other
    if one.change != other.change:
        return None
    levels = dict(one.levels)
    for depth, bytes_ in other.levels:
        levels[depth] = levels.get(depth, 0) | bytes_
    may_be_empty = one.may_be_empty or other.may_be_empty
    return Nesting(one.change, tuple(sorted(levels.items())), one.first | other.first, may_be_empty)


def _repeated(item: Nesting | None, low: int, high: int | None) -> Nesting | None:
    """The nesting of an item some times in a row: known where the item closes all that it opens, or comes once."""
    if high == 0:
        return _EMPTY_WORD
    if item is None or not item.has_words:
        return item if item is None or low else _EMPTY_WORD
    if (low, high) == (1, 1):
        return item
    if item.change:
        return None
    several = item if high == 1 else _folded(_either, (item, _joined(item, item)), _NO_WORDS)
    return several if low else _folded(_either, (several, _EMPTY_WORD), _NO_WORDS)
