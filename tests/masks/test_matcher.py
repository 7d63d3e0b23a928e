from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routine_grammar.automaton.automaton import Automaton
from routine_grammar.errors import GrammarError, VocabularyError
from routine_grammar.grammar.tree import Choice, Grammar, Leaf, Literal, Marker, Optional, Repeat, Sequence
from routine_grammar.masks.leaf_rows import VocabularyRows
from routine_grammar.masks.matcher import Matcher
from routine_grammar.masks.rows import TokenRows
from routine_grammar.masks.vocabulary import Vocabulary
from tests.grammars import ALPHABET, grammars
from tests.scale import SCALE
from tests.vocabularies import byte_vocabulary, random_vocabulary

STRING = Leaf("STRING", r'"(?:[^"\\\x00-\x1f\x7f]|\\["\\/bfnrt])*"')
CALL = Grammar(
    Sequence(
        (Literal('{"name": "'), Choice((Literal("ping"), Literal("pong_now"))), Literal('", "to": '), STRING, Literal("}"))
    )
)


def rows_of(grammar: Grammar, vocabulary: Vocabulary) -> TokenRows:
    return TokenRows(Automaton(grammar, vocabulary.special), VocabularyRows.shared(vocabulary))


def unpacked(matcher: Matcher, vocabulary: Vocabulary) -> list[int]:
    packed = np.full(vocabulary.words, -1, np.int32)
    matcher.fill(packed)
    return [int(token) for token in np.flatnonzero(np.unpackbits(packed.view(np.uint8), bitorder="little"))]


@settings(max_examples=80 * SCALE, deadline=None)
@given(grammars, st.integers(0, 1 << 30))
def test_a_bit_is_set_exactly_where_the_bytes_keep_the_automaton_alive(grammar: Grammar, seed: int) -> None:
    rng = random.Random(seed)
    vocabulary = random_vocabulary(rng, ALPHABET)
    matcher = Matcher(rows := rows_of(grammar, vocabulary))
    automaton = rows.automaton
    text = b""
    for _ in range(12):
        row = automaton.after(automaton.start(), text)
        assert row is not None
        alive = [t for t, data in enumerate(vocabulary.tokens) if data and automaton.after(row, data) is not None]
        expected = sorted(alive + (list(vocabulary.eos) if automaton.may_end(row) else []))
        assert matcher.allowed().tolist() == expected
        assert unpacked(matcher, vocabulary) == expected
        if not alive:
            break
        token = rng.choice(alive)
        assert matcher.advance(token)
        text += vocabulary.tokens[token]


@settings(max_examples=60 * SCALE, deadline=None)
@given(grammars, st.integers(0, 1 << 30))
def test_tokens_are_grouped_by_where_they_lead(grammar: Grammar, seed: int) -> None:
    rng = random.Random(seed)
    vocabulary = random_vocabulary(rng, ALPHABET)
    rows = rows_of(grammar, vocabulary)
    place = rows.start()
    for _ in range(12):
        allowed = rows.row(place).allowed.tolist()
        leads = {token: group.lead for group in rows.grouped(place.configuration) for token in group.tokens.tolist()}
        assert sorted(leads) == [token for token in allowed if vocabulary.tokens[token]]
        for token, lead in leads.items():
            after = rows.after(place, token)
            assert after is not None
            assert rows.place(lead) is after
        if not leads:
            break
        place = rows.place(leads[rng.choice(sorted(leads))])


def test_a_budget_that_is_too_small_by_now_leaves_the_shortest_way() -> None:
    vocabulary = Vocabulary([bytes((byte,)) for byte in range(256)] + [b""], {}, [256])
    matcher = Matcher(TokenRows(Automaton(Grammar(Leaf("AB", "ab|cde"))), VocabularyRows.shared(vocabulary)))
    matcher.limit(1)
    assert matcher.allowed().tolist() == [ord("a")]
    assert matcher.advance(ord("a"))
    assert matcher.allowed().tolist() == [ord("b")]


@settings(max_examples=60 * SCALE, deadline=None)
@given(grammars, st.integers(0, 1 << 30))
def test_a_walk_within_any_budget_ends_in_a_whole_text(grammar: Grammar, seed: int) -> None:
    rng = random.Random(seed)
    vocabulary = random_vocabulary(rng, ALPHABET)
    rows = rows_of(grammar, vocabulary)
    shortest = Matcher(rows).fewest_tokens
    budget = shortest + rng.randint(0, 4)
    matcher = Matcher(rows, budget)
    text = b""
    while matcher.tokens < budget and not matcher.finished:
        token = int(rng.choice(matcher.allowed()))
        assert matcher.advance(token)
        text += vocabulary.tokens[token]
    assert rows.automaton.accepts(text)
    if shortest:
        with pytest.raises(GrammarError, match=f"needs {shortest} tokens; the budget is {shortest - 1}"):
            Matcher(rows, shortest - 1)


