"""Positions carried in `tool_call.id`, which OpenAI clients send back: no state in the server, no tokens in the prompt.

An id is `rg.<routine>.<version>.<position after the call>.<nonce>`.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

_ID = re.compile(r"rg\.([A-Za-z][A-Za-z0-9_-]{0,63})\.([0-9a-f]{8})\.([0-9_+@-]{1,200})\.([0-9a-f]{12})")


@dataclass(frozen=True, slots=True)
class CallId:
    """What an id of ours says: the Routine, its version, and the step that the call completed."""

    routine: str
    version: str
    position: str


def make_call_id(routine: str, version: str, position: str) -> str:
    """A fresh id for a call after which the run stands at `position`."""
    return f"rg.{routine}.{version}.{position}.{secrets.token_hex(6)}"


def read_call_id(text: object) -> CallId | None:
    """What an id of ours says; None for anybody else's."""
    match = _ID.fullmatch(text) if isinstance(text, str) else None
    return CallId(match[1], match[2], match[3]) if match else None
