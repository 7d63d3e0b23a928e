"""Arguments in blocks: raw text, what vLLM reads it as, and what is declined because it would be read otherwise."""

from __future__ import annotations

import random
import re
import warnings
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from routine_grammar import Routine, Tool, compile_routine
from routine_grammar.api import Turn
from routine_grammar.errors import GrammarError, RoutineGrammarError, SchemaError, UnsupportedSchemaError
from routine_grammar.grammar.arguments import coerced, read_types
from routine_grammar.grammar.payload import load_grammar
from routine_grammar.grammar.raw_text import WORDS, raw_pattern
from tests.scale import SCALE

TEXT = {"type": "string"}
NULL = {"type": "null"}
DIALECT = "qwen3_coder"


def turn(schema: Any, source: str = "", dialect: str = DIALECT, name: str = "a") -> Turn:
    """The turn of a call with one required argument."""
    routine = Routine.parse(f"name: x\ninputs: {{q: {TEXT}}}\nsteps:\n  - {{name: A, tool: t{source}}}\n")
    document = {
        "type": "object",
        "properties": {name: schema},
        "required": [name],
        "$defs": {"O": {"type": "object"}, "S": TEXT},
    }
    return compile_routine(routine, [Tool("t", "", document)], dialect=dialect).turn(memory=["memory_input_q"])


def said(value: str) -> str:
    return f"<tool_call>\n<function=t>\n<parameter=a>\n{value}\n</parameter>\n</function>\n</tool_call>"


SIGILS = [("", ""), ("memory_", ""), ("memory_", "null"), ("nu_", "null"), ("null_", "null")]


@pytest.mark.parametrize(("sigil", "unlike"), SIGILS)
def test_raw_texts_are_exactly_those_without_markup_sigil_and_null(sigil: str, unlike: str) -> None:
    markup = re.compile(rf"<\s*/?\s*(?:{'|'.join(map(re.escape, WORDS))})")
    pattern, rng = re.compile(raw_pattern(sigil, unlike)), random.Random(0)
    bits = [
        *"<</ \na|",
        *WORDS,
        *(word[:-1] for word in WORDS),
        "memory_",
        "memor",
        "null",
        "NUL",
        "nU",
        "é",
        "\xa0",
        sigil,
        unlike,
    ]
    seen = {True: 0, False: 0}
    for _ in range(20_000 * SCALE):
        text = "".join(rng.choices(bits, k=rng.randint(0, 5)))
        is_raw = not markup.search(text) and not (sigil and text.startswith(sigil)) and not (unlike and text.lower() == unlike)
        assert (pattern.fullmatch(text) is not None) == is_raw, text
        seen[is_raw] += 1
    assert min(seen.values()) > 300


NUMBERS = ("5", "-0", "5.0", "1e5", "1e999", " 5", "1_0", "٥", "nan", "0", "1")
WORDS_READ = ("", "null", "NULL", "true", "TRUE ", "{}", "[1]", "[1e999]", '"a"', "a", "memory_1_a")
LISTED: tuple[Any, ...] = ("a", 5, 5.5, None, True, [], {})
SCHEMAS: tuple[Any, ...] = (
    *({"type": kind} for kind in ("string", "integer", "number", "boolean", "object", "array", "null")),
    *({"type": [kind, "string"]} for kind in ("integer", "number", "boolean", "object", "array", "null")),
    *({"enum": [value]} for value in LISTED),
    *(
        {},
        {"$ref": "#/$defs/O"},
        {"const": 5},
        {"anyOf": [{"$ref": "#/$defs/O"}, NULL]},
        {"oneOf": [{"type": "integer"}, NULL]},
    ),
)


@pytest.mark.filterwarnings("ignore")
def test_text_is_read_as_vllm_reads_it() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from vllm.tool_parsers.utils import coerce_to_schema_type, extract_types_from_schema
    for schema in SCHEMAS:
        types = read_types(schema)
        assert types == set(extract_types_from_schema(schema)), schema
        for value in NUMBERS + WORDS_READ:
            assert repr(coerced(value, types)) == repr(coerce_to_schema_type(value, sorted(types))), (schema, value)


