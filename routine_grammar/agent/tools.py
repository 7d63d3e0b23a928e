"""MCP tools: the servers of an `mcpServers` file, started over stdio or reached over HTTP, their tools listed and called.

In: the servers' configs. Out: `Tool`s, kept up to date as servers change them, and results as text and JSON. What goes wrong
is a `ToolError` that names the server. Knows no Routine's steps.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import mcp_types

from routine_grammar.agent.connections import MAX_RESULT_CHARS, Connection, connection_to
from routine_grammar.agent.mcp_config import AnyServerConfig, HttpServerConfig, ServerConfig, load_mcp_config
from routine_grammar.errors import ToolChangedError, ToolError
from routine_grammar.routine.tools import Tool

__all__ = [
    "AnyServerConfig",
    "CALL_TIMEOUT_S",
    "HttpServerConfig",
    "MAX_RESULT_CHARS",
    "START_TIMEOUT_S",
    "ServerConfig",
    "ToolResult",
    "ToolServers",
    "load_mcp_config",
]

START_TIMEOUT_S = 30.0
CALL_TIMEOUT_S = 60.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool answered: its content as text, its structured content where it gave any, and whether it failed."""

    text: str
    structured: object | None = None
    is_error: bool = False


class ToolServers:
    """MCP servers that are connected as long as the `async with` block: their tools, and the way to call them.

    They start at the same time, each within `start_timeout_s`. Entering raises `ToolError` where one does not start or
    two offer a tool of the same name; by then all are stopped again. Leaving stops every server that was started, with all
    its child processes: its input is closed, and after 2 s it gets SIGTERM, then SIGKILL. Calls may overlap.

    Where a server says that its tools have changed, they are listed again, and `on_change` is awaited with all tools; it
    may call tools, and what it raises is logged. A connection over HTTP that is lost is made anew by the next call.
    """

    def __init__(
        self,
        configs: Sequence[AnyServerConfig],
        *,
        start_timeout_s: float = START_TIMEOUT_S,
        on_change: Callable[[tuple[Tool, ...]], Awaitable[None]] | None = None,
    ) -> None:
        self._configs = tuple(configs)
        self._start_timeout_s = start_timeout_s
        self._on_change = on_change
        self._connections: tuple[Connection, ...] = ()
        self._owners: dict[str, Connection] = {}
        self._tools: tuple[Tool, ...] = ()
        self._problem: ToolError | None = None
        self._has_started = False
        self._news = asyncio.Event()
        self._teller: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._connections = tuple(connection_to(each, self._start_timeout_s, self._listed) for each in self._configs)
        try:
            await asyncio.gather(*(connection.started() for connection in self._connections))
            self._owners, self._tools = _owners(self._connections)
        except BaseException:
            await self._stop()
            raise
        self._has_started = True
        if self._on_change is not None:
            self._teller = asyncio.create_task(self._tell(self._on_change), name="MCP tools changed")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop()

    @property
    def tools(self) -> tuple[Tool, ...]:
        """All tools of all servers, in the order of the configuration and of each server's list, as last listed."""
        return self._tools

    def server_of(self, name: str) -> AnyServerConfig:
        """Return the server that offers a tool; raises `ToolError` where none does."""
        return self._owner(name).config

    async def call(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float = CALL_TIMEOUT_S,
        listed_as: Tool | None = None,
    ) -> ToolResult:
        """Call a tool and wait for its result; a failure that the tool itself reports comes back with `is_error`.

        With `listed_as`, the call is only made where the tool still has that one's schemas; else it raises
        `ToolChangedError`. Raises `ToolError` where no server has the tool, its server is gone or refuses the call, the
        result breaks the tool's own output schema or the bound of 16 Mi characters, or `timeout_s` pass: the server is
        then told to drop the call, which may have had its effect.
        """
        if name not in self._owners:  # a server may just have told that it has
            await asyncio.gather(*(each.refresh(timeout_s) for each in self._connections), return_exceptions=True)
        if name not in self._owners and listed_as is not None:
            raise ToolChangedError(f"tool {name!r} is no longer offered")
        owner = self._owner(name)
        result = await owner.call(name, arguments, timeout_s, lambda: self._check(name, owner, listed_as))
        text = "\n".join(_content_text(block) for block in result.content)
        if len(text) > MAX_RESULT_CHARS:
            raise ToolError(f"tool {name!r} answered {len(text)} characters; expected at most {MAX_RESULT_CHARS}")
        return ToolResult(text, result.structured_content, result.is_error)

    def record_tools(self, path: str | Path) -> None:
        """Write the tools as `{"tools": [...]}`, in MCP's form: `load_tools` reads it in place of running servers."""
        text = json.dumps({"tools": [tool.to_mcp() for tool in self._tools]}, indent=2, ensure_ascii=False)
        Path(path).write_text(text + "\n", encoding="utf-8")

    def _owner(self, name: str) -> Connection:
        if name not in self._owners:
            near = difflib.get_close_matches(name, self._owners, n=1)
            servers = "; ".join(f"{config.name}: {config.where}" for config in self._configs) or "none"
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ToolError(f"no server has a tool {name[:80]!r} (servers: {servers}){hint}")
        return self._owners[name]

    def _check(self, name: str, owner: Connection, listed_as: Tool | None) -> None:
        """Raise where a call that is about to be made is not the one that was meant."""
        if self._problem is not None:
            raise self._problem
        now = next((tool for tool in owner.tools if tool.name == name), None)
        if listed_as is None:
            return
        server = f"MCP server {owner.config.name!r} ({owner.config.where})"
        if now is None:
            raise ToolChangedError(f"tool {name!r} is no longer offered by {server}")
        for schema in ("input_schema", "output_schema"):
            if getattr(now, schema) != getattr(listed_as, schema):
                raise ToolChangedError(f"{server} changed the {schema.replace('_', ' ')} of tool {name!r}")

    def _listed(self) -> None:
        """Take up what a server listed anew; lists that clash are told by every call until they no longer do."""
        if not self._has_started:
            return
        try:
            self._owners, self._tools = _owners(self._connections)
            self._problem = None
        except ToolError as error:
            self._problem = error
        self._news.set()

    async def _tell(self, on_change: Callable[[tuple[Tool, ...]], Awaitable[None]]) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await on_change(self._tools)
            except Exception:
                _log.exception("on_change failed")

    async def _stop(self) -> None:
        """Stop all servers at once, and wait for it even if the waiting task is cancelled again meanwhile."""
        for connection in self._connections:
            connection.stop()
        running = {connection.task for connection in self._connections}
        if self._teller is not None:
            self._teller.cancel()
            running.add(self._teller)
        cancelled: asyncio.CancelledError | None = None
        with anyio.CancelScope(shield=True):
            while running:
                try:
                    _, running = await asyncio.wait(running)
                except asyncio.CancelledError as error:
                    cancelled = error
        if cancelled is not None:
            raise cancelled


def _owners(connections: Iterable[Connection]) -> tuple[dict[str, Connection], tuple[Tool, ...]]:
    """Which server has which tool, and all tools; raises `ToolError` where two have one."""
    owners: dict[str, Connection] = {}
    tools: list[Tool] = []
    for connection in connections:
        for tool in connection.tools:
            if tool.name in owners:
                first, second = owners[tool.name].config, connection.config
                raise ToolError(
                    f"tool {tool.name!r} is offered twice, by MCP servers {first.name!r} ({first.where}) and "
                    f"{second.name!r} ({second.where}); expected one server per tool"
                )
            owners[tool.name] = connection
            tools.append(tool)
    return owners, tuple(tools)


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
