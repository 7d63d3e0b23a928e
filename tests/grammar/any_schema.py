"""Random schemas of all keywords that are read, and values that try to be valid against them."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

NAMES = ("a", "b", "ab", "c d", "é")
TEXTS = ("", "a", "ab", "abc", "b", "é", "aé", "xyz", "2024-02-29", "foo", "1", "memory_1")
NUMBERS = (0, 1, 2, 3, -1, 5, 10, 1.5, 0.1, -2.5, 100, 7, 2.0, 1e20)
EXPRESSIONS = ("^a", "b$", "^[a-c]*$", "a", "^.{2}$", "é", "^(?!ab)")
TYPES = ("object", "array", "string", "integer", "number", "boolean", "null", ["string", "null"], ["integer", "string"])
REFERRED = ("x", "y")


def any_value(rng: random.Random, depth: int = 0) -> Any:
    """Any JSON value of few names and texts."""
    chance = rng.random()
    if depth > 2 or chance < 0.6:
        return rng.choice((None, True, False, *rng.choices(TEXTS, k=3), *rng.choices(NUMBERS, k=3)))
    if chance < 0.8:
        return [any_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {name: any_value(rng, depth + 1) for name in rng.sample(NAMES, rng.randrange(4))}


class Schemas:
    """Draws schemas. `without`: keywords that are left out."""

    def __init__(self, rng: random.Random, without: tuple[str, ...] = ()) -> None:
        self._rng = rng
        self._without = without

    def document(self) -> Any:
        """A schema with the definitions that it refers to."""
        schema = self.schema(0, REFERRED)
        if isinstance(schema, dict) and '"$ref"' in json.dumps(schema):
            return {**schema, "$defs": {"x": self.schema(2, ("y",)), "y": self.schema(2, ("x",))}}
        return schema

    def schema(self, depth: int, referred: tuple[str, ...]) -> Any:
        """A schema at a depth that may refer to these definitions."""
        rng = self._rng
        if depth > 3:
            return rng.choice((True, {"type": "string"}, {"type": "integer"}, {}, {"const": rng.choice((*TEXTS, *NUMBERS))}))
        chance = rng.random()
        if chance < 0.03:
            return rng.random() < 0.5
        if chance < 0.1 and referred:
            return {"$ref": f"#/$defs/{rng.choice(referred)}"}
        schema: dict[str, Any] = {}
        if rng.random() < 0.75:
            schema["type"] = rng.choice((*TYPES, "object", "array", "object"))
        named = schema.get("type", rng.choice(("object", "array", "string", "number")))
        types = (named,) if isinstance(named, str) else tuple(named)
        for kind, make in (("object", self._object), ("array", self._array), ("string", self._string)):
            if kind in types:
                make(schema, depth, referred)
        if {"number", "integer"} & set(types):
            self._number(schema)
        self._applied(schema, depth, referred)
        return {keyword: value for keyword, value in schema.items() if keyword not in self._without}

    def _set(self, schema: dict[str, Any], keyword: str, chance: float, make: Callable[[], Any]) -> None:
        if self._rng.random() < chance:
            schema[keyword] = make()

    def _object(self, schema: dict[str, Any], depth: int, referred: tuple[str, ...]) -> None:
        rng = self._rng

        def inner(more: int = 1) -> Any:
            return self.schema(depth + more, referred)

        self._set(schema, "properties", 0.7, lambda: {name: inner() for name in rng.sample(NAMES, rng.randrange(1, 4))})
        self._set(schema, "required", 0.4, lambda: rng.sample(NAMES, rng.randrange(3)))
        self._set(schema, "additionalProperties", 0.5, lambda: rng.choice((False, True, inner())))
        self._set(
            schema, "patternProperties", 0.12, lambda: {one: inner() for one in rng.sample(EXPRESSIONS, rng.randrange(1, 3))}
        )
        names = ({"pattern": rng.choice(EXPRESSIONS)}, {"enum": rng.sample(NAMES, 2)}, {"maxLength": 1})
        self._set(schema, "propertyNames", 0.08, lambda: rng.choice(names))
        self._set(schema, "minProperties", 0.1, lambda: rng.randrange(3))
        self._set(schema, "maxProperties", 0.1, lambda: rng.randrange(4))
        self._set(schema, "dependentRequired", 0.06, lambda: {rng.choice(NAMES): rng.sample(NAMES, 1)})
        self._set(schema, "dependentSchemas", 0.04, lambda: {rng.choice(NAMES): inner(2)})
        self._set(schema, "unevaluatedProperties", 0.05, lambda: rng.choice((False, inner(2))))

    def _array(self, schema: dict[str, Any], depth: int, referred: tuple[str, ...]) -> None:
        rng = self._rng
        self._set(schema, "items", 0.6, lambda: self.schema(depth + 1, referred))
        prefix = [self.schema(depth + 1, referred) for _ in range(rng.randrange(1, 3))]
        self._set(schema, "prefixItems", 0.2, lambda: prefix)
        self._set(schema, "minItems", 0.2, lambda: rng.randrange(3))
        self._set(schema, "maxItems", 0.2, lambda: rng.randrange(4))
        self._set(schema, "unevaluatedItems", 0.06, lambda: rng.choice((False, self.schema(depth + 2, referred))))
        self._set(schema, "contains", 0.12, lambda: self.schema(depth + 2, referred))
        if "contains" in schema:
            self._set(schema, "minContains", 0.4, lambda: rng.randrange(3))
            self._set(schema, "maxContains", 0.3, lambda: rng.randrange(1, 3))
        self._set(schema, "uniqueItems", 0.08, lambda: True)
        if rng.random() < 0.08:
            schema |= {"uniqueItems": True, "items": {"enum": [any_value(rng, 2) for _ in range(rng.randrange(1, 4))]}}

    def _string(self, schema: dict[str, Any], depth: int, referred: tuple[str, ...]) -> None:
        rng = self._rng
        self._set(schema, "minLength", 0.2, lambda: rng.randrange(4))
        self._set(schema, "maxLength", 0.2, lambda: rng.randrange(1, 5))
        self._set(schema, "pattern", 0.25, lambda: rng.choice(EXPRESSIONS))

    def _number(self, schema: dict[str, Any]) -> None:
        rng = self._rng
        for keyword, chance in (("minimum", 0.2), ("maximum", 0.2), ("exclusiveMinimum", 0.1), ("exclusiveMaximum", 0.1)):
            self._set(schema, keyword, chance, lambda: rng.choice(NUMBERS))
        self._set(schema, "multipleOf", 0.1, lambda: rng.choice((1, 2, 3, 0.5, 0.1)))

    def _applied(self, schema: dict[str, Any], depth: int, referred: tuple[str, ...]) -> None:
        rng = self._rng

        def some(least: int, most: int) -> list[Any]:
            return [self.schema(depth + 1, referred) for _ in range(rng.randrange(least, most))]

        self._set(schema, "enum", 0.07, lambda: [any_value(rng, 1) for _ in range(rng.randrange(1, 4))])
        self._set(schema, "const", 0.04, lambda: any_value(rng, 1))
        self._set(schema, "anyOf", 0.1, lambda: some(1, 4))
        self._set(schema, "allOf", 0.08, lambda: some(1, 3))
        self._set(schema, "oneOf", 0.07, lambda: some(1, 4))
        self._set(schema, "not", 0.05, lambda: self.schema(depth + 2, referred))
        if rng.random() < 0.04:
            schema["if"] = self.schema(depth + 2, referred)
            self._set(schema, "then", 0.8, lambda: self.schema(depth + 2, referred))
            self._set(schema, "else", 0.6, lambda: self.schema(depth + 2, referred))
        if rng.random() < 0.08:
            self._tell_objects_apart(schema)

    def _tell_objects_apart(self, schema: dict[str, Any]) -> None:
        """Several conditions, or alternatives, over few properties: what holds for one of them goes by the others."""
        rng = self._rng

        def scalar() -> Any:
            return rng.choice(
                ({"const": rng.choice(("a", 1))}, {"enum": ["a", "b", 1]}, {"type": "string"}, {"type": "integer"})
            )

        def said() -> dict[str, Any]:
            own: dict[str, Any] = {"properties": {name: scalar() for name in rng.sample(NAMES[:3], rng.randrange(1, 3))}}
            self._set(own, "required", 0.5, lambda: rng.sample(NAMES[:3], 1))
            self._set(own, "not", 0.15, lambda: {"required": rng.sample(NAMES[:3], 2)})
            self._set(own, "additionalProperties", 0.1, lambda: rng.choice((False, scalar())))
            return own

        if rng.random() < 0.5:
            schema["allOf"] = [{"if": said(), "then": said()} for _ in range(rng.randrange(2, 5))]
        else:
            schema["oneOf"] = [said() for _ in range(rng.randrange(2, 5))]


class Values:
    """Draws values of one schema, most of them nearly valid."""

    def __init__(self, rng: random.Random, root: Any) -> None:
        self._rng = rng
        self._root = root

    def value(self) -> Any:
        """A value."""
        return self._of(self._root, 0) if self._rng.random() < 0.75 else any_value(self._rng)

    def _of(self, schema: Any, depth: int) -> Any:
        rng = self._rng
        if not isinstance(schema, dict) or depth > 5 or rng.random() < 0.08:
            return any_value(rng, 1)
        if "$ref" in schema:
            return self._of(self._root["$defs"][schema["$ref"][-1]], depth + 1)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema and rng.random() < 0.9:
            return rng.choice(schema["enum"])
        for keyword in ("anyOf", "oneOf", "allOf"):
            if keyword in schema and rng.random() < 0.6:
                return self._with(schema, self._of(rng.choice(schema[keyword]), depth + 1), depth)
        if "then" in schema and rng.random() < 0.4:
            return self._of(schema["then"], depth + 1)
        return self._typed(schema, depth)

    def _with(self, schema: dict[str, Any], value: Any, depth: int) -> Any:
        """A value of an applied schema, with what the schema around it asks for."""
        if isinstance(value, dict) and "properties" in schema:
            rest = {name: each for name, each in schema.items() if name not in ("anyOf", "oneOf", "allOf")}
            own = self._of(rest, depth + 1)
            return {**own, **value} if isinstance(own, dict) else value
        return value

    def _typed(self, schema: dict[str, Any], depth: int) -> Any:
        rng = self._rng
        named = schema.get("type")
        kind = rng.choice(named) if isinstance(named, list) else named
        if kind is None:
            kind = (
                "object"
                if {"properties", "required"} & schema.keys()
                else "array"
                if {"items", "prefixItems"} & schema.keys()
                else ""
            )
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                items = [self._of(each, depth + 1) for each in schema.get("prefixItems", [])]
                while len(items) < schema.get("minItems", 0) or rng.random() < 0.5:
                    items.append(self._of(schema.get("items"), depth + 1))
                return items
            case "string":
                return rng.choice(TEXTS)
            case "number" | "integer":
                return rng.choice(NUMBERS)
            case "boolean":
                return rng.random() < 0.5
            case "null":
                return None
        return any_value(rng, 1)

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        rng, required = self._rng, schema.get("required", [])
        found = {}
        for name, inner in schema.get("properties", {}).items():
            if name in required or rng.random() < 0.6:
                found[name] = self._of(inner, depth + 1)
        for name in required:
            if name not in found:
                found[name] = self._of(schema.get("additionalProperties"), depth + 1)
        if schema.get("additionalProperties") is not False and rng.random() < 0.3:
            found[rng.choice((*NAMES, "zz"))] = self._of(schema.get("additionalProperties"), depth + 1)
        return found


def orders(value: Any) -> int:
    """In how many orders of names a value can be written."""
    if isinstance(value, dict):
        return math.factorial(len(value)) * math.prod(map(orders, value.values()))
    return math.prod(map(orders, value)) if isinstance(value, list) else 1


def spellings(value: Any) -> Iterator[str]:
    """A value's JSON with its names in every order, whole numbers with an exponent and without: not every grammar has one."""
    if isinstance(value, dict):
        for names in itertools.permutations(value):
            for texts in itertools.product(*(list(spellings(value[name])) for name in names)):
                members = (f"{json.dumps(name, ensure_ascii=False)}: {text}" for name, text in zip(names, texts, strict=True))
                yield "{" + ", ".join(members) + "}"
    elif isinstance(value, list):
        for texts in itertools.product(*(list(spellings(item)) for item in value)):
            yield "[" + ", ".join(texts) + "]"
    else:
        yield (text := json.dumps(value, ensure_ascii=False))
        if isinstance(value, float) and "e" in text and value.is_integer():
            yield str(int(value))
