from __future__ import annotations

import json
import lzma
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from routine_grammar.api import compile_schema, with_known_formats
from routine_grammar.automaton.automaton import Automaton
from routine_grammar.errors import GrammarError, GrammarTooLargeError, SchemaError, SchemaWarning, UnsupportedSchemaError
from routine_grammar.grammar.json_text import EXACT, JsonForm, turn_form
from routine_grammar.grammar.schema.compiler import schema_to_grammar
from routine_grammar.routine import Tool
from tests.grammar.json_instances import TEXTS, edited_value, instance, is_spelled_canonically, schemas, spelled
from tests.grammar.samples import Sampler

TURN = turn_form(("<tool_call>", "</tool_call>"), "memory_")
DATA = Path(__file__).parents[1] / "data" / "tool_schemas.jsonl.xz"


# Real schemas


def in_order(value: Any, schema: Any) -> Any:
    """The value with its names in the schema's order."""
    if isinstance(value, dict) and isinstance(schema, dict):
        properties = schema.get("properties", {})
        names = [name for name in properties if name in value] + [name for name in value if name not in properties]
        return {name: in_order(value[name], properties.get(name)) for name in names}
    if isinstance(value, list) and isinstance(schema, dict):
        return [in_order(item, schema.get("items")) for item in value]
    return value