def test_strings_are_written_as_they_are() -> None:
    plain = turn(TEXT)
    plain_texts = ("", "5", "null", '"', "\\n", "\n\n", "a < b && c > d", "<p>", "</div>", "memory", "memory_input_q")
    for value in (*plain_texts, "\\memory_1_x"):
        assert plain.accepts(said(value)), value
    for value in (
        "memory_1_x",
        "</parameter>",
        "< / parameter",
        "<function=t>",
        "</tool_call>",
        "<think>",
        "<|im_end|>",
        "\x00",
    ):
        assert not plain.accepts(said(value)), value


def test_a_string_or_null_leaves_out_the_strings_that_read_as_null() -> None:
    for schema in ({"anyOf": [TEXT, NULL]}, {"type": ["string", "null"]}):
        either = turn(schema)
        for value in ("null", "nulls", "", "nul", "5"):
            assert either.accepts(said(value)), value
        assert not either.accepts(said("NULL"))
        assert not either.accepts(said("Null"))


@pytest.mark.parametrize(
    "more",
    [
        {"pattern": "^[a-z ]*$"},
        {"pattern": "b"},
        {"minLength": 2, "maxLength": 4},
        {"maxLength": 300},
        {"format": "date"},
        {"not": {"pattern": "a"}, "minLength": 1},
        {"allOf": [{"pattern": "a"}, {"pattern": "b$"}]},
        {"type": ["string", "null"], "maxLength": 5},
    ],
)
def test_lengths_and_patterns_hold_for_text_as_it_is(more: dict[str, Any]) -> None:
    schema = {**TEXT, **more}
    made, judge = turn(schema), Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    answers = set()
    dates = ("2026-01-31", "2026-02-30")
    for text in (*dates, "", "a", "ab", "b a", "</div>", "a < b", "é", "éééé", "ééééé", "x" * 300, "x" * 301, "\n\nb", "nul"):
        assert made.accepts(said(text)) is judge.is_valid(text), text
        answers.add(judge.is_valid(text))
    assert answers == {True, False}
    for text in ("memory_1_x", "</parameter>", "NULL" if "null" in schema["type"] else "<think>"):
        assert not made.accepts(said(text)), text


def test_a_text_that_can_not_be_is_told() -> None:
    with pytest.raises(SchemaError, match="no text is left"):
        turn({**TEXT, "pattern": "^</parameter>$"})
    with pytest.raises(UnsupportedSchemaError, match="'qwen3_coder', a text with this length"):
        turn({**TEXT, "maxLength": 50_000})
    made = turn({**TEXT, "pattern": "^a+$"})
    assert load_grammar(made.payload) == made.tree
    assert re.fullmatch(made.regex, said("aa"))
    assert not re.fullmatch(made.regex, said("ab"))


