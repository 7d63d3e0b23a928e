from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from routine_grammar.agent.calls import ToolCall, check_calls, written_values
from routine_grammar.agent.memory import VariableMemory
from routine_grammar.agent.tools import ToolResult
from routine_grammar.errors import RunError
from routine_grammar.routine import (
    START,
    AnyKey,
    Constant,
    Graph,
    Key,
    Literal,
    Omit,
    Routine,
    Source,
    Step,
    Tool,
    Variable,
)

TEXT: dict[str, Any] = {"type": "string"}
ROWS: dict[str, Any] = {"type": "array", "items": {"type": "integer"}, "minItems": 2}
FIND = Tool("find", "", {"type": "object", "properties": {"query": TEXT, "limit": {"type": "integer"}}, "required": ["query"]})
COUNT = Tool("count", "", {"type": "object", "properties": {}}, {"type": "object", "properties": {"rows": ROWS}})


def arguments_of(memory: VariableMemory, source: Source | None, decoded: object) -> object:
    sources = {} if source is None else {"query": source}
    graph = Graph.of(Routine("r", inputs=(Variable("word", TEXT),), steps=(Step("", "s", tool="find", arguments=sources),)))
    text = decoded if isinstance(decoded, str) else json.dumps(decoded)
    (checked,) = check_calls(graph, {"find": FIND}, memory, START, "", [ToolCall("1", "find", text)])
    return checked.arguments


@pytest.fixture
def memory() -> VariableMemory:
    memory = VariableMemory()
    memory.put("memory_input_word", "sun")
    memory.put("memory_input_other", "moon")
    memory.put("memory_input_many", 5)
    return memory


@pytest.mark.parametrize(
    ("source", "decoded", "expected"),
    [
        (None, {"query": "x"}, {"query": "x"}),
        (None, {"query": "memory_input_word"}, {"query": "sun"}),
        (None, {"query": "x", "limit": "memory_input_many"}, {"query": "x", "limit": 5}),
        (Literal(), {"query": "\\memory_x"}, {"query": "memory_x"}),
        (Constant("\\memory_x"), {"query": "\\memory_x"}, {"query": "\\memory_x"}),
        (Key("memory_input_word"), {"query": "memory_input_word"}, {"query": "sun"}),
        (AnyKey(), {"query": "memory_input_other"}, {"query": "moon"}),
    ],
)
def test_what_the_routine_allows(memory: VariableMemory, source: Source | None, decoded: object, expected: object) -> None:
    assert arguments_of(memory, source, decoded) == expected


@pytest.mark.parametrize(
    ("source", "decoded", "message"),
    [
        (Constant("x"), {"query": "y"}, "argument 'query': expected the constant 'x', got 'y'"),
        (Constant("x"), {}, "argument 'query': expected the constant 'x', got 'nothing'"),
        (Key("memory_input_word"), {"query": "memory_input_other"}, "expected the key memory_input_word, got 'memory_input_ot"),
        (Key("memory_input_word"), {"query": "sun"}, "expected the key memory_input_word, got 'sun'"),
        (AnyKey(), {"query": "sun"}, "expected a live key, got 'sun'"),
        (AnyKey(), {"query": "memory_9_x"}, "no value is stored under 'memory_9_x'; live keys: memory_input_word"),
        (AnyKey(), {"query": "memory_input_many"}, "5 is not of type 'string'"),
        (Literal(), {"query": "memory_input_word"}, "expected a value, not a key, got 'memory_input_word'"),
        (Omit(), {"query": "x"}, "expected it to be left out, got 'x'"),
        (None, {"query": "x", "limit": "memory_input_word"}, "'sun' is not of type 'integer'"),
        (None, {"query": "x", "limit": True}, "True is not of type 'integer'"),
        (None, {"query": "x", "depth": 1}, "argument 'depth': the tool has no such parameter; it has query, limit"),
        (None, {}, "'query' is a required property"),
        (None, '{"query": "x"', "the arguments are no JSON"),
        (None, '"x"', "the arguments are str; expected an object"),
        (None, "[" * 100_000, "nested deeper than"),
    ],
)
def test_what_it_does_not(memory: VariableMemory, source: Source | None, decoded: object, message: str) -> None:
    with pytest.raises(RunError, match="routine 'r', Step 1, tool 'find'") as caught:
        arguments_of(memory, source, decoded)
    assert message in str(caught.value)


