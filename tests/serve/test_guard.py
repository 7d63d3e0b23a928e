"""The middleware by itself: what is shut while vLLM asks for a key, and what passes."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from routine_grammar.serve import guard
from routine_grammar.serve.guard import CHAT, UNGUARDED, RoutineGuard

pytestmark = pytest.mark.filterwarnings("ignore")


def client(api_key: Any = None, root_path: str = "") -> TestClient:
    async def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse((await request.body()).decode())

    paths = (*UNGUARDED, CHAT, "/ping", "/health", "/v1/completions")
    app = Starlette(routes=[Route(path, answer, methods=["GET", "POST"]) for path in paths])
    app.state.args = Namespace(api_key=api_key)
    app.add_middleware(RoutineGuard)
    return TestClient(app, root_path=root_path)


@pytest.mark.parametrize("path", ["/invocations", "/tokenize", "/detokenize", "/tokenizer_info", "/generative_scoring"])
@pytest.mark.parametrize("how", ["flag", "environment", "environment beside an empty flag"])
def test_ways_around_the_key_are_shut_however_it_is_given(monkeypatch: pytest.MonkeyPatch, path: str, how: str) -> None:
    # vLLM reads its variables once it serves, and no more in this process.
    monkeypatch.setattr(guard, "envs", Namespace(VLLM_API_KEY=None if how == "flag" else "secret"))
    server = client({"flag": ["secret"], "environment": None}.get(how, []))
    assert server.post(path, json={}).status_code == 403
    assert server.get(path).status_code == 403


@pytest.mark.parametrize("flag", [None, [], [""]])
def test_without_a_key_they_are_open(monkeypatch: pytest.MonkeyPatch, flag: Any) -> None:
    monkeypatch.setattr(guard, "envs", Namespace(VLLM_API_KEY=None))
    assert client(flag).post("/tokenize", json={"prompt": "x"}).json() == {"prompt": "x"}


def test_probes_stay_open_with_a_key() -> None:
    server = client(["secret"])
    assert (server.get("/health").status_code, server.post("/ping").status_code) == (200, 200)


def test_only_chat_takes_routine() -> None:
    server = client()
    assert server.post(CHAT, json={"routine": {}}).status_code == 200
    for body in ('{"routine": {}}', '{"rou\\u0074ine": {}}'):
        refused = server.post("/v1/completions", content=body)
        assert refused.status_code == 400
        assert "/v1/completions" in refused.json()["error"]["message"]
    for encoding in ("utf-16", "utf-16-le", "utf-32-be"):
        assert server.post("/v1/completions", content='{"routine": {}}'.encode(encoding)).status_code == 400
    assert server.post("/v1/completions", content='{"a": "routine"}').text == '{"a": "routine"}'
