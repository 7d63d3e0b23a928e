"""Connections to MCP servers: tools listed, listed again as they change, and called.

In: how a server is started or reached. Out: its tools, and results of calls. What goes wrong is a `ToolError` that names
the server. No call is ever sent twice.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import anyio
import anyio.abc
import httpx2
import mcp_types
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import SubscriptionLost
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from routine_grammar.agent.mcp_config import AnyServerConfig, HttpServerConfig, ServerConfig
from routine_grammar.agent.stderr_tail import StderrTail
from routine_grammar.errors import LostCallError, ToolError
from routine_grammar.routine.tools import Tool

MAX_RESULT_CHARS = 16 * 2**20
_GOODBYE_S = 5.0
_LISTEN_AGAIN_S = 1.0
_SESSION_HEADER = "mcp-session-id"
_CLOSED = (anyio.ClosedResourceError, anyio.BrokenResourceError)
# The SDK gives each server a process group, but stops the group only where the server does not end by itself. The shell
# stays to end whatever the server left there; that also closes the pipes, by which a server's death is noticed.
_RUN_AND_LEAVE_NOTHING = '"$@"; kill -s KILL -- -$$'
_T = TypeVar("_T")


class _NoAnswerError(ToolError):
    """A server was asked, and no answer came."""


class Connection(ABC):
    """One server and its client. A task of its own enters and leaves the SDK's scopes, as they demand.

    `on_listed` is called where the server's tools are others than before.
    """

    reconnects = False
    not_started = "did not start"
    gone = "the server is gone"
    stop_timeout_s = math.inf

    def __init__(self, config: AnyServerConfig, start_timeout_s: float, on_listed: Callable[[], None]) -> None:
        self.config = config
        self.tools: tuple[Tool, ...] = ()
        self._start_timeout_s = start_timeout_s
        self._on_listed = on_listed
        self._client: Client | None = None
        self._is_stopping = False
        self._list_is_old = True
        self._listing = asyncio.Lock()
        self._begin()

    async def started(self) -> None:
        """Wait until the tools are listed; raises `ToolError` where the server does not start."""
        await self._settled.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Make the task end soon: at once where the server is still starting, else by the protocol's shutdown."""
        self._is_stopping = True
        self._over.set()
        if self._client is None:
            self._scope.cancel()

    async def refresh(self, timeout_s: float) -> None:
        """List the tools again where they may have changed; raises `ToolError`."""
        if self._list_is_old or (self._client is None and self.reconnects):
            await self._bounded("the tools", timeout_s, self._ready)

    async def call(
        self, name: str, arguments: Mapping[str, Any], timeout_s: float, check: Callable[[], None]
    ) -> mcp_types.CallToolResult:
        """Call a tool, once; `check` is called just before, when the tools are as the server last said."""

        sent = False

        async def send() -> mcp_types.CallToolResult:
            nonlocal sent
            client = await self._ready()
            check()
            sent = True
            return await client.call_tool(name, dict(arguments))

        try:
            return await self._bounded(f"tool {name!r}", timeout_s, send)
        except _NoAnswerError as error:
            raise LostCallError(str(error)) if sent else error from error.__cause__

    @abstractmethod
    def _transport(self) -> AbstractAsyncContextManager[Any]:
        """The SDK's transport, and what has to be there as long as it is used."""

    @abstractmethod
    def _details(self) -> str:
        """What there is to tell beside what went wrong."""

    async def _receive(self, message: object) -> None:
        """Note what the server tells unasked."""
        if isinstance(message, mcp_types.ToolListChangedNotification):
            self._mark_old()

    async def _is_lost(self, client: Client) -> bool:
        """Whether a call would fail since the server no longer knows us; costs a request where only that tells."""
        return False

    def _error(self, what: str) -> ToolError:
        told = f"MCP server {self.config.name!r} ({self.config.where}): {what}{self._details()}"
        return ToolError(self.config.without_secrets(told))

    def _begin(self) -> None:
        self._failure: ToolError | None = None
        self._settled, self._over, self._news = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._scope = anyio.CancelScope()
        self.task = asyncio.create_task(self._serve(), name=f"MCP server {self.config.name}")

    async def _serve(self) -> None:
        """Start the server, list its tools, keep the connection until it is over; a failure to start is kept."""
        over = self._over
        try:
            with self._scope as scope:
                scope.deadline = anyio.current_time() + self._start_timeout_s
                async with (
                    self._transport() as transport,
                    Client(transport, message_handler=self._receive, cache=None) as client,
                    anyio.create_task_group() as tasks,
                ):
                    await tasks.start(self._follow, client)
                    self._list_is_old = True
                    await self._list(client)
                    tasks.start_soon(self._list_on_news, client)
                    scope.deadline = math.inf
                    self._client = client
                    self._settled.set()
                    try:
                        await over.wait()
                    finally:
                        self._client = None  # at once, so that no call waits for a connection that is breaking up
                    scope.deadline = anyio.current_time() + self.stop_timeout_s
                    tasks.cancel_scope.cancel()
            if not self._settled.is_set():
                self._failure = self._error(f"{self.not_started} within {self._start_timeout_s:g} s")
        except Exception as error:
            cause = _innermost(error)
            if isinstance(cause, ToolError):
                self._failure = cause
            else:
                self._failure = self._error(f"{self.not_started}: {str(cause) or type(cause).__name__}")
                self._failure.__cause__ = cause
        finally:
            self._settled.set()

    async def _follow(self, client: Client, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Listen for changes of the tools, where the protocol has them on a stream of their own; ready once heard."""
        tools = client.server_capabilities.tools
        listens = client.protocol_version in MODERN_PROTOCOL_VERSIONS and tools is not None and tools.list_changed
        is_first = True
        while listens:
            try:
                async with client.listen(tools_list_changed=True) as changes:
                    if is_first:
                        task_status.started()
                        is_first = False
                    else:
                        self._mark_old()  # whatever changed while nobody listened
                    async for _ in changes:
                        self._mark_old()
            except SubscriptionLost:
                pass
            except MCPError as error:
                listens = error.code == mcp_types.CONNECTION_CLOSED
            if is_first or not self.reconnects:
                break
            self._mark_old()
            await asyncio.sleep(_LISTEN_AGAIN_S)
        if is_first:
            task_status.started()

    def _mark_old(self) -> None:
        self._list_is_old = True
        self._news.set()

    async def _list_on_news(self, client: Client) -> None:
        """List the tools again as soon as they have changed. Where that fails, the next call lists them, and tells."""
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                with anyio.move_on_after(self._start_timeout_s):
                    await self._list(client)
            except (MCPError, ToolError, ValidationError, *_CLOSED):
                continue

    async def _list(self, client: Client) -> None:
        async with self._listing:
            if not self._list_is_old:
                return
            self._list_is_old = False
            try:
                tools = tuple([self._tool(listed) async for listed in _all_tools(client)])
            except BaseException:
                self._list_is_old = True
                raise
        if tools != self.tools:
            self.tools = tools
            self._on_listed()

    def _tool(self, listed: mcp_types.Tool) -> Tool:
        try:
            tool = Tool.from_mcp(listed)
        except ToolError as error:
            raise self._error(str(error)) from error
        if tool.output_schema is not None and listed.output_schema not in (None, tool.output_schema):
            # The SDK holds results against this very dict, and would refuse them all for a type that it doesn't know.
            listed.output_schema.clear()
            listed.output_schema.update(tool.output_schema)
        return tool

    async def _ready(self) -> Client:
        """The client, connected, with the tools as the server last said."""
        client = await self._connected()
        try:
            if not await self._is_lost(client):
                await self._list(client)
                return client
        except (MCPError, *_CLOSED) as error:
            if not self.reconnects or (isinstance(error, MCPError) and error.code != mcp_types.CONNECTION_CLOSED):
                raise
        if self._client is client:
            self._client = None
            self._over.set()
        return await self._connected()

    async def _connected(self) -> Client:
        if self._client is None and self.reconnects and not self._is_stopping:
            if self._settled.is_set():
                broken = self.task
                await asyncio.wait({broken})
                if self.task is broken and not self._is_stopping:
                    self._begin()
            await self.started()
        if self._client is None or self._is_stopping:
            raise self._error("the server was stopped" if self._is_stopping else self.gone)
        return self._client

    async def _bounded(self, what: str, timeout_s: float, act: Callable[[], Awaitable[_T]]) -> _T:
        """Do something that asks the server; whatever goes wrong is a `ToolError`."""
        if self._is_stopping:
            raise self._error(f"{what}: the server was stopped")
        try:
            with anyio.fail_after(timeout_s):
                return await act()
        except TimeoutError as error:
            raise _NoAnswerError(str(self._error(f"{what} did not answer within {timeout_s:g} s"))) from error
        except MCPError as error:
            if error.code == mcp_types.CONNECTION_CLOSED:
                raise _NoAnswerError(str(self._error(f"{what} gave no result: {self.gone}"))) from error
            refused = f"the server refused the call: {error} (code {error.code})"
            raise self._error(f"{what} gave no result: {refused}") from error
        except _CLOSED as error:
            raise _NoAnswerError(str(self._error(f"{what} gave no result: {self.gone}"))) from error
        except (RuntimeError, ValueError) as error:
            raise self._error(f"{what} gave no valid result: {error}") from error


class StdioConnection(Connection):
    """A server that runs as a child process. One that has died stays dead: its state died with it."""

    def __init__(self, config: ServerConfig, start_timeout_s: float, on_listed: Callable[[], None]) -> None:
        self._process = config
        self._stray_output = ""
        self._stderr = StderrTail()
        super().__init__(config, start_timeout_s, on_listed)

    @asynccontextmanager
    async def _transport(self) -> AsyncIterator[Any]:
        config = self._process
        arguments = ["-c", _RUN_AND_LEAVE_NOTHING, config.name, config.command, *config.args]
        parameters = StdioServerParameters(command="/bin/sh", args=arguments, env=dict(config.env), cwd=config.cwd)
        yield stdio_client(parameters, errlog=self._stderr.file)

    async def _serve(self) -> None:
        try:
            await super()._serve()
        finally:
            self._stderr.close()

    async def _receive(self, message: object) -> None:
        await super()._receive(message)
        if isinstance(message, ValidationError):
            self._stray_output = str(message.errors()[0]["input"])[:200]

    def _details(self) -> str:
        tail = self._stderr.text()
        wrote = f"its last lines of standard error:\n{tail}" if tail else "it wrote nothing to standard error"
        stray = f"; it printed {self._stray_output!r}, which is no MCP message" if self._stray_output else ""
        return f"{stray}; {wrote}"


class HttpConnection(Connection):
    """A server that is reached over streamable HTTP.

    A connection that is found lost before a call, or by an earlier one, is made anew once, and the tools are listed again.
    """

    reconnects = True
    not_started = "can't be reached"
    gone = "the connection was lost, so the call may have had its effect; it is not repeated"
    stop_timeout_s = _GOODBYE_S

    def __init__(self, config: HttpServerConfig, start_timeout_s: float, on_listed: Callable[[], None]) -> None:
        self._address = config
        self._has_session = self._session_is_gone = False
        self._refusal = ""
        super().__init__(config, start_timeout_s, on_listed)

    @asynccontextmanager
    async def _transport(self) -> AsyncIterator[Any]:
        self._has_session = self._session_is_gone = False
        self._refusal = ""
        # The libraries log URLs. Theirs has neither credentials nor query: those join a request just before it is sent.
        parts = urlsplit(self._address.url)
        url = httpx2.URL(self._address.where)
        credentials = httpx2.BasicAuth(unquote(parts.username or ""), unquote(parts.password or ""))

        async def add_query(request: httpx2.Request) -> None:
            request.extensions = {name: value for name, value in request.extensions.items() if name != "target"}
            if parts.query and request.url == url:
                request.extensions["target"] = url.raw_path + b"?" + parts.query.encode()

        http = httpx2.AsyncClient(
            headers=dict(self._address.headers),
            auth=credentials if parts.username or parts.password else None,
            timeout=httpx2.Timeout(self._start_timeout_s, read=None),  # calls have a timeout of their own
            event_hooks={"request": [add_query], "response": [self._note]},
        )
        async with http:
            yield streamable_http_client(str(url), http_client=http, max_sse_event_size=8 * MAX_RESULT_CHARS)

    async def _note(self, response: httpx2.Response) -> None:
        """Keep what an answer says of our session, and why one was refused."""
        in_session = _SESSION_HEADER in response.request.headers
        self._has_session |= _SESSION_HEADER in response.headers
        self._session_is_gone |= in_session and response.status_code == 404
        if response.request.method == "POST":
            refused = response.status_code >= 300
            self._refusal = f"HTTP {response.status_code} {response.reason_phrase[:80]}".strip() if refused else ""
        elif response.request.method == "GET" and response.is_success:
            self._mark_old()  # the stream of older servers: what changed before it stood was told to nobody

    async def _is_lost(self, client: Client) -> bool:
        """Servers of older protocols keep a session, and forget it as they start anew; only a request tells."""
        if self._has_session and not self._session_is_gone:
            try:
                await client.session.send_request(mcp_types.PingRequest(), mcp_types.EmptyResult)
            except MCPError as error:
                if error.code == mcp_types.CONNECTION_CLOSED:
                    return True
        return self._session_is_gone

    def _details(self) -> str:
        return f"; the server's last answer was {self._refusal}" if self._refusal else ""


def connection_to(config: AnyServerConfig, start_timeout_s: float, on_listed: Callable[[], None]) -> Connection:
    """Begin to connect to a server."""
    if isinstance(config, HttpServerConfig):
        return HttpConnection(config, start_timeout_s, on_listed)
    return StdioConnection(config, start_timeout_s, on_listed)


async def _all_tools(client: Client) -> AsyncIterator[mcp_types.Tool]:
    """The tools of all pages; a server whose pages never end runs into a timeout."""
    cursor: str | None = None
    while True:
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            yield tool
        cursor = page.next_cursor
        if cursor is None:
            return


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
