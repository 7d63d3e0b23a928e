"""Clients: closed-loop ones that ask again as soon as they are answered, and arrivals at random (Poisson).

In: requests by number. Out: an answer each, with the times at which its pieces came. Pieces are kept as they come and read
afterwards, so that reading them costs the server nothing. Bounded in count and in time.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import aiohttp

TIMEOUT_S = 120.0

Requests = Callable[[int], Mapping[str, Any]]


class RefusedError(Exception):
    """A server refused a request of the benchmark."""


@dataclass(slots=True)
class Answer:
    """What came of a request: `pieces` of the stream, each with its time; seconds from when it was sent.

    `gaps_s`: how long each piece that says something came after the one before.
    """

    number: int
    began_s: float
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    content: str = ""
    calls: list[dict[str, str]] = field(default_factory=list)
    tokens: int = 0
    reason: str = ""
    first_s: float = 0.0
    last_s: float = 0.0
    gaps_s: list[float] = field(default_factory=list)

    @property
    def token_s(self) -> float | None:
        """Seconds a token behind the first; None where there is but one."""
        return (self.last_s - self.first_s) / (self.tokens - 1) if self.tokens > 1 else None

    def read(self) -> None:
        """Read the pieces: text, tool calls, and when the first and the last of them came."""
        for time_s, line in self.pieces:
            if not line.startswith(b"data: {"):
                continue
            document = json.loads(line[6:])
            if "error" in document:
                raise RefusedError(str(document["error"])[:500])
            if document.get("usage"):
                self.tokens = document["usage"]["completion_tokens"]
            for choice in document["choices"]:
                self.reason = choice.get("finish_reason") or self.reason
                if self._take(choice["delta"]):
                    since_s = time_s - self.began_s
                    if self.first_s:
                        self.gaps_s.append(since_s - self.last_s)
                    self.first_s = self.first_s or since_s
                    self.last_s = since_s
        self.pieces.clear()

    def _take(self, delta: Mapping[str, Any]) -> bool:
        """Add what a piece says; whether it says anything."""
        self.content += delta.get("content") or ""
        for part in delta.get("tool_calls") or ():
            while len(self.calls) <= part["index"]:
                self.calls.append({"name": "", "arguments": ""})
            for name in ("name", "arguments"):
                self.calls[part["index"]][name] += part["function"].get(name) or ""
        return bool(delta.get("content") or delta.get("tool_calls"))


@dataclass(frozen=True, slots=True)
class Load:
    """Answers, and how long they took together."""

    answers: list[Answer]
    elapsed_s: float


async def ask(http: aiohttp.ClientSession, url: str, request: Mapping[str, Any], number: int) -> Answer:
    """Send a request and take its stream; raises `RefusedError` for an answer that is none."""
    answer = Answer(number, perf_counter())
    whole = {**request, "stream": True, "stream_options": {"include_usage": True}}
    try:
        async with http.post(f"{url}/chat/completions", json=whole) as response:
            if response.status != 200:
                raise RefusedError(f"status {response.status}: {(await response.text())[:500]}")
            async for line in response.content:
                if len(line) > 1:
                    answer.pieces.append((perf_counter(), line))
    except aiohttp.ClientError as error:
        raise RefusedError(f"{url}: {type(error).__name__}: {error}") from error
    return answer


async def closed_loop(
    http: aiohttp.ClientSession, url: str, requests: Requests, clients: int, count: int, timeout_s: float = TIMEOUT_S
) -> Load:
    """`count` requests by that many clients, each of which asks again as soon as it is answered."""
    numbers = iter(range(count))

    async def ask_on() -> list[Answer]:
        return [await ask(http, url, requests(number), number) for number in numbers]

    return await _timed([ask_on() for _ in range(clients)], timeout_s)


async def open_loop(
    http: aiohttp.ClientSession, url: str, requests: Requests, per_second: float, count: int, seed: int
) -> Load:
    """`count` requests at times of a Poisson process, whether or not those before are answered."""
    rng = random.Random(seed)
    waits = [rng.expovariate(per_second) for _ in range(count)]

    async def ask_at(time_s: float, number: int) -> list[Answer]:
        await asyncio.sleep(time_s)
        return [await ask(http, url, requests(number), number)]

    return await _timed([ask_at(sum(waits[: number + 1]), number) for number in range(count)], TIMEOUT_S)


async def _timed(clients: list[Any], timeout_s: float) -> Load:
    begin = perf_counter()
    async with asyncio.timeout(timeout_s):
        answered = await asyncio.gather(*clients)
    elapsed_s = perf_counter() - begin
    answers = [answer for answers in answered for answer in answers]
    for answer in answers:
        answer.read()
    return Load(answers, elapsed_s)


def session() -> aiohttp.ClientSession:
    """A client session for any number of connections to servers of this machine."""
    # A connection for each request: one that is taken up again may be one that the server is about to close.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None), trust_env=False)
