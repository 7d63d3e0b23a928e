from __future__ import annotations

import pytest

from routine_grammar import Routine, Tool, compile_routine
from routine_grammar.errors import GrammarError, RoutineError

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
