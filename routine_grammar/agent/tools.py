"""MCP tools: servers of an `mcpServers` file, started over stdio, their tools listed and called by the official SDK.

In: the usual JSON configuration. Out: `Tool`s, and results as text and JSON. What goes wrong is a `ToolError` that
names the server, its command and the end of its standard error. Servers over HTTP are refused for now. Knows no
Routine's steps.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import math
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import mcp_types
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from routine_grammar.errors import ToolError
from routine_grammar.routine.documents import read_bytes
from routine_grammar.routine.tools import Tool

START_TIMEOUT_S = 30.0
CALL_TIMEOUT_S = 60.0
MAX_RESULT_CHARS = 16 * 2**20
MAX_CONFIG_BYTES = 2**20
_STDERR_TAIL_BYTES = 4096
# The SDK gives each server a process group, but stops the group only where the server does not end by itself. The shell
# stays to end whatever the server left there; that also closes the pipes, by which a server's death is noticed.
_RUN_AND_LEAVE_NOTHING = '"$@"; kill -s KILL -- -$$'
_RECORDED_FIELDS = {"name", "title", "description", "input_schema", "output_schema", "annotations"}


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """How one server is started. `env` is added to the few variables that the SDK passes on, such as PATH and HOME."""

    name: str
    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None

    @property
    def command_line(self) -> str:
        """The command with its arguments, as a shell would read it."""
        return shlex.join((self.command, *self.args))


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool answered: its content as text, its structured content where it gave any, and whether it failed."""

    text: str
    structured: object | None = None
    is_error: bool = False


