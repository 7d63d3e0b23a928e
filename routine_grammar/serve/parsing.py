"""vLLM's tool parser under a Routine: calls get ids that carry the position, and arguments keep the bytes decoded."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from routine_grammar.engines.vllm.checking import compile_pool
from routine_grammar.errors import RoutineError
from routine_grammar.masks.matcher import Matcher
from routine_grammar.routine.graph import Graph, Taken
from routine_grammar.serve.call_ids import CallIdForm
from routine_grammar.serve.metrics import count_turn


@dataclass(frozen=True, slots=True)
class TurnPlan:
    """What a request's turn needs again when its output is parsed; `live` are its keys, with the default sigil."""

    graph: Graph
    position: str
    live: frozenset[str]
    ids: CallIdForm
    dialect: str
    matcher: Callable[[], Matcher] | None = None


def _count(plan: TurnPlan, token_ids: Sequence[int]) -> None:
    """Count a decoded turn in the metrics, off the event loop."""
    if plan.matcher is not None:
        compile_pool().submit(count_turn, plan.graph.routine.name, tuple(token_ids), plan.matcher)


class CallIds:
    """Gives the calls of one output their ids, in the order in which they come."""

    def __init__(self, plan: TurnPlan) -> None:
        self._plan = plan
        self._last: Taken | None = None

    def next(self, content: str, tool: str) -> str:
        """The id of the next call; `content` stands before the first one."""
        graph = self._plan.graph
        try:
            if self._last is None:
                self._last = graph.call_taken(self._plan.position, content, tool, self._plan.live)
            else:
                self._last = graph.next_call_taken(self._last, tool)
        except RoutineError:  # can only be where decoding was cut off: the call is not whole, and its id says nothing
            return self._plan.ids.unknown
        return self._plan.ids.make(str(self._last.position))


# What vLLM's streaming parsers of these may be given at once. That of Llama goes on by one step a piece, so that long pieces
# lose calls, and never sends `{}`; that of Mistral's older form takes the colon before arguments for a part of them.
_IN_STEPS = {"llama3_json": re.compile(r"[^{},]*[{},]|[^{},]+"), "mistral_v3": re.compile(r"\A.*\[TOOL_CALLS\]|.", re.DOTALL)}
_REWRITING = frozenset(("llama3_json",))  # its streaming parser does not keep the bytes either


def plan_of(request: Any) -> TurnPlan | None:
    """The plan of a chat request under a Routine; None for any other."""
    plan = getattr(request, "_plan", None)
    return plan if isinstance(plan, TurnPlan) else None


def _give_whole(plan: TurnPlan, calls: Sequence[Any], content: str | None, delta: Any) -> None:
    """Give whole calls their ids, and the arguments of the streaming parser: the whole one rewrites them."""
    exact: dict[int, str] = {}
    for part in delta.tool_calls if delta else ():
        exact[part.index] = exact.get(part.index, "") + (part.function.arguments or "")
    ids = CallIds(plan)
    for index, call in enumerate(calls):
        call.id = ids.next(content or "", call.name)
        call.arguments = exact.get(index, call.arguments)


def _give_ids(ids: CallIds, parts: Sequence[Any], content: str) -> None:
    """Give the calls that begin in a piece of a stream their ids."""
    for part in parts:
        if part.id:
            part.id = ids.next(content, part.function.name)


def _join(call: Any, part: Any) -> None:
    """Add a later piece of a call to it. What neither says stays unset: a client would take a null for what it then is."""
    for name in ("id", "type"):
        if (value := getattr(part, name)) is not None:
            setattr(call, name, value)
    if part.function is not None:
        if call.function is None:
            call.function = part.function
            return
        if part.function.name is not None:
            call.function.name = part.function.name
        call.function.arguments = (call.function.arguments or "") + (part.function.arguments or "")


def _joined(deltas: Sequence[Any]) -> Any:
    """Pieces of a stream as one; None where there are none."""
    from vllm.entrypoints.generate.base.protocol import DeltaMessage

    said: dict[str, Any] = {}
    parts: dict[int, Any] = {}
    for delta in (delta for delta in deltas if delta is not None):
        for name in ("content", "reasoning"):
            if text := getattr(delta, name):
                said[name] = said.get(name, "") + text
        for part in delta.tool_calls or ():
            known = parts.setdefault(part.index, part)
            if known is not part:
                _join(known, part)
    if parts:
        said["tool_calls"] = list(parts.values())
    return DeltaMessage(**said) if said else None


def _rests(unsent: dict[int, str]) -> Any:
    """A piece of a stream with more of the arguments of calls that were begun."""
    from vllm.entrypoints.generate.base.protocol import DeltaFunctionCall, DeltaMessage, DeltaToolCall

    parts = [DeltaToolCall(index=index, function=DeltaFunctionCall(arguments=rest)) for index, rest in unsent.items()]
    return DeltaMessage(tool_calls=parts)


