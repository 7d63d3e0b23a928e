"""Patterns: what `re` and JavaScript mean by them, intersections and complements, and expressions written back."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Callable

import pytest
from hypothesis import assume, event, example, given, settings
from hypothesis import strategies as st

from routine_grammar.errors import GrammarError, GrammarTooLargeError
from routine_grammar.patterns.automaton import are_disjoint, automaton_of, is_empty
from routine_grammar.patterns.charset import CHARS, ESCAPED, CharSet, matching
from routine_grammar.patterns.json_escapes import escapes_of
from routine_grammar.patterns.pattern import (
    TEXT,
    Chars,
    Edge,
    Multiple,
    Not,
    Pattern,
    Times,
    both,
    concat,
    either,
    literal,
    words,
)
from routine_grammar.patterns.reader import read_search, read_terminal, read_whole
from routine_grammar.patterns.text import as_expression, char_class, pattern_to_regex
from routine_grammar.patterns.unicode_properties import unicode_property
from tests.grammar.expressions import expressions, texts
from tests.scale import SCALE

CLASSES = (r"\d", r"\w", r"\s", r"\D", r"\W", r"\S")
PYTHON = (r"\b", r"\B", *CLASSES, "(?i:a)", "(?i:[^aé])", "(?s:.)", "(?-i:a)", "^", "$", r"\A", r"\Z", r"\0", r"\a")


def accepts(pattern: Pattern, text: str) -> bool:
    return automaton_of(pattern).accepts([ord(char) for char in text])


def compiled(expression: str) -> re.Pattern[str] | None:
    try:
        with warnings.catch_warnings(action="ignore"):
            return re.compile(expression)
    except re.error:
        return None


def read(reader: Callable[[str], Pattern], expression: str) -> Pattern | str:
    """The pattern, or why there is none."""
    try:
        return reader(expression)
    except GrammarError as error:
        return str(error).partition("supported: ")[2]


@settings(max_examples=400 * SCALE, deadline=None)
@given(expressions(*PYTHON), st.lists(texts | st.text("sSkKſK٣_", max_size=3), min_size=1, max_size=10))
def test_whole_is_what_re_matches_whole(expression: str, candidates: list[str]) -> None:
    judge = compiled(expression)
    pattern = read(read_whole, expression)
    if isinstance(pattern, str):
        event(f"declined: {pattern[:30]}")
        assert judge is None or "lookahead that is repeated" in pattern  # `$` is one, as it lets a line break follow
        return
    assert judge is not None
    for text in candidates:
        assert accepts(pattern, text) == (judge.fullmatch(text) is not None), text


@settings(max_examples=400 * SCALE, deadline=None)
@given(expressions("^", "$", r"\b", r"\B", looks=True), st.lists(texts, min_size=1, max_size=10))
def test_search_finds_what_re_finds(expression: str, candidates: list[str]) -> None:
    # `re` lets a line break follow `$`, JavaScript does not; its words are of ASCII, and the empty text has no end of one.
    judge = compiled("(?a)" + expression.replace("$", r"\Z").replace(r"\B", r"(?:(?=\Z)(?<![\s\S])|\B)"))
    pattern = read(read_search, expression)
    if isinstance(pattern, str):
        assert judge is None or any(what in pattern for what in ("behind an assertion", "is repeated", "many alternatives"))
        return
    assume(judge is not None)
    assert judge is not None
    for text in candidates:
        assert accepts(pattern, text) == (judge.search(text) is not None), text


@pytest.mark.parametrize(
    ("expression", "found", "missed"),
    [
        (r"^\d$", "0", "٣"),  # JavaScript's classes are ASCII
        (r"^\w+$", "a_1", "é"),
        (r"^é\b", "éa", "é"),
        (r"\Bé", "aéé", "aé"),
        (r"^\s$", "\ufeff", "\x1f"),
        ("^.$", "\x85", "\u2028"),
        (r"^\cJ$", "\n", "J"),
        (r"^\u{1F600}$", "😀", "u"),
        (r"^\uD83D\uDE00$", "😀", "\u0000"),
        (r"^\p{Lu}\P{Lu}$", "Éé", "éé"),
        (r"^\p{Script_Extensions}?$|^\p{Letter}$", "é", "1"),
        ("^[^]$", "\n", ""),
        ("^a[]?$", "a", "a]"),
        (r"^\/[\b]$", "/\b", "/b"),
        (r"^(?<year>\d{4})$", "2026", "26"),
        (r"^a{,2}$", "a{,2}", "aa"),
        ("^]}{$", "]}{", ""),
        (r"^(?!\d+$)[a-z0-9]+$", "1a", "11"),
        (r"^(?=.*\d)(?=.*[a-z]).{3,5}$", "a1b", "aab"),
        (r"^[\w-.]+$", "a-.", "a/"),
        (r"^[+-\d]+$", "1-+", ","),
        (r"(?i)^a\_b(?-i:c)$", "A_Bc", "A_BC"),
        (r"(?s)^.$", "\n", ""),
    ],
)
def test_javascript_apart_from_re(expression: str, found: str, missed: str) -> None:
    if "Script" in expression:
        with pytest.raises(GrammarError, match="the property 'Script_Extensions', at character"):
            read_search(expression)
        return
    assert accepts(read_search(expression), found)
    assert not accepts(read_search(expression), missed)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (r"(a)\1", r"a back-reference `\\1`"),
        (r"(?<x>a)\k<x>", r"a back-reference `\\k`"),
        ("(?<=a)b", "a look behind"),
        ("a(?i)", "flags that are not at the beginning"),
        ("(?u)a", r"the flag or group `\(\?u`"),
        (r"\p{Klingon}", "the property 'Klingon'"),
        (r"\ud800", "which is no character"),
        (r"\a", r"an escape `\\a`"),
        ("^*", "a quantifier behind an assertion"),
        ("(?:(?=a)b)*", "a lookahead that is repeated"),
        ("(" * 200 + ")" * 200, "nested more than 100 deep"),
        ("a{200000}", "the bound is 100000"),
        ("x" * 300_000, "the bound is 200000"),
    ],
)
def test_what_is_declined_is_named(expression: str, message: str) -> None:
    with pytest.raises(GrammarError, match=message):
        read_search(expression)


# As they are found in schemas: long counters beside each other, several lookaheads, many alternatives.
URL = r"https?:\/\/(www\.)?[-a-zA-Z0-9@:%._\+~#=]{1,256}\.[a-zA-Z0-9()]{1,6}\b([-a-zA-Z0-9()@:%_\+.~#?&//=]*)"
PASSWORD = r"^(?=.*[a-z])(?=.*[A-Z])(?=.*\d)(?=.*[@$!%*?&])[A-Za-z\d@$!%*?&]{8,64}$"
FILE = r'^[^.\s\\/:*?"<>|\x01-\x1f]{1,32}(\.[^.\s\\/:*?"<>|\x01-\x1f]{1,32}){1,3}$'
LABELS = r"^(?!-)(?!.*--)[a-z0-9-]{1,32}(?:\.[a-z0-9-]{1,32}){0,4}$"
LONG = (URL, f"^{URL}$", PASSWORD, FILE, LABELS, rf"^(?:{'|'.join(f'key{n}' for n in range(300))})(?:,\d{{1,200}})*$")


def _rewritten(text: str, changes: list[tuple[int, str]]) -> str:
    """A text with some characters replaced."""
    chars = list(text)
    for place, char in changes:
        chars[place % len(chars)] = char
    return "".join(chars)


@settings(max_examples=30 * SCALE, deadline=None)
@given(st.data())
def test_long_expressions_are_what_re_finds(data: st.DataObject) -> None:
    expression = data.draw(st.sampled_from(LONG))
    judge = re.compile("(?a)" + (f"{expression[:-1]}\\Z" if expression.endswith("$") else expression))
    beginning = data.draw(st.sampled_from(["http://", "https://www.", "", "Aa1@", "key12,", "a-b."]))
    text = beginning + data.draw(st.from_regex(judge, fullmatch=False) | st.text("aZ0.-,/@:k ", max_size=300))
    changes = st.lists(st.tuples(st.integers(0, 400), st.sampled_from("aZ0.-,/@: é")), max_size=3)
    text = _rewritten(text, data.draw(changes)) if text else text
    assert accepts(read_search(expression), text) == (judge.search(text) is not None)


def test_what_needs_too_many_states_is_refused() -> None:
    with pytest.raises(GrammarTooLargeError, match="the bound"):
        automaton_of(read_search("^(?:a|b)*a(?:a|b){30}$"))
    with pytest.raises(GrammarTooLargeError, match="points, the bound"):
        automaton_of(read_search("^(?:(?:ab){100}){100,2000}$"))
    with pytest.raises(GrammarTooLargeError, match="steps, the bound"):
        automaton_of(read_search(r"[\s\S]{1,5000}[^a]{3}b"))


def test_an_automaton_has_as_few_states_as_there_can_be() -> None:
    assert len(automaton_of(read_whole("(?:a|b){0,300}c|(?:b|a){0,300}d")).table) == 302
    assert len(automaton_of(read_whole("(?:a?){200}")).table) == 201
    assert len(automaton_of(both(read_whole("(?:a{3})*"), read_whole("(?:a{5})*"))).table) == 15


operations = st.sampled_from(("and", "but not", "or", "not"))


@settings(max_examples=200 * SCALE, deadline=None)
@given(expressions(), expressions("^", r"\Z"), operations, st.lists(texts, min_size=1, max_size=10))
@example(".", "a^", "but not", ["", "a", "b"])
def test_languages_combined_and_written_back(first: str, second: str, operation: str, candidates: list[str]) -> None:
    judges = compiled(first), compiled(second)
    assume(all(judges))
    one, other = read_whole(first), read_whole(second)
    combined = {"and": both(one, other), "but not": both(one, Not(other)), "or": either(one, other), "not": Not(one)}[operation]
    written = as_expression(combined)
    expression = None if is_empty(combined) else re.compile(pattern_to_regex(written))
    for text in candidates:
        in_one, in_other = (judge.fullmatch(text) is not None for judge in judges if judge)
        allowed = {"and": in_one and in_other, "but not": in_one and not in_other, "or": in_one or in_other, "not": not in_one}
        expected = allowed[operation]
        assert accepts(combined, text) == expected
        # A complement has the escapes of JSON's strings too, which are texts of their own to an expression.
        if operation != "not":
            assert (expression is not None and expression.fullmatch(text) is not None) == expected
    if operation != "not":
        assert len(automaton_of(written).accepting) == len(automaton_of(combined).accepting)


@settings(deadline=None)
@given(st.integers(1, 120), st.lists(st.integers(0, 10**9), min_size=5, max_size=20))
def test_multiples(divisor: int, numbers: list[int]) -> None:
    pattern = Multiple(divisor)
    for number in (*numbers, *(number * divisor for number in numbers)):
        digits = str(number)
        assert accepts(pattern, digits) == accepts(pattern, f"{digits[:1]}.{digits[1:]}") == (number % divisor == 0)


@given(st.lists(st.text("abé", max_size=4), max_size=8), st.text("abé", max_size=4))
def test_words(known: list[str], word: str) -> None:
    assert accepts(words(known), word) == (word in known)


def test_edges_inside() -> None:
    start = concat(TEXT, Edge.START, literal("a"), TEXT)
    assert accepts(start, "ab")
    assert not accepts(start, "ba")
    assert not accepts(Not(start), "ab")
    assert accepts(Not(start), "ba")
    assert are_disjoint(start, concat(literal("b"), TEXT))


EDGES = ("\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff", '"', "\\")
RARE = st.integers(0x10000, 0x10FFFF).map(chr) | st.sampled_from(EDGES)
FEW = (CharSet.of((0xD7FF, 0xD7FF), (0xE000, 0x10000)), CharSet.chars('"\\/\n\0'))
SETS = (matching(r"\w"), CHARS, CharSet.of((0x10400, 0x10A33)), *FEW)


@settings(max_examples=400 * SCALE, deadline=None)
@given(st.sampled_from(SETS), st.characters(exclude_categories=["Cs"]) | RARE, st.booleans())
def test_sets_and_escapes_are_written_exactly(chars: CharSet, char: str, upper: bool) -> None:
    assert (re.fullmatch(char_class(chars), char) is not None) == (ord(char) in chars)
    units = char.encode("utf-16-be")
    escape = "".join(f"\\u{units[place : place + 2].hex()}" for place in range(0, len(units), 2))
    escape = escape.upper().replace("U", "u") if upper else escape
    assert (re.fullmatch(pattern_to_regex(escapes_of(chars)), escape) is not None) == (ord(char) in chars)


@pytest.mark.parametrize("name", ["L", "Lu", "Nd", "P", "Zs", "Cc", "Letter", "Decimal_Number", "gc=Lu", "General_Category=P"])
def test_properties_are_those_of_the_unicode_database(name: str) -> None:
    found = unicode_property(name)
    assert found is not None
    category = {"Letter": "L", "Decimal_Number": "Nd", "gc=Lu": "Lu", "General_Category=P": "P"}.get(name, name)
    for code in (*range(0x3000), *range(0x1D400, 0x1D800)):
        assert (code in found) == unicodedata.category(chr(code)).startswith(category)


def test_a_terminal_may_look_ahead_within_itself() -> None:
    sealed = read_terminal('(?="[^"]*x[^"]*")(?!"[^"]*y[^"]*")"[^"]{2,4}"')
    for text, expected in {'"ax"': True, '"aa"': False, '"axy"': False, '"x"': False, '"axbb"': True, '"axbbb"': False}.items():
        assert accepts(sealed, text) is expected
    for expression in ("a(?=b)", "a(?!b)", "(?=.*x)a*", '(?=".*x)"[^"]*"'):
        with pytest.raises(GrammarError, match="looks further than what it matches"):
            read_terminal(expression)


def test_sets_know_units() -> None:
    units = CharSet.chars("ab") | CharSet.chars("bc").escapes
    assert units.as_is == CharSet.chars("ab")
    assert units.escaped == CharSet.chars("bc")
    assert len(units) == 4
    assert ESCAPED + ord("c") in units
    assert not units & units.complement
    assert accepts(Times(Chars(CHARS), 3, 3), "a😀é")
