from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from routine_grammar.agent.chat import RoutineChat
from routine_grammar.agent.events import Approved, Asked, Called, RunEvent, event_from_document, event_to_document
from routine_grammar.agent.execution import Approve, End, Finished, RunSettings, TurnTaken, execute, is_destructive
from routine_grammar.agent.execution import Run as RunOfRoutine
from routine_grammar.agent.memory import Stored, VariableMemory
from routine_grammar.agent.tools import ServerConfig, ToolResult, ToolServers
from routine_grammar.errors import RoutineError, RoutineGrammarError, RunError, ToolError
from routine_grammar.routine import (
    AnyKey,
    Branch,
    Constant,
    Header,
    Key,
    Literal,
    Routine,
    Source,
    Step,
    Tool,
    Variable,
)
from tests.agent.model_server import ModelServer, model_server, say

GIT = ServerConfig("git", sys.executable, ("-m", "mcp_server_git"))
TIME = ServerConfig("time", sys.executable, ("-m", "mcp_server_time"))
MISBEHAVING = ServerConfig("misbehaving", sys.executable, (str(Path(__file__).with_name("servers.py")), "misbehaving"))
pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = {"type": "string"}
QUICK = RunSettings(closing_answer=False, model_timeout_s=20, tool_timeout_s=20)


def step(tool: str, *branches: Branch, outputs: tuple[Variable, ...] = (), finish: bool = False, **a: Source) -> Step:
    return Step("", "s", tool=tool, arguments=a, outputs=outputs, branches=branches, finish=finish)


def clock(*steps: Step, name: str = "clock", header: Header = Header.AUTO) -> Routine:
    return Routine(name, inputs=(Variable("zone", TEXT),), steps=steps, header=header)


NOW = step("get_current_time", outputs=(Variable("now", pointer="/datetime"), Variable("zone", pointer="/timezone")))
CONVERT = step("convert_time", target_timezone=Key("memory_input_zone"), source_timezone=AnyKey(), time=Constant("09:30"))
TWO_STEPS = clock(NOW, CONVERT)
ASK_NOW = ("get_current_time", {"timezone": "memory_input_zone"})
ASK_CONVERT = (
    "convert_time",
    {"source_timezone": "memory_1_zone", "time": "09:30", "target_timezone": "memory_input_zone"},
)


class RecordingServers(ToolServers):
    """Real servers, with the calls they got."""

    calls: list[tuple[str, dict[str, Any]]]

    async def call(self, name: str, arguments: Any, *, timeout_s: float = 60.0, listed_as: Tool | None = None) -> ToolResult:
        self.calls.append((name, dict(arguments)))
        return await super().call(name, arguments, timeout_s=timeout_s, listed_as=listed_as)


@dataclass
class Run:
    """What came of a run, to its end or its error."""

    turns: list[TurnTaken]
    finished: Finished | None
    error: RoutineGrammarError | None
    calls: list[tuple[str, dict[str, Any]]]
    requests: list[dict[str, Any]]


async def run(
    tools: RecordingServers,
    routine: Routine,
    answers: list[dict[str, Any]],
    *,
    constrained: bool,
    settings: RunSettings = QUICK,
    inputs: dict[str, Any] | None = None,
    memory: VariableMemory | None = None,
) -> Run:
    listed = [{"name": routine.name, "version": routine.version}] if constrained else None
    with model_server(answers, routines=listed) as played:
        return await run_against(played, tools, routine, settings=settings, inputs=inputs, memory=memory)


async def run_against(
    played: ModelServer,
    tools: RecordingServers,
    routine: Routine,
    *,
    settings: RunSettings = QUICK,
    inputs: dict[str, Any] | None = None,
    memory: VariableMemory | None = None,
) -> Run:
    done = Run([], None, None, [], played.requests)
    tools.calls = done.calls
    inputs = {"zone": "Asia/Tokyo"} if inputs is None else inputs
    async with a_client(played) as client:
        events = execute(routine, tools, client, "m", inputs=inputs, task="Do it.", settings=settings, memory=memory)
        try:
            async for event in events:
                if isinstance(event, Finished):
                    done.finished = event
                else:
                    done.turns.append(event)
        except RoutineGrammarError as error:
            done.error = error
    return done


