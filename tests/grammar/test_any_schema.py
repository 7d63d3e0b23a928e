"""Schemas of any keywords against `jsonschema`: what is compiled is exact, what is not is declined by pointer and keyword."""

from __future__ import annotations

import ipaddress
import json
import random
import re
import uuid
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from jsonschema import Draft4Validator, Draft7Validator, Draft202012Validator

from routine_grammar.automaton.automaton import Automaton
from routine_grammar.automaton.distinct import Watch
from routine_grammar.errors import GrammarError, SchemaError, UnsupportedSchemaError
from routine_grammar.grammar.json_text import EXACT
from routine_grammar.grammar.schema.compiler import SchemaCompiler, schema_to_grammar
from routine_grammar.grammar.schema.formats import NAMES as FORMATS
from routine_grammar.grammar.schema.formats import format_of
from routine_grammar.grammar.schema.meeting import string_holds
from routine_grammar.grammar.schema.refusals import Undecided
from tests.grammar.any_schema import Schemas, Values, orders, spellings
from tests.scale import SCALE

seeds = st.integers(0, 1 << 40)


def is_valid(judge: Draft202012Validator, value: Any) -> bool | None:
    try:
        return judge.is_valid(value)
    except RecursionError:  # a schema that refers to itself and to nothing else
        return None


NOTHING = "nothing is allowed"


def compiled(schema: Any) -> Watch | str:
    """A schema's automaton, with its lists of distinct elements, or why there is none."""
    try:
        return Watch(Automaton(schema_to_grammar(schema)))
    except UnsupportedSchemaError as error:
        return f"declined for {error.keyword}"
    except SchemaError as error:
        return "leads to itself" if "itself" in str(error) else NOTHING
    except GrammarError:
        return "too large"


@settings(max_examples=150 * SCALE, deadline=None)
@given(seeds)
def test_shapes_hold_what_is_valid(seed: int) -> None:
    rng = random.Random(seed)
    schema = Schemas(rng).document()
    judge, values = Draft202012Validator(schema), Values(rng, schema)
    try:
        compiler = SchemaCompiler(schema, form=EXACT, rules={})
        shape = compiler.shape(compiler.root)
    except UnsupportedSchemaError as error:
        event(f"declined for {error.keyword}")
        return
    except SchemaError:
        return
    for value in (values.value() for _ in range(30)):
        expected = is_valid(judge, value)
        try:
            held = compiler.reader.algebra.holds(shape, value)
        except (SchemaError, Undecided):
            return  # in a schema that is referred to
        assert expected is None or held == expected, value


def test_what_refers_to_itself_alone_holds_nothing_and_is_told() -> None:
    itself = {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}, {"type": "string"}]}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}}
    compiler = SchemaCompiler({**itself, "$ref": "#/$defs/a"}, form=EXACT, rules={})
    with pytest.raises(Undecided, match="lead to each other"):
        compiler.reader.algebra.holds(compiler.shape(compiler.root), 1)
    with pytest.raises(SchemaError, match="lead"):
        schema_to_grammar({**itself, "properties": {"x": {"$ref": "#/$defs/a"}}, "const": {"x": 1}})


@settings(max_examples=120 * SCALE, deadline=None)
@given(seeds)
def test_grammars_allow_what_is_valid_in_some_order_of_names(seed: int) -> None:
    rng = random.Random(seed)
    schema = Schemas(rng).document()
    judge, values = Draft202012Validator(schema), Values(rng, schema)
    drawn = [values.value() for _ in range(25)]
    automaton = compiled(schema)
    if isinstance(automaton, str):
        event(automaton)
        assert automaton != NOTHING or not any(is_valid(judge, value) for value in drawn)
        return
    for value in drawn:
        if orders(value) > 300:
            continue
        expected = is_valid(judge, value)
        allowed = any(automaton.accepts(text.encode()) for text in spellings(value))
        assert expected is None or allowed == expected, value


