"""A call that a model wrote, held against the Routine, the tool's schema and the live keys; and what its result writes.

In: a decoded call, or a tool's result. Out: the step taken with its resolved arguments, or the values of its outputs.
Whatever is wrong is a `RunError`, and then nothing may be called. Knows no model server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from routine_grammar.agent.memory import VariableMemory
from routine_grammar.agent.tools import ToolResult
from routine_grammar.errors import MemoryKeyError, RoutineError, RunError, SchemaError, UnsupportedSchemaError
from routine_grammar.routine import (
    SIGIL,
    AnyKey,
    Constant,
    Graph,
    Key,
    Literal,
    Omit,
    Source,
    Step,
    Tool,
    Variable,
    header_of,
    item_key,
    memory_key,
    misfit,
    parse_key,
)
from routine_grammar.routine.documents import parse_json
from routine_grammar.routine.tools import schema_at
from routine_grammar.routine.values import at_pointer


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call as the model wrote it; `text` is the JSON text of its arguments, `id` the server's name for it."""

    id: str
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class CheckedCall:
    """A call that may be made: its step, its arguments as decoded, and as the tool gets them, keys resolved."""

    step: Step
    decoded: Mapping[str, Any]
    arguments: Mapping[str, Any]


def check_call(
    graph: Graph, tools: Mapping[str, Tool], memory: VariableMemory, position: str, content: str, call: ToolCall
) -> CheckedCall:
    """Return what a call written at `position` may do; raises `RunError` where it is not one that the Routine allows."""
    step = _step_taken(graph, position, content, call)
    where = f"routine {graph.routine.name!r}, {header_of(step.id)}, tool {call.name!r}"
    tool = tools[call.name]
    try:
        decoded = parse_json(call.text)
    except ValueError as error:
        raise RunError(f"{where}: the arguments are no JSON: {error}") from error
    if not isinstance(decoded, dict):
        raise RunError(f"{where}: the arguments are {type(decoded).__name__}; expected an object")
    if strays := list(_source_problems(step, tool, decoded)):
        raise RunError(f"{where}, {strays[0]}")
    try:
        arguments = _resolved(step, decoded, memory)
        problem = _misfit_to_tool(arguments, tool.input_schema)
    except (MemoryKeyError, SchemaError) as error:
        raise RunError(f"{where}: {error}") from error
    if problem is not None:
        raise RunError(f"{where}: the arguments do not fit the tool's schema: {problem[:300]}")
    return CheckedCall(step, decoded, arguments)


def _misfit_to_tool(value: Any, schema: Mapping[str, Any] | None) -> str | None:
    """`misfit` to a schema of a tool; what can't be judged here, such as a pattern, the tool's server judges itself."""
    try:
        return misfit(value, schema)
    except UnsupportedSchemaError:
        return None


def written_values(
    graph: Graph, step: Step, tool: Tool, result: ToolResult
) -> Iterator[tuple[str, Any, Mapping[str, Any] | None]]:
    """Yield the keys that a step's result writes, each with its value and declared type.

    Items of a list get keys of their own where the Routine reads them. Raises `RunError` where an output is not in the
    result, or not of its type.
    """
    for variable in step.written:
        key = memory_key(step.id, variable.name)
        try:
            schema = tool.output_type(variable)
            value = _output_value(result, variable, schema)
            yield key, value, schema
            for item in _items_read(graph, key):
                if isinstance(value, list) and item < len(value):
                    yield item_key(key, item), value[item], schema_at(schema or {}, f"/{item}")
        except SchemaError as error:
            where = f"routine {graph.routine.name!r}, {header_of(step.id)}, output {variable.name!r}"
            raise RunError(f"{where}: not in the result of tool {tool.name!r}: {error}") from error


def _step_taken(graph: Graph, position: str, content: str, call: ToolCall) -> Step:
    fitting = [step for step in graph.successors(position).steps if step.tool == call.name]
    # A header that was asked for, but that nothing depends on, may be missing where no grammar forces it.
    if len(fitting) == 1:
        return fitting[0]
    try:
        return graph.step_taken(position, content, call.name)
    except RoutineError as error:
        raise RunError(str(error)) from error


def _source_problems(step: Step, tool: Tool, decoded: Mapping[str, Any]) -> Iterator[str]:
    for name in decoded:
        if name not in tool.parameters:
            yield f"argument {name[:80]!r}: the tool has no such parameter; it has {', '.join(tool.parameters)}"
    for name, source in step.arguments.items():
        expected = _expected(source, decoded, name)
        if expected is not None:
            yield f"argument {name!r}: expected {expected}, got {str(decoded.get(name, 'nothing'))[:80]!r}"


def _expected(source: Source, decoded: Mapping[str, Any], name: str) -> str | None:
    """Say what the Routine wants for an argument, or None where it has that."""
    value = decoded.get(name)
    is_key = isinstance(value, str) and value.startswith(SIGIL)
    match source:
        case Constant(constant):
            fits = name in decoded and misfit(value, {"const": constant}) is None
            return None if fits else f"the constant {constant!r}"
        case Key(key):
            return None if value == key else f"the key {key}"
        case AnyKey():
            return None if is_key or name not in decoded else "a live key"
        case Literal():
            return "a value, not a key" if is_key else None
        case Omit():
            return "it to be left out" if name in decoded else None


def _resolved(step: Step, decoded: Mapping[str, Any], memory: VariableMemory) -> dict[str, Any]:
    """Resolve keys and escaped literals; a constant is the Routine's own and holds neither."""
    arguments = memory.resolve({name: value for name, value in decoded.items() if not _is_constant(step, name)})
    return {name: value if _is_constant(step, name) else arguments[name] for name, value in decoded.items()}


def _is_constant(step: Step, name: str) -> bool:
    return isinstance(step.arguments.get(name), Constant)


def _output_value(result: ToolResult, variable: Variable, schema: Mapping[str, Any] | None) -> Any:
    """Take an output from the structured content, else from the text, else from the JSON that the text is.

    Raises `SchemaError` for what is missing in, or does not fit, the first of these.
    """
    reasons: list[str] = []
    for document in _documents(result):
        try:
            value = at_pointer(document, variable.pointer)
            problem = _misfit_to_tool(value, schema)
        except SchemaError as error:
            problem = str(error)
        if problem is None:
            return value
        reasons.append(problem)
    raise SchemaError(reasons[0][:300], pointer=variable.pointer)


def _documents(result: ToolResult) -> Iterator[Any]:
    if result.structured is not None:
        yield result.structured
    yield result.text
    try:
        yield parse_json(result.text)
    except ValueError:
        return


def _items_read(graph: Graph, key: str) -> list[int]:
    """Return the places in the list under `key` that some step reads by a key of their own."""
    sources = [source for step in graph.routine for source in step.arguments.values() if isinstance(source, Key)]
    items = {(source.key, parse_key(source.key).item) for source in sources}
    return sorted(item for read, item in items if item is not None and item_key(key, item) == read)
