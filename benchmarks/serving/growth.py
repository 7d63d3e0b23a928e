"""What a call costs as things grow: tools of a turn, live keys, and Routines that take turns.

Calls of one client, one after the other: the first call under a grammar, and a later one; of Routines, after each was asked for
once. In: servers that run. Out:
measurements; an arm that refuses a size, or takes longer than a bound, is left out from there on, and named.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import aiohttp

from benchmarks.results import Measurement, quantiles
from benchmarks.serving.arms import GUIDANCE, OURS, XGRAMMAR, Arm
from benchmarks.serving.load import RefusedError, ask, closed_loop
from benchmarks.serving.measure import Advance
from benchmarks.serving.servers import Kind, Server
from benchmarks.vocabularies import Tokenization
from benchmarks.workload import Case, Size, make_bounded_case
from routine_grammar.api import Grammar
from routine_grammar.grammar import tree

ARMS = (XGRAMMAR, GUIDANCE, OURS)
TOOLS = (1, 10, 100, 1_000)
KEYS = (1, 10, 100, 1_000, 9_999)  # and the result of the call: the bound on live keys
ROUTINES = (1, 10, 100, 1_000, 10_000)
NEW = 4  # grammars of each number of tools and keys
CLIENTS = 32  # that ask for every Routine once
ASKED = 40  # calls of Routines drawn from all of them
MOST_S = {"tools": 60.0, "keys": 60.0, "Routines": 900.0}


@dataclass(frozen=True, slots=True)
class Point:
    """A size on one of the axes, with the grammars that calls are asked under, in order."""

    axis: str
    number: int
    cases: Sequence[Case]


def points(seed: int) -> Iterator[Point]:
    """All sizes, one axis after the other."""
    for tools in TOOLS:
        size = Size(tools, (3, 6), 8)
        yield Point("tools", tools, [make_bounded_case(size, 1, seed + n) for n in range(NEW)])
    for keys in KEYS:
        size = Size(3, (4, 4), keys)
        yield Point("keys", keys, [make_bounded_case(size, 1, seed + n) for n in range(NEW)])
    model = make_bounded_case("small", 1, seed)
    for routines in ROUTINES:
        yield Point("Routines", routines, [_renamed(model, number) for number in range(routines)])


def _renamed(case: Case, number: int) -> Case:
    """The case with a tool of another name: a grammar that no server has seen."""
    (tool,) = case.tools
    name = tool["function"]["name"]

    def renamed(node: tree.Node) -> tree.Node:
        match node:
            case tree.Literal(text):
                return tree.Literal(text.replace(f'"{name}"', f'"{name}_{number}"'))
            case tree.Sequence(parts):
                return tree.Sequence(tuple(map(renamed, parts)))
            case _:
                return node

    rules = {rule: renamed(body) for rule, body in case.grammar.tree.rules.items()}
    return Case(case.name, Grammar(tree.Grammar(case.grammar.tree.root, rules)), case.samples, ())


def steps() -> int:
    """How often progress is told."""
    return len(ARMS) * (len(TOOLS) + len(KEYS) + len(ROUTINES))


async def measure_growth(
    http: aiohttp.ClientSession, servers: Mapping[Kind, Server], tokenization: Tokenization, seed: int, advance: Advance
) -> tuple[list[Measurement], list[str]]:
    """Every size under every arm; and what was left out, and why."""
    measured: list[Measurement] = []
    left_out: list[str] = []
    given_up: set[tuple[str, str]] = set()
    for point in points(seed):
        for name in ARMS:
            if (point.axis, name) not in given_up:
                try:
                    async with asyncio.timeout(MOST_S[point.axis]):
                        measured += await _at(http, servers, name, point, tokenization)
                except TimeoutError:
                    why = f"takes more than {MOST_S[point.axis]:g} s"
                except RefusedError as error:
                    why = f"refused: {' '.join(str(error).split())[:160]}"
                else:
                    why = ""
                if why:
                    given_up.add((point.axis, name))
                    left_out.append(f"{name} from {point.number} {point.axis} on ({why})")
            advance(f"growth, {point.number} {point.axis}, {name}")
    return measured, left_out


async def _at(
    http: aiohttp.ClientSession, servers: Mapping[Kind, Server], name: str, point: Point, tokenization: Tokenization
) -> list[Measurement]:
    arm = Arm.of(name, point.cases, tokenization)
    server = servers[arm.server]

    async def first_ms(number: int, seed: str) -> float:
        answer = await ask(http, server.url, arm.request(server.model, number, seed), number)
        answer.read()
        return answer.first_s * 1e3

    case = f"{point.number} {point.axis}"
    asked = range(len(point.cases))
    if point.axis == "Routines":
        every = partial(arm.request, server.model, seed="all")
        await closed_loop(http, server.url, every, CLIENTS, point.number, MOST_S[point.axis])
        drawn = random.Random(point.number).choices(asked, k=ASKED)
        memory = server.memory_bytes()
        told = [quantiles(case, name, "first token", "ms", [await first_ms(number, "again") for number in drawn])]
        return told + ([quantiles(case, name, "memory", "MiB", [memory / 2**20])] if memory is not None else [])
    new = [await first_ms(number, "new") for number in asked]
    known = [await first_ms(number, f"known {again}") for again in range(3) for number in asked]
    return [
        quantiles(case, name, "first token, new grammar", "ms", new),
        quantiles(case, name, "first token, known grammar", "ms", known),
    ]