# Drafts


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"items": [{"type": "string"}], "additionalItems": False}, ["[]", '["a"]'], ['["a", "b"]', "[1]"]),
        ({"items": [{"type": "string"}], "additionalItems": {"type": "null"}}, ['["a", null]'], ['["a", 1]']),
        ({"dependencies": {"a": ["b"]}, "type": "object"}, ["{}", '{"a": 1, "b": 2}'], ['{"a": 1}']),
        (
            {"definitions": {"x": {"type": "null"}}, "properties": {"a": {"$ref": "#/definitions/x", "type": "string"}}},
            ['{"a": null}'],
            ['{"a": "x"}'],
        ),
        ({"const": 1, "exclusiveMinimum": 0}, ["1"], ["0", "2"]),
    ],
)
def test_draft_7(schema: dict[str, Any], valid: list[str], invalid: list[str]) -> None:
    whole = {"$schema": "http://json-schema.org/draft-07/schema#", **schema}
    automaton, judge = Automaton(schema_to_grammar(whole)), Draft7Validator(whole)
    for texts, expected in ((valid, True), (invalid, False)):
        for text in texts:
            assert judge.is_valid(json.loads(text)) is expected
            assert automaton.accepts(text.encode()) is expected, text


@pytest.mark.parametrize(
    "schema",
    [
        False,
        {"type": "string", "minLength": 3, "maxLength": 2},
        {"type": "string", "pattern": "^a{5}$", "maxLength": 4},
        {"type": "integer", "minimum": 1.2, "maximum": 1.8},
        {"allOf": [{"type": "string"}, {"type": "null"}]},
        {"type": "object", "required": ["a"], "properties": {"a": False}},
        {"type": "object", "required": ["a", "b"], "maxProperties": 1},
        {"type": "array", "items": False, "minItems": 1},
        {"enum": []},
        {"type": "string", "enum": [1, 2]},
        {
            "$ref": "#/$defs/a",
            "$defs": {"a": {"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#/$defs/a"}}}},
        },
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
    ],
)
def test_schemas_that_allow_nothing_say_so(schema: Any) -> None:
    with pytest.raises(SchemaError, match=r"allow|left|few|itself|no number|no string"):
        schema_to_grammar(schema)


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"not": {"type": "integer"}}, ["1.5", "1e-07", '"1"', "null", "-0.25"], ["1", "1.0", "0", "-3"]),
        ({"type": "number", "not": {"multipleOf": 0.25}}, ["0.1", "0.3"], ["0.5", "1", '"a"']),
        ({"contains": {"const": 1}, "minContains": 2}, ["[1, 0, 1]", "[1, 1, 1.0]", "{}"], ["[1]", "[]", "[true, 1]"]),
        ({"contains": {"type": "null"}, "maxContains": 1}, ["[null]", "[1, null, 2]"], ["[]", "[1]", "[null, null]"]),
        ({"type": "array", "items": {"enum": [1, "a", None]}, "uniqueItems": True}, ['["a", 1, null]', "[]"], ["[1, 1.0]"]),
        ({"type": "array", "not": {"items": {"type": "integer"}}}, ['[1, "a"]', "[null]"], ["[]", "[1, 2]", "null"]),
        ({"enum": [[0], {"a": 1}]}, ["[0]", "[0.0]", "[-0]", '{"a": 1.0}'], ["[false]", '{"a": true}']),
    ],
)
def test_what_is_counted_or_denied(schema: dict[str, Any], valid: list[str], invalid: list[str]) -> None:
    automaton = Automaton(schema_to_grammar(schema))
    for text in valid + invalid:
        assert Draft202012Validator(schema).is_valid(json.loads(text)) is (text in valid)
        assert automaton.accepts(text.encode()) is (text in valid), text


