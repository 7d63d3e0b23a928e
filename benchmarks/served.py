"""Calls a second through real servers with the demo model: under our grammars, under vLLM's own backends, and without.

One server for each of vLLM's backends, both running throughout; ours and the unconstrained arm change servers every round.
In: turns of the workload, the same few over and over. Out: measurements with 95% intervals over rounds. Everything stays on
127.0.0.1, bounded in count and time.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev
from time import perf_counter
from typing import Any

import httpx

from benchmarks.ebnf import grammar_to_ebnf
from benchmarks.results import Measurement
from benchmarks.workload import Case, make_case
from routine_grammar.demo.server import model_server
from routine_grammar.masks.vocabulary import Vocabulary

BACKENDS = ("xgrammar", "guidance")
MAX_TOKENS = 160
TURNS = 4  # different turns that the calls of an arm go through, over and over
CELL_TIMEOUT_S = 60.0
_SIZE = "medium"
_MODEL = "routine-demo"
_PROMPT = "Please begin."
# Student's t for a 95% interval, by the number of rounds.
_T_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36}

Advance = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ServedArm:
    """How requests are constrained, and whose servers answer them. `texts`: a grammar for each turn; None: no constraint."""

    name: str
    backends: tuple[str, ...]
    texts: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Cell:
    """What came of some calls: how many, how long they took together, their tokens, and what was wrong with them."""

    calls: int
    elapsed_s: float
    tokens: int
    invalid: int
    cut_off: int


@dataclass(frozen=True, slots=True)
class _Call:
    tokens: int
    valid: bool
    cut_off: bool


def measure(seed: int, rounds: int, calls: Mapping[int, int], vocabulary: Vocabulary, advance: Advance) -> list[Measurement]:
    """Start both servers and measure every arm; `calls` gives the number of calls a round for each number of clients.

    `vocabulary` is the demo model's. Raises `EngineError` where a server does not start, `httpx.HTTPError` for a refused call.
    """
    return asyncio.run(_measure(seed, rounds, calls, vocabulary, advance))


def count_steps(rounds: int, calls: Mapping[int, int]) -> int:
    """How often `measure` reports."""
    return 1 + rounds * len(calls) * (2 + len(BACKENDS))


def make_arms(turns: Sequence[Case], vocabulary: Vocabulary) -> list[ServedArm]:
    """None, each of vLLM's backends, and ours."""
    ebnf = tuple(grammar_to_ebnf(turn.grammar.tree) for turn in turns)
    lark = tuple(turn.grammar.lark_for("llguidance", vocabulary) for turn in turns)
    return [
        ServedArm("unconstrained", BACKENDS, None),
        ServedArm("vLLM xgrammar", ("xgrammar",), ebnf),
        ServedArm("vLLM guidance", ("guidance",), lark),
        ServedArm("routine_grammar", BACKENDS, tuple(turn.grammar.payload for turn in turns)),
    ]


async def _measure(
    seed: int, rounds: int, calls: Mapping[int, int], vocabulary: Vocabulary, advance: Advance
) -> list[Measurement]:
    turns = [make_case(_SIZE, 1, seed + number) for number in range(TURNS)]
    arms = make_arms(turns, vocabulary)
    found: dict[tuple[int, ServedArm], list[Cell]] = {(clients, arm): [] for clients in calls for arm in arms}
    async with _servers() as urls, httpx.AsyncClient(trust_env=False, timeout=CELL_TIMEOUT_S) as http:
        advance("servers are up")
        for number in range(rounds):
            for clients, count in calls.items():
                for arm in random.Random(f"{number} {clients}").sample(arms, len(arms)):
                    for backend in arm.backends if number == 0 else ():
                        await _run(http, urls[backend], arm, turns, clients, 2 * TURNS, f"{seed} warm-up")
                    url = urls[arm.backends[number % len(arm.backends)]]
                    found[clients, arm].append(await _run(http, url, arm, turns, clients, count, f"{seed} {number}"))
                    advance(f"round {number + 1}, {clients} clients, {arm.name}")
    return [one for (clients, arm), cells in found.items() for one in summarise(clients, arm, cells)]


