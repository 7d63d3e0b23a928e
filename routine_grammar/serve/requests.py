"""Chat requests under a Routine: the `routine` field, what may not stand beside it, and what it turns a request into."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest, ChatCompletionToolsParam
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import StructuredOutputsParams

from routine_grammar.api import Turn
from routine_grammar.engines.vllm.checking import compile_pool
from routine_grammar.errors import RoutineGrammarError
from routine_grammar.routine.keys import MemoryKey
from routine_grammar.serve.catalogue import Catalogue
from routine_grammar.serve.history import position_of
from routine_grammar.serve.parsing import TurnPlan
from routine_grammar.serve.prompt import PromptStyle, system_block, with_routine

REFUSED_BESIDE = (
    *("tools", "tool_choice", "functions", "function_call", "parallel_tool_calls", "response_format", "structured_outputs"),
    *("stop", "stop_token_ids", "ignore_eos", "min_tokens", "bad_words", "allowed_token_ids", "use_beam_search"),
    *("chat_template", "continue_final_message", "echo"),
)


class MemoryEntry(BaseModel):
    """A live key: its JSON type or schema, and how its value begins."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    type: str | None = None
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
        if body.get(name) not in (None, False, [], 0):
            raise VLLMValidationError(f"`{name}` can't stand beside `routine`, which decides it", parameter=name)
    loop = asyncio.get_running_loop()
    try:
        prepared = await loop.run_in_executor(compile_pool(), prepare_turn, catalogue, field, body.get("messages") or [])
    except RoutineGrammarError as error:
        raise VLLMValidationError(str(error), parameter="routine") from error
    request.messages = prepared.messages
    request.tools = [ChatCompletionToolsParam.model_validate(tool) for tool in prepared.tools]
    request.tool_choice = "auto"
    request.structured_outputs = StructuredOutputsParams(grammar=prepared.payload)
    request._plan = prepared.plan


def prepare_turn(catalogue: Catalogue, field: RoutineField, messages: Sequence[Mapping[str, Any]]) -> PreparedTurn:
    """Find the position, compile the turn, and write the prompt. Raises `RoutineGrammarError`s."""
    compiled = catalogue.get(field.name)
    position = field.position if field.position is not None else position_of(compiled.graph, messages)
    keys = live_keys(catalogue, field)
    turn = catalogue.turn(field.name, position, keys)
    markers = compiled.scope.dialect.markers
    chat = with_routine([dict(m) for m in messages], system_block(compiled.routine, field.prompt), keys, markers)
    tools = [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.input_schema)},
        }
        for tool in compiled.tools
    ]
    return PreparedTurn(turn, TurnPlan(compiled.graph, position), turn.payload, chat, tools)


def live_keys(catalogue: Catalogue, field: RoutineField) -> tuple[MemoryKey, ...]:
    """The request's memory keys; one without a type has the type that the Routine declares for it."""
    compiled = catalogue.get(field.name)
    keys = []
    for name, entry in sorted(field.memory.items()):
        schema: Mapping[str, Any] | None = entry.json_schema
        if schema is None:
            schema = {"type": entry.type} if entry.type is not None else compiled.key_types.get(name)
        keys.append(MemoryKey(name, schema, preview=entry.preview))
    return tuple(keys)
