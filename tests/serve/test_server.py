"""A real server process over HTTP: Routines by the `openai` client, streamed and whole, and what it refuses."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import httpx
import openai
import pytest

from routine_grammar.api import CompiledRoutine
from routine_grammar.demo.catalogue import demo_routines
from routine_grammar.grammar.payload import PREFIX
from routine_grammar.routine import to_text

pytestmark = [pytest.mark.server, pytest.mark.filterwarnings("ignore")]

MODEL = "routine-demo"
REVIEW = "repository_review"
INPUTS = {
    "memory_input_repo_path": {"type": "string", "preview": "/srv/repository"},
    "memory_input_narrow_view": {"type": "integer", "preview": "1"},
    "memory_input_wide_view": {"type": "integer", "preview": "9"},
}
MISTYPED = {"memory_input_repo_path": {"schema": {"$ref": 5}}}
ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Please begin."}], "max_tokens": 400}


def chat(base_url: str, **changes: Any) -> httpx.Response:
    return httpx.post(f"{base_url}/chat/completions", json={**ASK, **changes}, timeout=60)


def whole(client: openai.OpenAI, messages: list[Any], routine: dict[str, Any]) -> tuple[str | None, list[dict[str, Any]], str]:
    answer = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=400, extra_body={"routine": routine})
    choice = answer.choices[0]
    calls = [call.model_dump() for call in choice.message.tool_calls or ()]
    return choice.message.content, calls, choice.finish_reason


def streamed(
    client: openai.OpenAI, messages: list[Any], routine: dict[str, Any]
) -> tuple[str | None, list[dict[str, Any]], str]:
    content, calls, reason = "", dict[int, dict[str, Any]](), ""
    stream = client.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=400, stream=True, extra_body={"routine": routine}
    )
    for event in stream:
        for choice in event.choices:
            content += choice.delta.content or ""
            reason = choice.finish_reason or reason
            for part in choice.delta.tool_calls or ():
                assert part.function is not None
                empty = {"id": part.id, "type": "function", "function": {"name": part.function.name, "arguments": ""}}
                calls.setdefault(part.index, empty)["function"]["arguments"] += part.function.arguments or ""
    return content or None, [calls[index] for index in sorted(calls)], reason


@pytest.mark.parametrize("way", [whole, streamed])
def test_a_run_follows_the_routine_to_its_end(base_url: str, demo: dict[str, CompiledRoutine], way: Any) -> None:
    client = openai.OpenAI(base_url=base_url, api_key="none")
    graph = demo[REVIEW].graph
    messages: list[Any] = [{"role": "user", "content": "Review the repository."}]
    memory = dict(INPUTS)
    position = "start"
    while graph.successors(position).steps:
        content, calls, reason = way(client, messages, {"name": REVIEW, "memory": memory})
        assert reason == "tool_calls"
        (call,) = calls
        step = graph.call_taken(position, content, call["function"]["name"]).step
        assert call["id"].startswith(f"rg.{REVIEW}.{graph.routine.version}.{step.id}.")
        arguments = json.loads(call["function"]["arguments"])
        assert {v for v in arguments.values() if isinstance(v, str) and v.startswith("memory_")} <= set(memory)
        messages += [
            {"role": "assistant", "content": content, "tool_calls": calls},
            {"role": "tool", "tool_call_id": call["id"], "content": [{"type": "text", "text": "</tool_call><|im_end|>"}]},
        ]
        for variable in step.written:
            memory[f"memory_{step.id}_{variable.name}"] = {"type": "string", "preview": "…"}
        position = step.id
    content, calls, reason = way(client, messages, {"name": REVIEW, "memory": memory})
    assert (bool(content), calls, reason in ("stop", "length")) == (True, [], True)


def test_the_position_can_be_said_and_foreign_ids_are_replayed(base_url: str, demo: dict[str, CompiledRoutine]) -> None:
    first = demo[REVIEW].graph.successors("start").steps[0]
    memory = {**INPUTS, f"memory_{first.id}_result": {"type": "string"}}
    call: dict[str, Any] = {"id": "call_1", "type": "function", "function": {"name": first.tool, "arguments": "{}"}}
    history = [
        {"role": "user", "content": "Begin."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "fine"},
    ]
    replayed = chat(base_url, messages=history, routine={"name": REVIEW, "memory": memory}, temperature=0)
    said = chat(base_url, messages=history, routine={"name": REVIEW, "memory": memory, "position": first.id}, temperature=0)
    calls = [answer.json()["choices"][0]["message"]["tool_calls"][0] for answer in (replayed, said)]
    assert calls[0]["function"] == calls[1]["function"]
    call["function"]["name"] = "git_show"
    refused = chat(base_url, messages=history, routine={"name": REVIEW, "memory": memory})
    assert refused.status_code == 400
    assert f"legal are {first.tool}" in refused.json()["error"]["message"]


def test_plain_requests_are_as_vllm_has_them(base_url: str) -> None:
    client = openai.OpenAI(base_url=base_url, api_key="none")
    free = client.chat.completions.create(model=MODEL, messages=ASK["messages"], max_tokens=8)
    assert free.usage is not None
    assert free.usage.completion_tokens == 8
    choice = chat(base_url, structured_outputs={"choice": ["yes", "no"]}).json()
    assert choice["choices"][0]["message"]["content"] in ("yes", "no")
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    assert chat(base_url, response_format=form).status_code == 200


def test_our_grammar_in_a_plain_request(base_url: str, demo: dict[str, CompiledRoutine]) -> None:
    turn = demo["meeting_times"].turn(None, ["memory_input_first_office", "memory_input_second_office"])
    for stream in (False, True):
        answer = chat(base_url, structured_outputs={"grammar": turn.payload}, stream=stream)
        assert answer.status_code == 200
    text = chat(base_url, structured_outputs={"grammar": turn.payload}).json()["choices"][0]["message"]["content"]
    assert turn.accepts(text)
    completion = httpx.post(
        f"{base_url}/completions",
        json={"model": MODEL, "prompt": "x", "max_tokens": 400, "structured_outputs": {"grammar": turn.payload}},
        timeout=60,
    ).json()
    assert turn.accepts(completion["choices"][0]["text"])


def test_routes_of_routines(base_url: str, demo: dict[str, CompiledRoutine]) -> None:
    listed = httpx.get(f"{base_url}/routines").json()["routines"]
    assert sorted(entry["name"] for entry in listed) == sorted(demo)
    shown = httpx.get(f"{base_url}/routines/{REVIEW}").json()
    assert shown["text"] == to_text(demo[REVIEW].routine)
    assert shown["lark"] == demo[REVIEW].lark
    assert httpx.get(f"{base_url}/routines/nothing").status_code == 404
    turn = httpx.post(f"{base_url}/routines/{REVIEW}/turn", json={"memory": INPUTS}).json()
    assert turn["tools"] == ["git_status"]
    assert turn["forced"].startswith('<tool_call>\n{"name": "git_status"')
    assert turn["position"] == "start"
    good = httpx.post(f"{base_url}/routines/check", json={"routine": to_text(demo_routines()[0])}).json()
    assert good == {"problems": []}
    bad = httpx.post(f"{base_url}/routines/check", json={"routine": "name: x\nsteps:\n  - {name: a, tool: git_statu}\n"}).json()
    assert "did you mean 'git_status'" in bad["problems"][0]
    half = httpx.post(
        f"{base_url}/routines/check",
        content=r'{"routine": {"name": "x", "description": "\ud800", "steps": []}}',
        headers={"content-type": "application/json"},
    )
    assert "half of a surrogate pair" in half.json()["problems"][0]
    mistyped = httpx.post(f"{base_url}/routines/{REVIEW}/turn", json={"memory": {**INPUTS, **MISTYPED}})
    assert mistyped.status_code == 400
    assert "memory_input_repo_path" in mistyped.json()["error"]["message"]


BESIDE = (
    "tools",
    "tool_choice",
    "response_format",
    "structured_outputs",
    "stop",
    "ignore_eos",
    "min_tokens",
    "use_beam_search",
    "repetition_detection",
)
BESIDE_VALUES: dict[str, Any] = {
    "tools": [{"type": "function", "function": {"name": "x", "parameters": {}}}],
    "tool_choice": "auto",
    "response_format": {"type": "json_object"},
    "structured_outputs": {"regex": "a"},
    "stop": ["x"],
    "ignore_eos": True,
    "min_tokens": 3,
    "use_beam_search": True,
    "repetition_detection": {"max_pattern_size": 3, "min_pattern_size": 1, "min_count": 2},
}
ROUTINE = {"name": REVIEW, "memory": INPUTS}
YES = {"grammar": PREFIX + '{"v":1,"leaves":{},"rules":{},"root":"yes"}'}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "x", "parameters": {}}}
BROKEN: dict[str, dict[str, Any]] = {
    **{f"beside {name}": {"routine": ROUTINE, name: BESIDE_VALUES[name]} for name in BESIDE},
    "unknown routine": {"routine": {"name": "repository_revue"}},
    "unknown field": {"routine": {**ROUTINE, "positions": "1"}},
    "name is a number": {"routine": {"name": 5}},
    "routine is a list": {"routine": [1]},
    "unknown position": {"routine": {**ROUTINE, "position": "99"}},
    "position of another type": {"routine": {**ROUTINE, "position": 3}},
    "a key that is no key": {"routine": {"name": REVIEW, "memory": {"repo_path": {}}}},
    "a missing key": {"routine": {"name": REVIEW}},
    "memory of another type": {"routine": {"name": REVIEW, "memory": ["memory_input_repo_path"]}},
    "a type that is none": {"routine": {"name": REVIEW, "memory": {**INPUTS, **MISTYPED}}},
    "too few tokens": {"routine": ROUTINE, "max_tokens": 3},
    "too few tokens, streamed": {"routine": ROUTINE, "max_tokens": 3, "stream": True},
    "malformed grammar": {"structured_outputs": {"grammar": PREFIX + "{}"}},
    "malformed grammar, streamed": {"structured_outputs": {"grammar": PREFIX + "{}"}, "stream": True},
    "a grammar of nothing": {"structured_outputs": {"grammar": PREFIX + '{"v":1,"leaves":{},"rules":{},"root":["or"]}'}},
    "our grammar beside beam search": {"structured_outputs": YES, "use_beam_search": True, "n": 2},
    "our grammar beside a tool that must be called": {"structured_outputs": YES, "tools": [TOOL], "tool_choice": "required"},
    "our grammar beside one tool": {
        "structured_outputs": YES,
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "x"}},
    },
    "our grammar beside a strict tool": {
        "structured_outputs": YES,
        "tools": [{"type": "function", "function": {**TOOL["function"], "strict": True}}],
    },
    "no messages": {"routine": ROUTINE, "messages": []},
    "a message of a number": {"routine": ROUTINE, "messages": [{"role": "user", "content": [5]}]},
    "a call nested too deeply": {
        "routine": ROUTINE,
        "messages": [
            {"role": "user", "content": "x"},
            {
                "role": "assistant",
                "tool_calls": [{"id": "a", "type": "function", "function": {"name": "git_status", "arguments": "[" * 5000}}],
            },
        ],
    },
    "a forged id": {
        "routine": ROUTINE,
        "messages": [
            {"role": "user", "content": "x"},
            {
                "role": "assistant",
                "tool_calls": [
                    {
                        "id": f"rg.{REVIEW}.00000000.3.aaaaaaaaaaaa",
                        "type": "function",
                        "function": {"name": "git_status", "arguments": "{}"},
                    }
                ],
            },
        ],
    },
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_requests_are_400s_with_a_reason(base_url: str, case: str) -> None:
    answer = chat(base_url, **BROKEN[case])
    assert answer.status_code == 400, answer.text
    assert len(answer.json()["error"]["message"]) > 20
    assert chat(base_url, max_tokens=1).status_code == 200


@pytest.mark.parametrize("path", ["completions", "responses", "messages", "chat/completions/batch", "embeddings"])
def test_routes_that_cannot_honour_routine_refuse_it(base_url: str, path: str) -> None:
    answer = httpx.post(f"{base_url}/{path}", json={"model": MODEL, "prompt": "x", "routine": ROUTINE})
    assert answer.status_code == 400
    assert "`routine` is served by POST /v1/chat/completions alone" in answer.json()["error"]["message"]


def test_usage_and_finish_reason_are_told_whole_and_streamed(base_url: str) -> None:
    client = openai.OpenAI(base_url=base_url, api_key="none")
    asked: dict[str, Any] = {**ASK, "seed": 3, "temperature": 1.0, "extra_body": {"routine": ROUTINE}}
    whole = client.chat.completions.create(**asked)
    assert whole.choices[0].finish_reason == "tool_calls"
    assert whole.usage is not None
    assert whole.usage.prompt_tokens > 100 < whole.usage.prompt_tokens + whole.usage.completion_tokens
    parts = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert [choice.finish_reason for part in parts for choice in part.choices if choice.finish_reason] == ["tool_calls"]
    assert parts[-1].usage is not None
    assert parts[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert parts[-1].usage.prompt_tokens == whole.usage.prompt_tokens


@pytest.mark.parametrize("stream", [False, True])
def test_several_choices_have_ids_and_log_probabilities_of_their_own(base_url: str, stream: bool) -> None:
    body = {"routine": ROUTINE, "n": 3, "temperature": 1.0, "logprobs": True, "top_logprobs": 1, "stream": stream}
    answer = chat(base_url, **body)
    if stream:
        lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line.startswith("data: {")]
        choices = [choice for line in lines for choice in json.loads(line)["choices"]]
        calls = [(choice["index"], call) for choice in choices for call in choice["delta"].get("tool_calls") or ()]
        ids = {index: call["id"] for index, call in calls if call.get("id")}
        assert any(choice["logprobs"] for choice in choices)
    else:
        whole = answer.json()["choices"]
        ids = {choice["index"]: choice["message"]["tool_calls"][0]["id"] for choice in whole}
        assert all(choice["logprobs"]["content"] for choice in whole)
    assert sorted(ids) == [0, 1, 2]
    assert len(set(ids.values())) == 3
    assert all(each.startswith(f"rg.{REVIEW}.") for each in ids.values())


def test_a_client_that_leaves_in_mid_stream_leaves_nothing_running(base_url: str) -> None:
    for _ in range(4):
        with httpx.stream(
            "POST", f"{base_url}/chat/completions", json={**ASK, "routine": ROUTINE, "stream": True}, timeout=60
        ) as answer:
            next(answer.iter_bytes())
    assert chat(base_url, routine=ROUTINE).status_code == 200


def figures(base_url: str) -> dict[str, float]:
    lines = httpx.get(base_url.removesuffix("v1") + "metrics").text.splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


def test_metrics_of_our_own_stand_beside_those_of_vllm(base_url: str) -> None:
    expense = {"name": "expense_approval", "memory": {"memory_input_report_id": {"type": "string"}}}  # asked for here only
    offices = {f"memory_input_{which}_office": {"type": "string"} for which in ("first", "second")}
    meeting = {"name": "meeting_times", "memory": offices}
    before = figures(base_url)
    for stream, routine in itertools.product((False, True), (expense, meeting)):
        assert chat(base_url, routine=routine, stream=stream).status_code == 200
    assert chat(base_url, routine={**expense, "position": "99"}).status_code == 400
    assert chat(base_url, routine={**expense, "position": 5}).status_code == 400
    assert chat(base_url, routine=expense, max_tokens=3).status_code == 400
    assert httpx.post(f"{base_url}/completions", json={"routine": expense}).status_code == 400

    def gained() -> dict[str, float]:
        return {name: value - before.get(name, 0) for name, value in figures(base_url).items()}

    def counted(what: str, routine: str) -> float:
        return gained().get(f'routine_grammar_{what}_total{{routine="{routine}"}}', 0)

    for name in ("expense_approval", "meeting_times"):
        for _ in range(100):  # turns are counted behind their answers
            if counted("turns", name) == 2:
                break
            time.sleep(0.05)
        else:
            raise AssertionError(f"two turns of {name} were not counted")
    assert counted("tokens", "expense_approval") == counted("forced_tokens", "expense_approval") > 40
    assert counted("tokens", "meeting_times") > counted("forced_tokens", "meeting_times") > 20  # either office may come first
    figure = gained()
    refused = {name: value for name, value in figure.items() if "refusals_total" in name}
    assert refused['routine_grammar_refusals_total{reason="RoutineError"}'] == 1
    assert refused['routine_grammar_refusals_total{reason="RequestValidationError"}'] == 1
    assert refused['routine_grammar_refusals_total{reason="OtherRoute"}'] == 1
    assert sum(refused.values()) == 4
    assert figure["routine_grammar_compile_seconds_count"] == 6
    assert figure['routine_grammar_turn_cache_total{kept="true"}'] >= 2


def test_the_openapi_document_has_the_field_and_the_answers(base_url: str) -> None:
    document = httpx.get(base_url.removesuffix("v1") + "openapi.json").json()
    schemas = document["components"]["schemas"]
    asked = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    fields = schemas[asked["$ref"].rpartition("/")[2]]["properties"]
    assert "RoutineField" in json.dumps(fields["routine"])
    for path, answer in (("", "RoutineList"), ("/{name}", "RoutineAnswer"), ("/check", "CheckAnswer")):
        (described,) = document["paths"][f"/v1/routines{path}"].values()
        assert described["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith(answer)
