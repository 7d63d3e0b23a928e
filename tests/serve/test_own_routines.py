"""A server started as a team would: its own Routines, tools recorded from a real MCP server, an API key, other flags."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

import httpx
import openai
import pytest

from routine_grammar.demo.server import model_server
from tests.serve.test_launcher import children, command_of

pytestmark = [pytest.mark.server, pytest.mark.filterwarnings("ignore")]

ROUTINE = """
name: clock
steps:
  - name: Ask for the time
    tool: get_current_time
    arguments: {timezone: {const: Etc/UTC}}
    outputs: {at: {pointer: /datetime}}
  - {name: Convert it, tool: convert_time, arguments: {time: {const: "09:30"}, source_timezone: {const: Etc/UTC}}}
"""


def server_at(base_url: str) -> int:
    """The process of the server at a URL."""
    port = base_url.rpartition(":")[2].removesuffix("/v1")
    commands = {pid: command_of(pid) for pid in children(os.getpid())}
    return next(pid for pid, command in commands.items() if "routine_grammar.serve" in command and port in command)


def drained(base_url: str) -> int:
    """Stop the server in mid-stream; return how many of the tokens asked for came all the same."""
    server = server_at(base_url)
    client = openai.OpenAI(base_url=base_url, api_key="secret", timeout=120, max_retries=0)
    parts = client.chat.completions.create(
        model="routine-demo",
        messages=[{"role": "user", "content": "x"}],
        max_tokens=400,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    tokens = 0
    for number, part in enumerate(parts):
        tokens = part.usage.completion_tokens if part.usage else tokens
        if number == 3:
            os.kill(server, signal.SIGTERM)
            refused = late_request(base_url)
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
            assert refused.json()["error"]["message"] == "the server is stopping"
    return tokens


def late_request(base_url: str) -> httpx.Response:
    """The answer to a request that comes after the signal."""
    for _ in range(40):  # the signal has its time
        answer = httpx.get(base_url.removesuffix("v1") + "health")
        if answer.status_code != 200:
            break
        time.sleep(0.05)
    return httpx.post(f"{base_url}/chat/completions", json={"messages": []}, headers={"Authorization": "Bearer secret"})


def test_routines_from_a_folder_with_tools_of_a_real_server(tmp_path: Path) -> None:
    (tmp_path / "routines").mkdir()
    (tmp_path / "routines" / "clock.yaml").write_text(ROUTINE)
    servers = {"mcpServers": {"time": {"command": sys.executable, "args": ["-m", "mcp_server_time"]}}}
    (tmp_path / "servers.json").write_text(json.dumps(servers))
    command = [sys.executable, "-m", "routine_grammar.serve", "--api-key", "secret", "--max-model-len", "4096"]
    command += ["--routines", str(tmp_path / "routines"), "--mcp", str(tmp_path / "servers.json")]
    command += ["--shutdown-timeout", "110"]  # a slow machine has its time

    async def use() -> None:
        header = {"Authorization": "Bearer secret"}
        async with httpx.AsyncClient(timeout=60) as client:
            url = ""

            async def ask(path: str, **options: object) -> httpx.Response:
                method = "POST" if "json" in options else "GET"
                return await client.request(method, f"{url}{path}", **options)  # type: ignore[arg-type]

            async with model_server(lambda elapsed_s, line: None, command) as base:
                url = base.removesuffix("/v1")
                assert (await ask("/v1/routines")).status_code == 401
                listed = await ask("/v1/routines", headers=header)
                assert [entry["name"] for entry in listed.json()["routines"]] == ["clock"]
                body = {"model": "routine-demo", "messages": [{"role": "user", "content": "x"}], "max_tokens": 300}
                body = {**body, "routine": {"name": "clock"}}
                assert (await ask("/v1/chat/completions", json=body)).status_code == 401
                answer = (await ask("/v1/chat/completions", json=body, headers=header)).json()
                (call,) = answer["choices"][0]["message"]["tool_calls"]
                assert call["function"] == {"name": "get_current_time", "arguments": '{"timezone": "Etc/UTC"}'}
                assert (await ask("/invocations", json=body)).status_code == 403
                assert await asyncio.to_thread(drained, base) == 400

    asyncio.run(use())


def test_what_is_under_way_as_the_time_to_drain_is_over_ends_with_an_error() -> None:
    command = [sys.executable, "-m", "routine_grammar.serve", "--shutdown-timeout", "1"]
    asked = {"model": "routine-demo", "messages": [{"role": "user", "content": "x"}], "max_tokens": 3500, "ignore_eos": True}
    told = "the server stopped before the answer was whole"

    async def use() -> None:
        async with httpx.AsyncClient(timeout=100) as client, model_server(lambda elapsed_s, line: None, command) as base:
            # So many that they are not whole before the stream has begun, however slow the client is.
            whole = asyncio.create_task(client.post(f"{base}/chat/completions", json={**asked, "n": 16}))
            await asyncio.sleep(0.3)
            lines = []
            async with client.stream("POST", f"{base}/chat/completions", json={**asked, "stream": True}) as answer:
                async for line in answer.aiter_lines():
                    lines.append(line)
                    if len(lines) == 10:
                        os.kill(server_at(base), signal.SIGTERM)
            assert told in lines[-4]
            assert lines[-2] == "data: [DONE]"
            assert (await whole).status_code == 500, (await whole).text
            assert (await whole).json()["error"]["message"] == told

    asyncio.run(use())


def test_a_mistake_in_a_routine_costs_no_start(tmp_path: Path) -> None:
    folder = tmp_path / "routines"
    folder.mkdir()
    (folder / "clock.yaml").write_text(ROUTINE.replace("get_current_time", "get_curent_time"))
    command = [sys.executable, "-m", "routine_grammar.serve", "--routines", str(folder)]

    async def start(*more: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(*command, *more, stderr=asyncio.subprocess.PIPE)
        _, told = await asyncio.wait_for(process.communicate(), 120)
        return process.returncode, told.decode()

    status, told = asyncio.run(start())
    assert (status, "needs the tools that they use" in told) == (2, True)
    tools = tmp_path / "tools.json"
    tools.write_text("[]")
    status, told = asyncio.run(start("--tools", str(tools)))
    assert status == 2
    assert "Step 1, field tool: unknown tool 'get_curent_time'" in told
    assert "Step 2, field tool: unknown tool 'convert_time'" in told
