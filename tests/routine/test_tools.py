"""Tools are read from SDK objects and recordings; what is malformed names the tool and the field."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from routine_grammar.errors import SchemaError, ToolError
from routine_grammar.routine import Tool, Variable, load_tools
from routine_grammar.routine.tools import schema_at

INPUT: dict[str, Any] = {"type": "object", "properties": {"path": {"type": "string"}}}
OUTPUT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "files": {"type": "array", "items": {"$ref": "#/$defs/file"}},
        "more": {"type": "object", "additionalProperties": True},
    },
    "$defs": {"file": {"type": "object", "properties": {"name": {"type": "string"}}}},
}


def test_camel_case_mappings() -> None:
    tool = Tool.from_mcp(
        {
            "name": "git_status",
            "inputSchema": INPUT,
            "outputSchema": OUTPUT,
            "annotations": {"readOnlyHint": True, "destructiveHint": False},
            "_meta": {"other": 1},
        }
    )
    assert tool == Tool("git_status", "", INPUT, OUTPUT, read_only=True, destructive=False, idempotent=None)


def test_snake_case_objects() -> None:
    hints = SimpleNamespace(read_only_hint=None, idempotent_hint=True)
    obj = SimpleNamespace(name="a/b.c", description="d", input_schema=INPUT, output_schema=None, annotations=hints)
    assert Tool.from_mcp(obj) == Tool("a/b.c", "d", INPUT, idempotent=True)


def test_the_sdks_own_object() -> None:
    types = pytest.importorskip("mcp.types")
    obj = types.Tool(name="t", inputSchema=INPUT, annotations=types.ToolAnnotations(readOnlyHint=True))
    assert Tool.from_mcp(obj) == Tool("t", "", INPUT, read_only=True)


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        ({}, "field name"),
        ({"name": ""}, "field name"),
        ({"name": "x" * 129}, "1 to 128"),
        ({"name": "a\nb"}, "printable"),
        ({"name": "t"}, "tool 't', field inputSchema: missing"),
        ({"name": "t", "description": 5, "inputSchema": INPUT}, "tool 't', field description: expected text, got int"),
        ({"name": "t", "inputSchema": []}, "tool 't', field inputSchema: expected a JSON Schema of type object"),
        ({"name": "t", "inputSchema": {"type": "string"}}, "type object"),
        ({"name": "t", "inputSchema": {"properties": {"x": {"type": "text"}}}}, "field inputSchema: invalid JSON Schema"),
        ({"name": "t", "inputSchema": INPUT, "outputSchema": 5}, "tool 't', field outputSchema"),
        ({"name": "t", "inputSchema": INPUT, "annotations": {"readOnlyHint": "yes"}}, "annotations.readOnlyHint"),
        (None, "field name"),
    ],
)
def test_malformed_tools(obj: object, message: str) -> None:
    with pytest.raises(ToolError) as caught:
        Tool.from_mcp(obj)
    assert message in str(caught.value)


@pytest.mark.parametrize("wrap", [lambda tools: tools, lambda tools: {"tools": tools, "nextCursor": None}])
def test_recordings(tmp_path: Path, wrap: Any) -> None:
    path = tmp_path / "tools.json"
    path.write_text(json.dumps(wrap([{"name": "t", "inputSchema": INPUT, "title": "T"}])))
    assert load_tools(path) == (Tool("t", "", INPUT, title="T"),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "expected a list of MCP tools"),
        ("5", "expected a list of MCP tools"),
        ("[", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ('[{"name": "t"}]', "tool 't', field inputSchema: missing"),
    ],
)
def test_broken_recordings(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "tools.json"
    path.write_text(content)
    with pytest.raises(ToolError) as caught:
        load_tools(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_a_missing_recording(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="can't be read"):
        load_tools(tmp_path / "nothing.json")


def test_a_parameter_keeps_its_references() -> None:
    tool = Tool("t", "", {"properties": {"x": {"$ref": "#/$defs/y"}}, "$defs": {"y": {"type": "integer"}}})
    assert tool.parameter_schema("x")["$ref"] == "#/$defs/root/$defs/y"
    with pytest.raises(ToolError, match="no parameter 'z'; it has x"):
        tool.parameter_schema("z")


def test_output_types() -> None:
    silent, speaking = Tool("t", "", INPUT), Tool("t", "", INPUT, OUTPUT)
    assert silent.output_type(Variable("result")) == {"type": "string"}
    assert silent.output_type(Variable("x", pointer="/a")) is None
    assert silent.output_type(Variable("x", {"type": "integer"})) == {"type": "integer"}
    assert speaking.output_type(Variable("x", pointer="/files/0/name")) == {"type": "string"}
    assert speaking.output_type(Variable("x", pointer="/more/anything")) is None
    with pytest.raises(SchemaError, match="no property 'file'; there are files, more"):
        speaking.output_type(Variable("x", pointer="/file"))


def test_an_endless_reference_leaves_the_type_open() -> None:
    assert schema_at({"$ref": "#"}, "/x") is None


def test_places_of_a_list_may_have_types_of_their_own() -> None:
    listed = {"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "integer"}}
    assert schema_at(listed, "/0") == {"type": "string"}
    assert schema_at(listed, "/1") == {"type": "integer"}
    assert schema_at(listed, "/*") is None
    assert schema_at(listed, "/01") is None  # no place of a list by RFC 6901
    with pytest.raises(SchemaError, match="stands for itself only as '~0'"):
        schema_at(listed, "/a~2")
