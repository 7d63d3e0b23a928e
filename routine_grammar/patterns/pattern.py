"""Patterns: regular languages as expressions over units (`charset`), with intersection and complement.

What a regular expression, a JSON string or a number is before it is text or an automaton.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from routine_grammar.patterns.charset import CHARS, CharSet
from routine_grammar.patterns.hashed import Hashed, hashed_once


@dataclass(frozen=True, slots=True)
class Chars:
    """One unit of a set."""

    chars: CharSet


@hashed_once
@dataclass(frozen=True, slots=True)
class Concat(Hashed):
    """All items, one after the other."""

    items: tuple[Pattern, ...]


@hashed_once
@dataclass(frozen=True, slots=True)
class Either(Hashed):
    """Any one of the items; without items nothing at all."""

    items: tuple[Pattern, ...]


@hashed_once
@dataclass(frozen=True, slots=True)
class Times(Hashed):
    """The item `low` to `high` times; `high` None without an upper bound."""

    item: Pattern
    low: int
    high: int | None


@hashed_once
@dataclass(frozen=True, slots=True)
class Both(Hashed):
    """What all items match."""

    items: tuple[Pattern, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Whatever the item does not match, of any units at all."""

    item: Pattern


@dataclass(frozen=True, slots=True)
class Multiple:
    """Decimal digits, points among them, whose number without the points is a multiple of `divisor`; no digit at all is 0."""

    divisor: int


class Edge(Enum):
    """The empty text, at the beginning or at the end of the whole text only."""

    START = "^"
    END = "$"


@dataclass(frozen=True, slots=True)
class Boundary:
    """The empty text between a character of `words` and one that is not, or an end of the text; `negative`: elsewhere.

    `of_empty`: whether the empty text has such a place.
    """

    words: CharSet
    negative: bool = False
    of_empty: bool = False


Pattern = Chars | Concat | Either | Times | Both | Not | Multiple | Edge | Boundary
EMPTY = Concat(())
NOTHING = Either(())
CHAR = Chars(CHARS)
TEXT = Times(CHAR, 0, None)


def literal(text: str) -> Pattern:
    """Exactly this text."""
    return concat(*(Chars(CharSet.chars(char)) for char in text))


def concat(*items: Pattern) -> Pattern:
    """Items in a row, nested rows flattened."""
    flat = [part for item in items for part in (item.items if isinstance(item, Concat) else (item,))]
    return flat[0] if len(flat) == 1 else Concat(tuple(flat))


def either(*items: Pattern) -> Pattern:
    """Any of the items, each once; single characters become one set."""
    flat = [part for item in items for part in (item.items if isinstance(item, Either) else (item,))]
    chars = [part.chars for part in flat if isinstance(part, Chars)]
    others: list[Pattern] = list(dict.fromkeys(part for part in flat if not isinstance(part, Chars)))
    if chars:
        others.insert(0, Chars(CharSet.of(*(bounds for part in chars for bounds in part.ranges))))
    return others[0] if len(others) == 1 else Either(tuple(others))


def both(*items: Pattern) -> Pattern:
    """What all of the items match."""
    flat = tuple(dict.fromkeys(part for item in items for part in (item.items if isinstance(item, Both) else (item,))))
    return flat[0] if len(flat) == 1 else Both(flat)


def optional(item: Pattern) -> Pattern:
    """The item or nothing."""
    return Times(item, 0, 1)


def words(texts: Iterable[str]) -> Pattern:
    """Any of these texts, as a trie: nothing of it is tried twice."""
    sorted_texts = sorted(set(texts))
    return _trie(sorted_texts, 0) if sorted_texts else NOTHING


def _trie(texts: Sequence[str], depth: int) -> Pattern:
    """Any of sorted texts that begin alike up to `depth`, from there on."""
    if len(texts) == 1:
        return literal(texts[0][depth:])
    first, last = texts[0], texts[-1]
    shared = depth
    while shared < len(first) and first[shared] == last[shared]:
        shared += 1
    ways: list[Pattern] = []
    place = 0
    if len(first) == shared:
        ways.append(EMPTY)
        place = 1
    while place < len(texts):
        end = place
        while end < len(texts) and texts[end][shared] == texts[place][shared]:
            end += 1
        ways.append(concat(literal(texts[place][shared]), _trie(texts[place:end], shared + 1)))
        place = end
    return concat(literal(first[depth:shared]), either(*ways))
