"""An MCP server whose tools have effects that can be counted: each call adds a line to the file named by LEDGER."""

from __future__ import annotations

import os
import time

from mcp.server import MCPServer
from mcp_types import ToolAnnotations

LEDGER = os.environ["LEDGER"]
server = MCPServer("ledger")


def enter(text: str) -> str:
    descriptor = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{text}\n".encode())
    os.fsync(descriptor)
    os.close(descriptor)
    return text


@server.tool(structured_output=False, annotations=ToolAnnotations(read_only_hint=True))
def look(run: str) -> str:
    """Read something."""
    return enter(f"look {run}")


@server.tool(structured_output=False, annotations=ToolAnnotations(destructive_hint=False))
def note(run: str, text: str) -> str:
    """Write something, once more with every call."""
    return enter(f"note {run} {text}")


@server.tool(structured_output=False, annotations=ToolAnnotations(idempotent_hint=True, destructive_hint=False))
def mark(run: str, text: str) -> str:
    """Write something, to the same effect however often."""
    return enter(f"mark {run} {text}")


@server.tool(structured_output=False)
def burn(run: str) -> str:
    """Destroy something."""
    return enter(f"burn {run}")


@server.tool(structured_output=False, annotations=ToolAnnotations(destructive_hint=False))
def wait(run: str, seconds: float) -> str:
    """Take a while."""
    enter(f"wait {run}")
    time.sleep(seconds)
    return "waited"


server.run("stdio")
