"""Kinds of numbers and of strings: what two have in common, and what they hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from routine_grammar.grammar.json_number import Bound, decimal_of
from routine_grammar.grammar.schema.shapes import NOTHING, Number, Shape, String
from routine_grammar.patterns.automaton import automaton_of, is_empty
from routine_grammar.patterns.finite import texts_found
from routine_grammar.patterns.pattern import TEXT, Not, Pattern, both
from routine_grammar.patterns.reader import found_in, read_search
from routine_grammar.patterns.telling import told_apart
from routine_grammar.patterns.text import escape

MAX_TRIED = 1_000  # texts that are tried one by one
MAX_NAMES_TOGETHER = 1_000  # in one expression


def least(one: int | None, other: int | None) -> int | None:
    """The lesser of two bounds, where None is none."""
    return other if one is None else one if other is None else min(one, other)


def meet_numbers(one: Number, other: Number) -> Shape:
    """The numbers that are of both kinds."""
    low = _tighter(one.low, other.low, max)
    high = _tighter(one.high, other.high, min)
    if _is_crossed(low, high):
        return NOTHING
    integer, never = one.is_integer or other.is_integer, one.never | other.never
    multiples = one.multiples | other.multiples
    plain = other.plain if one.plain is None else one.plain
    if multiples & never or (integer and 1 in never) or other.plain not in (None, plain):
        return NOTHING
    return Shape((Number(low, high, multiples, integer, never, plain, one.pointer),))


def _is_crossed(low: Bound | None, high: Bound | None) -> bool:
    """Whether no number lies within two bounds."""
    if low is None or high is None:
        return False
    return low.value > high.value or (low.value == high.value and (low.is_open or high.is_open))


def _tighter(one: Bound | None, other: Bound | None, choose: Callable[[Decimal, Decimal], Decimal]) -> Bound | None:
    if one is None or other is None:
        return other if one is None else one
    if one.value == other.value:
        return Bound(one.value, one.is_open or other.is_open)
    return one if choose(one.value, other.value) == one.value else other


def meet_strings(one: String, other: String) -> Shape:
    """The strings that are of both kinds."""
    low, high = max(one.low, other.low), least(one.high, other.high)
    if high is not None and low > high:
        return NOTHING
    met = String(one.found | other.found, one.never | other.never, low, high, one.pointer)
    return NOTHING if (met.found or met.never) and is_none(met) else Shape((met,))


def is_none(kind: String) -> bool:
    """Whether there are no strings of a kind, whatever its bounds on their length."""
    endless = frozenset(text for text in kind.never if texts_found(text) is None)
    if not kind.found and not endless:
        return False
    for text in kind.found:
        if (few := texts_found(text)) is not None and len(few) <= MAX_TRIED:
            return not any(string_holds(kind, one) for one in few)
    return _is_finite(kind.found, endless) and is_empty(_search(kind.found, kind.never))


@lru_cache(maxsize=1024)
def _is_finite(found: frozenset[str], never: frozenset[str]) -> bool:
    return automaton_of(_search(found, never)).is_finite


@lru_cache(maxsize=1024)
def _search(found: frozenset[str], never: frozenset[str]) -> Pattern:
    parts = [read_search(pattern) for pattern in sorted(found)]
    return both(TEXT, *parts, *(Not(read_search(pattern)) for pattern in sorted(never)))


def one_of(names: list[str]) -> str:
    """An expression of JSON Schema that is found in these texts alone."""
    return f"^(?:{'|'.join(map(escape, sorted(names)))})$"


def listed_by_patterns(names: Sequence[str], patterns: Sequence[str]) -> list[tuple[frozenset[str], String]]:
    """Names by which patterns are found in them: all of one kind together."""
    found: dict[frozenset[str], list[str]] = {}
    for name in dict.fromkeys(names):
        found.setdefault(frozenset(pattern for pattern in patterns if found_in(pattern, name)), []).append(name)
    return [
        (matched, String(found=frozenset((one_of(some),))))
        for matched, every in found.items()
        for some in (every[place : place + MAX_NAMES_TOGETHER] for place in range(0, len(every), MAX_NAMES_TOGETHER))
    ]


@lru_cache(maxsize=256)
def split_by_patterns(kind: String, patterns: tuple[str, ...]) -> tuple[tuple[frozenset[str], String], ...]:
    """The strings of a kind by which patterns are found in them, its bounds on their length aside; none where there are none.

    Raises `GrammarError` past the bounds on states.
    """
    if not patterns:
        return ((frozenset(), kind),)
    told = told_apart(_search(kind.found, kind.never), [read_search(pattern) for pattern in patterns])
    found = []
    for matched in sorted(told, key=lambda numbers: (len(numbers), sorted(numbers))):
        beyond = {number for other in told if other > matched for number in other - matched}
        every, never = (frozenset(patterns[number] for number in numbers) for numbers in (matched, beyond))
        found.append((every, replace(kind, found=kind.found | every, never=kind.never | never)))
    return tuple(found)


def number_holds(kind: Number, value: float) -> bool:
    """Whether a number is of a kind; raises `GrammarError` for one that is not finite."""
    number = Fraction(decimal_of(value))
    if kind.low is not None and not (number > kind.low.value or (number == kind.low.value and not kind.low.is_open)):
        return False
    if kind.high is not None and not (number < kind.high.value or (number == kind.high.value and not kind.high.is_open)):
        return False
    if kind.plain not in (None, isinstance(value, int)):
        return False
    if kind.is_integer and number.denominator != 1:
        return False
    if any((number / Fraction(multiple)).denominator == 1 for multiple in kind.never):
        return False
    return all((number / Fraction(multiple)).denominator == 1 for multiple in kind.multiples)


def string_holds(kind: String, text: str) -> bool:
    """Whether a text is of a kind."""
    sized = kind.low <= len(text) and (kind.high is None or len(text) <= kind.high)
    return sized and all(found_in(one, text) for one in kind.found) and not any(found_in(one, text) for one in kind.never)