@pytest.mark.parametrize(
    ("schema", "texts", "others"),
    [
        ({"type": "integer"}, ["5", "-1", "memory_input_q"][:2], ["5.0", '"5"', "a"]),
        ({"type": "number"}, ["5", "5.25", "1e9", "123456789012345"], ["1234567890123456", "nan"]),
        ({"type": "boolean"}, ["true", "false"], ["True", "1"]),
        ({"type": ["integer", "null"]}, ["5", "null"], ["NULL", "a"]),
        ({"type": "array", "items": TEXT}, ["[]", '["\\u003c/parameter>"]'], ['["<"]', "['a']"]),
        ({"type": "object", "properties": {"k": TEXT}}, ["{}", '{"k": "5"}'], ['{"k": 5}']),
        ({"enum": ["a", "5", None]}, ["a", "5", "null"], ["b", "NULL"]),
        ({"enum": [1, 2.5, False]}, ["1", "2.5", "false"], ["2", "0"]),
        ({"const": "x < y"}, ["x < y"], ["x"]),
        ({"$ref": "#/$defs/S"}, ["{}", "5"], ["</parameter>"]),
    ],
)
def test_other_values_are_json(schema: Any, texts: list[str], others: list[str]) -> None:
    made = turn(schema, ", arguments: {a: literal}")
    for text in texts:
        assert made.accepts(said(text)), text
    for text in others:
        assert not made.accepts(said(text)), text


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({}, "any value at all is read back as text"),
        ({"description": "anything"}, "any value at all is read back as text"),
        ({"type": ["string", "integer"]}, "text can't be told from a value of type 'integer'"),
        ({"anyOf": [TEXT, {"type": "boolean"}]}, "text can't be told from a value of type 'boolean'"),
        ({"anyOf": [TEXT, {"type": "array", "items": TEXT}]}, "text can't be told from a value of type 'array'"),
        ({"$ref": "#/$defs/O"}, "of type 'object' is read back as text"),
        ({"anyOf": [{"$ref": "#/$defs/O"}, NULL]}, "of type 'object' is read back as text"),
        ({"const": 5}, "5 would be read back as '5'"),
        ({"enum": ["5", 5]}, "'5' would be read back as 5"),
        ({"enum": ["Null", None]}, "'Null' would be read back as None"),
        ({"enum": ["</parameter>"]}, "has markup"),
    ],
)
def test_what_would_be_read_otherwise_is_declined(schema: Any, told: str) -> None:
    with pytest.raises(UnsupportedSchemaError, match=re.escape(told)) as declined:
        turn(schema)
    assert declined.value.pointer.startswith("/properties/a")
    turn(schema, dialect="hermes")


def test_constants_are_held_against_their_schema() -> None:
    assert turn({"type": ["string", "null"]}, ", arguments: {a: {const: 'x\n'}}").accepts(said("x "))  # YAML folds the line
    assert turn({"type": "number"}, ", arguments: {a: {const: 2.5}}").accepts(said("2.5"))
    for schema, constant in (
        ({"type": ["string", "null"]}, "'NULL'"),
        (TEXT, "'</parameter>'"),
        ({"type": "number"}, "9007199254740993"),
    ):
        with pytest.raises(UnsupportedSchemaError):
            turn(schema, f", arguments: {{a: {{const: {constant}}}}}")


@pytest.mark.parametrize("name", ["a>b", "<", " a", "a\n"])
def test_names_that_are_no_markup_are_declined(name: str) -> None:
    with pytest.raises(RoutineGrammarError):
        turn(TEXT, name=name)


@pytest.mark.parametrize("dialect", ["mistral", "qwen3_coder"])
def test_tool_names_outside_of_json_are_plain(dialect: str) -> None:
    routine = Routine.parse("name: x\nsteps:\n  - {name: A, tool: 'a{b'}\n")
    tools = [Tool("a{b", "", {"type": "object", "properties": {}})]
    with pytest.raises(GrammarError, match="can't write the tool name"):
        compile_routine(routine, tools, dialect=dialect)
    compile_routine(routine, tools, dialect="mistral_v3")


def test_blocks_are_there_together_as_the_schema_says_but_not_counted() -> None:
    words = {"type": "object", "properties": {"a": {"enum": ["x"]}, "b": {"enum": ["y"]}}}
    routine = Routine.parse("name: test\nsteps:\n  - {name: s, tool: t}\n")

    def turn_of(**more: Any) -> Turn:
        return compile_routine(routine, [Tool("t", "", {**words, **more})], dialect=DIALECT).turn()

    turn = turn_of(anyOf=[{"required": ["a"]}, {"required": ["b"]}])
    a, b = ("<parameter=a>\nx\n</parameter>\n", "<parameter=b>\ny\n</parameter>\n")
    texts = {blocks: f"<tool_call>\n<function=t>\n{blocks}</function>\n</tool_call>" for blocks in (a, b, a + b, "")}
    assert [blocks for blocks, text in texts.items() if turn.accepts(text)] == [a, b, a + b]
    with pytest.raises(UnsupportedSchemaError, match="arguments can't be counted") as refused:
        turn_of(minProperties=1)
    assert refused.value.keyword == "minProperties"
