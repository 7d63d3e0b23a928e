"""Schemas that refer to each other from within, at random: what is compiled is exact, whatever is told apart or denied."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from routine_grammar.automaton.automaton import Automaton
from routine_grammar.automaton.distinct import Watch
from routine_grammar.errors import GrammarError, SchemaError, UnsupportedSchemaError
from routine_grammar.grammar.schema.compiler import schema_to_grammar
from tests.grammar.any_schema import orders, spellings
from tests.scale import SCALE

NAMES = "abcd"
SIMPLE: tuple[Any, ...] = (
    True,
    {"type": "integer"},
    {"type": "string"},
    {"type": "null"},
    {"enum": [1, "x"]},
    {"type": "string", "pattern": "^x"},
    {"const": []},
    {"type": "number", "minimum": 2},
)


class Recursive:
    """Draws four schemas that refer to each other: within items and properties to any, beside others to later ones alone."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def document(self) -> Any:
        """The first of them."""
        return {"$ref": "#/$defs/a", "$defs": {name: self._schema(0, NAMES[NAMES.index(name) + 1 :]) for name in NAMES}}

    def _schema(self, depth: int, referred: str) -> Any:
        rng = self._rng
        if depth >= 3 or rng.random() < 0.3:
            if referred and rng.random() < 0.5:
                return {"$ref": f"#/$defs/{rng.choice(referred)}"}
            return rng.choice(SIMPLE)
        chance = rng.random()
        if chance < 0.3:
            return self._object(depth)
        if chance < 0.5:
            bounds = {"maxItems": rng.randint(0, 3)} if rng.random() < 0.3 else {"minItems": 1} if rng.random() < 0.3 else {}
            return {"type": "array", "items": self._schema(depth + 1, NAMES), **bounds}
        keyword, least, most = rng.choice((("oneOf", 2, 3), ("oneOf", 2, 3), ("anyOf", 2, 2), ("allOf", 2, 2), ("not", 1, 1)))
        ways = [self._schema(depth + 1, referred) for _ in range(rng.randint(least, most))]
        return {keyword: ways[0] if keyword == "not" else ways}

    def _object(self, depth: int) -> Any:
        rng = self._rng
        names = rng.sample("pqr", rng.randint(1, 2))
        schema: dict[str, Any] = {"type": "object", "properties": {name: self._schema(depth + 1, NAMES) for name in names}}
        if rng.random() < 0.5:
            schema["additionalProperties"] = rng.choice((False, True, self._schema(depth + 1, NAMES)))
        if rng.random() < 0.3:
            schema["required"] = names[:1]
        return schema

    def value(self, depth: int = 0) -> Any:
        """A value of the kind that these schemas speak of."""
        rng = self._rng
        chance = rng.random() if depth < 3 else 1
        if chance < 0.3:
            return [self.value(depth + 1) for _ in range(rng.randint(0, 2))]
        if chance < 0.6:
            return {name: self.value(depth + 1) for name in rng.sample("pqrs", rng.randint(0, 2))}
        return rng.choice((1, 2, "x", "y", "", None, True, 3.5))


@settings(max_examples=100 * SCALE, deadline=None)
@given(st.integers(0, 1 << 40))
def test_grammars_allow_what_is_valid(seed: int) -> None:
    drawing = Recursive(random.Random(seed))
    schema = drawing.document()
    judge, values = Draft202012Validator(schema), [drawing.value() for _ in range(40)]
    try:
        watch = Watch(Automaton(schema_to_grammar(schema)))
        for value in values:
            if orders(value) <= 300:
                allowed = any(watch.accepts(text.encode()) for text in spellings(value))
                assert allowed == judge.is_valid(value), value
    except UnsupportedSchemaError as error:
        event(f"declined for {error.keyword}")
    except SchemaError:
        event("allows nothing")
        assert not any(map(judge.is_valid, values))
    except GrammarError:
        event("too large")


def agree(schema: Any, *texts: str) -> None:
    """Whether texts are accepted as `jsonschema` judges their values."""
    automaton, judge = Automaton(schema_to_grammar(schema)), Draft202012Validator(schema)
    assert {automaton.accepts(text.encode()) for text in texts} == {True, False}
    for text in texts:
        assert automaton.accepts(text.encode()) is judge.is_valid(json.loads(text)), text


def test_what_has_to_be_known_while_it_is_read_is_read_later() -> None:
    resource = {"additionalProperties": {"minProperties": 1, "anyOf": [{"type": "string"}, {"$ref": "#/$defs/resource"}]}}
    schema = {"$defs": {"resource": {"type": "object", **resource}}, "$ref": "#/$defs/resource"}
    agree(schema, "{}", '{"a": "x", "b": {"c": {"d": "y"}}}', '{"a": {}}', '{"a": {"b": 1}}', '{"a": 1}')


def test_what_is_recursive_is_denied_as_far_as_it_is_looked_at() -> None:
    tree = {"type": "object", "properties": {"t": {"$ref": "#/$defs/t"}, "n": {"type": "null"}}, "additionalProperties": False}
    agree(
        {"$defs": {"t": tree}, "type": "object", "not": {"$ref": "#/$defs/t"}},
        "{}",
        '{"t": {}}',
        '{"t": 1}',
        '{"t": {"t": {"n": 1}}}',
        '{"t": {"n": null}, "x": 1}',
        '{"t": {"t": {"x": 1}}}',
    )


