from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routine_grammar.api import compile_lark, compile_regex
from routine_grammar.errors import GrammarError, GrammarTooLargeError
from routine_grammar.grammar.regex import grammar_to_regex
from routine_grammar.grammar.tree import Call, Choice, Grammar, Leaf, Literal, Marker, Optional, Repeat, Sequence
from routine_grammar.patterns.charset import CharSet, either_case
from routine_grammar.patterns.text import escape

TEXT = "ab0é"
atoms = st.sampled_from(("a", "b", "ab", "é", "[ab]", "[^a]", "[a-bé]", "[0-9]", ".", "(?:)", r"\x61", r"\.", r"[^\x00-a]"))


def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    counts = st.sampled_from(("?", "*", "+", "{2}", "{0,2}", "{1,3}", "{2,}", "??", "*?", "+?"))
    return st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}|{pair[1]}|)"),
        st.tuples(inner, counts).map(lambda pair: f"(?:{pair[0]}){pair[1]}"),
    )


patterns = st.recursive(atoms, larger, max_leaves=5)


@settings(max_examples=250, deadline=None)
@given(patterns, st.lists(st.text(TEXT + ".\n1", max_size=7), min_size=5, max_size=12))
def test_a_pattern_accepts_what_re_matches_whole(pattern: str, texts: list[str]) -> None:
    compiled = re.compile(pattern)
    grammar = compile_regex(pattern)
    for text in texts:
        assert grammar.accepts(text) == (compiled.fullmatch(text) is not None), text


@given(st.text(max_size=8))
def test_an_escaped_text_matches_itself(text: str) -> None:
    pattern = escape(text)
    assert re.fullmatch(pattern, text)
    assert "\n" not in pattern
    others = [text + "a", "\\" + text, text[1:]]
    assert all(re.fullmatch(pattern, other) is None for other in others if other != text)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=6))
def test_an_escaped_text_compiles_to_itself(text: str) -> None:
    grammar = compile_regex(escape(text))
    assert grammar.accepts(text)
    assert not grammar.accepts(text + "a")


@pytest.mark.parametrize(
    "pattern", ["[1-9][0-9]{0,300}", "b[^<]{0,60}", "[a-c][ -~]{1,64}", "-?(?:0|[1-9][0-9]{0,40})(?:[.][0-9]{1,90})?"]
)
def test_counted_repetitions_need_no_more_states_than_they_count(pattern: str) -> None:
    grammar = compile_regex(pattern)
    compiled = re.compile(pattern)
    for text in (
        "1",
        "10" * 120,
        "0" * 5,
        "b" + "é" * 60,
        "b" * 61,
        "b" * 62,
        "a" + " " * 64,
        "-0." + "5" * 90,
        "-0." + "5" * 91,
    ):
        assert grammar.accepts(text) == (compiled.fullmatch(text) is not None)


@pytest.mark.parametrize("pattern", ["a", "é", "", "a?", "[ab]", "\x02", "\x02\x02", "\U0010ffff"])
def test_short_patterns_and_those_of_rare_characters(pattern: str) -> None:
    grammar = compile_regex(pattern)
    for text in ("", "a", "b", "é", "aa", "\x02", "\x02\x02", "\x02\x02\x02", "\U0010ffff", "a\U0010ffff", "\U0010ffff" * 2):
        assert grammar.accepts(text) == (re.fullmatch(pattern, text) is not None)


@pytest.mark.parametrize("pattern", ["^a", "a$", "a|b$", "(?:^a|b)", r"\Aa", "[]a]^", "a$\n?", "^", "a^b", r"(?:\Z|a)+"])
def test_anchors_mean_the_edges_of_the_text(pattern: str) -> None:
    compiled = re.compile(pattern)
    if not any(compiled.fullmatch(text) for text in ("", "a", "b", "a\n", "]")):
        with pytest.raises(GrammarError, match="matches nothing"):
            compile_regex(pattern)
        return
    grammar = compile_regex(pattern)
    for text in ("", "a", "b", "]", "ab", "a\n", "a\n\n", "aa"):
        assert grammar.accepts(text) == (compiled.fullmatch(text) is not None), text


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"a\z", r"an escape `\\z`"),
        (r"(?m:^a)", r"the flag or group `\(\?m`"),
        ("(?=a)a", r"\(\?=…\) is not supported"),
        ("(?!b)a", r"\(\?!…\) is not supported"),
        ("(?<=b)a", "a look behind"),
        ("(?<!b)a", "a look behind"),
        ("a*+", "a possessive quantifier"),
        ("(?>a)", r"the flag or group `\(\?>`"),
        ("(a)(?(1)b|c)", r"the flag or group `\(\?\(`"),
        ("(?P<x>a)(?P=x)", "the flag or group"),
        ("(?m) a", r"the flag or group `\(\?m`"),
        (r"\d{2,1}", "between 2 and 1 times"),
        ("a{200000}", "the bound is 100000"),
    ],
)
def test_what_is_declined_names_what_and_where(pattern: str, message: str) -> None:
    with pytest.raises(GrammarError, match=message):
        compile_regex(pattern)


def test_characters_that_assert_elsewhere_are_themselves_in_classes_and_escapes() -> None:
    for pattern, text in {r"[$^]+": "$^", r"[^$]": "^", r"\^\$": "^$", r"[\]^]": "^", r"[]$]": "$", r"\\\$": "\\$"}.items():
        assert compile_regex(pattern).accepts(text)


