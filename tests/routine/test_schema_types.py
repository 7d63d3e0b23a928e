"""Types that JSON Schema does not have are read as what they mean, with one warning; nothing else is touched."""

from __future__ import annotations

import json
import lzma
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from routine_grammar.__main__ import main
from routine_grammar.errors import SchemaWarning, ToolError, plain_warnings
from routine_grammar.routine import Tool, load_tools
from routine_grammar.routine.schema_types import with_standard_types

DATA = Path(__file__).parents[1] / "data" / "tool_schemas.jsonl.xz"
SPELLINGS = {
    "object": ("dict", "Object", "DICT"),
    "number": ("float", "Number"),
    "integer": ("int", "Integer"),
    "string": ("str", "STRING"),
    "boolean": ("bool", "Boolean"),
    "array": ("list", "tuple", "Array"),
    "null": ("none", "None", "NoneType", "NULL"),
}


def edited(schema: Any, edit: Callable[[str], str]) -> Any:
    """The schema with every type name edited; the real schemas have few keywords, and data only below some."""
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "type":
            out[key] = edit(value) if isinstance(value, str) else [edit(each) for each in value]
        elif key in ("properties", "$defs"):
            out[key] = {name: edited(each, edit) for name, each in value.items()}
        elif key in ("items", "additionalProperties"):
            out[key] = edited(value, edit)
        elif key in ("anyOf", "oneOf", "allOf", "prefixItems"):
            out[key] = [edited(each, edit) for each in value]
        else:
            out[key] = value
    return out


def test_real_function_documents_with_their_types_written_in_other_ways() -> None:
    chosen = random.Random(7)
    count = 0
    with lzma.open(DATA, "rt", encoding="utf-8") as lines:
        for line in lines:
            schema = json.loads(line)["schema"]
            assert with_standard_types(schema) == (schema, ())
            asked: list[str] = []

            def other(name: str, asked: list[str] = asked) -> str:
                asked.append(name)
                return chosen.choice(SPELLINGS[name])

            strange = edited(schema, other)
            standard, notes = with_standard_types(strange)
            assert standard == schema
            assert len(notes) == len(asked)
            with pytest.warns(SchemaWarning, match="tool 't': types that JSON Schema does not have: /inputSchema/") as caught:
                assert Tool.from_mcp({"name": "t", "inputSchema": strange}).input_schema == schema
            assert len(caught) == 1
            count += len(notes)
    assert count > 5000


def test_every_place_of_a_schema_and_no_other() -> None:
    data = {"type": "dict", "const": {"type": "dict"}, "enum": [{"type": "any"}], "default": {"type": "int"}}
    properties: dict[str, Any] = {
        "type": {"type": "str", "examples": [{"type": "float"}]},
        "a/b~c": {"type": ["int", "integer", "None"]},
        "anything": {"type": "any", "description": "type: dict"},
        "perhaps": {"type": ["string", "any"]},
        "data": data,
        "pair": {"type": "tuple", "items": [{"type": "float"}], "prefixItems": [{"type": "bool"}]},
        "either": {"anyOf": [{"type": "list", "items": {"type": "dict"}}, {"not": {"type": "str"}}]},
    }
    schema = {"type": "dict", "properties": properties, "$defs": {"type": {"type": "float"}}, "required": ["type"]}
    standard, notes = with_standard_types(schema)
    assert standard == {
        "type": "object",
        "properties": {
            "type": {"type": "string", "examples": [{"type": "float"}]},
            "a/b~c": {"type": ["integer", "null"]},
            "anything": {"description": "type: dict"},
            "perhaps": {},
            "data": {**data, "type": "object"},
            "pair": {"type": "array", "items": [{"type": "number"}], "prefixItems": [{"type": "boolean"}]},
            "either": {"anyOf": [{"type": "array", "items": {"type": "object"}}, {"not": {"type": "string"}}]},
        },
        "$defs": {"type": {"type": "number"}},
        "required": ["type"],
    }
    assert notes[:4] == (
        "/type: 'dict' read as 'object'",
        "/properties/type/type: 'str' read as 'string'",
        "/properties/a~1b~0c/type/0: 'int' read as 'integer'",
        "/properties/a~1b~0c/type/2: 'None' read as 'null'",
    )
    assert "/properties/anything/type: 'any' read as no type at all" in notes
    assert len(notes) == 14
    assert properties["anything"]["type"] == "any"


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "str"}
    for _ in range(depth):
        schema = {"items": schema}
    return {"type": "object", "properties": {"x": schema}}


