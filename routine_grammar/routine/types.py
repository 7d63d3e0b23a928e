"""JSON Schemas as types: is every value of one type valid against another.

A structural comparison: the source is split into its alternatives, the target into its demands, and what is left is
compared keyword by keyword. True is a proof; False means "not proven", also past a bound on work or depth.
Knows no Routine and no tool.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from routine_grammar.errors import SchemaError
from routine_grammar.routine.values import misfit, resolve, subschema, value_fits

__all__ = ["TEXT", "assignable", "misfit", "value_fits"]

Schema = Mapping[str, Any]

MAX_COMPARISONS = 5_000
VALUES_COST = 50
MAX_DEPTH = 32
TEXT: Schema = {"type": "string"}

_NEVER: Schema = {"not": {}}
_TYPES = ("null", "boolean", "number", "string", "array", "object")
_NOTES = frozenset(
    {"title", "description", "default", "examples", "$comment", "deprecated", "readOnly", "writeOnly"}
    | {"$schema", "$id", "$anchor", "$defs", "definitions"}
)
_VALUES: Mapping[str, list[Any]] = {"null": [None], "boolean": [False, True]}
# Keywords by the type they speak about; of a value of another type they say nothing.
_ABOUT: Mapping[str, frozenset[str]] = {
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
    "array": frozenset(
        {
            "items",
            "prefixItems",
            "additionalItems",
            "unevaluatedItems",
            "minItems",
            "maxItems",
            "uniqueItems",
            "contains",
        }
    ),
    "object": frozenset(
        {"properties", "required", "additionalProperties", "patternProperties", "propertyNames", "minProperties"}
        | {"maxProperties", "dependencies", "dependentRequired", "dependentSchemas", "unevaluatedProperties"}
    ),
}
_ABOUT_EVERYTHING = frozenset({"not", "if", "$dynamicRef", "$recursiveRef"})
# Demands that are met where the source has the same keyword with the same value.
_MET_BY_EQUAL = frozenset({"pattern", "format", "propertyNames", "dependentRequired", "not"})


def assignable(source: Schema | None, target: Schema | None) -> bool:
    """Tell whether every value of the source type is proven valid against the target.

    None is the type of any value: everything is assignable to it, and it only to a type that accepts everything. (The
    result of a tool that declares no output schema is text: its type is `TEXT`, not None.) Raises `SchemaError` where a
    reference names nothing.
    """
    return _Comparison(source or {}, target or {}).fits(source or {}, target or {})


def may_share_values(first: Schema | None, second: Schema | None) -> bool:
    """Tell whether some value could be of both types; False is a proof, from their `type` keywords alone."""
    return any(_may_be(kind, sorted(_kinds(second))) for kind in _kinds(first))


class _Comparison:
    """Two root schemas, which references name, and the number of comparisons still allowed (one of values: 50)."""

    def __init__(self, source: Schema, target: Schema) -> None:
        self._source, self._target = source, target
        self._same_references = _canonical(source) == _canonical(target)
        self._left = MAX_COMPARISONS

    def fits(self, source: Any, target: Any, depth: int = 0) -> bool:
        """Tell whether every value of `source` is proven valid against `target`."""
        self._left -= 1
        if self._left < 0 or depth > MAX_DEPTH:
            return False
        source, target = _assertions(source), _assertions(target)
        if not target or source == _NEVER or self._same(source, target):
            return True
        return self._an_alternative_fits(source, target, depth + 1) or self._each_type_fits(source, target, depth + 1)

    def _an_alternative_fits(self, source: Schema, target: Schema, depth: int) -> bool:
        """Each keyword here describes, by itself, every value of the source: one that fits is enough."""
        if "const" in source and self._values_fit([source["const"]], target):
            return True
        if "enum" in source and self._values_fit(source["enum"], target):
            return True
        if "$ref" in source and self.fits(resolve(source["$ref"], self._source), target, depth):
            return True
        if any(self.fits(member, target, depth) for member in source.get("allOf", ())):
            return True
        choices = [source[keyword] for keyword in ("anyOf", "oneOf") if source.get(keyword)]
        return any(all(self.fits(member, target, depth) for member in choice) for choice in choices)

    def _each_type_fits(self, source: Schema, target: Schema, depth: int) -> bool:
        named = source.get("type", _TYPES)
        if isinstance(named, str):
            return self._demands_met(source, target, named, depth)
        return all(self.fits({**source, "type": kind}, target, depth) for kind in named)

    def _demands_met(self, source: Schema, target: Schema, kind: str, depth: int) -> bool:
        """Every value of the source is of one type, `kind`; tell whether it meets all that the target demands."""
        if "const" in target or "enum" in target:
            return kind in _VALUES and self._values_fit(_VALUES[kind], target)
        if "type" in target and not _is_kind(kind, target["type"]):
            return False
        if "$ref" in target and not self.fits(source, resolve(target["$ref"], self._target), depth):
            return False
        if not all(self.fits(source, member, depth) for member in target.get("allOf", ())):
            return False
        if "anyOf" in target and not any(self.fits(source, member, depth) for member in target["anyOf"]):
            return False
        if "oneOf" in target and not self._exactly_one_fits(source, target["oneOf"], kind, depth):
            return False
        about = _ABOUT.get("number" if kind == "integer" else kind, frozenset()) | _ABOUT_EVERYTHING
        return all(self._keyword_met(keyword, source, target, depth) for keyword in target if keyword in about)

    def _exactly_one_fits(self, source: Schema, members: list[Any], kind: str, depth: int) -> bool:
        others = [_assertions(member) for member in members if not self.fits(source, member, depth)]
        apart = all("type" in other and not _may_be(kind, other["type"]) for other in others)
        return apart and len(others) == len(members) - 1

    def _keyword_met(self, keyword: str, source: Schema, target: Schema, depth: int) -> bool:
        have, want = source.get(keyword), target[keyword]
        match keyword:
            case "minLength" | "minItems" | "minProperties":
                return bool((have or 0) >= want)
            case "maxLength" | "maxItems" | "maxProperties":
                return have is not None and bool(have <= want)
            case "minimum" | "exclusiveMinimum":
                return _bound(source, "minimum", "exclusiveMinimum", 1) >= _bound(target, "minimum", "exclusiveMinimum", 1)
            case "maximum" | "exclusiveMaximum":
                return _bound(source, "maximum", "exclusiveMaximum", -1) >= _bound(target, "maximum", "exclusiveMaximum", -1)
            case "multipleOf":
                return have == want or (want == 1 and source.get("type") == "integer")
            case "uniqueItems":
                return want is False or have is True
            case "required":
                return set(want) <= set(have or ())
            case "items" | "prefixItems":
                return self._items_fit(source, target, depth)
            case "properties" | "additionalProperties":
                return self._properties_fit(source, target, depth)
        return keyword in _MET_BY_EQUAL and keyword in source and self._same(have, want)

    def _items_fit(self, source: Schema, target: Schema, depth: int) -> bool:
        if isinstance(source.get("items"), list) or isinstance(target.get("items"), list):
            return False
        have, want = source.get("prefixItems", []), target.get("prefixItems", [])
        longest = max(len(have), len(want))
        mine = [*have, *[source.get("items", True)] * (longest + 1 - len(have))]
        theirs = [*want, *[target.get("items", True)] * (longest + 1 - len(want))]
        return all(self.fits(item, wanted, depth) for item, wanted in zip(mine, theirs, strict=True))

    def _properties_fit(self, source: Schema, target: Schema, depth: int) -> bool:
        if "patternProperties" in target:
            return False
        have, want = source.get("properties", {}), target.get("properties", {})
        other = True if "patternProperties" in source else source.get("additionalProperties", True)
        other_wanted = target.get("additionalProperties", True)
        named = all(self.fits(have.get(name, other), want.get(name, other_wanted), depth) for name in sorted({*have, *want}))
        return named and self.fits(other, other_wanted, depth)

    def _values_fit(self, values: list[Any], target: Schema) -> bool:
        self._left -= VALUES_COST
        try:
            schema = subschema(self._target, target)
            return all(value_fits(value, schema) for value in values)
        except SchemaError:
            return False

    def _same(self, source: Any, target: Any) -> bool:
        text = _canonical(source)
        return text == _canonical(target) and (self._same_references or '"$ref"' not in text)


def _assertions(schema: Any) -> Schema:
    """Return a schema without its annotations, `true` as {} and `false` as {"not": {}}."""
    if isinstance(schema, Mapping):
        return {keyword: value for keyword, value in schema.items() if keyword not in _NOTES}
    return {} if schema is True else _NEVER


def _kinds(schema: Schema | None) -> set[str]:
    """Return the types that a schema's values may have; `$ref` and `allOf` are not looked into."""
    schema = schema or {}
    if "anyOf" in schema and "type" not in schema:
        return set[str]().union(*(_kinds(_assertions(member)) for member in schema["anyOf"]))
    named = schema.get("type", _TYPES)
    return {named} if isinstance(named, str) else set(named)


def _is_kind(kind: str, named: str | list[str]) -> bool:
    allowed = [named] if isinstance(named, str) else named
    return kind in allowed or (kind == "integer" and "number" in allowed)


def _may_be(kind: str, named: str | list[str]) -> bool:
    """Tell whether some value of type `kind` may be of one of the named types."""
    return _is_kind(kind, named) or (kind == "number" and _is_kind("integer", named))


def _bound(schema: Schema, inclusive: str, exclusive: str, sign: int) -> tuple[float, int]:
    """Return a numeric bound such that a greater one is a narrower one, exclusive bounds after inclusive ones."""
    bounds = [(float("-inf"), 0)]
    bounds += [(sign * schema[keyword], rank) for rank, keyword in enumerate((inclusive, exclusive)) if keyword in schema]
    return max(bounds)


def _canonical(schema: Any) -> str:
    return json.dumps(schema, sort_keys=True)
