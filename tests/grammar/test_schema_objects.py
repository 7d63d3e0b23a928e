"""Objects that have to have some property by what it is, or several that have no names."""

from __future__ import annotations

import json
import random
from itertools import combinations, pairwise, permutations, product
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from routine_grammar.api import compile_schema
from routine_grammar.automaton.automaton import Automaton
from routine_grammar.automaton.distinct import Watch
from routine_grammar.errors import UnsupportedSchemaError
from routine_grammar.grammar.schema.compiler import schema_to_grammar
from tests.scale import SCALE
from tests.vocabularies import byte_vocabulary

NULL = {"type": "null"}
TEXTS, NUMBERS = {"additionalProperties": {"type": "string"}}, {"additionalProperties": {"type": "number"}}
KINDS = ("string", "null", "array", "object")
OTHERS = [
    {"oneOf": [{"type": "object", **TEXTS}, {"type": "object", **NUMBERS}]},
    {
        "oneOf": [
            {"properties": {"a": {"type": "string"}}, "additionalProperties": False},
            {"properties": {"b": {"type": "null"}}},
        ]
    },
    {"oneOf": [{"properties": {"a": {"type": "string"}}}, {"properties": {"b": {"type": "number"}}, **TEXTS}]},
    {"not": {"type": "object", **TEXTS}},
    {"not": {"type": "object", "patternProperties": {"^a": {"type": "string"}}}},
    {"not": {"type": "object", "additionalProperties": False}},
    {"not": {"propertyNames": {"pattern": "^a"}}},
    {"properties": {"a": {"type": ["string", "null"]}, "b": {}}, "required": ["b"], "not": TEXTS},
    {"not": {"not": TEXTS}},
    {"allOf": [{"not": TEXTS}, {"not": {"patternProperties": {"^a": {"type": "number"}}}}]},
    {"if": TEXTS, "then": {"maxProperties": 1}, "else": {"required": ["a"]}},
    {"anyOf": [{"type": "object"}, {"type": "object", **TEXTS}, {"properties": {"a": {"type": "null"}}}]},
    {"not": TEXTS, "maxProperties": 2},
    {"patternProperties": {f"^{name}$": {"type": kind} for name, kind in zip("abcdefghij", KINDS * 3, strict=False)}},
    {"allOf": [{"not": {"additionalProperties": {"type": name}}} for name in KINDS]},
    {"oneOf": [{"properties": {"a": {"type": one}, "b": {"type": two}}} for one, two in pairwise(KINDS)]},
    {
        "oneOf": [
            {"required": ["a"]},
            {"required": ["b"], "properties": {"a": {"const": 1}}},
            {"properties": {"c": {"enum": [1]}}},
        ]
    },
    {"dependentRequired": {"a": ["b", "c"], "b": ["c"], "aa": ["a"]}},
    {"dependentSchemas": {"a": {"properties": {"b": {"type": "null"}}, "required": ["c"]}, "b": {"maxProperties": 2}}},
    {
        "properties": {name: {} for name in ("a", "aa", "b", "c")},
        "additionalProperties": False,
        "not": {"properties": {"a": {"type": "null"}, "b": {"type": "string"}}, "required": ["a"], "maxProperties": 2},
    },
    {"not": {"enum": [{name: value} for name in ("a", "b", "c") for value in ("x", 1, None)]}},
    {"not": {"enum": [{}, {"a": 1}, {"a": None, "b": True}]}, "propertyNames": {"maxLength": 1}},
    {
        "properties": {"a": {"enum": ["x", 1, None]}},
        "allOf": [
            {"if": {"properties": {"a": {"const": "x"}}}, "then": {"required": ["b"]}},
            {"if": {"properties": {"a": {"const": 1}}, "required": ["a"]}, "then": {"properties": {"b": {"type": "string"}}}},
            {"if": {"properties": {"a": {"const": None}}}, "then": {"properties": {"c": False}}, "else": {"required": ["c"]}},
        ],
    },
]


def random_object(rng: random.Random) -> dict[str, Any]:
    names = rng.sample(["a", "aa", "b", "c"], rng.randint(0, 3))
    return {name: rng.choice(["x", 1, None, 2.5, True, "", [], {}]) for name in names}


@pytest.mark.parametrize("schema", OTHERS, ids=json.dumps)
def test_objects_are_accepted_as_jsonschema_does_in_some_order(schema: Any) -> None:
    whole = {"type": "object", **schema}
    watch, judge = Watch(Automaton(schema_to_grammar(whole))), Draft202012Validator(whole)
    answers = set()
    for seed in range(150 * SCALE):
        value = random_object(random.Random(seed))
        expected = judge.is_valid(value)
        texts = [json.dumps(dict(order)).encode() for order in permutations(value.items())]
        assert any(map(watch.accepts, texts)) is expected, value
        answers.add(expected)
    assert answers == {True, False} or "anyOf" in schema


def test_conditions_over_one_property_are_told_apart() -> None:
    def unless(value: str, *null: str) -> dict[str, Any]:
        then = {"properties": {name: {"type": "null"} for name in null}}
        return {"if": {"properties": {"b": {"not": {"const": value}}}}, "then": then}

    schema = {
        "type": "object",
        "properties": {"a": {"type": ["array", "null"]}, "b": {"enum": ["x", "y", "z"]}},
        "additionalProperties": False,
        "allOf": [unless("x", "c"), unless("y", "aa"), unless("z", "d", "a")],
    }
    grammar, judge = compile_schema(schema), Draft202012Validator(schema)
    for value in ({"a": a, "b": b} for a in list[list[Any] | None](([], None)) for b in "xyz"):
        assert grammar.accepts(json.dumps(value)) is judge.is_valid(value), value


