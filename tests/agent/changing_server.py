"""An MCP server that changes its own tools: `python changing_server.py stdio`, or `http [PORT [KIND]]`, which prints its port.

KIND is "refusing" (each request is answered by 401), "strange" (function documents with types that JSON Schema does not have)
or "silent" (nothing is answered).
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import anyio
import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp_types import ToolAnnotations
from pydantic import BaseModel


class Found(BaseModel):
    title: str
    pages: list[int]


class Shelf(BaseModel):
    found: list[Found]
    count: int


server = MCPServer("changing")


def log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@server.tool(title="Echo", annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False))
def echo(text: str) -> str:
    return text


@server.tool()
async def sleep(seconds: float) -> str:
    try:
        await anyio.sleep(seconds)
    except BaseException:
        log("dropped")
        raise
    return "awake"


@server.tool()
def fail() -> str:
    raise ValueError("no such thing")


@server.tool(annotations=ToolAnnotations(destructive_hint=True))
def find(word: str) -> Shelf:
    return Shelf(found=[Found(title=word, pages=[1, 2]), Found(title=f"{word} again", pages=[])], count=2)


@server.tool()
def die() -> str:
    log("dying")
    os._exit(1)


@server.tool()
def request(context: Context) -> str:
    """What came with the request over HTTP."""
    sent = context.request_context.request
    headers = {name: sent.headers.get(name) for name in ("x-key", "authorization")} if sent is not None else {}
    return json.dumps({"query": sent.url.query if sent is not None else "", **headers})


def number(number: int) -> str:
    return str(number)


def text(text: str) -> str:
    return text


KINDS: dict[str, Callable[..., str]] = {"number": number, "text": text}


@server.tool()
async def change(context: Context, name: str, kind: str) -> str:
    """Offer a tool anew, of another kind, or no longer where the kind is "none"."""
    if any(tool.name == name for tool in await server.list_tools()):
        server.remove_tool(name)
    if kind != "none":
        server.add_tool(KINDS[kind], name=name)
    await context.notify_tools_changed()
    await context.request_context.session.send_tool_list_changed()
    return "changed"


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    """Tell what was sent as authorization, as careless servers do."""
    if scope["type"] == "http":
        sent = dict(scope["headers"]).get(b"authorization", b"").decode()
        body = {"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": f"bad authorization: {sent}"}}
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})


async def say_nothing(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        print("asked", flush=True)
        await anyio.sleep_forever()


def make_strange() -> None:
    """Give `find` the types of a function document."""
    tool = server._tool_manager.get_tool("find")
    assert tool is not None
    tool.parameters = {"type": "object", "properties": {"word": {"type": "str"}}, "required": ["word"]}
    tool.fn_metadata.output_schema = {
        "type": "object",
        "properties": {"found": {"type": "list"}, "count": {"type": "int"}},
        "required": ["count"],
    }


def serve_http(port: str = "0", kind: str = "") -> None:
    if kind == "strange":
        make_strange()
    app = {"refusing": refuse, "silent": say_nothing}.get(kind) or server.streamable_http_app()
    listener = socket.create_server(("127.0.0.1", int(port)))
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(app, log_level="warning", lifespan="off" if kind in ("refusing", "silent") else "on")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run("stdio")
    else:
        serve_http(*sys.argv[2:])
