"""Execution: a Routine carried out against an OpenAI-compatible server: turn, call, tool, memory, next position.

In: a Routine, running tool servers, a client, the inputs. Out: one event per turn taken, then how the run ended. Only calls
that the Routine and the tool's schema allow are made, whatever the server lets a model write. Whatever happens is written to a
journal before it is acted on; a run goes on from what one has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, get_args

from openai import AsyncOpenAI

from routine_grammar.agent.calls import CheckedCall, ToolCall
from routine_grammar.agent.chat import RoutineChat
from routine_grammar.agent.completions import (
    Reply,
    complete,
    constrained_fields,
    forced_reply,
    plain_fields,
    plain_instructions,
    plain_notice,
    serves_routine,
)
from routine_grammar.agent.events import Answered, Approved, Asked, Called, Decided, Journal, NoJournal, Resumed, RunEvent
from routine_grammar.agent.memory import VariableMemory
from routine_grammar.agent.tools import CALL_TIMEOUT_S, ToolResult, ToolServers
from routine_grammar.errors import LostCallError, RoutineError, RunError, ToolChangedError, ToolError
from routine_grammar.routine import MemoryKey, Routine, Step, Tool, check

Approval = Literal["never", "destructive", "always"]
Approve = Callable[[Asked, Tool], Awaitable[Approved]]


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Bounds and wishes of a run.

    `attempts`: answers asked for in a turn, where the server does not constrain them. `repeats`: how often a call is made
    again that gave no result, of a tool that MCP marks read-only or idempotent. `approval`: which calls a person is asked for:
    none, those of tools that MCP marks destructive (as it does those that say nothing), or all. `closing_answer`: whether a
    model sums up behind the last step. `skip_forced`: whether a turn of which everything is forced is taken without asking a
    model. `token_ids`: ask a constraining server for the decoded tokens. `request`: further fields of every chat request, such
    as `{"temperature": 0}`.
    """

    max_turns: int = 200
    attempts: int = 3
    repeats: int = 2
    model_timeout_s: float = 120.0
    tool_timeout_s: float = CALL_TIMEOUT_S
    approval: Approval = "never"
    closing_answer: bool = True
    skip_forced: bool = True
    token_ids: bool = False
    request: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("max_turns", "attempts", "model_timeout_s", "tool_timeout_s"):
            if (value := getattr(self, name)) <= 0:
                raise RunError(f"run settings: {name} is {value}; expected more than 0")
        if self.repeats < 0:
            raise RunError(f"run settings: repeats is {self.repeats}; expected 0 or more")
        if self.approval not in get_args(Approval):
            raise RunError(f"run settings: approval is {self.approval!r}; expected {' or '.join(get_args(Approval))}")


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
    approve: Approve | None = None,
) -> AsyncIterator[TurnTaken | Finished]:
    """Carry out a Routine: yield an event per turn, then `Finished`. Close the iterator to stop early.

    `inputs` are stored under `memory_input_<name>` in `memory` (default: a new one). A server that lists the Routine at
    `GET /v1/routines` constrains the model; any other one is told the Routine and the tools, and what it answers is checked.
    `approve` is awaited before the calls that `settings.approval` names.

    Raises `RoutineError` where the Routine does not fit the tools, `RunError` where inputs don't fit, the model server
    fails, no allowed call comes, a tool to be called is gone or has other schemas than when the run began, or a tool reports
    an error that the Routine does not handle (its event comes first); `ToolError` where a tool gives no result, which is
    `LostCallError` where the call may have had its effect.
    """
    settings = settings or RunSettings()
    check_fit(routine, servers.tools)
    chat = RoutineChat(routine, servers.tools, inputs=inputs, task=task, memory=memory)
    run = Run(chat, servers, client, model, settings, approve=approve)
    while True:
        event = await run.turn()
        yield event
        if isinstance(event, Finished):
            return


def check_fit(routine: Routine, tools: Sequence[Tool]) -> None:
    """Raise `RoutineError` with all problems where a Routine does not fit the tools."""
    problems = check(routine, tools)
    if problems:
        raise RoutineError(f"routine {routine.name!r} does not fit the tools:", tuple(map(str, problems)))


@dataclass(slots=True)
class _Calls:
    """The calls of the turn under way, and what is known of each, by its place."""

    decided: Decided
    reply: Reply
    checked: tuple[CheckedCall, ...]
    made: dict[int, CallMade] = field(default_factory=dict)
    approved: dict[int, Approved] = field(default_factory=dict)
    told: dict[int, str] = field(default_factory=dict)


