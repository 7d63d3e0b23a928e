"""Strings with bounds on their length, counted by states or beside them: what they accept, how far their end is, masks."""

from __future__ import annotations

import json
import random
import re
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from routine_grammar.api import compile_schema
from routine_grammar.automaton.automaton import Automaton
from routine_grammar.automaton.compiling import compile_counted, compile_leaf
from routine_grammar.automaton.leaf import LeafLibrary
from routine_grammar.automaton.step import COUNTED
from routine_grammar.errors import GrammarError
from routine_grammar.grammar.terminals import JsonString
from routine_grammar.grammar.tree import Choice, Grammar, Leaf, Literal, Node, Sequence
from routine_grammar.masks.leaf_rows import VocabularyRows
from routine_grammar.masks.matcher import Matcher
from routine_grammar.masks.rows import TokenRows
from tests.scale import SCALE
from tests.vocabularies import byte_vocabulary

FOUND = (
    (),
    ("^[a-c]+(-[a-c]+)*$",),
    ("é",),
    ("^(aab)*$",),
    ("^a*$",),
    ("^[^a]", "b"),
    ("^(😀|bb)+$",),
    ("^x?(ab|c){3,}",),
    ("^[ab]{1,3}(-[ab]{1,3})*$",),
    ("^.*abc.*$",),
    ("^[ab]{1,30}-[ab]{1,9}$",),
    ("^(?:aab)*-(?:cc)*$",),
)
NEVER = ((), ("^memory_",), ("b$",), ("^(?:a|ab|é)$",))
PIECES = ("a", "b", "c", "ab", "aab", "-", "é", "😀", "memory_", "x", '"', "<a>", "\n")

WORDS = (
    "aa",
    "abc",
    "é",
    "éé",
    'a"',
    '", "b": "',
    'ab", ',
    '"a',
    '""',
    "\\u00e9",
    "\\n\\n",
    "a" * 9,
    "é" * 7,
    "memory_",
    "<a",
    '"}',
    "😀b",
    "\\ud83d",
)
MOST_STEPS = 300
VOCABULARY = byte_vocabulary((*WORDS, "aa"))


@st.composite
def strings(draw: st.DrawFn) -> JsonString:
    low = draw(st.sampled_from((0, 0, 1, 3, 17, 20, 40)))
    high = draw(st.none() | st.integers(low, low + 30))
    return JsonString(
        found=draw(st.sampled_from(FOUND)),
        never=draw(st.sampled_from(NEVER)),
        low=low,
        high=high,
        markers=draw(st.sampled_from(((), ("<a>",)))),
        escaped=draw(st.sampled_from(("", "x"))),
    )


def spelled(text: str, terminal: JsonString, rng: random.Random) -> str:
    """A spelling of a text that the terminal can have, escapes here and there."""
    body = ""
    for char in text:
        as_is = char >= " " and char not in '"\\' + terminal.escaped and not (terminal.markers and char == "<")
        if as_is and rng.random() < 0.8:
            body += char
        else:
            units = char.encode("utf-16-be").hex()
            body += "".join(f"\\u{units[place : place + 4]}" for place in range(0, len(units), 4))
    return f'"{body}"'


def allows(terminal: JsonString, text: str) -> bool:
    found = (re.search(expression.replace("$", r"\Z"), text) for expression in terminal.found)
    never = (re.search(expression.replace("$", r"\Z"), text) for expression in terminal.never)
    return all(found) and not any(never) and terminal.low <= len(text) and (terminal.high is None or len(text) <= terminal.high)


def automaton_of(terminal: JsonString) -> Automaton | None:
    """An automaton of such a string and a character behind it; None where there is no such string."""
    with suppress(GrammarError):
        return Automaton(Grammar(Sequence((Leaf("S", terminal), Literal("!")))))
    with pytest.raises(GrammarError, match="matches nothing"):
        Automaton(Grammar(Leaf("S", terminal)))
    return None


@settings(max_examples=150 * SCALE, deadline=None)
@given(
    strings(),
    st.lists(st.lists(st.sampled_from(PIECES), max_size=45).map("".join), min_size=3, max_size=10),
    st.integers(0, 99),
)
def test_accepts_texts_by_their_length_and_expressions(terminal: JsonString, texts: list[str], seed: int) -> None:
    rng = random.Random(seed)
    texts += [text[: terminal.low] for text in texts] + [(text * 40)[: terminal.high or 50] for text in texts if text]
    texts += [(text * 20)[: terminal.low + rng.randint(-1, 1)] for text in ("a", "é", "😀", "ab-", "bb", "aab")]
    automaton = automaton_of(terminal)
    if automaton is None:
        assert not any(allows(terminal, text) for text in texts)
        return
    for text in texts:
        written = spelled(text, terminal, rng)
        assert automaton.accepts(f"{written}!".encode()) == allows(terminal, json.loads(written)), written