def a_client(played: ModelServer) -> AsyncOpenAI:
    return AsyncOpenAI(
        base_url=played.base_url, api_key="none", max_retries=0, http_client=DefaultAsyncHttpxClient(trust_env=False)
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tools() -> AsyncIterator[RecordingServers]:
    async with RecordingServers([GIT, TIME]) as servers:
        yield servers


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    git = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run([*git, "init", "-q", str(folder)], check=True)
    (folder / "long.txt").write_text("".join(f"line {number}\n" for number in range(400)))
    subprocess.run([*git, "-C", str(folder), "add", "."], check=True)
    subprocess.run([*git, "-C", str(folder), "commit", "-q", "-m", "a long file"], check=True)
    return folder


async def test_a_constrained_run_sends_position_and_keys_and_tells_every_turn(tools: RecordingServers) -> None:
    answers = [say("", ASK_NOW, token_ids=[1, 2, 3]), say("", ASK_CONVERT)]
    done = await run(tools, TWO_STEPS, answers, constrained=True, settings=replace(QUICK, token_ids=True))
    assert done.error is None
    first, second = done.turns
    assert (first.number, first.position, first.permitted, first.may_end) == (1, "start", ("get_current_time",), False)
    assert [key.name for key in first.live_keys] == ["memory_input_zone"]
    assert (first.calls[0].step.id, first.token_ids, first.attempts) == ("1", (1, 2, 3), 1)
    assert first.calls[0].decoded == {"timezone": "memory_input_zone"}
    assert first.calls[0].arguments == {"timezone": "Asia/Tokyo"}
    assert json.loads(first.calls[0].observation)["timezone"] == "Asia/Tokyo"
    assert [key.name for key in second.live_keys] == ["memory_input_zone", "memory_1_now", "memory_1_zone"]
    assert done.calls[1] == (
        "convert_time",
        {"source_timezone": "Asia/Tokyo", "time": "09:30", "target_timezone": "Asia/Tokyo"},
    )
    assert done.finished == Finished(End.STEPS_DONE, "2", 2)
    request, later = done.requests
    assert request["routine"]["name"] == "clock"
    assert request["routine"]["memory"] == {"memory_input_zone": {"schema": TEXT, "preview": "Asia/Tokyo"}}
    assert request["messages"] == [{"role": "user", "content": "Do it."}]
    assert request["return_token_ids"] is True
    assert not {"tools", "tool_choice", "stop"} & set(request)
    assert later["routine"]["position"] == "1"
    assert later["messages"][:1] == request["messages"]
    assert later["messages"][1]["tool_calls"][0] == {
        "id": "call_0",
        "type": "function",
        "function": {"name": "get_current_time", "arguments": '{"timezone": "memory_input_zone"}'},
    }
    assert later["messages"][2]["tool_call_id"] == "call_0"


async def test_a_plain_run_offers_the_legal_tools_narrowed_by_the_routine(tools: RecordingServers) -> None:
    done = await run(tools, TWO_STEPS, [say("", ASK_NOW), say("", ASK_CONVERT)], constrained=False)
    assert done.error is None
    assert [turn.calls[0].step.id for turn in done.turns] == ["1", "2"]
    first, second = done.requests
    assert [message["role"] for message in first["messages"]] == ["system", "user"]
    assert "Step 2. s: use the convert_time tool." in first["messages"][0]["content"]
    assert "memory_input_zone: Asia/Tokyo" in first["messages"][1]["content"]
    assert first["tool_choice"] == "required"
    (tool,) = second["tools"]
    assert tool["function"]["name"] == "convert_time"
    assert tool["function"]["parameters"]["properties"] == {
        "source_timezone": {"type": "string", "enum": ["memory_input_zone", "memory_1_now", "memory_1_zone"]},
        "time": {"const": "09:30"},
        "target_timezone": {"const": "memory_input_zone"},
    }
    assert "routine" not in second
    assert "Memory keys" not in second["messages"][1]["content"]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown tool": (say("", ("drop_database", {})), "'drop_database' at position 'start' is no step that may come next"),
    "a step out of order": (say("", ASK_CONVERT), "'convert_time' at position 'start' is no step that may come next"),
    "a key that is not live": (say("", ("get_current_time", {"timezone": "memory_9_zone"})), "'memory_9_zone'; live keys"),
    "an argument of another type": (say("", ("get_current_time", {"timezone": 5})), "5 is not of type 'string'"),
    "a missing argument": (say("", ("get_current_time", {})), "'timezone' is a required property"),
    "an invented argument": (
        say("", ("get_current_time", {"timezone": "UTC", "force": True})),
        "argument 'force': the tool has no such parameter",
    ),
    "a call that was cut off": (
        say("", ("get_current_time", {"timezone": "Asia/Tokyo"}), reason="length"),
        "the answer was cut off: it ended by 'length'",
    ),
    "half of the arguments": (say("", ("get_current_time", '{"timezone": "Asia')), "the arguments are no JSON"),
    "a list of arguments": (say("", ("get_current_time", "[]")), "the arguments are list; expected an object"),
    "the same argument twice": (say("", ("get_current_time", '{"timezone": "a", "timezone": "b"}')), "duplicate field"),
    "a number that is none": (say("", ("get_current_time", '{"timezone": NaN}')), "NaN is no JSON number"),
    "two calls": (say("", ASK_NOW, ASK_NOW), "can't follow Step 1 in one answer; expected one call"),
    "only text": (say("I would rather not."), "expected a call, got the text 'I would rather not.'"),
    "nothing": (say(), "expected a call, got the text ''"),
    "a call that no parser read": (say('<tool_call>\n{"name": "get_cur'), "expected a call, got the text '<tool_call>"),
}


