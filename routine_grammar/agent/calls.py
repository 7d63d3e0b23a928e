"""A call that a model wrote, held against the Routine, the tool's schema and the live keys; and what its result writes.

In: a decoded call, or a tool's result. Out: the step taken with its resolved arguments, or the values of its outputs.
Whatever is wrong is a `RunError`, and then nothing may be called. Knows no model server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from routine_grammar.agent.memory import VariableMemory
from routine_grammar.agent.tools import ToolResult
from routine_grammar.errors import MemoryKeyError, RoutineError, RunError, SchemaError, UnsupportedSchemaError
from routine_grammar.routine import (
    SIGIL,
    AnyKey,
    Constant,
    Graph,
    Item,
    Key,
    Literal,
    Omit,
    Source,
    Step,
    Taken,
    Tool,
    Variable,
    header_of,
    item_key,
    misfit,
)
from routine_grammar.routine.checks import item_type
from routine_grammar.routine.documents import parse_json
from routine_grammar.routine.keys import ERROR_OUTPUT
from routine_grammar.routine.types import TEXT
from routine_grammar.routine.values import array_of, at_pointer


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call as the model wrote it; `text` is the JSON text of its arguments, `id` the server's name for it."""

    id: str
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class CheckedCall:
    """A call that may be made: where it leads, its arguments as decoded, and as the tool gets them, keys resolved."""

    taken: Taken
    decoded: Mapping[str, Any]
    arguments: Mapping[str, Any]

    @property
    def step(self) -> Step:
        """The step that the call is."""
        return self.taken.step


def check_calls(
    graph: Graph, tools: Mapping[str, Tool], memory: VariableMemory, position: str, content: str, calls: Sequence[ToolCall]
) -> list[CheckedCall]:
    """Return what the calls of one turn at `position` may do; raises `RunError` where the Routine does not allow them."""
    checked: list[CheckedCall] = []
    for call in calls:
        try:
            if not checked:
                live = {key.name for key in memory.live_keys()}
                taken = graph.call_taken(position, content, call.name, live)
            else:
                taken = graph.next_call_taken(checked[-1].taken, call.name)
        except RoutineError as error:
            raise RunError(str(error)) from error
        checked.append(_checked_call(graph, tools[call.name], memory, taken, call))
    return checked


def _checked_call(graph: Graph, tool: Tool, memory: VariableMemory, taken: Taken, call: ToolCall) -> CheckedCall:
    where = f"routine {graph.routine.name!r}, {header_of(taken.step.id)}, tool {call.name!r}"
    try:
        decoded = parse_json(call.text)
    except ValueError as error:
        raise RunError(f"{where}: the arguments are no JSON: {error}") from error
    if not isinstance(decoded, dict):
        raise RunError(f"{where}: the arguments are {type(decoded).__name__}; expected an object")
    if strays := list(_source_problems(graph, taken, tool, decoded)):
        raise RunError(f"{where}, {strays[0]}")
    try:
        arguments = _resolved(taken.step, decoded, memory)
        problem = _misfit_to_tool(arguments, tool.input_schema)
    except (MemoryKeyError, SchemaError) as error:
        raise RunError(f"{where}: {error}") from error
    if problem is not None:
        raise RunError(f"{where}: the arguments do not fit the tool's schema: {problem[:300]}")
    return CheckedCall(taken, decoded, arguments)


def _misfit_to_tool(value: Any, schema: Mapping[str, Any] | None) -> str | None:
    """`misfit` to a schema of a tool; what can't be judged here, such as a pattern that is too large, its server judges."""
    try:
        return misfit(value, schema)
    except UnsupportedSchemaError:
        return None


Written = tuple[str, Any, Mapping[str, Any] | None]  # a key, its value and its declared type


def written_values(graph: Graph, taken: Taken, tool: Tool, result: ToolResult) -> Iterator[Written]:
    """Yield the keys that a call's result writes, each with its value and declared type.

    A failed call writes its error. Items of a list get keys of their own where the Routine reads them. Raises `RunError`
    where an output is not in the result, not of its type, or longer than a repetition over it allows.
    """
    step, item = taken.step, taken.position.item
    if result.is_error:
        yield graph.key_written(step, ERROR_OUTPUT, item), result.text, TEXT
        return
    for variable in step.written:
        try:
            schema = tool.output_type(variable)
            value = _output_value(result, variable, schema)
            yield from with_items(graph, graph.key_written(step, variable.name, item), value, schema)
        except (SchemaError, RoutineError) as error:
            where = f"routine {graph.routine.name!r}, {header_of(step.id)}, output {variable.name!r}"
            raise RunError(f"{where}: not in the result of tool {tool.name!r}: {error}") from error


def with_items(graph: Graph, key: str, value: Any, schema: Mapping[str, Any] | None) -> Iterator[Written]:
    """Yield a value, and behind it those of its items that have keys of their own.

    Raises `RoutineError` where a repetition over it does not allow so many.
    """
    yield key, value, schema
    if isinstance(value, list):
        graph.check_length(key, len(value))
        for item in graph.items_of(key):
            if item < len(value):
                yield item_key(key, item), value[item], item_type(schema, item)


def lists_written(graph: Graph, position: str, memory: VariableMemory) -> Iterator[Written]:
    """Yield the lists of what the steps of a repetition wrote, once it is over, where every pass wrote it."""
    live = {key.name: key for key in memory.live_keys()}
    for loop, outputs in graph.lists_left(position, live):
        passes = next(item for item in count() if f"{loop.over}_{item}" not in live)
        for key in outputs:
            items = [live.get(f"{key}_{item}") for item in range(passes)]
            written = [item for item in items if item is not None]
            if len(written) == passes:
                yield key, [item.value for item in written], array_of(written[0].schema if written else None)


def _source_problems(graph: Graph, taken: Taken, tool: Tool, decoded: Mapping[str, Any]) -> Iterator[str]:
    is_open = tool.input_schema.get("additionalProperties", False) is not False
    for name in decoded:
        if name not in tool.parameters and not is_open:
            yield f"argument {name[:80]!r}: the tool has no such parameter; it has {', '.join(tool.parameters)}"
    step = taken.step
    for name, source in step.arguments.items():
        if isinstance(source, Key | Item):
            source = Key(graph.key_read(step, source, taken.position.item))
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
        case Item():
            raise AssertionError("an item is read by its key")


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