DISTINCT = {"type": "array", "uniqueItems": True, "items": {"type": "string"}}
ONE = {"properties": {"v": {"const": 1}}}


@pytest.mark.parametrize(
    "rules",
    [
        {"if": ONE, "then": {"properties": {"a": DISTINCT}}},
        {"if": ONE, "then": {"properties": {"a": DISTINCT}}, "else": {"properties": {"b": DISTINCT}}},
        {
            "if": ONE,
            "then": {
                "properties": {"a": DISTINCT, "b": {"type": "array"}},
                "dependentSchemas": {"a": {"not": {"required": ["b"]}}},
            },
            "else": {"properties": {"b": DISTINCT}, "required": ["b"]},
        },
    ],
    ids=json.dumps,
)
def test_lists_of_distinct_items_go_by_what_was_said_before(rules: Any) -> None:
    schema = {"type": "object", "properties": {"v": {"enum": [1, 2]}}, "required": ["v"], **rules}
    grammar, judge = compile_schema(schema), Draft202012Validator(schema)
    lists: list[Any] = [None, [], ["x", "x"], ["x", "y"], [1]]
    answers = set()
    for v, a, b in product((1, 2), lists, lists):
        value = {"v": v} | ({} if a is None else {"a": a}) | ({} if b is None else {"b": b})
        answers.add(judge.is_valid(value))
        found = [grammar.accepts(json.dumps(dict(order))) for order in permutations(value.items()) if order[0][0] == "v"]
        assert any(found) is judge.is_valid(value), value
    assert answers == {True, False}


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"not": {"maxProperties": 3, "properties": {"a": True, "b": {"type": "null"}}}}, "not"),
        ({"minProperties": 2, "properties": {"a": {}}}, "minProperties"),
        ({"minProperties": 3, "propertyNames": {"enum": ["a", "b"]}}, "minProperties"),
        ({"minProperties": 9}, "minProperties"),
        ({"anyOf": [{"minProperties": 2}, {"required": ["a"]}]}, "minProperties"),
    ],
)
def test_what_can_not_be_told_of_objects_is_declined(schema: Any, keyword: str) -> None:
    with pytest.raises(UnsupportedSchemaError) as caught:
        compile_schema({"type": "object", **schema})
    assert caught.value.keyword == keyword


def test_listed_names_are_counted() -> None:
    grammar = compile_schema({"type": "object", "minProperties": 2, "propertyNames": {"enum": ["a", "b"]}})
    assert grammar.accepts('{"a": 1, "b": 2}')
    assert grammar.accepts('{"b": 1, "a": 2}')
    assert not grammar.accepts('{"b": 1}')
    assert not grammar.accepts('{"b": 1, "b": 2}')


def test_a_name_that_comes_twice_does_not_count_twice() -> None:
    grammar = compile_schema({"type": "object", "minProperties": 2, **TEXTS})
    assert grammar.accepts('{"a": "", "b": ""}')
    assert not grammar.accepts('{"a": "", "a": ""}')
    assert not grammar.accepts('{"a": "", "\\u0061": ""}')
    vocabulary = byte_vocabulary(('": "', '", "', '{"', '"}'))
    for seed in range(30 * SCALE):
        rng = random.Random(seed)
        matcher, text = grammar.matcher(vocabulary, grammar.fewest_tokens(vocabulary) + rng.randint(0, 9)), b""
        while not matcher.finished:
            token = int(rng.choice(matcher.allowed()))
            assert matcher.advance(token)
            text += vocabulary.tokens[token]
        assert len(json.loads(text)) >= 2


def test_more_names_than_there_are_is_an_error() -> None:
    with pytest.raises(UnsupportedSchemaError, match=r"no 2 different elements.*'/minProperties'"):
        compile_schema({"minProperties": 2, "propertyNames": {"maxLength": 0}})


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {}, "b": {}}, "required": ["a", "b"], "minProperties": 4},
        {"required": ["a"], "properties": {"a": {"type": "null"}}, **NUMBERS, "minProperties": 3, "maxProperties": 4},
    ],
)
def test_names_are_counted_behind_those_that_are_required(schema: Any) -> None:
    grammar, validator = compile_schema(schema), Draft202012Validator(schema)
    for names in (names for count in range(6) for names in combinations(("a", "b", "c", "d", "e"), count)):
        value = {name: None if name == "a" else 1 for name in names}
        assert grammar.accepts(json.dumps(value)) == validator.is_valid(value), value


def test_what_allows_an_object_is_not_taken_back_by_a_name_that_comes_again() -> None:
    grammar = compile_schema({"type": "object", "not": TEXTS})
    for text, is_allowed in (('{"a": 1}', True), ('{"a": "x", "b": 1}', True), ('{"a": 1, "a": "x"}', False), ("{}", False)):
        assert grammar.accepts(text) == is_allowed, text
    # What forbids one may be: the reader of the last value finds it allowed.
    condition = {"if": {"properties": {"k": {"const": 1}}, "required": ["k"]}, "then": NUMBERS}
    assert compile_schema(condition).accepts('{"k": 1, "a": 2}')
    assert not compile_schema(condition).accepts('{"k": 1, "a": "x"}')
