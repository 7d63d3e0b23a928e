"""Schemas to shapes: what every keyword asserts, exactly, or declined by pointer and keyword.

Annotations and keywords that no draft has say nothing. A keyword of another draft than the schema's is declined, not passed
over. Values of a schema are checked as they are read, so that an invalid schema is told with its pointer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from routine_grammar.effort import A_REFERENCE, A_SCHEMA, spend
from routine_grammar.errors import GrammarError, SchemaError
from routine_grammar.grammar.schema.algebra import Algebra
from routine_grammar.grammar.schema.blaming import too_deep, too_large
from routine_grammar.grammar.schema.denying import in_one_alone
from routine_grammar.grammar.schema.documents import Place, escaped
from routine_grammar.grammar.schema.refusals import Undecided, UnderWay
from routine_grammar.grammar.schema.scalars import (
    check_expression,
    count_of,
    draft_name,
    flag_of,
    listed,
    malformed,
    names_of,
    number_of,
    string_of,
    unsupported,
)
from routine_grammar.grammar.schema.shapes import (
    ANYTHING,
    CONSTANTS,
    NOTHING,
    Array,
    Contained,
    Kind,
    Layer,
    Member,
    Named,
    Object,
    Shape,
    String,
    Value,
    everything,
    joined,
    type_of,
    value_kind,
)

MAX_NESTING = 64
MAX_UNIQUE = 10  # values of which each comes once as counts tell: every set of them is a state
MAX_WAYS = 4  # of `anyOf` beside unevaluated properties: each set of them is a way of its own
TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
_TYPES = ("null", "boolean", "number", "string", "array", "object")  # in the order of kinds
OF_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
OF_STRINGS = ("minLength", "maxLength", "pattern", "format")
OF_ARRAYS = ("items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems", "contains")
OF_OBJECTS = (
    *("properties", "required", "additionalProperties", "patternProperties", "propertyNames"),
    *("minProperties", "maxProperties"),
)
ANNOTATIONS = frozenset(
    (
        *("title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "$comment"),
        *("$schema", "$id", "id", "$anchor", "$defs", "definitions", "$vocabulary", "$dynamicAnchor", "$recursiveAnchor"),
        *("contentEncoding", "contentMediaType", "contentSchema", "minContains", "maxContains", "then", "else"),
    )
)
_LOCAL = frozenset(("type", "nullable", *OF_NUMBERS, *OF_STRINGS, *OF_ARRAYS, *OF_OBJECTS))
# Keywords that drafts later, or earlier, than a schema's own have.
_SINCE = {
    **dict.fromkeys(("prefixItems", "$dynamicRef", "dependentRequired", "dependentSchemas"), 201909),
    **dict.fromkeys(("unevaluatedProperties", "unevaluatedItems"), 201909),
    "prefixItems": 202012,
    "$dynamicRef": 202012,
    "if": 7,
    "const": 6,
    "contains": 6,
    "propertyNames": 6,
}
_BEFORE = {"dependencies": 201909, "additionalItems": 202012, "$recursiveRef": 202012}


class Reader:
    """Reads the schemas of one document. `rules` are the places that names stand for; their shapes are read when asked for."""

    def __init__(self, root: Place) -> None:
        self.root = root
        self.rules: dict[str, Place] = {}
        self._names: dict[tuple[int, tuple[tuple[str, int], ...]], str] = {}
        self._shapes: dict[str, Shape] = {}
        self._reading: set[str] = set()
        self.algebra = Algebra(self._look_up)
        self._emptied: dict[str, list[str]] = {}  # pointers of schemas that allow nothing, and by which keywords
        self._counts_evaluated = '"unevaluated' in json.dumps(root.schema)

    def named(self, place: Place, name: str) -> Named:
        """The name of a place that is referred to; `name` is what it is called where that is free."""
        key = (id(place.schema), tuple((anchored.name, id(anchored.schema)) for anchored in place.scope))
        if key not in self._names:
            name = name.lstrip("(") or "inner"  # names in parentheses are those of meetings and denials
            fresh, number = name, 1
            while fresh in self.rules:
                number += 1
                fresh = f"{name}_{number}"
            self.rules[fresh] = place
            self._names[key] = fresh
        return Named(self._names[key])

    def _look_up(self, name: str) -> Shape:
        if name not in self._shapes:
            place = self.rules[name]
            if name in self._reading:
                raise UnderWay(f"{place.pointer or 'the whole schema'} has to be known while it is read")
            self._reading.add(name)
            try:
                self._shapes[name] = self.shape(place, 0)
            finally:
                self._reading.discard(name)
        return self._shapes[name]

    def shape(self, place: Place, nesting: int = 0) -> Shape:
        """The values that are valid against a schema.

        Raises `UnsupportedSchemaError` for what can't be enforced exactly, `SchemaError` for what is no schema.
        """
        schema = place.schema
        if schema is True or schema == {}:
            return ANYTHING
        if schema is False:
            return NOTHING
        if not isinstance(schema, Mapping):
            raise SchemaError(f"expected a schema, got {schema!r:.80}", pointer=place.pointer)
        if nesting > MAX_NESTING:
            raise too_deep(place.pointer, MAX_NESTING)
        spend(A_SCHEMA)
        if "$ref" in schema and not place.is_from(201909):
            return self._referred(place, "$ref")  # older drafts look at nothing beside it
        self._refuse_other_drafts(place)
        found = self._local(place, nesting)
        if not found:
            self._emptied.setdefault(place.pointer, [keyword for keyword in schema if keyword in _LOCAL])
        for keyword, read in _APPLICATORS.items():
            if keyword in schema:
                with _declining(place, keyword):
                    found = self.algebra.meet(found, read(self, place, nesting))
                if not found:
                    self._emptied.setdefault(place.pointer, [keyword])
        if "oneOf" in schema:  # last: within what the others leave
            with _declining(place, "oneOf"):
                found = self._one_of(place, nesting, found)
            if not found:
                self._emptied.setdefault(place.pointer, ["oneOf"])
        for keyword in ("unevaluatedProperties", "unevaluatedItems"):
            if keyword in schema:
                found = self._unevaluated(found, place, keyword, nesting)
        return found

    def nothing_allowed(self, place: Place) -> SchemaError:
        """The error that tells of a schema which allows no value, and by which keywords."""
        told = "the schema allows no value at all"
        keywords = self._emptied.get(place.pointer, [])
        if keywords:
            told = f"no value is left that {' and '.join(map(repr, keywords))} allow{'s' * (len(keywords) == 1)}"
        inner = next((pointer for pointer in self._emptied if pointer.startswith(f"{place.pointer}/")), None)
        told += "" if inner is None else f"; there is none at {inner} either"
        return SchemaError(told, pointer=f"{place.pointer}/{keywords[0]}" if len(keywords) == 1 else place.pointer)

    def _inner(self, place: Place, nesting: int) -> Shape:
        """The shape of items or properties: by a name, and read later on, where a schema around them has to be known first."""
        try:
            return self.shape(place, nesting)
        except UnderWay:
            return Shape((self.named(place, place.pointer.rpartition("/")[2] or "inner"),))

    def _refuse_other_drafts(self, place: Place) -> None:
        for keyword, since in _SINCE.items():
            if keyword in place.schema and not place.is_from(since):
                raise unsupported(place, keyword, f"it is a keyword of drafts from {draft_name(since)} on: declare `$schema`")
        for keyword, before in _BEFORE.items():
            if keyword in place.schema and place.is_from(before):
                raise unsupported(place, keyword, f"it is a keyword of drafts before {draft_name(before)}: declare `$schema`")

    # What applies other schemas

    def _referred(self, place: Place, keyword: str) -> Shape:
        spend(A_REFERENCE)
        target = place.target(keyword)
        schema = target.schema
        if schema is True or schema == {}:
            return ANYTHING
        if schema is False:
            return NOTHING
        if not isinstance(schema, Mapping):
            raise SchemaError(f"{keyword} leads to {schema!r:.80}, which is no schema", pointer=f"{place.pointer}/{keyword}")
        last = str(place.schema[keyword]).rpartition("/")[2].strip("#")
        return Shape((self.named(target, last or "whole"),))

    def _ref(self, place: Place, nesting: int) -> Shape:
        return self._referred(place, "$ref")

    def _dynamic_ref(self, place: Place, nesting: int) -> Shape:
        return self._referred(place, "$dynamicRef")

    def _ways(self, place: Place, keyword: str, nesting: int) -> list[Shape]:
        schemas = place.schema[keyword]
        if not isinstance(schemas, list) or not schemas:
            raise malformed(place, keyword, "a list of schemas")
        return [self.shape(place.at(keyword, number), nesting + 1) for number in range(len(schemas))]

    def _all_of(self, place: Place, nesting: int) -> Shape:
        found = ANYTHING
        for way in self._ways(place, "allOf", nesting):
            found = self.algebra.meet(found, way)
        return found

    def _any_of(self, place: Place, nesting: int) -> Shape:
        ways = self._ways(place, "anyOf", nesting)
        if not self._counts_evaluated or len(ways) == 1:
            return joined(*ways)
        if len(ways) > MAX_WAYS:
            raise Undecided(f"more than {MAX_WAYS} schemas where it counts which properties were looked at")
        found = []
        for chosen in range(1, 1 << len(ways)):
            shape = ANYTHING
            for number, way in enumerate(ways):
                shape = self.algebra.meet(shape, way if chosen >> number & 1 else self.algebra.denied(way))
            found.append(shape)
        return joined(*found)

    def _one_of(self, place: Place, nesting: int, within: Shape) -> Shape:
        """What is within a shape and valid against one schema alone: within it, most are apart from each other."""
        schemas = self._ways(place, "oneOf", nesting)
        return in_one_alone(self.algebra, [self.algebra.meet(within, way) for way in schemas], schemas)

    def _not(self, place: Place, nesting: int) -> Shape:
        return self.algebra.denied(self.shape(place.at("not"), nesting + 1))

    def _if(self, place: Place, nesting: int) -> Shape:
        condition = self.shape(place.at("if"), nesting + 1)
        then, otherwise = (
            self.shape(place.at(keyword), nesting + 1) if keyword in place.schema else ANYTHING for keyword in ("then", "else")
        )
        if then == otherwise == ANYTHING and not self._counts_evaluated:
            return ANYTHING
        found = self._implied(condition, then)
        if otherwise != ANYTHING:
            found = self.algebra.meet(found, self._implied(self.algebra.denied(condition), otherwise))
        return found

    def _dependent(self, place: Place, keyword: str, nesting: int) -> Shape:
        given = place.schema[keyword]
        if not isinstance(given, Mapping):
            raise malformed(place, keyword, "an object")
        found = ANYTHING
        for name, then in given.items():
            present = Object(members=((name, Member(ANYTHING, True, declared=False)),))
            if isinstance(then, list) and keyword != "dependentSchemas":
                alone = [(other, Member(NOTHING, declared=False)) for other in names_of(place, keyword, then) if other != name]
                never = tuple(replace(present, members=(*present.members, member)) for member in alone)
                found = self.algebra.meet(found, Shape((*_not_objects(), Object(never=never))))
                continue
            if keyword == "dependentRequired":
                raise malformed(place, keyword, "lists of names")
            shape = self.shape(place.at(keyword, name), nesting + 1)
            found = self.algebra.meet(found, self._implied(Shape((present,)), shape))
        return found

    def _implied(self, condition: Shape, then: Shape) -> Shape:
        """What is of a shape where it is of another."""
        meet, denied = self.algebra.meet, self.algebra.denied
        if not self._counts_evaluated:  # else what is looked at goes by which of the two it is
            with suppress(Undecided):
                return denied(meet(condition, denied(then)))
        return joined(meet(condition, then), denied(condition))

    def _dependencies(self, place: Place, nesting: int) -> Shape:
        return self._dependent(place, "dependencies", nesting)

    def _dependent_required(self, place: Place, nesting: int) -> Shape:
        return self._dependent(place, "dependentRequired", nesting)

    def _dependent_schemas(self, place: Place, nesting: int) -> Shape:
        return self._dependent(place, "dependentSchemas", nesting)

    def _enum(self, place: Place, nesting: int) -> Shape:
        values = place.schema["enum"]
        if not isinstance(values, list):
            raise malformed(place, "enum", "a list of values")
        return listed(place, "enum", values)

    def _const(self, place: Place, nesting: int) -> Shape:
        return listed(place, "const", [place.schema["const"]])

    def _unevaluated(self, found: Shape, place: Place, keyword: str, nesting: int) -> Shape:
        """What is left where what no other keyword looked at has to be of a shape."""
        inner = self.shape(place.at(keyword), nesting + 1)
        algebra = self.algebra
        kinds: list[Kind] = []
        for kind in algebra.opened(found).kinds:
            match kind:
                case Object() if keyword == "unevaluatedProperties":
                    kinds += algebra.object(self._sealed_object(kind, inner)).kinds
                case Array() if keyword == "unevaluatedItems":
                    kinds += algebra.array(self._sealed_array(kind, inner)).kinds
                case _ if type_of(kind) in ("object", "array") and not isinstance(kind, Object | Array):
                    raise unsupported(place, keyword, "beside listed objects or arrays it is not supported")
                case _:
                    kinds.append(kind)
        return Shape(tuple(kinds))

    def _sealed_array(self, kind: Array, inner: Shape) -> Array:
        if kind.looked_at is None:
            return kind
        meet, looked_at = self.algebra.meet, kind.looked_at
        inner = joined(inner, *(each.shape for each in kind.contained if each.looked_at))
        prefix = [*kind.prefix, *[kind.rest] * (looked_at - len(kind.prefix))]
        sealed = tuple(shape if place < looked_at else meet(shape, inner) for place, shape in enumerate(prefix))
        return replace(kind, prefix=sealed, rest=meet(kind.rest, inner), looked_at=None)

    def _sealed_object(self, kind: Object, inner: Shape) -> Object:
        if any(layer.rest is not None for layer in kind.layers):
            return kind  # every name is looked at
        patterns = tuple(dict.fromkeys((pattern, ANYTHING) for layer in kind.layers for pattern, _ in layer.patterns))
        layer = Layer(patterns, inner)
        trial = Object(layers=(layer,))
        members = tuple(
            (
                name,
                member
                if member.declared
                else Member(self.algebra.meet(member.shape, self.algebra.of_name(trial, name)), member.required),
            )
            for name, member in kind.members
        )
        return Object(members, (*kind.layers, layer), kind.names, kind.low, kind.high, kind.never, kind.pointer)

    # What a schema says itself

    def _local(self, place: Place, nesting: int) -> Shape:
        if not _LOCAL & place.schema.keys():
            return ANYTHING
        try:
            return self._own(place, nesting)
        except GrammarError as error:
            raise too_large(self.root.schema, error, place.pointer) from error

    def _own(self, place: Place, nesting: int) -> Shape:
        types = self._types(place)
        kinds: list[Kind] = []
        for of_type in _TYPES if types is None else [each for each in _TYPES if each in types or each == "number"]:
            match of_type:
                case "null" | "boolean":
                    kinds += [each for each in CONSTANTS if type_of(each) == of_type]
                case "number" if types is None or "number" in types or "integer" in types:
                    kinds += number_of(place, self.algebra.meet, is_integer=types is not None and "number" not in types)
                case "string":
                    kinds += string_of(place, self.algebra.meet)
                case "array":
                    kinds += self._array(place, nesting)
                case "object":
                    kinds += self._object(place, nesting)
        if flag_of(place, "nullable") and types is not None and "null" not in types:
            kinds.append(value_kind(None))
        return Shape(tuple(kinds))

    def _types(self, place: Place) -> tuple[str, ...] | None:
        if "type" not in place.schema:
            return None
        given = place.schema["type"]
        names = [given] if isinstance(given, str) else given
        if not isinstance(names, list) or not names:
            raise malformed(place, "type", "a type or a list of types")
        for name in names:
            if name not in TYPES:
                raise SchemaError(f"type {name!r:.80} is none of {', '.join(TYPES)}", pointer=f"{place.pointer}/type")
        return tuple(names)

    def _array(self, place: Place, nesting: int) -> list[Kind]:
        schema = place.schema
        low, high = count_of(place, "minItems") or 0, count_of(place, "maxItems")
        prefix: tuple[Shape, ...] = ()
        rest, looked_at = ANYTHING, 0 if self._counts_evaluated else None
        of_prefix = "prefixItems" if place.is_from(202012) else "items" if isinstance(schema.get("items"), list) else ""
        of_rest = "additionalItems" if of_prefix == "items" else "items"
        if of_prefix and of_prefix in schema:
            if not isinstance(schema[of_prefix], list):
                raise malformed(place, of_prefix, "a list of schemas")
            prefix = tuple(self._inner(place.at(of_prefix, number), nesting + 1) for number in range(len(schema[of_prefix])))
            looked_at = len(prefix) if self._counts_evaluated else None
        if of_rest in schema:
            if isinstance(schema[of_rest], list):
                raise unsupported(place, of_rest, "a list of schemas is `prefixItems` in this draft")
            rest, looked_at = self._inner(place.at(of_rest), nesting + 1), None
        contained = self._contained(place, nesting)
        is_distinct = False
        if flag_of(place, "uniqueItems") and (high is None or high > 1):
            unique = self._unique(joined(*prefix, rest))
            contained, is_distinct = (*contained, *(unique or ())), unique is None
        array = Array(prefix, rest, low, high, contained, looked_at, is_distinct, place.pointer)
        return list(self.algebra.array(array).kinds)

    def _contained(self, place: Place, nesting: int) -> tuple[Contained, ...]:
        """What `contains` says of an array; before 2019-09 one item was enough, and since 2020-12 it counts as evaluated."""
        if "contains" not in place.schema:
            return ()
        low, high = (count_of(place, "minContains"), count_of(place, "maxContains")) if place.is_from(201909) else (1, None)
        low = 1 if low is None else low
        shape = self._inner(place.at("contains"), nesting + 1)
        looked_at = self._counts_evaluated and place.is_from(202012)
        return (Contained(shape, low, high, 0, looked_at),) if low or high is not None or looked_at else ()

    def _unique(self, items: Shape) -> tuple[Contained, ...] | None:
        """That no item comes twice, where each is one of a few values, as counts; None where it can't be told so."""
        if items == ANYTHING or any(isinstance(kind, Named) for kind in items.kinds):
            return None  # a name may be of a schema that is being read
        kinds = dict.fromkeys(items.kinds)
        if not all(isinstance(kind, Value) for kind in kinds) or len(kinds) > MAX_UNIQUE:
            return None
        return tuple(Contained(Shape((kind,)), 0, 1) for kind in kinds)

    def _object(self, place: Place, nesting: int) -> list[Kind]:
        schema = place.schema
        required = dict.fromkeys(names_of(place, "required", schema.get("required", [])))
        properties = self._mapping(place, "properties")
        patterns = []
        for pattern in self._mapping(place, "patternProperties"):
            at = f"{place.pointer}/patternProperties/{escaped(pattern)}"
            check_expression(pattern, at, "patternProperties")
            patterns.append((pattern, self._inner(place.at("patternProperties", pattern), nesting + 1)))
        rest = None
        if "additionalProperties" in schema:
            rest = self._inner(place.at("additionalProperties"), nesting + 1)
        layer = Layer(tuple(patterns), rest)
        trial = Object(layers=(layer,))
        members = []
        for name in properties:
            shape = self._inner(place.at("properties", name), nesting + 1)
            for pattern, inner in patterns:
                if self.algebra.holds(Shape((String(found=frozenset((pattern,))),)), name):
                    shape = self.algebra.meet(shape, inner)
            members.append((name, Member(shape, name in required)))
        members += [
            (name, Member(self.algebra.of_name(trial, name), True, declared=False))
            for name in required
            if name not in properties
        ]
        names = self._inner(place.at("propertyNames"), nesting + 1) if "propertyNames" in schema else ANYTHING
        low, high = count_of(place, "minProperties") or 0, count_of(place, "maxProperties")
        layers = (layer,) if patterns or rest is not None else ()
        return list(self.algebra.object(Object(tuple(members), layers, names, low, high, (), place.pointer)).kinds)

    def _mapping(self, place: Place, keyword: str) -> Mapping[str, Any]:
        given = place.schema.get(keyword, {})
        if not isinstance(given, Mapping):
            raise malformed(place, keyword, "an object of schemas")
        return given


_APPLICATORS = {
    "enum": Reader._enum,
    "const": Reader._const,
    "$ref": Reader._ref,
    "$dynamicRef": Reader._dynamic_ref,
    "allOf": Reader._all_of,
    "anyOf": Reader._any_of,
    "not": Reader._not,
    "if": Reader._if,
    "dependencies": Reader._dependencies,
    "dependentRequired": Reader._dependent_required,
    "dependentSchemas": Reader._dependent_schemas,
}


@contextmanager
def _declining(place: Place, keyword: str) -> Iterator[None]:
    """Turns what can't be told exactly into an error that names pointer and keyword; what is under way is read later."""
    try:
        yield
    except UnderWay:
        raise
    except (Undecided, GrammarError) as error:
        raise unsupported(place, keyword, str(error)) from error


def _not_objects() -> tuple[Kind, ...]:
    return tuple(kind for kind in everything() if not isinstance(kind, Object))
