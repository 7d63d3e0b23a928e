"""Servers over streamable HTTP, beside others over stdio; tools that change while they are used."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from routine_grammar.__main__ import main
from routine_grammar.agent import connections
from routine_grammar.agent.execution import Finished, RunSettings, execute
from routine_grammar.agent.tools import AnyServerConfig, HttpServerConfig, ServerConfig, ToolServers, load_mcp_config
from routine_grammar.errors import RunError, SchemaWarning, ToolChangedError, ToolError
from routine_grammar.routine import Literal, Routine, Step, Tool, Variable
from routine_grammar.routine.tools import load_tools
from tests.agent.model_server import model_server, say
from tests.agent.test_execution import a_client

GIT = ServerConfig("git", sys.executable, ("-m", "mcp_server_git"))
TIME = ServerConfig("time", sys.executable, ("-m", "mcp_server_time"))
SERVER = str(Path(__file__).with_name("changing_server.py"))
CHANGING = ServerConfig("changing", sys.executable, (SERVER, "stdio"))
NAMES = ["echo", "sleep", "fail", "find", "die", "request", "change"]
WAIT_S = 60


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@dataclass
class Served:
    """A server process; `config` reaches it."""

    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    @property
    def config(self) -> HttpServerConfig:
        return HttpServerConfig("web", self.url)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def http_server(port: int = 0, kind: str = "", stderr: int = subprocess.DEVNULL) -> Iterator[Served]:
    command = [sys.executable, SERVER, "http", str(port), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process:
        try:
            assert process.stdout is not None
            yield Served(process, int(process.stdout.readline()))
        finally:
            process.kill()


@pytest.fixture
def served() -> Iterator[Served]:
    with http_server() as running:
        yield running


@dataclass
class Changes:
    """What `on_change` was told."""

    told: list[list[str]] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def on_change(self, tools: tuple[Tool, ...]) -> None:
        self.told.append([tool.name for tool in tools])
        self._news.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not holds():
                await self._news.wait()
                self._news.clear()


def tool_of(servers: ToolServers, name: str) -> Tool | None:
    return next((tool for tool in servers.tools if tool.name == name), None)


def parameters_of(servers: ToolServers, name: str) -> list[str]:
    tool = tool_of(servers, name)
    return list(tool.parameters) if tool is not None else []


async def test_http_and_stdio_in_one_configuration(served: Served, tmp_path: Path) -> None:
    entries = {
        "time": {"command": sys.executable, "args": ["-m", "mcp_server_time"]},
        "web": {"type": "streamable-http", "url": served.url},
        "git": {"command": sys.executable, "args": ["-m", "mcp_server_git"]},
    }
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": entries}))
    async with ToolServers(load_mcp_config(path)) as servers:
        names = [tool.name for tool in servers.tools]
        assert names[: len(NAMES) + 3] == ["get_current_time", "convert_time", *NAMES, "git_status"]
        assert servers.server_of("echo") == served.config
        slow = asyncio.create_task(servers.call("sleep", {"seconds": 600}, timeout_s=600))
        echoed, now, failed = await asyncio.gather(
            servers.call("echo", {"text": "a\nb"}),
            servers.call("get_current_time", {"timezone": "UTC"}),
            servers.call("fail", {}),
        )
        assert (echoed.text, now.is_error, failed.is_error) == ("a\nb", False, True)
        assert not slow.done()
        servers.record_tools(tmp_path / "tools.json")
        tools = servers.tools
    with pytest.raises(ToolError, match="'sleep' gave no result"):
        await slow
    assert served.process.poll() is None
    assert load_tools(tmp_path / "tools.json") == tools


async def test_output_types_and_hints_over_http(served: Served) -> None:
    async with ToolServers([served.config]) as servers:
        find, echo = tool_of(servers, "find"), tool_of(servers, "echo")
        assert find is not None
        assert echo is not None
        assert (echo.title, echo.read_only, echo.idempotent, echo.open_world) == ("Echo", True, True, False)
        assert (find.destructive, find.read_only) == (True, None)
        count = find.output_type(Variable("n", pointer="/count"))
        pages = find.output_type(Variable("p", pointer="/found/*/pages"))
        titles = find.output_type(Variable("t", pointer="/found/*/title"))
        result = await servers.call("find", {"word": "x"})
    assert count is not None
    assert count["type"] == "integer"
    assert titles is not None
    assert (titles["type"], titles["items"]["type"]) == ("array", "string")
    assert pages is not None
    assert pages["items"]["items"] == {"type": "integer"}
    assert isinstance(result.structured, dict)
    assert [found["pages"] for found in result.structured["found"]] == [[1, 2], []]


async def test_types_of_function_documents_over_http() -> None:
    with http_server(kind="strange") as served, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        async with ToolServers([served.config]) as servers:
            result = await servers.call("find", {"word": "x"})
            find = tool_of(servers, "find")
    (warning,) = told
    assert warning.category is SchemaWarning
    assert "tool 'find'" in str(warning.message)
    assert "/outputSchema/properties/found/type: 'list' read as 'array'" in str(warning.message)
    assert result.structured is not None
    assert find is not None
    assert find.output_type(Variable("n", pointer="/count")) == {"type": "integer"}


async def test_headers_credentials_and_query_are_sent_and_logged_nowhere(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    url = served.url.replace("//", "//ann:s3cret%21@") + "?token=hush-hush"
    config = HttpServerConfig("web", url, {"X-Key": "hidden-key"})
    caplog.set_level(logging.DEBUG)
    async with ToolServers([config]) as servers:
        await servers.call("echo", {"text": "x"})
        with pytest.raises(ToolError) as caught:
            await servers.call("ech", {})
        logged = caplog.text + str(caught.value) + repr(servers.server_of("echo"))
        sent = json.loads((await servers.call("request", {})).text)
    assert sent == {"query": "token=hush-hush", "x-key": "hidden-key", "authorization": "Basic YW5uOnMzY3JldCE="}
    assert "HTTP Request: POST" in logged
    assert not any(secret in logged for secret in ("hush-hush", "hidden-key", "s3cret", "YW5uOnMzY3JldCE"))


async def test_a_server_that_refuses_us() -> None:
    with http_server(kind="refusing") as served:
        config = HttpServerConfig("web", served.url + "?q=private", {"Authorization": "Bearer abcdefgh"})
        with pytest.raises(ToolError) as caught:
            async with ToolServers([config]):
                pass
    message = str(caught.value)
    assert message.startswith(f"MCP server 'web' ({served.url}): can't be reached: bad authorization: …")
    assert message.endswith("the server's last answer was HTTP 401 Unauthorized")


async def test_a_server_that_is_not_there_or_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ToolError, match=rf"'web' \(http://127.0.0.1:{port}/mcp\): can't be reached: .*connection"):
        async with ToolServers([TIME, HttpServerConfig("web", f"http://127.0.0.1:{port}/mcp?x=y")]):
            pass
    with http_server(kind="silent") as served, pytest.raises(ToolError, match=r"'web' .*can't be reached within 0.5 s"):
        async with ToolServers([served.config], start_timeout_s=0.5):
            pass


async def test_a_start_that_is_cancelled() -> None:
    async def start(config: HttpServerConfig) -> None:
        async with ToolServers([config, TIME]):
            pass

    with http_server(kind="silent") as served:
        task = asyncio.create_task(start(served.config))
        assert served.process.stdout is not None
        async with asyncio.timeout(WAIT_S):
            assert await asyncio.to_thread(served.process.stdout.readline) == "asked\n"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_the_command_lists_tools_over_http(served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, record = tmp_path / "mcp.json", tmp_path / "tools.json"
    path.write_text(json.dumps({"mcpServers": {"web": {"url": served.url}}}))
    assert main(["tools", "--mcp", str(path)]) == 0
    assert "change(name, kind): Offer a tool anew" in capsys.readouterr().out
    assert main(["tools", "--mcp", str(path), "--record", str(record)]) == 0
    assert [tool.name for tool in load_tools(record)] == NAMES


async def test_one_tool_of_two_servers(served: Served) -> None:
    with pytest.raises(ToolError, match=r"'echo' is offered twice.*'web' \(http://127.* and 'other' "):
        async with ToolServers([served.config, HttpServerConfig("other", served.url)]):
            pass


async def test_a_call_that_takes_too_long_is_dropped_by_the_server() -> None:
    with http_server(stderr=subprocess.PIPE) as served:
        async with ToolServers([served.config]) as servers:
            with pytest.raises(ToolError, match=r"'sleep' did not answer within 0.5 s"):
                await servers.call("sleep", {"seconds": 600}, timeout_s=0.5)
            assert (await servers.call("sleep", {"seconds": 0})).text == "awake"
            errors = served.process.stderr
            assert errors is not None
            async with asyncio.timeout(WAIT_S):
                while "dropped" not in await asyncio.to_thread(errors.readline):
                    pass


@pytest.fixture(params=["modern", "legacy"])
def era(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Servers of 2026 know no sessions; older ones forget them as they start anew."""
    if request.param == "legacy":
        monkeypatch.setattr(connections, "Client", partial(Client, mode="legacy"))
    return str(request.param)


