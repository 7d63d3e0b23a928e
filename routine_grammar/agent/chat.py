"""A run of a Routine as a chat: what to send next, what an answer's calls are, and what their results write. It sends nothing.

In: a Routine with its tools, answers of any OpenAI-compatible server, results. Out: requests for the official `openai`
client, checked calls with their keys resolved, and in the end the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from openai.types.chat import ChatCompletion

from routine_grammar.agent.calls import CheckedCall, check_calls, lists_written, with_items, written_values
from routine_grammar.agent.completions import Message, Reply, constrained_fields, read_reply
from routine_grammar.agent.memory import MARKERS, VariableMemory, neutralise
from routine_grammar.agent.tools import ToolResult
from routine_grammar.errors import MemoryKeyError, RoutineError, RunError, SchemaError
from routine_grammar.routine import (
    START,
    Graph,
    MemoryKey,
    Routine,
    Step,
    Successors,
    Taken,
    Tool,
    header_of,
    input_key,
    misfit,
    routine_from_document,
)
from routine_grammar.routine.positions import place_name
from routine_grammar.routine.problems import nearest


class RoutineChat:
    """Where a run stands: its position, the messages so far, the values stored.

    `read` what the model answered, run each call that it returns, `give` its result, and go on with the next `request`.
    `answer` is the final answer once it has come, `turns` how many were taken. `inputs` are stored under
    `memory_input_<name>`, if they are not in `memory` already; raises `RunError` where they are not those that the Routine
    declares.
    """

    def __init__(
        self,
        routine: Routine,
        tools: Iterable[Tool],
        *,
        inputs: Mapping[str, Any] | None = None,
        task: str = "",
        memory: VariableMemory | None = None,
    ) -> None:
        self.graph = Graph.of(routine)
        self.tools: Mapping[str, Tool] = {tool.name: tool for tool in tools}
        self.memory = memory if memory is not None else VariableMemory()
        self.position = START
        self.answer: str | None = None
        text = task or routine.description or f"Carry out the Routine {routine.name}."
        self.messages: list[Message] = [{"role": "user", "content": text}]
        self._waiting: list[CheckedCall] = []
        self._given: dict[int, str] = {}
        self._reply: Reply | None = None
        self.turns = 0
        self.failure: str | None = None
        if inputs is not None or not self._has_inputs():
            self._store_inputs(inputs or {})

    @classmethod
    def from_server(cls, answer: Any, *, inputs: Mapping[str, Any] | None = None, task: str = "") -> Self:
        """A chat over what a server answers to `GET /v1/routines/{name}`; raises `RunError` where that is something else."""
        try:
            routine = routine_from_document(answer["document"])
            tools = [Tool.from_mcp(tool) for tool in answer["tools"]]
        except (TypeError, KeyError) as error:
            raise RunError(f"expected what GET /v1/routines/{{name}} answers, got {str(answer)[:80]!r}") from error
        return cls(routine, tools, inputs=inputs, task=task)

    @property
    def routine(self) -> Routine:
        """The Routine."""
        return self.graph.routine

    @property
    def here(self) -> str:
        """Where the run stands, for a message."""
        return f"routine {self.routine.name!r}, after {place_name(self.position)}"

    def at(self, step: Step) -> str:
        """Name a step in a message."""
        return f"routine {self.routine.name!r}, {header_of(step.id)}"

    def keys(self) -> tuple[MemoryKey, ...]:
        """The live keys."""
        return self.memory.live_keys()

    def successors(self) -> Successors:
        """What may come next, once the lists of a repetition that is over are stored.

        Raises `RunError` where nothing can: also behind a tool that failed at a step without `on_error`.
        """
        if self.failure is not None:
            raise RunError(self.failure)
        self.memory.begin(self.turns + 1, -1)
        try:
            for written in lists_written(self.graph, self.position, self.memory):
                self.memory.put(*written)
            return self.graph.successors(self.position, {key.name for key in self.keys()})
        except (RoutineError, MemoryKeyError) as error:
            raise RunError(f"{self.here}: {error}") from error

    def request(self, **fields: Any) -> dict[str, Any]:
        """The arguments of the next `client.chat.completions.create`, beside `fields` such as `model` and `max_tokens`."""
        self.successors()
        body = fields.pop("extra_body", None) or {}
        constraint = constrained_fields(self.routine, self.position, self.keys())
        return {"messages": [*self.messages], **fields, "extra_body": {**body, **constraint}}

    def read(self, completion: ChatCompletion) -> tuple[CheckedCall, ...]:
        """Take a completion: return its calls, checked, with keys resolved; none where it is the final answer.

        Raises `RunError` for what the Routine does not allow; the chat is unchanged then.
        """
        return self.take(read_reply(completion, self.here))

    def take(self, reply: Reply) -> tuple[CheckedCall, ...]:
        """Take an answer as `read` does."""
        if self._waiting:
            raise RunError(f"{self.here}: {len(self._waiting)} calls wait for their results")
        successors = self.successors()
        if reply.is_cut_off and (reply.calls or successors.moves):
            raise RunError(f"{self.here}: the answer was cut off: it ended by {reply.finish_reason!r}")
        if reply.calls:
            calls = check_calls(self.graph, self.tools, self.memory, self.position, reply.content, reply.calls)
            self._waiting, self._reply, self._given = calls, reply, {}
            return tuple(calls)
        # What a server's parser did not read as a call stands in the text, markers and all.
        if successors.may_end and reply.content.strip() and not any(marker in reply.content for marker in MARKERS):
            self.answer = reply.content
            return ()
        raise RunError(f"{self.here}: expected a call, got the text {reply.content[:80]!r}")

    def give(self, call: CheckedCall, result: ToolResult | str) -> str:
        """Store what a call's result writes; return what the model is shown of it. The last one moves the position.

        A tool that failed ends the run where its step has no `on_error`: the next `request` tells. Raises `RunError` where the
        result does not have the step's outputs.
        """
        place = next((place for place, each in enumerate(self._waiting) if each is call), None)
        if place is None or place in self._given:
            raise RunError(f"{self.at(call.step)}: this call waits for no result")
        self.memory.begin(self.turns + 1, place)
        shown = self._observe(call.taken, ToolResult(result) if isinstance(result, str) else result)
        self._note(place, shown)
        return shown

    def restore_call(self, call: CheckedCall, observation: str, failure: str | None) -> None:
        """Take up what came of a call before: what the model is shown of it; what it wrote is in memory already."""
        self.failure = self.failure or failure
        self._note(self._waiting.index(call), observation)

    def restore_turn(self, reply: Reply, observations: Sequence[str], after: str, failure: str | None) -> None:
        """Take up a turn that is over, which leads to the position `after`; what it wrote is in memory already."""
        self.failure = self.failure or failure
        self._go_on(reply, observations, after)

    def _note(self, place: int, observation: str) -> None:
        self._given[place] = observation
        if len(self._given) == len(self._waiting):
            assert self._reply is not None
            given = [self._given[place] for place in range(len(self._waiting))]
            self._go_on(self._reply, given, str(self._waiting[-1].taken.position))

    def _go_on(self, reply: Reply, observations: Sequence[str], after: str) -> None:
        asked = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.text}} for call in reply.calls
        ]
        self.messages.append({"role": "assistant", "content": reply.content, "tool_calls": asked})
        self.messages += [
            {"role": "tool", "tool_call_id": call.id, "content": shown}
            for call, shown in zip(reply.calls, observations, strict=True)
        ]
        self.position, self._waiting = after, []
        self.turns += 1

    def _observe(self, taken: Taken, result: ToolResult) -> str:
        """Store what a call writes; return what the model is shown: the whole result, or its outputs where it is long."""
        if result.is_error and not taken.step.handles_errors:
            self.failure = f"{self.at(taken.step)}: tool {taken.step.tool!r} failed: {result.text[:500]}"
            return _failed(result)
        lines: list[str] = []
        try:
            for key, value, schema in written_values(self.graph, taken, self.tools[str(taken.step.tool)], result):
                self.memory.put(key, value, schema)
                shown = self.memory.observation(value, key)
                lines.append(f"{key}: {shown}" if self._is_whole(shown, value) else shown)
        except MemoryKeyError as error:
            raise RunError(f"{self.at(taken.step)}: {error}") from error
        body = result.text or result.structured
        shown = self.memory.observation(body, "result")
        if self._is_whole(shown, body):
            return _failed(result) if result.is_error else shown
        return "\n".join(lines)

    def _is_whole(self, shown: str, value: object) -> bool:
        return shown == self.memory.observation(value)

    def _has_inputs(self) -> bool:
        live = {key.name for key in self.keys()}
        return bool(live) and all(input_key(variable.name) in live for variable in self.routine.inputs)

    def _store_inputs(self, inputs: Mapping[str, Any]) -> None:
        declared = {variable.name: variable for variable in self.routine.inputs}
        for name in inputs:
            if name not in declared:
                near = nearest(name, declared)
                hint = f"; did you mean {near!r}?" if near else f"; it has {', '.join(declared) or 'none'}"
                raise RunError(f"routine {self.routine.name!r} has no input {name[:80]!r}{hint}")
        for name, variable in declared.items():
            where = f"routine {self.routine.name!r}, input {name!r}"
            if name not in inputs:
                raise RunError(f"{where}: no value was given")
            try:
                problem = misfit(inputs[name], variable.schema)
                for written in with_items(self.graph, input_key(name), inputs[name], variable.schema):
                    self.memory.put(*written)
            except (SchemaError, MemoryKeyError, RoutineError) as error:
                raise RunError(f"{where}: {error}") from error
            if problem is not None:
                raise RunError(f"{where}: {problem[:300]}")


def _failed(result: ToolResult) -> str:
    return f"The tool failed: {neutralise(result.text)}"
