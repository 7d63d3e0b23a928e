"""The flat table of a grammar says what its matcher says, state by state and token by token."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from hypothesis import event, given, reject, settings
from hypothesis import strategies as st

from benchmarks.vocabularies import Tokenization, demo_tokenization
from benchmarks.workload import make_case
from routine_grammar.api import compile_schema
from routine_grammar.automaton.automaton import Automaton
from routine_grammar.errors import GrammarError
from routine_grammar.grammar.tree import Choice, Grammar, Leaf, Literal, Marker, Sequence
from routine_grammar.masks.distinct import rows_of
from routine_grammar.masks.flat.comb import NOWHERE
from routine_grammar.masks.flat.table import COUNT, DISTANCE, FARTHEST, FORCED, FlatTable
from routine_grammar.masks.matcher import Matcher
from routine_grammar.masks.rows import TokenRows
from routine_grammar.masks.vocabulary import Vocabulary
from tests.grammars import ALPHABET, grammars
from tests.masks.test_spelling import longest_first
from tests.scale import SCALE
from tests.vocabularies import byte_vocabulary, random_vocabulary


def make(grammar: Grammar, vocabulary: Vocabulary, *, canonical: bool) -> tuple[TokenRows, FlatTable]:
    rows = rows_of(Automaton(grammar, vocabulary.special), vocabulary)
    assert isinstance(rows, TokenRows)
    return rows, FlatTable.of(rows, rows.shared.ends(None), canonical=canonical)


def bits(packed: np.ndarray) -> list[int]:
    return [int(token) for token in np.flatnonzero(np.unpackbits(packed.view(np.uint8), bitorder="little"))]


def follow(rows: TokenRows, table: FlatTable, rng: random.Random, *, canonical: bool, most: int = 40) -> int:
    """A random walk of both; returns how many tokens it took."""
    matcher, state = Matcher(rows, canonical=canonical), table.start
    packed = np.zeros(rows.vocabulary.words, np.int32)
    for count in range(most):
        matcher.fill(packed)
        allowed = bits(packed)
        assert bits(table.allowed(state)) == allowed
        for token in rng.sample(range(rows.vocabulary.size), min(rows.vocabulary.size, 20)):
            if not canonical:
                is_end = token in matcher.ends
                assert is_end or (table.after(state, token) != NOWHERE) == (token in allowed), token
        texts = [token for token in allowed if token not in matcher.ends]
        if not texts:
            return count
        token = rng.choice(texts)
        assert matcher.advance(token)
        state = table.after(state, token)
        assert table.row_number(state) > 0
    return most


@settings(max_examples=60 * SCALE, deadline=None)
@given(grammars, st.integers(0, 1 << 30), st.booleans())
def test_a_table_allows_what_the_matcher_does(grammar: Grammar, seed: int, canonical: bool) -> None:
    rng = random.Random(seed)
    vocabulary = random_vocabulary(rng, ALPHABET)
    words = tuple(data.decode() for data in vocabulary.tokens[256:] if data)
    vocabulary = longest_first(words) if canonical else vocabulary
    try:
        rows, table = make(grammar, vocabulary, canonical=canonical)
    except GrammarError as error:
        event(str(error))
        reject()
    for _ in range(5):
        follow(rows, table, rng, canonical=canonical)


@pytest.fixture(scope="module")
def demo_tokens() -> Tokenization:
    return demo_tokenization()


@pytest.mark.parametrize("canonical", [False, True])
@pytest.mark.parametrize("size", ["small", "medium", "large"][: 2 + (SCALE > 1)])
def test_a_turn_has_a_table_over_a_real_vocabulary(size: str, canonical: bool, demo_tokens: Tokenization) -> None:
    case = make_case(size, 20)
    rows, table = make(case.grammar.tree, demo_tokens.vocabulary, canonical=canonical)
    rng = random.Random(7)
    assert sum(follow(rows, table, rng, canonical=canonical, most=200) for _ in range(20)) > 200
    for text in case.samples:
        state = table.start
        for token in demo_tokens.encode(text):
            assert table.allowed(state)[token >> 5] >> (token & 31) & 1
            state = table.after(state, token)
        assert table.rows[table.row_number(state), DISTANCE] == 0


def test_markers_that_are_tokens_lead_where_they_lead() -> None:
    vocabulary = byte_vocabulary(("ab",), ("<x>", "<y>"))
    tree = Grammar(Sequence((Marker("<x>"), Choice((Literal("a"), Marker("<y>"))), Leaf("B", "b*"))))
    for canonical in (False, True):
        rows, table = make(tree, vocabulary, canonical=canonical)
        for seed in range(10):
            follow(rows, table, random.Random(seed), canonical=canonical)
    assert table.after(table.start, ord("a")) == table.after(table.start, vocabulary.special["<y>"]) == NOWHERE
    assert table.after(table.start, vocabulary.size) == table.after(table.start, -1) == NOWHERE


def test_nowhere_leads_nowhere_and_allows_a_token_that_is_in_no_text() -> None:
    vocabulary = byte_vocabulary((), ("<x>", "<y>"))
    _, table = make(Grammar(Sequence((Marker("<x>"), Leaf("B", "b+")))), vocabulary, canonical=False)
    assert {table.after(NOWHERE, token) for token in range(vocabulary.size)} == {NOWHERE}
    assert bits(table.allowed(NOWHERE)) == [vocabulary.special["<y>"]]
    assert table.rows[0, COUNT] == 1


@pytest.mark.parametrize("canonical", [False, True])
def test_the_distance_is_the_fewest_tokens_to_the_end(canonical: bool) -> None:
    """Found again by a search over tokens."""
    words = ('{"', '": ', "true", '"}', "ab", "tr", "ue}", "12", '", "')
    vocabulary = longest_first(words)
    properties = {"ab": {"enum": ["ab", "abab", True]}, "c": {"type": "integer"}}
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    _, table = make(compile_schema(schema).tree, vocabulary, canonical=canonical)
    ends, known, todo = set(vocabulary.eos), dict[int, set[int]](), [table.start]
    while todo:
        state = todo.pop()
        if state not in known:
            known[state] = {table.after(state, token) for token in bits(table.allowed(state)) if token not in ends}
            todo += known[state]
    distances = {state: 0 for state in known if set(bits(table.allowed(state))) & ends}
    while len(distances) < len(known):
        for state in known.keys() - distances.keys():
            reached = [distances[after] for after in known[state] if after in distances]
            if reached:
                distances[state] = 1 + min(reached)
        for state in distances:
            reached = [distances[after] for after in known[state] if after in distances]
            distances[state] = min([distances[state], *(1 + one for one in reached)])
    for state, afters in known.items():
        row = table.rows[table.row_number(state)]
        assert row[DISTANCE] == distances[state]
        assert row[FARTHEST] == max((distances[after] for after in afters), default=0)
        allowed = bits(table.allowed(state))
        assert row[FORCED] == -1 or [row[FORCED]] == allowed


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "array", "items": {"$ref": "#"}}, "call themselves"),
        ({"type": "string", "maxLength": 200}, "counted"),
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, "distinct"),
        ({"enum": [f"{n * n * 7919:012}" for n in range(1_500)]}, "more than 8000 states"),
    ],
)
def test_what_has_no_table_says_why(schema: object, message: str) -> None:
    vocabulary = byte_vocabulary()
    rows = rows_of(Automaton(compile_schema(schema).tree), vocabulary)
    plain = rows if isinstance(rows, TokenRows) else rows._plain
    with pytest.raises(GrammarError, match=message):
        FlatTable.of(plain, plain.shared.ends(None), canonical=False, most=8_000)


def test_equal_rows_are_kept_once() -> None:
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in "abcdefgh"}, "required": list("abcdefgh")}
    words = tuple(json.dumps({name: "x"}) for name in "abc")
    _, table = make(compile_schema({**schema, "additionalProperties": False}).tree, byte_vocabulary(words), canonical=False)
    assert len({(row[1], row[2]) for row in table.rows.tolist()}) < len(table.rows) / 2
