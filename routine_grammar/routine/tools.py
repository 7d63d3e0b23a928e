"""A tool as its MCP server describes it: name, input and output JSON Schema, and hints. Imports no MCP library.

Read from an SDK's object or from recorded JSON; what is malformed is a `ToolError` that names the tool and the field.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routine_grammar.errors import SchemaError, SchemaWarning, ToolError
from routine_grammar.routine.documents import read_bytes
from routine_grammar.routine.model import Variable
from routine_grammar.routine.schema_types import with_standard_types
from routine_grammar.routine.types import TEXT
from routine_grammar.routine.values import EVERY_ITEM, array_of, is_index, pointer_parts, resolve, schema_problem, subschema

MAX_RECORD_BYTES = 16 * 2**20
MAX_TOOL_NAME_LENGTH = 128
_MAX_NOTES = 8


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool; a hint is None where the server gives none.

    `open_world`: it deals with things outside its server's own, such as the web. `title` is a name for people.
    """

    name: str
    description: str
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any] | None = None
    read_only: bool | None = None
    destructive: bool | None = None
    idempotent: bool | None = None
    open_world: bool | None = None
    title: str | None = None

    @classmethod
    def from_mcp(cls, obj: object) -> Tool:
        """Read an MCP tool: an SDK's object or a mapping, its fields in camel or snake case; raises `ToolError`.

        Type names of its schemas that JSON Schema does not have, such as "dict", are read as what they mean, with one
        `SchemaWarning`.
        """
        name = _field(obj, "name")
        if not isinstance(name, str) or not 0 < len(name) <= MAX_TOOL_NAME_LENGTH or not name.isprintable():
            raise ToolError(f"tool {str(name)[:80]!r}, field name: expected 1 to {MAX_TOOL_NAME_LENGTH} printable characters")
        description = _field(obj, "description")
        if description is not None and not isinstance(description, str):
            raise ToolError(f"tool {name!r}, field description: expected text, got {type(description).__name__}")
        hints = _field(obj, "annotations")
        notes: list[str] = []
        tool = cls(
            name=name,
            description=description or "",
            input_schema=_input_schema(name, _field(obj, "inputSchema", "input_schema"), notes),
            output_schema=_output_schema(name, _field(obj, "outputSchema", "output_schema"), notes),
            read_only=_hint(name, hints, "readOnlyHint", "read_only_hint"),
            destructive=_hint(name, hints, "destructiveHint", "destructive_hint"),
            idempotent=_hint(name, hints, "idempotentHint", "idempotent_hint"),
            open_world=_hint(name, hints, "openWorldHint", "open_world_hint"),
            title=_title(name, obj, hints),
        )
        if notes:
            more = f" and {len(notes) - _MAX_NOTES} more" if len(notes) > _MAX_NOTES else ""
            told = f"tool {name!r}: types that JSON Schema does not have: {'; '.join(notes[:_MAX_NOTES])}{more}"
            warnings.warn(SchemaWarning(told), stacklevel=2)
        return tool

    def to_mcp(self) -> dict[str, Any]:
        """Return the tool in MCP's JSON form, as `from_mcp` reads it."""
        hints = {
            "readOnlyHint": self.read_only,
            "destructiveHint": self.destructive,
            "idempotentHint": self.idempotent,
            "openWorldHint": self.open_world,
        }
        written = {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "inputSchema": dict(self.input_schema),
            "outputSchema": None if self.output_schema is None else dict(self.output_schema),
            "annotations": {name: hint for name, hint in hints.items() if hint is not None} or None,
        }
        return {name: value for name, value in written.items() if value is not None}

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The schema of each parameter, as written in the input schema."""
        found: Mapping[str, Any] = self.input_schema.get("properties", {})
        return found

    def parameter_schema(self, name: str) -> Mapping[str, Any]:
        """Return a parameter's schema as a schema of its own; raises `ToolError` where there is no such parameter."""
        if name not in self.parameters:
            raise ToolError(f"tool {self.name!r} has no parameter {name[:80]!r}; it has {', '.join(self.parameters)}")
        return subschema(self.input_schema, self.parameters[name])

    def output_type(self, variable: Variable) -> Mapping[str, Any] | None:
        """Return an output's type: the declared one, or what the tool's output schema says at its pointer.

        A tool without an output schema gives text. None where nothing is known of the value. Raises `SchemaError` where
        the pointer names nothing in the output schema.
        """
        if variable.schema is not None:
            return variable.schema
        if self.output_schema is None:
            return TEXT if not variable.pointer else None
        return schema_at(self.output_schema, variable.pointer)