@settings(max_examples=40 * SCALE, deadline=None)
@given(grammars, st.integers(0, 1 << 30))
def test_rollback_undoes_advance(grammar: Grammar, seed: int) -> None:
    rng = random.Random(seed)
    vocabulary = random_vocabulary(rng, ALPHABET)
    matcher = Matcher(rows_of(grammar, vocabulary))
    seen = [matcher.allowed().tolist()]
    while len(seen) < 10 and seen[-1]:
        assert matcher.advance(rng.choice(seen[-1]))
        seen.append(matcher.allowed().tolist())
    while len(seen) > 1:
        count = rng.randint(1, len(seen) - 1)
        matcher.rollback(count)
        del seen[-count:]
        assert matcher.allowed().tolist() == seen[-1]
    with pytest.raises(GrammarError, match="roll back 1 of 0"):
        matcher.rollback(1)


def test_markers_are_single_tokens_where_the_vocabulary_has_them() -> None:
    grammar = Grammar(Sequence((Marker("<c>"), STRING, Marker("</c>"))))
    spelled = byte_vocabulary(("<c", "</c"))
    single = byte_vocabulary(("<c", "</c"), ("<c>", "</c>"))
    assert {spelled.tokens[t] for t in Matcher(rows_of(grammar, spelled)).allowed()} == {b"<", b"<c"}
    matcher = Matcher(rows_of(grammar, single))
    assert matcher.allowed().tolist() == [single.special["<c>"]]
    for token in (single.special["<c>"], *b'"x"', single.special["</c>"], single.eos[0]):
        assert not matcher.advance(single.special["<c>"]) or token == single.special["<c>"]
        if matcher.tokens == 0 or token != single.special["<c>"]:
            assert matcher.advance(token)
    assert matcher.finished
    assert matcher.allowed().tolist() == []


def test_tokens_of_equal_bytes_are_both_allowed() -> None:
    vocabulary = byte_vocabulary(("pin", "pin"))
    matcher = Matcher(rows_of(Grammar(Literal("ping")), vocabulary))
    assert [vocabulary.tokens[t] for t in matcher.allowed()] == [b"p", b"pin", b"pin"]


def test_forced_pieces_and_tokens() -> None:
    vocabulary = byte_vocabulary(special=("<c>",))
    matcher = Matcher(
        rows_of(Grammar(Sequence((Marker("<c>"), Literal("ab"), Choice((Literal("x"), Literal("y")))))), vocabulary)
    )
    assert matcher.forced_pieces() == ["<c>", *b"ab"]
    assert matcher.forced_tokens() == [vocabulary.special["<c>"], *b"ab"]
    assert matcher.tokens == 0


def test_a_long_string_is_closed_within_the_budget() -> None:
    vocabulary = byte_vocabulary(('"}', "aaaa", '", "to": "'))
    for budget in range(Matcher(rows_of(CALL, vocabulary)).fewest_tokens, 60):
        matcher = Matcher(rows_of(CALL, vocabulary), budget)
        rng = random.Random(budget)
        while not matcher.finished and matcher.tokens < budget:
            # the most talkative model: never ends the string of its own accord
            ids = matcher.allowed()
            talk = [
                t
                for t in ids
                if b'"' not in vocabulary.tokens[t] and b"}" not in vocabulary.tokens[t] and t not in vocabulary.eos
            ]
            assert matcher.advance(int(rng.choice(talk or list(ids))))
        assert matcher.may_end


def test_ids_outside_the_vocabulary_and_short_rows_are_errors() -> None:
    vocabulary = byte_vocabulary()
    matcher = Matcher(rows_of(Grammar(Repeat(Optional(Literal("a")), 0, 3)), vocabulary))
    with pytest.raises(VocabularyError, match="outside the vocabulary"):
        matcher.advance(vocabulary.size)
    with pytest.raises(VocabularyError, match="can't hold"):
        matcher.fill(np.zeros(vocabulary.words - 1, np.int32))


def test_columns_beyond_the_vocabulary_stay_masked() -> None:
    vocabulary = byte_vocabulary()
    matcher = Matcher(rows_of(CALL, vocabulary))
    for token in b'{"name": "ping", "to": "':
        assert matcher.advance(token)
    wide = np.full(vocabulary.words + 3, -1, np.int32)
    matcher.fill(wide)
    assert not wide[vocabulary.words :].any()
