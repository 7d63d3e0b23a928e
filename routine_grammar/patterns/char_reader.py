"""The characters of regular expressions: classes, escapes and flags, in the two dialects that are read."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, replace

from routine_grammar.errors import GrammarError, GrammarTooLargeError
from routine_grammar.patterns.charset import CHARS, DIGITS, HEX, NO_CHARS, CharSet, either_case, matching
from routine_grammar.patterns.unicode_properties import unicode_property

MAX_PATTERN_CHARS = 200_000
_LETTERS = CharSet.of((ord("a"), ord("z")), (ord("A"), ord("Z")))
_WORD = _LETTERS | DIGITS | CharSet.chars("_")
_ECMA_SPACE = CharSet.chars("\t\n\v\f\r \xa0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff") | CharSet.of((0x2000, 0x200A))
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}


@dataclass(frozen=True, slots=True)
class Flags:
    """What is said of characters: in either case, line breaks too by a dot, classes of ASCII alone, space as a comment."""

    ignores_case: bool = False
    dot_is_all: bool = False
    is_ascii: bool = False
    is_verbose: bool = False


class Dialect:
    """What the two dialects write differently."""

    dot_lacks = CharSet.chars("\n")
    empty_class = False  # whether `[]` is a class of nothing
    quantifies_from_none = True  # whether `{,3}` is a quantifier
    groups: tuple[str, ...] = ("?P<",)

    def kind(self, letter: str, flags: Flags) -> CharSet:
        """The characters of `\\d`, `\\w` or `\\s`."""
        raise NotImplementedError


class Python(Dialect):
    """As Python's `re`."""

    def kind(self, letter: str, flags: Flags) -> CharSet:
        """The characters of `\\d`, `\\w` or `\\s`: all of Unicode's."""
        if flags.is_ascii:
            return {"d": DIGITS, "w": _WORD, "s": CharSet.chars("\t\n\v\f\r ")}[letter]
        return matching(rf"\{letter}")


class Ecma(Dialect):
    """As JavaScript with the `u` flag."""

    dot_lacks = CharSet.chars("\n\r\u2028\u2029")
    empty_class = True
    quantifies_from_none = False
    groups = ("?P<", "?<")

    def kind(self, letter: str, flags: Flags) -> CharSet:
        """The characters of `\\d`, `\\w` or `\\s`: ASCII's, but for spaces."""
        return {"d": DIGITS, "w": _WORD, "s": _ECMA_SPACE}[letter]


class CharReader:
    """Reads the characters of one expression from a place on."""

    def __init__(self, text: str, dialect: Dialect) -> None:
        if len(text) > MAX_PATTERN_CHARS:
            raise GrammarTooLargeError(f"a pattern has {len(text)} characters; the bound is {MAX_PATTERN_CHARS}")
        self._text = text
        self._dialect = dialect
        self._place = 0
        self._flags = Flags()
        if any("\ud800" <= char <= "\udfff" for char in text):
            raise self.error("it holds a lone surrogate")

    def error(self, told: str) -> GrammarError:
        """An error about the expression."""
        return GrammarError(f"pattern {self._text[:200]!r} is not supported: {told}")

    def _declined(self, told: str) -> GrammarError:
        return self.error(f"{told}, at character {self._place}")

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

    def _with_flag(self, letter: str, on: bool) -> Flags:
        match letter:
            case "i":
                return replace(self._flags, ignores_case=on)
            case "s":
                return replace(self._flags, dot_is_all=on)
            case "a" if on and isinstance(self._dialect, Python):
                return replace(self._flags, is_ascii=True)
            case "u" if on and isinstance(self._dialect, Python):
                return replace(self._flags, is_ascii=False)
            case "x" if isinstance(self._dialect, Python):
                return replace(self._flags, is_verbose=on)
        raise self._declined(f"the flag or group `(?{letter}`")

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
        if not letter.isalnum():
            return CharSet.chars(letter)
        if letter == "x":
            return self._code(2)
        found = self._python_escape(letter) if isinstance(self._dialect, Python) else self._ecma_escape(letter)
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

    def _three_octals(self) -> CharSet | None:
        """What an escape of three octal digits stands for, in Python's `re`."""
        digits = self._next(3)
        if not isinstance(self._dialect, Python) or len(digits) < 3 or digits[0] not in "0123" or set(digits) - set("01234567"):
            return None
        self._place += 3
        return CharSet.of((int(digits, 8),) * 2)

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
        found = self._folded(found)
        return CHARS - found if is_negative else found

    def _folded(self, chars: CharSet) -> CharSet:
        """A set with its other cases, where these are ignored."""
        return either_case(chars, of_ascii=self._flags.is_ascii) & CHARS if self._flags.ignores_case else chars

    def _range(self, low: CharSet, high: CharSet) -> CharSet:
        if isinstance(self._dialect, Ecma) and (len(low) > 1 or len(high) > 1):
            return low | CharSet.chars("-") | high  # behind or before `\\w`: JavaScript takes it for a hyphen, without its `u`
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
        if (octal := self._three_octals()) is not None:
            return octal
        if self._next().isdigit() and self._next() != "0":
            raise self._declined("an octal escape")
        return self._escape()
