"""Which keyword of a schema a refusal is of, with a pointer that leads to it.

What refuses knows the values that it was asked for, which may come of several schemas and keywords. So the keyword that it
names is looked for where the document has it; else one that may ask for the like.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from routine_grammar.errors import GrammarError, GrammarTooLargeError, UnsupportedSchemaError
from routine_grammar.grammar.schema.documents import escaped

MAX_LOOKED_AT = 10_000  # schemas
_ONE_BESIDE = ("not", "if", "then", "else")
_ONE_BELOW = (
    *("items", "additionalItems", "contains", "additionalProperties", "propertyNames"),
    *("unevaluatedItems", "unevaluatedProperties"),
)
_LISTS_BESIDE = ("allOf", "anyOf", "oneOf")
_MAPS_BESIDE = ("dependentSchemas", "dependencies")
_MAPS_BELOW = ("properties", "patternProperties", "$defs", "definitions")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_DENYING = ("not", "if", "oneOf", "dependentRequired", "dependencies", "dependentSchemas", "anyOf")
_OF_NAMES = ("patternProperties", "propertyNames", "additionalProperties", "properties", "required")
_OF_TEXTS = ("pattern", "format", "minLength", "maxLength", "enum", "const")
_OF_NUMBERS = ("multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "type")
_COUNTING = ("minProperties", "maxProperties", "required", *_DENYING)
# What may ask for the like of a keyword, where the schema does not have that one.
_ALIKE = {
    "not": _DENYING,
    "patternProperties": (*_OF_NAMES, *_DENYING),
    "pattern": (*_OF_TEXTS, *_OF_NAMES, *_DENYING),
    "multipleOf": (*_OF_NUMBERS, *_DENYING),
    "minProperties": _COUNTING,
    "maxProperties": _COUNTING,
    "minItems": ("maxItems", "minContains", "maxContains", "contains", "prefixItems", *_DENYING),
    "maxItems": ("minItems", "minContains", "maxContains", "contains", "prefixItems", *_DENYING),
    "contains": ("uniqueItems", "minContains", "maxContains", *_DENYING),
    "uniqueItems": ("contains", *_DENYING),
    "$ref": _REFERENCES,
}
_COUNTS = frozenset(f"{bound}{of}" for bound in ("min", "max") for of in ("Items", "Properties", "Length", "Contains"))
_LISTING = frozenset(
    (*_LISTS_BESIDE, *_MAPS_BESIDE, "enum", "properties", "patternProperties", "prefixItems", "required", "dependentRequired")
)


def blamed(document: Any, error: UnsupportedSchemaError) -> UnsupportedSchemaError:
    """A refusal with a keyword that the document has, and the pointer to it."""
    start = _Schemas(document, error.pointer)
    if start.is_whole and error.pointer.rpartition("/")[2] == error.keyword:
        return error
    pointer, keyword = start.find((error.keyword,), (*_ALIKE.get(error.keyword, ()), *_REFERENCES)) or start.heaviest()
    if keyword == error.keyword and start.is_whole and f"{error.pointer}/".startswith(f"{pointer}/"):
        return error  # it leads to the keyword, or to what that has under a name
    told = error.told.replace(repr(error.keyword), repr(keyword), 1)
    return UnsupportedSchemaError(told, pointer=pointer, keyword=keyword)


def too_large(document: Any, error: GrammarError, pointer: str = "") -> UnsupportedSchemaError:
    """What to say of a schema whose grammar passes a bound: the reference to the rule, or the keyword that asks for most."""
    start = _Schemas(document, pointer)
    rule = error.rule if isinstance(error, GrammarTooLargeError) else None
    at, keyword = start.reference(rule) if rule is not None else start.heaviest()
    return UnsupportedSchemaError(f"{keyword!r} is not supported here: {error}", pointer=at, keyword=keyword)


def reference(document: Any, pointer: str, rule: str = "") -> str:
    """The pointer to the reference that a rule is named for, or to one near a pointer."""
    return _Schemas(document, pointer).reference(rule)[0]


def too_deep(pointer: str, bound: int) -> UnsupportedSchemaError:
    """What to say of a schema that is nested too deep: the keyword that it stands under."""
    *_, before, last = ("", *pointer.split("/"))
    keyword = last if last in (*_ONE_BESIDE, *_ONE_BELOW) else before
    told = f"{keyword!r} is not supported here: nested deeper than {bound}, the bound"
    return UnsupportedSchemaError(told, pointer=pointer, keyword=keyword)


class _Schemas:
    """The schemas of a document as seen from the innermost one that a pointer leads to."""

    def __init__(self, document: Any, pointer: str) -> None:
        self._document = document
        self._at, self._schema = "", document
        self.is_whole = not pointer  # whether it leads to something
        at, value = "", document
        for part in pointer.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            try:
                value = value[int(key) if isinstance(value, list) else key]
            except (KeyError, IndexError, ValueError, TypeError):
                break
            at = f"{at}/{part}"
            self.is_whole = at == pointer
            if isinstance(value, Mapping):
                self._at, self._schema = at, value

    def find(self, *wanted: Sequence[str]) -> tuple[str, str] | None:
        """The pointer and the name of a keyword: of the first ones wanted that are there, the one nearest."""
        for scope in (self._beside, self._below, self._all):
            schemas = list(scope())
            for keywords in wanted:
                for at, schema in schemas:
                    for keyword in keywords:
                        if keyword in schema:
                            return f"{at}/{keyword}", keyword
        return None

    def reference(self, rule: str) -> tuple[str, str]:
        """The reference that a rule is named for, else the first one, else what asks for most."""
        first = None
        rules = f"_{rule}", re.sub(r"_\d+$", "", f"_{rule}")  # with and without the number that tells it from others
        for at, schema in (*self._below(), *self._all()):
            for keyword in _REFERENCES:
                if not isinstance(target := schema.get(keyword), str):
                    continue
                found = f"{at}/{keyword}", keyword
                first = first or found
                word = re.sub(r"[^a-z0-9]+", "_", target.rpartition("/")[2].strip("#").lower()).strip("_") or "whole"
                if any(name.endswith(f"_{word[:60]}") for name in rules):
                    return found
        return first or self.heaviest()

    def heaviest(self) -> tuple[str, str]:
        """The keyword that asks for most: by its count, or by how many schemas, values or characters it lists."""
        weights = [
            (weight, f"{at}/{keyword}", keyword)
            for at, schema in self._below()
            for keyword, value in schema.items()
            if (weight := _weight(keyword, value))
        ]
        if weights:
            most = max(weight for weight, _, _ in weights)
            return next((at, keyword) for weight, at, keyword in weights if weight == most)
        keyword = next(iter(self._schema), "type") if isinstance(self._schema, Mapping) else "type"
        return f"{self._at}/{keyword}", keyword

    def _beside(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The schema and those that it applies to the same value."""
        yield from self._walk(((self._at, self._schema),), below=False)

    def _below(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The schema and those within it, and what they refer to."""
        yield from self._walk(((self._at, self._schema),), below=True)

    def _all(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        yield from self._walk((("", self._document),), below=True)

    def _walk(self, schemas: Iterable[tuple[str, Any]], *, below: bool) -> Iterator[tuple[str, Mapping[str, Any]]]:
        todo, seen = list(schemas), set[int]()
        while todo and len(seen) < MAX_LOOKED_AT:
            more: list[tuple[str, Any]] = []
            for at, schema in todo:
                if isinstance(schema, Mapping) and id(schema) not in seen:
                    seen.add(id(schema))
                    yield at, schema
                    more += _inner(at, schema, below=below)
                    more += self._target(schema.get("$ref"))
            todo = more

    def _target(self, reference: Any) -> list[tuple[str, Any]]:
        """The schema that a reference within the document leads to."""
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            return []
        at = reference[1:]
        target = _Schemas(self._document, at)
        return [(at, target._schema)] if target._at == at else []


def _inner(at: str, schema: Mapping[str, Any], *, below: bool) -> Iterator[tuple[str, Any]]:
    """The schemas directly within one: those of the same value, or all."""
    for keyword in (*_ONE_BESIDE, *(_ONE_BELOW if below else ())):
        if isinstance(schema.get(keyword), Mapping):
            yield f"{at}/{keyword}", schema[keyword]
    for keyword in (*_LISTS_BESIDE, *(("prefixItems", "items") if below else ())):
        if isinstance(inner := schema.get(keyword), list):
            yield from ((f"{at}/{keyword}/{number}", each) for number, each in enumerate(inner))
    for keyword in (*_MAPS_BESIDE, *(_MAPS_BELOW if below else ())):
        if isinstance(inner := schema.get(keyword), Mapping):
            yield from ((f"{at}/{keyword}/{escaped(name)}", each) for name, each in inner.items())


def _weight(keyword: str, value: Any) -> float:
    """How much a keyword asks for, roughly."""
    if keyword in _COUNTS and isinstance(value, int | float):
        return value
    if keyword in _LISTING and isinstance(value, list | Mapping):
        return len(value)
    if keyword == "pattern" and isinstance(value, str):
        return len(value) + sum(int(count) for count in re.findall(r"[{,](\d{1,9})", value))
    return 0