def load_mcp_config(path: str | Path) -> tuple[ServerConfig, ...]:
    """Read `{"mcpServers": {name: {"command", "args", "env", "cwd"}}}`; servers marked "disabled" are left out.

    A relative `cwd` starts from this process's folder. Raises `ToolError` naming the file, the server and the field;
    also for a server that is reached over HTTP, and for any field that this format does not have.
    """
    path = Path(path)
    try:
        document = _ConfigFile.model_validate_json(read_bytes(path, MAX_CONFIG_BYTES))
    except OSError as error:
        raise ToolError(f"{path}: can't be read: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ToolError(f"{path}, {where}: {first['msg']}") from error
    except ValueError as error:
        raise ToolError(f"{path}: {error}") from error
    entries = document.mcp_servers.items()
    return tuple(_server_config(path, name, entry) for name, entry in entries if not entry.disabled)


class ToolServers:
    """MCP servers that run as long as the `async with` block: their tools, and the way to call them.

    They start at the same time, each within `start_timeout_s`. Entering raises `ToolError` where one does not start or
    two offer a tool of the same name; by then all are stopped again. Leaving stops every server with all its child
    processes: its input is closed, and after 2 s it gets SIGTERM, then SIGKILL. Calls may overlap.
    """

    def __init__(self, configs: Sequence[ServerConfig], *, start_timeout_s: float = START_TIMEOUT_S) -> None:
        self._configs = tuple(configs)
        self._start_timeout_s = start_timeout_s
        self._connections: tuple[_Connection, ...] = ()
        self._owners: dict[str, _Connection] = {}
        self._tools: tuple[Tool, ...] = ()

    async def __aenter__(self) -> Self:
        self._connections = tuple(_Connection(config, self._start_timeout_s) for config in self._configs)
        try:
            await asyncio.gather(*(connection.started for connection in self._connections))
            self._owners = _owners(self._connections)
            self._tools = tuple(_tool(connection, listed) for connection, listed in self._listed())
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop()

    @property
    def tools(self) -> tuple[Tool, ...]:
        """All tools of all servers, in the order of the configuration and of each server's list."""
        return self._tools

    def server_of(self, name: str) -> ServerConfig:
        """Return the server that offers a tool; raises `ToolError` where none does."""
        return self._owner(name).config

    async def call(self, name: str, arguments: Mapping[str, Any], *, timeout_s: float = CALL_TIMEOUT_S) -> ToolResult:
        """Call a tool and wait for its result; a failure that the tool itself reports comes back with `is_error`.

        Raises `ToolError` where no server has the tool, its server is gone or refuses the call, the result breaks the
        tool's own output schema or the bound of 16 Mi characters, or `timeout_s` pass: the server is then told to drop
        the call, which may have had its effect.
        """
        result = await self._owner(name).call(name, arguments, timeout_s)
        text = "\n".join(_content_text(block) for block in result.content)
        if len(text) > MAX_RESULT_CHARS:
            raise ToolError(f"tool {name!r} answered {len(text)} characters; expected at most {MAX_RESULT_CHARS}")
        return ToolResult(text, result.structured_content, result.is_error)

    def record_tools(self, path: str | Path) -> None:
        """Write the tools as `{"tools": [...]}`, in MCP's form: `load_tools` reads it in place of running servers."""
        recorded = [
            listed.model_dump(mode="json", by_alias=True, exclude_none=True, include=_RECORDED_FIELDS)
            for _, listed in self._listed()
        ]
        text = json.dumps({"tools": recorded}, indent=2, ensure_ascii=False)
        Path(path).write_text(text + "\n", encoding="utf-8")

    def _listed(self) -> Iterable[tuple[_Connection, mcp_types.Tool]]:
        return ((connection, listed) for connection in self._connections for listed in connection.listed)

    def _owner(self, name: str) -> _Connection:
        if name not in self._owners:
            near = difflib.get_close_matches(name, self._owners, n=1)
            servers = "; ".join(f"{config.name}: {config.command_line}" for config in self._configs) or "none"
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ToolError(f"no server has a tool {name[:80]!r} (servers: {servers}){hint}")
        return self._owners[name]

    async def _stop(self) -> None:
        """Stop all servers at once, and wait for it even if the waiting task is cancelled again meanwhile."""
        for connection in self._connections:
            connection.stop()
        running = {connection.task for connection in self._connections}
        cancelled: asyncio.CancelledError | None = None
        with anyio.CancelScope(shield=True):
            while running:
                try:
                    _, running = await asyncio.wait(running)
                except asyncio.CancelledError as error:
                    cancelled = error
        if cancelled is not None:
            raise cancelled


class _Connection:
    """One server's process and its client. A task of its own enters and leaves the SDK's scopes, as they demand."""

    def __init__(self, config: ServerConfig, start_timeout_s: float) -> None:
        self.config = config
        self.listed: tuple[mcp_types.Tool, ...] = ()
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._client: Client | None = None
        self._start_scope = anyio.CancelScope()
        self._start_timeout_s = start_timeout_s
        self._stopping = asyncio.Event()
        self._stray_output = ""
        self._stderr = _StderrTail()
        self.task = asyncio.create_task(self._serve(), name=f"MCP server {config.name}")

    def stop(self) -> None:
        """Make the task end soon: at once where the server is still starting, else by the protocol's shutdown."""
        self._stopping.set()
        if self._client is None:
            self._start_scope.cancel()

    async def call(self, name: str, arguments: Mapping[str, Any], timeout_s: float) -> mcp_types.CallToolResult:
        if self._client is None or self._stopping.is_set():
            raise self._error(f"tool {name!r} can't be called: the server was stopped")
        try:
            with anyio.fail_after(timeout_s):
                return await self._client.call_tool(name, dict(arguments))
        except TimeoutError as error:
            raise self._error(f"tool {name!r} did not answer within {timeout_s:g} s") from error
        except MCPError as error:
            gone = error.code == mcp_types.CONNECTION_CLOSED
            reason = "the server is gone" if gone else f"the server refused the call: {error} (code {error.code})"
            raise self._error(f"tool {name!r} gave no result: {reason}") from error
        except (anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
            raise self._error(f"tool {name!r} gave no result: the server is gone") from error
        except (RuntimeError, ValueError) as error:
            raise self._error(f"tool {name!r} gave no valid result: {error}") from error

    async def _serve(self) -> None:
        """Start the server, list its tools, keep it until `stop`; a failure to start goes to `started`."""
        try:
            with self._start_scope as scope:
                scope.deadline = anyio.current_time() + self._start_timeout_s
                transport = stdio_client(self._parameters(), errlog=self._stderr.file)
                async with Client(transport, message_handler=self._receive) as client:
                    self.listed = await _list_all_tools(client)
                    scope.deadline = math.inf
                    self._client = client
                    self._settle(None)
                    await self._stopping.wait()
            if scope.cancelled_caught:
                self._settle(self._error(f"did not start within {self._start_timeout_s:g} s"))
        except Exception as error:
            cause = _innermost(error)
            failure = self._error(f"did not start: {str(cause) or type(cause).__name__}")
            failure.__cause__ = cause
            self._settle(failure)
        finally:
            self._client = None
            self._stderr.close()

    async def _receive(self, message: object) -> None:
        """Keep what the server printed that is no message."""
        if isinstance(message, ValidationError):
            self._stray_output = str(message.errors()[0]["input"])[:200]

    def _parameters(self) -> StdioServerParameters:
        config = self.config
        arguments = ["-c", _RUN_AND_LEAVE_NOTHING, config.name, config.command, *config.args]
        return StdioServerParameters(command="/bin/sh", args=arguments, env=dict(config.env), cwd=config.cwd)

    def _settle(self, failure: ToolError | None) -> None:
        if self.started.done():
            return
        if failure is None:
            self.started.set_result(None)
        else:
            self.started.set_exception(failure)

    def _error(self, what: str) -> ToolError:
        tail = self._stderr.text()
        wrote = f"its last lines of standard error:\n{tail}" if tail else "it wrote nothing to standard error"
        stray = f"; it printed {self._stray_output!r}, which is no MCP message" if self._stray_output else ""
        return ToolError(f"MCP server {self.config.name!r} ({self.config.command_line}): {what}{stray}; {wrote}")


class _StderrTail:
    """The end of what a server writes to standard error, read as it comes so that a chatty server never blocks."""

    def __init__(self) -> None:
        self._read_end, write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        self.file = os.fdopen(write_end, "w")
        self._tail = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._read_end, self._receive)

    def text(self) -> str:
        """What came last, at most 4 KiB."""
        if not self.file.closed:
            self._receive()
        return self._tail.decode(errors="replace").strip()

    def close(self) -> None:
        self._receive()
        self._loop.remove_reader(self._read_end)
        self.file.close()
        os.close(self._read_end)

    def _receive(self) -> None:
        # Our own write end stays open, so an empty pipe blocks and never ends.
        try:
            while chunk := os.read(self._read_end, 65536):
                self._tail = (self._tail + chunk)[-_STDERR_TAIL_BYTES:]
        except BlockingIOError:
            return


class _ServerEntry(BaseModel):
    """One server in the file. The last three fields are common there, and say nothing to a program without a screen."""

    model_config = ConfigDict(extra="forbid", strict=True)

    command: str | None = Field(default=None, min_length=1)
    args: list[str] = []
    env: dict[str, str] = {}
    cwd: str | None = None
    type: str | None = None
    disabled: bool = False
    url: str | None = None
    headers: dict[str, str] = {}
    description: str | None = None
    auto_approve: list[str] = Field(default=[], alias="autoApprove")
    always_allow: list[str] = Field(default=[], alias="alwaysAllow")


class _ConfigFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    mcp_servers: dict[str, _ServerEntry] = Field(alias="mcpServers")


def _server_config(path: Path, name: str, entry: _ServerEntry) -> ServerConfig:
    where = f"{path}, mcpServers.{name}"
    if entry.url is not None or entry.type in ("http", "sse", "streamable-http", "streamableHttp"):
        raise ToolError(f"{where}: MCP over HTTP is not supported yet; expected a server that a command starts")
    if entry.type not in (None, "stdio"):
        raise ToolError(f"{where}.type: unknown transport {entry.type!r}; expected 'stdio'")
    if entry.command is None:
        raise ToolError(f"{where}.command: missing; expected the program that starts the server")
    return ServerConfig(name, entry.command, tuple(entry.args), entry.env, entry.cwd)


def _owners(connections: Iterable[_Connection]) -> dict[str, _Connection]:
    """Which server has which tool; raises `ToolError` where two have one."""
    owners: dict[str, _Connection] = {}
    for connection in connections:
        for listed in connection.listed:
            if listed.name in owners:
                first, second = owners[listed.name].config, connection.config
                raise ToolError(
                    f"tool {listed.name!r} is offered twice, by MCP servers {first.name!r} ({first.command_line}) and "
                    f"{second.name!r} ({second.command_line}); expected one server per tool"
                )
            owners[listed.name] = connection
    return owners


def _tool(connection: _Connection, listed: mcp_types.Tool) -> Tool:
    try:
        return Tool.from_mcp(listed)
    except ToolError as error:
        config = connection.config
        raise ToolError(f"MCP server {config.name!r} ({config.command_line}): {error}") from error


async def _list_all_tools(client: Client) -> tuple[mcp_types.Tool, ...]:
    """The tools of all pages; a server whose pages never end runs into the start timeout."""
    page = await client.list_tools()
    tools = list(page.tools)
    while page.next_cursor is not None:
        page = await client.list_tools(cursor=page.next_cursor)
        tools += page.tools
    return tuple(tools)


def _content_text(block: mcp_types.ContentBlock) -> str:
    """A content block as text; what is no text is told by its kind, type and size."""
    match block:
        case mcp_types.TextContent(text=text):
            return text
        case mcp_types.EmbeddedResource(resource=mcp_types.TextResourceContents(text=text)):
            return text
        case mcp_types.EmbeddedResource(resource=resource):
            return f"[resource {resource.uri}]"
        case mcp_types.ResourceLink(uri=uri):
            return f"[resource {uri}]"
        case mcp_types.ImageContent(mime_type=mime_type, data=data) | mcp_types.AudioContent(mime_type=mime_type, data=data):
            return f"[{block.type} {mime_type}, {len(data)} base64 characters]"


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
