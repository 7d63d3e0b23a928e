"""What neighbours pay for grammars that a server never saw: one a second, beside eight streams without a constraint.

The same streams beside a call of the same size under a grammar that is known by now are what they are held against, round by
round. In: servers that run. Out: measurements.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import count

import aiohttp

from benchmarks.results import Measurement
from benchmarks.serving.arms import FREE, GUIDANCE, OURS, UNDRAFTED, XGRAMMAR, Arm
from benchmarks.serving.load import Answer, ask
from benchmarks.serving.measure import Advance
from benchmarks.serving.servers import Kind, Server
from benchmarks.statistics import mean_interval, percentile, ratio_interval
from benchmarks.vocabularies import Tokenization
from benchmarks.workload import make_bounded_case

ARMS = (XGRAMMAR, GUIDANCE, UNDRAFTED, OURS)
STREAMS = 8
SECONDS = 3  # of a round: as many calls are asked for
SIZE = "large"


def steps(rounds: int) -> int:
    """How often progress is told."""
    return rounds * len(ARMS)


async def measure_cold(
    http: aiohttp.ClientSession,
    servers: Mapping[Kind, Server],
    tokenization: Tokenization,
    rounds: int,
    seed: int,
    advance: Advance,
) -> list[Measurement]:
    """Rounds of every arm, each with known grammars and with new ones, in turns."""
    fresh = [make_bounded_case(SIZE, 1, 1000 * seed + number) for number in range(rounds * SECONDS)]
    known = make_bounded_case(SIZE, 1, seed)
    free = Arm.of(FREE, [known], tokenization)
    token_ms: dict[tuple[str, bool], list[float]] = {(arm, cold): [] for arm in ARMS for cold in (False, True)}
    first_ms: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for number in range(rounds):
        for name in ARMS:
            for cold in (False, True) if number % 2 else (True, False):
                cases = fresh[number * SECONDS :][:SECONDS] if cold else [known] * SECONDS
                arm = Arm.of(name, cases, tokenization)
                streams, calls = await _round(http, servers[arm.server], free, arm, f"{seed} {number}")
                times = [time_s * 1e3 for answer in streams if (time_s := answer.token_s) is not None]
                token_ms[name, cold].append(percentile(times, 0.5))
                if cold:
                    first_ms[name].append(percentile([call.first_s * 1e3 for call in calls], 0.5))
            advance(f"cold grammars, round {number + 1}, {name}")
    return [line for name in ARMS for line in _told(name, token_ms[name, False], token_ms[name, True], first_ms[name])]


def _told(name: str, warm: Sequence[float], cold: Sequence[float], first: Sequence[float]) -> list[Measurement]:
    case = f"one new {SIZE} grammar a second beside {STREAMS} streams"
    return [
        Measurement(case, name, "neighbours' token", "ms", *mean_interval(cold), len(cold)),
        Measurement(case, name, "its own first token p50", "ms", *mean_interval(first), len(first)),
        Measurement(case, name, "neighbours' token to beside known grammars", "x", *ratio_interval(cold, warm), len(cold)),
    ]


async def _round(
    http: aiohttp.ClientSession, server: Server, free: Arm, arm: Arm, seed: str
) -> tuple[list[Answer], list[Answer]]:
    """Streams one after the other for as long as calls are asked for, one a second; both kinds of answers."""
    numbers, done = count(), asyncio.Event()

    async def stream() -> list[Answer]:
        answers = []
        while not done.is_set():
            number = next(numbers)
            answers.append(await ask(http, server.url, free.request(server.model, number, seed), number))
        return answers

    async def call(number: int) -> Answer:
        await asyncio.sleep(0.5 + number)
        return await ask(http, server.url, arm.request(server.model, number, seed), number)

    async def calls() -> list[Answer]:
        try:
            return await asyncio.gather(*(call(number) for number in range(SECONDS)))
        finally:
            done.set()

    called, *streamed = await asyncio.gather(calls(), *(stream() for _ in range(STREAMS)))
    streams = [answer for answers in streamed for answer in answers]
    for answer in (*streams, *called):
        answer.read()
    return streams, called
