"""Execution: a Routine carried out against an OpenAI-compatible server: turn, call, tool, memory, next position.

In: a Routine, running tool servers, a client, the inputs. Out: one event per step taken, then how the run ended. Only calls
that the Routine and the tool's schema allow are made, whatever the server lets a model write. It keeps everything in memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from typing import Any

from openai import AsyncOpenAI

from routine_grammar.agent.calls import CheckedCall, ToolCall, check_call, written_values
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
from routine_grammar.routine import START, Graph, MemoryKey, Routine, Step, Tool, check, header_of, input_key, misfit
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
class TurnTaken:
    """One step: what was allowed at `position`, what the model wrote, what the tool got and gave.

    `permitted` names the tools of the steps that could come next; `call` is what the model wrote, `decoded` its arguments and
    `arguments` the same with keys resolved. `observation` is what the model is shown of the result. `token_ids` is empty
    where the server did not tell. `attempts` counts the answers, refused ones included.
    """

    number: int
    position: str
    permitted: tuple[str, ...]
    may_end: bool
    live_keys: tuple[MemoryKey, ...]
    content: str
    call: ToolCall
    step: Step
    decoded: Mapping[str, Any]
    arguments: Mapping[str, Any]
    result: ToolResult
    observation: str
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
    """Carry out a Routine: yield an event per step, then `Finished`. Close the iterator to stop early.

    `inputs` are stored under `memory_input_<name>` in `memory` (default: a new one). A server that lists the Routine at
    `GET /v1/routines` constrains the model; any other one is told the Routine and the tools, and what it answers is checked.

    Raises `RoutineError` where the Routine does not fit the tools, `RunError` where inputs don't fit, the model server
    fails, no allowed call comes, or a tool reports an error (its event comes first); `ToolError` where a tool gives no result.
    """
    settings = settings or RunSettings()
    problems = check(routine, servers.tools)
    if problems:
        raise RoutineError(f"routine {routine.name!r} does not fit the tools:", tuple(map(str, problems)))
    memory = memory or VariableMemory()
    _store_inputs(routine, inputs or {}, memory)
    constrained = await serves_routine(client, routine, settings.model_timeout_s)
    run = _Run(Graph.of(routine), servers, client, model, settings, memory, constrained, task)
    for turns in count():
        event = await run.turn(turns)
        yield event
        if isinstance(event, Finished):
            return
        if event.result.is_error:
            raise RunError(f"{run.at(event.step)}: tool {event.call.name!r} failed: {event.result.text[:500]}")


def _store_inputs(routine: Routine, inputs: Mapping[str, Any], memory: VariableMemory) -> None:
    """Store the inputs under their keys; raises `RunError` where they are not those that the Routine declares."""
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
            memory.put(input_key(name), inputs[name], variable.schema)
        except (SchemaError, MemoryKeyError) as error:
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
        """Behind so many turns, ask for the next step and take it, or find that the run has ended."""
        position, successors, keys = self._position, self._graph.successors(self._position), self._memory.live_keys()
        if not successors.steps and not self._settings.closing_answer:
            return Finished(End.STEPS_DONE, position, turns)
        if turns == self._settings.max_turns and successors.steps:
            raise RunError(f"{self._here()}: no end after {turns} turns, the bound")
        reply, checked, attempts = await self._decide()
        if checked is None:
            return Finished(End.ANSWERED, position, turns, reply.content, reply.is_cut_off, reply.token_ids)
        result = await self._call(checked)
        observation = self._observe(checked.step, result)
        self._remember(reply, observation)
        self._position = checked.step.id
        return TurnTaken(
            number=turns + 1,
            position=position,
            permitted=tuple(dict.fromkeys(str(step.tool) for step in successors.steps)),
            may_end=successors.may_end,
            live_keys=keys,
            content=reply.content,
            call=reply.calls[0],
            step=checked.step,
            decoded=checked.decoded,
            arguments=checked.arguments,
            result=result,
            observation=observation,
            token_ids=reply.token_ids,
            attempts=attempts,
        )

    async def _decide(self) -> tuple[Reply, CheckedCall | None, int]:
        """Ask until an answer is one that the Routine allows; without a call it is the final answer."""
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

    def _checked(self, reply: Reply) -> CheckedCall | None:
        """Return the call that may be made, or None for a final answer; raises `RunError` for any other answer."""
        if len(reply.calls) > 1:
            raise RunError(f"{self._here()}: {len(reply.calls)} calls in one answer; expected one")
        successors = self._graph.successors(self._position)
        if reply.is_cut_off and (reply.calls or successors.steps):
            raise RunError(f"{self._here()}: the answer was cut off: it ended by {reply.finish_reason!r}")
        if reply.calls:
            return check_call(self._graph, self._tools, self._memory, self._position, reply.content, reply.calls[0])
        # What a server's parser did not read as a call stands in the text, markers and all.
        if successors.may_end and reply.content.strip() and not any(marker in reply.content for marker in MARKERS):
            return None
        raise RunError(f"{self._here()}: expected a call, got the text {reply.content[:80]!r}")

    async def _call(self, checked: CheckedCall) -> ToolResult:
        try:
            return await self._servers.call(str(checked.step.tool), checked.arguments, timeout_s=self._settings.tool_timeout_s)
        except ToolError as error:
            raise ToolError(f"{self.at(checked.step)}: {error}") from error

    def _observe(self, step: Step, result: ToolResult) -> str:
        """Store what the step writes; return what the model is shown: the whole result, or its outputs where it is long."""
        if result.is_error:
            return f"The tool failed: {neutralise(result.text)}"
        lines: list[str] = []
        try:
            for key, value, schema in written_values(self._graph, step, self._tools[str(step.tool)], result):
                self._memory.put(key, value, schema)
                shown = self._memory.observation(value, key)
                lines.append(f"{key}: {shown}" if self._is_whole(shown, value) else shown)
        except MemoryKeyError as error:
            raise RunError(f"{self.at(step)}: {error}") from error
        body = result.text or result.structured
        shown = self._memory.observation(body, "result")
        return shown if self._is_whole(shown, body) else "\n".join(lines)

    def _is_whole(self, shown: str, value: object) -> bool:
        return shown == self._memory.observation(value)

    def _remember(self, reply: Reply, observation: str) -> None:
        call = reply.calls[0]
        function = {"name": call.name, "arguments": call.text}
        asked = {"id": call.id, "type": "function", "function": function}
        self._messages.append({"role": "assistant", "content": reply.content, "tool_calls": [asked]})
        self._messages.append({"role": "tool", "tool_call_id": call.id, "content": observation})

    def _here(self) -> str:
        position = "the start" if self._position == START else header_of(self._position)
        return f"routine {self._graph.routine.name!r}, after {position}"
