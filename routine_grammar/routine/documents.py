"""YAML and JSON text to plain JSON values, bounded in size, nodes and nesting, with the line of every path (YAML).

A strict subset of YAML: one document, string keys, no duplicate keys, no tags; plain scalars are read as JSON reads
them (`null`, `true`, `false`, numbers), any other is text. Aliases count with all that they repeat.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from routine_grammar.errors import RoutineError
from routine_grammar.routine.ids import Path as Place

MAX_NODES = 100_000
MAX_DEPTH = 128

# What plain YAML scalars are, by the tags that PyYAML's writer goes by.
_NULL = re.compile(r"(?:~|null|)\Z")
_BOOL = re.compile(r"(?:true|false|True|False)\Z")
_INT = re.compile(r"-?(?:0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?\Z")
_PLAIN = [
    (f"tag:yaml.org,2002:{kind}", pattern)
    for kind, pattern in (("null", _NULL), ("bool", _BOOL), ("int", _INT), ("float", _FLOAT))
]


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON value and the line (from 1) of each of its paths; JSON documents have no lines."""

    value: Any
    lines: Mapping[Place, int] = field(default_factory=dict)


def read_bytes(path: Path, most: int) -> bytes:
    """Read a file of at most so many bytes, whatever size it says it has; raises `OSError`, `ValueError` where it is larger."""
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"larger than {most} bytes")
    return content


def read_json(text: str, file: str) -> Document:
    """Read a JSON document."""
    try:
        return Document(parse_json(text))
    except json.JSONDecodeError as error:
        raise RoutineError(f"{file}:{error.lineno}: invalid JSON at column {error.colno}: {error.msg}") from error
    except ValueError as error:
        raise RoutineError(f"{file}: invalid JSON: {error}") from error


def parse_json(text: str) -> Any:
    """Read a JSON value, its numbers finite and its fields unique; raises `ValueError`, also past a bound."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number, parse_float=_finite)
    except RecursionError as error:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from error
    _check_bounds(value)
    return value


def read_yaml(text: str, file: str) -> Document:
    """Read a YAML document."""
    try:
        return _YamlReader(text, file).document()
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        # The parser has a bound of its own, which is reached before ours where it reads ahead.
        is_deep = "nesting depth" in str(error.problem)
        problem = f"nested deeper than {MAX_DEPTH} levels" if is_deep else f"invalid YAML: {error.problem}"
        raise RoutineError(f"{file}{line}: {problem}") from error
    except yaml.YAMLError as error:
        raise RoutineError(f"{file}: invalid YAML: {error}") from error


def write_yaml(value: Any) -> str:
    """Write a JSON value as block YAML that `read_yaml` reads back."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _YamlReader:
    """Builds one document's value from the parser's events, which come lazily: bounds hold before memory is used."""

    def __init__(self, text: str, file: str) -> None:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self._events: Iterator[Any] = yaml.parse(text, Loader=loader)
        self._file = file
        self._nodes = 0
        self._lines: dict[Place, int] = {}
        self._anchors: dict[str, tuple[Any, int]] = {}

    def document(self) -> Document:
        next(self._events)
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            raise RoutineError(f"{self._file}: empty; expected a Routine")
        value = self._node(next(self._events), ())
        next(self._events)
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise self._refusal(event, "a second document; expected one Routine in a file")
        return Document(value, self._lines)

    def _node(self, event: Any, path: Place) -> Any:
        self._count(event, 1)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if getattr(event, "tag", None) is not None:
            raise self._refusal(event, f"tag {event.tag[:80]!r}; tags are not read")
        if len(path) >= MAX_DEPTH:
            raise self._refusal(event, f"nested deeper than {MAX_DEPTH} levels")
        first = self._nodes
        if isinstance(event, yaml.MappingStartEvent):
            value: Any = self._mapping(path)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(path)
        else:
            value = self._scalar(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, self._nodes - first + 1)
        return value

    def _alias(self, event: yaml.AliasEvent) -> Any:
        if event.anchor not in self._anchors:
            raise self._refusal(event, f"alias *{event.anchor} stands inside its own anchor, or names none")
        value, nodes = self._anchors[event.anchor]
        self._count(event, nodes)
        return value

    def _mapping(self, path: Place) -> dict[str, Any]:
        value: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._scalar(event) if isinstance(event, yaml.ScalarEvent) and event.tag is None else None
            if not isinstance(key, str):
                raise self._refusal(event, "expected a text as the name of a field; quote it if it is one")
            if key in value:
                raise self._refusal(event, f"duplicate field {key[:80]!r}")
            self._lines[(*path, key)] = event.start_mark.line + 1
            value[key] = self._node(next(self._events), (*path, key))
        return value

    def _sequence(self, path: Place) -> list[Any]:
        value: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            here = (*path, len(value))
            self._lines[here] = event.start_mark.line + 1
            value.append(self._node(event, here))
        return value

    def _scalar(self, event: Any) -> Any:
        text = event.value
        if not event.implicit[0]:
            return text
        try:
            return _plain(text)
        except ValueError as error:
            raise self._refusal(event, str(error)) from error

    def _count(self, event: Any, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise self._refusal(event, f"more than {MAX_NODES} values, aliases counted with what they repeat")

    def _refusal(self, event: Any, message: str) -> RoutineError:
        return RoutineError(f"{self._file}:{event.start_mark.line + 1}: {message}")


class _Dumper(yaml.SafeDumper):
    """Quotes the strings that `_plain` would read as something else, and escapes what YAML counts as a line break."""

    yaml_implicit_resolvers = dict.fromkeys(["", *"~ntfTF-0123456789"], _PLAIN)

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        lines = data.split("\n")
        style = None if data.isprintable() else "|" if all(line.isprintable() for line in lines) else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


def _plain(text: str) -> Any:
    if _NULL.match(text):
        return None
    if _BOOL.match(text):
        return text.lower() == "true"
    if _INT.match(text):
        return int(text)
    return _finite(text) if _FLOAT.match(text) else text


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:80]} is out of range for a number")
    return number


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"duplicate field {next(name for name in names if names.count(name) > 1)[:80]!r}")
    return value


def _check_bounds(value: Any) -> None:
    level, nodes, depth = [value], 0, 0
    while level:
        nodes, depth = nodes + len(level), depth + 1
        if nodes > MAX_NODES or depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels, or more than {MAX_NODES} values")
        level = [item for node in level for item in _items(node)]


def _items(node: Any) -> Iterable[Any]:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()
