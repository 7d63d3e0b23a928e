"""Execution: a Routine carried out against an OpenAI-compatible server: turn, call, tool, memory, next position.

In: a Routine, running tool servers, a client, the inputs. Out: one event per step taken, then how the run ended. Only calls
that the Routine and the tool's schema allow are made, whatever the server lets a model write. It keeps everything in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from typing import Any

from openai import AsyncOpenAI

from routine_grammar.agent.calls import CheckedCall, ToolCall, check_calls, lists_written, with_items, written_values
from routine_grammar.agent.completions import (
    Message,
    Reply,
    complete,
    constrained_fields,
    plain_fields,
    plain_instructions,
    plain_notice,
    serves_routine,
)
from routine_grammar.agent.memory import MARKERS, VariableMemory, neutralise
from routine_grammar.agent.tools import CALL_TIMEOUT_S, ToolResult, ToolServers
from routine_grammar.errors import MemoryKeyError, RoutineError, RunError, SchemaError, ToolError
from routine_grammar.routine import (
    START,
    Graph,
    MemoryKey,
    Routine,
    Step,
    Successors,
    Taken,
    Tool,
    check,
    header_of,
    input_key,
    misfit,
)
from routine_grammar.routine.positions import place_name
from routine_grammar.routine.problems import nearest


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Bounds and wishes of a run.

    `attempts`: answers asked for in a turn, where the server does not constrain them. `closing_answer`: whether a model sums
    up behind the last step. `token_ids`: ask a constraining server for the decoded tokens. `request`: further fields of every
    chat request, such as `{"temperature": 0}`.
    """

    max_turns: int = 200
    attempts: int = 3
    model_timeout_s: float = 120.0
    tool_timeout_s: float = CALL_TIMEOUT_S
    closing_answer: bool = True
    token_ids: bool = False
    request: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("max_turns", "attempts", "model_timeout_s", "tool_timeout_s"):
            if (value := getattr(self, name)) <= 0:
                raise RunError(f"run settings: {name} is {value}; expected more than 0")


@dataclass(frozen=True, slots=True)
class CallMade:
    """One call of a turn: what the model wrote, what the tool got and gave.

    `decoded` are the arguments as written, `arguments` the same with keys resolved. `observation` is what the model is shown
    of the result.
    """

    call: ToolCall
    step: Step
    decoded: Mapping[str, Any]
    arguments: Mapping[str, Any]
    result: ToolResult
    observation: str


@dataclass(frozen=True, slots=True)
class TurnTaken:
    """One turn: what was allowed at `position`, and the calls that were made; several where the Routine allows that.

    `permitted` names the tools of the steps that could come next. `token_ids` is empty where the server did not tell.
    `attempts` counts the answers, refused ones included.
    """

    number: int
    position: str
    permitted: tuple[str, ...]
    may_end: bool
    live_keys: tuple[MemoryKey, ...]
    content: str
    calls: tuple[CallMade, ...]
    token_ids: tuple[int, ...]
    attempts: int


