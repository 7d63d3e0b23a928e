from __future__ import annotations

import random
import re
from functools import cache
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from benchmarks.ebnf import grammar_to_ebnf
from benchmarks.patterns import CharacterAutomaton, pattern_to_automaton
from routine_grammar.api import Grammar as Compiled
from routine_grammar.errors import GrammarError
from routine_grammar.grammar.json_text import EXACT, turn_form
from routine_grammar.grammar.tree import Call, Choice, Grammar, Leaf, Literal, Marker, Optional, Repeat, Sequence
from tests.grammars import LEAVES, edited, grammars, nested_repeats, sample

pytestmark = pytest.mark.filterwarnings("ignore")

FORM = turn_form(["<tool_call>", "</tool_call>"], "memory_")
# Pieces that strings and numbers fall apart into, chosen to meet every edge of the patterns.
PIECES = (
    *('"', "\\", "memory_", "m", "\\u006d", "\\u006D", "<", "<tool_cal", "<tool_call>", "</tool_call>", "é", "🙂", "\x01", "a"),
    *("\\n", "\\ud83d", "\\ude42", "-", "0", "19", ".", "e", "+", "E"),
)


@pytest.fixture(scope="module")
def xgrammar() -> Any:
    return pytest.importorskip("xgrammar")


def accepts(xgrammar: Any, ebnf: str, text: str) -> bool:
    return bool(xgrammar.testing._is_grammar_accept_string(xgrammar.Grammar.from_ebnf(ebnf), text))


@cache
def automaton_of(pattern: str) -> CharacterAutomaton:
    return pattern_to_automaton(pattern)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from((*LEAVES, FORM.string, FORM.integer, FORM.number, EXACT.string)), st.lists(st.sampled_from(PIECES)))
def test_a_leaf_automaton_reads_as_the_regular_expression(leaf: Leaf, pieces: list[str]) -> None:
    automaton = automaton_of(leaf.pattern)
    for text in ("".join(pieces), f'"{"".join(pieces)}"'):
        assert automaton.accepts(text) == (re.fullmatch(leaf.pattern, text) is not None)


@pytest.mark.parametrize(
    "pattern", ["a{2}", "a{2,}", "a{0,2}", "(?:ab|c){1,3}d", "[^a-c]", r"[\]\-x]+", r"\x41\.|\/\n", "", "(?:a?b*)+", "a|ab"]
)
def test_patterns_of_the_subset(pattern: str) -> None:
    automaton = pattern_to_automaton(pattern)
    for text in ("", "a", "aa", "aaa", "b", "ab", "abcd", "ccabd", "]", "x-]", "A.", "/\n", "é", "bbb", "d"):
        assert automaton.accepts(text) == (re.fullmatch(pattern, text) is not None), text


@pytest.mark.parametrize("pattern", ["a)", "(?:a", "(a)", r"\d", "a.b", "^a", "*a", "[a"])
def test_other_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        pattern_to_automaton(pattern)


def test_the_smallest_automaton() -> None:
    assert len(pattern_to_automaton("(?:aa|ab|ba|bb)*(?:)").edges) == 2
    assert len(pattern_to_automaton("ac|bc").edges) == 3


@settings(max_examples=60, deadline=None)
@given(grammars, st.integers(0, 1 << 30))
def test_xgrammar_reads_what_the_tree_means(xgrammar: Any, grammar: Grammar, seed: int) -> None:
    assume(nested_repeats(grammar) < 2)
    rng = random.Random(seed)
    ebnf = grammar_to_ebnf(grammar)
    for _ in range(3):
        text = sample(grammar, rng)
        assert accepts(xgrammar, ebnf, text)
        other = edited(text, rng)
        assert accepts(xgrammar, ebnf, other) == Compiled(grammar).accepts(other), (ebnf, other)


def test_every_kind_of_node_is_written(xgrammar: Any) -> None:
    grammar = Grammar(
        Sequence((Marker("<c>"), Repeat(Call("item"), 2, None), Optional(Literal('"\\\n')), Repeat(Literal("z"), 1, 3))),
        {"item": Choice((Literal("é"), Sequence((Literal("-"), Leaf("DIGITS", "[0-9]+"))), Sequence(())))},
    )
    ebnf = grammar_to_ebnf(grammar)
    for text, expected in {'<c>é-12"\\\nz': True, "<c>zzz": True, "<c>zzzz": False, "<c>-z": False, "éz": False}.items():
        assert accepts(xgrammar, ebnf, text) is expected, text


def test_a_rule_named_root_is_refused() -> None:
    with pytest.raises(GrammarError, match="root"):
        grammar_to_ebnf(Grammar(Call("root"), {"root": Literal("a")}))
