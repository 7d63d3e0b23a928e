"""An OpenAI-compatible server that plays fixed answers, on 127.0.0.1 in a thread; it keeps every request it gets."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


def say(content: str = "", *calls: tuple[str, Any], reason: str = "", **choice: Any) -> dict[str, Any]:
    """One answer; a call is a tool's name with its arguments, as JSON text or as a value."""
    listed = [
        {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": name, "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments)},
        }
        for number, (name, arguments) in enumerate(calls)
    ]
    message = {"role": "assistant", "content": content or None, "tool_calls": listed or None}
    finish = reason or ("tool_calls" if calls else "stop")
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish, **choice}]}


@dataclass
class ModelServer:
    """`routines`: what `GET /v1/routines` lists; None: there is no such route."""

    answers: Iterator[dict[str, Any]]
    routines: list[dict[str, Any]] | None
    models: list[dict[str, Any]]
    delay_s: float = 0.0
    requests: list[dict[str, Any]] = field(default_factory=list)
    base_url: str = ""

    def app(self) -> Starlette:
        routes = [
            Route("/v1/chat/completions", self._complete, methods=["POST"]),
            Route("/v1/routines", self._routines),
            Route("/v1/models", self._models),
        ]
        return Starlette(routes=routes)

    def _complete_now(self, body: dict[str, Any]) -> Response:
        self.requests.append(body)
        answer = next(self.answers, None)
        if answer is None:
            return JSONResponse({"error": {"message": "no answer is left"}}, status_code=400)
        status = answer.pop("status", 200)
        fields = {"id": "c", "object": "chat.completion", "created": 1, "model": body["model"]}
        return JSONResponse(answer if "error" in answer else fields | answer, status_code=status)

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        time.sleep(self.delay_s)
        return self._complete_now(body)

    async def _routines(self, request: Request) -> Response:
        if self.routines is None:
            return JSONResponse({"detail": "Not Found"}, status_code=404)
        return JSONResponse({"routines": self.routines})

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": self.models})


@contextmanager
def model_server(
    answers: Iterable[dict[str, Any]],
    *,
    routines: list[dict[str, Any]] | None = None,
    models: list[dict[str, Any]] | None = None,
    delay_s: float = 0.0,
) -> Iterator[ModelServer]:
    """Run a server that gives these answers, one a request, and then 400."""
    listed = [{"id": "m", "object": "model", "created": 1, "owned_by": "tests"}] if models is None else models
    played = ModelServer(iter(answers), routines, listed, delay_s)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # so that who connects before the server runs waits for it
        played.base_url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        server = uvicorn.Server(uvicorn.Config(played.app(), log_level="critical", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield played
        finally:
            server.should_exit = True
            thread.join()
