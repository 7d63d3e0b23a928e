from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routine_grammar.automaton.automaton import Automaton
from routine_grammar.automaton.distinct import Watch, Watched
from routine_grammar.errors import GrammarError, UnsupportedSchemaError
from routine_grammar.grammar.schema.compiler import schema_to_grammar
from routine_grammar.grammar.schema.shapes import key_of, key_of_text
from routine_grammar.grammar.tree import Call, Choice, Distinct, Element, Grammar, Literal, Node, Sequence
from tests.scale import SCALE


def unique(items: Any, **more: Any) -> dict[str, Any]:
    return {"type": "array", "uniqueItems": True, "items": items, **more}


ANY = unique(True)
STRINGS = unique({"type": "string"})
SHORT = unique({"type": "string", "maxLength": 2})
NUMBERS = unique({"type": "integer", "minimum": 0, "maximum": 3})
CLOSED = unique({"properties": {"n": NUMBERS["items"]}, "required": ["n"], "additionalProperties": False, "type": "object"})
NESTED = unique(unique({"type": "string"}))
PLACES = unique({"type": "string", "pattern": "^a*$"}, prefixItems=[{"type": "boolean"}, {"type": "boolean"}])
SEVERAL = unique({"type": "string"}, minItems=3)
LISTED = unique({"enum": [f"v{n}" for n in range(12)]}, minItems=2)
SCHEMAS = [ANY, STRINGS, SHORT, NUMBERS, CLOSED, NESTED, PLACES, SEVERAL, LISTED]

values = st.recursive(
    st.sampled_from([None, True, False, 0, 1, 1.0, -0.0, 2, 3, "", "a", "aa", "é", "v1", "v10"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["n", "b"]), inner, max_size=2),
    max_leaves=8,
)


def watch_of(schema: Any) -> Watch:
    return Watch(Automaton(schema_to_grammar(schema)))


def place_after(watch: Watch, text: str) -> Watched | None:
    return watch.after(watch.start(), text.encode())


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
@settings(max_examples=60 * SCALE, deadline=None)
@given(data=st.data())
def test_arrays_are_accepted_as_jsonschema_does(schema: Any, data: st.DataObject) -> None:
    value = data.draw(st.lists(values, max_size=5))
    watch = watch_of(schema)
    for ascii_only in (False, True):
        text = json.dumps(value, ensure_ascii=ascii_only)
        assert watch.accepts(text.encode()) == jsonschema.Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (STRINGS, r'["a", "\u0061"]'),
        (STRINGS, '["/", "\\/"]'),
        (ANY, "[1, 1.00]"),
        (ANY, "[100, 1e2]"),
        (ANY, "[0, -0.0]"),
        (ANY, '[{"a": 1, "b": [2]}, {"b": [2.0], "a": 1}]'),
        (ANY, '[{"a": 1}, {"a": 2, "a": 1}]'),
        (NESTED, '[["a"], ["\\u0061"]]'),
    ],
)
def test_equal_values_are_told_whatever_their_spelling(schema: Any, text: str) -> None:
    assert not watch_of(schema).accepts(text.encode())


@pytest.mark.parametrize("text", ["[1, true]", '[1, "1"]', '[[1], ["1"]]', '["", [], {}, null, 0]', '[["number", "1"], 1]'])
def test_values_of_different_types_are_different(text: str) -> None:
    assert watch_of(ANY).accepts(text.encode())


