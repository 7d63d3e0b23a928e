"""Fails closed: routes that can't honour `routine` answer 400 to it, vLLM's ways around its API key are shut, and a server
that stops takes no more requests.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from vllm import envs

from routine_grammar.serve.metrics import count_refusal

CHAT = "/v1/chat/completions"
STOPPING = "routine_grammar_stopping"  # in the app's state: whether the server drains
# What uses the model or tells of it outside the prefixes that vLLM's authentication guards.
UNGUARDED = ("/invocations", "/generative_scoring", "/tokenize", "/detokenize", "/tokenizer_info")


def error_response(message: str, status: int, parameter: str | None = None, kind: str = "BadRequestError") -> JSONResponse:
    """An error in the shape of OpenAI's API."""
    return JSONResponse({"error": {"message": message, "type": kind, "param": parameter, "code": status}}, status)


class RoutineGuard:
    """ASGI middleware inside vLLM's authentication and outside every route. Reads bodies only to look for `routine`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if getattr(scope["app"].state, STOPPING, False) and path != "/metrics":
            refusal = error_response("the server is stopping", 503, kind="ServiceUnavailableError")
            refusal.headers["Retry-After"] = "1"
            return await refusal(scope, receive, send)
        if path in UNGUARDED and scope["method"] != "OPTIONS" and _has_api_key(scope):
            refusal = error_response(f"{path} is closed while an API key is set", 403, kind="PermissionDeniedError")
            return await refusal(scope, receive, send)
        if scope["method"] != "POST":
            return await self._app(scope, receive, send)
        if path == CHAT or path.startswith("/v1/routines") or _is_multipart(scope):
            return await self._app(scope, receive, send)
        body = await _read_body(receive)
        if body is None:
            return None  # the client went away
        if _names_routine(body):
            count_refusal("OtherRoute")
            refusal = error_response(f"`routine` is served by POST {CHAT} alone, not by {path}", 400, "routine")
            return await refusal(scope, receive, send)
        return await self._app(scope, _replayed(body, receive), send)


def _has_api_key(scope: Scope) -> bool:
    """Whether vLLM asks for a key: its flag goes before its environment variable, and empty ones are none."""
    args: Any = getattr(scope["app"].state, "args", None)
    return any(getattr(args, "api_key", None) or [envs.VLLM_API_KEY])


def _is_multipart(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return bool(headers.get(b"content-type", b"").strip().startswith(b"multipart/"))


async def _read_body(receive: Receive) -> bytes | None:
    chunks: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)


def _names_routine(body: bytes) -> bool:
    plain = body.replace(b"\0", b"")  # the routes' parser reads UTF-16 and UTF-32 too
    if b"routine" not in plain and b"\\u00" not in plain:
        return False
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return False  # the route's own parser answers it
    return isinstance(document, dict) and document.get("routine") is not None


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body once more, then what comes after it: the client's disconnect, which routes wait for."""
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
