"""Chat requests under a Routine: the `routine` field, what may not stand beside it, and what it turns a request into."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest, ChatCompletionToolsParam
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import StructuredOutputsParams

from routine_grammar.api import Turn
from routine_grammar.engines.vllm.checking import compile_pool
from routine_grammar.errors import MemoryKeyError, RoutineError, RoutineGrammarError
from routine_grammar.grammar.turn import MAX_KEYS
from routine_grammar.routine.keys import MemoryKey, parse_key
from routine_grammar.routine.values import schema_problem
from routine_grammar.serve.catalogue import Catalogue
from routine_grammar.serve.checking import require_characters
from routine_grammar.serve.history import position_of
from routine_grammar.serve.metrics import COMPILE
from routine_grammar.serve.parsing import TurnPlan
from routine_grammar.serve.prompt import PromptStyle, prompt_markers, system_block, with_routine

REFUSED_BESIDE = (
    *("tools", "tool_choice", "functions", "function_call", "response_format", "structured_outputs"),
    *("stop", "stop_token_ids", "ignore_eos", "min_tokens", "bad_words", "allowed_token_ids", "use_beam_search"),
    *("chat_template", "continue_final_message", "echo"),
    *("repetition_detection", "thinking_token_budget", "include_stop_str_in_output"),
)
# Values by which a field says nothing. A thinking budget of 0 forces a token, and -1 is none.
SAYS_NOTHING: tuple[Any, ...] = (None, False, [], 0)
SAYS_NO_BUDGET: tuple[Any, ...] = (None, -1)
MAX_SCHEMA_VALUES = 10_000  # over all keys of a request
JSON_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")


class MemoryEntry(BaseModel):
    """A live key: its JSON type or schema, and how its value begins."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    type: str | list[str] | None = None
    json_schema: dict[str, Any] | None = Field(None, alias="schema")
    preview: str = ""


class RoutineField(BaseModel):
    """`routine` in a chat request."""

    model_config = ConfigDict(extra="forbid")

    name: str
    position: str | None = None
    memory: dict[str, MemoryEntry] = Field(default_factory=dict)
    prompt: PromptStyle = PromptStyle.FULL


class RoutineChatRequest(ChatCompletionRequest):  # type: ignore[misc]
    """vLLM's chat request with the `routine` field."""

    routine: RoutineField | None = None
    _plan: TurnPlan | None = PrivateAttr(None)


@dataclass(frozen=True, slots=True)
class PreparedTurn:
    """A turn ready to be put into a request."""

    turn: Turn
    plan: TurnPlan
    payload: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]


async def apply_routine(request: RoutineChatRequest, body: Mapping[str, Any], catalogue: Catalogue) -> None:
    """Turn a chat request with a `routine` field into vLLM's own, constrained one; compiling is done off the event loop.

    `body` is what the client sent, before vLLM's validators changed it. Raises `VLLMValidationError`, a 400.
    """
    field = request.routine
    assert field is not None
    for name in REFUSED_BESIDE:
        if body.get(name) not in (SAYS_NO_BUDGET if name == "thinking_token_budget" else SAYS_NOTHING):
            raise VLLMValidationError(f"`{name}` can't stand beside `routine`, which decides it", parameter=name)
    loop = asyncio.get_running_loop()
    try:
        parallel = request.parallel_tool_calls is not False
        messages = body.get("messages") or []
        prepared = await loop.run_in_executor(compile_pool(), prepare_turn, catalogue, field, messages, parallel)
    except RoutineGrammarError as error:
        raise VLLMValidationError(str(error), parameter="routine") from error
    request.messages = prepared.messages
    request.tools = [ChatCompletionToolsParam.model_validate(tool) for tool in prepared.tools]
    request.tool_choice = "auto"
    request.structured_outputs = StructuredOutputsParams(grammar=prepared.payload)
    request._plan = prepared.plan


def prepare_turn(
    catalogue: Catalogue, field: RoutineField, messages: Sequence[Mapping[str, Any]], parallel: bool = True
) -> PreparedTurn:
    """Find the position, compile the turn, and write the prompt; `parallel`: the turn may have several calls.

    Raises `RoutineGrammarError`s.
    """
    with COMPILE.time():
        return _prepared(catalogue, field, messages, parallel)