@pytest.mark.parametrize(
    ("schema", "text", "is_alive"),
    [
        (STRINGS, '["a", "a', True),
        (SHORT, '["ab", "ab', False),
        (SHORT, '["ab", "a', True),
        (NUMBERS, "[1, 1", False),
        (NUMBERS, "[1, ", True),
        (NUMBERS, "[1, 2, 0, 3, ", False),
        (NUMBERS, "[1, 2, 0, 3", True),
        (CLOSED, '[{"n": 1}, {"n": 1', False),
        (CLOSED, '[{"n": 1}, {"n": 1.', False),
        (CLOSED, '[{"n": 1}, {"n": 2}, {"n": ', True),
        (CLOSED, '[{"n": 1}, {"n": 2}, {"n": 3}, {"n": 0}, ', False),
        (ANY, "[true, t", False),
        (ANY, "[true, [t", True),
        (ANY, "[[null], [n", True),
        (NESTED, '[["a"], ["a"', True),
        (NESTED, '[["a"], ["a", "a', True),
        (PLACES, "[true, ", True),
        (PLACES, "[true, t", False),
        (PLACES, '[true, false, "a", "a', True),
        (unique({"enum": ["a", "ab", *"cdefghijk"]}), '["ab", "a', True),
        (unique({"enum": ["a", "ab", *"cdefghijk"]}), '["ab", "ab', False),
        (unique({"enum": ["a", "ab", *"cdefghijk"]}), '["ab", "a", "a', False),
    ],
)
def test_a_place_is_dead_where_every_way_repeats_an_element(schema: Any, text: str, is_alive: bool) -> None:
    watch = watch_of(schema)
    place = place_after(watch, text)
    assert place is not None
    assert watch.is_alive(place) == is_alive
    assert (watch.completion(place) is not None) == is_alive


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_the_rest_of_a_completion_is_that_of_any_place_along_it(schema: Any) -> None:
    """Or, where several elements are to come, that of a place along it may be shorter."""
    watch = watch_of(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for seed in range(30 * SCALE):
        rng = random.Random(seed)
        place, text = watch.start(), b""
        for _ in range(rng.randint(0, 25)):
            allowed = [bytes((b,)) for b in range(256) if (after := watch.after(place, bytes((b,)))) and watch.is_alive(after)]
            if not allowed:
                break
            byte = rng.choice([b for b in allowed if b in b'",[]}0123456789'] or allowed)
            after = watch.after(place, byte)
            assert after is not None
            place, text = after, text + byte
        completion = watch.completion(place)
        assert completion is not None
        rest = bytes(piece for piece in completion if isinstance(piece, int))
        assert validator.is_valid(json.loads(text + rest))
        for length in range(len(rest)):
            along = watch.after(place, rest[:length])
            assert along is not None
            found = watch.completion(along)
            assert found is not None
            assert found == list(rest[length:]) or (schema.get("minItems") and len(found) <= len(rest) - length)


@pytest.mark.parametrize(
    ("one", "other"),
    [("1", "1.0"), ("1e2", "100"), ("-0", "0.0"), ("1e400", "10e399"), ("-1.5e400", "-15E+399"), ("0.00100e405", "1e402")],
)
def test_numbers_of_one_value_have_one_key(one: str, other: str) -> None:
    assert key_of_text(one.encode()) == key_of_text(other.encode())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1e400", "1e401"),
        ("1e400", "-1e400"),
        ("1" + "0" * 5000, "1" + "0" * 4999 + "1"),
        ("1e" + "9" * 5000, "1e400"),
        ('["number", "1"]', "1"),
        ('["list"]', "[]"),
    ],
)
def test_different_values_have_different_keys(one: str, other: str) -> None:
    assert key_of_text(one.encode()) != key_of_text(other.encode())


@given(values)
def test_the_key_of_a_value_is_that_of_its_text(value: Any) -> None:
    assert key_of(value) == key_of_text(json.dumps(value).encode())


def test_a_list_that_can_not_be_told_from_others_is_refused() -> None:
    rules: dict[str, Node] = {
        "element": Element(Choice((Literal("1"), Literal("2")))),
        "distinct": Distinct(Sequence((Literal("["), Call("element"), Literal("]"))), "/uniqueItems"),
    }
    with pytest.raises(UnsupportedSchemaError, match=r"'uniqueItems' .* something else may stand there"):
        Automaton(Grammar(Choice((Call("distinct"), Literal("[]"))), rules))


def test_a_list_is_told_from_others_by_its_first_item() -> None:
    schema = {"anyOf": [unique({"type": "string"}), {"type": "array", "items": {"type": "integer"}, "minItems": 1}]}
    watch, judge = Watch(Automaton(schema_to_grammar(schema))), jsonschema.Draft202012Validator(schema)
    for text in ("[]", '["a"]', '["a", "b"]', '["a", "a"]', "[1, 1]", '["a", 1]', "[1, true]"):
        assert watch.accepts(text.encode()) is judge.is_valid(json.loads(text)), text
    with pytest.raises(UnsupportedSchemaError) as refused:
        Automaton(schema_to_grammar({"anyOf": [{"type": "array", "items": {"maxLength": 2}}, unique({"type": "string"})]}))
    assert (refused.value.pointer, refused.value.keyword) == ("/anyOf/1/uniqueItems", "uniqueItems")


def test_a_list_that_is_not_the_whole_of_a_rule_is_refused() -> None:
    with pytest.raises(GrammarError, match="not the whole of it"):
        Grammar(Sequence((Literal("a"), Distinct(Literal("[]")))))
    with pytest.raises(GrammarError, match="not the whole of it"):
        Grammar(Call("a"), {"a": Distinct(Element(Literal("[]")))})