@asynccontextmanager
async def _servers() -> AsyncIterator[dict[str, str]]:
    """The base URL of one server for each backend."""
    async with AsyncExitStack() as stack:
        starts = [asyncio.ensure_future(stack.enter_async_context(_server(backend))) for backend in BACKENDS]
        try:
            urls = await asyncio.gather(*starts)
        except BaseException:
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)
            raise
        yield dict(zip(BACKENDS, urls, strict=True))


def _server(backend: str) -> AbstractAsyncContextManager[str]:
    flags = ("--structured-outputs-config", json.dumps({"backend": backend}))
    return model_server(lambda elapsed_s, line: None, (sys.executable, "-m", "routine_grammar.serve", *flags))


async def _run(
    http: httpx.AsyncClient, url: str, arm: ServedArm, turns: Sequence[Case], clients: int, count: int, seed: str
) -> Cell:
    """`count` calls by `clients` closed-loop clients: each asks again as soon as it is answered."""
    numbers = iter(range(count))

    async def ask_on() -> list[_Call]:
        return [await _ask(http, url, arm, turns, number, seed) for number in numbers]

    begin = perf_counter()
    async with asyncio.timeout(CELL_TIMEOUT_S):
        answered = await asyncio.gather(*(ask_on() for _ in range(clients)))
    elapsed_s = perf_counter() - begin
    done = [call for calls in answered for call in calls]
    return Cell(
        calls=len(done),
        elapsed_s=elapsed_s,
        tokens=sum(call.tokens for call in done),
        invalid=sum(not call.valid and not call.cut_off for call in done),
        cut_off=sum(call.cut_off for call in done),
    )


async def _ask(http: httpx.AsyncClient, url: str, arm: ServedArm, turns: Sequence[Case], number: int, seed: str) -> _Call:
    turn = number % len(turns)
    request: dict[str, Any] = {
        "model": _MODEL,
        "messages": [{"role": "user", "content": _PROMPT}],
        "max_tokens": MAX_TOKENS,
        "temperature": 1,
        "seed": random.Random(f"{seed} {number}").getrandbits(31),
    }
    if arm.texts is not None:
        request["structured_outputs"] = {"grammar": arm.texts[turn]}
    answer = await http.post(f"{url}/chat/completions", json=request)
    answer.raise_for_status()
    document = answer.json()
    (choice,) = document["choices"]
    valid = turns[turn].grammar.accepts(choice["message"]["content"] or "")
    return _Call(document["usage"]["completion_tokens"], valid, choice["finish_reason"] == "length" and not valid)


def summarise(clients: int, arm: ServedArm, cells: Sequence[Cell]) -> Iterator[Measurement]:
    """What is told of an arm at a number of clients."""
    case, name = f"{clients} client{'s' * (clients > 1)}", arm.name

    def interval(metric: str, unit: str, values: Sequence[float]) -> Measurement:
        middle = fmean(values)
        half = _T_95[len(values)] * stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0
        return Measurement(case, name, metric, unit, middle, max(0.0, middle - half), middle + half, len(values))

    def share(metric: str, count: int) -> Measurement:
        middle, low, high = _wilson(count, total)
        return Measurement(case, name, metric, "%", 100 * middle, 100 * low, 100 * high, total)

    total = sum(cell.calls for cell in cells)
    yield interval("calls", "/s", [cell.calls / cell.elapsed_s for cell in cells])
    yield interval("valid calls", "/s", [(cell.calls - cell.invalid - cell.cut_off) / cell.elapsed_s for cell in cells])
    yield interval("output tokens", "/s", [cell.tokens / cell.elapsed_s for cell in cells])
    yield interval("tokens a call", "", [cell.tokens / cell.calls for cell in cells])
    yield share("invalid", sum(cell.invalid for cell in cells))
    yield share("cut off", sum(cell.cut_off for cell in cells))


def _wilson(count: int, total: int) -> tuple[float, float, float]:
    """A share and its 95% interval."""
    z, share = 1.96, count / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return share, max(0.0, centre - half), min(1.0, centre + half)