async def test_a_server_that_starts_anew_between_calls_is_reached_again(era: str, served: Served) -> None:
    async with ToolServers([served.config]) as servers:
        assert (await servers.call("echo", {"text": "1"})).text == "1"
        served.end()
        with http_server(served.port):
            answers = await asyncio.gather(*(servers.call("echo", {"text": str(number)}) for number in range(5)))
            assert [answer.text for answer in answers] == ["0", "1", "2", "3", "4"]


async def test_a_call_in_doubt_is_never_repeated(era: str, served: Served) -> None:
    async with ToolServers([served.config]) as servers:
        with pytest.raises(
            ToolError, match="'die' gave no result: the connection was lost, so the call may have had its effect"
        ):
            await servers.call("die", {})
        served.process.wait()
        with pytest.raises(ToolError, match=r"'web' \(http://127.*\): can't be reached"):
            await servers.call("echo", {"text": "x"})
        with http_server(served.port) as again:
            assert (await servers.call("echo", {"text": "x"})).text == "x"
            assert again.process.poll() is None


@asynccontextmanager
async def changing(kind: str) -> AsyncIterator[AnyServerConfig]:
    if kind == "stdio":
        yield CHANGING
    else:
        with http_server() as served:
            yield served.config


@pytest.mark.parametrize("kind", ["stdio", "http"])
async def test_tools_that_change_are_listed_again(era: str, kind: str) -> None:
    changes = Changes()
    async with changing(kind) as config, ToolServers([TIME, config], on_change=changes.on_change) as servers:
        await servers.call("change", {"name": "new", "kind": "number"})
        await changes.until(lambda: "new" in [tool.name for tool in servers.tools])
        assert changes.told[-1] == ["get_current_time", "convert_time", *NAMES, "new"]
        first = tool_of(servers, "new")
        assert (await servers.call("new", {"number": 5}, listed_as=first)).text == "5"

        await servers.call("change", {"name": "new", "kind": "text"})
        await changes.until(lambda: parameters_of(servers, "new") == ["text"])
        with pytest.raises(ToolChangedError, match=r"'changing'|'web'.*changed the input schema of tool 'new'"):
            await servers.call("new", {"number": 5}, listed_as=first)
        assert (await servers.call("new", {"text": "5"}, listed_as=tool_of(servers, "new"))).text == "5"

        await servers.call("change", {"name": "new", "kind": "none"})
        await changes.until(lambda: tool_of(servers, "new") is None)
        with pytest.raises(ToolChangedError, match="'new' is no longer offered"):
            await servers.call("new", {"text": "5"}, listed_as=first)
        with pytest.raises(ToolError, match="no server has a tool 'new'"):
            await servers.call("new", {"text": "5"})
        assert len(servers.tools) == 2 + len(NAMES)


