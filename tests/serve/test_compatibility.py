"""Every way a request can go, in every dialect, streamed and whole: `docs/compatibility.md` is made of what these tests say.

`make compatibility` runs them and writes the page.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion
from openai.types.chat.chat_completion import Choice

from routine_grammar import Routine
from routine_grammar.agent.calls import CheckedCall, ToolCall
from routine_grammar.agent.chat import RoutineChat
from routine_grammar.agent.completions import Reply
from routine_grammar.agent.tools import ToolResult
from routine_grammar.routine import Graph
from routine_grammar.serve.call_ids import LongIds, ShortIds
from tests.compatibility import PAGE, SEEN, WAYS, page_of, read_page
from tests.scale import SCALE
from tests.serve.dialect_server import ADAPTED, CHUNK, MODEL, dialect_server
from tests.serve.parsers import PARSERS
from tests.servers import ONE_CORE

pytestmark = [pytest.mark.server, pytest.mark.filterwarnings("ignore")]

ROUTINE = """
name: tickets
description: Work on a ticket.
inputs:
  ticket: {type: string}
steps:
  - name: Read the ticket
    tool: read_ticket
    arguments: {id: {key: memory_input_ticket}}
    outputs:
      owner: {pointer: /owner, type: string}
      title: {pointer: /title, type: string}
    branches:
      - if: nobody looks after it
        steps:
          - {name: Find somebody, tool: find_person, arguments: {skills: literal}}
  - name: Tell everybody
    branches:
      - parallel: true
        steps:
          - {name: Tell the owner, tool: tell, arguments: {person: key, text: literal}}
          - {name: Post it, tool: post, optional: true}
  - {name: Close it, tool: close_ticket, arguments: {id: {key: memory_input_ticket}, state: literal}}