@pytest.mark.parametrize(
    ("name", "is_tuple"),
    [
        ("http://json-schema.org/draft-07/schema#", True),
        ("https://json-schema.org/draft-04/schema", True),
        ("http://json-schema-org/draft-07/schema#", True),
        ("https://json-schema.org/draft/2019-09/schema#", True),
        ("http://json-schema.org/draft/2020-12/schema", False),
        ("http://json-schema.org/schema#", False),
    ],
)
def test_drafts_as_they_are_named_in_the_wild(name: str, is_tuple: bool) -> None:
    schema = {"$schema": name, "items": [{"type": "null"}]}
    if not is_tuple:  # a list of schemas was `items` up to 2019-09
        with pytest.raises(UnsupportedSchemaError, match="prefixItems"):
            schema_to_grammar(schema)
        return
    automaton = Automaton(schema_to_grammar(schema))
    assert automaton.accepts(b"[null, 1]")
    assert not automaton.accepts(b"[1]")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer"},
        {"type": "integer", "minimum": 2, "maximum": 30},
        {"not": {"type": "integer"}},
        {"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 3}]},
        {"type": "number", "not": {"type": "integer"}},
        {"type": "integer", "multipleOf": 3},
        {"allOf": [{"type": "integer"}, {"enum": [1, 2.0, 3.5]}]},
    ],
    ids=json.dumps,
)
def test_integers_had_no_fraction_before_draft_6(schema: Any) -> None:
    automaton = Automaton(schema_to_grammar({"$schema": "http://json-schema.org/draft-04/schema#", **schema}))
    judge = Draft4Validator(schema)
    for text in ("1", "2", "2.0", "3", "3.0", "30", "6", "2.5", "1e1", "1E0", "-5", "0", "100", "4.5", "2e0"):
        assert automaton.accepts(text.encode()) is judge.is_valid(json.loads(text)), text


@pytest.mark.parametrize("pattern", [".*", "", "[a-z]*"])
def test_patterns_that_every_name_has_leave_no_other(pattern: str) -> None:
    automaton = Automaton(schema_to_grammar({"type": "object", "patternProperties": {pattern: {"type": "null"}}}))
    assert automaton.accepts(b'{"a": null, "": null}')
    assert not automaton.accepts(b'{"a": 1}')


def test_thousands_of_values_meet_other_keywords() -> None:
    listed = [*(f"v{number}" for number in range(5_000)), *range(5_000)]
    schema = {"type": ["string", "integer"], "enum": listed, "allOf": [{"enum": listed[1_000:]}, {"not": {"const": "v1001"}}]}
    automaton = Automaton(schema_to_grammar(schema))
    for text, expected in {'"v1000"': True, '"v999"': False, '"v1001"': False, "4999": True, "5000": False}.items():
        assert automaton.accepts(text.encode()) is expected


def test_a_kind_without_values_leaves_the_others() -> None:
    impossible = {"type": "string", "pattern": "^a{5}$", "maxLength": 4}
    grammar = schema_to_grammar(
        {"anyOf": [impossible, {"type": "array", "items": impossible}, {"type": "object", "properties": {"a": impossible}}]}
    )
    automaton = Automaton(grammar)
    for text, expected in {'"a"': False, "[]": True, '["a"]': False, '{"b": 1}': True, '{"a": "a"}': False}.items():
        assert automaton.accepts(text.encode()) is expected, text


# Formats


def is_date(text: str) -> bool:
    try:
        return re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII) is not None and bool(date.fromisoformat(text))
    except ValueError:
        return False


def parses(parser: Callable[[str], Any]) -> Callable[[str], bool]:
    def judge(text: str) -> bool:
        try:
            parser(text)
        except ValueError:
            return False
        return True

    return judge


def holds(name: str, text: str) -> bool:
    kind = format_of(name)
    assert kind is not None
    return string_holds(kind, text)


@settings(max_examples=300 * SCALE, deadline=None)
@given(st.dates().map(str) | st.from_regex(r"\A[0-9]{3}[1-9]-[0-3][0-9]-[0-3][0-9]\Z"))
def test_dates(text: str) -> None:
    assert holds("date", text) == is_date(text)


def shortened(text: str) -> str:
    return re.sub(r"(^|:)0(:0)+(:|$)", "::", text, count=1)


ADDRESSES = st.ip_addresses(v=6).map(lambda address: address.exploded)
SHORT = st.lists(st.sampled_from(("0", "1", "ab", "ffff", "12345", "", "::", "1.2.3.4", "g")), max_size=9).map(":".join)


@settings(max_examples=300 * SCALE, deadline=None)
@given(ADDRESSES | ADDRESSES.map(shortened) | st.ip_addresses(v=6).map(str) | SHORT)
def test_addresses(text: str) -> None:
    assert holds("ipv6", text) == (parses(ipaddress.IPv6Address)(text) and "%" not in text)
    numbers = text.replace(":", ".")
    assert holds("ipv4", numbers) == parses(ipaddress.IPv4Address)(numbers)