@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize("case", WRONG)
async def test_what_is_not_allowed_is_never_called(tools: RecordingServers, case: str, constrained: bool) -> None:
    answer, message = WRONG[case]
    done = await run(tools, TWO_STEPS, [answer] * 3, constrained=constrained)
    assert isinstance(done.error, RunError)
    assert message in str(done.error)
    assert "routine 'clock'" in str(done.error)
    assert done.calls == []
    assert len(done.requests) == (1 if constrained else 3)


async def test_a_plain_model_is_told_what_was_wrong_and_may_try_again(tools: RecordingServers) -> None:
    answers = [say("", ASK_CONVERT), say("hm"), say("", ASK_NOW), say("", ASK_CONVERT)]
    done = await run(tools, TWO_STEPS, answers, constrained=False)
    assert done.error is None
    assert [turn.attempts for turn in done.turns] == [3, 1]
    third, fourth = done.requests[2:]
    refused = [message["content"] for message in third["messages"][2:]]
    assert "is no step that may come next" in refused[0]
    assert "got the text 'hm'" in refused[1]
    assert "Memory keys:" in refused[1]
    assert not any("Refused" in (message["content"] or "") for message in fourth["messages"])


async def test_headers_tell_steps_of_one_tool_apart(tools: RecordingServers) -> None:
    late = step("get_current_time", timezone=Constant("UTC"), finish=True)
    routine = clock(step("get_current_time", Branch("late", steps=(late,))), step("get_current_time"))
    taken = say("Thought: late\nBranch 1-1 Step 1", ("get_current_time", {"timezone": "UTC"}))
    for constrained in (True, False):
        done = await run(tools, routine, [say("", ASK_NOW), taken], constrained=constrained)
        assert [turn.calls[0].step.id for turn in done.turns] == ["1", "1-1_1"]
        assert done.finished is not None
        assert done.finished.position == "1-1_1"
        done = await run(tools, routine, [say("", ASK_NOW)] * 4, constrained=constrained)
        assert "those are Branch 1-1 Step 1 (get_current_time), Step 2 (get_current_time)" in str(done.error)
        assert len(done.calls) == 1
    assert done.requests[-1]["tool_choice"] == "auto"
    assert "Write its header" in done.requests[1]["messages"][-1]["content"]


async def test_a_final_answer_where_the_routine_may_end(tools: RecordingServers) -> None:
    routine = clock(step("get_current_time", Branch("odd", steps=(step("get_current_time"),))))
    for constrained in (True, False):
        done = await run(tools, routine, [say("", ASK_NOW), say("It is late.", token_ids=[7])], constrained=constrained)
        assert done.finished == Finished(End.ANSWERED, "1", 1, "It is late.", token_ids=(7,))
    assert done.requests[1]["tool_choice"] == "auto"


