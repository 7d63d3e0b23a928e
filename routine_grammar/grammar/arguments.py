"""How the arguments of a call are written: as one JSON object, or as a block for each, with strings as they are.

vLLM reads the text of a block by the types that its parameter's schema names (`coerced`). A value is offered only where
that gives it back; what can't be told apart by its text is declined by `UnsupportedSchemaError`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from routine_grammar.errors import GrammarError, SchemaError, UnsupportedSchemaError
from routine_grammar.grammar.dialects import Dialect
from routine_grammar.grammar.json_text import JsonForm, value_literal
from routine_grammar.grammar.raw_text import raw_pattern
from routine_grammar.grammar.schema.compiler import SchemaCompiler
from routine_grammar.grammar.schema.documents import Place
from routine_grammar.grammar.schema.shapes import Anything, Kind, Named, Number, Shape, String, Value, type_of
from routine_grammar.grammar.terminals import RawText, automaton_of_terminal
from routine_grammar.grammar.tree import EMPTY, Choice, Leaf, Literal, Node, Optional, choice, sequence
from routine_grammar.patterns.text import escape

_MAX_REFERENCES = 16

Members = Sequence[tuple[str, Node, bool]]


class Arguments(Protocol):
    """A way to write arguments."""

    def literal(self, compiler: SchemaCompiler, place: Place) -> Node:
        """All values of a parameter's schema."""

    def constant(self, value: Any, schema: Any, pointer: str) -> Node:
        """One value of a parameter with this schema."""

    def key(self, name: str) -> Node:
        """A memory key."""

    def all_of(self, compiler: SchemaCompiler, members: Members, others: Node | None, low: int, high: int | None) -> Node:
        """Arguments in order, each a name, what may be written for it, and whether it is required; others behind them.

        There are `low` to `high` in all.
        """


def arguments_of(dialect: Dialect, form: JsonForm) -> Arguments:
    """How a dialect writes arguments."""
    return JsonArguments(form) if dialect.parameter("") is None else BlockArguments(dialect, form)


@dataclass(frozen=True, slots=True)
class JsonArguments:
    """One JSON object."""

    form: JsonForm

    def literal(self, compiler: SchemaCompiler, place: Place) -> Node:
        """All values of a parameter's schema."""
        return compiler.node(compiler.shape(place), place.pointer)

    def constant(self, value: Any, schema: Any, pointer: str) -> Node:
        """One value of a parameter with this schema."""
        return value_literal(value, self.form)

    def key(self, name: str) -> Node:
        """A memory key."""
        return value_literal(name, self.form)

    def all_of(self, compiler: SchemaCompiler, members: Members, others: Node | None, low: int, high: int | None) -> Node:
        """Arguments in order, each a name, what may be written for it, and whether it is required; others behind them.

        There are `low` to `high` in all.
        """
        return compiler.layout.object_of(members, others, low, high)


