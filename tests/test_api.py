from __future__ import annotations

import time

import pytest

from routine_grammar import Routine, Tool, compile_routine
from routine_grammar.api import compile_schema, problems_of
from routine_grammar.errors import GrammarError, RoutineError, SchemaError
from routine_grammar.routine import Step
from routine_grammar.routine.model import MAX_STEPS
from tests.vocabularies import byte_vocabulary

ROWS = {"type": "object", "properties": {"rows": {"type": "array", "items": {"type": "string"}, "minItems": 1}}}
TOOLS = (
    Tool("list_rows", "", {"type": "object", "properties": {}}, ROWS),
    Tool("show_row", "", {"type": "object", "properties": {"row": {"type": "string"}}, "required": ["row"]}),
)


def test_an_item_of_a_list_is_read_by_its_own_key() -> None:
    routine = Routine.parse(
        """
name: rows
steps:
  - {name: List, tool: list_rows, outputs: {rows: {pointer: /rows}}}
  - {name: Show, tool: show_row, arguments: {row: {key: memory_1_rows_0}}}
"""
    )
    compiled = compile_routine(routine, TOOLS)
    assert compiled.key_types["memory_1_rows_0"] == {"type": "string"}
    turn = compiled.turn("1", ["memory_1_rows", "memory_1_rows_0"])
    assert turn.forced == '<tool_call>\n{"name": "show_row", "arguments": {"row": "memory_1_rows_0"}}\n</tool_call>'
    assert "memory_1_rows_0" in compiled.lark


def test_all_problems_at_once_and_unknown_dialects() -> None:
    routine = Routine.parse("name: r\nsteps:\n  - {name: a, tool: list_row}\n  - {name: b, tool: show_rows}\n")
    with pytest.raises(RoutineError) as caught:
        compile_routine(routine, TOOLS)
    assert len(caught.value.problems) == 2
    with pytest.raises(GrammarError, match="no dialect 'klingon'"):
        compile_routine(Routine.parse("name: r\nsteps:\n  - {name: a, tool: list_rows}\n"), TOOLS, dialect="klingon")


def test_a_tool_without_parameters_is_called_with_an_empty_object() -> None:
    compiled = compile_routine(Routine.parse("name: r\nsteps:\n  - {name: a, tool: list_rows}\n"), TOOLS)
    assert compiled.turn().forced == '<tool_call>\n{"name": "list_rows", "arguments": {}}\n</tool_call>'
    end = compiled.turn("1")
    assert (end.tools, end.may_end) == ((), True)
    assert end.accepts("All rows are listed.")
    assert not end.accepts('<tool_call>\n{"name": "list_rows", "arguments": {}}\n</tool_call>')


def test_a_long_routine_is_compiled_in_time_and_one_too_long_is_refused() -> None:
    steps = tuple(Step("", f"s_{number}", tool="show_row") for number in range(MAX_STEPS))
    started = time.process_time()
    compiled = compile_routine(Routine("long", steps=steps), TOOLS)
    assert time.process_time() - started < 5
    assert compiled.turn(str(MAX_STEPS - 1), ["memory_1_result"]).tools == ("show_row",)
    with pytest.raises(RoutineError, match=f"has {MAX_STEPS + 1} steps; the bound is {MAX_STEPS}"):
        Routine("longer", steps=(*steps, steps[0]))


def test_a_schema_without_a_finite_value_is_refused_at_once() -> None:
    for schema in (
        {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 2}}},
        {"type": "object", "additionalProperties": False, "properties": {"n": {"$ref": "#"}}, "required": ["n"]},
    ):
        with pytest.raises(SchemaError, match="no value of finite size"):
            compile_schema(schema)
    assert compile_schema({"type": "array", "items": {"$ref": "#"}}).accepts("[[], [[]]]")


def test_the_problems_of_a_routine_are_what_keeps_it_from_compiling() -> None:
    routine = Routine("r", steps=tuple(Step("", "s", tool=name) for name in ("list_rows", "odd", "show_rows", "odd")))
    odd = Tool("odd", "", {"type": "object", "properties": {"a": {"format": "moon"}, "b": False}, "minProperties": 1})
    found = [(problem.step, problem.field) for problem in problems_of(routine, (*TOOLS, odd))]
    of_odd = [None, "arguments.a", "arguments.b"]
    assert found == [("3", "tool"), *(("2", field) for field in of_odd), *(("4", field) for field in of_odd)]
    assert problems_of(Routine("r", steps=routine.steps[:1]), TOOLS) == ()


def test_an_unknown_consumer_of_lark_is_told_who_there_are() -> None:
    with pytest.raises(GrammarError, match=r"no consumer 'foo'; there are .*llguidance"):
        compile_schema({"type": "null"}).lark_for("foo", byte_vocabulary())
