"""JSON Schema to grammar tree: enforced exactly, or declined by an error that names pointer and keyword.

Texts have one spelling of space, properties in the schema's order. Each schema that is referred to becomes a rule, so that
recursive schemas work. Instances are judged as drafts 2020-12 and 7 do; formats are not asserted by them, so they decline.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError as InvalidSchema

from routine_grammar.errors import GrammarError, SchemaError, UnsupportedSchemaError
from routine_grammar.grammar.json_text import BOOLEAN, EXACT, NULL, JsonForm, begins_with_sigil, value_literal
from routine_grammar.grammar.tree import (
    Call,
    Choice,
    Grammar,
    Leaf,
    Literal,
    Node,
    Optional,
    Repeat,
    allows_text,
    choice,
    sequence,
)

MAX_SCHEMA_CHARS = 4 * 2**20
MAX_NESTING = 64
MAX_OPTIONAL = 500  # properties of an object that requires none: behind each, any later one may come
ANNOTATIONS = frozenset(
    (
        *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
        *("$comment", "$schema", "$id", "$anchor", "$defs", "definitions"),
    )
)
OF_OBJECTS = frozenset(("properties", "required", "additionalProperties"))
OF_ARRAYS = frozenset(("items", "minItems", "maxItems"))
# Beside an enum, values are judged at once: by what neither leads elsewhere nor can take exponential time.
_NOT_JUDGED = ("$ref", "$dynamicRef", "$recursiveRef", "pattern", "patternProperties")
_MEMBERS_A_RULE = 32  # optional members are nested: rules keep the tree shallow
TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")


class SchemaCompiler:
    """Compiles schemas of one document (which `$ref`s point into) to nodes, adding the rules they call to `rules`."""

    def __init__(self, document: Any, form: JsonForm, rules: dict[str, Node], prefix: str = "") -> None:
        self._document = document
        self._form = form
        self._prefix = prefix if prefix[:1].isalpha() or not prefix else f"tool_{prefix}"
        self.rules = rules
        self._references: dict[str, str] = {}
        self._pending: list[tuple[str, Any]] = []  # references whose rules are still to be made
        self._any: dict[str, str] = {}  # rules of any value, object and array
        self._last_number: dict[str, int] = {}

    def node(self, schema: Any, pointer: str = "") -> Node:
        """The texts of all values that are valid against `schema`.

        Raises `UnsupportedSchemaError` for what can't be enforced, `SchemaError` for what is wrong or allows nothing.
        """
        node = self._node(schema, pointer, 0)
        made = []
        while self._pending:
            reference, target = self._pending.pop()
            self.rules[self._references[reference]] = self._node(target, reference.removeprefix("#"), 0)
            made.append(reference)
        for reference in made:
            if self._comes_to(self._references[reference]):
                raise SchemaError(f"$ref {reference!r:.80} leads to itself and to nothing else", pointer=f"{pointer}/$ref")
        if self._references and not allows_text(node, self.rules):
            raise SchemaError("allows no value of finite size: it requires itself again and again", pointer=pointer)
        return node

    def _node(self, schema: Any, pointer: str, nesting: int) -> Node:
        if nesting > MAX_NESTING:
            raise SchemaError(f"nested deeper than {MAX_NESTING}, the bound", pointer=pointer)
        if schema is True or schema == {}:
            return self._any_value()
        if not isinstance(schema, Mapping):
            expected = "the schema `false` allows nothing" if schema is False else f"expected a schema, got {schema!r:.80}"
            raise SchemaError(expected, pointer=pointer)
        if pointer and "$id" in schema and '"$ref"' in json.dumps(schema):
            message = "references inside a schema with an `$id` of its own are not supported"
            raise UnsupportedSchemaError(message, pointer=f"{pointer}/$id", keyword="$id")
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

    def values(self, schema: Mapping[str, Any], pointer: str) -> list[Any]:
        """The values of an enum or a const that are valid against whatever stands beside it."""
        keyword = "const" if "const" in schema else "enum"
        values = [schema["const"]] if keyword == "const" else schema["enum"]
        if not isinstance(values, Sequence) or isinstance(values, str):
            raise SchemaError("expected a list of values", pointer=f"{pointer}/enum")
        if beside := {name: schema[name] for name in schema if name not in ANNOTATIONS and name != keyword}:
            values = self._judged(values, beside, pointer)
        if not values:
            raise SchemaError("no value is left that the schema allows", pointer=f"{pointer}/{keyword}")
        for value in values:
            if begins_with_sigil(value, self._form.sigil):
                message = f"{value!r:.80} begins with the sigil {self._form.sigil!r}: choose another sigil, such as 'key_'"
                raise SchemaError(message, pointer=f"{pointer}/{keyword}")
        return list(values)

    def _values(self, schema: Mapping[str, Any], pointer: str) -> Node:
        try:
            return choice(*(value_literal(value, self._form) for value in self.values(schema, pointer)))
        except GrammarError as error:
            keyword = "const" if "const" in schema else "enum"
            raise SchemaError(str(error), pointer=f"{pointer}/{keyword}") from error

    def target(self, schema: Mapping[str, Any], pointer: str) -> Any:
        """The schema that a schema's `$ref` points to."""
        return self._resolve(schema["$ref"], pointer)

    def _judged(self, values: Sequence[Any], beside: Mapping[str, Any], pointer: str) -> list[Any]:
        """The values that are valid against what stands beside an enum."""
        text = json.dumps(beside)
        for keyword in _NOT_JUDGED:
            if f'"{keyword}"' in text:
                message = f"keyword {keyword!r} beside listed values is not supported"
                raise UnsupportedSchemaError(message, pointer=pointer, keyword=keyword)
        judge = Draft202012Validator(beside)
        return [value for value in values if judge.is_valid(value)]

    def _any_of(self, schema: Mapping[str, Any], pointer: str, nesting: int) -> Node:
        ways = schema["anyOf"]
        if not isinstance(ways, Sequence) or isinstance(ways, str) or not ways:
            raise SchemaError("expected a list of schemas", pointer=f"{pointer}/anyOf")
        return choice(*(self._node(way, f"{pointer}/anyOf/{place}", nesting + 1) for place, way in enumerate(ways)))

    def _referred(self, schema: Mapping[str, Any], pointer: str) -> Node:
        reference = schema["$ref"]
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            message = f"$ref {reference!r:.80} is no JSON pointer into this schema (`#` or `#/…`)"
            raise UnsupportedSchemaError(message, pointer=f"{pointer}/$ref", keyword="$ref")
        if reference not in self._references:
            target = self._resolve(reference, pointer)
            name = re.sub(r"[^a-z0-9]+", "_", reference.rsplit("/", 1)[-1].lower()).strip("_") or "whole"
            rule = self._references[reference] = self._fresh_rule(name)
            self.rules[rule] = Call(rule)  # holds the name until the rule is made
            self._pending.append((reference, target))
        return Call(self._references[reference])

    def _comes_to(self, rule: str) -> bool:
        """Whether a rule calls itself before anything is read."""
        seen, todo = set[str](), [self.rules[rule]]
        while todo:
            match todo.pop():
                case Choice(items):
                    todo += items
                case Call(other) if other not in seen:
                    seen.add(other)
                    todo.append(self.rules[other])
        return rule in seen

    def _resolve(self, reference: str, pointer: str) -> Any:
        target = self._document
        for part in unquote(reference.removeprefix("#")).split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(target, Mapping) and name in target:
                target = target[name]
            elif isinstance(target, list) and name.isdecimal() and int(name) < len(target):
                target = target[int(name)]
            else:
                raise SchemaError(f"$ref {reference!r:.120} points to nothing", pointer=f"{pointer}/$ref")
        return target

    def _fresh_rule(self, name: str) -> str:
        """A rule's name that is not taken, as Lark wants it: beginning with a letter, and not `start`."""
        wanted = f"{self._prefix}{name}"
        wanted = wanted if wanted[0].isalpha() else f"rule_{wanted}"
        number = self._last_number.get(wanted, 0)
        fresh = "start"
        while fresh == "start" or fresh in self.rules:
            number += 1
            fresh = wanted if number == 1 else f"{wanted}_{number}"
        self._last_number[wanted] = number
        return fresh

    def _called(self, name: str, node: Node) -> Node:
        """A node that is used often: itself where it is a terminal or a call, else a call of a rule of its own."""
        if isinstance(node, Literal | Leaf | Call):
            return node
        rule = self._fresh_rule(name)
        self.rules[rule] = node
        return Call(rule)

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
                return self._free_object()
            message = "further properties beside the declared ones (`additionalProperties`) are not supported"
            raise UnsupportedSchemaError(message, pointer=pointer, keyword="additionalProperties")
        if undeclared := [name for name in required if name not in properties]:
            message = f"property {undeclared[0]!r:.80} is required, but the object can't have it"
            raise SchemaError(message, pointer=f"{pointer}/required")
        members = []
        for name, inner in properties.items():
            if inner is False and name not in required:
                continue
            escaped = name.replace("~", "~0").replace("/", "~1")
            value = self._node(inner, f"{pointer}/properties/{escaped}", nesting + 1)
            members.append((name, value, name in required))
        return self.object_of(members, pointer)

    def object_of(self, properties: Sequence[tuple[str, Node, bool]], pointer: str = "") -> Node:
        """An object of properties in order, each a name, a value and whether it is required."""
        first = next((place for place, (_, _, required) in enumerate(properties) if required), None)
        if first is None and len(properties) > MAX_OPTIONAL:
            message = f"an object with {len(properties)} properties, none of them required; the bound is {MAX_OPTIONAL}"
            raise SchemaError(message, pointer=f"{pointer}/properties")
        members = []
        for name, value, required in properties:
            shared = self._called("member", value) if first is None else value
            members.append((self._member(name, shared, pointer), required))
        inner: Node
        if first is None:
            inner = Optional(self._some([member for member, _ in members])) if members else Literal("")
        else:
            before = [Optional(sequence(member, Literal(", "))) for member, _ in members[:first]]
            inner = sequence(*before, members[first][0], *_following(members[first + 1 :]))
        return sequence(Literal("{"), inner, Literal("}"))

    def _member(self, name: str, value: Node, pointer: str) -> Node:
        """`"name": value`."""
        try:
            return sequence(value_literal(name, self._form), Literal(": "), value)
        except GrammarError as error:
            raise SchemaError(str(error), pointer=f"{pointer}/properties") from error

    def _some(self, members: Sequence[Node]) -> Node:
        """At least one of optional members, in order: some of them before another one, which is the last."""
        some = members[-1]
        for place, member in enumerate(reversed(members[:-1]), 1):
            if place % _MEMBERS_A_RULE == 0:
                some = self._called("members", some)
            some = choice(sequence(Optional(sequence(member, Literal(", "))), some), member)
        return some

    def _array(self, schema: Mapping[str, Any], pointer: str, nesting: int) -> Node:
        low, high = _count(schema, "minItems", pointer) or 0, _count(schema, "maxItems", pointer)
        if high is not None and high < low:
            raise SchemaError(f"between {low} and {high} items: that allows nothing", pointer=f"{pointer}/maxItems")
        if high == 0:
            return Literal("[]")
        item = self._called("item", self._node(schema.get("items", True), f"{pointer}/items", nesting + 1))
        more = Repeat(sequence(Literal(", "), item), max(low - 1, 0), None if high is None else high - 1)
        filled = sequence(item, more)
        return sequence(Literal("["), filled if low else Optional(filled), Literal("]"))

    def _free_object(self) -> Node:
        self._any_value()
        return Call(self._any["object"])

    def _any_value(self) -> Node:
        """Any JSON value at all."""
        if not self._any:
            self._any = {kind: self._fresh_rule(f"any_{kind}") for kind in ("value", "object", "array")}
            value, obj, array = (Call(rule) for rule in self._any.values())
            form = self._form
            member = sequence(form.name, Literal(": "), value)
            self.rules[obj.rule] = sequence(Literal("{"), Optional(_listed(member)), Literal("}"))
            self.rules[array.rule] = sequence(Literal("["), Optional(_listed(value)), Literal("]"))
            self.rules[value.rule] = choice(obj, array, form.string, form.number, BOOLEAN, NULL)
        return Call(self._any["value"])


def _count(schema: Mapping[str, Any], name: str, pointer: str) -> int | None:
    """A bound on a number of items: to JSON Schema `2.0` is an integer too."""
    bound = schema.get(name)
    if isinstance(bound, float) and bound.is_integer():
        bound = int(bound)
    if bound is None or (isinstance(bound, int) and not isinstance(bound, bool) and bound >= 0):
        return bound
    raise SchemaError(f"expected a number of items, got {bound!r:.80}", pointer=f"{pointer}/{name}")


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