"""
TEXT = {"type": "string"}
PARAMETERS: dict[str, dict[str, Any]] = {
    "read_ticket": {"id": {"type": "string"}},
    "find_person": {"skills": {"type": "array", "items": TEXT}},
    "tell": {"person": {"type": "string"}, "text": TEXT},
    "post": {"channel": {"enum": ["all", "[TOOL_CALLS]"]}, "pinned": {"type": "boolean"}},
    "close_ticket": {"id": {"type": "string"}, "state": {"enum": ["done", "won't do", "größer"]}},
}
TOOLS = [
    {"name": name, "inputSchema": {"type": "object", "properties": parameters, "required": list(parameters)}}
    for name, parameters in PARAMETERS.items()
]
TICKET = {"owner": "Ada", "title": "It </tool_call> hangs"}
FEW = ("mistral",)  # the dialects tried outside of drills; hermes is that of the demo server

ONCE = {"Connection": "close"}  # a server may be about to close one that was used 5 s before


@dataclass(frozen=True)
class Server:
    """A server of a dialect."""

    dialect: str
    base_url: str
    client: openai.OpenAI

    def ask(self, way: str, **asked: Any) -> ChatCompletion:
        """A completion; a streamed one as the official client puts it together."""
        given: dict[str, Any] = {"model": MODEL, "max_tokens": 100, "temperature": 1.0, **asked}
        body = given.setdefault("extra_body", {})
        given["extra_body"] = {"chat_template_kwargs": {"enable_thinking": False}, **body}
        if way == "whole":
            answer: ChatCompletion = self.client.chat.completions.create(**given)
            return answer
        with self.client.chat.completions.stream(**given, stream_options={"include_usage": True}) as stream:
            stream.until_done()
            return stream.get_final_completion()

    def chat(self) -> RoutineChat:
        """A fresh conversation."""
        return RoutineChat.from_server(self.client.get("/routines/tickets", cast_to=object), inputs={"ticket": "T-1"})

    def figure(self, name: str) -> float:
        """The sum of a figure in `/metrics`."""
        lines = httpx.get(self.base_url.removesuffix("v1") + "metrics").text.splitlines()
        found = [line for line in lines if line.startswith(name) and line[len(name)] in " {"]
        return sum(float(line.rpartition(" ")[2]) for line in found)


@contextmanager
def serving(dialect: str, folder: Path, *flags: str) -> Iterator[Server]:
    """A server of a dialect, with a client."""
    (folder / "tickets.yaml").write_text(ROUTINE, encoding="utf-8")
    (folder / "tools.json").write_text(json.dumps({"tools": TOOLS}), encoding="utf-8")
    with (
        dialect_server(folder, dialect, folder / "tickets.yaml", folder / "tools.json", *flags) as base_url,
        openai.OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=300, default_headers=ONCE) as client,
    ):
        yield Server(dialect, base_url, client)


@pytest.fixture(scope="module", params=PARSERS if SCALE > 1 else FEW)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of each dialect in turn."""
    with serving(request.param, tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture(scope="module", params=PARSERS)
def scaled_out(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of two front ends and two engines of each dialect in turn."""
    if SCALE == 1:
        pytest.skip("two engines and two front ends take minutes to start: a drill")
    flags = ("--api-server-count", "2", "--data-parallel-size", "2")
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv(ONE_CORE, raising=False)
        with serving(request.param, tmp_path_factory.mktemp("server"), *flags) as found:
            yield found


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Streamed or whole."""
    return str(request.param)


def give_all(chat: RoutineChat, calls: Sequence[CheckedCall]) -> None:
    for call in calls:
        chat.give(call, ToolResult(json.dumps(TICKET), TICKET) if call.step.tool == "read_ticket" else ToolResult("done"))


def second(server: Server) -> RoutineChat:
    """A conversation whose first step is done."""
    chat = server.chat()
    give_all(chat, chat.read(server.ask("whole", **chat.request())))
    return chat


def written(choice: Choice) -> list[ToolCall]:
    """The calls of a sample."""
    calls = [call for call in choice.message.tool_calls or () if call.type == "function"]
    return [ToolCall(call.id, call.function.name, call.function.arguments) for call in calls]


def bare(choice: Choice) -> list[tuple[str, str]]:
    """The calls of a sample without their ids, of which no two are the same."""
    return [(call.name, call.text) for call in written(choice)]


def judge(chat: RoutineChat, choice: Choice) -> list[CheckedCall]:
    """The calls of a sample, every one legal where the conversation stands; the conversation does not move."""
    assert choice.finish_reason == "tool_calls"
    aside = RoutineChat(chat.routine, chat.tools.values(), memory=chat.memory, inputs={"ticket": "T-1"})
    aside.position = chat.position
    checked = aside.take(Reply(choice.message.content or "", tuple(written(choice)), choice.finish_reason))
    assert checked
    return list(checked)


@pytest.mark.feature("a conversation to its end, its position in `tool_call.id`")
def test_a_conversation(server: Server, way: str) -> None:
    converse(server, way)


def converse(server: Server, way: str) -> None:
    """Go through the Routine to its end."""
    chat = server.chat()
    done = []
    while chat.answer is None:
        calls = chat.read(server.ask(way, **from_ids(chat)))
        give_all(chat, calls)
        done += [call.step.id for call in calls]
    assert done[0] == "1"
    assert done[-1] == "3"
    assert "2-1_1" in done


@pytest.mark.feature("`n` > 1")
def test_n(server: Server, way: str) -> None:
    chat = second(server)
    choices = server.ask(way, **chat.request(n=4)).choices
    assert [choice.index for choice in choices] == [0, 1, 2, 3]
    calls = [call.id for choice in choices for call in written(choice)]
    assert len(set(calls)) == len(calls)
    for choice in choices:
        judge(chat, choice)


@pytest.mark.feature("`logprobs`")
def test_logprobs(server: Server, way: str) -> None:
    chat = second(server)
    said = server.ask(way, **chat.request(logprobs=True, top_logprobs=3))
    assert judge(chat, said.choices[0])
    assert said.usage is not None
    assert said.choices[0].logprobs is not None
    tokens = said.choices[0].logprobs.content or []
    assert len(tokens) == said.usage.completion_tokens
    assert all(len(token.top_logprobs) >= 3 and token.logprob <= 0 for token in tokens)


@pytest.mark.feature("`usage`")
def test_usage(server: Server, way: str) -> None:
    chat = second(server)
    asked = chat.request(temperature=0, extra_body={"return_token_ids": True})
    said = server.ask("whole", **asked)
    counted, usage = said.choices[0].model_extra["token_ids"], server.ask(way, **asked).usage  # type: ignore[index]
    assert usage is not None
    assert usage.completion_tokens == len(counted)
    assert usage.prompt_tokens == len(said.model_extra["prompt_token_ids"])  # type: ignore[index]
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


@pytest.mark.feature("`finish_reason`")
def test_finish_reason(server: Server, way: str) -> None:
    chat = second(server)
    while chat.successors().moves:
        said = server.ask(way, **chat.request())
        assert said.choices[0].finish_reason == "tool_calls"
        give_all(chat, chat.read(said))
    said = server.ask(way, **chat.request(max_tokens=20))
    assert said.choices[0].finish_reason in ("stop", "length")
    assert said.choices[0].message.content
    assert not said.choices[0].message.tool_calls


@pytest.mark.feature("argument deltas, as the `openai` client accumulates them")
def test_deltas(server: Server, way: str) -> None:
    chat = second(server)
    for seed in range(3):
        asked = chat.request(seed=seed, temperature=1.0)
        whole, other = (server.ask(each, **asked).choices[0] for each in ("whole", way))
        assert bare(other) == bare(whole)
        judge(chat, other)


@pytest.mark.feature("`parallel_tool_calls`")
def test_parallel_tool_calls(server: Server, way: str) -> None:
    chat = second(server)
    chat.position = "1-1_1"  # where both calls of the parallel branch are legal
    for allowed in (True, False):
        counts = set[int]()
        for seed in range(10):
            choices = server.ask(way, **chat.request(n=8, seed=seed, max_tokens=200, parallel_tool_calls=allowed)).choices
            counts |= {len(judge(chat, choice)) for choice in choices}
            if 2 in counts or not allowed:
                break
        assert counts == ({1, 2} if allowed else {1})


@pytest.mark.feature("prefix caching")
def test_prefix_caching(server: Server, way: str) -> None:
    chat = second(server)
    chat.messages[0] = {"role": "user", "content": f"Begin, {way}. {'and so on ' * 60}"}
    first, again = (server.ask(way, **chat.request(temperature=0)) for _ in range(2))
    assert again.usage is not None
    assert again.usage.prompt_tokens_details is not None
    assert (again.usage.prompt_tokens_details.cached_tokens or 0) > again.usage.prompt_tokens // 2
    assert bare(first.choices[0]) == bare(again.choices[0])
    judge(chat, again.choices[0])


@pytest.mark.feature("chunked prefill")
def test_chunked_prefill(server: Server, way: str) -> None:
    chat = second(server)
    chat.messages[0] = {"role": "user", "content": "".join(f"{way} {number}, " for number in range(60))}
    said = server.ask(way, **chat.request())
    assert said.usage is not None
    assert said.usage.prompt_tokens > 2 * CHUNK
    judge(chat, said.choices[0])


@pytest.mark.feature("preemption and resume")
def test_preemption(server: Server, way: str) -> None:
    chat = second(server)
    before = server.figure("vllm:num_preemptions_total")
    long: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}], "n": 8, "extra_body": {"ignore_eos": True}}
    for _ in range(5):
        with ThreadPoolExecutor(9) as pool:
            pool.submit(server.ask, "whole", **long, max_tokens=300)  # which take the cache's blocks, one after the other
            for said in pool.map(lambda seed: server.ask(way, **chat.request(seed=seed, n=2)), range(8)):
                for choice in said.choices:
                    judge(chat, choice)
        if server.figure("vllm:num_preemptions_total") > before:
            return
    raise AssertionError("no request was preempted")