class End(Enum):
    """Why a run ended."""

    ANSWERED = "answered"  # the model gave a final answer where the Routine may end
    STEPS_DONE = "steps done"  # no step may come next, and no closing answer was asked for


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a run at `position`; `is_cut_off`: the answer hit a limit on its length."""

    end: End
    position: str
    turns: int
    answer: str | None = None
    is_cut_off: bool = False
    token_ids: tuple[int, ...] = ()


async def execute(
    routine: Routine,
    servers: ToolServers,
    client: AsyncOpenAI,
    model: str,
    *,
    inputs: Mapping[str, Any] | None = None,
    task: str = "",
    settings: RunSettings | None = None,
    memory: VariableMemory | None = None,
) -> AsyncIterator[TurnTaken | Finished]:
    """Carry out a Routine: yield an event per turn, then `Finished`. Close the iterator to stop early.

    `inputs` are stored under `memory_input_<name>` in `memory` (default: a new one). A server that lists the Routine at
    `GET /v1/routines` constrains the model; any other one is told the Routine and the tools, and what it answers is checked.

    Raises `RoutineError` where the Routine does not fit the tools, `RunError` where inputs don't fit, the model server
    fails, no allowed call comes, or a tool reports an error that the Routine does not handle (its event comes first);
    `ToolError` where a tool gives no result.
    """
    settings = settings or RunSettings()
    problems = check(routine, servers.tools)
    if problems:
        raise RoutineError(f"routine {routine.name!r} does not fit the tools:", tuple(map(str, problems)))
    memory, graph = memory or VariableMemory(), Graph.of(routine)
    _store_inputs(graph, inputs or {}, memory)
    constrained = await serves_routine(client, routine, settings.model_timeout_s)
    run = _Run(graph, servers, client, model, settings, memory, constrained, task)
    for turns in count():
        event = await run.turn(turns)
        yield event
        if isinstance(event, Finished):
            return
        for made in event.calls:
            if made.result.is_error and not made.step.handles_errors:
                raise RunError(f"{run.at(made.step)}: tool {made.call.name!r} failed: {made.result.text[:500]}")


def _store_inputs(graph: Graph, inputs: Mapping[str, Any], memory: VariableMemory) -> None:
    """Store the inputs under their keys; raises `RunError` where they are not those that the Routine declares."""
    routine = graph.routine
    declared = {variable.name: variable for variable in routine.inputs}
    for name in inputs:
        if name not in declared:
            near = nearest(name, declared)
            hint = f"; did you mean {near!r}?" if near else f"; it has {', '.join(declared) or 'none'}"
            raise RunError(f"routine {routine.name!r} has no input {name[:80]!r}{hint}")
    for name, variable in declared.items():
        where = f"routine {routine.name!r}, input {name!r}"
        if name not in inputs:
            raise RunError(f"{where}: no value was given")
        try:
            problem = misfit(inputs[name], variable.schema)
            for written in with_items(graph, input_key(name), inputs[name], variable.schema):
                memory.put(*written)
        except (SchemaError, MemoryKeyError, RoutineError) as error:
            raise RunError(f"{where}: {error}") from error
        if problem is not None:
            raise RunError(f"{where}: {problem[:300]}")


class _Run:
    """Where a run stands: its position, the messages so far, the values stored."""

    def __init__(
        self,
        graph: Graph,
        servers: ToolServers,
        client: AsyncOpenAI,
        model: str,
        settings: RunSettings,
        memory: VariableMemory,
        constrained: bool,
        task: str,
    ) -> None:
        self._graph = graph
        self._servers = servers
        self._client = client
        self._model = model
        self._settings = settings
        self._memory = memory
        self._constrained = constrained
        self._tools: Mapping[str, Tool] = {tool.name: tool for tool in servers.tools}
        self._position = START
        self._messages: list[Message] = []
        if not constrained:
            self._messages.append({"role": "system", "content": plain_instructions(graph.routine)})
        text = task or graph.routine.description or f"Carry out the Routine {graph.routine.name}."
        self._messages.append({"role": "user", "content": text})

    def at(self, step: Step) -> str:
        """Name a step in a message."""
        return f"routine {self._graph.routine.name!r}, {header_of(step.id)}"

    async def turn(self, turns: int) -> TurnTaken | Finished:
        """Behind so many turns, ask for the next call or calls and make them, or find that the run has ended."""
        position = self._position
        successors, keys = self._look_ahead()
        if not successors.moves and not self._settings.closing_answer:
            return Finished(End.STEPS_DONE, position, turns)
        if turns == self._settings.max_turns and successors.moves:
            raise RunError(f"{self._here()}: no end after {turns} turns, the bound")
        reply, checked, attempts = await self._decide()
        if not checked:
            return Finished(End.ANSWERED, position, turns, reply.content, reply.is_cut_off, reply.token_ids)
        made = await self._make(reply, checked)
        self._remember(reply, made)
        self._position = str(checked[-1].taken.position)
        return TurnTaken(
            number=turns + 1,
            position=position,
            permitted=tuple(dict.fromkeys(str(step.tool) for step in successors.steps)),
            may_end=successors.may_end,
            live_keys=keys,
            content=reply.content,
            calls=made,
            token_ids=reply.token_ids,
            attempts=attempts,
        )

    def _look_ahead(self) -> tuple[Successors, tuple[MemoryKey, ...]]:
        """What may come next, once the lists of a repetition that is over are stored."""
        try:
            for written in lists_written(self._graph, self._position, self._memory):
                self._memory.put(*written)
            keys = self._memory.live_keys()
            return self._graph.successors(self._position, {key.name for key in keys}), keys
        except (RoutineError, MemoryKeyError) as error:
            raise RunError(f"{self._here()}: {error}") from error

    async def _make(self, reply: Reply, checked: Sequence[CheckedCall]) -> tuple[CallMade, ...]:
        """Make the calls of a turn, all at once, and store what they write, in their order."""
        answered = await asyncio.gather(*(self._call(each) for each in checked), return_exceptions=True)
        results = [each for each in answered if isinstance(each, ToolResult)]
        for failure in answered:
            if isinstance(failure, BaseException):
                raise failure
        observed = [self._observe(each.taken, result) for each, result in zip(checked, results, strict=True)]
        return tuple(
            CallMade(call, each.step, each.decoded, each.arguments, result, observation)
            for call, each, result, observation in zip(reply.calls, checked, results, observed, strict=True)
        )

    async def _decide(self) -> tuple[Reply, list[CheckedCall], int]:
        """Ask until an answer is one that the Routine allows; without calls it is the final answer."""
        # A server that constrains would only repeat what is wrong with it.
        attempts = 1 if self._constrained else self._settings.attempts
        refusals: list[str] = []
        while True:
            reply = await self._ask(refusals)
            try:
                return reply, self._checked(reply), len(refusals) + 1
            except RunError as error:
                refusals.append(str(error))
                if len(refusals) < attempts:
                    continue
                tried = f" (answer {attempts} of {attempts})" if attempts > 1 else ""
                raise RunError(f"the model's answer can't be carried out{tried}: {error}") from error

    async def _ask(self, refusals: list[str]) -> Reply:
        keys = self._memory.live_keys()
        messages = [*self._messages, *({"role": "user", "content": f"Refused: {reason}"} for reason in refusals)]
        if self._constrained:
            fields = constrained_fields(self._graph.routine, self._position, keys)
            fields |= {"return_token_ids": True} if self._settings.token_ids else {}
        else:
            fields = plain_fields(self._graph, self._tools, self._position, keys)
            notice = plain_notice(self._graph, self._position, keys)
            messages[-1] = {**messages[-1], "content": f"{messages[-1]['content']}\n\n{notice}"}
        return await complete(
            self._client,
            self._model,
            messages,
            {**self._settings.request, **fields},
            where=self._here(),
            timeout_s=self._settings.model_timeout_s,
        )

    def _checked(self, reply: Reply) -> list[CheckedCall]:
        """Return the calls that may be made, none for a final answer; raises `RunError` for any other answer."""
        successors = self._graph.successors(self._position, {key.name for key in self._memory.live_keys()})
        if reply.is_cut_off and (reply.calls or successors.moves):
            raise RunError(f"{self._here()}: the answer was cut off: it ended by {reply.finish_reason!r}")
        if reply.calls:
            return check_calls(self._graph, self._tools, self._memory, self._position, reply.content, reply.calls)
        # What a server's parser did not read as a call stands in the text, markers and all.
        if successors.may_end and reply.content.strip() and not any(marker in reply.content for marker in MARKERS):
            return []
        raise RunError(f"{self._here()}: expected a call, got the text {reply.content[:80]!r}")

    async def _call(self, checked: CheckedCall) -> ToolResult:
        try:
            return await self._servers.call(str(checked.step.tool), checked.arguments, timeout_s=self._settings.tool_timeout_s)
        except ToolError as error:
            raise ToolError(f"{self.at(checked.step)}: {error}") from error

    def _observe(self, taken: Taken, result: ToolResult) -> str:
        """Store what a call writes; return what the model is shown: the whole result, or its outputs where it is long."""
        if result.is_error and not taken.step.handles_errors:
            return _failed(result)
        lines: list[str] = []
        try:
            for key, value, schema in written_values(self._graph, taken, self._tools[str(taken.step.tool)], result):
                self._memory.put(key, value, schema)
                shown = self._memory.observation(value, key)
                lines.append(f"{key}: {shown}" if self._is_whole(shown, value) else shown)
        except MemoryKeyError as error:
            raise RunError(f"{self.at(taken.step)}: {error}") from error
        body = result.text or result.structured
        shown = self._memory.observation(body, "result")
        if self._is_whole(shown, body):
            return _failed(result) if result.is_error else shown
        return "\n".join(lines)

    def _is_whole(self, shown: str, value: object) -> bool:
        return shown == self._memory.observation(value)

    def _remember(self, reply: Reply, made: Sequence[CallMade]) -> None:
        asked = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.text}} for call in reply.calls
        ]
        self._messages.append({"role": "assistant", "content": reply.content, "tool_calls": asked})
        self._messages += [{"role": "tool", "tool_call_id": each.call.id, "content": each.observation} for each in made]

    def _here(self) -> str:
        return f"routine {self._graph.routine.name!r}, after {place_name(self._position)}"


def _failed(result: ToolResult) -> str:
    return f"The tool failed: {neutralise(result.text)}"