@pytest.mark.parametrize("more", [True, {"type": "integer"}])
def test_a_tool_that_takes_further_arguments_is_given_them(memory: VariableMemory, more: object) -> None:
    tools = {"find": replace(FIND, input_schema={**FIND.input_schema, "additionalProperties": more})}
    graph = Graph.of(Routine("r", steps=(Step("", "s", tool="find"),)))

    def checked(**arguments: object) -> object:
        (call,) = check_calls(graph, tools, memory, START, "", [ToolCall("1", "find", json.dumps(arguments))])
        return call.arguments

    assert checked(query="memory_input_word", depth=2) == {"query": "sun", "depth": 2}
    if more is not True:
        with pytest.raises(RunError, match="'deep' is not of type 'integer'"):
            checked(query="x", depth="deep")


def values_of(result: ToolResult, *outputs: Variable, tool: Tool = FIND, reads: str | None = None) -> list[Any]:
    sources = {} if reads is None else {"query": Key(reads)}
    steps = (Step("", "s", tool=tool.name, outputs=outputs), Step("", "s", tool="find", arguments=sources))
    graph = Graph.of(Routine("r", steps=steps))
    return list(written_values(graph, graph.call_taken(START, None, tool.name), tool, result))


def test_a_result_of_text_is_the_implicit_output() -> None:
    assert values_of(ToolResult("found")) == [("memory_1_result", "found", TEXT)]
    assert values_of(ToolResult("found", structured={"result": "found"})) == [("memory_1_result", "found", TEXT)]


def test_structured_content_is_preferred_to_its_text() -> None:
    result = ToolResult('{"rows": [9, 9]}', structured={"rows": [1, 2]})
    assert values_of(result, tool=COUNT) == [("memory_1_result", {"rows": [1, 2]}, COUNT.output_schema)]
    assert values_of(result, Variable("rows", pointer="/rows"), tool=COUNT) == [("memory_1_rows", [1, 2], ROWS)]


def test_text_that_is_json_is_pointed_into() -> None:
    result = ToolResult('{"a": [{"b": 5}]}')
    assert values_of(result, Variable("b", pointer="/a/0/b")) == [("memory_1_b", 5, None)]
    assert values_of(ToolResult("[1, 2]"), Variable("rows", ROWS)) == [("memory_1_rows", [1, 2], ROWS)]


def test_an_item_that_the_routine_reads_has_a_key_of_its_own() -> None:
    rows = ToolResult("[1, 2, 3]")
    written = values_of(rows, Variable("rows", ROWS), reads="memory_1_rows_1")
    assert written == [("memory_1_rows", [1, 2, 3], ROWS), ("memory_1_rows_1", 2, {"type": "integer"})]
    assert len(values_of(rows, Variable("rows", ROWS), reads="memory_1_rows_7")) == 1


@pytest.mark.parametrize(
    ("result", "output", "message"),
    [
        (ToolResult("{}"), Variable("rows", pointer="/rows"), "nothing stands at 'rows'"),
        (ToolResult("text"), Variable("rows", ROWS), "'text' is not of type 'array'"),
        (ToolResult("", structured={"rows": 5}), Variable("rows", ROWS, pointer="/rows"), "5 is not of type 'array'"),
    ],
)
def test_an_output_that_the_result_does_not_have(result: ToolResult, output: Variable, message: str) -> None:
    with pytest.raises(RunError, match="routine 'r', Step 1, output 'rows': not in the result of tool 'find'") as caught:
        values_of(result, output)
    assert message in str(caught.value)
