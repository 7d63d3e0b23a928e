"""What neighbours pay for grammars that a server never saw: one a second, beside eight streams without a constraint.

The same streams beside a call of the same size under a grammar that is known by now are what they are held against, round by
round. In: servers that run. Out: measurements.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
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
    wait_ms: dict[tuple[str, bool], list[float]] = {each: [] for each in token_ms}
    first_ms: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for number in range(rounds):
        for name in random.Random(f"{seed} {number}").sample(ARMS, len(ARMS)):
            for cold in (False, True) if number % 2 else (True, False):
                cases = fresh[number * SECONDS :][:SECONDS] if cold else [known] * SECONDS
                arm = Arm.of(name, cases, tokenization)
                streams, calls = await _round(http, servers[arm.server], free, arm, f"{seed} {number}")
                spent_s = sum(answer.last_s - answer.first_s for answer in streams)
                token_ms[name, cold].append(1e3 * spent_s / sum(answer.tokens - 1 for answer in streams))
                wait_ms[name, cold].append(1e3 * percentile([gap for answer in streams for gap in answer.gaps_s], 0.99))
                if cold:
                    first_ms[name].append(percentile([call.first_s * 1e3 for call in calls], 0.5))
            advance(f"cold grammars, round {number + 1}, {name}")
    case = f"one new {SIZE} grammar a second beside {STREAMS} streams"
    told = []
    for name in ARMS:
        told += [
            Measurement(case, name, metric, "ms", *mean_interval(values), len(values))
            for metric, values in (
                ("neighbours' token", token_ms[name, True]),
                ("neighbours' wait for a piece p99", wait_ms[name, True]),
                ("its own first token p50", first_ms[name]),
            )
        ]
        for metric, of in (("neighbours' token", token_ms), ("neighbours' wait p99", wait_ms)):
            pair = of[name, True], of[name, False]
            told.append(
                Measurement(case, name, f"{metric} to beside known grammars", "x", *ratio_interval(*pair), len(pair[0]))
            )
    pair = token_ms[OURS, False], token_ms[UNDRAFTED, False]
    beside = "neighbours' token to beside known grammars without drafts"
    return [*told, Measurement(case, OURS, beside, "x", *ratio_interval(*pair), rounds)]


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