@pytest.mark.feature("abort")
def test_abort(server: Server, way: str) -> None:
    chat = second(server)
    asked = chat.request(
        model=MODEL, max_tokens=600, seed=1, n=16, extra_body={"chat_template_kwargs": {"enable_thinking": False}}
    )
    whole = server.ask("whole", **asked).usage
    assert whole is not None
    body = {**asked, **asked.pop("extra_body"), "stream": way == "streamed"}
    for tried in range(12):  # on few cores the engine may leave us none until it is done, and on fast ones it is done before
        before = server.figure("vllm:generation_tokens_total")
        with (
            suppress(httpx.TimeoutException),
            httpx.stream("POST", f"{server.base_url}/chat/completions", json=body, timeout=0.7 * 0.7**tried) as answer,
        ):
            next(answer.iter_bytes())
        while server.figure("vllm:num_requests_running"):
            time.sleep(0.1)
        if 0 < server.figure("vllm:generation_tokens_total") - before < whole.completion_tokens:
            break
    else:
        raise AssertionError("what nobody waited for was decoded to its end")
    judge(chat, server.ask(way, **chat.request()).choices[0])


@pytest.mark.feature("reasoning before the constraint")
def test_reasoning(server: Server, way: str) -> None:
    chat = second(server)
    (end,) = httpx.post(
        f"{server.base_url.removesuffix('/v1')}/tokenize",
        json={"model": MODEL, "prompt": "</think>", "add_special_tokens": False},
    ).json()["tokens"]
    thoughts = []
    for seed in range(2):
        body = {"chat_template_kwargs": {"enable_thinking": True}}
        asked = chat.request(seed=seed, max_tokens=300, logit_bias={str(end): 5.0}, extra_body=body)
        choice = server.ask(way, **asked).choices[0]
        judge(chat, choice)
        thoughts.append((choice.message.model_extra or {}).get("reasoning"))
    assert any(thoughts)