@dataclass(frozen=True, slots=True)
class BlockArguments:
    """A block for each argument. A value's text is made together with what ends its block: no terminal ends in the middle."""

    dialect: Dialect
    form: JsonForm

    def literal(self, compiler: SchemaCompiler, place: Place) -> Node:
        """All values of a parameter's schema."""
        return self._literal(compiler, compiler.shape(place), place.pointer, read_types(place.schema), 0)

    def constant(self, value: Any, schema: Any, pointer: str) -> Node:
        """One value of a parameter with this schema."""
        return self._value(value, read_types(schema), pointer)

    def key(self, name: str) -> Node:
        """A memory key: an identifier is read as text whatever types a schema names."""
        return Literal(name + self._end)

    def all_of(self, compiler: SchemaCompiler, members: Members, others: Node | None, low: int, high: int | None) -> Node:
        """Arguments in order, each a name, what may be written for it, and whether it is required; others behind them.

        There are `low` to `high` in all.
        """
        blocks = []
        if others is not None:
            raise self._declined(
                "arguments that are not declared can't be written", "/additionalProperties", "additionalProperties"
            )
        if low > sum(required for _, _, required in members) or (high is not None and high < len(members)):
            keyword = "maxProperties" if high is not None and high < len(members) else "minProperties"
            raise self._declined("arguments can't be counted", f"/{keyword}", keyword)
        for name, value, required in members:
            if not name or name != name.strip() or set(name) & set("<>") or not name.isprintable():
                told = f"a parameter of the name {name!r:.80} can't be written"
                raise self._declined(told, f"/properties/{name}", "properties")
            before, _ = self.dialect.parameter(name) or ("", "")
            block = sequence(Literal(before), value)
            blocks.append(block if required else Optional(block))
        return sequence(*blocks) if blocks else EMPTY

    @property
    def _end(self) -> str:
        return (self.dialect.parameter("") or ("", ""))[1]

    def _declined(self, told: str, pointer: str, keyword: str) -> UnsupportedSchemaError:
        return UnsupportedSchemaError(f"in dialect {self.dialect.name!r}, {told}", pointer=pointer, keyword=keyword)

    def _literal(self, compiler: SchemaCompiler, shape: Shape, pointer: str, types: frozenset[str], depth: int) -> Node:
        """The texts of a shape's values that are read by these types, each with its end."""
        if depth > _MAX_REFERENCES:
            raise self._declined("too many references", pointer, "$ref")
        ways: list[Node] = []
        for kind in shape.kinds:
            match kind:
                case Anything():
                    told = "any value at all is read back as text: give the parameter a type"
                    raise self._declined(told, pointer, "type")
                case Named(name):
                    ways.append(self._literal(compiler, compiler.named(name, pointer), pointer, types, depth + 1))
                case Value(_, value):
                    ways.append(self._value(value, types, pointer))
                case String():
                    ways += self._raw(compiler, kind, types, pointer)
                case _:
                    ways += self._as_json(compiler, kind, types, pointer)
        if not ways:
            raise SchemaError(f"in dialect {self.dialect.name!r}, no text is left that the schema allows", pointer=pointer)
        return choice(*ways)

    def _as_json(self, compiler: SchemaCompiler, kind: Kind, types: frozenset[str], pointer: str) -> list[Node]:
        """A kind's values as JSON."""
        name = "integer" if isinstance(kind, Number) and kind.is_integer else type_of(kind)
        if not types & {name, type_of(kind)}:
            raise self._declined(f"a value of type {name!r} is read back as text here", pointer, "type")
        return [sequence(way, Literal(self._end)) for way in _ways(compiler.node(Shape((kind,)), pointer))]

    def _value(self, value: Any, types: frozenset[str], pointer: str) -> Node:
        """One value: a string as it is, any other as JSON."""
        written = [value] if isinstance(value, str) else [_text(node) for node in _ways(value_literal(value, self.form))]
        for text in written:
            read = coerced(text, types)
            if not _same(read, value):
                raise self._declined(f"{value!r:.80} would be read back as {read!r:.80}", pointer, "enum")
            if isinstance(value, str) and not re.fullmatch(raw_pattern(), text):
                raise self._declined(f"{value!r:.80} has markup or control characters that can't be written", pointer, "enum")
        return choice(*(Literal(text + self._end) for text in written))

    def _raw(self, compiler: SchemaCompiler, kind: String, types: frozenset[str], pointer: str) -> list[Node]:
        """Strings, as they are; none where none is left."""
        if others := sorted(types - {"string", "null"}):
            told = f"text can't be told from a value of type {others[0]!r}"
            raise self._declined(told, pointer, "type")
        name, form = "TEXT", raw_pattern(self.form.sigil)
        if "null" in types:
            name, form = "TEXT_NOT_NULL", raw_pattern(self.form.sigil, "null")
        if kind == String():
            return [Leaf(name, form + escape(self._end))]
        terminal = RawText(tuple(sorted(kind.found)), tuple(sorted(kind.never)), kind.low, kind.high, form, self._end)
        try:
            is_empty = automaton_of_terminal(terminal).is_empty
        except GrammarError as error:
            told = f"a text with this length or pattern can't be enforced: {error}"
            raise self._declined(told, pointer, "pattern") from error
        return [] if is_empty else [compiler.leaves.leaf(name, terminal)]


def _ways(node: Node) -> tuple[Node, ...]:
    return node.items if isinstance(node, Choice) else (node,)


def _text(node: Node) -> str:
    assert isinstance(node, Literal)
    return node.text


def _same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: `1` is `1.0`, but not `true`."""
    match one, other:
        case dict(), dict():
            return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())
        case list(), list():
            return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def read_types(schema: Any) -> frozenset[str]:
    """The types by which vLLM reads a parameter's text: those that its schema names, `string` where it names none."""
    if not isinstance(schema, Mapping):
        return frozenset(("string",))
    named = schema.get("type", ())
    found = {named} if isinstance(named, str) else {kind for kind in named if isinstance(kind, str)}
    listed = schema.get("enum")
    found |= {_type_of(value) for value in listed} if isinstance(listed, list) else set()
    for keyword in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(keyword), list):
            found = found.union(*(read_types(way) for way in schema[keyword]))
    return frozenset(found or ("string",))


def _type_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
    return "array" if isinstance(value, list) else "object"


def coerced(text: str, types: frozenset[str]) -> Any:
    """What vLLM reads a parameter's text as (`coerce_to_schema_type` there; a test compares the two)."""
    for kind in ("null", "integer", "number", "boolean", "object", "array", "string"):
        if kind in types:
            try:
                return _as(kind, text)
            except (ValueError, RecursionError):
                continue
    try:
        return _as("object", text)
    except (ValueError, RecursionError):
        return text


def _as(kind: str, text: str) -> Any:
    match kind:
        case "null" if text.lower() == "null":
            return None
        case "string":
            return text
        case "integer":
            return int(text)
        case "number":
            number = float(text)
            if math.isfinite(number):
                return number if number != int(number) else int(number)
        case "boolean" if text.lower().strip() in ("true", "1", "false", "0"):
            return text.lower().strip() in ("true", "1")
        case "object" | "array":
            return _finite(json.loads(text))
    raise ValueError(f"{text!r:.40} is no {kind}")


def _finite(value: Any) -> Any:
    json.dumps(value, allow_nan=False)  # raises ValueError
    return value
