"""How JSON is spelled in a grammar: patterns of its terminals, and literals of given values.

One spelling of space (`", "` and `": "`), UTF-8 and `\\u` escapes both; no lone surrogates, so that every text decodes. A
string can be kept from spelling a dialect's markers, and from decoding to a text that begins with a sigil.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from routine_grammar.errors import GrammarError
from routine_grammar.grammar.terminals import JsonString
from routine_grammar.grammar.tree import Leaf, Literal, Node, choice
from routine_grammar.patterns.text import escape, trie_of

_HEX = "[0-9a-fA-F]"
_SHORT_ESCAPE = r"\\[\"\\/bfnrt]"
_PAIR = rf"\\u[dD][89abAB]{_HEX}{{2}}\\u[dD][c-fC-F]{_HEX}{{2}}"
_SINGLE = rf"\\u(?:[0-9a-cA-CefEF]{_HEX}{{3}}|[dD][0-7]{_HEX}{{2}})"
_ESCAPES = f"{_SHORT_ESCAPE}|{_SINGLE}|{_PAIR}"
_SIGIL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

NULL = Literal("null")
BOOLEAN = choice(Literal("true"), Literal("false"))


@dataclass(frozen=True, slots=True)
class JsonForm:
    """The terminals that a grammar of JSON values is built of.

    `closed`: objects that say nothing of additional properties have none. `sigil`: no string begins with it; names of
    properties may. `escaped`: characters that are only spelled as escapes.
    """

    string: Leaf
    name: Leaf
    integer: Leaf
    number: Leaf
    closed: bool = False
    markers: tuple[str, ...] = ()
    sigil: str = ""
    escaped: str = ""


# Integers as they are, and as libraries write large floats: from 1e16 on no float has a digit behind the point. What a float
# can't hold would be read as infinity, which is no integer.
_PLAIN_INTEGER = r"-?(?:0|[1-9][0-9]*)(?:\.0+)?"
_FROM_16 = "(?:1[6-9]|[2-9][0-9]|[12][0-9]{2}|30[0-7])"
_LARGE_INTEGER = (
    rf"-?[1-9](?:(?:\.0+)?[eE]\+?0*(?:[0-9]|1[0-5]|{_FROM_16})|\.[0-9]{{1,16}}[eE]\+?0*{_FROM_16})"
    r"|-?1(?:\.(?:0+|[0-6][0-9]{0,15}))?[eE]\+?0*308"
)
_STRING = Leaf("STRING", JsonString())
EXACT = JsonForm(
    _STRING,
    _STRING,
    Leaf("INTEGER", rf"{_PLAIN_INTEGER}|{_LARGE_INTEGER}"),
    Leaf("NUMBER", r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"),
)


_CONSTANTS: Mapping[bool | None, Literal] = {None: Literal("null"), True: Literal("true"), False: Literal("false")}


def turn_form(markers: Iterable[str], sigil: str, escaped: str = "", number: Leaf | None = None) -> JsonForm:
    """The terminals of a turn: closed objects, strings without markers and sigil, numbers that every reader can hold.

    Integers have at most 19 digits, fractions 30, exponents two: no `1E400` that would be read as infinity. `number`: a
    dialect's own instead. A marker with an escaped character can't be spelled anyway.
    """
    markers = tuple(sorted(marker for marker in set(markers) if not set(marker) & set(escaped)))
    return JsonForm(
        Leaf("STRING", string_terminal(markers, sigil, escaped)),
        Leaf("NAME", string_terminal(markers, "", escaped)),
        Leaf("INTEGER", "-?(?:0|[1-9][0-9]{0,18})"),
        number or Leaf("NUMBER", r"-?(?:0|[1-9][0-9]{0,18})(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,2})?"),
        closed=True,
        markers=markers,
        sigil=sigil,
        escaped=escaped,
    )


def value_literal(value: Any, form: JsonForm) -> Node:
    """The spellings of one JSON value: as UTF-8, and with its non-ASCII characters escaped; markers always escaped.

    Raises `GrammarError` for a value that JSON can't hold, or (checked by `begins_with_sigil`) that reads as a key.
    """
    if value is None or isinstance(value, bool):
        return _CONSTANTS[value]
    if isinstance(value, str) and value.isascii() and "\x7f" not in value:  # which is escaped or not, as others are
        return Literal(_without_markers(json.encoder.encode_basestring_ascii(value), (*form.markers, *form.escaped)))
    try:
        texts = [json.dumps(value, ensure_ascii=ascii_only, allow_nan=False) for ascii_only in (False, True)]
    except (TypeError, ValueError, RecursionError) as error:
        raise GrammarError(f"{reprlib.repr(value)} is no JSON value: {error}") from error
    if any("\ud800" <= char <= "\udfff" for char in texts[0]):
        raise GrammarError(f"{texts[1]:.200} holds a lone surrogate, which is no text")
    return choice(*(Literal(_without_markers(text, (*form.markers, *form.escaped))) for text in texts))


def begins_with_sigil(value: Any, sigil: str) -> bool:
    """Whether a value holds, at any depth, a string that would be read as a memory key or as an escaped one."""
    todo = [value] if sigil else []
    while todo:
        match todo.pop():
            case str(text) if text.lstrip("\\").startswith(sigil):
                return True
            case dict(items):
                todo.extend(items.values())
            case list(items):
                todo.extend(items)
    return False


def _without_markers(text: str, markers: Sequence[str]) -> str:
    for marker in markers:
        text = text.replace(marker, f"\\u{ord(marker[0]):04x}{marker[1:]}")
    return text


def string_terminal(markers: Sequence[str] = (), sigil: str = "", escaped: str = "") -> JsonString:
    """JSON strings that spell no marker and don't decode to a text that begins with the sigil. Raises as `string_pattern`."""
    string_pattern(markers, sigil, escaped)
    return JsonString(never=(f"^{sigil}",) if sigil else (), markers=tuple(markers), escaped=escaped)


