"""What the server adds to a chat under a Routine: the Routine in the system message, the live keys in the newest one.

The system block is byte-identical over the turns of a run, so that prefix caching holds. What tools said is made harmless
where it would read as a marker.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any

from routine_grammar.agent.memory import neutralise
from routine_grammar.routine.keys import MemoryKey
from routine_grammar.routine.model import Routine, Step
from routine_grammar.routine.text import to_text

Message = dict[str, Any]
MAX_PREVIEW_CHARS = 120


class PromptStyle(StrEnum):
    """How much of the Routine the prompt shows."""

    FULL = "full"
    NO_TOOL_NAMES = "no_tool_names"
    NONE = "none"


def system_block(routine: Routine, style: PromptStyle) -> str:
    """The text appended to the system message; empty for `NONE`."""
    if style is PromptStyle.NONE:
        return ""
    shown = routine if style is PromptStyle.FULL else replace(routine, steps=tuple(map(_without_tool, routine.steps)))
    return (
        "Follow this Routine step by step: in each turn, call the tool of the next step. Where branches follow a step, choose "
        "the one whose condition holds. A value that begins with memory_ is a key: write the key where its value is needed.\n\n"
        f"{to_text(shown)}"
    )


def with_routine(messages: Sequence[Message], block: str, keys: Iterable[MemoryKey], markers: Sequence[str]) -> list[Message]:
    """The chat with the block in its system message and the live keys at the end of its newest message."""
    chat = [_harmless(message, markers) for message in messages]
    if block:
        if chat and chat[0].get("role") == "system":
            chat[0] = {**chat[0], "content": _appended(chat[0].get("content"), block)}
        else:
            chat.insert(0, {"role": "system", "content": block})
    listing = keys_block(keys, markers)
    if listing and chat:
        chat[-1] = {**chat[-1], "content": _appended(chat[-1].get("content"), listing)}
    return chat


def keys_block(keys: Iterable[MemoryKey], markers: Sequence[str]) -> str:
    """The live keys, each with its type and the beginning of its value."""
    lines = []
    for key in keys:
        kind = "" if key.schema is None else f" ({key.schema.get('type', 'value')})"
        preview = neutralise(key.preview[:MAX_PREVIEW_CHARS].replace("\n", "\\n"), tuple(markers))
        lines.append(f"{key.name}{kind}: {preview}" if preview else f"{key.name}{kind}")
    return "<variables>\n" + "\n".join(lines) + "\n</variables>" if lines else ""


def _appended(content: Any, text: str) -> Any:
    if isinstance(content, list):
        return [*content, {"type": "text", "text": text}]
    return f"{content}\n\n{text}" if content else text


def _without_tool(step: Step) -> Step:
    branches = tuple(replace(branch, steps=tuple(map(_without_tool, branch.steps))) for branch in step.branches)
    return replace(step, tool=None, arguments={}, branches=branches)


def _harmless(message: Mapping[str, Any], markers: Sequence[str]) -> Message:
    """The message with markers in a tool's result, and in the arguments of calls, made plain text."""
    shown = dict(message)
    if shown.get("role") == "tool" and isinstance(shown.get("content"), str):
        shown["content"] = neutralise(shown["content"], tuple(markers))
    if shown.get("tool_calls"):
        shown["tool_calls"] = [_harmless_call(call, markers) for call in shown["tool_calls"]]
    return shown


def _harmless_call(call: Mapping[str, Any], markers: Sequence[str]) -> dict[str, Any]:
    function = dict(call.get("function") or {})
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except (TypeError, ValueError):
        return dict(call)
    safe = _harmless_value(arguments, markers)
    if safe != arguments:
        function["arguments"] = json.dumps(safe, ensure_ascii=False)
    return {**call, "function": function}


def _harmless_value(value: Any, markers: Sequence[str]) -> Any:
    match value:
        case str(text):
            return neutralise(text, tuple(markers))
        case dict(items):
            return {name: _harmless_value(item, markers) for name, item in items.items()}
        case list(items):
            return [_harmless_value(item, markers) for item in items]
        case _:
            return value
