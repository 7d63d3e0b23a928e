"""JSON Schema to grammar tree: enforced exactly, or declined by an error that names pointer and keyword.

Texts have one spelling of space, properties in the schema's order. Each schema that is referred to becomes a rule, so that
recursive schemas work. Instances are judged as drafts 2020-12 and 7 do; formats are not asserted by them, so they decline.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError as InvalidSchema

from routine_grammar.errors import GrammarError, SchemaError, UnsupportedSchemaError
from routine_grammar.grammar.json_text import BOOLEAN, EXACT, NULL, JsonForm, begins_with_sigil, value_literal
from routine_grammar.grammar.tree import Call, Grammar, Literal, Node, Optional, Repeat, choice, sequence

MAX_SCHEMA_CHARS = 4 * 2**20
MAX_NESTING = 64
ANNOTATIONS = frozenset(
    (
        *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
        *("$comment", "$schema", "$id", "$anchor", "$defs", "definitions"),
    )
)
OF_OBJECTS = frozenset(("properties", "required", "additionalProperties"))
OF_ARRAYS = frozenset(("items", "minItems", "maxItems"))
TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")


class SchemaCompiler:
    """Compiles schemas of one document (which `$ref`s point into) to nodes, adding the rules they call to `rules`."""

    def __init__(self, document: Any, form: JsonForm, rules: dict[str, Node], prefix: str = "") -> None:
        self._document = document
        self._form = form
        self._prefix = prefix
        self.rules = rules
        self._references: dict[str, str] = {}

    def node(self, schema: Any, pointer: str = "", nesting: int = 0) -> Node:
        """The texts of all values that are valid against `schema`.

        Raises `UnsupportedSchemaError` for what can't be enforced, `SchemaError` for what is wrong or allows nothing.
        """
        if nesting > MAX_NESTING:
            raise SchemaError(f"nested deeper than {MAX_NESTING}, the bound", pointer=pointer)
        if schema is True or schema == {}:
            return self._any_value(pointer)
        if not isinstance(schema, Mapping):
            expected = "the schema `false` allows nothing" if schema is False else f"expected a schema, got {schema!r:.80}"
            raise SchemaError(expected, pointer=pointer)
        asserted = {keyword for keyword in schema if keyword not in ANNOTATIONS}
        if "enum" in asserted or "const" in asserted:
            return self._values(schema, pointer)
        for keyword in ("$ref", "anyOf"):
            if keyword in asserted:
                if alone := sorted(asserted - {keyword}):
                    raise UnsupportedSchemaError(f"{alone[0]!r} beside {keyword!r}", pointer=pointer, keyword=alone[0])
                return self._referred(schema, pointer) if keyword == "$ref" else self._any_of(schema, pointer, nesting)
        return self._typed(schema, asserted, pointer, nesting)

    def _typed(self, schema: Mapping[str, Any], asserted: set[str], pointer: str, nesting: int) -> Node:
        types = schema.get("type", TYPES)
        types = (types,) if isinstance(types, str) else tuple(types)
        if unknown := [name for name in types if name not in TYPES] or (not types and ["none at all"]):
            raise SchemaError(f"type {unknown[0]!r:.80} is none of {', '.join(TYPES)}", pointer=f"{pointer}/type")
        known = {"type"} | (OF_OBJECTS if "object" in types else set()) | (OF_ARRAYS if "array" in types else set())
        for keyword in sorted(asserted - known):
            if keyword in OF_OBJECTS | OF_ARRAYS:
                continue  # it says nothing of values of these types
            raise UnsupportedSchemaError(
                f"keyword {keyword!r} is not supported", pointer=f"{pointer}/{keyword}", keyword=keyword
            )
        if "number" in types:
            types = tuple(name for name in types if name != "integer")
        return choice(*(self._of_type(name, schema, pointer, nesting) for name in types))

    def _of_type(self, name: str, schema: Mapping[str, Any], pointer: str, nesting: int) -> Node:
        match name:
            case "object":
                return self._object(schema, pointer, nesting)
            case "array":
                return self._array(schema, pointer, nesting)
            case "string":
                return self._form.string
            case "integer":
                return self._form.integer
            case "number":
                return self._form.number
            case "boolean":
                return BOOLEAN
            case _:
                return NULL

    def _values(self, schema: Mapping[str, Any], pointer: str) -> Node:
        """An enum or a const, together with whatever stands beside it: the values that are valid against all of it."""
        keyword = "const" if "const" in schema else "enum"
        values = [schema["const"]] if keyword == "const" else schema["enum"]
        if not isinstance(values, Sequence) or isinstance(values, str):
            raise SchemaError("expected a list of values", pointer=f"{pointer}/enum")
        if len(set(schema) - ANNOTATIONS) > 1:
            judge = Draft202012Validator({**schema, **self._definitions()})
            values = [value for value in values if judge.is_valid(value)]
        if not values:
            raise SchemaError("no value is left that the schema allows", pointer=f"{pointer}/{keyword}")
        for value in values:
            if begins_with_sigil(value, self._form.sigil):
                message = f"{value!r:.80} begins with the sigil {self._form.sigil!r}: choose another sigil, such as 'key_'"
                raise SchemaError(message, pointer=f"{pointer}/{keyword}")
        try:
            return choice(*(value_literal(value, self._form) for value in values))
        except GrammarError as error:
            raise SchemaError(str(error), pointer=f"{pointer}/{keyword}") from error

    def _definitions(self) -> dict[str, Any]:
        if not isinstance(self._document, Mapping):
            return {}
        return {name: self._document[name] for name in ("$defs", "definitions") if name in self._document}

    def _any_of(self, schema: Mapping[str, Any], pointer: str, nesting: int) -> Node:
        ways = schema["anyOf"]
        if not isinstance(ways, Sequence) or isinstance(ways, str) or not ways:
            raise SchemaError("expected a list of schemas", pointer=f"{pointer}/anyOf")
        return choice(*(self.node(way, f"{pointer}/anyOf/{place}", nesting + 1) for place, way in enumerate(ways)))

    def _referred(self, schema: Mapping[str, Any], pointer: str) -> Node:
        reference = schema["$ref"]
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise UnsupportedSchemaError(f"$ref {reference!r:.80} is not local", pointer=f"{pointer}/$ref", keyword="$ref")
        if reference not in self._references:
            target = self._resolve(reference, pointer)
            name = self._fresh_rule(re.sub(r"[^a-z0-9]+", "_", reference.rsplit("/", 1)[-1].lower()).strip("_") or "whole")
            self._references[reference] = name
            self.rules[name] = Call(name)  # holds the name while the rule is made
            self.rules[name] = self.node(target, reference.removeprefix("#"))
        return Call(self._references[reference])

    def _resolve(self, reference: str, pointer: str) -> Any:
        target = self._document
        for part in reference.removeprefix("#").split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(target, Mapping) and name in target:
                target = target[name]
            elif isinstance(target, list) and name.isdecimal() and int(name) < len(target):
                target = target[int(name)]
            else:
                raise SchemaError(f"$ref {reference!r:.120} points to nothing", pointer=f"{pointer}/$ref")
        return target

    def _fresh_rule(self, name: str) -> str:
        wanted = f"{self._prefix}{name}"
        fresh, number = wanted, 2
        while fresh in self.rules:
            fresh, number = f"{wanted}_{number}", number + 1
        return fresh

    def _object(self, schema: Mapping[str, Any], pointer: str, nesting: int) -> Node:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        if not isinstance(properties, Mapping):
            raise SchemaError("expected an object of schemas", pointer=f"{pointer}/properties")
        if not isinstance(required, Sequence) or isinstance(required, str):
            raise SchemaError("expected a list of names", pointer=f"{pointer}/required")
        # An object that declares nothing is free in every form: closed, it could only ever be `{}`.
        additional = schema.get("additionalProperties", not self._form.closed or "properties" not in schema)
        if additional is not False:
            if not properties and not required and additional is True:
                return self._free_object(pointer)
            message = "objects with further properties beside the declared ones are not supported"
            raise UnsupportedSchemaError(message, pointer=pointer, keyword="additionalProperties")
        if undeclared := [name for name in required if name not in properties]:
            message = f"property {undeclared[0]!r:.80} is required, but the object can't have it"
            raise SchemaError(message, pointer=f"{pointer}/required")
        members = []
        for name, inner in properties.items():
            if inner is False and name not in required:
                continue
            escaped = name.replace("~", "~0").replace("/", "~1")
            value = self.node(inner, f"{pointer}/properties/{escaped}", nesting + 1)
            members.append((self.member(name, value), name in required))
        return self.object_of(members)

    def member(self, name: str, value: Node) -> Node:
        """`"name": value`."""
        return sequence(value_literal(name, self._form), Literal(": "), value)

    def object_of(self, members: Sequence[tuple[Node, bool]]) -> Node:
        """An object of members in order, each with whether it is required."""
        first = next((place for place, (_, required) in enumerate(members) if required), None)
        inner: Node
        if first is None:
            inner = Optional(self._some(members)) if members else Literal("")
        else:
            before = [Optional(sequence(member, Literal(", "))) for member, _ in members[:first]]
            inner = sequence(*before, members[first][0], *_following(members[first + 1 :]))
        return sequence(Literal("{"), inner, Literal("}"))

    def _some(self, members: Sequence[tuple[Node, bool]]) -> Node:
        """At least one of optional members, in order; rules share the rests, so that this stays linear in size."""
        tail = members[-1][0]
        for member, _ in reversed(members[:-1]):
            name = self._fresh_rule("members")
            self.rules[name] = tail
            tail = choice(sequence(member, Optional(sequence(Literal(", "), Call(name)))), Call(name))
        return tail

    def _array(self, schema: Mapping[str, Any], pointer: str, nesting: int) -> Node:
        low, high = schema.get("minItems", 0), schema.get("maxItems")
        for name, bound in (("minItems", low), ("maxItems", high)):
            if bound is not None and (not isinstance(bound, int) or isinstance(bound, bool) or bound < 0):
                raise SchemaError(f"expected a number of items, got {bound!r:.80}", pointer=f"{pointer}/{name}")
        if high is not None and high < low:
            raise SchemaError(f"between {low} and {high} items: that allows nothing", pointer=f"{pointer}/maxItems")
        if high == 0:
            return Literal("[]")
        item = self.node(schema.get("items", True), f"{pointer}/items", nesting + 1)
        if not isinstance(item, Literal) and item not in (self._form.string, self._form.integer, self._form.number):
            name = self._fresh_rule("item")
            self.rules[name] = item
            item = Call(name)
        more = Repeat(sequence(Literal(", "), item), max(low - 1, 0), None if high is None else high - 1)
        filled = sequence(item, more)
        return sequence(Literal("["), filled if low else Optional(filled), Literal("]"))

    def _free_object(self, pointer: str) -> Node:
        self._any_value(pointer)
        return Call(f"{self._prefix}any_object")

    def _any_value(self, pointer: str) -> Node:
        """Any JSON value at all."""
        value, obj, array = (f"{self._prefix}any_{kind}" for kind in ("value", "object", "array"))
        if value not in self.rules:
            form = self._form
            member = sequence(form.string, Literal(": "), Call(value))
            self.rules[obj] = sequence(Literal("{"), Optional(_listed(member)), Literal("}"))
            self.rules[array] = sequence(Literal("["), Optional(_listed(Call(value))), Literal("]"))
            self.rules[value] = choice(Call(obj), Call(array), form.string, form.number, BOOLEAN, NULL)
        return Call(value)


def _listed(item: Node) -> Node:
    return sequence(item, Repeat(sequence(Literal(", "), item)))


def _following(members: Sequence[tuple[Node, bool]]) -> list[Node]:
    """Members behind one that is there for sure."""
    joined = [(sequence(Literal(", "), member), required) for member, required in members]
    return [member if required else Optional(member) for member, required in joined]


def schema_to_grammar(schema: Any, form: JsonForm = EXACT) -> Grammar:
    """The grammar of all texts of values valid against a schema.

    Raises `UnsupportedSchemaError` and `SchemaError` as `SchemaCompiler.node`, and for what is no JSON Schema at all.
    """
    check_schema(schema)
    rules: dict[str, Node] = {}
    try:
        return Grammar(SchemaCompiler(schema, form, rules).node(schema), rules)
    except RecursionError as error:
        raise SchemaError("nested too deep") from error


def check_schema(schema: Any) -> None:
    """Raise `SchemaError` where a schema is no JSON Schema (2020-12), too large, or not JSON at all."""
    try:
        size = len(json.dumps(schema))
        if size > MAX_SCHEMA_CHARS:
            raise SchemaError(f"has {size} characters; the bound is {MAX_SCHEMA_CHARS}")
        Draft202012Validator.check_schema(schema)
    except InvalidSchema as error:
        pointer = "".join(f"/{part}" for part in error.absolute_path)
        raise SchemaError(f"no JSON Schema: {error.message:.300}", pointer=pointer) from error
    except (TypeError, ValueError) as error:
        raise SchemaError(f"no JSON: {error}") from error
    except RecursionError as error:
        raise SchemaError("nested too deep") from error
