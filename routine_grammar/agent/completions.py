"""One answer of a model: the fields of a chat request for a position of a Routine, and the reply that comes back.

A server that lists the Routine at `GET /v1/routines` constrains what is decoded; any other one gets the Routine as text and
the tools that may be called, narrowed to what the Routine allows, and may answer anything. It calls no tool.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import openai
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion

from routine_grammar.agent.calls import ToolCall
from routine_grammar.errors import RunError
from routine_grammar.routine import (
    UNKNOWN,
    AnyKey,
    Constant,
    Graph,
    Item,
    Key,
    Literal,
    MemoryKey,
    Omit,
    Routine,
    Step,
    Tool,
    key_is_compatible,
    to_text,
)

Message = Mapping[str, Any]
_UNKNOWN_ROUTE = frozenset((400, 403, 404, 405, 501))


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered; `token_ids` are the decoded tokens, where the server tells them."""

    content: str
    calls: tuple[ToolCall, ...]
    finish_reason: str
    token_ids: tuple[int, ...] = ()

    @property
    def is_cut_off(self) -> bool:
        """Whether the answer did not come to its own end, so that its calls may be parts of calls."""
        return self.finish_reason not in ("stop", "tool_calls")


async def serves_routine(client: AsyncOpenAI, routine: Routine, timeout_s: float) -> bool:
    """Tell whether the server knows the Routine, and so constrains what is decoded.

    Raises `RunError` where it can't be reached, or knows another version of the Routine.
    """
    try:
        async with asyncio.timeout(timeout_s):
            listed = await client.get("/routines", cast_to=cast(Any, object))
    except openai.APIStatusError as error:
        if error.status_code in _UNKNOWN_ROUTE:
            return False
        raise _server_error(error, f"routine {routine.name!r}") from error
    except (openai.OpenAIError, TimeoutError) as error:
        raise _server_error(error, f"routine {routine.name!r}") from error
    entries = listed.get("routines") if isinstance(listed, dict) else None
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("name") == routine.name:
            version = entry.get("version", routine.version)
            if version != routine.version:
                raise RunError(f"routine {routine.name!r}: the server has version {version!r}, expected {routine.version!r}")
            return True
    return False


async def complete(
    client: AsyncOpenAI, model: str, messages: Sequence[Message], fields: Mapping[str, Any], *, where: str, timeout_s: float
) -> Reply:
    """Ask for one answer; raises `RunError` where none comes within `timeout_s` or the server refuses the request."""
    try:
        async with asyncio.timeout(timeout_s):
            # The fields go through the extra body: `routine` is no field of OpenAI's, and JSON is what they are.
            completion = await client.chat.completions.create(
                model=model, messages=cast(Any, list(messages)), extra_body=dict(fields), timeout=timeout_s
            )
    except (openai.OpenAIError, TimeoutError) as error:
        raise _server_error(error, where) from error
    return read_reply(completion, where)


def constrained_fields(routine: Routine, position: str, keys: Iterable[MemoryKey]) -> dict[str, Any]:
    """The request fields by which a server constrains the answer; it brings the Routine, its tools and the keys itself."""
    memory = {key.name: _described(key) for key in keys}
    return {"routine": {"name": routine.name, "position": position, "memory": memory}}


def plain_fields(graph: Graph, tools: Mapping[str, Tool], position: str, keys: Sequence[MemoryKey]) -> dict[str, Any]:
    """The request fields by which any server knows the tools that may be called at `position`."""
    successors = graph.successors(position, {key.name for key in keys})
    if not successors.moves:
        return {}
    by_tool: dict[str, list[Step]] = {}
    for step in (_as_read(graph, step, move.item) for move in successors.moves for step in move.steps):
        by_tool.setdefault(str(step.tool), []).append(step)
    offered = [_offered(tools[name], steps, keys) for name, steps in by_tool.items()]
    # Where a header is needed, text must be able to stand before the call.
    free = successors.may_end or graph.is_headed(position)
    return {"tools": offered, "tool_choice": "auto" if free else "required"}


def forced_reply(graph: Graph, tools: Mapping[str, Tool], position: str, keys: Sequence[MemoryKey], turn: int) -> Reply | None:
    """The only answer that there can be at `position`, or None where a model has something to choose.

    Its call's id has nine letters and digits and is another in every turn, as the strictest chat templates want it.
    """
    successors = graph.successors(position, {key.name for key in keys})
    if successors.may_end or len(successors.moves) != 1 or graph.routine.thought.linear:
        return None
    move = successors.moves[0]
    if move.is_parallel:
        return None
    tool, step = tools[str(move.steps[0].tool)], _as_read(graph, move.steps[0], move.item)
    arguments = _forced_arguments(tool, step, keys)
    if arguments is None:
        return None
    header = move.header if graph.is_headed(position) else ""
    text = json.dumps(arguments, ensure_ascii=False)
    return Reply(header, (ToolCall(f"t{turn:08d}", tool.name, text),), "tool_calls")


