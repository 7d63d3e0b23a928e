from __future__ import annotations

import json
import random
from itertools import permutations
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch

from routine_grammar.api import Grammar, compile_schema
from routine_grammar.automaton.automaton import Automaton
from routine_grammar.grammar.payload import load_grammar
from routine_grammar.masks.distinct import DistinctRows, rows_of
from routine_grammar.masks.matcher import Matcher
from tests.automaton.test_distinct import SCHEMAS, SHORT, unique
from tests.scale import SCALE
from tests.vocabularies import byte_vocabulary

WORDS = (
    *('", "', '"a", "a"', '["', '"]', '", ', ', "', 'a"', 'ab"]', "ab", "true", "tr", "\\u00", "\\u0061", "10", ", 1", "0, 0"),
    *('["","', '{"n": ', "1}, {", "null", "], [", 'b", ', '", "a", "', "v1", 'v1"', 'v10", "v1'),
)
VOCABULARY = byte_vocabulary(WORDS)
NAMES = ["a", "ab", "abc", "b", "bc", "c", "ca", "d", "dd", "ddd", "e"]


def test_masks_of_a_finite_list_are_the_beginnings_of_its_texts() -> None:
    """Every array of at most three of eleven names, none twice, written out: the oracle."""
    grammar = compile_schema(unique({"enum": NAMES}, maxItems=3))
    texts = [json.dumps(list(names)).encode() for count in range(4) for names in permutations(NAMES, count)]
    beginnings = {text[:length] for text in texts for length in range(len(text) + 1)}
    for seed in range(40 * SCALE):
        rng = random.Random(seed)
        matcher, text = grammar.matcher(VOCABULARY), b""
        while not matcher.finished:
            expected = {t for t, data in enumerate(VOCABULARY.tokens) if data and text + data in beginnings}
            expected |= set(VOCABULARY.eos) if text in texts else set()
            assert set(matcher.allowed().tolist()) == expected
            token = rng.choice(sorted(expected))
            assert matcher.advance(token)
            text += VOCABULARY.tokens[token]


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_a_token_is_allowed_where_it_can_be_taken(schema: Any) -> None:
    grammar = compile_schema(schema)
    rng = random.Random(7)
    for _ in range(4 * SCALE):
        matcher = grammar.matcher(VOCABULARY)
        for _ in range(15):
            allowed = set(matcher.allowed().tolist())
            taken = set()
            for token in range(VOCABULARY.size):
                if matcher.advance(token):
                    taken.add(token)
                    matcher.rollback(1)
            assert taken == allowed
            if matcher.finished or not matcher.advance(rng.choice(_likely(rng, sorted(allowed)))):
                break


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
@pytest.mark.parametrize("canonical", [False, True])
def test_walks_within_a_budget_end_in_valid_arrays(schema: Any, canonical: bool) -> None:
    grammar = compile_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for seed in range(25 * SCALE):
        rng = random.Random(seed)
        budget = grammar.fewest_tokens(VOCABULARY) + rng.randint(0, 40)
        value, tokens = _walked(grammar, Matcher(grammar._rows(VOCABULARY), budget, canonical=canonical), rng)
        assert tokens <= budget
        assert validator.is_valid(value)


def _likely(rng: random.Random, tokens: list[int]) -> list[int]:
    """Mostly tokens of several bytes: they end elements and begin others."""
    return [token for token in tokens if token >= 256] * (rng.random() < 0.6) or tokens


def _walked(grammar: Grammar, matcher: Matcher, rng: random.Random) -> tuple[Any, int]:
    text = b""
    while not matcher.finished:
        token = rng.choice(_likely(rng, matcher.allowed().tolist()))
        assert matcher.advance(token)
        text += VOCABULARY.tokens[token]
        if matcher.tokens > 300:
            break
    assert grammar.accepts(text.decode())
    return json.loads(text), matcher.tokens - 1


def test_a_drafted_run_leads_where_its_tokens_lead() -> None:
    """A run of forced tokens ends elements, too: what it goes past counts."""
    tool = {"type": "object", "properties": {"tags": unique({"enum": ["only", *map(str, range(10))]})}, "required": ["tags"]}
    matcher = Matcher(compile_schema({**tool, "additionalProperties": False})._rows(VOCABULARY))
    for text in (b'{"tags": ["on', b'ly"', b", ", b'"', b"o"):
        run = matcher.forced_tokens()
        drafted = b"".join(VOCABULARY.tokens[token] for token in run)
        taken = all(matcher.advance(token) for token in text)
        assert taken == (text != b"o"), drafted
    assert ord("o") not in matcher.allowed()


def test_a_list_of_many_elements_goes_on() -> None:
    """More elements than there are short texts, and more than are looked for one by one."""
    matcher = compile_schema(unique({"type": "string"})).matcher(VOCABULARY)
    text = json.dumps([str(number) for number in range(1200)])[:-1]
    assert all(matcher.advance(byte) for byte in text.encode())
    assert all(matcher.advance(byte) for byte in b', "77')
    allowed = matcher.allowed()
    assert ord('"') not in allowed
    assert ord("7") in allowed


@pytest.mark.filterwarnings("ignore")
def test_a_request_in_vllm_masks_what_repeats_an_element() -> None:
    from routine_grammar.engines.vllm.request_grammar import RoutineGrammar

    rows = rows_of(Automaton(load_grammar(compile_schema(SHORT).payload)), VOCABULARY)
    assert isinstance(rows, DistinctRows)
    grammar = RoutineGrammar(rows, VOCABULARY.eos)
    mask = torch.zeros((1, VOCABULARY.words), dtype=torch.int32)
    assert grammar.accept_tokens("request", list(b'["a", "a'))
    grammar.fill_bitmask(mask, 0)
    allowed = set(np.flatnonzero(np.unpackbits(mask.numpy().view(np.uint8), bitorder="little")).tolist())
    assert ord('"') not in allowed
    assert ord("b") in allowed
    assert grammar.validate_tokens(list(b'"')) == []
    assert grammar.validate_tokens(list(b'b"]')) == list(b'b"]')
