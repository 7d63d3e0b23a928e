"""Why a text is refused, and what may come next: told for people, with the rules and the schema that it stands in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from routine_grammar.automaton.automaton import Automaton
from routine_grammar.automaton.distinct import Watch
from routine_grammar.automaton.tracing import Way, trace
from routine_grammar.grammar.dialects import Dialect
from routine_grammar.grammar.schema.documents import Place, document
from routine_grammar.grammar.terminals import JsonNumber, JsonString, RawText
from routine_grammar.grammar.tree import Call, Distinct, Grammar, Leaf, Literal, Marker
from routine_grammar.grammar.tree import Sequence as Row
from routine_grammar.patterns.reader import found_in
from routine_grammar.routine.tools import Tool

MAX_SHOWN = 20  # ways to go on
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Of a text: how far a grammar reads it, and what may come there.

    `read` counts characters, `read_bytes` bytes; `refused` is the character behind them, None where all of the text may
    stand. `expected` tells what may come instead, or next, of `ways` in all; `rules` are the rules it stands in, outermost
    first. `pointers` are the schemas of the value that is being written, in that of the arguments of `tool`, or of the text.
    """

    read: int
    read_bytes: int
    refused: str | None
    expected: tuple[str, ...]
    ways: int
    rules: tuple[tuple[str, ...], ...]
    forced: str
    may_end: bool
    tool: str | None = None
    pointers: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"read: {self.read} characters ({self.read_bytes} bytes)"]
        if self.refused is not None:
            lines.append(f"refused: {self.refused!r}, at byte {self.read_bytes}")
        lines += [f"{'expected' if self.refused is not None else 'next'}: {way}" for way in self.expected]
        if self.ways > len(self.expected):
            lines.append(f"and {self.ways - len(self.expected)} more")
        if self.forced:
            lines.append(f"forced: {self.forced!r}")
        lines.append(f"may end here: {'yes' if self.may_end else 'no'}")
        lines += [f"in rule: {' > '.join(rules)}" for rules in self.rules]
        whose = "" if self.tool is None else f" of tool {self.tool}"
        lines += [f"by the schema{whose}: {pointer or '/'}" for pointer in self.pointers]
        return "\n".join(lines)


def explain(grammar: Grammar, automaton: Automaton, text: str) -> Explanation:
    """How far `grammar` reads a text, and why no further.

    Raises `GrammarTooLargeError` where there are too many ways to read it.
    """
    data = text.encode(errors="surrogatepass")
    count, repeated = Watch(automaton).read(data) if automaton.is_distinct else (len(data), None)
    traced = trace(grammar, data[:count])
    read = len(data[: traced.read].decode(errors="ignore"))  # a character that is refused by its second byte is not read
    row = automaton.after(automaton.start(), data[: traced.read])
    assert row is not None, "the tree reads what the automaton does"
    pieces = automaton.forced_pieces(row)
    forced = bytes(piece for piece in pieces if isinstance(piece, int)).decode(errors="ignore")
    goes_on = [way for way in traced.ways if way.text or way.leaf is not None]
    told = list(dict.fromkeys(map(_told, goes_on)))
    if repeated is not None:
        repeats = repeated.decode(errors="ignore") + text[read : read + 1]
        told.insert(0, f"what repeats no element of the list, as {repeats!r} would")
    rules = dict.fromkeys(way.rules for way in goes_on if way.rules)
    return Explanation(
        read=read,
        read_bytes=traced.read,
        refused=text[read] if read < len(text) else None,
        expected=tuple(told[:MAX_SHOWN]),
        ways=len(told),
        rules=tuple(rules)[:MAX_SHOWN],
        forced=forced,
        may_end=automaton.may_end(row),
        pointers=() if repeated is None else tuple(dict.fromkeys(_distinct_in(grammar, rules))),
    )


def _distinct_in(grammar: Grammar, rules: Iterable[Sequence[str]]) -> Iterator[str]:
    """The pointers of what wants the elements of the innermost lists to be distinct, by the rules that a text stands in."""
    for names in rules:
        trees = [grammar.rules[name] for name in names]
        innermost = next((tree for tree in reversed(trees) if isinstance(tree, Distinct)), None)
        if innermost is not None:
            yield innermost.pointer


def with_schema(explanation: Explanation, text: str, schema: Any) -> Explanation:
    """An explanation of a JSON text that tells which parts of its schema say something of where it was read to."""
    path = _path(text[: explanation.read])
    return explanation if path is None else replace(explanation, pointers=(*explanation.pointers, *_pointers(schema, path)))


def with_tool(explanation: Explanation, text: str, tools: Sequence[Tool], dialect: Dialect) -> Explanation:
    """An explanation that tells which schema stands where the text was read to."""
    found = _argument(text[: explanation.read], tools, dialect)
    if found is None:
        return explanation
    tool, path = found
    return replace(explanation, tool=tool.name, pointers=(*explanation.pointers, *_pointers(tool.input_schema, path)))


def _told(way: Way) -> str:
    if way.leaf is None:
        return repr(way.text.decode(errors="replace"))
    return f"{'more of ' if way.begun else ''}{described(way.leaf)}"