def test_what_is_recursive_is_told_apart_while_it_is_read() -> None:
    """To tell the ways of a value apart, those of the values within it have to be known."""
    ways = [
        {"type": "string"},
        {
            "type": "object",
            "required": ["kind"],
            "properties": {"kind": {"const": "dict"}},
            "additionalProperties": {"$ref": "#"},
        },
        {"type": "object", "required": ["kind"], "properties": {"kind": {"const": "grid"}, "of": {"$ref": "#"}}},
        {"type": "array", "items": {"$ref": "#"}},
    ]
    agree(
        {"oneOf": ways},
        '{"kind": "dict", "a": {"kind": "grid", "of": ["x"]}}',
        '{"kind": "dict", "a": {"kind": "grid", "of": [1]}}',
        '{"kind": "grid", "a": 1}',
        '{"kind": "dict", "a": 1}',
        '[{"kind": "dict", "a": []}]',
    )


def test_ways_that_turn_out_to_be_none_are_left_out() -> None:
    """What is in the first array, but not in the second, is nothing: that is only seen where it is laid out."""
    definitions = {
        "text": {"type": "string"},
        "mode": {"type": "string", "oneOf": [{"pattern": "^[nv]+$"}, {"$ref": "#/$defs/text"}]},
        "modes": {"type": "array", "items": {"$ref": "#/$defs/mode"}},
        "texts": {"type": "array", "items": {"$ref": "#/$defs/text"}},
    }
    one_of = {"oneOf": [{"$ref": "#/$defs/modes"}, {"$ref": "#/$defs/texts"}]}
    agree({"$defs": definitions, **one_of}, '["n"]', '["q"]', "[]", '["q", "v"]')
    agree(
        {"$defs": definitions, "properties": {"on": one_of, "off": {"$ref": "#/$defs/modes", "not": one_of}}},
        '{"on": ["n"], "off": ["q"]}',
        '{"on": ["q"]}',
        '{"off": ["n"]}',
    )


def test_names_of_definitions_are_not_taken_for_those_of_denials() -> None:
    """A definition may be called as what is not of another would be, or as what two have in common."""
    definitions = {
        "b": {"type": "array", "items": {"$ref": "#/$defs/b"}},
        "not b": {"type": "null"},
        "(not b)": {"type": "boolean"},
        "b & c": {"type": "string"},
        "c": {"type": "array", "maxItems": 2, "items": {"$ref": "#/$defs/c"}},
    }
    both = {"allOf": [{"$ref": "#/$defs/b"}, {"$ref": "#/$defs/c"}]}
    other = {"not": {"$ref": "#/$defs/b"}}
    agree(
        {
            "$defs": definitions,
            "type": "object",
            "properties": {
                "x": {"anyOf": [{"$ref": "#/$defs/not b"}, {"$ref": "#/$defs/(not b)"}, {"$ref": "#/$defs/b & c"}]},
                "y": {"anyOf": [both, {"allOf": [{"type": "integer"}, other]}]},
            },
        },
        *(f'{{"x": {text}}}' for text in ("null", "true", '"a"', "1", "[]")),
        *(f'{{"y": {text}}}' for text in ("null", "true", '"a"', "1", "[]", "[[], []]", "[[], [], []]")),
    )


def test_what_comes_within_itself_as_shapes_meet_is_a_rule() -> None:
    """A property that is neither a number nor an object of such properties: denied again and again, it is the same one."""
    other = {"oneOf": [{"type": "integer"}, {"$ref": "#/$defs/a"}, True]}
    within = {"type": "object", "properties": {"p": {"type": "null"}}, "additionalProperties": other}
    a = {"type": "object", "properties": {"r": within}, "additionalProperties": False}
    agree(
        {"$ref": "#/$defs/a", "$defs": {"a": a}},
        "{}",
        '{"r": {}}',
        '{"r": {"q": "x"}}',
        '{"r": {"q": 1}}',
        '{"r": {"q": {}}}',
        '{"r": {"q": {"r": {"q": 1}}}}',
        '{"r": {"q": {"r": {"q": {}}}}}',
        '{"r": {"q": {"s": 1}}}',
    )


def test_dynamic_references_lead_where_the_way_there_began() -> None:
    tree = {
        "$id": "tree",
        "$dynamicAnchor": "node",
        "type": "object",
        "properties": {"data": True, "children": {"type": "array", "items": {"$dynamicRef": "#node"}}},
    }
    strict = {"$id": "strict", "$dynamicAnchor": "node", "$ref": "tree", "unevaluatedProperties": False, "$defs": {"t": tree}}
    texts = '{"children": [{"data": 1}]}', '{"children": [{"dat": 1}]}', '{"children": [{"children": [{"x": 1}]}]}'
    agree(strict, *texts)
    # The same tree, reached by itself and by what extends it: a name for each.
    both = {"type": "object", "properties": {"a": {"$ref": "strict"}, "b": {"$ref": "tree"}}, "$defs": {"s": strict}}
    agree(both, *(f'{{"{name}": {text}}}' for name in "ab" for text in texts), '{"a": 1}')


def test_a_plain_reference_to_a_dynamic_anchor_stays_in_its_resource() -> None:
    inner = {"$id": "inner", "$defs": {"s": {"$dynamicAnchor": "x", "type": "string"}}, "items": {"$ref": "#x"}}
    schema = {"$id": "https://e.org/a", "$ref": "inner", "$defs": {"i": inner, "n": {"$dynamicAnchor": "x", "type": "null"}}}
    automaton = Automaton(schema_to_grammar(schema))  # `jsonschema` has it lead on, against the specification
    assert automaton.accepts(b'["a"]')
    assert not automaton.accepts(b"[null]")
    inner["items"] = {"$dynamicRef": "#x"}
    agree(schema, '["a"]', "[null]", "[1]", "1")
