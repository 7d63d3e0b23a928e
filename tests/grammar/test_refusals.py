"""What is not compiled names a keyword that the schema has, and a pointer that leads to it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from routine_grammar.api import compile_routine, compile_schema, problems_of
from routine_grammar.errors import GrammarTooLargeError, SchemaError, UnsupportedSchemaError
from routine_grammar.grammar.schema.blaming import blamed, too_large
from routine_grammar.routine import Constant, Routine, Step, Tool
from tests.grammar.any_schema import Schemas
from tests.grammar.test_recursive_schemas import Recursive
from tests.scale import SCALE

OBJECT: dict[str, Any] = {"type": "object"}
LIST = {"anyOf": [{"type": "array", "items": {"$ref": "#"}}, {"type": "array", "prefixItems": [{"$ref": "#"}]}]}
EVERY = "^.*{}.*{}.*$"
EXPRESSIONS = [EVERY.format(chr(97 + number % 26), chr(98 + number % 25)) for number in range(30)]


def leads_to(schema: Any, error: UnsupportedSchemaError) -> bool:
    """Whether an error's pointer leads into a schema, to its keyword or to what that has under a name."""
    parts = [part.replace("~1", "/").replace("~0", "~") for part in error.pointer.split("/")[1:]]
    value = schema
    for part in parts:
        value = value[int(part) if isinstance(value, list) else part]
    return error.keyword in parts[-2:] and error.keyword in str(error)


def rows(depth: int, least: int) -> Any:
    schema: Any = {"type": "null"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema, "minItems": least}
    return schema


REFUSED: list[tuple[str, Any, str, str]] = [
    ("a list of itself in two ways", LIST, "/anyOf/0/items/$ref", "$ref"),
    ("no list of itself", {"not": {"type": "array", "items": {"$ref": "#"}}}, "/not/items/$ref", "$ref"),
    ("maxProperties", {**OBJECT, "maxProperties": 10_002}, "/maxProperties", "maxProperties"),
    ("a distinct million", {"type": "array", "uniqueItems": True, "maxItems": 10**6}, "/maxItems", "maxItems"),
    ("minLength", {"properties": {"a": {"minLength": 2**30}}, "required": ["a"]}, "/properties/a/minLength", "minLength"),
    ("30 expressions", {"allOf": [{"type": "string", "pattern": each} for each in EXPRESSIONS]}, "/allOf", "allOf"),
    (
        "properties that want others, and a count",
        {**OBJECT, "dependentRequired": {"a": ["b"]}, "minProperties": 3},
        "/dependentRequired",
        "dependentRequired",
    ),
    ("a count within", {**OBJECT, "allOf": [{}, {"minProperties": 9}]}, "/allOf/1/minProperties", "minProperties"),
    (
        "a reference to it",
        {"$ref": "#/$defs/a", "$defs": {"a": {"multipleOf": 1_000_003}}},
        "/$defs/a/multipleOf",
        "multipleOf",
    ),
    ("many values", {"items": {"enum": list(range(40_000))}}, "/items/enum", "enum"),
    ("a large number", {"minimum": 10**400}, "/minimum", "minimum"),
    ("a large constant", {"const": 10**400}, "/const", "const"),
    ("a large constant listed", {"enum": [1, 10**400]}, "/enum", "enum"),
    ("many rows", rows(6, 50), "/minItems", "minItems"),
    ("a deep schema", rows(70, 0), "/items" * 65, "items"),
    (
        "many optional properties",
        {**OBJECT, "properties": {f"p{n}": {} for n in range(1_501)}, "additionalProperties": False},
        "/properties",
        "properties",
    ),
    ("one of two objects", {"oneOf": [{"maxProperties": 3}, {"properties": {"b": {}}}]}, "/oneOf", "oneOf"),
    ("another document's", {"$ref": "https://example.org/a"}, "/$ref", "$ref"),
]