async def test_a_call_cut_off_where_the_routine_may_end_is_no_answer(tools: RecordingServers) -> None:
    routine = clock(step("get_current_time", Branch("odd", steps=(step("get_current_time"),))))
    for cut in (say('<tool_call>\n{"name"', reason="stop"), say("It is", reason="length")):
        done = await run(tools, routine, [say("", ASK_NOW), cut], constrained=True)
        assert done.finished is None
        assert len(done.calls) == 1


async def test_a_closing_answer_behind_the_last_step(tools: RecordingServers) -> None:
    settings = replace(QUICK, closing_answer=True)
    for constrained in (True, False):
        answers = [say("", ASK_NOW), say("All is", reason="length")]
        done = await run(tools, clock(NOW), answers, constrained=constrained, settings=settings)
        assert done.finished == Finished(End.ANSWERED, "1", 1, "All is", is_cut_off=True)
    assert "tools" not in done.requests[1]
    done = await run(tools, clock(NOW), [say("", ASK_NOW), say("", ASK_NOW)], constrained=True, settings=settings)
    assert "those are the end" in str(done.error)


async def test_long_results_are_shown_by_their_keys(tools: RecordingServers, repo: Path) -> None:
    routine = Routine(
        "look",
        inputs=(Variable("repo_path", TEXT),),
        steps=(
            step("git_show", repo_path=Key("memory_input_repo_path"), revision=Constant("HEAD")),
            step("get_current_time", outputs=(Variable("now", pointer="/datetime"),)),
        ),
    )
    answers = [say("", ("get_current_time", {"timezone": "UTC"}))]  # the first turn is forced: no model is asked
    done = await run(tools, routine, answers, constrained=True, inputs={"repo_path": str(repo)})
    assert done.error is None
    shown = done.turns[0].calls[0].observation
    assert shown.startswith('memory_1_result: "commit ')
    assert len(shown) < 200
    assert [turn.attempts for turn in done.turns] == [0, 1]
    assert done.requests[0]["messages"][-1]["content"] == shown
    assert done.requests[0]["routine"]["memory"]["memory_1_result"]["schema"] == TEXT
    memory = VariableMemory(threshold_chars=20)
    done = await run(tools, clock(NOW), [say("", ASK_NOW)], constrained=True, memory=memory)
    now, zone = done.turns[0].calls[0].observation.split("\n")
    assert now.startswith('memory_1_now: "')
    assert zone == "memory_1_zone: Asia/Tokyo"


async def test_an_output_that_is_not_in_the_result(tools: RecordingServers, repo: Path) -> None:
    outputs = (Variable("rows", {"type": "array"}, pointer="/rows"),)
    routine = Routine("look", steps=(step("git_status", outputs=outputs),))
    done = await run(tools, routine, [say("", ("git_status", {"repo_path": str(repo)}))], constrained=True, inputs={})
    assert "routine 'look', Step 1, output 'rows': not in the result of tool 'git_status'" in str(done.error)
    assert isinstance(done.error, RunError)


async def test_a_tool_that_fails_ends_the_run_behind_its_event(tools: RecordingServers) -> None:
    done = await run(tools, clock(NOW, NOW), [say("", ("get_current_time", {"timezone": "Nowhere"}))], constrained=True)
    (turn,) = done.turns
    assert turn.calls[0].result.is_error
    assert "Nowhere" in turn.calls[0].observation
    assert "routine 'clock', Step 1: tool 'get_current_time' failed" in str(done.error)
    assert isinstance(done.error, RunError)


async def test_a_tool_that_is_slow_or_dies_is_named_with_its_step() -> None:
    async with RecordingServers([MISBEHAVING]) as tools:
        await check_slow_and_dead(tools)


async def check_slow_and_dead(tools: RecordingServers) -> None:
    settings = replace(QUICK, tool_timeout_s=0.3)
    routine = Routine("nap", steps=(step("sleep"),))
    done = await run(tools, routine, [say("", ("sleep", {"seconds": 2}))], constrained=True, inputs={}, settings=settings)
    assert isinstance(done.error, ToolError)
    assert str(done.error).startswith("routine 'nap', Step 1: MCP server 'misbehaving'")
    done = await run(tools, Routine("die", steps=(step("die"),)), [say("", ("die", {}))], constrained=True, inputs={})
    assert "routine 'die', Step 1: " in str(done.error)
    assert "the server is gone" in str(done.error)