@settings(max_examples=100 * SCALE, deadline=None)
@given(strings(), st.integers(0, 1 << 30))
def test_the_distance_is_that_of_the_string_with_its_length_in_its_states(terminal: JsonString, seed: int) -> None:
    """However a length is counted, from every place the end is as near, and some way leads there."""
    rng = random.Random(seed)
    automaton = automaton_of(terminal)
    assume(automaton is not None)
    assert automaton is not None
    leaf = compile_leaf(terminal)
    plain = LeafLibrary()
    base = plain._append(leaf, is_string=True)
    for _ in range(3):
        row, state = automaton.start(), base
        for _ in range(MOST_STEPS):  # a string without a bound goes on for long, all of it alike
            if state < 0:
                break
            assert automaton.distance(row) == int(plain.distance[state]) + 1
            allowed = automaton.next_bytes(row)
            assert (allowed == (plain.table[state] != -1)).all()
            if rng.random() < 0.1:
                completion = automaton.shortest_completion(row)
                assert len(completion) == automaton.distance(row)
            byte = int(rng.choice(np.flatnonzero(allowed)))
            after = automaton.after(row, bytes((byte,)))
            assert after is not None
            row, state = after, int(plain.table[state, byte])
        assert state >= 0 or automaton.distance(row) == 1


def grammar_around(terminal: JsonString) -> Grammar:
    """A counted string where other things stand beside it and behind it."""
    ways: tuple[Node, ...] = (Leaf("S", terminal), Literal('"memory_1_x"'), Literal("null"))
    return Grammar(Sequence((Literal('{"a": '), Choice(ways), Literal(', "b": '), Leaf("S", terminal), Literal("}"))))


@settings(max_examples=25 * SCALE, deadline=None)
@given(st.sampled_from((0, 1, 18, 30)), st.integers(0, 25), st.integers(0, 1 << 30))
def test_masks_are_what_stepping_allows(low: int, more: int, seed: int) -> None:
    rng = random.Random(seed)
    terminal = JsonString(never=("^memory_",), low=low, high=low + more, markers=("<a>",))
    vocabulary = VOCABULARY
    rows = TokenRows(Automaton(grammar_around(terminal), vocabulary.special), VocabularyRows.shared(vocabulary))
    matcher = Matcher(rows)
    for _ in range(60):
        allowed = matcher.allowed()
        if matcher.finished or not len(allowed):
            break
        stepped = [
            token
            for token in range(vocabulary.size)
            if vocabulary.tokens[token] and rows.after(matcher._place, token) is not None
        ]
        assert [token for token in allowed.tolist() if token not in vocabulary.eos] == stepped
        for group in rows.grouped(matcher._place.configuration):
            for token in group.tokens.tolist():
                after = rows.after(matcher._place, token)
                assert after is not None
                assert rows.place(group.lead) is after
        assert matcher.advance(int(rng.choice(allowed)))


def test_lengths_share_a_leaf() -> None:
    library = LeafLibrary()
    first = library.start(JsonString(found=("^[a-z]+$",), low=1, high=5_000))
    size = library.size
    second = library.start(JsonString(found=("^[a-z]+$",), low=2, high=1_000_000))
    assert library.size == size
    assert COUNTED <= first < second
    assert library.start(JsonString(found=("^[a-z]+$",), low=2, high=1_000_000)) == second


def test_lengths_that_can_not_be_counted_beside_are_part_of_the_states() -> None:
    """Where the count that is reached next is told by no rule, upper bounds can be counted, and lower ones can't."""
    told = {found: compile_counted(JsonString(found=(found,))) for found in ("^(aab)*$", "^(aab|b)*$", "^.*foo.*$")}
    counted = [automaton.counting for automaton in told.values() if automaton is not None]
    assert [counting is not None and counting.has_lower for counting in counted] == [False, True, False]
    library = LeafLibrary()
    assert library.start(JsonString(found=("^(aab)*$",), low=20, high=40)) >= COUNTED  # its least length is part of its states
    assert library.start(JsonString(found=("^(aab)*$",), low=200, high=400)) < COUNTED
    assert library.start(JsonString(found=("^(aab)*$",), high=40)) >= COUNTED
    assert library.start(JsonString(found=("^.*foo.*$",), low=3, high=4_000)) >= COUNTED  # none is shorter
    assert library.start(JsonString(found=("^.*foo.*$",), low=4, high=20)) >= COUNTED


def test_addresses_may_have_as_many_characters_as_they_have() -> None:
    for low in (0, 1, 3, 5, 6):
        grammar = compile_schema({"type": "string", "format": "email", "minLength": low, "maxLength": 254})
        assert grammar.accepts('"a@b.co"')
        assert grammar.accepts('"a@b.c"') == (low < 6)
        assert grammar.accepts(f'"{"a" * 60}@{"b" * 50}.org"')
        assert not grammar.accepts(f'"{"a" * 60}@{".".join(["b" * 50] * 5)}.org"')


@pytest.mark.parametrize(
    "terminal",
    [
        JsonString(found=("^a{30,}$",), high=20),
        JsonString(found=("^(aab)*$",), low=19, high=20),
        JsonString(found=("a",), never=("a",)),
    ],
)
def test_strings_that_there_are_none_of(terminal: JsonString) -> None:
    with pytest.raises(GrammarError, match="matches nothing"):
        LeafLibrary().start(terminal)


def test_bounds_of_millions() -> None:
    automaton = Automaton(Grammar(Leaf("S", JsonString(low=100_000, high=2_000_000))))
    assert automaton.distance(automaton.start()) == 100_002
    assert automaton.accepts(b'"' + b"a" * 100_000 + b'"')
    assert not automaton.accepts(b'"' + b"a" * 99_999 + b'"')
    assert not automaton.accepts(b'"' + b"a" * 2_000_001 + b'"')
