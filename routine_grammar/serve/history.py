"""Where a run stands, read off a chat's messages: by our call ids, else by replaying the calls over the graph.

Only assistant tool calls are read. Message texts are not: a tool's result could forge anything there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from routine_grammar.errors import RoutineError
from routine_grammar.routine.graph import START, Graph, Taken
from routine_grammar.routine.positions import Position
from routine_grammar.serve.call_ids import CallId, CallIdForm, LongIds


def position_of(graph: Graph, messages: Iterable[Mapping[str, Any]], ids: CallIdForm | None = None) -> str:
    """The position after a chat's messages; `ids`: how this Routine's are written.

    The newest call with an id of this Routine decides, whatever stands before it: other tools, other Routines, older versions.
    Raises `RoutineError` where no call has one and the newest one of ours is of another Routine or version, where no path of
    the Routine fits the calls, or where several positions do: then the request has to say its position.
    """
    ids = ids or LongIds(graph)
    said = [message for message in messages if message.get("role") == "assistant"]
    calling = [message for message in said if message.get("tool_calls") or message.get("function_call")]
    begin = max((place for place, message in enumerate(calling) if _is_ours(graph, message, ids)), default=0)
    positions = {START}
    for message in calling[begin:]:
        positions = _after(graph, positions, message, ids)
    if len(positions) > 1:
        raise RoutineError(f"the calls so far fit the positions {', '.join(sorted(positions))}: give `routine.position`")
    return positions.pop()


def _calls(message: Mapping[str, Any]) -> Sequence[Any]:
    """The calls of an assistant message."""
    if message.get("function_call"):
        raise RoutineError("a message has `function_call`, OpenAI's older form, which is not read: send `tool_calls`")
    return message.get("tool_calls") or ()


def _is_ours(graph: Graph, message: Mapping[str, Any], ids: CallIdForm) -> bool:
    """Whether a call of a message has an id of this Routine as it is now."""
    known = (ids.read(call.get("id")) for call in message.get("tool_calls") or ())
    return any(each is not None and (each.routine, each.version) == (graph.routine.name, ids.version) for each in known)


def _after(graph: Graph, positions: set[str], message: Mapping[str, Any], ids: CallIdForm) -> set[str]:
    """The positions behind all calls of a message; behind the first, one that a Routine allows in the same turn may follow."""
    before: list[str | Taken] = [*positions]
    furthest: Position | None = None
    for call in _calls(message):
        call_id, name = call.get("id"), str((call.get("function") or {}).get("name"))
        known = ids.read(call_id)
        if known is not None:
            position = _checked(graph, known, str(call_id), name, ids.version)
            furthest = _further(furthest, position)
            before = [str(furthest)]
            continue
        taken = [after for each in before for after in _taken(graph, each, message.get("content"), name)]
        if not taken:
            legal = sorted({tool for each in before for tool in _legal(graph, each)})
            raise RoutineError(
                f"the call of {name!r:.80} (id {str(call_id)!r:.80}) is no step of routine {graph.routine.name!r} that may "
                f"come there; legal are {', '.join(legal) or 'none: the Routine is at its end'}"
            )
        before = [*taken]
    return {each if isinstance(each, str) else str(each.position) for each in before}


def _further(one: Position | None, other: Position) -> Position:
    """The position behind both of two calls of a message, which may be sent back in any order."""
    if one is None or (one.node, one.item) != (other.node, other.item):
        return other
    return replace(one, done=tuple(sorted({*one.done, *other.done})))


def _taken(graph: Graph, before: str | Taken, content: Any, tool: str) -> list[Taken]:
    """What a call may be, at a position or behind another call of the same message."""
    if isinstance(before, str):
        return graph.calls_fitting(before, content if isinstance(content, str) else None, tool)
    return [graph.next_call_taken(before, tool)] if before.rest.with_tool(tool) is not None else []


def _legal(graph: Graph, before: str | Taken) -> list[str]:
    steps = graph.successors(before).steps if isinstance(before, str) else before.rest.steps
    return [str(step.tool) for step in steps]


def _checked(graph: Graph, known: CallId, call_id: str, tool: str, version: str) -> Position:
    """The position that an id says, of this Routine as it is now, behind a call of that tool."""
    if known.routine != graph.routine.name:
        raise RoutineError(f"tool call id {call_id!r:.80} is of routine {known.routine!r}, not of {graph.routine.name!r}")
    if known.version != version:
        raise RoutineError(
            f"tool call id {call_id!r:.80} is of version {known.version} of routine {known.routine!r}; it has been edited "
            f"since, and is now {version}: begin anew, or give `routine.position`"
        )
    position = graph.position(known.position)
    done = sorted({str(step.tool) for step in graph.steps_at(position)})
    if tool not in done:
        called = " or ".join(done) or "nothing"
        raise RoutineError(f"tool call id {call_id!r:.80} is that of a call of {called}, not of {tool!r:.80}")
    return position