@pytest.mark.parametrize(("schema", "pointer", "keyword"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_refusal_leads_to_the_keyword_that_it_is_of(schema: Any, pointer: str, keyword: str) -> None:
    with pytest.raises(UnsupportedSchemaError) as caught:
        compile_schema(schema)
    assert (caught.value.pointer, caught.value.keyword) == (pointer, keyword)
    assert leads_to(schema, caught.value)


@settings(max_examples=150 * SCALE, deadline=None)
@given(st.integers(0, 1 << 40), st.booleans())
def test_every_refusal_leads_to_a_keyword_of_the_schema(seed: int, recursive: bool) -> None:
    rng = random.Random(seed)
    schema = Recursive(rng).document() if recursive else Schemas(rng).document()
    try:
        compile_schema(schema)
    except SchemaError as error:
        refusal = error
    else:
        return
    if isinstance(refusal, UnsupportedSchemaError):
        event(f"declined for {refusal.keyword}")
        assert leads_to(schema, refusal), (refusal, schema)


def test_the_keyword_nearest_is_blamed() -> None:
    schema = {
        "properties": {"a": {"allOf": [{"title": "x"}, {"$ref": "#/$defs/b"}]}, "c": {"pattern": "c"}},
        "$defs": {"b": {"pattern": "b"}},
        "required": ["a", "b", "c"],
    }

    def found(keyword: str, pointer: str) -> tuple[str, str]:
        error = blamed(schema, UnsupportedSchemaError(f"{keyword!r} is not", pointer=pointer, keyword=keyword))
        assert leads_to(schema, error)
        return error.keyword, error.pointer

    assert found("pattern", "/properties/a") == ("pattern", "/$defs/b/pattern")
    assert found("pattern", "/properties/c") == ("pattern", "/properties/c/pattern")
    assert found("not", "/properties/a") == ("$ref", "/properties/a/allOf/1/$ref")
    assert found("minProperties", "") == ("required", "/required")
    assert found("multipleOf", "/properties/c/nowhere/at/all") == ("$ref", "/properties/a/allOf/1/$ref")
    large = too_large(schema, GrammarTooLargeError("too large"))
    assert (large.keyword, large.pointer) == ("required", "/required")
    assert too_large({}, GrammarTooLargeError("too large")).keyword == "type"


@pytest.mark.parametrize(
    ("schema", "pointer", "keyword"),
    [
        (
            {"anyOf": [{"type": "array", "items": {"$ref": "#/properties/a"}}, {"type": "array", "prefixItems": [LIST]}]},
            "/properties/a/anyOf/0/items/$ref",
            "$ref",
        ),
        ({**OBJECT, "minProperties": 2, "propertyNames": {"maxLength": 0}}, "/properties/a/minProperties", "minProperties"),
        (rows(6, 50), "/properties/a/minItems", "minItems"),
        ({"type": "string", "pattern": "^[^é]{500,9000}$"}, "/properties/a/pattern", "pattern"),
    ],
)
def test_a_tool_whose_grammar_no_automaton_holds_is_told_as_the_routine_is_compiled(
    schema: Any, pointer: str, keyword: str
) -> None:
    tool = Tool("t", "", {"properties": {"a": schema}})
    routine = Routine("r", steps=(Step("1", "s", tool="t"),))
    with pytest.raises(UnsupportedSchemaError) as caught:
        compile_routine(routine, [tool])
    assert (caught.value.pointer, caught.value.keyword) == (pointer, keyword)
    (problem,) = problems_of(routine, [tool])
    assert (problem.step, problem.field) == ("1", "arguments.a")
    compile_routine(
        Routine("r", steps=(Step("1", "s", tool="t", arguments={"a": Constant(None)}),)),
        [Tool("t", "", {"properties": {"a": {}}})],
    )


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"$ref": "#/$defs/A"}}}, "/properties/a/$ref"),
        ({"not": {"$ref": "#/$defs/B"}, "$defs": {"B": {"$ref": "#/$defs/B"}}}, "/not/$ref"),
        ({"uniqueItems": "yes"}, "/uniqueItems"),
        ({"items": {"nullable": 1}}, "/items/nullable"),
    ],
)
def test_what_is_wrong_with_a_schema_is_told_where_it_is(schema: Any, pointer: str) -> None:
    with pytest.raises(SchemaError) as error:
        compile_schema(schema)
    assert error.value.pointer == pointer


def test_names_that_are_no_strings_are_told() -> None:
    with pytest.raises(SchemaError, match="a name that is no string"):
        compile_schema({"properties": {1: {}}})
