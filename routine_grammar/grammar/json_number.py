"""Numbers in JSON: which spellings have a value within bounds, or one that is a multiple, as patterns.

A number is spelled plainly (`-12.50`), or with an exponent behind one digit that is not zero (`1.5e-07`), as `json.dumps` and
JavaScript write floats: then exponents alone order numbers, whatever their digits are, and bounds are regular.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from math import gcd

from routine_grammar.effort import A_NUMBER, spend
from routine_grammar.errors import GrammarError, GrammarTooLargeError
from routine_grammar.patterns.charset import DIGITS, CharSet
from routine_grammar.patterns.pattern import (
    EMPTY,
    NOTHING,
    Chars,
    Multiple,
    Not,
    Pattern,
    Times,
    both,
    concat,
    either,
    literal,
    optional,
)

MAX_FLOAT = Decimal(sys.float_info.max)
MAX_DIGITS = 400  # of a bound, written out: the largest float has 309
MAX_DIVISOR = 5_000  # without its factors of ten: each rest is a state
_MANTISSA = 17  # the most digits that a float is written with

_DIGIT = Chars(DIGITS)
_ANY_DIGITS = Times(_DIGIT, 0, None)
_SOME_DIGITS = Times(_DIGIT, 1, None)
_NOT_ZERO = Chars(CharSet.of((ord("1"), ord("9"))))
_ZEROS = Times(literal("0"), 0, None)
_WHOLE = either(literal("0"), concat(_NOT_ZERO, _ANY_DIGITS))
_FRACTION = optional(concat(literal("."), Times(_DIGIT, 1, None)))
_NO_FRACTION = optional(concat(literal("."), Times(literal("0"), 1, None)))
_E = Chars(CharSet.chars("eE"))
_SIGN = optional(literal("-"))
PLAIN_INTEGER = concat(_SIGN, _WHOLE, _NO_FRACTION)


@dataclass(frozen=True, slots=True)
class Bound:
    """A bound on a number; an open one is itself outside."""

    value: Decimal
    is_open: bool = False


_Magnitudes = Callable[[Bound | None, Bound | None], Pattern]


def decimal_of(number: int | float | Decimal) -> Decimal:
    """A number of a schema as it is written; raises `GrammarError` for what is no finite number."""
    try:
        value = number if isinstance(number, Decimal) else Decimal(str(number) if isinstance(number, float) else number)
    except (InvalidOperation, ValueError) as error:
        raise GrammarError(f"{number!r:.80} is no number") from error
    if not value.is_finite():
        raise GrammarError(f"{number!r:.80} is no finite number")
    if value and (abs(value.adjusted()) > MAX_DIGITS or len(value.as_tuple().digits) > MAX_DIGITS):
        raise GrammarTooLargeError(f"the number {value:.20E} has more than {MAX_DIGITS} digits written out, the bound")
    return value


def number_pattern(low: Bound | None, high: Bound | None, multiple: Decimal | None, *, is_integer: bool) -> Pattern:
    """All spellings of the numbers within bounds that are multiples of `multiple`, and integers where that is asked for.

    Where multiples or integers are asked for, spellings with an exponent have a value with no digit behind the point of the
    multiple: `1.5e+16`. Raises `GrammarTooLargeError` where a multiple has too many rests.
    """
    if is_integer and multiple is None:
        shapes = [PLAIN_INTEGER, _multiples_with_exponent(Decimal(1))]
    elif multiple is None:
        shapes = [concat(_SIGN, _WHOLE, _FRACTION), concat(_SIGN, _with_exponent(_exponents(None, None)))]
    else:
        shapes = [concat(_SIGN, _plain_multiples(multiple)), _multiples_with_exponent(multiple)]
        if is_integer:
            shapes = [both(shapes[0], PLAIN_INTEGER), both(shapes[1], _multiples_with_exponent(Decimal(1)))]
    if low is not None or high is not None:
        shapes = [both(shapes[0], _within(low, high, _plain)), both(shapes[1], _within(low, high, _scientific))]
    return either(*shapes)


def no_multiples(numbers: Sequence[Decimal]) -> Pattern:
    """Spellings of numbers that are multiples of none of some; with an exponent only where all of those are integers.

    What has a negative exponent behind one digit is less than 1, and no multiple of an integer. Raises as `number_pattern`.
    """
    plain = both(concat(_SIGN, _WHOLE, _FRACTION), *(Not(concat(_SIGN, _plain_multiples(each))) for each in numbers))
    if any(each != each.to_integral_value() for each in numbers):
        return plain
    return either(plain, concat(_SIGN, _with_exponent(_exponents(None, -1))))


def _negated(bound: Bound | None) -> Bound | None:
    return None if bound is None else Bound(-bound.value, bound.is_open)


def _within(low: Bound | None, high: Bound | None, magnitudes: _Magnitudes) -> Pattern:
    """The spellings of numbers within bounds, by those of numbers that are not negative."""
    return either(magnitudes(low, high), concat(literal("-"), magnitudes(_negated(high), _negated(low))))


def _allows_none(low: Bound | None, high: Bound | None) -> bool:
    """Whether a lower bound, at least 0, and an upper one leave nothing."""
    if high is None:
        return False
    least = low if low is not None and low.value >= 0 else Bound(Decimal(0))
    return high.value < least.value or (high.value == least.value and (high.is_open or least.is_open))


def _plain(low: Bound | None, high: Bound | None) -> Pattern:
    """Numbers without sign and exponent, within bounds."""
    if _allows_none(low, high):
        return NOTHING
    parts = [concat(_WHOLE, _FRACTION)]
    if low is not None and (low.value > 0 or (low.value == 0 and low.is_open)):
        parts.append(_at_least(low))
    if high is not None:
        parts.append(_at_most(high))
    return both(*parts)


def _parts(value: Decimal) -> tuple[int, str]:
    """The whole part of a number that is not negative, and the digits of its fraction."""
    whole, _, fraction = f"{value:f}".partition(".")
    return int(whole), fraction.rstrip("0")


def _at_least(bound: Bound) -> Pattern:
    whole, fraction = _parts(bound.value)
    return either(
        concat(_whole_at_least(whole + 1), _FRACTION),
        concat(literal(str(whole)), _fraction(_more(fraction, bound.is_open), empty=not fraction and not bound.is_open)),
    )


def _at_most(bound: Bound) -> Pattern:
    whole, fraction = _parts(bound.value)
    below = concat(_whole_at_most(whole - 1), _FRACTION) if whole else NOTHING
    empty = bool(fraction) or not bound.is_open
    return either(below, concat(literal(str(whole)), _fraction(_less(fraction, bound.is_open), empty=empty)))


def _fraction(digits: Pattern, *, empty: bool) -> Pattern:
    """A point with these digits, of which there is one at least, or perhaps nothing."""
    pointed = concat(literal("."), digits)
    return optional(pointed) if empty else pointed


def _more(fraction: str, is_open: bool) -> Pattern:
    """Digits behind a point, one or more, that are at least, or more than, these."""
    rest: Pattern = concat(_ANY_DIGITS, _NOT_ZERO, _ANY_DIGITS) if is_open else _ANY_DIGITS if fraction else _SOME_DIGITS
    above = [concat(literal(begin), _between(digit, "9", 1), _ANY_DIGITS) for begin, digit in _beginnings(fraction)]
    return either(*above, concat(literal(fraction), rest))


def _less(fraction: str, is_open: bool) -> Pattern:
    """Digits behind a point, one or more, that are at most, or less than, these."""
    under = [concat(literal(begin), _between("0", digit, -1), _ANY_DIGITS) for begin, digit in _beginnings(fraction)]
    shorter = [literal(begin) for begin, _ in _beginnings(fraction)[1:]]
    return either(*under, *shorter, NOTHING if is_open else concat(literal(fraction or "0"), _ZEROS))


def _beginnings(digits: str) -> list[tuple[str, str]]:
    """What stands before each digit, and the digit. Patterns made of them are flat, however many digits there are."""
    return [(digits[:place], digit) for place, digit in enumerate(digits)]


def _between(low: str, high: str, past: int) -> Pattern:
    """One digit of those between two, the first (1) or the last (-1) not among them."""
    return Chars(CharSet.of((ord(low) + (past > 0), ord(high) - (past < 0))))


def _whole_at_least(number: int) -> Pattern:
    """Whole numbers without leading zeros from a number on."""
    if number <= 0:
        return _WHOLE
    digits = str(number)
    longer = concat(_NOT_ZERO, Times(_DIGIT, len(digits), None))
    above = [
        concat(literal(begin), _between(digit, "9", 1), Times(_DIGIT, left, left))
        for left, (begin, digit) in zip(reversed(range(len(digits))), _beginnings(digits), strict=True)
    ]
    return either(literal(digits), longer, *above)


def _whole_at_most(number: int) -> Pattern:
    """Whole numbers without leading zeros up to a number."""
    digits = str(number)
    shorter = concat(_NOT_ZERO, Times(_DIGIT, 0, len(digits) - 2)) if len(digits) > 1 else NOTHING
    under = [
        concat(literal(begin), _between("0" if begin else "1", digit, -1), Times(_DIGIT, left, left))
        for left, (begin, digit) in zip(reversed(range(len(digits))), _beginnings(digits), strict=True)
    ]
    return either(literal("0"), literal(digits), shorter, *under)


# With an exponent


def _with_exponent(exponents: Pattern) -> Pattern:
    """A digit that is not zero, others behind a point where there are any, and an exponent."""
    return concat(_NOT_ZERO, _FRACTION, _E, exponents)


def _exponents(low: int | None, high: int | None) -> Pattern:
    """Exponents within bounds, leading zeros and all."""
    plus, minus = optional(literal("+")), literal("-")
    ways: list[Pattern] = []
    if high is None or high >= 0:
        ways.append(concat(plus, _zeroed(max(low or 0, 0), high)))
    if low is None or low <= 0:
        ways.append(concat(minus, _zeroed(max(-high, 0) if high is not None else 0, None if low is None else -low)))
    return either(*ways)


def _zeroed(low: int, high: int | None) -> Pattern:
    """Whole numbers within bounds, with leading zeros or not."""
    if low == high:
        return concat(_ZEROS, literal(str(low)))
    parts = ([_whole_at_least(low)] if low or high is None else []) + ([] if high is None else [_whole_at_most(high)])
    return concat(_ZEROS, both(*parts)) if high is None or low <= high else NOTHING


def _scientific(low: Bound | None, high: Bound | None) -> Pattern:
    """Numbers with an exponent and without a sign, within bounds; none of them is 0."""
    if _allows_none(low, high):
        return NOTHING
    parts = []
    if low is not None and low.value > 0:
        exponent, mantissa = low.value.adjusted(), _mantissa(low)
        equal = both(_at_least(mantissa), concat(_NOT_ZERO, _FRACTION))
        higher = _with_exponent(_exponents(exponent + 1, None))
        parts.append(either(higher, concat(equal, _E, _exponents(exponent, exponent))))
    if high is not None:
        if high.value == 0:
            return NOTHING
        exponent, mantissa = high.value.adjusted(), _mantissa(high)
        equal = both(_at_most(mantissa), concat(_NOT_ZERO, _FRACTION))
        lower = _with_exponent(_exponents(None, exponent - 1))
        parts.append(either(lower, concat(equal, _E, _exponents(exponent, exponent))))
    return both(*parts) if parts else _with_exponent(_exponents(None, None))


def _mantissa(bound: Bound) -> Bound:
    return Bound(bound.value.scaleb(-bound.value.adjusted()), bound.is_open)


# Multiples


def _factors(multiple: Decimal) -> tuple[int, int]:
    """A multiple as `(divisor, exponent)` of `divisor * 10 ** exponent`, no factor of ten in the divisor."""
    _, digits, exponent = multiple.as_tuple()
    divisor = int("".join(map(str, digits)))
    assert isinstance(exponent, int)
    while divisor % 10 == 0:
        divisor, exponent = divisor // 10, exponent + 1
    if divisor > MAX_DIVISOR:
        raise GrammarTooLargeError(f"multiples of {divisor} have {divisor} rests; the bound is {MAX_DIVISOR}")
    return divisor, exponent


def _plain_multiples(multiple: Decimal) -> Pattern:
    """Multiples without sign and exponent."""
    divisor, exponent = _factors(multiple)
    if exponent >= 0:
        tens = both(_WHOLE, concat(Multiple(divisor), Times(literal("0"), exponent, exponent)))
        return concat(either(literal("0"), tens), _NO_FRACTION)
    ways: list[Pattern] = []
    for count in range(1 - exponent):
        # With fewer digits than the multiple has, the missing ones are zeros, and take part of the divisor.
        rest = divisor // _common(divisor, 10 ** (-exponent - count))
        fraction = concat(literal("."), Times(_DIGIT, count, count)) if count else EMPTY
        zeros = EMPTY if count < -exponent else _ZEROS
        ways.append(concat(both(concat(_WHOLE, fraction), Multiple(rest)), zeros))
    return either(*ways)


def _common(one: int, other: int) -> int:
    while other:
        one, other = other, one % other
    return one


def _multiples_with_exponent(multiple: Decimal) -> Pattern:
    """Multiples with an exponent so large that of the divisor all factors of ten's are in it, and a sign perhaps."""
    divisor, exponent = _factors(multiple)
    twos = fives = 0
    while divisor % 2 == 0:
        divisor, twos = divisor // 2, twos + 1
    while divisor % 5 == 0:
        divisor, fives = divisor // 5, fives + 1
    least = exponent + max(twos, fives)
    ways = []
    for count in range(_MANTISSA):
        fraction = concat(literal("."), Times(_DIGIT, count, count)) if count else EMPTY
        digits = both(concat(_NOT_ZERO, fraction), Multiple(divisor)) if divisor > 1 else concat(_NOT_ZERO, fraction)
        ways.append(concat(digits, _E, _exponents(least + count, None)))
    return concat(_SIGN, either(*ways))


def number_spellings(value: float) -> list[str]:
    """A number as a whole one, with a point, and as libraries write a float; zero with either sign."""
    spend(A_NUMBER)
    decimal = decimal_of(value)
    texts = [json.dumps(value)]
    if decimal == decimal.to_integral_value():
        texts += [f"{decimal:.0f}", f"{decimal:.1f}"]
    if abs(decimal) <= MAX_FLOAT and decimal_of(float(decimal)) == decimal:
        texts.append(repr(float(decimal)))
    texts = [text.removeprefix("-") if decimal == 0 else text for text in texts]
    return list(dict.fromkeys([*texts, *(f"-{text}" for text in texts if decimal == 0)]))


def least_common(multiples: Iterable[Decimal]) -> Decimal:
    """The least common multiple of decimal numbers."""
    found = Fraction(0)
    for multiple in multiples:
        one = Fraction(multiple)
        if not found:
            found = one
        else:
            scale = found.denominator * one.denominator // gcd(found.denominator, one.denominator)
            mine, others = int(found * scale), int(one * scale)
            found = Fraction(mine * others // gcd(mine, others), scale)
    return Decimal(found.numerator) / Decimal(found.denominator)