def string_pattern(markers: Sequence[str] = (), sigil: str = "", escaped: str = "") -> str:
    r"""A pattern of JSON strings that spell no marker and don't decode to a text that begins with the sigil.

    The characters of a marker stay reachable: its first one as an escape; those of `escaped` are only spelled so. Raises
    `GrammarError` where a marker's first character comes again inside a marker, or where the sigil is no identifier.

    A string is read as units (a character or an escape). Where `<` leads a marker, `<P` is the start of a marker that the
    string breaks off, and `<Q` one that another unit breaks: a body is `(unit | (<P)* <Q)* (<P)*`. A string that begins
    like the sigil goes on with a unit that differs from the sigil's next character, or ends.
    """
    avoid = _Avoid(markers, escaped)
    if not sigil:
        return f'"{avoid.body}"'
    if not _SIGIL.fullmatch(sigil):
        raise GrammarError(f"sigil {sigil!r} is no identifier")
    prefix, differs = "", f"{avoid.char(sigil[-1])}|{_other_escapes(sigil[-1])}"
    for char in reversed(sigil[:-1]):
        prefix = f"(?:{_spelled(char)}{prefix})?"
        differs = f"{avoid.char(char)}|{_other_escapes(char)}|{_spelled(char)}(?:{differs})"
    begins = f"(?:{differs}|{prefix}(?:{_SHORT_ESCAPE}|{_PAIR})){avoid.body}"
    return f'"(?:{begins}|{prefix}{avoid.led_body})"'


class _Avoid:
    """Pieces of patterns for strings that spell none of some markers."""

    def __init__(self, markers: Sequence[str], escaped: str = "") -> None:
        self._escaped = escaped
        self._leads = "".join(dict.fromkeys(marker[:1] for marker in markers))
        for marker in markers:
            if len(marker) < 2 or any(lead in marker[1:] for lead in self._leads):
                raise GrammarError(f"marker {marker!r} has a first character that comes again inside a marker")
        tries = {lead: trie_of([marker[1:] for marker in markers if marker[0] == lead]) for lead in self._leads}
        starts = {escape(lead): _starts(trie) for lead, trie in tries.items()}
        broken_off = "|".join(lead + start for lead, start in starts.items())
        broken = [lead + self._otherwise(trie) for lead, trie in zip(starts, tries.values(), strict=True)]
        broken += [f"{lead}{start}(?:{_ESCAPES})" for lead, start in starts.items()]
        unit = f"{self.char()}|{_ESCAPES}"
        self.body = f"(?:{unit})*"
        self.led_body = ""
        if markers:
            led = f"(?:{broken_off})*(?:{'|'.join(broken)})"
            self.body = f"(?:{unit}|{led})*(?:{broken_off})*"
            self.led_body = f"(?:{led}{self.body}|(?:{broken_off})*)"

    def char(self, *but: str) -> str:
        """Any character that stands for itself, but those that lead a marker and these."""
        excluded = "".join(escape(char) if char not in "-^" else "\\" + char for char in (*self._leads, *self._escaped, *but))
        return rf"[^\"\\\x00-\x1f{excluded}]"

    def _otherwise(self, trie: dict[str, Any]) -> str:
        """A start of a marker's rest, and then a character that does not go on with it."""
        ways = [self.char(*trie)]
        ways += [escape(char) + self._otherwise(below) for char, below in trie.items() if below]
        return f"(?:{'|'.join(ways)})" if len(ways) > 1 else ways[0]


def _starts(trie: dict[str, Any]) -> str:
    """Any proper start of a marker's rest, the empty one too."""
    ways = "|".join(escape(char) + _starts(below) for char, below in trie.items() if below)
    return f"(?:{ways})?" if ways else ""


def _spelled(char: str) -> str:
    """A character as itself or as its `\\u` escape."""
    digits = "".join(_any_case(digit) for digit in f"{ord(char):04x}")
    return rf"(?:{escape(char)}|\\u{digits})"


def _other_escapes(char: str) -> str:
    """The `\\u` escapes of one code unit, surrogates apart, that are not this ASCII character's."""
    digits = f"{ord(char):04x}"
    ways = [rf"[1-9a-cA-CefEF]{_HEX}{{3}}", rf"[dD][0-7]{_HEX}{{2}}"]
    ways += [f"{digits[:place]}{_other_digits(digits[place])}{_HEX}{{{3 - place}}}" for place in (1, 2)]
    ways.append(f"{digits[:2]}{_any_case(digits[2])}{_other_digits(digits[3])}")
    return rf"\\u(?:{'|'.join(ways)})"


def _any_case(digit: str) -> str:
    return digit if digit.isdigit() else f"[{digit}{digit.upper()}]"


def _other_digits(digit: str) -> str:
    return "[" + "".join(other for other in "0123456789abcdefABCDEF" if other.lower() != digit) + "]"
