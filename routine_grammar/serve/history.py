"""Where a run stands, read off a chat's messages: by our call ids, else by replaying the calls over the graph.

Only assistant tool calls are read. Message texts are not: a tool's result could forge anything there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from routine_grammar.errors import RoutineError
from routine_grammar.routine.graph import START, Graph
from routine_grammar.serve.call_ids import read_call_id


def position_of(graph: Graph, messages: Iterable[Mapping[str, Any]]) -> str:
    """The position after a chat's messages.

    Raises `RoutineError` where a call is of another Routine or version, where no path of the Routine fits the calls, or
    where several positions do: then the request has to say its position.
    """
    positions = {START}
    for message in messages:
        if message.get("role") != "assistant":
            continue
        for call in message.get("tool_calls") or ():
            positions = _after(graph, positions, call, message)
    if len(positions) > 1:
        raise RoutineError(f"the calls so far fit the positions {', '.join(sorted(positions))}: give `routine.position`")
    return positions.pop()


def _after(graph: Graph, positions: set[str], call: Any, message: Mapping[str, Any]) -> set[str]:
    call_id, name = call.get("id"), (call.get("function") or {}).get("name")
    known = read_call_id(call_id)
    if known is not None:
        return {_checked(graph, known.routine, known.version, known.position, str(call_id))}
    content = message.get("content")
    after = set()
    for position in positions:
        try:
            after.add(graph.step_taken(position, content if isinstance(content, str) else None, str(name)).id)
        except RoutineError:
            continue
    if not after:
        legal = sorted({step.tool or "" for position in positions for step in graph.successors(position).steps})
        raise RoutineError(
            f"the call of {str(name)!r:.80} (id {str(call_id)!r:.80}) is no step of routine {graph.routine.name!r} that may "
            f"come there; legal are {', '.join(legal) or 'none: the Routine is at its end'}"
        )
    return after


def _checked(graph: Graph, routine: str, version: str, position: str, call_id: str) -> str:
    if routine != graph.routine.name:
        raise RoutineError(f"tool call id {call_id!r} is of routine {routine!r}, not of {graph.routine.name!r}")
    if version != graph.routine.version:
        raise RoutineError(
            f"tool call id {call_id!r} is of version {version} of routine {routine!r}; it has been edited since, and is now "
            f"{graph.routine.version}: begin anew, or give `routine.position`"
        )
    graph.successors(position)
    return position
