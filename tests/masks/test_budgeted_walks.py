"""Random outputs under masks alone, of a vocabulary of 131,072 tokens: whatever the budget, each is a valid instance."""

from __future__ import annotations

import json
import lzma
import random
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from routine_grammar import Grammar, Vocabulary, compile_schema
from tests.scale import SCALE
from tests.vocabularies import tekken_vocabulary

DATA = Path(__file__).parents[1] / "data" / "tool_schemas.jsonl.xz"
WALKS = 100 * SCALE * SCALE
WALKS_A_SCHEMA = 10
# What tool schemas hardly have, and an output within a budget is most easily broken by.
HARD: list[dict[str, Any]] = [
    {"type": "array", "uniqueItems": True, "items": {"type": "string", "maxLength": 40}},
    {"type": "array", "uniqueItems": True, "minItems": 3, "items": {"type": "integer", "minimum": 1, "maximum": 9}},
    {"type": "object", "minProperties": 2, "additionalProperties": {"type": "string", "pattern": "^[a-z]+-[0-9]{3}$"}},
    {"type": "string", "minLength": 30, "maxLength": 2_000},
    {
        "type": "array",
        "minItems": 2,
        "items": {"type": "object", "properties": {"at": {"format": "date-time", "type": "string"}}},
    },
    {"$ref": "#/$defs/t", "$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}, "minItems": 0, "maxItems": 2}}},
]


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return tekken_vocabulary()


def walked(grammar: Grammar, vocabulary: Vocabulary, rng: random.Random) -> bytes:
    """What is decoded from even logits at temperature 1, in a budget from the shortest text upward."""
    budget = grammar.fewest_tokens(vocabulary) + int(rng.expovariate(1 / 12))
    matcher = grammar.matcher(vocabulary, budget)
    text = b""
    while matcher.tokens < budget and not matcher.finished:
        allowed = matcher.allowed()
        token = int(allowed[rng.randrange(len(allowed))])
        assert matcher.advance(token)
        text += vocabulary.tokens[token]
    return text


def test_outputs_of_any_budget_are_valid(vocabulary: Vocabulary) -> None:
    recorded = [json.loads(line)["schema"] for line in lzma.decompress(DATA.read_bytes()).splitlines()]
    rng = random.Random(4)
    schemas = rng.sample(recorded, min(len(recorded), WALKS // WALKS_A_SCHEMA - len(HARD))) + HARD
    done = 0
    while done < WALKS:
        for schema in schemas:
            grammar, judge = compile_schema(schema), Draft202012Validator(schema)
            for _ in range(WALKS_A_SCHEMA):
                text = walked(grammar, vocabulary, rng)
                assert judge.is_valid(json.loads(text)), (schema, text)
                done += 1
    assert done >= WALKS