@given(st.uuids().map(str) | st.text("0123456789abcdefgAF-", max_size=40))
def test_identifiers(text: str) -> None:
    canonical = re.fullmatch(r"[^-]{8}(-[^-]{4}){3}-[^-]{12}", text) is not None
    assert holds("uuid", text) == (canonical and parses(uuid.UUID)(text))


@pytest.mark.parametrize(
    ("name", "valid", "invalid"),
    [
        (
            "time",
            ["12:00:00Z", "23:59:60Z", "00:00:00.123+05:30"],
            ["24:00:00Z", "12:00:00", "12:00Z", "22:59:60Z", "1:00:00Z"],
        ),
        ("date-time", ["2024-02-29T12:00:00Z", "1990-12-31t23:59:60z"], ["2023-02-29T12:00:00Z", "2024-02-29 12:00:00Z"]),
        ("duration", ["P1D", "PT1H30M", "P1Y2M3DT4H", "P2W", "PT0S"], ["P", "PT", "P1", "1D", "P1D2W", "PT1D", "P1H"]),
        (
            "email",
            ["a.b@example.org", '"a b"@x.org', "a@[127.0.0.1]", "a@[IPv6:::1]"],
            ["a", "a@", "@a", ".a@b", "a..b@c", "a@-b"],
        ),
        (
            "hostname",
            ["a", "a-b.example", "xn--4gbwdl.xn--wgbh1c"],
            ["", "-a", "a-", "a..b", "a_b", "a" * 64, ".a", "a" + ".a" * 127],
        ),
        (
            "uri",
            ["http://a/b?c#d", "urn:a:b", "mailto:a@b.c", "ldap://[::1]/c?d"],
            ["", "//a", "a", "http://a b", "http://a/<", ":a"],
        ),
        ("uri-reference", ["", "//a", "a/b", "#c", "?q"], ["a b", "\\\\\\\\a", "#a#b"]),
        (
            "iri",
            ["http://b\u00fccher.example/\u00e4?\u00f6#\u4e2d", "urn:\U0001f600:b", "http://a/?\ue000"],
            ["http://a/\ue000", "b\u00fccher", "\u00fc:b", "http://a \u00fc", "http://[\u00fc]"],
        ),
        ("iri-reference", ["", "//\u00fc", "\u00fc/b?\U00100000"], ["\u00fc b", "\ufffe", "#\ue000"]),
        ("byte", ["", "aGk=", "aGkh", "aA=="], ["a", "aG", "aGk", "a===", "aGk=aGk="]),
        ("uri-template", ["/a{b}", "{+a,b*}/c", "x{?q:3}"], ["{", "}", "{a", "{a b}", "<"]),
        ("json-pointer", ["", "/a~1b", "/"], ["a", "/~", "/~2"]),
    ],
)
def test_formats(name: str, valid: list[str], invalid: list[str]) -> None:
    assert [text for text in valid if not holds(name, text)] == []
    assert [text for text in invalid if holds(name, text)] == []


def test_every_format_is_a_string_that_there_is() -> None:
    for name in FORMATS:
        assert list(schema_to_grammar({"type": "string", "format": name}).nodes())


def test_one_of_open_objects_is_told_within_what_is_said_beside_it() -> None:
    """None of these requires the kind itself: apart from each other they are only by what stands beside them."""
    ways = [
        {"properties": {"kind": {"const": kind}, kind: {"type": "string"}}, "required": [kind]} for kind in ("a", "b", "c", "d")
    ]
    schema = {"type": "object", "properties": {"kind": {"type": "string"}}, "required": ["kind"], "oneOf": ways}
    automaton, judge = Automaton(schema_to_grammar(schema)), Draft202012Validator(schema)
    automaton.require_clear()
    assert automaton.skeleton.size < 2_000
    for text in (
        '{"kind": "a", "a": "x"}',
        '{"kind": "b", "a": "x"}',
        '{"kind": "b", "b": "", "e": [1]}',
        '{"kind": "c", "c": 1}',
    ):
        assert automaton.accepts(text.encode()) is judge.is_valid(json.loads(text)), text