def test_every_real_tool_schema_is_exact_or_declined_by_name() -> None:
    counts: Counter[str] = Counter()
    with lzma.open(DATA, "rt", encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            try:
                grammar = compile_schema(entry["schema"])
            except UnsupportedSchemaError as error:
                counts[f"declined for {error.keyword}"] += 1
                continue
            counts["compiled"] += 1
            for test in entry["tests"]:
                assert grammar.accepts(json.dumps(in_order(test["data"], entry["schema"]), ensure_ascii=False)) == test["valid"]
            for mutant in entry["mutants"]:
                assert grammar.accepts(mutant["text"]) == mutant["valid"], (entry["id"], mutant)
                counts["valid mutants" if mutant["valid"] else "invalid mutants"] += 1
    assert counts == {"compiled": 1043, "valid mutants": 2001, "invalid mutants": 2086}


# Generated schemas, judged by jsonschema


def closed(schema: Any) -> Any:
    """What a turn makes of a schema: objects that declare some property and say nothing of others have no others."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict) or "const" in schema or "enum" in schema:
        return schema
    inner = {name: closed(value) for name, value in schema.items()}
    for keyword in ("properties", "$defs"):
        if keyword in schema:
            inner[keyword] = {name: closed(value) for name, value in schema[keyword].items()}
    return {"additionalProperties": False, **inner} if schema.get("properties") else inner


def begins_like_a_key(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(begins_like_a_key, value.values()))
    if isinstance(value, list):
        return any(map(begins_like_a_key, value))
    return isinstance(value, str) and value.startswith("memory_")


def automaton_of(schema: Any, form: JsonForm) -> Automaton:
    try:
        return Automaton(schema_to_grammar(schema, form))
    except (SchemaError, GrammarError) as error:
        assume(not re.search("leads to itself|allows no text|of finite size", str(error)))
        raise


def accepts(automaton: Automaton, text: str) -> bool:
    """Whether an automaton accepts a text; an example whose recursion bytes don't decide is none."""
    try:
        return automaton.accepts(text.encode("utf-8", "surrogatepass"))
    except GrammarTooLargeError:
        event("too large")
        assume(False)
        raise


@settings(max_examples=220, deadline=None)
@given(schemas(closed=True), st.integers(0, 1 << 30))
def test_instances_are_judged_as_jsonschema_judges_them(schema: Any, seed: int) -> None:
    rng = random.Random(seed)
    automaton = automaton_of(schema, EXACT)
    judge = Draft202012Validator(schema)
    for _ in range(6):
        value = instance(schema, schema, rng)
        for candidate in (value, edited_value(value, rng), edited_value(edited_value(value, rng), rng)):
            text = spelled(candidate, rng)
            assert accepts(automaton, text) == judge.is_valid(candidate), text


@settings(max_examples=220, deadline=None)
@given(schemas(closed=False), st.integers(0, 1 << 30))
def test_a_turn_closes_objects_and_keeps_strings_from_the_sigil(schema: Any, seed: int) -> None:
    rng = random.Random(seed)
    automaton = automaton_of(schema, TURN)
    judge = Draft202012Validator(closed(schema))
    for _ in range(6):
        value = instance(schema, schema, rng)
        for candidate in (value, edited_value(value, rng)):
            text = spelled(candidate, rng, TURN.markers)
            expected = judge.is_valid(candidate) and not begins_like_a_key(candidate)
            assume("memory_x" not in text or expected == judge.is_valid(candidate))
            assert accepts(automaton, text) == expected, text


@settings(max_examples=150, deadline=None)
@given(schemas(closed=True), st.integers(0, 1 << 30))
def test_edited_texts_are_accepted_where_they_are_canonical_and_valid(schema: Any, seed: int) -> None:
    rng = random.Random(seed)
    automaton = automaton_of(schema, EXACT)
    judge = Draft202012Validator(schema)
    sampler = Sampler(schema_to_grammar(schema, EXACT), seed)
    for _ in range(8):
        text = sampler.edited(spelled(instance(schema, schema, rng), rng))
        try:
            value = json.loads(text, object_pairs_hook=unrepeated)
        except ValueError:
            assert not accepts(automaton, text), text
            continue
        canonical = is_spelled_canonically(text)
        if canonical is not None and not any("\ud800" <= char <= "\udfff" for char in json.dumps(value, ensure_ascii=False)):
            assert accepts(automaton, text) == (canonical and judge.is_valid(value)), text


def unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name comes twice")
    return dict(pairs)


@settings(max_examples=120, deadline=None)
@given(schemas(closed=False), st.sampled_from((EXACT, TURN)), st.integers(0, 1 << 30))
def test_whatever_a_grammar_says_is_valid(schema: Any, form: JsonForm, seed: int) -> None:
    try:
        tree = schema_to_grammar(schema, form)
    except SchemaError:
        assume(False)
    automaton_of(schema, form)
    judge = Draft202012Validator(closed(schema) if form.closed else schema)
    sampler = Sampler(tree, seed)
    for _ in range(6):
        try:
            text = sampler.text()
        except RecursionError:  # a value that the schema allows is deep
            assume(False)
        value = json.loads(text)
        assert judge.is_valid(value), text
        assert not (form.closed and begins_like_a_key(value))
        assert not any(marker in text for marker in form.markers)


@given(st.permutations(range(4)), st.sets(st.integers(0, 3)), st.sets(st.integers(0, 3)))
@settings(max_examples=100, deadline=None)
def test_properties_come_in_the_order_of_the_schema(order: list[int], there: set[int], required: set[int]) -> None:
    names = "dbac"
    schema = {
        "type": "object",
        "properties": {name: {"type": "integer"} for name in names},
        "required": [names[place] for place in sorted(required)],
        "additionalProperties": False,
    }
    text = json.dumps({names[place]: place for place in order if place in there})
    in_this_order = [place for place in order if place in there] == sorted(there)
    assert compile_schema(schema).accepts(text) == (in_this_order and required <= there)


def test_texts_of_free_values_nest_up_to_the_return_stack() -> None:
    grammar = compile_schema({})
    assert grammar.accepts('{"a": [1.5e3, {"b": [[], {}, null, "x"]}]}')
    assert grammar.accepts("[" * 16 + "]" * 16)
    assert not grammar.accepts('{"a":1}')
    with pytest.raises(GrammarError, match="nests deeper"):
        grammar.accepts("[" * 100 + "]" * 100)


@pytest.mark.parametrize("text", TEXTS)
def test_names_and_values_of_any_text_are_spelled(text: str) -> None:
    schema = {"type": "object", "properties": {text: {"const": text}}, "required": [text], "additionalProperties": False}
    grammar = compile_schema(schema)
    for ascii_only in (False, True):
        assert grammar.accepts(json.dumps({text: text}, ensure_ascii=ascii_only))
    assert not grammar.accepts(json.dumps({text + "x": text}))


def test_a_schema_of_its_own_children_keeps_to_the_stack() -> None:
    tree = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "child": {"$ref": "#"}, "more": {"type": "array", "items": {"$ref": "#"}}},
        "additionalProperties": False,
    }
    grammar = compile_schema(tree)
    assert grammar.accepts('{"name": "a", "child": {"child": {"more": [{}, {"name": "b"}]}}, "more": []}')
    assert not grammar.accepts('{"child": {"child": {"more": [{}, {"name": "b"}]}, "more": []}')


# What is declined


