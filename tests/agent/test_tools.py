from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from routine_grammar.agent.tools import HttpServerConfig, ServerConfig, ToolServers, load_mcp_config
from routine_grammar.errors import ToolError
from routine_grammar.routine.tools import load_tools

GIT = ServerConfig("git", sys.executable, ("-m", "mcp_server_git"))
TIME = ServerConfig("time", sys.executable, ("-m", "mcp_server_time"))
SERVERS = str(Path(__file__).with_name("servers.py"))
MISBEHAVING = ServerConfig("misbehaving", sys.executable, (SERVERS, "misbehaving"))
PAGED = ServerConfig("paged", sys.executable, (SERVERS, "paged"))


def python_server(name: str, code: str) -> ServerConfig:
    return ServerConfig(name, sys.executable, ("-c", code))


def descendants(parent: int) -> set[int]:
    """All living processes below one."""
    children: dict[int, set[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            children.setdefault(int(fields[1]), set()).add(int(stat.parent.name))
    found: set[int] = set()
    pending = [parent]
    while pending:
        below = children.get(pending.pop(), set())
        found |= below
        pending += below
    return found


def gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    before = descendants(os.getpid())
    yield
    assert descendants(os.getpid()) <= before


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for arguments in (["init", "-q", str(folder)], ["commit", "-q", "--allow-empty", "-m", "the first commit"]):
        where = [] if arguments[0] == "init" else ["-C", str(folder)]
        subprocess.run(["git", *identity, *where, *arguments], check=True)
    return folder


async def test_two_real_servers(repo: Path, tmp_path: Path) -> None:
    async with ToolServers([GIT, TIME]) as servers:
        names = [tool.name for tool in servers.tools]
        assert names[0] == "git_status"
        assert names[-2:] == ["get_current_time", "convert_time"]
        tools = {tool.name: tool for tool in servers.tools}
        assert tools["git_log"].read_only is True
        assert tools["git_log"].output_schema is None
        assert tools["convert_time"].output_schema is not None
        assert servers.server_of("convert_time") == TIME

        log, converted = await asyncio.gather(
            servers.call("git_log", {"repo_path": str(repo), "max_count": 1}),
            servers.call("convert_time", {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}),
        )
        assert "the first commit" in log.text
        assert not log.is_error
        assert isinstance(converted.structured, dict)
        assert converted.structured["time_difference"] == "+9.0h"
        assert json.loads(converted.text) == converted.structured

        servers.record_tools(tmp_path / "tools.json")
    assert load_tools(tmp_path / "tools.json") == tuple(tools.values())


async def test_a_failure_that_the_tool_reports_is_a_result(tmp_path: Path) -> None:
    async with ToolServers([GIT]) as servers:
        result = await servers.call("git_status", {"repo_path": str(tmp_path / "nowhere")})
    assert result.is_error
    assert "nowhere" in result.text


async def test_an_unknown_tool_names_the_servers_and_a_near_name() -> None:
    async with ToolServers([TIME]) as servers:
        with pytest.raises(ToolError, match=r"no server has a tool 'convert_tim'.*mcp_server_time.*'convert_time'"):
            await servers.call("convert_tim", {})


async def test_all_pages_of_an_older_server_are_read() -> None:
    async with ToolServers([PAGED]) as servers:
        assert [tool.name for tool in servers.tools] == [f"tool_{page}" for page in range(5)]
        result = await servers.call("tool_4", {})
    assert result.text == "one\n[image image/png, 4 base64 characters]\ntwo"


async def test_a_command_that_does_not_exist() -> None:
    with pytest.raises(ToolError, match=r"(?s)'lost' \(no-such-command --flag\): did not start.*no-such-command: .*not found"):
        async with ToolServers([TIME, ServerConfig("lost", "no-such-command", ("--flag",))]):
            pass


async def test_a_server_that_ends_at_once_shows_its_last_words() -> None:
    crash = python_server("crash", "import sys; sys.exit('boom on purpose')")
    with pytest.raises(ToolError, match=r"(?s)MCP server 'crash' .*did not start.*boom on purpose"):
        async with ToolServers([TIME, crash]):
            pass


async def test_a_server_that_never_answers_runs_into_the_timeout() -> None:
    silent = python_server("silent", "import sys; sys.stderr.write('thinking'); sys.stderr.flush(); sys.stdin.read()")
    with pytest.raises(ToolError, match=r"(?s)'silent' .*did not start within 5 s.*thinking"):
        async with ToolServers([silent], start_timeout_s=5):
            pass


async def test_a_server_that_prints_what_is_no_message() -> None:
    chatty = python_server("chatty", "import sys; print('welcome!', flush=True); sys.stdin.read()")
    with pytest.raises(ToolError, match=r"'chatty' .*did not start within 5 s; it printed 'welcome!', which is no MCP message"):
        async with ToolServers([chatty], start_timeout_s=5):
            pass


async def test_two_servers_with_one_tool_name() -> None:
    with pytest.raises(ToolError, match=r"'get_current_time' is offered twice.*'time' .* and 'clock' "):
        async with ToolServers([TIME, ServerConfig("clock", TIME.command, TIME.args)]):
            pass


async def test_a_dead_server_is_named_in_this_call_and_the_next() -> None:
    async with ToolServers([MISBEHAVING, TIME]) as servers:
        for _ in range(2):
            with pytest.raises(ToolError, match=r"(?s)'misbehaving' .*'die' .*server is gone.*dying on purpose"):
                await servers.call("die", {})
        assert not (await servers.call("get_current_time", {"timezone": "UTC"})).is_error


async def test_a_slow_tool_runs_into_the_timeout_and_the_server_lives_on() -> None:
    async with ToolServers([MISBEHAVING]) as servers:
        with pytest.raises(ToolError, match=r"'sleep' did not answer within 0.2 s"):
            await servers.call("sleep", {"seconds": 1}, timeout_s=0.2)
        assert (await servers.call("sleep", {"seconds": 0})).text == "awake"


async def test_standard_error_never_blocks_a_server_and_is_cut() -> None:
    async with ToolServers([MISBEHAVING]) as servers:
        assert (await servers.call("chatter", {"lines": 2000}, timeout_s=10)).text == "said"
        with pytest.raises(ToolError) as caught:
            await servers.call("die", {})
    assert len(str(caught.value)) < 6000
    assert "line 1999" in str(caught.value)


async def test_a_tool_that_raises_is_a_result() -> None:
    async with ToolServers([MISBEHAVING]) as servers:
        result = await servers.call("fail", {})
    assert result.is_error
    assert "fail" in result.text


async def test_folder_and_environment_are_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_PARENT", "hidden")
    config = ServerConfig(MISBEHAVING.name, MISBEHAVING.command, MISBEHAVING.args, env={"GREETING": "hello"}, cwd=str(tmp_path))
    async with ToolServers([config]) as servers:
        assert (await servers.call("folder", {})).text == f"{tmp_path} hello None"


async def test_grandchildren_are_stopped_too() -> None:
    before = descendants(os.getpid())
    async with ToolServers([MISBEHAVING]) as servers:
        started = [process for process in descendants(os.getpid()) if process not in before]
        assert len(servers.tools) == 5
    assert len(started) >= 3
    await asyncio.sleep(0.1)
    assert all(gone(process) for process in started)


async def test_cancelling_the_start_leaves_no_process() -> None:
    silent = python_server("silent", "import sys; sys.stdin.read()")

    async def start() -> None:
        async with ToolServers([silent, TIME]):
            pass

    task = asyncio.create_task(start())
    await asyncio.sleep(0.5)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_call_after_the_servers_were_stopped() -> None:
    async with ToolServers([TIME]) as servers:
        pass
    with pytest.raises(ToolError, match="was stopped"):
        await servers.call("get_current_time", {"timezone": "UTC"})


async def test_no_servers_are_fine() -> None:
    async with ToolServers([]) as servers:
        assert servers.tools == ()


def write_config(tmp_path: Path, servers: object) -> Path:
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": servers}))
    return path


def test_the_usual_file(tmp_path: Path) -> None:
    path = write_config(
        tmp_path,
        {
            "git": {"command": "uvx", "args": ["mcp-server-git"], "env": {"A": "b"}, "cwd": "/tmp", "type": "stdio"},
            "off": {"url": "https://example.org/${NO_SUCH_VARIABLE}", "disabled": True},
            "time": {"command": "uvx", "autoApprove": ["convert_time"], "disabled": False},
            "web": {"url": "https://example.org/mcp"},
            "wiki": {"type": "streamableHttp", "url": "http://[::1]:8080/mcp?a=b", "headers": {"X-Key": "k"}},
        },
    )
    assert load_mcp_config(path) == (
        ServerConfig("git", "uvx", ("mcp-server-git",), {"A": "b"}, "/tmp"),
        ServerConfig("time", "uvx"),
        HttpServerConfig("web", "https://example.org/mcp"),
        HttpServerConfig("wiki", "http://[::1]:8080/mcp?a=b", {"X-Key": "k"}),
    )


def test_variables_are_filled_in_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "to${ken}")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("NO_SUCH_VARIABLE", raising=False)
    servers = {
        "web": {
            "type": "http",
            "url": "https://${HOST:-example.org}/${EMPTY}mcp",
            "headers": {"Authorization": "Bearer ${TOKEN}", "X-Kind": "${EMPTY:-none} ${NO_SUCH_VARIABLE:-}at all"},
        },
        "local": {"command": "x", "args": ["${TOKEN}"], "env": {"KEY": "${TOKEN}", "PRICE": "5 $ {a}"}},
    }
    web, local = load_mcp_config(write_config(tmp_path, servers))
    headers = {"Authorization": "Bearer to${ken}", "X-Kind": "none at all"}
    assert web == HttpServerConfig("web", "https://example.org/mcp", headers)
    assert local == ServerConfig("local", "x", ("${TOKEN}",), {"KEY": "to${ken}", "PRICE": "5 $ {a}"})


def test_secrets_are_in_no_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web = HttpServerConfig("web", "https://ann:pass%20word@example.org/mcp?key=hush-hush#x", {"X-Key": "Bearer abcdefgh"})
    assert repr(web) == "HttpServerConfig(name='web')"
    assert web.where == "https://example.org/mcp"
    told = "got hush-hush, abcdefgh and pass word at https://ann:pass%20word@example.org/mcp?key=hush-hush#x"
    assert web.without_secrets(told) == "got …, … and … at https://ann:…@example.org/mcp?…#x"
    local = ServerConfig("local", "x", env={"API_KEY": "abcdefgh", "FOLDER": "/tmp/abc"})
    assert local.without_secrets("abcdefgh in /tmp/abc") == "… in /tmp/abc"
    assert "abc" not in repr(local)
    monkeypatch.setenv("TOKEN", "abcdefgh\n")
    for entry in (
        {"url": "https://example.org", "headers": {"X-Key": "${TOKEN}"}},
        {"url": "https://example.org:${TOKEN}/mcp"},
        {"url": "https://example.org", "headers": {"X-Key": ["abcdefgh"]}},
    ):
        with pytest.raises(ToolError) as caught:
            load_mcp_config(write_config(tmp_path, {"it": entry}))
        assert "abcdefgh" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"type": "http"}, r"mcpServers\.it\.url: missing"),
        ({"type": "http", "command": "x"}, r"mcpServers\.it\.command: a server that is reached by a url has none"),
        ({"type": "stdio", "url": "http://x"}, r"mcpServers\.it\.url: a server that a command starts has none"),
        ({"command": "x", "headers": {"a": "b"}}, r"mcpServers\.it\.headers: a server that a command starts has none"),
        ({"url": "https://x", "env": {"A": "b"}}, r"mcpServers\.it\.env: a server that is reached by a url has none"),
        ({"url": "example.org/mcp"}, "'it', url: expected an address such as https"),
        ({"url": "ftp://example.org"}, "url: expected an address"),
        ({"url": "http://:80/"}, "url: expected an address"),
        ({"url": "http://x:99999/"}, "url: expected an address"),
        ({"url": "http://a b/"}, "url: expected an address"),
        ({"url": "http://x/\n"}, "url: expected an address"),
        ({"url": "http://x", "headers": {"a b": "c"}}, "headers: 'a b' is no name of a header"),
        ({"url": "http://x", "headers": {"a": " c"}}, "headers.a: expected printable ASCII"),
        ({"url": "http://x", "headers": {"a": "é"}}, "headers.a: expected printable ASCII"),
        (
            {"url": "http://x/${NO_SUCH_VARIABLE}"},
            r"it\.url: the environment variable 'NO_SUCH_VARIABLE' is not set",
        ),
        ({"url": "http://x", "headers": {"A": "${NO_SUCH_VARIABLE}"}}, r"it\.headers\.A: the environment variable"),
        ({"command": "x", "env": {"A": "${input:key}"}}, r"it\.env\.A: a '\$\{' that begins no variable"),
        ({"type": "sse", "url": "http://x"}, r"mcpServers\.it\.type: MCP's HTTP\+SSE transport is deprecated"),
        ({"type": "pigeon", "command": "x"}, "unknown transport 'pigeon'; expected 'stdio' or 'http'"),
        ({"args": ["x"]}, r"mcpServers\.it\.command: missing"),
        ({"command": ""}, r"mcpServers\.it\.command"),
        ({"command": "x", "args": "y"}, r"mcpServers\.it\.args: .*array"),
        ({"command": "x", "env": {"A": 1}}, r"mcpServers\.it\.env\.A: .*string"),
        ({"command": "x", "arguments": []}, r"mcpServers\.it\.arguments: Extra inputs"),
    ],
)
def test_a_malformed_server_is_refused(tmp_path: Path, entry: object, message: str) -> None:
    with pytest.raises(ToolError, match=rf"mcp\.json, .*{message}"):
        load_mcp_config(write_config(tmp_path, {"it": entry}))


def test_a_malformed_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="can't be read: No such file"):
        load_mcp_config(tmp_path / "missing.json")
    path = tmp_path / "mcp.json"
    path.write_text("{")
    with pytest.raises(ToolError, match="the file: Invalid JSON"):
        load_mcp_config(path)
    path.write_text('{"servers": {}}')
    with pytest.raises(ToolError, match="mcpServers: Field required"):
        load_mcp_config(path)