def described(leaf: Leaf) -> str:
    """A terminal in words."""
    match leaf.pattern:
        case JsonNumber():
            return f"{leaf.name}, {_number(leaf.pattern)}"
        case JsonString(found, never, low, high) | RawText(found, never, low, high):
            length = f" of {low} to {high} characters" if high is not None else f" of {low} characters or more" if low else ""
            parts = [f"in which /{pattern:.80}/ is found" for pattern in found]
            parts += [f"in which /{pattern:.80}/ is not found" for pattern in never]
            what = "a JSON string" if isinstance(leaf.pattern, JsonString) else "a text"
            return f"{leaf.name}, {what}{length}{'' if not parts else ' ' + ' and '.join(parts)}"
        case pattern:
            return f"{leaf.name}, /{pattern:.80}/"


def _number(number: JsonNumber) -> str:
    words = ["a whole number" if number.is_integer else "a number"]
    if number.low:
        words.append(f"{'above' if number.low_is_open else 'from'} {number.low}")
    if number.high:
        words.append(f"{'below' if number.high_is_open else 'up to'} {number.high}")
    words += [f"that is a multiple of {number.multiple}"] if number.multiple else []
    words += [f"that is no multiple of {each}" for each in number.never]
    return " ".join(words)


# Where in the arguments of a call a text ends


def _argument(text: str, tools: Sequence[Tool], dialect: Dialect) -> tuple[Tool, list[str | int]] | None:
    """The tool whose arguments a text ends in, and the path of the value that is being written."""
    ends = [(place + len(lead), tool) for tool in tools if (place := text.rfind(lead := _lead(tool, dialect))) >= 0]
    if not ends:
        return None
    start, tool = max(ends, key=lambda end: end[0])
    rest = text[start:]
    if dialect.parameter("") is None:
        path = _path(rest)
        return None if path is None else (tool, path)
    for name in tool.parameters:
        before, behind = dialect.parameter(name) or ("", "")
        value = rest[place + len(before) :] if (place := rest.rfind(before)) >= 0 else behind
        if behind not in value:
            return tool, [name, *(_path(value) or [])]
    return tool, []


def _lead(tool: Tool, dialect: Dialect) -> str:
    """What a call of a tool begins with, up to its arguments."""
    name = tool.name if dialect.has_bare_names else json.dumps(tool.name)[1:-1]
    call = dialect.call(Literal(name), Call("arguments"))
    lead = []
    for node in call.items if isinstance(call, Row) else ():
        if not isinstance(node, Literal | Marker):
            break
        lead.append(node.text)
    return "".join(lead)


def _path(text: str) -> list[str | int] | None:
    """The path of the value that JSON breaks off in; None behind its end."""
    frames: list[str | int | None] = []
    key: str | None = None
    place = 0
    while place < len(text):
        char = text[place]
        if char == '"':
            found = _STRING.match(text, place)
            if found is None:
                break
            if frames and frames[-1] is None:
                key = str(json.loads(found.group(), strict=False))
            place = found.end()
            continue
        if char in "{[":
            frames.append(None if char == "{" else 0)
        elif char in "}]" and frames:
            frames.pop()
            if not frames:
                return None
        elif char == ":" and frames:
            frames[-1] = key
        elif char == "," and frames:
            last = frames[-1]
            frames[-1] = last + 1 if isinstance(last, int) else None
        place += 1
    return [part for part in frames if part is not None]


def _pointers(schema: Any, path: Sequence[str | int]) -> list[str]:
    """The pointers of the schemas that say something of a value."""
    places = list(_applied(document(schema)))
    for part in path:
        places = [applied for place in places for below in _below(place, part) for applied in _applied(below)]
    return list(dict.fromkeys(place.pointer for place in places))[:MAX_SHOWN]


def _applied(place: Place, depth: int = 0) -> Iterator[Place]:
    """A schema and those that it applies to the same value."""
    if depth > 8 or not isinstance(place.schema, Mapping):
        return
    if place.schema.keys() - {"$ref", "anyOf", "oneOf", "allOf", "title", "description", "$defs", "definitions"}:
        yield place
    if "$ref" in place.schema:
        yield from _applied(place.target("$ref"), depth + 1)
    for keyword in ("anyOf", "oneOf", "allOf"):
        for number in range(len(place.schema.get(keyword, ()))):
            yield from _applied(place.at(keyword, number), depth + 1)
    for keyword in ("if", "then", "else"):
        if keyword in place.schema:
            yield from _applied(place.at(keyword), depth + 1)


def _below(place: Place, part: str | int) -> Iterator[Place]:
    """The schemas of a property or an item."""
    schema = place.schema
    if isinstance(part, int):
        for keyword in ("prefixItems", "items"):
            given = schema.get(keyword)
            if isinstance(given, list) and part < len(given):
                yield place.at(keyword, part)
                return
        if isinstance(schema.get("items"), Mapping):
            yield place.at("items")
        return
    matched = [pattern for pattern in schema.get("patternProperties", {}) if found_in(pattern, part)]
    yield from (place.at("patternProperties", pattern) for pattern in matched)
    if part in schema.get("properties", {}):
        yield place.at("properties", part)
    elif not matched and isinstance(schema.get("additionalProperties"), Mapping):
        yield place.at("additionalProperties")
