"""JSON Schemas applied to JSON values, and the local references and pointers inside them.

A schema never fetches anything: a reference that leaves it is a `SchemaError`. Nor does it run its regular expressions, which
may take exponential time: automata find them, as in a grammar. Knows no Routine and no tool.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, cast
from urllib.parse import unquote

import jsonschema.exceptions
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from routine_grammar.errors import GrammarError, SchemaError, UnsupportedSchemaError
from routine_grammar.patterns.reader import found_in

EVERY_ITEM = "*"  # in a pointer

_INDEX = re.compile("0|[1-9][0-9]*")
_BAD_ESCAPE = re.compile("~(?![01])")

_DATA_KEYWORDS = frozenset({"const", "enum", "default", "examples"})


def value_fits(value: object, schema: Mapping[str, Any] | None) -> bool:
    """Tell whether a JSON value is valid against a schema; raises `SchemaError` where the schema can't be applied."""
    return misfit(value, schema) is None


def misfit(value: object, schema: Mapping[str, Any] | None) -> str | None:
    """Return why a JSON value is invalid against a schema, or None where it is valid.

    Raises `SchemaError` where the schema can't be applied, `UnsupportedSchemaError` where a pattern that is too large decides.
    """
    if not schema:
        return None
    try:
        error = jsonschema.exceptions.best_match(_validator(schema).iter_errors(cast(Any, value)))
    except Unresolvable as unresolved:
        raise SchemaError(f"$ref {unresolved.ref!r} can't be resolved within the schema") from unresolved
    except RecursionError as recursion:
        raise SchemaError("the schema's $ref never ends, or the value is nested too deeply") from recursion
    return None if error is None else error.message


def schema_problem(schema: object) -> str | None:
    """Return why something is no JSON Schema, or None where it is one."""
    if not isinstance(schema, Mapping):
        return "expected a JSON Schema (an object)"
    checked = json.loads(json.dumps(schema)) if not isinstance(schema, dict) else schema
    try:
        validator_for(checked, default=Draft202012Validator).check_schema(checked)
    except jsonschema.exceptions.SchemaError as error:
        return f"invalid JSON Schema at {error.json_path}: {error.message[:200]}"
    except RecursionError:
        return "nested too deeply for a JSON Schema"
    return None


def resolve(ref: str, root: Mapping[str, Any]) -> Any:
    """Return what a local reference (`#/…`) names; raises `SchemaError` where it names nothing."""
    if not ref.startswith("#"):
        raise SchemaError(f"$ref {ref!r} leaves the schema; only local references (#/…) are read")
    return at_pointer(root, unquote(ref[1:]))


def at_pointer(document: Any, pointer: str) -> Any:
    """Return what a JSON Pointer names in a JSON document; raises `SchemaError` where it names nothing.

    Where a list is, `*` names every item of it: the rest of the pointer is looked up in each, and a list comes back.
    """
    return _at(document, pointer_parts(pointer), pointer)


def _at(found: Any, parts: Sequence[str], pointer: str) -> Any:
    for place, part in enumerate(parts):
        if isinstance(found, Mapping) and part in found:
            found = found[part]
        elif isinstance(found, list) and part == EVERY_ITEM:
            return [_at(item, parts[place + 1 :], pointer) for item in found]
        elif isinstance(found, list) and is_index(part) and int(part) < len(found):
            found = found[int(part)]
        else:
            raise SchemaError(f"nothing stands at {part!r}", pointer=pointer)
    return found


def is_index(part: str) -> bool:
    """Whether a part of a JSON Pointer is a place in a list, as RFC 6901 writes it: no leading zero, ASCII digits."""
    return _INDEX.fullmatch(part) is not None


def pointer_parts(pointer: str) -> list[str]:
    """Return the unescaped parts of a JSON Pointer (RFC 6901); raises `SchemaError` where it isn't one."""
    if pointer and not pointer.startswith("/"):
        raise SchemaError("a JSON Pointer is empty or begins with '/'", pointer=pointer)
    if _BAD_ESCAPE.search(pointer):
        raise SchemaError("in a JSON Pointer '~' stands for itself only as '~0'", pointer=pointer)
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def subschema(root: Mapping[str, Any], part: Any) -> Mapping[str, Any]:
    """Return a part of a schema as a schema of its own: where it has references, the root comes along in `$defs`."""
    if part is True:
        return {}
    if part is False:
        return {"not": {}}
    if '"$ref"' not in json.dumps(part):
        return dict(part)
    return {**_rerooted(part), "$defs": {"root": _rerooted(root)}}


