"""MCP servers that misbehave or are old, run as `python servers.py KIND`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any


def run_misbehaving_server() -> None:
    from mcp.server import MCPServer

    # A grandchild that outlives its parent and holds its pipes, unless the whole process group is stopped.
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    server = MCPServer("misbehaving")

    @server.tool()
    def die() -> str:
        print("dying on purpose", file=sys.stderr, flush=True)
        os._exit(1)

    @server.tool()
    def sleep(seconds: float) -> str:
        time.sleep(seconds)
        return "awake"

    @server.tool()
    def chatter(lines: int) -> str:
        for number in range(lines):
            print(f"line {number} " + "x" * 1000, file=sys.stderr)
        return "said"

    @server.tool()
    def fail() -> str:
        raise ValueError("no such thing")

    @server.tool()
    def folder() -> str:
        return f"{os.getcwd()} {os.environ.get('GREETING')} {os.environ.get('SECRET_OF_THE_PARENT')}"

    server.run("stdio")


def run_paged_server() -> None:
    """An older server, written out by hand: it knows only the handshake of 2025, and lists one tool a page."""
    for line in sys.stdin:
        request = json.loads(line)
        if "id" not in request:
            continue
        result = _paged_result(request["method"], request.get("params") or {})
        answer = {"result": result} if result else {"error": {"code": -32601, "message": "Method not found"}}
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **answer}), flush=True)


def _paged_result(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    if method == "initialize":
        return {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "paged", "version": "1"},
        }
    if method == "tools/list":
        page = int(params.get("cursor") or 0)
        tools = [{"name": f"tool_{page}", "inputSchema": {"type": "object"}}]
        return {"tools": tools, "nextCursor": str(page + 1)} if page < 4 else {"tools": tools}
    if method == "tools/call":
        image = {"type": "image", "mimeType": "image/png", "data": "AAAA"}
        return {"content": [{"type": "text", "text": "one"}, image, {"type": "text", "text": "two"}]}
    return None


if __name__ == "__main__":
    {"misbehaving": run_misbehaving_server, "paged": run_paged_server}[sys.argv[1]]()
