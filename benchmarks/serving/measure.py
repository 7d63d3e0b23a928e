"""Rounds of load over arms, sizes and numbers of clients, arms interleaved; and what is told of them.

In: servers that run. Out: measurements, each with a 95% interval over rounds: of a mean, of a share over all calls, or of a
ratio of paired rounds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import aiohttp

from benchmarks.results import Measurement
from benchmarks.serving.arms import ANY_SPELLING, FEW_DRAFTS, FREE, OURS, PEERS, UNDRAFTED, Arm
from benchmarks.serving.load import Answer, Load, RefusedError, closed_loop, open_loop
from benchmarks.serving.servers import Kind, Server
from benchmarks.statistics import mean_interval, percentile, ratio_interval, share_interval

Advance = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Way:
    """How load comes: from closed-loop `clients`, or `per_second` at random; `calls` of them a round."""

    calls: int
    clients: int | None = None
    per_second: float | None = None

    def __str__(self) -> str:
        if self.clients is None:
            return f"{self.per_second:g} calls/s at random"
        return f"{self.clients} client{'s' * (self.clients > 1)}"


@dataclass(frozen=True, slots=True)
class Cell:
    """A round of an arm: its answers, those that are invalid or cut off, and what its server counted."""

    answers: Sequence[Answer]
    elapsed_s: float
    invalid: int
    cut_off: int
    counted: Mapping[str, float]
    memory_bytes: int | None

    @property
    def calls_per_s(self) -> float:
        """Answers a second."""
        return len(self.answers) / self.elapsed_s

    @property
    def tokens(self) -> int:
        """Tokens of all answers."""
        return sum(answer.tokens for answer in self.answers)

    @property
    def gaps_ms(self) -> list[float]:
        """Times between the pieces of all answers."""
        return [gap_s * 1e3 for answer in self.answers for gap_s in answer.gaps_s] or [0.0]

    @property
    def token_ms(self) -> float:
        """Median time a token behind the first."""
        return percentile(self.token_times_ms, 0.5)

    @property
    def token_times_ms(self) -> list[float]:
        """Of each answer the mean time a token behind the first."""
        return [time_s * 1e3 for answer in self.answers if (time_s := answer.token_s) is not None]


async def run_cell(http: aiohttp.ClientSession, server: Server, arm: Arm, way: Way, seed: str) -> Cell:
    """One round of an arm."""

    def request(number: int) -> Mapping[str, object]:
        return arm.request(server.model, number, seed)

    before = await server.counters(http)
    load: Load
    try:
        if way.clients is not None:
            load = await closed_loop(http, server.url, request, way.clients, way.calls)
        else:
            assert way.per_second is not None
            load = await open_loop(http, server.url, request, way.per_second, way.calls, random.Random(seed).getrandbits(31))
    except RefusedError as error:
        raise RefusedError(f"{arm.name}, {way}: {error}") from error
    after = await server.counters(http)
    outcomes = [arm.judge(answer) for answer in load.answers]
    return Cell(
        load.answers,
        load.elapsed_s,
        sum(not outcome.valid and not outcome.cut_off for outcome in outcomes),
        sum(outcome.cut_off for outcome in outcomes),
        {name: value - before[name] for name, value in after.items() if name in before},
        server.memory_bytes(),
    )


async def measure_rounds(
    http: aiohttp.ClientSession,
    servers: Mapping[Kind, Server],
    arms: Sequence[Arm],
    ways: Sequence[Way],
    rounds: int,
    seed: str,
    advance: Advance,
    found: dict[tuple[Way, str], list[Cell]],
) -> None:
    """`rounds` of every arm in every way into `found`, the arms of a round in a random order, after one that warms up."""
    found |= {(way, arm.name): [] for way in ways for arm in arms}
    for arm in arms:
        await run_cell(http, servers[arm.server], arm, Way(2 * len(arm.turns), clients=4), f"{seed} warm-up")
    for number in range(rounds):
        for way in ways:
            for arm in random.Random(f"{seed} {number} {way}").sample(arms, len(arms)):
                found[way, arm.name].append(await run_cell(http, servers[arm.server], arm, way, f"{seed} {number}"))
                advance(f"round {number + 1}, {way}, {arm.name}")


def whole_rounds(found: Mapping[tuple[Way, str], Sequence[Cell]]) -> dict[tuple[Way, str], Sequence[Cell]]:
    """The rounds that every arm took part in, in every way; nothing where that is not two: there is no interval then."""
    rounds = min(map(len, found.values()), default=0)
    return {each: cells[:rounds] for each, cells in found.items()} if rounds > 1 else {}


def summarise(size: str, found: Mapping[tuple[Way, str], Sequence[Cell]]) -> Iterator[Measurement]:
    """What is told of every arm in every way, ratios last."""
    for (way, arm), cells in found.items():
        yield from _of_arm(f"{size}, {way}", arm, cells)
    for way in dict.fromkeys(way for way, _ in found if way.clients is not None):  # others' rates are those of arrivals
        cells_of = {arm: cells for (other, arm), cells in found.items() if other == way}
        yield from _ratios(f"{size}, {way}", cells_of)


def _of_arm(case: str, arm: str, cells: Sequence[Cell]) -> Iterator[Measurement]:
    calls = sum(len(cell.answers) for cell in cells)

    def mean(metric: str, unit: str, values: Sequence[float]) -> Measurement:
        return Measurement(case, arm, metric, unit, *mean_interval(values), len(values))

    def share(metric: str, count: float, total: float) -> Measurement:
        middle, low, high = (100 * value for value in share_interval(round(count), round(total)))
        return Measurement(case, arm, metric, "%", middle, low, high, round(total))

    yield mean("calls", "/s", [cell.calls_per_s for cell in cells])
    yield mean("output tokens", "/s", [cell.tokens / cell.elapsed_s for cell in cells])
    yield mean("tokens a call", "", [cell.tokens / len(cell.answers) for cell in cells])
    yield mean("first token p50", "ms", [percentile([a.first_s for a in cell.answers], 0.5) * 1e3 for cell in cells])
    yield mean("first token p99", "ms", [percentile([a.first_s for a in cell.answers], 0.99) * 1e3 for cell in cells])
    yield mean("a token p50", "ms", [cell.token_ms for cell in cells])
    yield mean("a token p99", "ms", [percentile(cell.token_times_ms, 0.99) for cell in cells])
    yield mean("wait for a piece p99", "ms", [percentile(cell.gaps_ms, 0.99) for cell in cells])
    if all(_counts(cell) for cell in cells):
        yield mean("passes a call", "", [_passes(cell) for cell in cells])
    if drafted := sum(cell.counted.get("drafted", 0) for cell in cells):
        yield share("drafts accepted", sum(cell.counted["accepted"] for cell in cells), drafted)
    yield share("invalid", sum(cell.invalid for cell in cells), calls)
    yield share("cut off", sum(cell.cut_off for cell in cells), calls)
    if memory := [cell.memory_bytes / 2**20 for cell in cells if cell.memory_bytes is not None]:
        yield mean("memory", "MiB", memory)


def _counts(cell: Cell) -> bool:
    """Whether a server counts, so that what it has no count of did not happen."""
    return "decoded" in cell.counted


def _passes(cell: Cell) -> float:
    """Forward passes that a call took part in: each gave it one token, and the drafts that were accepted.

    Behind a drafted end of text that was accepted there is no token of the pass's own: where there are drafts, each answer
    that ended by itself is counted as one of those, which is never too few.
    """
    accepted = cell.counted.get("accepted", 0)
    ended = sum(answer.reason != "length" for answer in cell.answers) if accepted else 0
    return (cell.tokens - accepted + ended) / len(cell.answers)


def _ratios(case: str, cells_of: Mapping[str, Sequence[Cell]]) -> Iterator[Measurement]:
    """Ours against the better of vLLM's backends and against no constraint, and ways of ours against ours, by rounds."""
    peers = [peer for peer in PEERS if peer in cells_of]
    for ours in (arm for arm in (UNDRAFTED, OURS) if arm in cells_of):
        if peers:
            better = max(peers, key=lambda peer: fmean(cell.calls_per_s for cell in cells_of[peer]))
            ratios: dict[str, Callable[[Cell], float]] = {"calls/s": lambda cell: cell.calls_per_s}
            if all(_counts(cell) for arm in (ours, better) for cell in cells_of[arm]):
                ratios["passes a call"] = _passes
            for what, value in ratios.items():
                pair = [[value(cell) for cell in cells_of[arm]] for arm in (ours, better)]
                yield Measurement(case, ours, f"{what} to {better}'s", "x", *ratio_interval(*pair), len(pair[0]))
        if FREE in cells_of and min(cell.token_ms for arm in (ours, FREE) for cell in cells_of[arm]) > 0:
            pair = [[cell.token_ms for cell in cells_of[arm]] for arm in (ours, FREE)]
            yield Measurement(case, ours, "a token to unconstrained", "x", *ratio_interval(*pair), len(pair[0]))
    for way in (arm for arm in (ANY_SPELLING, *FEW_DRAFTS) if arm in cells_of and OURS in cells_of):
        pair = [[cell.calls_per_s for cell in cells_of[arm]] for arm in (way, OURS)]
        yield Measurement(case, way, "calls/s to ours", "x", *ratio_interval(*pair), len(pair[0]))
