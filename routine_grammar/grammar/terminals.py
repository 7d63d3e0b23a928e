"""Terminals: what a leaf of a grammar tree matches, as a regular expression, a JSON string or number, or a bounded raw text.

Strings and numbers are given by what is asked of their values, since their spellings make long expressions: JSON escapes,
intersections, counts of thousands. `automaton_of_terminal` is what each means, `dump` and `load` are how they travel.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from decimal import Decimal
from functools import lru_cache
from typing import Any

from routine_grammar.errors import GrammarError
from routine_grammar.grammar.json_number import Bound, decimal_of, no_multiples, number_pattern
from routine_grammar.kept import kept
from routine_grammar.patterns.automaton import MAX_KEPT_BYTES, UnitAutomaton, automaton_of, bytes_of, make_automaton, quoted
from routine_grammar.patterns.charset import CHARS, CharSet
from routine_grammar.patterns.finite import others, texts_found
from routine_grammar.patterns.pattern import (
    Both,
    Boundary,
    Chars,
    Concat,
    Either,
    Not,
    Pattern,
    Times,
    both,
    concat,
    literal,
)
from routine_grammar.patterns.reader import read_search, read_terminal

_AS_THEY_ARE = CHARS - CharSet.chars('"\\') - CharSet.of((0, 0x1F))
_ANYTHING = Times(Chars(CHARS | CHARS.escapes), 0, None)
MAX_COUNT = 2**30  # from there on a bound is that of no text


@dataclass(frozen=True, slots=True)
class JsonString:
    """A JSON string, quotes and escapes included, by its text.

    Every expression of `found` is found in the text and none of `never` (as JSON Schema's `pattern` is), and it has `low` to
    `high` characters (None: any number). `markers` are texts that its spelling lacks, `escaped` characters that are only
    spelled as escapes.
    """

    found: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    low: int = 0
    high: int | None = None
    markers: tuple[str, ...] = ()
    escaped: str = ""

    @property
    def is_counted(self) -> bool:
        """Whether its length has bounds."""
        return self.low > 0 or self.high is not None

    @property
    def units(self) -> CharSet:
        """The characters as they are that it may have, and all escapes."""
        return (_AS_THEY_ARE - CharSet.chars(self.escaped)) | CHARS.escapes

    def spelled(self, pattern: Pattern) -> Pattern:
        """A pattern of texts as one of their spellings between the quotes, complements not yet bounded by `units`."""
        return _spelled(pattern, self.units)

    def parts(self) -> list[tuple[bool, Pattern]]:
        """What holds between the quotes, or (False) does not, but for the length; all spellings there are at first."""
        found = [(True, self.spelled(read_search(text))) for text in self.found]
        never = [(False, self.spelled(read_search(text))) for text in self.never]
        told = [(False, concat(_ANYTHING, literal(marker), _ANYTHING)) for marker in self.markers]
        return [(True, Times(Chars(self.units), 0, None)), *found, *never, *told]

    def inner(self, *, with_length: bool = True) -> Pattern:
        """The pattern of what stands between the quotes."""
        inner = [pattern if holds else Not(pattern) for holds, pattern in self.parts()]
        if with_length and self.is_counted:
            inner.append(Times(Chars(self.units), self.low, self.high))
        return both(*inner)


@dataclass(frozen=True, slots=True)
class JsonNumber:
    """A JSON number by its value: within bounds (decimal numbers; an open one is itself outside), a multiple, an integer.

    `never`: decimal numbers that it is no multiple of.
    `form`: an expression that its spelling matches too, as those of turns do; empty: any spelling.
    """

    low: str = ""
    high: str = ""
    low_is_open: bool = False
    high_is_open: bool = False
    multiple: str = ""
    is_integer: bool = False
    never: tuple[str, ...] = ()
    form: str = ""

    def pattern(self) -> Pattern:
        """The pattern of its spellings."""
        low = Bound(decimal_of(Decimal(self.low)), self.low_is_open) if self.low else None
        high = Bound(decimal_of(Decimal(self.high)), self.high_is_open) if self.high else None
        multiple = decimal_of(Decimal(self.multiple)) if self.multiple else None
        found = number_pattern(low, high, multiple, is_integer=self.is_integer)
        if self.never:
            found = both(found, no_multiples([decimal_of(Decimal(each)) for each in self.never]))
        return both(read_terminal(self.form), found) if self.form else found


@dataclass(frozen=True, slots=True)
class RawText:
    """A text as it is, and `end` behind it, by what is asked of it as of a `JsonString`; `form` is what it may be otherwise."""

    found: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    low: int = 0
    high: int | None = None
    form: str = ""
    end: str = ""

    def pattern(self) -> Pattern:
        """The pattern of the text and its end."""
        asked = [*map(read_search, self.found), *(Not(read_search(text)) for text in self.never)]
        length = [Times(Chars(CHARS), self.low, self.high)] if self.low or self.high is not None else []
        return concat(both(read_terminal(self.form), *asked, *length), literal(self.end))


Terminal = str | JsonString | JsonNumber | RawText


def automaton_of_terminal(terminal: Terminal) -> UnitAutomaton:
    """What a terminal matches, but for the length of strings that are counted.

    Raises `GrammarError` for an expression that can't be read, `GrammarTooLargeError` past a bound.
    """
    match terminal:
        case str(text):
            return automaton_of(read_terminal(text))
        case JsonString():
            return quoted(_others_of(terminal) or automaton_of(terminal.inner(with_length=False)))
        case JsonNumber():
            return _automaton_of_number(terminal)
        case RawText():
            return automaton_of(terminal.pattern())


@kept(MAX_KEPT_BYTES, bytes_of)
def _automaton_of_number(terminal: JsonNumber) -> UnitAutomaton:
    return make_automaton(terminal.pattern())  # kept by the terminal: the pattern is large


def _others_of(terminal: JsonString) -> UnitAutomaton | None:
    """What stands between the quotes where nothing is asked but that it is none of some texts; else None."""
    texts = [texts_found(text) for text in terminal.never]
    known = [few for few in texts if few is not None]
    if terminal.found or terminal.markers or not texts or len(known) < len(texts):
        return None
    return others(frozenset[str]().union(*known), terminal.units)


_KINDS: dict[str, tuple[type[JsonString | JsonNumber | RawText], dict[str, Any]]] = {
    kind.__name__: (kind, {field.name: getattr(kind(), field.name) for field in fields(kind)})
    for kind in (JsonString, JsonNumber, RawText)
}


def dump(terminal: Terminal) -> Any:
    """A terminal as JSON: an expression as it is, else an object with what is not as usual."""
    if isinstance(terminal, str):
        return terminal
    usual = type(terminal)()
    said = {name: value for name, value in asdict(terminal).items() if value != getattr(usual, name)}
    return {"kind": type(terminal).__name__, **said}


def load(value: Any) -> Terminal:
    """Read what `dump` wrote. Raises `GrammarError` for anything else."""
    if isinstance(value, str):
        return value
    try:
        kind, known = _KINDS[value["kind"]]
        said = {name: tuple(item) if isinstance(item, list) else item for name, item in value.items() if name != "kind"}
        for name, item in said.items():
            if not _is_like(item, known[name], name):
                raise GrammarError(f"malformed leaf in grammar text: {name} {item!r:.80}")
        return kind(**said)  # type: ignore[arg-type]
    except (KeyError, TypeError, AttributeError) as error:
        raise GrammarError(f"malformed leaf in grammar text: {value!r:.120}") from error


def _is_like(item: Any, usual: Any, name: str) -> bool:
    """Whether a value has the type of the usual one."""
    if name in ("low", "high") and not isinstance(usual, str):
        return type(item) is int and 0 <= item < MAX_COUNT
    if isinstance(usual, tuple):
        return isinstance(item, tuple) and all(isinstance(text, str) for text in item)
    return type(item) is type(usual)


def _spelled(pattern: Pattern, units: CharSet) -> Pattern:
    match pattern:
        case Chars(chars):
            return _spelled_chars(chars, units)
        case Concat(items):
            return Concat(tuple(_spelled(item, units) for item in items))
        case Either(items):
            return Either(tuple(_spelled(item, units) for item in items))
        case Both(items):
            return Both(tuple(_spelled(item, units) for item in items))
        case Times(item, low, high):
            return Times(_spelled(item, units), low, high)
        case Not(item):
            return Not(_spelled(item, units))
        case Boundary(chars):
            return replace(pattern, words=_spelled_chars(chars, units).chars)
        case _:
            return pattern


@lru_cache(maxsize=4096)
def _spelled_chars(chars: CharSet, units: CharSet) -> Chars:
    return Chars((chars & units) | chars.escapes)