class Run:
    """A chat, those whom it is held with (a model's server and the tools' servers), and its journal.

    `turn` until `Finished` comes. A journal's events, given to `restore` first, are where it goes on; `chat` has the values
    that were stored then. Raises `RunError` where the settings ask for approval, and there is no `approve`.
    """

    def __init__(
        self,
        chat: RoutineChat,
        servers: ToolServers,
        client: AsyncOpenAI,
        model: str,
        settings: RunSettings,
        *,
        journal: Journal | None = None,
        approve: Approve | None = None,
    ) -> None:
        if approve is None and settings.approval != "never":
            raise RunError(f"run settings: approval is {settings.approval!r}, and nobody is there to give it: pass approve")
        self._chat = chat
        self._servers = servers
        self._client = client
        self._model = model
        self._settings = settings
        self._journal = journal or NoJournal()
        self._approve = approve
        self._is_constrained: bool | None = None
        self._calls: _Calls | None = None

    def restore(self, events: Sequence[RunEvent]) -> tuple[Called, ...]:
        """Take up what a journal has; return the calls that were under way: nobody knows whether they had their effect.

        They are made again by the next `turn`: where that must not be, don't take it.
        """
        chat, under_way = self._chat, dict[int, Called]()
        for turn in _by_turn(events):
            decided = turn[0]
            assert isinstance(decided, Decided)
            reply = Reply(decided.content, decided.calls, decided.finish_reason, decided.token_ids)
            answered = {event.place: event for event in turn if isinstance(event, Answered)}
            failure = next((event.failure for event in answered.values() if event.failure), None)
            if len(answered) == len(decided.calls):
                shown = [answered[place].observation for place in range(len(answered))]
                chat.restore_turn(reply, shown, decided.after, failure)
                continue
            checked = chat.take(reply)
            self._calls = _Calls(decided, reply, checked)
            for event in turn:
                if isinstance(event, Approved):
                    self._calls.approved[event.place] = event
                elif isinstance(event, Called):
                    under_way[event.place] = event
                elif isinstance(event, Answered):
                    under_way.pop(event.place, None)
                    self._restore_call(self._calls, event)
                elif isinstance(event, Resumed) and event.repeat:
                    under_way.clear()
                elif isinstance(event, Resumed) and event.result is not None and under_way:
                    place = min(under_way)
                    under_way.pop(place)
                    self._calls.told[place] = event.result
        return tuple(under_way.values())

    async def turn(self) -> TurnTaken | Finished:
        """Ask for the next call or calls and make them, or find that the run has ended."""
        chat, turns, position = self._chat, self._chat.turns, self._chat.position
        if self._calls is None:
            successors = chat.successors()
            if not successors.moves and not self._settings.closing_answer:
                return Finished(End.STEPS_DONE, position, turns)
            if turns == self._settings.max_turns and successors.moves:
                raise RunError(f"{chat.here}: no end after {turns} turns, the bound")
            reply, checked, attempts = await self._decide()
            if not checked:
                return Finished(End.ANSWERED, position, turns, reply.content, reply.is_cut_off, reply.token_ids)
            permitted = tuple(dict.fromkeys(str(step.tool) for step in successors.steps))
            after = str(checked[-1].taken.position)
            decided = Decided(
                turns + 1,
                position,
                permitted,
                successors.may_end,
                reply.content,
                reply.calls,
                reply.finish_reason,
                after,
                reply.token_ids,
                attempts,
            )
            await self._write(decided)
            self._calls = _Calls(decided, reply, checked)
        calls, keys = self._calls, chat.keys()
        await self._make(calls)
        self._calls = None
        decided = calls.decided
        return TurnTaken(
            number=decided.turn,
            position=decided.position,
            permitted=decided.permitted,
            may_end=decided.may_end,
            live_keys=keys,
            content=decided.content,
            calls=tuple(calls.made[place] for place in range(len(calls.checked))),
            token_ids=decided.token_ids,
            attempts=decided.attempts,
        )

    async def _write(self, event: RunEvent) -> None:
        await self._journal.write(event, self._chat.memory.take_changes())

    async def _make(self, calls: _Calls) -> None:
        """Make the calls of a turn that are not made yet, all at once; what each writes is stored as soon as it is there."""
        places = [place for place in range(len(calls.checked)) if place not in calls.made]
        ended = await asyncio.gather(*(self._make_one(calls, place) for place in places), return_exceptions=True)
        failures = [each for each in ended if isinstance(each, BaseException)]
        for failure in sorted(failures, key=lambda each: not isinstance(each, LostCallError)):
            raise failure

    async def _make_one(self, calls: _Calls, place: int) -> None:
        checked, turn = calls.checked[place], calls.decided.turn
        name = str(checked.step.tool)
        tool = self._chat.tools[name]
        approved = await self._approval(calls, place, tool)
        if place in calls.told:
            result = ToolResult(calls.told[place])
        elif approved.allowed:
            await self._write(Called(turn, place, name))
            result = await self._call(checked, tool)
        else:
            reason = f": {approved.reason}" if approved.reason else ""
            result = ToolResult(f"A person did not approve of this call{reason}", is_error=True)
        # A call that failed where no step handles it ends the run, but not before what came of the others is kept.
        observation = self._chat.give(checked, result)
        failure = self._chat.failure if result.is_error and not checked.step.handles_errors else None
        await self._write(Answered(turn, place, observation, result.is_error, failure, approved.allowed))
        calls.made[place] = _call_made(calls, place, result, observation)

    async def _approval(self, calls: _Calls, place: int, tool: Tool) -> Approved:
        turn, wanted = calls.decided.turn, self._settings.approval
        if wanted == "never" or (wanted == "destructive" and not is_destructive(tool)):
            return Approved(turn, place, True)
        if place not in calls.approved:
            assert self._approve is not None
            asked = Asked(turn, place, tool.name, calls.checked[place].decoded)
            await self._write(asked)
            calls.approved[place] = await self._approve(asked, tool)
            await self._write(calls.approved[place])
        return calls.approved[place]

    def _restore_call(self, calls: _Calls, event: Answered) -> None:
        self._chat.restore_call(calls.checked[event.place], event.observation, event.failure)
        result = ToolResult(event.observation, is_error=event.is_error)
        calls.made[event.place] = _call_made(calls, event.place, result, event.observation)

    async def _decide(self) -> tuple[Reply, tuple[CheckedCall, ...], int]:
        """Ask until an answer is one that the Routine allows; without calls it is the final answer."""
        chat = self._chat
        if self._settings.skip_forced:
            forced = forced_reply(chat.graph, chat.tools, chat.position, chat.keys(), chat.turns + 1)
            if forced is not None:
                return forced, chat.take(forced), 0
        # A server that constrains would only repeat what is wrong with it.
        attempts = 1 if await self._constrained() else self._settings.attempts
        refusals: list[str] = []
        while True:
            reply = await self._ask(refusals)
            try:
                return reply, chat.take(reply), len(refusals) + 1
            except RunError as error:
                refusals.append(str(error))
                if len(refusals) < attempts:
                    continue
                tried = f" (answer {attempts} of {attempts})" if attempts > 1 else ""
                raise RunError(f"the model's answer can't be carried out{tried}: {error}") from error

    async def _constrained(self) -> bool:
        """Whether the model's server constrains, asked for once."""
        if self._is_constrained is None:
            self._is_constrained = await serves_routine(self._client, self._chat.routine, self._settings.model_timeout_s)
            if not self._is_constrained:
                instructions = {"role": "system", "content": plain_instructions(self._chat.routine)}
                self._chat.messages.insert(0, instructions)
        return self._is_constrained

    async def _ask(self, refusals: list[str]) -> Reply:
        chat, keys = self._chat, self._chat.keys()
        messages = [*chat.messages, *({"role": "user", "content": f"Refused: {reason}"} for reason in refusals)]
        if await self._constrained():
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

    async def _call(self, checked: CheckedCall, tool: Tool) -> ToolResult:
        """Call a tool; again where that gave no result and can do no harm."""
        where, timeout_s = self._chat.at(checked.step), self._settings.tool_timeout_s
        repeats = self._settings.repeats if may_repeat(tool) else 0
        while True:
            try:
                return await self._servers.call(tool.name, checked.arguments, timeout_s=timeout_s, listed_as=tool)
            except ToolChangedError as error:
                raise RunError(f"{where}: tool {tool.name!r} changed while the run was under way: {error}") from error
            except LostCallError as error:
                repeats -= 1
                if repeats < 0:
                    raise LostCallError(f"{where}: {error}") from error
            except ToolError as error:
                raise ToolError(f"{where}: {error}") from error


def may_repeat(tool: Tool) -> bool:
    """Whether a call may be made again of which nobody knows whether it had its effect: MCP marks the tool so."""
    return bool(tool.read_only or tool.idempotent)


def is_destructive(tool: Tool) -> bool:
    """Whether a tool may destroy something, as MCP has it: one that says nothing of it may."""
    return not tool.read_only and tool.destructive is not False


def _by_turn(events: Sequence[RunEvent]) -> list[list[RunEvent]]:
    """The events of each turn, the first of which is what was decided."""
    turns: list[list[RunEvent]] = []
    for event in events:
        if isinstance(event, Decided):
            turns.append([event])
        elif turns and (isinstance(event, Resumed) or event.turn == len(turns)):
            turns[-1].append(event)
    return turns


def _call_made(calls: _Calls, place: int, result: ToolResult, observation: str) -> CallMade:
    checked = calls.checked[place]
    return CallMade(calls.reply.calls[place], checked.step, checked.decoded, checked.arguments, result, observation)
