"""Numbers within bounds and multiples, judged by exact fractions."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routine_grammar.api import compile_schema
from routine_grammar.errors import GrammarError, GrammarTooLargeError
from routine_grammar.grammar.json_number import Bound, decimal_of, number_pattern
from routine_grammar.patterns.automaton import automaton_of, is_empty
from routine_grammar.patterns.text import as_expression, pattern_to_regex
from tests.scale import SCALE

decimals = st.one_of(
    st.integers(-30, 30).map(Decimal),
    st.integers(-3_000, 3_000).map(lambda number: Decimal(number).scaleb(-2)),
    st.integers(-(10**6), 10**6).map(Decimal),
    st.floats(-1e18, 1e18)
    .map(lambda number: Decimal(repr(number)))
    .filter(lambda number: number == 0 or number.adjusted() > -12),
)
bounds = st.none() | st.builds(Bound, decimals, st.booleans())
MULTIPLES = ("1", "2", "0.01", "0.5", "3", "100", "1.5", "0.7", "25", "0.025", "1200", "86400")
multiples = st.none() | st.sampled_from(MULTIPLES).map(Decimal)


def spellings(number: Decimal) -> list[str]:
    """A number as people and libraries write it, and some others near by."""
    plain = f"{number:f}"
    as_float = float(number)
    written = [plain, json.dumps(as_float), f"{number:.3e}", f"{number:.0E}", f"{as_float:.17g}", str(int(number))]
    written += [plain + ("0" if "." in plain else ".0"), f"-{plain}", f"{plain}e0", f"0{plain}", f"{plain}."]
    return [text for text in dict.fromkeys(written) if not text.startswith("--")]


def is_json(text: str) -> bool:
    return re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", text) is not None


def is_normal(text: str) -> bool:
    """Whether a number is spelled as libraries do: an exponent only behind one digit that is not 0."""
    return re.fullmatch(r"-?(?:(0|[1-9][0-9]*)(\.[0-9]+)?|[1-9](\.[0-9]+)?[eE][+-]?[0-9]+)", text) is not None


def within(number: Fraction, low: Bound | None, high: Bound | None) -> bool:
    above = low is None or number > Fraction(low.value) or (number == Fraction(low.value) and not low.is_open)
    return above and (high is None or number < Fraction(high.value) or (number == Fraction(high.value) and not high.is_open))


@settings(max_examples=150 * SCALE, deadline=None)
@given(
    bounds, bounds, multiples, st.booleans(), st.lists(decimals, max_size=6), st.lists(st.integers(-1_000, 1_000), max_size=4)
)
def test_exactly_the_numbers_asked_for(
    low: Bound | None, high: Bound | None, multiple: Decimal | None, is_integer: bool, others: list[Decimal], factors: list[int]
) -> None:
    try:
        automaton = automaton_of(number_pattern(low, high, multiple, is_integer=is_integer))
    except GrammarTooLargeError:  # the digits of a bound times the rests of a multiple
        assert multiple == 86400
        return
    step = Decimal("0.001")
    near = [bound.value for bound in (low, high) if bound is not None]
    near += [other for value in near for other in (value + step, value - step, value + 1, value - 1, value * 10, value / 10)]
    near += [multiple * factor for factor in factors if multiple is not None]
    for text in dict.fromkeys(text for number in (*others, *near) for text in spellings(number)):
        taken = automaton.accepts([ord(char) for char in text])
        if not is_json(text):
            assert not taken, text
            continue
        value = Fraction(text)
        is_multiple = multiple is None or (value / Fraction(multiple)).denominator == 1
        expected = within(value, low, high) and is_multiple and (not is_integer or value.denominator == 1)
        if not expected or (is_normal(text) and ((multiple is None and not is_integer) or "e" not in text.lower())):
            assert taken == expected, text


@settings(max_examples=40 * SCALE, deadline=None)
@given(bounds, bounds, multiples, st.booleans(), st.lists(decimals, min_size=1, max_size=6))
def test_as_an_expression(
    low: Bound | None, high: Bound | None, multiple: Decimal | None, is_integer: bool, numbers: list[Decimal]
) -> None:
    form = re.compile(r"-?(?:0|[1-9][0-9]{0,9})(?:\.[0-9]{1,4})?")
    pattern = number_pattern(low, high, multiple, is_integer=is_integer)
    try:
        if is_empty(pattern):
            return
        automaton = automaton_of(pattern)
        expression = re.compile(pattern_to_regex(as_expression(pattern)))
    except GrammarTooLargeError:
        return
    for text in (text for number in numbers for text in spellings(number) if form.fullmatch(text)):
        assert (expression.fullmatch(text) is not None) == automaton.accepts([ord(char) for char in text]), text


@pytest.mark.parametrize(
    ("multiple", "text", "expected"),
    [
        ("1", "1e+20", True),
        ("1", "1.5e+16", True),
        ("1", "1.5e+00", False),
        ("3", "3e+30", True),
        ("3", "1e+30", False),
        ("0.01", "1e+22", True),
        ("7", "1.4e+18", True),
    ],
)
def test_large_floats_are_multiples_too(multiple: str, text: str, expected: bool) -> None:
    pattern = number_pattern(None, None, Decimal(multiple), is_integer=False)
    assert automaton_of(pattern).accepts([ord(char) for char in text]) is expected


def test_bounds_of_any_size() -> None:
    pattern = number_pattern(Bound(Decimal("-1e300")), Bound(Decimal("1e-300")), None, is_integer=False)
    for text, expected in {"-1e+300": True, "-1e+301": False, "1e-300": True, "1.1e-300": False, "0": True, "-5": True}.items():
        assert automaton_of(pattern).accepts([ord(char) for char in text]) is expected, text


@pytest.mark.parametrize("number", [math.inf, math.nan])
def test_what_is_no_finite_number(number: float) -> None:
    with pytest.raises(GrammarError, match="no finite number"):
        decimal_of(number)


def test_what_is_too_large() -> None:
    with pytest.raises(GrammarTooLargeError, match="the bound"):
        decimal_of(10**500)
    with pytest.raises(GrammarTooLargeError, match="multiples of 1000003 have 1000003 rests"):
        number_pattern(None, None, Decimal(1_000_003), is_integer=True)


@pytest.mark.parametrize("multiple", [5, 0.5, 3])
def test_a_multiple_is_no_number_that_is_read_as_infinity(multiple: float) -> None:
    grammar = compile_schema({"type": "number", "multipleOf": multiple})
    for text in ("15", "3e1", "1.5e+300", "1.5E+0307", "1.5e308", "-1.5e308"):
        assert grammar.accepts(text), text
    for text in ("1.8e308", "9e308", "3E309", "3E3281", "-3e400"):
        assert not grammar.accepts(text), text