def _forced_arguments(tool: Tool, step: Step, keys: Sequence[MemoryKey]) -> dict[str, Any] | None:
    """The only arguments of a call, in the order of the tool's schema; None where there are others."""
    if tool.input_schema.get("additionalProperties", False) is not False:
        return None
    arguments: dict[str, Any] = {}
    for name, schema in tool.parameters.items():
        match step.arguments.get(name), _ways(tool, step, name, schema, keys):
            case Constant() | Key(), [{"const": value}]:
                arguments[name] = value
            case AnyKey(), [{"enum": [key]}] if name in tool.input_schema.get("required", ()):
                arguments[name] = key
            case Omit(), _:
                continue
            case _:
                return None
    return arguments


def plain_instructions(routine: Routine) -> str:
    """The system message that tells any model how to carry out the Routine."""
    return (
        "You carry out the Routine below, one step at a time, with one tool call for each step and nothing else. Take a "
        "branch where its condition holds; calls in parallel may be made in one answer. In an argument, a memory key such as "
        "memory_1_result stands for the value that is stored under it; write the key, not the value, wherever the value is "
        "stored. Where asked for it, write the step's header, such as `Step 2`, as the last line before the call.\n\n"
        f"{to_text(routine)}"
    )


def plain_notice(graph: Graph, position: str, keys: Sequence[MemoryKey]) -> str:
    """What the newest message tells any model: the keys there are, and which steps may come next."""
    lines = ["Memory keys:", *(f"{key.name}: {key.preview}" for key in keys)]
    successors = graph.successors(position, {key.name for key in keys})
    steps = [f"{move.header} ({', '.join(str(step.tool) for step in move.steps)})" for move in successors.moves]
    if successors.may_end:
        steps.append("a final answer in words")
    header = " Write its header before the call." if graph.is_headed(position) else ""
    return "\n".join([*lines, f"Next: {' or '.join(steps)}.{header}"])


def _as_read(graph: Graph, step: Step, item: int | None) -> Step:
    """A step with the keys that its arguments read at an item of its repetition."""
    arguments = {
        name: Key(graph.key_read(step, source, item)) if isinstance(source, Key | Item) else source
        for name, source in step.arguments.items()
    }
    return replace(step, arguments=arguments)


def _described(key: MemoryKey) -> dict[str, Any]:
    schema = {} if key.schema is None else {"schema": dict(key.schema)}
    return {**schema, "preview": key.preview}


def _offered(tool: Tool, steps: Sequence[Step], keys: Sequence[MemoryKey]) -> dict[str, Any]:
    """A tool as these steps may call it."""
    properties: dict[str, Any] = {}
    for name, schema in tool.parameters.items():
        ways = [way for step in steps for way in _ways(tool, step, name, schema, keys)]
        different = [way for place, way in enumerate(ways) if way not in ways[:place]]
        if different:
            properties[name] = different[0] if len(different) == 1 else {"anyOf": different}
    bound = [{name for name, source in step.arguments.items() if isinstance(source, Constant | Key)} for step in steps]
    required = [
        name for name in properties if name in tool.input_schema.get("required", ()) or all(name in each for each in bound)
    ]
    parameters = {**tool.input_schema, "type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {"name": tool.name, "description": tool.description, "parameters": parameters}}


def _ways(tool: Tool, step: Step, name: str, schema: Any, keys: Sequence[MemoryKey]) -> list[Any]:
    """The schemas of what a step may write for a parameter."""
    source = step.arguments.get(name)
    match source:
        case Constant(value):
            return [{"const": value}]
        case Key(key):
            return [{"const": key}]
        case Omit():
            return []
        case Literal():
            return [schema]
    parameter = tool.parameter_schema(name)
    fitting = [key.name for key in keys if key.value is not UNKNOWN and key_is_compatible(key, parameter)]
    live = [{"type": "string", "enum": fitting}] if fitting else []
    return live if isinstance(source, AnyKey) else [schema, *live]


def read_reply(completion: ChatCompletion, where: str) -> Reply:
    """Read an answer out of a completion; raises `RunError` where there is none."""
    # Servers differ from what OpenAI's types promise, and the client checks nothing.
    choices = getattr(completion, "choices", None)
    if not choices or choices[0].message is None:
        raise RunError(f"{where}: the model server's answer has no message")
    choice = choices[0]
    calls = tuple(_call(call, where) for call in choice.message.tool_calls or ())
    token_ids = (choice.model_extra or {}).get("token_ids") or ()
    return Reply(choice.message.content or "", calls, choice.finish_reason or "", tuple(token_ids))


def _call(call: Any, where: str) -> ToolCall:
    function = getattr(call, "function", None)
    name, text = getattr(function, "name", None), getattr(function, "arguments", None)
    if not isinstance(name, str) or not isinstance(text, str):
        raise RunError(f"{where}: the model server's answer holds a call without a name or arguments")
    return ToolCall(str(call.id or ""), name, text)


def _server_error(error: Exception, where: str) -> RunError:
    if isinstance(error, TimeoutError | openai.APITimeoutError):
        return RunError(f"{where}: the model server did not answer in time")
    if isinstance(error, openai.APIStatusError):
        return RunError(f"{where}: the model server refused the request: {error}")
    cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
    return RunError(f"{where}: the model server gave no answer: {error}{cause}")