def array_of(items: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the type of a list of values of a type."""
    if not items:
        return {"type": "array"}
    if '"$ref"' not in json.dumps(items):
        return {"type": "array", "items": items}
    return {"type": "array", "items": {"$ref": "#/$defs/root"}, "$defs": {"root": _rerooted(items)}}


def _rerooted(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_rerooted(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {key: _rerooted_keyword(key, value) for key, value in schema.items()}


def _rerooted_keyword(key: str, value: Any) -> Any:
    if key == "$ref" and isinstance(value, str) and value.startswith("#"):
        return "#/$defs/root" + value[1:]
    return value if key in _DATA_KEYWORDS else _rerooted(value)


def _validator(schema: Mapping[str, Any]) -> Validator:
    # The empty registry keeps a schema from fetching anything by its references.
    kind = _without_regex(validator_for(schema, default=Draft202012Validator))
    registry: Registry[Any] = Registry()
    validator: Validator = kind(schema, registry=registry, format_checker=kind.FORMAT_CHECKER)
    return validator


@cache
def _without_regex(kind: Any) -> Any:
    """A draft's validator that finds patterns by automata and never runs a regular expression."""
    ours = {keyword: judge for keyword, judge in _MATCHING.items() if keyword in kind.VALIDATORS}
    if "unevaluatedProperties" in kind.VALIDATORS:
        ours["unevaluatedProperties"] = _guarded(kind.VALIDATORS["unevaluatedProperties"])
    safe: Any = cast(Any, extend)(kind, ours)
    evolve = safe.evolve

    def evolved(self: Any, **changes: Any) -> Any:
        # A part of a schema may name a draft of its own, whose plain validator would be taken.
        part = evolve(self, **changes)
        if hasattr(type(part), "_matches_no_regex"):
            return part
        other = _without_regex(cast(Any, type(part)))
        return other(part.schema, registry=part._registry, format_checker=part.format_checker, _resolver=part._resolver)

    safe.evolve, safe._matches_no_regex = evolved, True
    return safe


def _found(keyword: str, pattern: str, text: str) -> bool:
    try:
        return found_in(pattern, text)
    except GrammarError as error:
        raise UnsupportedSchemaError(f"{keyword!r} can't be judged: {error}", pointer=f"/{keyword}", keyword=keyword) from error


def _pattern(validator: Any, pattern: str, instance: Any, schema: Mapping[str, Any]) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not _found("pattern", pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Mapping[str, Any]) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        for pattern, inner in patterns.items():
            for name, value in instance.items():
                if _found("patternProperties", pattern, name):
                    yield from validator.descend(value, inner, path=name, schema_path=pattern)


def _additional_properties(validator: Any, inner: Any, instance: Any, schema: Mapping[str, Any]) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    declared, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    others = [
        name
        for name in instance
        if name not in declared and not any(_found("patternProperties", pattern, name) for pattern in patterns)
    ]
    if inner is False and others:
        yield ValidationError(f"additional properties are not allowed ({', '.join(map(repr, others))})")
    elif isinstance(inner, Mapping):
        for name in others:
            yield from validator.descend(instance[name], inner, path=name)


_MATCHING = {"pattern": _pattern, "patternProperties": _pattern_properties, "additionalProperties": _additional_properties}


def _guarded(plain: Any) -> Any:
    """`unevaluatedProperties`, which looks into the schemas below it and where references lead: no patterns may be there."""

    def judge(validator: Any, value: Any, instance: Any, schema: Mapping[str, Any]) -> Iterator[ValidationError]:
        text = json.dumps(schema, default=repr) if isinstance(instance, dict) else ""
        if any(f'"{name}"' in text for name in ("patternProperties", "$ref", "$dynamicRef", "$recursiveRef")):
            keyword = "unevaluatedProperties"
            message = f"{keyword!r} can't be judged beside references and patterns of names"
            raise UnsupportedSchemaError(message, pointer=f"/{keyword}", keyword=keyword)
        return plain(validator, value, instance, schema) or iter(())

    return judge
