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

from routine_grammar.agent.calls import CheckedCall, ToolCall
from routine_grammar.agent.chat import RoutineChat
from routine_grammar.agent.completions import (
    Reply,
    complete,
    constrained_fields,
    plain_fields,
    plain_instructions,
    plain_notice,
    serves_routine,
)
from routine_grammar.agent.memory import VariableMemory
from routine_grammar.agent.tools import CALL_TIMEOUT_S, ToolResult, ToolServers
from routine_grammar.errors import RoutineError, RunError, ToolChangedError, ToolError
from routine_grammar.routine import MemoryKey, Routine, Step, check


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
    fails, no allowed call comes, a tool to be called is gone or has other schemas than when the run began, or a tool reports
    an error that the Routine does not handle (its event comes first); `ToolError` where a tool gives no result.
    """
    settings = settings or RunSettings()
    problems = check(routine, servers.tools)
    if problems:
        raise RoutineError(f"routine {routine.name!r} does not fit the tools:", tuple(map(str, problems)))
    chat = RoutineChat(routine, servers.tools, inputs=inputs, task=task, memory=memory)
    constrained = await serves_routine(client, routine, settings.model_timeout_s)
    run = _Run(chat, servers, client, model, settings, constrained)
    for turns in count():
        event = await run.turn(turns)
        yield event
        if isinstance(event, Finished):
            return


class _Run:
    """A chat, and those whom it is held with: a model's server and the tools' servers."""

    def __init__(
        self,
        chat: RoutineChat,
        servers: ToolServers,
        client: AsyncOpenAI,
        model: str,
        settings: RunSettings,
        constrained: bool,
    ) -> None:
        self._chat = chat
        self._servers = servers
        self._client = client
        self._model = model
        self._settings = settings
        self._constrained = constrained
        if not constrained:
            chat.messages.insert(0, {"role": "system", "content": plain_instructions(chat.routine)})

    async def turn(self, turns: int) -> TurnTaken | Finished:
        """Behind so many turns, ask for the next call or calls and make them, or find that the run has ended."""
        chat, position = self._chat, self._chat.position
        successors, keys = chat.successors(), chat.keys()
        if not successors.moves and not self._settings.closing_answer:
            return Finished(End.STEPS_DONE, position, turns)
        if turns == self._settings.max_turns and successors.moves:
            raise RunError(f"{chat.here}: no end after {turns} turns, the bound")
        reply, checked, attempts = await self._decide()
        if not checked:
            return Finished(End.ANSWERED, position, turns, reply.content, reply.is_cut_off, reply.token_ids)
        made = await self._make(reply, checked)
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

    async def _make(self, reply: Reply, checked: Sequence[CheckedCall]) -> tuple[CallMade, ...]:
        """Make the calls of a turn, all at once, and store what they write, in their order."""
        answered = await asyncio.gather(*(self._call(each) for each in checked), return_exceptions=True)
        results = [each for each in answered if isinstance(each, ToolResult)]
        for failure in answered:
            if isinstance(failure, BaseException):
                raise failure
        return tuple(
            CallMade(call, each.step, each.decoded, each.arguments, result, self._chat.give(each, result))
            for call, each, result in zip(reply.calls, checked, results, strict=True)
        )

    async def _decide(self) -> tuple[Reply, tuple[CheckedCall, ...], int]:
        """Ask until an answer is one that the Routine allows; without calls it is the final answer."""
        # A server that constrains would only repeat what is wrong with it.
        attempts = 1 if self._constrained else self._settings.attempts
        refusals: list[str] = []
        while True:
            reply = await self._ask(refusals)
            try:
                return reply, self._chat.take(reply), len(refusals) + 1
            except RunError as error:
                refusals.append(str(error))
                if len(refusals) < attempts:
                    continue
                tried = f" (answer {attempts} of {attempts})" if attempts > 1 else ""
                raise RunError(f"the model's answer can't be carried out{tried}: {error}") from error

    async def _ask(self, refusals: list[str]) -> Reply:
        chat, keys = self._chat, self._chat.keys()
        messages = [*chat.messages, *({"role": "user", "content": f"Refused: {reason}"} for reason in refusals)]
        if self._constrained:
            fields = constrained_fields(chat.routine, chat.position, keys)
            fields |= {"return_token_ids": True} if self._settings.token_ids else {}
        else:
            fields = plain_fields(chat.graph, chat.tools, chat.position, keys)
            notice = plain_notice(chat.graph, chat.position, keys)
            messages[-1] = {**messages[-1], "content": f"{messages[-1]['content']}\n\n{notice}"}
        return await complete(
            self._client,
            self._model,
            messages,
            {**self._settings.request, **fields},
            where=chat.here,
            timeout_s=self._settings.model_timeout_s,
        )

    async def _call(self, checked: CheckedCall) -> ToolResult:
        name, where = str(checked.step.tool), self._chat.at(checked.step)
        timeout_s, listed_as = self._settings.tool_timeout_s, self._chat.tools[name]
        try:
            return await self._servers.call(name, checked.arguments, timeout_s=timeout_s, listed_as=listed_as)
        except ToolChangedError as error:
            raise RunError(f"{where}: tool {name!r} changed while the run was under way: {error}") from error
        except ToolError as error:
            raise ToolError(f"{where}: {error}") from error