def schema_at(root: Mapping[str, Any], pointer: str) -> Mapping[str, Any] | None:
    """Return the schema of what a JSON Pointer names in values of the schema `root`; None where the schema is silent.

    Raises `SchemaError` where an object's schema lists its properties and the pointer's is not among them.
    """
    return _schema_at(root, root, pointer_parts(pointer), pointer)


def _schema_at(root: Mapping[str, Any], part: Any, names: Sequence[str], pointer: str) -> Mapping[str, Any] | None:
    for place, name in enumerate(names):
        for _ in range(100):
            if not isinstance(part, Mapping) or "$ref" not in part:
                break
            part = resolve(part["$ref"], root)
        if not isinstance(part, Mapping):
            return None
        if name in part.get("properties", {}):
            part = part["properties"][name]
        elif "properties" in part and not part.get("additionalProperties"):
            raise SchemaError(f"no property {name!r}; there are {', '.join(part['properties'])}", pointer=pointer)
        elif name == EVERY_ITEM and isinstance(part.get("items"), Mapping) and not part.get("prefixItems"):
            return array_of(_schema_at(root, part["items"], names[place + 1 :], pointer))
        elif is_index(name) and isinstance(part.get("prefixItems"), list) and int(name) < len(part["prefixItems"]):
            part = part["prefixItems"][int(name)]
        elif is_index(name) and isinstance(part.get("items"), Mapping):
            part = part["items"]
        else:
            return None
    return subschema(root, part)


def load_tools(path: str | Path) -> tuple[Tool, ...]:
    """Read a recorded tool list in JSON: a list of MCP tools, or {"tools": [...]}; other fields are passed over.

    Raises `ToolError` naming the file, and the tool and field where one is malformed.
    """
    path = Path(path)
    try:
        content = read_bytes(path, MAX_RECORD_BYTES)
    except ValueError as error:
        raise ToolError(f"{path}: {error}") from error
    except OSError as error:
        raise ToolError(f"{path}: can't be read: {error.strerror or error}") from error
    try:
        recorded = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ToolError(f"{path}: no JSON in UTF-8: {error}") from error
    if isinstance(recorded, dict):
        recorded = recorded.get("tools")
    if not isinstance(recorded, list):
        raise ToolError(f'{path}: expected a list of MCP tools, or {{"tools": [...]}}')
    try:
        return tuple(Tool.from_mcp(tool) for tool in recorded)
    except ToolError as error:
        raise ToolError(f"{path}: {error}") from error


def _field(obj: object, *names: str) -> Any:
    for name in names:
        value = obj.get(name) if isinstance(obj, Mapping) else getattr(obj, name, None)
        if value is not None:
            return value
    return None


def _input_schema(tool: str, schema: Any, notes: list[str]) -> Mapping[str, Any]:
    if isinstance(schema, Mapping):
        checked = _checked(tool, "inputSchema", schema, notes)
        if checked.get("type", "object") == "object":
            return checked
    missing = "missing; " if schema is None else ""
    raise ToolError(f"tool {tool!r}, field inputSchema: {missing}expected a JSON Schema of type object")


def _output_schema(tool: str, schema: Any, notes: list[str]) -> Mapping[str, Any] | None:
    return None if schema is None else _checked(tool, "outputSchema", schema, notes)


def _checked(tool: str, name: str, schema: Any, notes: list[str]) -> Mapping[str, Any]:
    """The schema, its types read as JSON Schema's own; what was read otherwise than written is added to `notes`."""
    where = f"tool {tool!r}, field {name}"
    try:
        standard, changed = with_standard_types(schema)
    except SchemaError as error:
        raise ToolError(f"{where}: invalid JSON Schema: {error}") from error
    problem = schema_problem(standard)
    if problem:
        raise ToolError(f"{where}: {problem}")
    notes += (f"/{name}{note}" for note in changed)
    checked: Mapping[str, Any] = standard
    return checked


def _title(tool: str, obj: object, hints: object) -> str | None:
    """The tool's title, which older servers write among its hints."""
    title = _field(obj, "title") or (None if hints is None else _field(hints, "title"))
    if title is not None and not isinstance(title, str):
        raise ToolError(f"tool {tool!r}, field title: expected text, got {type(title).__name__}")
    return title


def _hint(tool: str, hints: object, *names: str) -> bool | None:
    value = None if hints is None else _field(hints, *names)
    if value is not None and not isinstance(value, bool):
        raise ToolError(f"tool {tool!r}, field annotations.{names[0]}: expected true or false, got {value!r}")
    return value
