"""Schemas that are large, deep or doubling: compiled in time, or declined by their bounds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from routine_grammar.api import compile_schema
from routine_grammar.errors import SchemaError, UnsupportedSchemaError
from routine_grammar.grammar.schema import documents

OBJECT: dict[str, Any] = {"type": "object", "additionalProperties": False}


def nested(depth: int) -> Any:
    schema: Any = {"type": "null"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def optional(count: int, required: tuple[str, ...] = ()) -> Any:
    return {**OBJECT, "properties": {f"p{n}": {"type": "integer"} for n in range(count)}, "required": list(required)}


def doubling(levels: int) -> Any:
    twice = [
        {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"items": {"$ref": f"#/$defs/d{n + 1}"}, "type": "array"}]}
        for n in range(levels)
    ]
    definitions = {f"d{n}": {"type": "array", "items": schema, "maxItems": 2} for n, schema in enumerate(twice)}
    return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{levels}": {"type": "null"}}}


def conditions(count: int) -> Any:
    values = [f"k{n}" for n in range(count)]
    ifs = [{"properties": {"kind": {"const": value}}, "required": ["kind"]} for value in values]
    thens = [{"required": [f"p{n}"]} for n in range(count)]
    told = [{"if": one, "then": then} for one, then in zip(ifs, thens, strict=True)]
    return {"properties": {"kind": {"enum": values}}, "allOf": told}


HOSTILE: list[tuple[str, Any, type[Exception] | None, str]] = [
    ("10,000 levels", nested(10_000), SchemaError, ""),
    ("300 levels", nested(300), SchemaError, ""),
    ("64 levels", nested(64), None, "[]"),
    ("65 levels", nested(65), SchemaError, ""),
    ("doubling", doubling(30), None, "[[[[]]]]"),
    (
        "doubled sizes",
        {
            "$ref": "#/$defs/d0",
            "$defs": {
                f"d{n}": {
                    **OBJECT,
                    "properties": {"a": {"$ref": f"#/$defs/d{n + 1}"}, "b": {"$ref": f"#/$defs/d{n + 1}"}},
                    "required": ["a", "b"],
                }
                for n in range(30)
            }
            | {"d30": {}},
        },
        UnsupportedSchemaError,
        "",
    ),
    (
        "2,000 references in a row",
        {
            "$ref": "#/$defs/d0",
            "$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(2_000)} | {"d2000": {"const": 1}},
        },
        None,
        "1",
    ),
    (
        "2,000 references in a circle",
        {"$ref": "#/$defs/d0", "$defs": {f"d{n}": {"$ref": f"#/$defs/d{(n + 1) % 2_000}"} for n in range(2_000)}},
        SchemaError,
        "",
    ),
    ("an endless requirement", {**OBJECT, "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, SchemaError, ""),
    ("100,000 values", {"enum": [f"value {n}" for n in range(100_000)]}, SchemaError, ""),
    ("30,000 values", {"enum": [f"value {n}" for n in range(30_000)]}, None, '"value 4711"'),
    ("100,000 numbers", {"enum": list(range(100_000))}, SchemaError, ""),
    ("30,000 numbers", {"enum": list(range(30_000))}, SchemaError, ""),
    ("12,000 numbers", {"enum": list(range(12_000))}, None, "4711.0"),
    ("100,000 times one value", {"enum": ["a"] * 100_000}, None, '"a"'),
    ("10,000 optional properties", optional(10_000), SchemaError, ""),
    ("1,500 optional properties", optional(1_500), None, '{"p3": 1, "p99": 2}'),
    ("10,000 optional properties and one", optional(10_000, ("p9999",)), None, '{"p3": 1, "p9999": 2}'),
    ("10,000 properties behind one", optional(10_000, ("p0",)), None, '{"p0": 1, "p9999": 2}'),
    ("a huge minItems", {"type": "array", "minItems": 10**30}, UnsupportedSchemaError, ""),
    ("a large maxItems", {"type": "array", "maxItems": 10**6, "items": {"type": "null"}}, UnsupportedSchemaError, ""),
    ("a maxItems that no text has", {"type": "array", "maxItems": 2**31 - 1, "items": {"type": "null"}}, None, "[null, null]"),
    ("a maxLength that no text has", {"type": "string", "maxLength": 2**32 - 1}, None, '"a"'),
    ("a maxLength that no text has, within", {"properties": {"a": {"type": "string", "maxLength": 2**31}}}, None, '{"a": "b"}'),
    ("a huge minLength", {"type": "string", "minLength": 2**31}, UnsupportedSchemaError, ""),
    ("4,000 constants of which one is to be", {"oneOf": [{"const": f"v{n}"} for n in range(4_000)]}, None, '"v7"'),
    (
        "many items",
        {"type": "array", "maxItems": 10_000, "items": {"type": "array", "maxItems": 10_000, "items": {"enum": ["a", "b"]}}},
        None,
        '[["a"], []]',
    ),
    (
        "an ambiguous choice",
        {"anyOf": [{"type": "array", "items": {"type": t}} for t in ("string", "integer", "number", "null")] * 50},
        None,
        "[1, 2]",
    ),
    (
        "an expression of addresses",
        {"type": "string", "pattern": r"[-a-zA-Z0-9@:%._+~#=]{1,256}\.[a-zA-Z0-9()]{1,6}\b([-a-zA-Z0-9()@:%_+.~#?&//=]*)"},
        None,
        '"see example.org/a?b=c"',
    ),
    (
        "60 conditions over one property",
        conditions(60),
        None,
        '{"kind": "k7", "p7": 0}',
    ),
    ("200 conditions over one property", conditions(200), SchemaError, ""),
    (
        "40 open alternatives",
        {"oneOf": [{"properties": {f"p{n}": {"type": "integer"}}, "required": [f"p{n}"]} for n in range(40)]},
        None,
        '{"p7": 0}',
    ),
    (
        "40 alternatives that say nothing of each other",
        {"type": "object", "oneOf": [{"properties": {f"p{n}": {"type": "integer"}}} for n in range(40)]},
        None,
        json.dumps({f"p{n}": "" if n else 1 for n in range(40)}),
    ),
    (
        "150 properties that each want the next",
        {"type": "object", "dependentRequired": {f"p{n}": [f"p{n + 1}"] for n in range(150)}},
        None,
        '{"p149": 1, "p150": 1}',
    ),
    ("a deep value", {"const": json.loads("[" * 300 + "]" * 300)}, None, "[" * 300 + "]" * 300),
    ("a long name", {**OBJECT, "properties": {"x" * 100_000: {}}}, None, "{}"),
    ("too much text", {"description": "x" * (4 * 2**20)}, SchemaError, ""),
    (
        "names that look like more",
        {**OBJECT, "properties": {'": 1}': {"const": 1}, "a\n": {}, "\x00": {}, "</tool_call>": {}}},
        None,
        '{"\\": 1}": 1}',
    ),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("schema", "error", "text"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_hostile_schemas_compile_or_are_declined_in_time(schema: Any, error: type[Exception] | None, text: str) -> None:
    if error is None:
        assert compile_schema(schema).accepts(text)
        assert not compile_schema(schema).accepts(text + "x")
        return
    with pytest.raises(error):
        compile_schema(schema).accepts(text)


@pytest.mark.parametrize(
    "string", [{"pattern": "^[^é]{500,9000}$"}, {"pattern": "(?:a|b)*a(?:a|b){12}$", "minLength": 50, "maxLength": 200}]
)
def test_an_expression_that_takes_too_much_is_told_by_its_place(string: Any) -> None:
    with pytest.raises(UnsupportedSchemaError, match="the bound") as told:
        compile_schema({"type": "object", "properties": {"a": {"type": "string", **string}}}).accepts("{}")
    assert (told.value.pointer, told.value.keyword) == ("/properties/a/pattern", "pattern")


@pytest.mark.parametrize(
    "string", [{"pattern": "^.$", "minLength": 3}, {"format": "ipv4", "minLength": 100}, {"format": "date", "minLength": 11}]
)
def test_a_string_shorter_than_it_has_to_be_is_none(string: Any) -> None:
    with pytest.raises(SchemaError, match="there is no string that the schema allows"):
        compile_schema({"type": "string", **string})
    assert compile_schema({"type": ["string", "null"], **string}).accepts("null")
    grammar = compile_schema({"type": "object", "properties": {"a": {"type": "string", **string}, "b": {}}})
    assert grammar.accepts('{"b": 1}')
    assert not grammar.accepts('{"a": "x"}')


def test_a_shortest_text_past_any_bound_is_too_large_and_not_impossible() -> None:
    schema: Any = {"type": "null"}
    for _ in range(6):
        schema = {"type": "array", "items": schema, "minItems": 50}
    with pytest.raises(UnsupportedSchemaError, match="shortest text has at least"):
        compile_schema(schema).accepts("[]")


def test_a_schema_as_large_as_the_bound_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = {"enum": ["abc"]}
    monkeypatch.setattr(documents, "MAX_SCHEMA_CHARS", len(json.dumps(schema)))
    assert compile_schema(schema).accepts('"abc"')
    monkeypatch.setattr(documents, "MAX_SCHEMA_CHARS", len(json.dumps(schema)) - 1)
    with pytest.raises(SchemaError, match="17 characters; the bound is 16"):
        compile_schema(schema)


def test_many_optional_properties_have_a_regular_expression() -> None:
    half, whole = (len(compile_schema(optional(count)).regex) for count in (20, 40))
    assert whole < 2.2 * half


def subsets(names: str) -> Iterator[list[str]]:
    for bits in range(1 << len(names)):
        yield [name for place, name in enumerate(names) if bits >> place & 1]


@pytest.mark.parametrize("required", list(subsets("abc")), ids="".join)
def test_every_combination_of_optional_and_required(required: list[str]) -> None:
    schema = {**OBJECT, "properties": {name: {"const": 1} for name in "abc"}, "required": required}
    grammar = compile_schema(schema)
    for there in subsets("abc"):
        assert grammar.accepts(json.dumps(dict.fromkeys(there, 1))) == (set(required) <= set(there))
    for text in (
        '{"a": 1,}',
        '{, "a": 1}',
        '{"a": 1 "b": 1, "c": 1}',
        '{"a": 1, "a": 1, "b": 1, "c": 1}',
        "{",
        "{}}",
        '{"c": 1, "b": 1, "a": 1}',
    ):
        assert not grammar.accepts(text)
