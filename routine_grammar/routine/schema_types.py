"""Type names of JSON Schemas that are none, such as "dict" in function documents, read as those that are meant.

In: a schema as a tool gives it. Out: the schema with JSON Schema's own names, and a note for each name that was changed.
Only `type` where a schema stands is read: neither a property of that name, nor data below `enum` and its like.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from routine_grammar.errors import SchemaError

STANDARD = ("array", "boolean", "integer", "null", "number", "object", "string")
_ANY = "any"
_MEANT = {
    "any": _ANY,
    "bool": "boolean",
    "dict": "object",
    "float": "number",
    "double": "number",
    "long": "integer",
    "int": "integer",
    "list": "array",
    "none": "null",
    "nonetype": "null",
    "str": "string",
    "tuple": "array",
}
_SCHEMA = frozenset(
    (
        *("additionalItems", "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not"),
        *("propertyNames", "then", "unevaluatedItems", "unevaluatedProperties"),
    )
)
_SCHEMAS = frozenset(("allOf", "anyOf", "oneOf", "prefixItems", "items"))
_NAMED_SCHEMAS = frozenset(("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"))


def with_standard_types(schema: Any) -> tuple[Any, tuple[str, ...]]:
    """Return a schema with standard type names, and what was changed: "/properties/x/type: 'dict' read as 'object'".

    The schema is returned as it is where nothing was changed, or it is nested too deeply to be a schema. Raises
    `SchemaError` where a name is neither standard nor known.
    """
    notes: list[str] = []
    read = rewritten(schema, "type", lambda value, pointer: _types(value, pointer, notes))
    return (read, tuple(notes)) if notes else (schema, ())


def rewritten(schema: Any, keyword: str, rewrite: Callable[[Any, str], Any]) -> Any:
    """A schema whose `keyword`, wherever a schema stands, has what `rewrite` makes of its value and pointer; None: it goes.

    The schema as it is where it is nested too deeply to be one.
    """
    try:
        return _rewritten(schema, "", keyword, rewrite)
    except RecursionError:
        return schema


def _rewritten(schema: Any, pointer: str, wanted: str, rewrite: Callable[[Any, str], Any]) -> Any:
    if not isinstance(schema, Mapping):
        return schema

    def inner(value: Any, at: str) -> Any:
        return _rewritten(value, at, wanted, rewrite)

    read: dict[str, Any] = {}
    for keyword, value in schema.items():
        at = f"{pointer}/{keyword}"
        if keyword == wanted:
            value = rewrite(value, at)
            if value is None:
                continue
        elif keyword in _SCHEMA and isinstance(value, Mapping):
            value = inner(value, at)
        elif keyword in _SCHEMAS and isinstance(value, list):
            value = [inner(each, f"{at}/{place}") for place, each in enumerate(value)]
        elif keyword in _NAMED_SCHEMAS and isinstance(value, Mapping):
            value = {name: inner(each, f"{at}/{_escaped(name)}") for name, each in value.items()}
        read[keyword] = value
    return read


def _types(value: Any, pointer: str, notes: list[str]) -> Any:
    """The value of a `type`; None where it is one that says nothing."""
    if isinstance(value, str):
        meant = _meant(value, pointer, notes)
        return None if meant == _ANY else meant
    if not isinstance(value, list):
        return value
    if not all(isinstance(each, str) for each in value):
        return value
    names = [_meant(each, f"{pointer}/{place}", notes) for place, each in enumerate(value)]
    if _ANY in names:
        return None
    # A changed name may repeat one beside it; what the document itself repeats stays wrong.
    return value if names == value else list(dict.fromkeys(names))


def _meant(name: str, pointer: str, notes: list[str]) -> str:
    if name in STANDARD:
        return name
    lower = name.lower()
    meant = lower if lower in STANDARD else _MEANT.get(lower)
    if meant is None:
        near = get_close_matches(lower, (*STANDARD, *_MEANT), n=1)
        hint = f"did you mean {_MEANT.get(near[0], near[0])!r}?" if near else f"expected one of {', '.join(STANDARD)}"
        raise SchemaError(f"unknown type {name[:80]!r}; {hint}", pointer=pointer)
    notes.append(f"{pointer}: {name!r} read as {'no type at all' if meant == _ANY else repr(meant)}")
    return meant


def _escaped(name: object) -> str:
    return str(name).replace("~", "~0").replace("/", "~1")
