"""A Routine whose turns show all that a dialect has: arguments of every type, none, calls in parallel, a final answer."""

from __future__ import annotations

from functools import cache
from typing import Any

from routine_grammar import Routine, Tool, compile_routine
from routine_grammar.api import CompiledRoutine

TEXT = {"type": "string"}
PARAMETERS: dict[str, Any] = {
    "words": TEXT,
    "maybe": {"anyOf": [TEXT, {"type": "null"}]},
    "count": {"type": "integer"},
    "share": {"type": "number"},
    "fast": {"type": "boolean"},
    "tags": {"type": "array", "items": TEXT},
    "more": {"type": "object", "properties": {"key": TEXT, "value": {"type": "number"}}},
    "one": {"enum": ["one", "5 < 6 é", None]},
}
TOOLS = (
    Tool("search", "", {"type": "object", "properties": PARAMETERS, "required": ["count"]}),
    Tool("ping", "", {"type": "object", "properties": {}}),
)
ROUTINE = """
name: ways
inputs: {q: {type: string}}
thought: {linear: 0, branch: 40}
steps:
  - name: Begin
    tool: ping
    branches:
      - parallel: true
        steps:
          - {name: Search, tool: search}
          - {name: Ping, tool: ping}
          - {name: Search again, tool: search}
  - name: Search once more
    tool: search
    branches:
      - if: nothing was found
        steps:
          - {name: Ping again, tool: ping}
"""
KEYS = ["memory_input_q"]


@cache
def compiled(dialect: str) -> CompiledRoutine:
    return compile_routine(Routine.parse(ROUTINE), TOOLS, dialect=dialect)