OBJECT: dict[str, Any] = {"type": "object", "additionalProperties": False}
UNSUPPORTED = [
    ({"type": "array", "uniqueItems": True, "minItems": 9}, "/uniqueItems", "uniqueItems"),
    ({"uniqueItems": True, "contains": {"const": 1}}, "/uniqueItems", "uniqueItems"),
    ({"anyOf": [{"items": {"enum": [1]}}, {"type": "array", "uniqueItems": True}]}, "/anyOf/1/uniqueItems", "uniqueItems"),
    ({"allOf": [{"uniqueItems": True}, {"minItems": 9, "items": {"type": "integer"}}]}, "/allOf/0/uniqueItems", "uniqueItems"),
    ({"not": {"uniqueItems": True}}, "/not", "not"),
    ({"contains": {"const": 1}, "minContains": 900, "maxContains": 9_000}, "/contains", "contains"),
    ({"items": [{}]}, "/items", "items"),
    ({**OBJECT, "dependencies": {}}, "/dependencies", "dependencies"),
    ({"$schema": "http://json-schema.org/draft-07/schema#", "prefixItems": [{}]}, "/prefixItems", "prefixItems"),
    ({"$schema": "https://example.org/mine"}, "/$schema", "$schema"),
    ({"$ref": "https://example.com/schema"}, "/$ref", "$ref"),
    ({"$ref": "other.json#/a"}, "/$ref", "$ref"),
    ({"format": "phone"}, "/format", "format"),
    ({"pattern": "(?<=a)b"}, "/pattern", "pattern"),
    ({"patternProperties": {r"(a)\1": {}}}, r"/patternProperties/(a)\1", "patternProperties"),
    ({"multipleOf": 1_000_003}, "/multipleOf", "multipleOf"),
    (
        {**OBJECT, "properties": {"a/b": {"items": {"uniqueItems": True, "minItems": 9}}}},
        "/properties/a~1b/items/uniqueItems",
        "uniqueItems",
    ),
    ({**OBJECT, "properties": {"~": {"anyOf": [{}, {"format": "x"}]}}}, "/properties/~0/anyOf/1/format", "format"),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"format": "x"}}}}, "/$defs/a/items/format", "format"),
]


@pytest.mark.parametrize(
    ("schema", "pointer", "keyword"), UNSUPPORTED, ids=lambda value: None if isinstance(value, str) else ""
)
def test_keywords_that_are_not_enforced_decline_by_pointer_and_name(schema: Any, pointer: str, keyword: str) -> None:
    with pytest.raises(UnsupportedSchemaError) as caught:
        compile_schema(schema)
    assert (caught.value.pointer, caught.value.keyword) == (pointer, keyword)
    assert keyword in str(caught.value)


INVALID: list[tuple[Any, str | None, str]] = [
    (False, "", "allows no value at all"),
    (None, "", "expected a schema"),
    (7, "", "expected a schema"),
    ("string", "", "expected a schema"),
    ([], "", "expected a schema"),
    ({"type": "text"}, "/type", "type 'text' is none of"),
    ({"type": []}, "/type", "expected a type"),
    ({"type": 1}, "/type", "expected a type"),
    ({"enum": "ab"}, "/enum", "expected a list of values"),
    ({"enum": []}, "/enum", "no value is left"),
    ({"enum": ["a"], "type": "integer"}, "/enum", "no value is left"),
    ({"const": "a", "enum": ["b"]}, "/const", "no value is left"),
    ({"const": "\ud800"}, "/const", "lone surrogate"),
    ({"enum": ["a", {"b": ["\udfff"]}]}, "/enum", "lone surrogate"),
    ({**OBJECT, "properties": {"\ud800": {}}}, "/properties", "lone surrogate"),
    ({**OBJECT, "properties": []}, "/properties", "expected an object of schemas"),
    ({**OBJECT, "required": "a"}, "/required", "expected a list of names"),
    ({**OBJECT, "required": ["a"]}, "", "'additionalProperties' and 'required' allow"),
    ({**OBJECT, "properties": {"a": False}, "required": ["a"]}, "", "'properties' and 'required' allow"),
    ({**OBJECT, "properties": {"a": {"items": {"type": "float"}}}}, "/properties/a/items/type", "type 'float' is none of"),
    ({"type": "array", "minItems": -1}, "/minItems", "expected a count"),
    ({"type": "array", "minItems": 1.5}, "/minItems", "expected a count"),
    ({"type": "array", "minItems": True}, "/minItems", "expected a count"),
    ({"type": "array", "minItems": 3, "maxItems": 2}, "", "'minItems' and 'maxItems' allow"),
    ({"anyOf": []}, "/anyOf", "expected a list of schemas"),
    ({"anyOf": {}}, "/anyOf", "expected a list of schemas"),
    ({"$ref": 1}, "/$ref", "expected a reference"),
    ({"$ref": "#/$defs/a"}, "/$ref", "points to nothing"),
    ({"$ref": "#/$defs/a", "$defs": {"a%20": {}}}, "/$ref", "points to nothing"),
    ({"items": {"$ref": "#/enum/7"}, "$defs": []}, "/items/$ref", "points to nothing"),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"properties": "a"}}}}, "/$defs/a/items/properties", "of type 'object'"),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"items": "b"}}}, "/$defs/a/items", "expected a schema"),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "null"}, "b": {"$id": 5}}}, "/$defs/b/$id", "is not of type 'string'"),
    ({"$ref": "#a", "$defs": {"b": {"$anchor": ["a"]}}}, "/$ref", "points to nothing"),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "null"}, "b": {"$defs": ["a"]}}}, "/$defs/b/$defs", "not of type 'object'"),
    ({"$id": ["a"]}, "/$id", "is not of type 'string'"),
    ({"$schema": "http://json-schema.org/draft-04/schema#", "id": 1.5}, "/id", "is not of type 'string'"),
    ({"type": "string", "format": ["date"]}, "/format", "expected the name of a format"),
    ({"type": "integer", "format": {}}, "/format", "expected the name of a format"),
    ({"$ref": "#"}, "/$ref", "leads to itself"),
    ({"anyOf": [{"type": "null"}, {"$ref": "#"}]}, "/anyOf/1/$ref", "leads to itself"),
    (
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}},
        "/$ref",
        "to itself",
    ),
    ({"type": "object", "default": float("nan")}, None, ""),
    ({"type": {"a", "b"}}, "", "no JSON:"),
    ({"enum": [b"x"]}, "", "no JSON:"),
]


