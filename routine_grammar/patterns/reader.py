"""Regular expressions to patterns: as Python's `re` means them, matching whole, or as JSON Schema does, found anywhere.

JSON Schema's are JavaScript's with the `u` flag (ECMA-262), as far as `re` does not take the same text otherwise. What is not
regular, or looks behind, is declined by name and place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from routine_grammar.effort import AN_ATOM, spend
from routine_grammar.errors import GrammarTooLargeError
from routine_grammar.patterns.automaton import are_disjoint, automaton_of
from routine_grammar.patterns.char_reader import CharReader, Dialect, Ecma, Python
from routine_grammar.patterns.charset import CHARS, ESCAPED, CharSet
from routine_grammar.patterns.pattern import (
    EMPTY,
    TEXT,
    Both,
    Boundary,
    Chars,
    Concat,
    Edge,
    Either,
    Not,
    Pattern,
    Times,
    both,
    concat,
    either,
    optional,
)

MAX_REPEAT = 100_000
_MAX_DEPTH = 100
_MAX_COPIES = 1_000  # of what stands behind lookaheads
_EMPTY_HAS_NO_BOUNDARY = re.fullmatch(r"\B", "") is not None  # to `re` since Python 3.14
_END = Chars(CharSet.of((ESCAPED, ESCAPED)))  # no character: where a terminal ends, for what may look past it


@dataclass(frozen=True, slots=True)
class _Ahead:
    """The empty text where what follows begins with the item, or does not."""

    item: Pattern
    negative: bool


def read_whole(text: str, flags: str = "") -> Pattern:
    """What a regular expression matches whole, as `re.fullmatch` does; `flags` are letters of `re`'s: `a`, `i`, `s`, `u`, `x`.

    Raises `GrammarError` for what is malformed, no regular language, or a look around; `GrammarTooLargeError` past a bound.
    """
    reader = _Reader(text, Python())
    reader.set_flags(flags)
    pattern = reader.read()
    if reader.looks:
        raise reader.error(f"{reader.looks} is not supported")
    return reader.followed(pattern, EMPTY)


@lru_cache(maxsize=512)
def read_terminal(text: str, flags: str = "") -> Pattern:
    """What a terminal of a larger grammar matches: as `read_whole`, but it may look ahead as far as it reads itself.

    It has no anchors: what stands before and behind it is the grammar's.
    """
    reader = _Reader(text, Python())
    reader.set_flags(flags)
    pattern = reader.read()
    if reader.edges:
        raise reader.error(f"it asserts a place by {reader.edges}, and it has to match whole in any case")
    if not reader.looks:
        return pattern
    whole = reader.followed(pattern, EMPTY)
    # With any text behind an end that lookaheads do not see, it has to match the same.
    reader.looks_past_end = True
    within, beyond = concat(whole, _END, TEXT), reader.followed(pattern, concat(_END, TEXT))
    if not (are_disjoint(within, Not(beyond)) and are_disjoint(beyond, Not(within))):
        raise reader.error(f"{reader.looks} looks further than what it matches, which is not supported")
    return whole


@lru_cache(maxsize=1024)
def read_search(text: str) -> Pattern:
    """The texts in which a JSON Schema `pattern` is found. Raises as `read_whole`."""
    reader = _Reader(text, Ecma())
    pattern = reader.read()
    if reader.looks:
        return concat(TEXT, reader.followed(pattern, TEXT))
    return either(*map(_found, pattern.items if isinstance(pattern, Either) else (pattern,)))


def found_in(pattern: str, text: str) -> bool:
    """Whether a JSON Schema `pattern` is found in a text, in time that grows with the text alone."""
    spend(AN_ATOM * (4 + len(text)))
    return automaton_of(read_search(pattern)).accepts([ord(char) for char in text])


def _found(pattern: Pattern) -> Pattern:
    """The texts in which a pattern without lookaheads is found; edges at its own edges need no looking for."""
    items = list(pattern.items) if isinstance(pattern, Concat) else [pattern]
    before: Pattern = TEXT
    behind: Pattern = TEXT
    if items[:1] == [Edge.START]:
        before, items = EMPTY, items[1:]
    if items[-1:] == [Edge.END]:
        behind, items = EMPTY, items[:-1]
    return concat(before, *items, behind)


class _Reader(CharReader):
    """Reads one regular expression. `looks` and `edges` are what it looked ahead with, and what it asserted a place with."""

    def __init__(self, text: str, dialect: Dialect) -> None:
        super().__init__(text, dialect)
        self._copies = 0
        self._group_names = set[str]()
        self.looks = ""
        self.edges = ""
        self.looks_past_end = False

    def set_flags(self, letters: str) -> None:
        for letter in letters:
            self._flags = self._with_flag(letter, on=True)

    def read(self) -> Pattern:
        """The whole expression."""
        pattern = self._alternatives(0)
        if self._place < len(self._text):
            raise self._declined("a `)` without its `(`")
        return pattern

    # Structure

    def _alternatives(self, depth: int) -> Pattern:
        if depth > _MAX_DEPTH:
            raise GrammarTooLargeError(f"a pattern is nested more than {_MAX_DEPTH} deep, the bound")
        ways = [self._row(depth)]
        while self._take("|"):
            ways.append(self._row(depth))
        return ways[0] if len(ways) == 1 else either(*ways)

    def _row(self, depth: int) -> Pattern:
        items: list[Pattern] = []
        self._skip_comments()
        if isinstance(self._dialect, Python) and self._quantifier() is not None:
            raise self._declined("a quantifier behind nothing")
        while (char := self._next()) and char not in "|)":
            is_place = char in "^$" or self._next(2) in ("\\A", "\\Z", "\\b", "\\B")
            item = self._atom(depth)
            self._skip_comments()
            items.append(self._quantified(item, is_place=is_place))
            self._skip_comments()
        return concat(*items)

    def _skip_comments(self) -> None:
        """Go past comments: they come between a pattern and its quantifier, too."""
        while True:
            if self._take("(?#"):
                self._until(")", "a comment")
            elif self._flags.is_verbose and self._next() and self._next() in " \t\n\r\v\f":
                self._place += 1
            elif self._flags.is_verbose and self._take("#"):
                end = self._text.find("\n", self._place)
                self._place = len(self._text) if end < 0 else end
            else:
                return

    def _quantified(self, item: Pattern, *, is_place: bool) -> Pattern:
        start = self._place
        bounds = self._quantifier()
        if bounds is None:
            return item
        if is_place or (isinstance(item, _Ahead | Edge | Boundary) and not isinstance(self._dialect, Python)):
            raise self._declined("a quantifier behind an assertion")
        if self._take("+"):
            raise self._declined("a possessive quantifier")
        self._take("?")  # a lazy one matches the same texts
        again = self._place
        if self._quantifier() is not None:
            self._place = again
            raise self._declined("a quantifier behind another one")
        low, high = bounds
        if high is not None and high < low:
            raise self._declined(f"between {low} and {high} times, by {self._text[start:again]!r}")
        if max(low, high or 0) > MAX_REPEAT:
            raise GrammarTooLargeError(f"a pattern repeats {max(low, high or 0)} times; the bound is {MAX_REPEAT}")
        return Times(item, low, high)

    def _quantifier(self) -> tuple[int, int | None] | None:
        for mark, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(mark):
                return bounds
        start = self._place
        if self._take("{"):
            low, comma, high = self._text[self._place : self._text.find("}", self._place)].partition(",")
            is_number = all(number.isascii() and number.isdigit() for number in (low, high) if number)
            some = low or (comma and self._dialect.quantifies_from_none and (high or True))
            if "}" in self._text[self._place :] and is_number and some and len(low + high) < 20:
                self._until("}", "a quantifier")
                return int(low or 0), int(high) if high else None if comma else int(low)
            self._place = start
        return None

    def _atom(self, depth: int) -> Pattern:
        spend(AN_ATOM)
        char = self._next()
        self._place += 1
        match char:
            case "(":
                return self._group(depth)
            case "[":
                return Chars(self._class())
            case ".":
                return Chars(CHARS if self._flags.dot_is_all else CHARS - self._dialect.dot_lacks)
            case "^":
                return self._edge("^", Edge.START)
            case "$" if isinstance(self._dialect, Python):
                # `re` lets one line break stand behind the end.
                return self._look("$", _Ahead(concat(optional(Chars(CharSet.chars("\n"))), Edge.END), False), is_edge=True)
            case "$":
                return self._edge("$", Edge.END)
            case "\\":
                return self._escaped()
            case "*" | "+" | "?":
                self._place -= 1
                raise self._declined(f"a quantifier `{char}` behind nothing")
        return self._chars(CharSet.chars(char))

    def _chars(self, chars: CharSet) -> Pattern:
        return Chars(self._folded(chars))

    def _edge(self, mark: str, edge: Edge) -> Pattern:
        self.edges = self.edges or mark
        return edge

    def _look(self, mark: str, ahead: _Ahead, *, is_edge: bool = False) -> Pattern:
        if is_edge:
            self.edges = self.edges or mark
        else:
            self.looks = self.looks or f"{mark}…)"
        return ahead  # type: ignore[return-value]

    def _group(self, depth: int) -> Pattern:
        before = self._flags
        ahead: str | None = None
        if self._take("?:"):
            pass
        elif self._next(2) in ("?=", "?!"):
            ahead = self._next(2)
            self._place += 2
        elif self._next(3) in ("?<=", "?<!"):
            raise self._declined("a look behind")
        elif named := next((mark for mark in self._dialect.groups if self._take(mark)), None):
            name = self._until(">", f"the name of a group `({named}`")
            if not name.isidentifier() or (name in self._group_names and isinstance(self._dialect, Python)):
                raise self._declined(f"a group with a name that is {'taken' if name in self._group_names else 'none'}")
            self._group_names.add(name)
        elif self._take("?"):
            if self._flagged(depth):
                return EMPTY
        elif self._take("*"):
            raise self._declined("a group that begins with a quantifier")
        inner = self._alternatives(depth + 1)
        if not self._take(")"):
            raise self._declined("a `(` without its `)`")
        self._flags = before
        return self._look(f"({ahead}", _Ahead(inner, ahead == "?!")) if ahead else inner

    def _flagged(self, depth: int) -> bool:
        """Take flags, of the rest of the expression or of a group; whether it is the former."""
        start = self._place
        on = True
        while (letter := self._next()) and letter not in ":)":
            self._place += 1
            if letter == "-" and on:
                on = False
            else:
                self._flags = self._with_flag(letter, on)
        if self._take(":"):
            return False
        if start != 2 or depth or not on:
            raise self._declined("flags that are not at the beginning")
        self._place += 1
        return True

    def _escaped(self) -> Pattern:
        """What stands behind a backslash, outside of classes."""
        letter = self._next()
        if letter in ("b", "B"):
            self._place += 1
            self.edges = self.edges or f"\\{letter}"
            of_empty = letter == "B" and (not isinstance(self._dialect, Python) or _EMPTY_HAS_NO_BOUNDARY)
            return Boundary(self._dialect.kind("w", self._flags), letter == "B", of_empty)
        if isinstance(self._dialect, Python) and letter in ("A", "Z"):
            self._place += 1
            return self._edge(f"\\{letter}", Edge.START if letter == "A" else Edge.END)
        if (octal := self._three_octals()) is not None:
            return self._chars(octal)
        if letter == "k" or (letter.isdigit() and letter != "0"):
            raise self._declined(f"a back-reference `\\{letter}`")
        found = self._escape()
        return self._chars(found) if len(found) == 1 else Chars(found)

    # Lookaheads

    def followed(self, item: Pattern | _Ahead, rest: Pattern) -> Pattern:
        """A pattern and what stands behind it, lookaheads become what holds for the two."""
        self._copies += 1
        if self._copies > _MAX_COPIES:
            raise self._declined("lookaheads in too many alternatives")
        match item:
            case _Ahead(inner, negative):
                held = self.followed(inner, TEXT)
                if self.looks_past_end:
                    held = concat(_past_end(held), optional(_END))
                return both(Not(held) if negative else held, rest)
            case Concat(items) if _looks(item):
                for part in reversed(items):
                    rest = self.followed(part, rest) if _looks(part) else concat(part, rest)
                return rest
            case Either(items) if _looks(item):
                return either(*(self.followed(part, rest) for part in items))
            case Times(inner, 0, 1) if _looks(inner):
                return either(self.followed(inner, rest), rest)
            case Times(inner, low, high) if _looks(inner):
                if low == high and low <= 4:
                    return self.followed(concat(*[inner] * low), rest)
                raise self._declined("a lookahead that is repeated")
            case _:
                return concat(item, rest)


def _past_end(pattern: Pattern) -> Pattern:
    """A pattern that does not see where a terminal ends."""
    match pattern:
        case Chars():
            return concat(optional(_END), pattern)
        case Concat(items):
            return Concat(tuple(map(_past_end, items)))
        case Either(items):
            return Either(tuple(map(_past_end, items)))
        case Both(items):
            return Both(tuple(map(_past_end, items)))
        case Times(item, low, high):
            return Times(_past_end(item), low, high)
        case Not(item):
            return Not(_past_end(item))
        case _:
            return pattern


def _looks(item: Pattern | _Ahead) -> bool:
    """Whether a lookahead is somewhere in a pattern."""
    todo: list[Pattern | _Ahead] = [item]
    while todo:
        match todo.pop():
            case _Ahead():
                return True
            case Concat(items) | Either(items) | Both(items):
                todo += items
            case Times(inner, _, _) | Not(inner):
                todo.append(inner)
    return False