def test_an_output_schema_and_a_schema_that_is_nested_too_deeply() -> None:
    with pytest.warns(SchemaWarning, match=r"^tool 't': .*: /outputSchema/items/type: 'float' read as 'number'$"):
        tool = Tool.from_mcp({"name": "t", "inputSchema": {}, "outputSchema": {"type": "array", "items": {"type": "float"}}})
    assert tool.output_schema == {"type": "array", "items": {"type": "number"}}
    with pytest.raises(ToolError, match="nested too deeply"):
        Tool.from_mcp({"name": "t", "inputSchema": nested(100_000)})


def test_one_warning_tells_some_of_many_types() -> None:
    schema = {"properties": {f"p{number}": {"type": "int"} for number in range(50)}}
    with pytest.warns(SchemaWarning, match="/p7/type: 'int' read as 'integer' and 42 more$") as caught:
        Tool.from_mcp({"name": "t", "inputSchema": schema})
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("strng", "did you mean 'string'?"),
        ("dictt", "did you mean 'object'?"),
        ("HashMap", "expected one of array, boolean, integer, null, number, object, string"),
        ("", "expected one of"),
    ],
)
def test_an_unknown_type_stays_an_error(name: str, hint: str) -> None:
    with pytest.raises(ToolError) as caught:
        Tool.from_mcp({"name": "t", "inputSchema": {"properties": {"x": {"items": {"type": ["null", name]}}}}})
    message = str(caught.value)
    assert message.startswith(f"tool 't', field inputSchema: invalid JSON Schema: unknown type {name!r}; {hint}")
    assert message.endswith("(at JSON pointer '/properties/x/items/type/1')")


@pytest.mark.filterwarnings("default::routine_grammar.errors.SchemaWarning")
def test_a_command_tells_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools = tmp_path / "tools.json"
    tools.write_text(json.dumps([{"name": "look", "inputSchema": {"type": "dict"}}]))
    routine = tmp_path / "routine.yaml"
    routine.write_text("name: r\nsteps:\n  - {name: Look, tool: look}\n")
    assert main(["check", str(routine), "--tools", str(tools)]) == 0
    shown = capsys.readouterr()
    assert shown.out == "1 routine, no problems\n"
    assert shown.err == (
        "warning: tool 'look': types that JSON Schema does not have: /inputSchema/type: 'dict' read as 'object'\n"
    )


def test_other_warnings_are_shown_as_usual(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        shown: list[str] = []
        warnings.showwarning = lambda message, *rest, **more: shown.append(str(message))
        with plain_warnings():
            warnings.warn("usual", UserWarning, stacklevel=1)
    assert shown == ["usual"]
    assert capsys.readouterr().err == ""


def test_hints_and_title_come_back_from_a_record(tmp_path: Path) -> None:
    hints = {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": False, "openWorldHint": True}
    described = {"name": "t", "title": "The tool", "description": "d", "inputSchema": {"type": "object"}, "annotations": hints}
    tool = Tool.from_mcp(described)
    assert (tool.read_only, tool.destructive, tool.idempotent, tool.open_world) == (False, True, False, True)
    assert tool.to_mcp() == described
    path = tmp_path / "tools.json"
    path.write_text(json.dumps([tool.to_mcp()]))
    assert load_tools(path) == (tool,)
    older = Tool.from_mcp({"name": "t", "inputSchema": {}, "annotations": {"title": "Old"}})
    assert older.title == "Old"
    assert Tool.from_mcp(older.to_mcp()) == older
    with pytest.raises(ToolError, match="tool 't', field title: expected text, got int"):
        Tool.from_mcp({"name": "t", "inputSchema": {}, "title": 5})
