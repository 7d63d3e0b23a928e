"""Sets of texts and their complements, against the automata of the same patterns."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routine_grammar.grammar.schema.meeting import one_of
from routine_grammar.grammar.terminals import JsonString, automaton_of_terminal
from routine_grammar.patterns.automaton import UnitAutomaton, automaton_of, quoted
from routine_grammar.patterns.finite import MAX_TEXTS, others, texts_of
from routine_grammar.patterns.reader import read_search, read_terminal

TEXTS = st.lists(st.text(st.sampled_from('abéß"\\\n😀'), max_size=4), min_size=1, max_size=6, unique=True)


def are_equal(one: UnitAutomaton, other: UnitAutomaton) -> bool:
    """Whether two automata accept the same, by all pairs of states that some text leads to."""
    lows = np.union1d(one.lows, other.lows)
    of = [each.of[np.searchsorted(each.lows, lows, side="right") - 1] for each in (one, other)]
    seen, todo = {(0, 0)}, [(0, 0)]
    while todo:
        pair = todo.pop()
        if one.accepting[pair[0]] != other.accepting[pair[1]]:
            return False
        for after in set(zip(one.table[pair[0]][of[0]].tolist(), other.table[pair[1]][of[1]].tolist(), strict=True)):
            if min(after) < 0:
                if after != (-1, -1):
                    return False
            elif after not in seen:
                seen.add(after)
                todo.append(after)
    return True


@settings(deadline=None)
@given(TEXTS, st.sampled_from(["", "<", "ab"]))
def test_what_is_none_of_some_texts_is_as_if_derived(texts: list[str], escaped: str) -> None:
    string = JsonString(never=(one_of(texts),), escaped=escaped)
    derived = automaton_of(string.inner(with_length=False))
    assert are_equal(others(texts, string.units), derived)
    assert are_equal(automaton_of_terminal(string), quoted(derived))


@settings(deadline=None)
@given(TEXTS)
def test_the_texts_of_an_expression_of_texts_are_these(texts: list[str]) -> None:
    assert texts_of(read_search(one_of(texts))) == frozenset(texts)


@pytest.mark.parametrize(
    ("expression", "texts"),
    [
        ("^a[bc]d?$", {"ab", "abd", "ac", "acd"}),
        ("^$", {""}),
        ("^(?:x|y){2}$", {"xx", "xy", "yx", "yy"}),
        ("a", None),
        ("^a*$", None),
        ("^a{0,9}$", None),
        ("^[^a]$", None),
        (f"^[a-j]{{{len(str(MAX_TEXTS))}}}$", None),
    ],
)
def test_few_texts_are_told(expression: str, texts: set[str] | None) -> None:
    assert texts_of(read_search(expression)) == (None if texts is None else frozenset(texts))


@pytest.mark.parametrize("expression", ["a|bc", "a{2,5}", "", "a*", "(ab)+|c", "[a-z]{3}", "a(b|c*)"])
def test_an_automaton_tells_whether_it_is_finite(expression: str) -> None:
    assert automaton_of(read_terminal(expression)).is_finite is (re.search(r"[*+]", expression) is None)


def test_a_string_with_other_conditions_is_derived() -> None:
    texts = JsonString(never=("^a$",))
    for more in (replace(texts, found=("b",)), replace(texts, never=("^a$", "c")), replace(texts, markers=("<x>",))):
        assert are_equal(automaton_of_terminal(more), quoted(automaton_of(more.inner(with_length=False))))