class _Steps:
    """Feeds a streaming parser piece by piece; at the end it adds what the parser did not send of the calls it began."""

    def __init__(self, fresh: Callable[[], Any], piece: re.Pattern[str]) -> None:
        self._fresh = fresh
        self._piece = piece
        self._text = ""
        self._sent: dict[int, str] = {}

    def parse(
        self,
        parse_delta: Callable[..., Any],
        text: str,
        ids: list[int],
        request: Any,
        *args: Any,
        finished: bool,
        **kwargs: Any,
    ) -> Any:
        """Parse a piece of a streamed output by `parse_delta`."""
        pieces = self._piece.findall(text) or [""]
        found = [parse_delta(pieces[0], ids, request, *args, finished=finished and len(pieces) == 1, **kwargs)]
        for left, piece in zip(range(len(pieces) - 2, -1, -1), pieces[1:], strict=True):
            found.append(parse_delta(piece, [], request, *args, finished=finished and left == 0, **kwargs))
        self._text += text
        delta = _joined(found)
        for part in delta.tool_calls if delta else ():
            self._sent[part.index] = self._sent.get(part.index, "") + (part.function.arguments or "")
        unsent = self._unsent(request) if finished and self._sent else {}
        return _joined([delta, _rests(unsent)]) if unsent else delta

    def _unsent(self, request: Any) -> dict[int, str]:
        """The rest of the arguments of each call that was begun, by the whole parser."""
        _, _, calls = self._fresh().parse(self._text, request, True)
        whole = {index: call.arguments for index, call in enumerate(calls or ())}
        begun = {index: sent for index, sent in self._sent.items() if whole.get(index, "").startswith(sent)}
        return {index: whole[index][len(sent) :] for index, sent in begun.items() if whole.get(index, "") != sent}


class _Stream:
    """A streamed output under a Routine, read piece by piece by the composed parser's `parse_delta`."""

    def __init__(self, plan: TurnPlan, fresh: Callable[[], Any]) -> None:
        self._plan = plan
        self._ids = CallIds(plan)
        self._steps = _Steps(fresh, _IN_STEPS[plan.dialect]) if plan.dialect in _IN_STEPS else None
        self._content = ""
        self._tokens: list[int] = []

    def read(self, parse: Callable[..., Any], text: str, ids: list[int], request: Any, *args: Any, **kwargs: Any) -> Any:
        """Parse a piece; the calls that begin in it get their ids."""
        self._tokens += ids
        if kwargs["finished"]:
            _count(self._plan, self._tokens)
        delta = self.parsed(parse, text, ids, request, *args, **kwargs)
        if delta is not None:
            self._content += delta.content or ""
            _give_ids(self._ids, delta.tool_calls, self._content)
        return delta

    def parsed(self, parse: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Parse a piece, in such steps as the dialect's parser needs."""
        return parse(*args, **kwargs) if self._steps is None else self._steps.parse(parse, *args, **kwargs)


def _read_whole(
    plan: TurnPlan, fresh: Callable[[], Any], said: tuple[Any, ...], request: Any, text: str, ids: Sequence[int]
) -> None:
    """Give the calls in a whole output, which the composed parser has read, their ids and exact arguments."""
    _count(plan, ids)
    _, content, calls = said
    if calls:
        exact = None
        if plan.dialect not in _REWRITING:
            exact = _Stream(plan, fresh).parsed(fresh().parse_delta, text, list(ids), request, [], finished=True)
        _give_whole(plan, calls, content, exact)


def with_positions(parser: type[Any]) -> type[Any]:
    """A subclass of the parser class that vLLM composed, for requests under a Routine; others pass through unchanged."""

    class RoutineParser(parser):  # type: ignore[misc]
        """The composed parser, with call ids of ours."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._fresh: Callable[[], Any] = lambda: parser(*args, **kwargs)
            self._stream: _Stream | None = None

        def adjust_request(self, request: Any) -> Any:
            """Keep vLLM from replacing our grammar by one of its tools' own."""
            if plan_of(request) is None:
                return super().adjust_request(request)
            constraint, request.structured_outputs = request.structured_outputs, None
            request = super().adjust_request(request)
            request.structured_outputs, request.response_format = constraint, None
            return request

        def parse(
            self,
            model_output: str,
            request: Any,
            enable_auto_tools: bool = False,
            model_output_token_ids: Sequence[int] = (),
        ) -> Any:
            """Parse a whole output."""
            said = super().parse(model_output, request, enable_auto_tools, model_output_token_ids)
            if (plan := plan_of(request)) is not None:
                _read_whole(plan, self._fresh, said, request, model_output, model_output_token_ids)
            return said

        def parse_delta(self, delta_text: str, delta_token_ids: list[int], request: Any, *args: Any, **kwargs: Any) -> Any:
            """Parse a piece of a streamed output."""
            parse = super().parse_delta
            if (plan := plan_of(request)) is None:
                return parse(delta_text, delta_token_ids, request, *args, **kwargs)
            self._stream = self._stream or _Stream(plan, self._fresh)
            return self._stream.read(parse, delta_text, delta_token_ids, request, *args, **kwargs)

    RoutineParser.__name__ = RoutineParser.__qualname__ = f"Routine{parser.__name__}"
    return RoutineParser