@pytest.mark.feature("LoRA adapters")
def test_lora(server: Server, way: str) -> None:
    chat = second(server)
    likely = []
    for model in (MODEL, ADAPTED):
        said = server.ask(way, **chat.request(model=model, logprobs=True, temperature=0)).choices[0]
        judge(chat, said)
        assert said.logprobs is not None
        likely.append([token.logprob for token in said.logprobs.content or () if token.logprob < 0])  # 0: it is forced
    assert likely[0]
    assert likely[0] != likely[1]


def from_ids(chat: RoutineChat, call_id: str | None = None) -> dict[str, Any]:
    """The next request with the position in its ids alone; `call_id` stands in their place."""
    asked = chat.request()
    del asked["extra_body"]["routine"]["position"]
    messages = json.loads(json.dumps(asked["messages"]))
    for message in messages if call_id else ():
        for call in message.get("tool_calls", ()):
            call["id"] = call_id
        if "tool_call_id" in message:
            message["tool_call_id"] = call_id
    return {**asked, "messages": messages}


def refusal(server: Server, way: str, **asked: Any) -> str:
    """What a request is refused with, before anything is streamed."""
    with pytest.raises(openai.BadRequestError) as caught:
        server.ask(way, **asked)
    return str(caught.value)


@pytest.mark.feature("histories of foreign clients")
def test_foreign_histories(server: Server, way: str) -> None:
    chat = second(server)
    judge(chat, server.ask(way, **from_ids(chat, "aB3dE6gH9")).choices[0])
    chat.messages[1]["tool_calls"][0]["function"]["name"] = "close_ticket"
    assert "is no step of routine 'tickets' that may come there" in refusal(server, way, **from_ids(chat, "aB3dE6gH9"))


@pytest.mark.feature("forged ids are refused")
def test_forged_ids(server: Server, way: str) -> None:
    chat = second(server)
    judge(chat, server.ask(way, **from_ids(chat)).choices[0])
    chat.messages[1]["tool_calls"][0]["function"]["name"] = "post"
    assert "is that of a call of read_ticket, not of 'post'" in refusal(server, way, **from_ids(chat))


@pytest.mark.feature("a Routine edited in mid-conversation is told")
def test_edited_routines(server: Server, way: str) -> None:
    chat = second(server)
    graph = Graph.of(Routine.parse(ROUTINE.replace("Close it", "Close it at last")))
    ids = ShortIds(graph) if server.dialect.startswith("mistral") else LongIds(graph)
    assert "it has been edited since" in refusal(server, way, **from_ids(chat, ids.make("1")))


@pytest.mark.feature("other routes refuse `routine`")
def test_other_routes(server: Server, way: str) -> None:
    for path in ("completions", "responses", "messages", "chat/completions/batch"):
        body = {"model": MODEL, "prompt": "x", "routine": {"name": "tickets"}, "stream": way == "streamed"}
        answer = httpx.post(f"{server.base_url}/{path}", json=body)
        assert answer.status_code == 400
        assert "`routine` is served by POST /v1/chat/completions alone" in answer.json()["error"]["message"]


@pytest.mark.feature("`--api-server-count`", "data parallel")
def test_scaled_out(scaled_out: Server, way: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        for talk in [pool.submit(converse, scaled_out, way) for _ in range(12)]:
            talk.result()


def features() -> list[str]:
    """The rows of the page, in the order of the tests."""
    marks = [mark for found in globals().values() for mark in getattr(found, "pytestmark", ()) if mark.name == "feature"]
    return [name for mark in marks for name in mark.args]


def test_the_page_says_what_was_seen(request: pytest.FixtureRequest) -> None:
    seen = request.config.stash.get(SEEN, {})
    if request.config.getoption("--write-compatibility"):
        before = read_page(PAGE.read_text(encoding="utf-8")) if PAGE.is_file() else {}
        PAGE.write_text(page_of({**before, **seen}, features(), PARSERS, FEW), encoding="utf-8")
    page = read_page(PAGE.read_text(encoding="utf-8"))
    assert {cell: page.get(cell) for cell in seen} == seen
    assert all(page.values())
    assert page.keys() == {(name, dialect, way) for name in features() for dialect in PARSERS for way in WAYS}