def _prepared(catalogue: Catalogue, field: RoutineField, messages: Sequence[Mapping[str, Any]], parallel: bool) -> PreparedTurn:
    compiled = catalogue.get(field.name)
    _check_messages(messages)
    ids = catalogue.ids(field.name)
    position = field.position if field.position is not None else position_of(compiled.graph, messages, ids)
    keys = live_keys(catalogue, field)
    turn = catalogue.turn(field.name, position, keys, parallel)
    markers = prompt_markers(compiled.scope.dialect.markers, catalogue.added_tokens)
    chat = with_routine([dict(m) for m in messages], system_block(compiled.routine, field.prompt), keys, markers)
    tools = [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.input_schema)},
        }
        for tool in compiled.tools
    ]
    live, matcher = compiled.live(keys), partial(catalogue.matcher, turn)
    plan = TurnPlan(compiled.graph, position, live, ids, compiled.scope.dialect.name, matcher)
    return PreparedTurn(turn, plan, turn.payload, chat, tools)


def live_keys(catalogue: Catalogue, field: RoutineField) -> tuple[MemoryKey, ...]:
    """The request's memory keys; one without a type has the type that the Routine declares for it.

    Raises `MemoryKeyError` for a name that is no key's, and for a type that is none.
    """
    compiled = catalogue.get(field.name)
    if len(field.memory) > MAX_KEYS:
        raise MemoryKeyError(f"{len(field.memory)} memory keys; the bound is {MAX_KEYS}")
    keys = []
    left = MAX_SCHEMA_VALUES
    for name, entry in sorted(field.memory.items()):
        left -= _count_values(name, entry.json_schema, left)
        parse_key(name, compiled.scope.sigil)
        require_characters(entry.preview, f"preview of {name}")
        said = _schema_said(name, entry)
        keys.append(MemoryKey(name, compiled.key_types.get(name) if said is None else said, preview=entry.preview))
    return tuple(keys)


def _count_values(name: str, schema: Any, most: int) -> int:
    """How many values a schema has in all; raises `MemoryKeyError` where they are more than `most`."""
    count, waiting = 0, [schema]
    while waiting:
        value = waiting.pop()
        children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        count += len(children)
        if count > most:
            raise MemoryKeyError(
                f"memory key {name!r:.80}: the schemas of a request may have {MAX_SCHEMA_VALUES} values in all; with this one "
                "they have more"
            )
        waiting.extend(children)
    return count


def _schema_said(name: str, entry: MemoryEntry) -> Mapping[str, Any] | None:
    """The JSON Schema that a request gives a key; None where it gives none."""
    if entry.type is not None and entry.json_schema is not None:
        raise MemoryKeyError(f"memory key {name!r}: expected `type` or `schema`, not both")
    if entry.type is not None:
        named = [entry.type] if isinstance(entry.type, str) else entry.type
        if not named or len(set(named)) < len(named) or not set(named) <= set(JSON_TYPES):
            raise MemoryKeyError(
                f"memory key {name!r}: type {entry.type!r:.80}; expected one or more of {', '.join(JSON_TYPES)}"
            )
        return {"type": entry.type}
    if entry.json_schema is not None:
        _check_schema(name, entry.json_schema)
    return entry.json_schema


def _check_schema(name: str, schema: Mapping[str, Any]) -> None:
    try:
        problem = _known_problem(json.dumps(schema, sort_keys=True))
    except (TypeError, ValueError):  # a `$schema` or an `$id` that is no text
        problem = "invalid JSON Schema"
    if problem:
        raise MemoryKeyError(f"memory key {name!r}: {problem}")


@lru_cache(maxsize=4096)  # clients send the same types with every turn
def _known_problem(schema: str) -> str | None:
    return schema_problem(json.loads(schema))


def _read_whole(value: Any) -> None:
    """Go through all of a validated value: pydantic checks an iterable only as it is read."""
    if isinstance(value, dict):
        for part in value.values():
            _read_whole(part)
    elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for part in value:
            _read_whole(part)


def _check_messages(messages: Sequence[Mapping[str, Any]]) -> None:
    """Refuse what vLLM would refuse as it reads the messages: by then they are ours, and changed."""
    if not messages:
        raise RoutineError("messages: expected at least one")
    for index, message in enumerate(messages):
        if not isinstance(message.get("content"), str | list | None):
            raise RoutineError(f"messages[{index}].content: expected text, or a list of parts")
        calls = message.get("tool_calls") or []
        if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
            raise RoutineError(f"messages[{index}].tool_calls: expected a list of calls")
        if not all(isinstance(call.get("function"), dict) for call in calls):
            raise RoutineError(f"messages[{index}].tool_calls: expected a function in every call")
    try:
        for index, message in enumerate(messages):
            require_characters(json.dumps(message, ensure_ascii=False), f"messages[{index}]")
        _read_whole(ChatCompletionRequest.model_validate({"messages": json.loads(json.dumps(messages))}).messages)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or part.islower())
        raise RoutineError(f"messages, {where}: {first['msg']}") from error
    except RecursionError as error:
        raise RoutineError("messages are nested too deeply") from error
