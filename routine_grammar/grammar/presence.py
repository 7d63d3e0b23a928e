"""Which arguments a call may have together: what a tool's schema says over all of them, where it speaks of names alone."""

from __future__ import annotations

from dataclasses import dataclass

from routine_grammar.errors import SchemaError, UnsupportedSchemaError
from routine_grammar.grammar.schema.compiler import SchemaCompiler
from routine_grammar.grammar.schema.denying import spread
from routine_grammar.grammar.schema.reading import ANNOTATIONS
from routine_grammar.grammar.schema.refusals import Undecided
from routine_grammar.grammar.schema.shapes import ANYTHING, Object
from routine_grammar.routine.tools import Tool

_DECLARED = frozenset(("type", "properties", "required", "additionalProperties"))


@dataclass(frozen=True, slots=True)
class Presence:
    """One way: the arguments that have to be there, all that may, how many in all, and the object that further ones are of."""

    required: frozenset[str]
    allowed: frozenset[str]
    low: int = 0
    high: int | None = None
    open_object: Object | None = None


def presences(tool: Tool, compiler: SchemaCompiler) -> list[Presence]:
    """All ways in which the arguments of a tool may be there.

    Raises `UnsupportedSchemaError` where its schema says more over all of them than which are there and how many, `SchemaError`
    where none of them can be.
    """
    required = frozenset(tool.input_schema.get("required", ()))
    if undeclared := sorted(required - tool.parameters.keys()):
        message = f"tool {tool.name!r} requires the parameter {undeclared[0]!r:.80}, which it does not declare"
        raise SchemaError(message, pointer="/required")
    further = sorted(tool.input_schema.keys() - _DECLARED - ANNOTATIONS)
    if tool.input_schema.get("additionalProperties", False) is not False:
        further.append("additionalProperties")
    if not further:
        return [Presence(required, frozenset(tool.parameters))]
    kinds = compiler.reader.algebra.opened(compiler.shape(compiler.root)).kinds
    try:
        objects = [each for kind in kinds if isinstance(kind, Object) for each in spread(compiler.reader.algebra, kind)]
    except Undecided as error:
        raise _says_more(tool, further[0]) from error
    found = [_presence(kind, tool, compiler, further[0]) for kind in objects]
    ways = list(dict.fromkeys(way for way in found if way is not None))
    if not ways:
        raise SchemaError(
            f"tool {tool.name!r} can be called with no arguments that its schema allows", pointer=f"/{further[0]}"
        )
    return ways


def _presence(kind: Object, tool: Tool, compiler: SchemaCompiler, keyword: str) -> Presence | None:
    """The way of one kind of object; None where it needs arguments that the tool does not declare."""
    required, allowed = set[str](), set[str]()
    is_plain = kind.names == ANYTHING and not any(layer.patterns for layer in kind.layers)
    for name, member in kind.members:
        if name not in tool.parameters:
            if member.required:
                return None
        elif member.shape:
            is_plain = is_plain and member.shape == compiler.shape(compiler.root.at("properties", name))
            allowed.add(name)
            required |= {name} if member.required else set()
    if not is_plain:
        raise _says_more(tool, keyword)
    is_open = any(layer.rest is not None and layer.rest for layer in kind.layers)
    if kind.low > len(allowed) and not is_open:
        return None
    return Presence(frozenset(required), frozenset(allowed), kind.low, kind.high, kind if is_open else None)


def _says_more(tool: Tool, keyword: str) -> UnsupportedSchemaError:
    message = f"keyword {keyword!r} over the arguments of tool {tool.name!r} says more than which are there: not supported"
    return UnsupportedSchemaError(message, pointer=f"/{keyword}", keyword=keyword)
