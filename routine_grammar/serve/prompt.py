"""What the server adds to a chat under a Routine: the Routine in the system message, the live keys in the newest one.

The system block is byte-identical over the turns of a run, so that prefix caching holds. What tools said, earlier calls and
the listing of live keys are made harmless where they would read as a marker. What users, the system and the assistant say in
words is left as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any

from routine_grammar.agent.memory import MARKERS, neutralise, neutralise_parts
from routine_grammar.errors import RoutineError
from routine_grammar.routine.keys import MemoryKey
from routine_grammar.routine.model import Routine, Step
from routine_grammar.routine.text import to_text

Message = dict[str, Any]
MAX_PREVIEW_CHARS = 120
MAX_ARGUMENT_DEPTH = 128
_SAID_BY_TOOLS = ("tool", "function")
_LISTING = ("<variables>", "</variables>")


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


def prompt_markers(dialect_markers: Iterable[str], added_tokens: Iterable[str]) -> tuple[str, ...]:
    """Every text that a tool's result may not spell: the dialect's markers, the usual ones, and the tokenizer's own.

    Tokenizers read an added token's text as that token, whoever wrote it. Those that spell words or white space stay.
    """
    own = (token for token in added_tokens if token.strip() and not token.isalnum())
    return tuple(sorted({*MARKERS, *dialect_markers, *own}))


def with_routine(messages: Sequence[Message], block: str, keys: Iterable[MemoryKey], markers: Sequence[str]) -> list[Message]:
    """The chat with the block in its system message and the live keys at the end of its newest message.

    Raises `RoutineError` for an earlier call whose arguments are nested too deeply.
    """
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
        kind = "" if key.schema is None else f" ({_kind(key.schema)})"
        preview = "\\n".join(key.preview[:MAX_PREVIEW_CHARS].splitlines())
        line = f"{key.name}{kind}: {preview}" if preview else f"{key.name}{kind}"
        lines.append(neutralise(line, (*markers, *_LISTING)))
    return "<variables>\n" + "\n".join(lines) + "\n</variables>" if lines else ""


def _kind(schema: Mapping[str, Any]) -> str:
    named = schema.get("type", "value")
    return " or ".join(map(str, named)) if isinstance(named, list) else str(named)


def _appended(content: Any, text: str) -> Any:
    if isinstance(content, list):
        return [*content, {"type": "text", "text": text}]
    return f"{content}\n\n{text}" if content else text


def _without_tool(step: Step) -> Step:
    branches = tuple(replace(branch, steps=tuple(map(_without_tool, branch.steps))) for branch in step.branches)
    return replace(step, tool=None, arguments={}, branches=branches)


def _harmless(message: Mapping[str, Any], markers: Sequence[str]) -> Message:
    """The message with markers in a tool's result, and in calls, made plain text."""
    shown = dict(message)
    if shown.get("role") in _SAID_BY_TOOLS:
        content = shown.get("content")
        safe = _harmless_parts(content, markers) if isinstance(content, list) else _harmless_value(content, markers)
        shown = {field: _harmless_value(value, markers) for field, value in shown.items() if field != "content"}
        shown |= {"content": safe} if "content" in message else {}
    if shown.get("tool_calls"):
        shown["tool_calls"] = [_harmless_call(call, markers) for call in shown["tool_calls"]]
    return shown


def _harmless_parts(parts: Sequence[Any], markers: Sequence[str]) -> list[Any]:
    """Parts of a content; some templates write their texts one right after the other."""
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    safe = iter(neutralise_parts([text for text in texts if isinstance(text, str)], markers))
    shown: list[Any] = []
    for part, text in zip(parts, texts, strict=True):
        if not isinstance(text, str):
            shown.append(_harmless_value(part, markers))
        elif isinstance(part, str):
            shown.append(next(safe))
        else:
            shown.append({**_harmless_value(part, markers), "text": next(safe)})
    return shown


def _harmless_call(call: Mapping[str, Any], markers: Sequence[str]) -> dict[str, Any]:
    function = dict(call.get("function") or {})
    name = _harmless_value(function.get("name"), markers)
    try:
        arguments = _harmless_arguments(function.get("arguments"), markers)
    except RecursionError as error:
        raise RoutineError(f"the arguments of the earlier call of {name!r:.80} are nested too deeply") from error
    changed = {"name": name, "arguments": arguments}
    said = {"id": _harmless_value(call["id"], markers)} if "id" in call else {}
    return {**call, **said, "function": {**function, **{field: value for field, value in changed.items() if field in function}}}


def _harmless_arguments(arguments: Any, markers: Sequence[str]) -> Any:
    """The arguments of a call, which are JSON text with escapes that templates may undo."""
    if not isinstance(arguments, str):
        return _harmless_value(arguments, markers)
    try:
        decoded = json.loads(arguments or "{}")
    except ValueError:
        return neutralise(arguments, markers)
    safe = _harmless_value(decoded, markers)
    return arguments if safe == decoded else json.dumps(safe, ensure_ascii=False)


def _harmless_value(value: Any, markers: Sequence[str], depth: int = 0) -> Any:
    if depth > MAX_ARGUMENT_DEPTH:
        raise RoutineError(f"a value of an earlier call or result is nested deeper than {MAX_ARGUMENT_DEPTH} levels")
    match value:
        case str(text):
            return neutralise(text, markers)
        case dict(items):
            return {neutralise(name, markers): _harmless_value(item, markers, depth + 1) for name, item in items.items()}
        case list(items):
            return [_harmless_value(item, markers, depth + 1) for item in items]
        case _:
            return value