async def test_a_slow_model_server(tools: RecordingServers) -> None:
    settings = replace(QUICK, model_timeout_s=0.3)
    with model_server([say("", ASK_NOW)], routines=[{"name": "clock"}], delay_s=1) as played:
        done = await run_against(played, tools, TWO_STEPS, settings=settings)
    assert "routine 'clock', after the start: the model server did not answer in time" in str(done.error)


async def test_a_model_server_that_refuses_or_answers_nonsense(tools: RecordingServers) -> None:
    refusal = {"error": {"message": "max_tokens is too small"}, "status": 400}
    done = await run(tools, TWO_STEPS, [refusal], constrained=True)
    assert "the model server refused the request: " in str(done.error)
    assert "max_tokens is too small" in str(done.error)
    done = await run(tools, TWO_STEPS, [{"choices": []}], constrained=True)
    assert "has no message" in str(done.error)


async def test_no_model_server_at_all(tools: RecordingServers) -> None:
    with model_server([]) as played:
        pass
    done = await run_against(played, tools, TWO_STEPS)
    assert "routine 'clock': the model server gave no answer" in str(done.error)


async def test_another_version_of_the_routine_is_refused(tools: RecordingServers) -> None:
    with model_server([], routines=[{"name": "other"}, {"name": "clock", "version": "00000000"}]) as played:
        done = await run_against(played, tools, TWO_STEPS)
    assert f"the server has version '00000000', expected '{TWO_STEPS.version}'" in str(done.error)


async def test_a_server_that_lists_other_routines_is_a_plain_one(tools: RecordingServers) -> None:
    with model_server([say("", ASK_NOW)], routines=[{"name": "other"}]) as played:
        done = await run_against(played, tools, clock(NOW))
    assert done.error is None
    assert "tools" in done.requests[0]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "input 'zone': no value was given"),
        ({"zon": "UTC"}, "has no input 'zon'; did you mean 'zone'?"),
        ({"zone": 5}, "input 'zone': 5 is not of type 'string'"),
        ({"zone": "UTC", "x": 1}, "has no input 'x'; it has zone"),
    ],
)
async def test_inputs_must_be_those_declared(tools: RecordingServers, inputs: dict[str, Any], message: str) -> None:
    done = await run(tools, TWO_STEPS, [], constrained=True, inputs=inputs)
    assert isinstance(done.error, RunError)
    assert message in str(done.error)
    assert done.requests == []


async def test_a_routine_that_does_not_fit_the_tools(tools: RecordingServers) -> None:
    done = await run(tools, clock(step("get_curent_time")), [], constrained=True)
    assert isinstance(done.error, RoutineError)
    assert "did you mean 'get_current_time'?" in str(done.error)


async def test_the_bound_on_turns(tools: RecordingServers) -> None:
    settings = replace(QUICK, max_turns=1)
    done = await run(tools, TWO_STEPS, [say("", ASK_NOW), say("", ASK_CONVERT)], constrained=True, settings=settings)
    assert "after Step 1: no end after 1 turns, the bound" in str(done.error)
    done = await run(tools, clock(NOW), [say("", ASK_NOW)], constrained=True, settings=settings)
    assert done.finished is not None
    with pytest.raises(RunError, match="attempts is 0"):
        RunSettings(attempts=0)


async def test_a_constant_is_called_as_written_and_an_escaped_literal_is_unescaped(tools: RecordingServers) -> None:
    routine = clock(step("get_current_time", timezone=Constant("\\memory_x")))
    done = await run(tools, routine, [say("", ("get_current_time", {"timezone": "\\memory_x"}))], constrained=True)
    assert done.calls == [("get_current_time", {"timezone": "\\memory_x"})]
    routine = clock(step("get_current_time", timezone=Literal()))
    done = await run(tools, routine, [say("", ("get_current_time", {"timezone": "\\memory_x"}))], constrained=True)
    assert done.calls == [("get_current_time", {"timezone": "memory_x"})]


