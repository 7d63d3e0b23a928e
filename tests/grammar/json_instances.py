"""Hypothesis strategies for JSON Schemas of the supported kind and for instances of them, valid or nearly so."""

from __future__ import annotations

import json
import random
import re
from typing import Any

from hypothesis import strategies as st

Schema = Any

# Properties stand in this order in every object, so that no two schemas ask for different ones.
NAMES = ("a", "b", "ab", 'c"\\', "d\ne", "é😀", "<tool_call>", "memory_x", "z")
TEXTS = (
    "",
    "a",
    "memory",
    "memory_1_x",
    "\\memory_",
    "memory_",
    "é",
    "😀\x00",
    '"\\',
    "<tool_call>",
    "</tool_call",
    "a\nb",
    "\u2028\x7f",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    7,
    -3,
    "a",
    "b",
    "é",
    "",
    "<tool_call>",
    [],
    [7, "a"],
    {},
    {"a": "x"},
    {"é😀": [None]},
)
NOTES = {"title": "a title", "description": "what", "default": 3, "$comment": "c", "examples": [1]}
REFERENCES = ("#/$defs/node", "#/$defs/b%20c", "#/$defs/x~1y", "#")

scalars = st.sampled_from(
    (
        *({"type": name} for name in ("string", "integer", "number", "boolean", "null")),
        *({"type": "object"}, {"type": "array"}, {}, True),
        *({"type": ["string", "null"]}, {"type": ["integer", "array"]}, {"type": ["number", "integer", "boolean"]}),
        *({"enum": ["a", "b", 7, None]}, {"enum": [[7, "a"], {"a": "x"}, "é"]}, {"const": "<tool_call>"}, {"const": -3}),
        *({"enum": ["a", 7, None, "b"], "type": ["string", "null"]}, {"const": "a", "enum": ["a", "b"]}),
    )
)
references = st.sampled_from(REFERENCES).map(lambda reference: {"$ref": reference})


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[Schema], closed: bool) -> Schema:
    names: list[str] = sorted(draw(st.sets(st.sampled_from(NAMES), max_size=5)), key=NAMES.index)
    schema: dict[str, Any] = {"type": "object", "properties": {name: draw(inner) for name in names}}
    with_required: bool = draw(st.booleans())
    if names and with_required:
        schema["required"] = draw(st.lists(st.sampled_from(names), unique=True))
    if closed or draw(st.booleans()):
        schema["additionalProperties"] = False
    if draw(st.booleans()):
        schema |= NOTES
    return schema


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[Schema]) -> Schema:
    low = draw(st.integers(0, 3))
    bounds = {"minItems": low, "maxItems": draw(st.integers(low, 4))}
    kept = {name: bound for name, bound in bounds.items() if draw(st.booleans())}
    return {"type": "array", **({"items": draw(inner)} if draw(st.integers(0, 5)) else {}), **kept}


def schemas(closed: bool) -> st.SearchStrategy[Schema]:
    """Schemas with definitions to refer to; `closed`: every object that declares properties says that it has no others."""

    def larger(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
        ways = st.lists(inner, min_size=1, max_size=3).map(lambda ways: {"anyOf": ways})
        return st.one_of(objects(inner, closed), objects(inner, closed), arrays(inner), ways)

    part = st.recursive(st.one_of(scalars, scalars, references), larger, max_leaves=6)
    whole = st.one_of(objects(part, closed), objects(part, closed), arrays(part), scalars)
    defined = st.one_of(objects(part, closed), arrays(part))

    def put_together(root: Schema, node: Schema, other: Schema) -> Schema:
        definitions = {"node": node, "b c": other, "x/y": {"enum": ["a", "b"]}}
        return {**root, "$defs": definitions} if isinstance(root, dict) else root

    return st.builds(put_together, whole, defined, defined)


def instance(schema: Schema, document: Schema, rng: random.Random, depth: int = 0) -> Any:
    """A value that is valid, as far as that goes without looking back."""
    if schema is True or not schema:
        return rng.choice(VALUES)
    if "$ref" in schema:
        return instance(_target(schema["$ref"], document), document, rng, depth + 1) if depth < 8 else None
    if "enum" in schema or "const" in schema:
        return rng.choice(schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return instance(rng.choice(schema["anyOf"]), document, rng, depth)
    kinds = schema.get("type", "string")
    kind = kinds if isinstance(kinds, str) else rng.choice(kinds)
    match kind:
        case "object":
            required = schema.get("required", ())
            return {
                name: instance(inner, document, rng, depth + 1)
                for name, inner in schema.get("properties", {}).items()
                if name in required or (depth < 6 and rng.random() < 0.6)
            }
        case "array":
            low = schema.get("minItems", 0)
            count = low if depth > 6 else rng.randint(low, schema.get("maxItems", low + 2))
            return [instance(schema.get("items", True), document, rng, depth + 1) for _ in range(count)]
        case "string":
            return rng.choice(TEXTS)
        case "integer":
            return rng.choice((0, -1, 12, 10**18, -(10**18)))
        case "number":
            return rng.choice((0.5, -12.25, 7, 1e-7, 1.5e30))
        case "boolean":
            return rng.random() < 0.5
        case _:
            return None


def _target(reference: str, document: Schema) -> Schema:
    name = reference.removeprefix("#").rpartition("/")[2].replace("%20", " ").replace("~1", "/")
    return document["$defs"][name] if name else document


def edited_value(value: Any, rng: random.Random) -> Any:
    """The value with one part, at any depth, replaced, left out or added; the order of names is kept."""
    if isinstance(value, dict) and value and rng.random() < 0.7:
        name = rng.choice(list(value))
        if rng.random() < 0.3:
            return {other: part for other, part in value.items() if other != name}
        return {other: edited_value(part, rng) if other == name else part for other, part in value.items()}
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        middle = rng.choice(([], [edited_value(value[place], rng)], [value[place]] * 2))
        return [*value[:place], *middle, *value[place + 1 :]]
    if isinstance(value, dict) and rng.random() < 0.6:
        added = {**value, rng.choice(NAMES): rng.choice(VALUES)}
        return {name: added[name] for name in sorted(added, key=NAMES.index)}
    return rng.choice((*VALUES, 12, 0.5, "memory_1_x", "ab"))


def spelled(value: Any, rng: random.Random, markers: tuple[str, ...] = ()) -> str:
    """A canonical text of a value, without these markers."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    for marker in markers:
        text = text.replace(marker, f"\\u{ord(marker[0]):04x}{marker[1:]}")
    return text


STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"')


def is_spelled_canonically(text: str) -> bool | None:
    """Whether a text that is JSON has the one spelling of space; None where its numbers have several spellings."""
    bare = STRING.sub('""', text)
    if re.search(r"[0-9][eE]|\.[0-9]*0(?![0-9])|-0(?![.])", bare):
        return None
    return re.sub(r"([,:]) ", r"\1", bare).strip() == re.sub(r"[,:] ", lambda found: found[0][0], bare) and not re.search(
        r"[,:](?! )|(?<![,:])\s|[,:] \s", bare
    )
