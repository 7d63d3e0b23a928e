"""What is told of a text that a grammar refuses, or that may go on."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routine_grammar.__main__ import main
from routine_grammar.api import CompiledRoutine, compile_lark, compile_routine, compile_schema
from routine_grammar.automaton import tracing
from routine_grammar.automaton.automaton import Automaton
from routine_grammar.automaton.tracing import trace
from routine_grammar.errors import GrammarError, GrammarTooLargeError
from routine_grammar.grammar.tree import Grammar
from routine_grammar.routine import Tool
from routine_grammar.routine.model import Literal, Routine, Step
from tests.grammars import edited, grammars, sample

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


@settings(max_examples=150, deadline=None)
@given(grammars, st.integers(0, 1 << 30))
def test_the_tree_reads_what_the_automaton_does(grammar: Grammar, seed: int) -> None:
    rng = random.Random(seed)
    automaton = Automaton(grammar)
    whole = sample(grammar, rng)
    for text in (whole, edited(whole, rng), edited(edited(whole, rng), rng)):
        data = text.encode()
        try:
            traced = trace(grammar, data)
            row = automaton.after(automaton.start(), data[: traced.read])
            assert row is not None
            if traced.read < len(data):
                assert automaton.after(row, data[traced.read : traced.read + 1]) is None
        except GrammarError:
            continue
        allowed = {int(byte) for byte in automaton.next_bytes(row).nonzero()[0]}
        assert {way.text[0] for way in traced.ways if way.text} <= allowed
        assert any(not way.text and way.leaf is None for way in traced.ways) == automaton.may_end(row)
        assert all(way.text or way.leaf is not None for way in traced.ways) or automaton.may_end(row)


def test_rules_are_told_outermost_first() -> None:
    grammar = compile_lark('start: "(" pair ")"\npair: item ", " item\nitem: NUMBER | "[" pair "]"\nNUMBER: /[0-9]{1,3}/')
    explanation = grammar.explain("([12, x")
    assert (explanation.read, explanation.refused) == (6, "x")
    assert explanation.expected == ("NUMBER, /[0-9]{1,3}/", "'['")
    assert explanation.rules == (("pair", "item", "pair", "item"),)
    assert not explanation.may_end
    assert str(explanation).splitlines() == [
        "read: 6 characters (6 bytes)",
        "refused: 'x', at byte 6",
        "expected: NUMBER, /[0-9]{1,3}/",
        "expected: '['",
        "may end here: no",
        "in rule: pair > item > pair > item",
    ]
    assert grammar.explain("(1, 22)").may_end
    assert grammar.explain("(1, 2").expected == ("more of NUMBER, /[0-9]{1,3}/", "')'")


@pytest.mark.parametrize(
    ("schema", "text", "refused", "expected"),
    [
        ({"type": "integer", "minimum": 5, "exclusiveMaximum": 80}, "90", "0", "'.'|more of INTEGER"),
        ({"type": "integer", "minimum": 5}, "x", "x", "a whole number from 5"),
        ({"type": "number", "exclusiveMaximum": 80, "multipleOf": 2}, "x", "x", "a number below 80 that is a multiple of 2"),
        ({"type": "string", "pattern": "^é+$", "maxLength": 4}, '"éa', "a", r"a JSON string of 0 to 4 .*/\^é\+\$/ is found"),
        ({"type": "string", "minLength": 3}, '"é"', '"', "a JSON string of 3 characters or more"),
        ({"enum": ["yes", "no"]}, '"maybe"', "m", "'yes\"'"),
    ],
)
def test_terminals_are_told_in_words(schema: Any, text: str, refused: str, expected: str) -> None:
    import re

    explanation = compile_schema(schema).explain(text)
    assert explanation.refused == refused
    assert any(re.search(expected, each) for each in explanation.expected), explanation.expected


def test_a_character_refused_by_its_second_byte_is_told_whole() -> None:
    explanation = compile_lark('start: "é"').explain("è")
    assert (explanation.read, explanation.read_bytes, explanation.refused) == (0, 1, "è")


def test_more_ways_than_are_shown_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    explanation = compile_schema({"enum": list(range(100, 200))}).explain("1")
    assert len(explanation.expected) == 20
    assert explanation.ways > 90
    assert "and" in str(explanation)
    many = compile_schema({"type": "array", "items": {"enum": list(range(10_000))}, "maxItems": 2})
    monkeypatch.setattr(tracing, "MAX_WAYS", 9_000)
    with pytest.raises(GrammarTooLargeError, match="more than 9000 ways"):
        many.explain("[")


GUEST = {"type": "object", "properties": {"name": {"type": "string", "minLength": 2}}, "required": ["name"]}
TOOL = Tool(
    "book",
    "",
    {
        "type": "object",
        "$defs": {
            "guest": {"type": "object", "properties": {"name": {"type": "string", "minLength": 2}}, "required": ["name"]}
        },
        "properties": {
            "guests": {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/guest"}, {"type": "null"}]}},
            "a/b": {"type": "integer", "maximum": 9},
        },
        "required": ["guests", "a/b"],
    },
)


def booking(dialect: str) -> CompiledRoutine:
    step = Step("", "Book", tool="book", arguments={"guests": Literal(), "a/b": Literal()})
    return compile_routine(Routine("book", steps=(step,)), [TOOL], dialect=dialect)


@pytest.mark.parametrize("dialect", ["hermes", "llama3_json", "mistral_v3"])
def test_the_schema_of_an_argument_is_told_by_its_pointer(dialect: str) -> None:
    compiled = booking(dialect)
    forced = compiled.turn().forced
    lead = forced[: forced.index('{"guests"')]
    for text, pointers in {
        "": ("",),
        "{": ("",),
        '{"guests": [': ("/$defs/guest", "/properties/guests/items/anyOf/1"),
        '{"guests": [null, {"name": ': ("/$defs/guest/properties/name",),
        '{"guests": [null], "a/b': ("",),
        '{"guests": [null], "a/b": ': ("/properties/a~1b",),
    }.items():
        explanation = compiled.explain(lead + text)
        assert (explanation.refused, explanation.tool, explanation.pointers) == (None, "book", pointers), text
    refused = compiled.explain(lead + '{"guests": [{"name": "x"')
    assert (refused.refused, refused.pointers) == ('"', ("/$defs/guest/properties/name",))
    assert compiled.explain(lead + '{"guests": [], "a/b": 3}').tool is None


def test_the_block_of_an_argument_is_told_too() -> None:
    compiled = booking("qwen3_coder")
    lead = compiled.turn().forced
    lead = lead[: lead.rindex("[")]
    explanation = compiled.explain(lead + "[]\n</parameter>\n<parameter=a/b>\n12")
    assert (explanation.refused, explanation.pointers) == ("2", ("/properties/a~1b",))


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = ["explain", str(EXAMPLES / "stale_pages.yaml"), "--tools", str(EXAMPLES / "wiki_tools.json")]
    assert main(command) == 0
    assert "forced: '<tool_call>" in capsys.readouterr().out
    text = '<tool_call>\n{"name": "list_pages", "arguments": {"wiki": 7'
    file = tmp_path / "said.txt"
    file.write_text(text, encoding="utf-8")
    for prefix in (text, f"@{file}"):
        assert main([*command, "--prefix", prefix, "--key", "memory_input_wiki"]) == 1
        told = capsys.readouterr().out
        assert "refused: '7', at byte" in told
        assert "by the schema of tool list_pages: /properties/wiki" in told
    assert main([*command, "--at", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_a_schema_is_told_by_pointer() -> None:
    items = {"type": "string", "maxLength": 1}
    schema = {
        "type": "object",
        "properties": {"a": {"type": "array", "uniqueItems": True, "items": items}, "b": {"$ref": "#/$defs/n"}},
        "$defs": {"n": {"type": "integer", "minimum": 3}},
    }
    grammar = compile_schema(schema)
    repeated = grammar.explain('{"a": ["z", "z"]}')
    assert (repeated.refused, repeated.pointers) == ("z", ("/properties/a/uniqueItems", "/properties/a/items"))
    assert "STRING_2, a JSON string of 0 to 1 characters" in repeated.expected[1]
    assert repeated.expected[0] == "what repeats no element of the list, as '\"z' would"
    low = grammar.explain('{"b": 2}')
    assert (low.refused, low.pointers) == ("}", ("/$defs/n",))
    assert str(low).endswith("by the schema: /$defs/n")
    assert grammar.explain('{"b": 3}').pointers == ()
    assert compile_schema(items).explain('"xy').pointers == ("",)


def test_an_argument_of_a_list_of_distinct_elements_is_told_by_pointer() -> None:
    schema = {"properties": {"a": {"type": "array", "uniqueItems": True, "items": {"type": "integer"}}}, "required": ["a"]}
    compiled = compile_routine(Routine("r", steps=(Step("1", "s", tool="t"),)), [Tool("t", "", schema)])
    begun = compiled.turn().forced
    assert begun.endswith("[")
    explanation = compiled.explain(f"{begun}17, 17, ")
    assert explanation.refused == ","
    assert (explanation.tool, explanation.pointers) == ("t", ("/properties/a/uniqueItems", "/properties/a/items"))