@pytest.mark.parametrize(
    "pattern",
    ["(", "a)", "a)|(b", "[", "[z-a]", "a**b)", "a++b", "(a)\\1", "\ud800", "*", "a{3,1}", "[^\\x00-\U0010ffff]"],
)
def test_what_is_no_regular_expression_is_an_error(pattern: str) -> None:
    with pytest.raises(GrammarError, match="pattern"):
        compile_regex(pattern)


def test_a_pattern_past_the_bound_is_an_error() -> None:
    with pytest.raises(GrammarTooLargeError, match="200001 characters; the bound is 200000"):
        compile_regex("a" * 200_001)


def test_every_kind_of_node_is_written() -> None:
    grammar = Grammar(
        Sequence(
            (
                Literal("a.b"),
                Marker("<c>"),
                Leaf("X", "x|y"),
                Call("r"),
                Optional(Literal("?")),
                Choice((Literal("1"), Literal("2"))),
            )
        ),
        {"r": Repeat(Literal("ab"), 2, 3)},
    )
    pattern = re.compile(grammar_to_regex(grammar))
    for text in ("a.b<c>xabab1", "a.b<c>yababab?2"):
        assert pattern.fullmatch(text)
    for text in ("aXb<c>xabab1", "a.b<c>xab1", "a.b<c>xabababab1", "a.b<c>xabab", "a.b<c>xababb1"):
        assert not pattern.fullmatch(text)


@pytest.mark.parametrize(
    ("low", "high", "counts"), [(0, None, {0, 1, 9}), (1, None, {1, 9}), (3, None, {3, 9}), (2, 4, {2, 3, 4}), (0, 0, {0})]
)
def test_repetitions(low: int, high: int | None, counts: set[int]) -> None:
    pattern = grammar_to_regex(Grammar(Repeat(Literal("ab"), low, high)))
    assert {count for count in (0, 1, 2, 3, 4, 9) if re.fullmatch(pattern, "ab" * count)} >= counts
    assert {count for count in range(12) if re.fullmatch(pattern, "ab" * count)} == set(
        range(low, 12 if high is None else high + 1)
    )


def test_recursive_rules_have_no_regular_expression() -> None:
    grammar = compile_lark('start: a\na: "(" b? ")"\nb: a')
    with pytest.raises(GrammarError, match="rule a calls itself"):
        _ = grammar.regex


def test_copies_of_rules_are_bounded() -> None:
    doubling = "".join(f"r{n}: r{n + 1} r{n + 1}\n" for n in range(40)) + 'r40: "a" | "b"\n'
    with pytest.raises(GrammarTooLargeError, match="4194304 characters, the bound"):
        grammar_to_regex(compile_lark("start: r0?\n" + doubling).tree)


def test_a_long_chain_of_rules_is_an_error_and_no_crash() -> None:
    chain = "".join(f'r{n}: "a" r{n + 1}\n' for n in range(1_500)) + 'r1500: "b"\n'
    grammar = compile_lark("start: r0\n" + chain)
    assert grammar.accepts("a" * 1_500 + "b")
    with pytest.raises(GrammarTooLargeError, match="nested too deep"):
        _ = grammar.regex


@pytest.mark.parametrize(
    "pattern",
    [
        "(?ia)k",
        "(?ia)é",
        r"(?ia)[\w-]",
        "(?ia)[a-z]",
        "(?a)(?i:é)",
        "(?i)(?a:é)",
        "(?ia)[^k]",
        "(?i)k",
        "(?i)ß",
        "a(?#x)*",
        "(?#c)a|b",
    ],
)
def test_cases_and_comments_are_those_of_re(pattern: str) -> None:
    grammar = compile_regex(pattern)
    for text in ("k", "K", "\u212a", "é", "É", "ı", "ſ", "s", "S", "ß", "ẞ", "", "a", "aa", "b", "-"):
        assert grammar.accepts(text) == (re.fullmatch(pattern, text) is not None), text


@pytest.mark.parametrize("pattern", ["^*", r"\b?", r"\A{2}", "${2}", "{1}", "a|{2}", "(?#x){0}", "(?:*)"])
def test_what_repeats_nothing_is_refused_as_re_does(pattern: str) -> None:
    with pytest.raises(re.error, match="nothing to repeat"):
        re.compile(pattern)
    with pytest.raises(GrammarError, match="a quantifier"):
        compile_regex(pattern)


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        (r"\101[\102\x43]", ["AB", "AC", "A", "\x01", "101B"]),
        ("(?x) a b # c\n c", ["abc", "a b c", "ab"]),
        ("(?x: a +) b", ["aa b", "aab", "a b"]),
        (r"(?x)[ a]\ b", [" b", "  b", "a b", "b"]),
        ("(?xi) A # no quantifier {3}\n {2}", ["aa", "AA", "a", "aaa"]),
    ],
)
def test_octal_escapes_and_verbose_expressions(pattern: str, texts: list[str]) -> None:
    grammar = compile_regex(pattern)
    for text in texts:
        assert grammar.accepts(text) == (re.fullmatch(pattern, text) is not None), text


@pytest.mark.parametrize("pattern", ["(?P<a>.)(?P<a>.)", "(?x)a+ ?", "(?m)^a", "(?>a+)b", "a++"])
def test_what_is_no_expression_or_not_of_a_regular_language_is_declined(pattern: str) -> None:
    with pytest.raises(GrammarError, match="is not supported"):
        compile_regex(pattern)


def test_every_character_has_the_cases_that_re_gives_it() -> None:
    cased = "".join(char for char in map(chr, range(0x110000)) if char.lower() != char or char.upper() != char)
    for char in cased:
        ours = {chr(code) for low, high in either_case(CharSet.chars(char)).ranges for code in range(low, high + 1)}
        assert ours == set(re.findall(re.escape(char), cased, re.IGNORECASE)), char