NOW_IN_TOKYO = step("get_current_time", timezone=Constant("Asia/Tokyo"), outputs=(Variable("zone", pointer="/timezone"),))


class KeptJournal:
    """A journal in memory, and a process that dies behind one of its events."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.documents: list[str] = []
        self.stored: dict[str, Stored] = {}
        self._dies_after = dies_after

    async def write(self, event: RunEvent, changed: Sequence[Stored]) -> None:
        self.documents.append(json.dumps(event_to_document(event)))
        self.stored |= {each.key.name: each for each in changed}
        if len(self.documents) == self._dies_after:
            raise ConnectionAbortedError

    def events(self) -> list[RunEvent]:
        return [event_from_document(json.loads(text)) for text in self.documents]


async def take_up(
    servers: ToolServers, client: AsyncOpenAI, journal: KeptJournal, settings: RunSettings, approve: Approve | None = None
) -> tuple[RunOfRoutine, tuple[Called, ...]]:
    """A run of two steps, from where its journal ends."""
    memory = VariableMemory()
    memory.restore(journal.stored.values())
    inputs = None if journal.stored else {"zone": "Asia/Tokyo"}
    chat = RoutineChat(clock(NOW_IN_TOKYO, CONVERT), servers.tools, inputs=inputs, memory=memory)
    taken_up = RunOfRoutine(chat, servers, client, "m", settings, journal=journal, approve=approve)
    return taken_up, taken_up.restore(journal.events())


async def to_the_end(begun: RunOfRoutine) -> Finished:
    while not isinstance(event := await begun.turn(), Finished):
        pass
    return event


@pytest.mark.parametrize("dies_after", range(1, 7))
async def test_a_run_is_taken_up_from_its_events(tools: RecordingServers, dies_after: int) -> None:
    journal = KeptJournal(dies_after)
    tools.calls = []
    with model_server([say("", ASK_CONVERT)], routines=[{"name": "clock"}]) as played:
        async with a_client(played) as client:
            begun, none = await take_up(tools, client, journal, QUICK)
            assert none == ()
            with pytest.raises(ConnectionAbortedError):
                await to_the_end(begun)
            journal._dies_after = None
            again, under_way = await take_up(tools, client, journal, QUICK)
            # Two turns of three events: only behind "called" it is not known whether a call was made.
            assert [(call.turn, call.place) for call in under_way] == (
                [((dies_after + 1) // 3, 0)] if dies_after % 3 == 2 else []
            )
            done = await to_the_end(again)
    assert done == Finished(End.STEPS_DONE, "2", 2)
    made = [json.loads(text)["kind"] for text in journal.documents]
    assert made.count("answered") == 2
    assert made.count("called") == len(tools.calls) + (dies_after % 3 == 2)
    assert tools.calls[-1] == (
        "convert_time",
        {"source_timezone": "Asia/Tokyo", "time": "09:30", "target_timezone": "Asia/Tokyo"},
    )


async def test_a_person_is_asked_before_destructive_tools(tools: RecordingServers) -> None:
    asked: list[Asked] = []

    async def refuse(call: Asked, tool: Tool) -> Approved:
        asked.append(call)
        return Approved(call.turn, call.place, allowed=False, reason="not today")

    tools.calls = []
    settings = replace(QUICK, approval="always")
    with model_server([], routines=[{"name": "clock"}]) as played:
        async with a_client(played) as client:
            journal = KeptJournal()
            refused, _ = await take_up(tools, client, journal, settings, refuse)
            turn = await refused.turn()
            assert isinstance(turn, TurnTaken)
            assert turn.calls[0].observation == "The tool failed: A person did not approve of this call: not today"
            with pytest.raises(RunError, match="did not approve"):
                await refused.turn()
            with pytest.raises(RunError, match="nobody is there to give it"):
                await take_up(tools, client, KeptJournal(), settings)
    assert tools.calls == []
    assert [(call.tool, call.arguments) for call in asked] == [("get_current_time", {"timezone": "Asia/Tokyo"})]
    assert [json.loads(text)["kind"] for text in journal.documents] == ["decided", "asked", "approved", "answered"]
    assert is_destructive(Tool("t", "", {}))
    assert not is_destructive(Tool("t", "", {}, read_only=True))
    assert not is_destructive(Tool("t", "", {}, destructive=False))