@pytest.mark.parametrize(("schema", "pointer", "message"), INVALID, ids=lambda value: None if isinstance(value, str) else "")
def test_what_is_wrong_with_a_schema_is_told_with_its_pointer(schema: Any, pointer: str | None, message: str) -> None:
    if pointer is None:
        assert compile_schema(schema).accepts("{}")
        return
    with pytest.raises(SchemaError) as caught:
        compile_schema(schema)
    assert not isinstance(caught.value, UnsupportedSchemaError)
    assert caught.value.pointer == pointer
    assert message in str(caught.value)


def test_values_that_begin_with_the_sigil_propose_another() -> None:
    schema = {**OBJECT, "properties": {"a": {"enum": ["x", "memory_x"]}}}
    schema_to_grammar(schema, EXACT)
    schema_to_grammar(schema, turn_form((), "key_"))
    with pytest.raises(SchemaError, match="begins with the sigil 'memory_': choose another sigil") as caught:
        schema_to_grammar(schema, TURN)
    assert caught.value.pointer == "/properties/a/enum"


def test_unknown_formats_may_be_left_out_with_a_warning() -> None:
    schema = {"properties": {"format": {"format": "phone"}, "day": {"format": "date", "enum": [{"format": "x"}, "2024-02-30"]}}}
    with pytest.raises(UnsupportedSchemaError, match="format 'phone' is not known"):
        compile_schema(schema)
    with pytest.warns(SchemaWarning, match="not enforced: /properties/format/format: 'phone'$"):
        grammar = compile_schema(schema, ignore_unknown_formats=True)
    assert grammar.accepts('{"format": "none at all"}')
    assert grammar.accepts('{"day": {"format": "x"}}')
    assert not grammar.accepts('{"day": "2024-02-30"}')
    tool = Tool("call", "", {"type": "object", **schema})
    with pytest.warns(SchemaWarning, match="^tool 'call': formats that are not known"):
        (known,) = with_known_formats([tool])
    assert known.input_schema["properties"]["format"] == {}
    assert with_known_formats([known]) == (known,)


def test_integers_within_bounds_are_spelled_as_others_are() -> None:
    """What a float can't hold is read as infinity, which is no integer."""
    for schema in ({}, {"minimum": 3}, {"exclusiveMaximum": 10**380}, {"multipleOf": 2}):
        grammar = compile_schema({"type": "integer", **schema})
        assert all(grammar.accepts(text) for text in ("4", "4.0", "1e+16", "1e+308", f"{4 * 10**350}")), schema
        assert not any(grammar.accepts(text) for text in ("5e873", "1e999", "1.8e308", "4.5")), schema


def test_a_delete_is_escaped_or_not() -> None:
    for schema, texts in (
        ({"const": "\x7f"}, ('"\x7f"', '"\\u007f"')),
        ({"enum": ["a\x7fb"]}, ('"a\x7fb"', '"a\\u007fb"')),
        ({"properties": {"\x7f": {}}, "required": ["\x7f"]}, ('{"\x7f": 1}', '{"\\u007f": 1}')),
    ):
        grammar = compile_schema(schema)
        assert all(grammar.accepts(text) for text in texts), schema


def test_one_of_values_is_what_one_lists_alone() -> None:
    grammar = compile_schema({"oneOf": [{"enum": [1, 2, "b"]}, {"enum": [2.0, 3]}, {"const": "a"}]})
    assert [grammar.accepts(text) for text in ("1", "2", "3", '"a"', '"b"', '"c"')] == [True, False, True, True, True, False]
