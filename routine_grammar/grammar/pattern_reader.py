"""Regular expressions to patterns: as Python's `re` means them, matching whole, or as JSON Schema does, found anywhere.

JSON Schema's are JavaScript's with the `u` flag (ECMA-262), as far as `re` does not take the same text otherwise. What is not
regular, or looks behind, is declined by name and place.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, lru_cache

from routine_grammar.errors import GrammarError, GrammarTooLargeError
from routine_grammar.grammar.charset import CHARS, DIGITS, ESCAPED, HEX, NO_CHARS, CharSet, either_case, matching
from routine_grammar.grammar.pattern import (
    EMPTY,
    TEXT,
    Both,
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
from routine_grammar.grammar.unit_automaton import are_disjoint

MAX_PATTERN_CHARS = 200_000
MAX_REPEAT = 100_000
_MAX_DEPTH = 100
_MAX_COPIES = 1_000  # of what stands behind lookaheads
_LETTERS = CharSet.of((ord("a"), ord("z")), (ord("A"), ord("Z")))
_WORD = _LETTERS | DIGITS | CharSet.chars("_")
_ECMA_SPACE = CharSet.chars("\t\n\v\f\r \xa0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff") | CharSet.of((0x2000, 0x200A))
_END = Chars(CharSet.of((ESCAPED, ESCAPED)))  # no character: where a terminal ends, for what may look past it
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}


@dataclass(frozen=True, slots=True)
class _Ahead:
    """The empty text where what follows begins with the item, or does not."""

    item: Pattern
    negative: bool


@dataclass(frozen=True, slots=True)
class _Flags:
    ignores_case: bool = False
    dot_is_all: bool = False
    is_ascii: bool = False


def read_whole(text: str, flags: str = "") -> Pattern:
    """What a regular expression matches whole, as `re.fullmatch` does; `flags` are letters of `re`'s: `a`, `i`, `s`, `u`.

    Raises `GrammarError` for what is malformed, no regular language, or a look around; `GrammarTooLargeError` past a bound.
    """
    reader = _Reader(text, _Python())
    reader.set_flags(flags)
    pattern = reader.read()
    if reader.looks:
        raise reader.error(f"{reader.looks} is not supported")
    return reader.followed(pattern, EMPTY)


def read_terminal(text: str, flags: str = "") -> Pattern:
    """What a terminal of a larger grammar matches: as `read_whole`, but it may look ahead as far as it reads itself.

    It has no anchors: what stands before and behind it is the grammar's.
    """
    reader = _Reader(text, _Python())
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
    reader = _Reader(text, _Ecma())
    pattern = reader.read()
    if reader.looks:
        return concat(TEXT, reader.followed(pattern, TEXT))
    return either(*map(_found, pattern.items if isinstance(pattern, Either) else (pattern,)))


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


class _Dialect:
    """What the two dialects write differently."""

    dot_lacks = CharSet.chars("\n")
    empty_class = False  # whether `[]` is a class of nothing
    quantifies_from_none = True  # whether `{,3}` is a quantifier
    groups: tuple[str, ...] = ("?P<",)

    def kind(self, letter: str, flags: _Flags) -> CharSet:
        raise NotImplementedError


class _Python(_Dialect):
    def kind(self, letter: str, flags: _Flags) -> CharSet:
        if flags.is_ascii:
            return {"d": DIGITS, "w": _WORD, "s": CharSet.chars("\t\n\v\f\r ")}[letter]
        return matching(rf"\{letter}")


class _Ecma(_Dialect):
    dot_lacks = CharSet.chars("\n\r\u2028\u2029")
    empty_class = True
    quantifies_from_none = False
    groups = ("?P<", "?<")

    def kind(self, letter: str, flags: _Flags) -> CharSet:
        return {"d": DIGITS, "w": _WORD, "s": _ECMA_SPACE}[letter]


class _Reader:
    """Reads one regular expression. `looks` and `edges` are what it looked ahead with, and what it asserted a place with."""

    def __init__(self, text: str, dialect: _Dialect) -> None:
        if len(text) > MAX_PATTERN_CHARS:
            raise GrammarTooLargeError(f"a pattern has {len(text)} characters; the bound is {MAX_PATTERN_CHARS}")
        self._text = text
        self._dialect = dialect
        self._place = 0
        self._flags = _Flags()
        self._copies = 0
        self.looks = ""
        self.edges = ""
        self.looks_past_end = False
        if any("\ud800" <= char <= "\udfff" for char in text):
            raise self.error("it holds a lone surrogate")

    def error(self, told: str) -> GrammarError:
        """An error about the expression."""
        return GrammarError(f"pattern {self._text[:200]!r} is not supported: {told}")

    def _declined(self, told: str) -> GrammarError:
        return self.error(f"{told}, at character {self._place}")

    def set_flags(self, letters: str) -> None:
        for letter in letters:
            self._flags = self._with_flag(letter, on=True)

    def read(self) -> Pattern:
        """The whole expression."""
        pattern = self._alternatives(0)
        if self._place < len(self._text):
            raise self._declined("a `)` without its `(`")
        return pattern

    # What is next

    def _next(self, count: int = 1) -> str:
        return self._text[self._place : self._place + count]

    def _take(self, text: str) -> bool:
        if self._text.startswith(text, self._place):
            self._place += len(text)
            return True
        return False

    def _until(self, end: str, what: str) -> str:
        stop = self._text.find(end, self._place)
        if stop < 0:
            raise self._declined(f"{what} does not end")
        found, self._place = self._text[self._place : stop], stop + len(end)
        return found

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
        while (char := self._next()) and char not in "|)":
            item = self._atom(depth)
            items.append(self._quantified(item))
        return concat(*items)

    def _quantified(self, item: Pattern) -> Pattern:
        start = self._place
        bounds = self._quantifier()
        if bounds is None:
            return item
        if isinstance(item, _Ahead | Edge) and not isinstance(self._dialect, _Python):
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
            case "$" if isinstance(self._dialect, _Python):
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
        return Chars(either_case(chars) & CHARS if self._flags.ignores_case else chars)

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
            if not self._until(">", f"the name of a group `({named}`").isidentifier():
                raise self._declined("a group with a name that is none")
        elif self._take("?#"):
            self._until(")", "a comment")
            return EMPTY
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
        if not isinstance(self._dialect, _Python):
            raise self._declined(f"a group that begins with `(?{self._next()}`")
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

    def _with_flag(self, letter: str, on: bool) -> _Flags:
        match letter:
            case "i":
                return replace(self._flags, ignores_case=on)
            case "s":
                return replace(self._flags, dot_is_all=on)
            case "a" if on:
                return replace(self._flags, is_ascii=True)
            case "u" if on:
                return replace(self._flags, is_ascii=False)
        raise self._declined(f"the flag or group `(?{letter}`")

    # Characters

    def _escaped(self) -> Pattern:
        """What stands behind a backslash, outside of classes."""
        letter = self._next()
        if letter in ("b", "B"):
            raise self._declined(f"a word boundary `\\{letter}`")
        if isinstance(self._dialect, _Python) and letter in ("A", "Z"):
            self._place += 1
            return self._edge(f"\\{letter}", Edge.START if letter == "A" else Edge.END)
        if letter == "k" or (letter.isdigit() and letter != "0"):
            raise self._declined(f"a back-reference `\\{letter}`")
        found = self._escape()
        return self._chars(found) if len(found) == 1 else Chars(found)

    def _escape(self) -> CharSet:
        """The characters that an escape stands for, behind its backslash."""
        letter = self._next()
        self._place += 1
        if not letter:
            raise self._declined("a backslash at the end")
        if letter in "dws":
            return self._dialect.kind(letter, self._flags)
        if letter in "DWS":
            return CHARS - self._dialect.kind(letter.lower(), self._flags)
        if letter in _CONTROLS:
            return CharSet.chars(_CONTROLS[letter])
        if not letter.isalnum() and letter != "_":
            return CharSet.chars(letter)
        if letter == "x":
            return self._code(2)
        found = self._python_escape(letter) if isinstance(self._dialect, _Python) else self._ecma_escape(letter)
        if found is None:
            self._place -= 1
            raise self._declined(f"an escape `\\{letter}`")
        return found

    def _python_escape(self, letter: str) -> CharSet | None:
        match letter:
            case "0":
                return self._octal()
            case "u":
                return self._code(4)
            case "U":
                return self._code(8)
            case "a":
                return CharSet.chars("\a")
            case "N" if self._take("{"):
                name = self._until("}", "a character's name")
                try:
                    return CharSet.chars(unicodedata.lookup(name))
                except KeyError:
                    raise self._declined(f"no character of the name {name!r:.80}") from None
        return None

    def _ecma_escape(self, letter: str) -> CharSet | None:
        match letter:
            case "0" if not self._next().isdigit():
                return CharSet.chars("\0")
            case "u" if self._take("{"):
                return self._char(self._until("}", "an escape `\\u{`"))
            case "u":
                return self._code(4, pairs=True)
            case "c" if self._next() and ord(self._next()) in _LETTERS:
                self._place += 1
                return CharSet.of((ord(self._text[self._place - 1]) % 32,) * 2)
            case "p" | "P" if self._take("{"):
                found = self._property(self._until("}", "a property"))
                return CHARS - found if letter == "P" else found
        return None

    def _octal(self) -> CharSet:
        digits = ""
        while len(digits) < 2 and self._next() and self._next() in "01234567":
            digits += self._next()
            self._place += 1
        return CharSet.of((int(digits or "0", 8),) * 2)

    def _code(self, count: int, *, pairs: bool = False) -> CharSet:
        digits = self._next(count)
        if len(digits) < count:
            raise self._declined(f"an escape of fewer than {count} hexadecimal digits")
        self._place += count
        if pairs and digits[:2].lower() in ("d8", "d9", "da", "db") and self._take("\\u"):
            second = self._next(4)
            self._place += 4
            if all(ord(digit) in HEX for digit in digits + second) and second[:2].lower() in ("dc", "dd", "de", "df"):
                code = 0x10000 + ((int(digits, 16) & 0x3FF) << 10 | int(second, 16) & 0x3FF)
                return CharSet.of((code, code))
        return self._char(digits)

    def _char(self, digits: str) -> CharSet:
        """The character of a hexadecimal number."""
        if not digits or len(digits) > 8 or not all(ord(digit) in HEX for digit in digits):
            raise self._declined(f"{digits!r:.20} for a hexadecimal number")
        code = int(digits, 16)
        if code not in CHARS:
            raise self._declined(f"{digits!r:.20}, which is no character")
        return CharSet.of((code, code))

    def _property(self, name: str) -> CharSet:
        found = unicode_property(name)
        if found is None:
            raise self._declined(f"the property {name!r:.80}")
        return found

    def _class(self) -> CharSet:
        """A character class, behind its bracket."""
        is_negative = self._take("^")
        found = NO_CHARS
        first = True
        while True:
            if self._place >= len(self._text):
                raise self._declined("a `[` without its `]`")
            if self._next() == "]" and (not first or self._dialect.empty_class):
                self._place += 1
                break
            first = False
            low = self._member()
            if self._next() == "-" and self._next(2) != "-]" and len(self._next(2)) == 2:
                self._place += 1
                found |= self._range(low, self._member())
            else:
                found |= low
        if self._flags.ignores_case:
            found = either_case(found) & CHARS
        return CHARS - found if is_negative else found

    def _range(self, low: CharSet, high: CharSet) -> CharSet:
        if len(low) != 1 or len(high) != 1 or low.ranges[0] > high.ranges[0]:
            raise self._declined("a range that has no two ends in order")
        return CharSet.of((low.ranges[0][0], high.ranges[0][1])) & CHARS

    def _member(self) -> CharSet:
        char = self._next()
        self._place += 1
        if char != "\\":
            return CharSet.chars(char)
        if self._take("b"):
            return CharSet.chars("\b")
        if self._next().isdigit() and self._next() != "0":
            raise self._declined("an octal escape")
        return self._escape()

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


@cache
def unicode_property(name: str) -> CharSet | None:
    """The characters of a general category (`L`, `Lu`, `General_Category=Letter` …) or of a few other properties, else None."""
    name = name.removeprefix("General_Category=").removeprefix("gc=")
    category = _CATEGORIES.get(name, name)
    if name in _PROPERTIES:
        return _PROPERTIES[name]()
    if category == "LC":
        return _of_category("Lu") | _of_category("Ll") | _of_category("Lt")
    found = CharSet.of(
        *(bounds for long in _by_category() if long.startswith(category) for bounds in _by_category()[long].ranges)
    )
    return found if found and len(category) in (1, 2) else None


def _of_category(category: str) -> CharSet:
    return _by_category().get(category, NO_CHARS)


@cache
def _by_category() -> dict[str, CharSet]:
    ranges: dict[str, list[tuple[int, int]]] = {}
    for low, high in CHARS.ranges:
        start, current = low, unicodedata.category(chr(low))
        for code in range(low + 1, high + 1):
            category = unicodedata.category(chr(code))
            if category != current:
                ranges.setdefault(current, []).append((start, code - 1))
                start, current = code, category
        ranges.setdefault(current, []).append((start, high))
    return {category: CharSet.of(*found) for category, found in ranges.items()}


_PROPERTIES: dict[str, Callable[[], CharSet]] = {
    "Any": lambda: CHARS,
    "ASCII": lambda: CharSet.of((0, 0x7F)),
    "Assigned": lambda: CHARS - _of_category("Cn"),
    "ASCII_Hex_Digit": lambda: HEX,
    "AHex": lambda: HEX,
    "White_Space": lambda: matching(r"\s") - CharSet.of((0x1C, 0x1F)),
    "space": lambda: matching(r"\s") - CharSet.of((0x1C, 0x1F)),
}
_CATEGORIES = {
    "Letter": "L",
    "Cased_Letter": "LC",
    "Uppercase_Letter": "Lu",
    "Lowercase_Letter": "Ll",
    "Titlecase_Letter": "Lt",
    "Modifier_Letter": "Lm",
    "Other_Letter": "Lo",
    "Mark": "M",
    "Combining_Mark": "M",
    "Nonspacing_Mark": "Mn",
    "Spacing_Mark": "Mc",
    "Enclosing_Mark": "Me",
    "Number": "N",
    "Decimal_Number": "Nd",
    "digit": "Nd",
    "Letter_Number": "Nl",
    "Other_Number": "No",
    "Punctuation": "P",
    "punct": "P",
    "Connector_Punctuation": "Pc",
    "Dash_Punctuation": "Pd",
    "Open_Punctuation": "Ps",
    "Close_Punctuation": "Pe",
    "Initial_Punctuation": "Pi",
    "Final_Punctuation": "Pf",
    "Other_Punctuation": "Po",
    "Symbol": "S",
    "Math_Symbol": "Sm",
    "Currency_Symbol": "Sc",
    "Modifier_Symbol": "Sk",
    "Other_Symbol": "So",
    "Separator": "Z",
    "Space_Separator": "Zs",
    "Line_Separator": "Zl",
    "Paragraph_Separator": "Zp",
    "Other": "C",
    "Control": "Cc",
    "cntrl": "Cc",
    "Format": "Cf",
    "Private_Use": "Co",
    "Unassigned": "Cn",
}


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
