"""`assignable` is sound: what it proves holds for every value; and it proves what Routines need."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from routine_grammar.errors import SchemaError, UnsupportedSchemaError
from routine_grammar.routine import assignable, misfit, value_fits
from routine_grammar.routine.types import may_share_values
from routine_grammar.routine.values import schema_problem, subschema

S: dict[str, Any] = {"type": "string"}
INT: dict[str, Any] = {"type": "integer"}
NUM: dict[str, Any] = {"type": "number"}
TREE: dict[str, Any] = {
    "type": "object",
    "properties": {"children": {"type": "array", "items": {"$ref": "#"}}},
    "additionalProperties": False,
}

ASSIGNABLE: list[tuple[Any, Any]] = [
    ({"const": "a"}, {"type": "string", "pattern": "^a"}),
    (None, {}),
    (None, None),
    (S, None),
    (S, {"title": "anything", "description": "…"}),
    (INT, NUM),
    ({"type": "number", "minimum": 1}, {"type": ["string", "number"]}),
    ({"enum": ["a", "b"]}, S),
    ({"enum": ["a"]}, {"enum": ["b", "a"]}),
    ({"const": 3}, INT),
    ({"type": "boolean"}, {"enum": [True, False, None]}),
    ({"type": "null"}, {"anyOf": [S, {"type": "null"}]}),
    (S, {"anyOf": [INT, S]}),
    (S, {"oneOf": [INT, S]}),
    ({"anyOf": [S, INT]}, {"type": ["integer", "string"]}),
    ({"type": ["integer", "string"]}, {"anyOf": [INT, S]}),
    ({"allOf": [S, {"minLength": 3}]}, S),
    (S, {"allOf": [{"type": ["string", "null"]}, {}]}),
    (INT, {"type": "integer", "pattern": "says nothing about numbers"}),
    ({"type": "string", "minLength": 3}, {"type": "string", "minLength": 2}),
    ({"type": "string", "format": "uri"}, {"type": "string", "format": "uri"}),
    ({"type": "integer", "exclusiveMinimum": 3}, {"minimum": 3}),
    ({"type": "integer", "maximum": 3}, {"exclusiveMaximum": 4, "multipleOf": 1}),
    ({"type": "array", "items": INT}, {"type": "array", "items": NUM}),
    ({"type": "array", "items": S, "minItems": 1}, {"type": "array"}),
    ({"type": "array", "prefixItems": [INT, S], "items": False}, {"type": "array", "prefixItems": [NUM]}),
    (
        {"type": "object", "properties": {"a": INT}, "required": ["a"], "additionalProperties": False},
        {"type": "object", "properties": {"a": NUM, "b": S}, "required": ["a"]},
    ),
    ({"type": "object", "additionalProperties": S}, {"type": "object", "properties": {"a": S}}),
    (TREE, TREE),
    ({"$ref": "#/$defs/path", "$defs": {"path": S}}, S),
    (S, {"$ref": "#/$defs/path", "$defs": {"path": S}}),
    ({"const": "a"}, {"$ref": "#/properties/x", "properties": {"x": S}}),
]
NOT_ASSIGNABLE: list[tuple[Any, Any]] = [
    (None, S),
    ({}, {"type": ["null", "boolean", "number", "string", "array"]}),
    (S, INT),
    (NUM, INT),
    (S, {"enum": ["a"]}),
    (S, {"const": "a"}),
    ({"enum": ["a", 1]}, S),
    ({"const": 1}, {"const": True}),
    ({"type": "boolean"}, {"const": True}),
    ({"anyOf": [S, INT]}, S),
    ({"type": ["string", "null"]}, S),
    (INT, {"oneOf": [INT, NUM]}),
    (S, {"type": "string", "minLength": 1}),
    (S, {"type": "string", "pattern": "^a"}),
    ({"const": "b"}, {"type": "string", "pattern": "^a"}),
    (S, {"type": "string", "format": "uri"}),
    (S, {"not": {"const": "a"}}),
    (INT, {"type": "integer", "minimum": 0}),
    ({"type": "integer", "minimum": 3}, {"exclusiveMinimum": 3}),
    (INT, {"multipleOf": 2}),
    ({"type": "array", "items": NUM}, {"type": "array", "items": INT}),
    ({"type": "array"}, {"type": "array", "minItems": 1}),
    ({"type": "array"}, {"type": "array", "uniqueItems": True}),
    ({"type": "array"}, {"type": "array", "contains": S}),
    ({"type": "object", "properties": {"a": INT}}, {"type": "object", "properties": {"a": INT}, "required": ["a"]}),
    ({"type": "object", "properties": {"a": INT}}, {"type": "object", "properties": {"b": INT}}),
    ({"type": "object"}, {"type": "object", "additionalProperties": False}),
    ({"type": "object"}, {"type": "object", "patternProperties": {"^a": S}}),
    ({"type": "object"}, {"type": "object", "unevaluatedProperties": False}),
    (S, False),
]


@pytest.mark.parametrize(("source", "target"), ASSIGNABLE)
def test_assignable(source: Any, target: Any) -> None:
    assert assignable(source, target)


@pytest.mark.parametrize(("source", "target"), NOT_ASSIGNABLE)
def test_not_assignable(source: Any, target: Any) -> None:
    assert not assignable(source, target if target is not False else {"not": {}})


VALUES = st.recursive(
    st.sampled_from([None, True, False, 0, 1, 2.0, 2.5, -3, "", "a", "ab", "abc"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=3,
)
_LEAVES: list[dict[str, Any]] = [
    *({"type": kind} for kind in ("null", "boolean", "integer", "number", "string", "array", "object")),
    *({"minLength": 1}, {"type": "string", "maxLength": 1}, {"pattern": "a"}, {"minimum": 1}, {"exclusiveMinimum": 1}),
    *({"maximum": 1}, {"multipleOf": 2}, {"enum": ["a", 1, None]}, {"const": True}, {"minItems": 1}, {"maxItems": 1}),
    *({"uniqueItems": True}, {"required": ["a"]}, {"maxProperties": 1}, {"type": ["integer", "null"]}, {}),
]


def _composed(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    parts = inner | st.booleans()
    keywords = {
        "items": parts,
        "prefixItems": st.lists(parts, min_size=1, max_size=2),
        "properties": st.dictionaries(st.sampled_from("ab"), parts, max_size=2),
        "additionalProperties": parts,
        "patternProperties": st.just({"a": {"type": "integer"}}),
        "anyOf": st.lists(parts, min_size=1, max_size=2),
        "oneOf": st.lists(parts, min_size=1, max_size=2),
        "allOf": st.lists(parts, min_size=1, max_size=2),
        "not": parts,
        "type": st.sampled_from(["array", "object", "string"]),
        "required": st.just(["a"]),
    }
    return st.fixed_dictionaries({}, optional=keywords).map(lambda schema: dict(list(schema.items())))


SCHEMAS = st.recursive(st.sampled_from(_LEAVES), _composed, max_leaves=3)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(SCHEMAS, SCHEMAS, st.lists(VALUES, min_size=5, max_size=10))
def test_what_is_proven_holds(source: Any, target: Any, values: list[Any]) -> None:
    assert assignable(source, source)
    if assignable(source, target):
        for value in values:
            assert not is_valid(value, source) or is_valid(value, target), value


def is_valid(value: Any, schema: Any) -> bool:
    """As jsonschema tells it, regular expressions matched too."""
    return Draft202012Validator(schema).is_valid(value)


SLOW = "^(a+)+$"


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        ("{}", {"type": "string", "pattern": SLOW}),
        ("{}", {"allOf": [{"$schema": "http://json-schema.org/draft-07/schema#", "pattern": SLOW}]}),
        ("{}", {"$schema": "http://json-schema.org/draft-04/schema#", "anyOf": [{"pattern": SLOW}, INT]}),
        ({"{}": "x"}, {"patternProperties": {"^(a+)+!$": INT}}),
        ({"{}": "x"}, {"additionalProperties": False, "patternProperties": {SLOW: S}}),
        ({"{}": "x"}, {"additionalProperties": INT, "patternProperties": {SLOW: S}}),
        ({"{}": "x"}, {"propertyNames": {"pattern": SLOW}}),
    ],
)
def test_patterns_are_found_in_time_that_grows_with_the_text_alone(value: Any, schema: Any) -> None:
    started = time.process_time()
    good, bad = ("a" * 40, "a" * 40 + "!")
    assert misfit(json.loads(json.dumps(value).replace("{}", good, 1)), schema) is None
    assert misfit(json.loads(json.dumps(value).replace("{}", bad, 1)), schema) is not None
    assert not assignable({"const": json.loads(json.dumps(value).replace("{}", bad, 1))}, schema)
    assert time.process_time() - started < 1


NAMES = st.sampled_from(("", "a", "ab", "x-a", "b1", "é", "\n"))
PATTERNS = st.sampled_from(("", "^a", "b$", "^x-", "[0-9]", "^(a|b)+$", "."))
VALUES = st.dictionaries(NAMES, st.one_of(NAMES, st.integers(0, 3)), max_size=3)
JUDGED = st.fixed_dictionaries(
    {},
    optional={
        "properties": st.dictionaries(NAMES, st.sampled_from((S, INT)), max_size=2),
        "patternProperties": st.dictionaries(PATTERNS, st.sampled_from((S, INT, True, False)), max_size=2),
        "additionalProperties": st.one_of(st.booleans(), PATTERNS.map(lambda pattern: {"pattern": pattern})),
        "propertyNames": PATTERNS.map(lambda pattern: {"pattern": pattern}),
    },
)


@given(VALUES, JUDGED)
def test_patterns_decide_as_jsonschema_has_them(value: Any, schema: Any) -> None:
    assert value_fits(value, schema) == is_valid(value, schema)


def test_what_can_not_be_judged_is_told() -> None:
    with pytest.raises(UnsupportedSchemaError, match=r"'pattern' can't be judged: .*back-reference"):
        misfit("aa", {"pattern": r"(a)\1"})
    with pytest.raises(UnsupportedSchemaError, match="can't be judged beside"):
        misfit({"aa": 1}, {"unevaluatedProperties": False, "allOf": [{"patternProperties": {SLOW: S}}]})


def test_a_pattern_that_decides_nothing_is_no_hindrance() -> None:
    assert misfit(5, {"pattern": "a"}) is None
    assert misfit({"pattern": "("}, {"properties": {"pattern": S}, "additionalProperties": False}) is None
    assert misfit({"pattern": "x"}, {"const": {"pattern": "x"}}) is None
    assert misfit({"a": 1}, {"additionalProperties": False}) is not None
    assert misfit({"a": 1}, {"unevaluatedProperties": False}) is not None


def test_a_hostile_comparison_ends_soon() -> None:
    wide: dict[str, Any] = {"anyOf": [{"type": "array", "items": {"$ref": "#"}}, {"$ref": "#"}, {"enum": ["a", "b"]}]}
    other: dict[str, Any] = {"anyOf": [{"type": "array", "items": {"$ref": "#"}}, {"$ref": "#"}, {"minLength": 2}]}
    started = time.process_time()
    assert not assignable({"$ref": "#"}, {"$ref": "#", "type": "string"})
    assert not assignable(wide, other)
    assert not assignable(other, wide)
    assert time.process_time() - started < 2


def test_misfit_says_why() -> None:
    assert misfit(5, None) is None
    assert misfit(5, INT) is None
    assert misfit("5", INT) == "'5' is not of type 'integer'"
    assert misfit({"children": [{"children": 1}]}, TREE) == "1 is not of type 'array'"


@pytest.mark.parametrize("ref", ["#/$defs/nothing", "https://example.com/schema.json", "other.json"])
def test_a_reference_is_never_fetched(ref: str) -> None:
    with pytest.raises(SchemaError, match="can't be resolved"):
        value_fits(5, {"$ref": ref})
    with pytest.raises(SchemaError):
        assignable({"$ref": ref}, S)


def test_an_endless_reference_is_refused() -> None:
    with pytest.raises(SchemaError, match="never ends"):
        value_fits(5, {"$ref": "#"})


def test_a_part_of_a_schema_keeps_its_references() -> None:
    root = {"properties": {"a": {"$ref": "#/properties/b"}, "b": {"type": "integer"}, "c": {"enum": [{"$ref": "#"}]}}}
    part = subschema(root, root["properties"]["a"])
    assert value_fits(1, part)
    assert not value_fits("x", part)
    assert value_fits({"$ref": "#"}, subschema(root, root["properties"]["c"]))
    assert subschema(root, {"type": "string"}) == S
    assert not value_fits(1, subschema(root, False))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (S, INT, False),
        (NUM, INT, True),
        (INT, NUM, True),
        (None, INT, True),
        ({"anyOf": [S, {"type": "null"}]}, INT, False),
        ({"type": ["string", "integer"]}, INT, True),
    ],
)
def test_may_share_values(first: Any, second: Any, expected: bool) -> None:
    assert may_share_values(first, second) is expected


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (S, None),
        ({"type": "text"}, "'text'"),
        ({"properties": []}, "properties"),
        (5, "expected a JSON Schema"),
    ],
)
def test_schema_problem(schema: object, expected: str | None) -> None:
    problem = schema_problem(schema)
    assert problem == expected if expected is None else expected in str(problem)
