"""Texts of calls in the hermes dialect, and a schema for their arguments."""

from __future__ import annotations

import json
from typing import Any

TEXT: dict[str, Any] = {"type": "string"}
REASON = {"type": "object", "properties": {"code": {"type": "integer"}, "text": TEXT}, "required": ["code"]}


def call(name: str, **arguments: Any) -> str:
    return written(name, json.dumps(arguments, ensure_ascii=False))


def written(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'