async def test_a_tool_that_comes_to_be_offered_twice(served: Served) -> None:
    async with ToolServers([TIME, served.config]) as servers:
        await servers.call("change", {"name": "convert_time", "kind": "text"})

        async def call_until_it_fails() -> None:
            async with asyncio.timeout(WAIT_S):
                while True:
                    await servers.call("echo", {"text": "x"})

        with pytest.raises(ToolError, match=r"'convert_time' is offered twice, by MCP servers 'time' .* and 'web' "):
            await call_until_it_fails()


async def test_a_hook_may_call_tools_and_fail(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    called: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def on_change(tools: tuple[Tool, ...]) -> None:
        if not called.done():
            called.set_result((await servers.call("new", {"number": 7})).text)
        raise ValueError("a hook that fails")

    servers = ToolServers([served.config], on_change=on_change)
    async with servers:
        await servers.call("change", {"name": "new", "kind": "number"})
        assert await asyncio.wait_for(called, WAIT_S) == "7"
        assert (await servers.call("echo", {"text": "x"})).text == "x"
    assert "a hook that fails" in caplog.text


def step(tool: str, **arguments: Any) -> Step:
    return Step("", tool, tool=tool, arguments={name: Literal() for name in arguments})


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("text", r"Step 2: tool 'new' changed while the run was under way: .*changed the input schema of tool 'new'"),
        ("none", r"Step 2: tool 'new' changed while the run was under way: tool 'new' is no longer offered"),
    ],
)
async def test_a_run_does_not_call_a_tool_that_has_changed(served: Served, kind: str, message: str) -> None:
    changes = Changes()
    change = {"name": "new", "kind": kind}
    routine = Routine("r", steps=(step("change", **change), step("new", number=1)))
    answers: list[dict[str, Any]] = [say("", ("change", change)), say("", ("new", {"number": 5}))]
    settings = RunSettings(closing_answer=False)
    async with ToolServers([served.config], on_change=changes.on_change) as servers:
        await servers.call("change", {"name": "new", "kind": "number"})
        await changes.until(lambda: parameters_of(servers, "new") == ["number"])
        with model_server(answers, routines=[{"name": "r", "version": routine.version}]) as played:
            async with a_client(played) as client:
                events = execute(routine, servers, client, "m", settings=settings)
                assert not isinstance(await anext(events), Finished)
                await changes.until(lambda: parameters_of(servers, "new") != ["number"])
                with pytest.raises(RunError, match=message):
                    await anext(events)
