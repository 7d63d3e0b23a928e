"""The command `python -m benchmarks serve`: its options, its servers, and the measurements in the order that they are told."""

from __future__ import annotations

import argparse
import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

from benchmarks.results import Measurement
from benchmarks.serving import cold, growth
from benchmarks.serving.arms import (
    ANY_SPELLING,
    ARMS,
    FEW_DRAFTS,
    FREE,
    GUIDANCE,
    MAX_TOKENS,
    REQUIRED,
    SERVER_OF,
    XGRAMMAR,
    Arm,
)
from benchmarks.serving.large_model import NAME, large_model_path
from benchmarks.serving.load import RefusedError, session
from benchmarks.serving.measure import Advance, Cell, Way, measure_rounds, summarise, whole_rounds
from benchmarks.serving.servers import MODEL, Kind, Server, started
from benchmarks.vocabularies import Tokenization, demo_tokenization, model_tokenization
from benchmarks.workload import SIZES, STRING_CHARS, make_bounded_case

__all__ = ["Options", "RefusedError", "add_options", "defaults", "describe", "measure", "options_of"]

TURNS = 4  # different turns of a size, asked for over and over
SAMPLES = 4
ROUNDS = 20
CALLS_A_CLIENT = 3
MOST_A_SECOND = 10_000

# What a part was called, what was measured in it, and what is to be said of it beside.
Tell = Callable[[str, Sequence[Measurement], Mapping[str, str]], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure. `url`: a server that runs already, which all arms ask; else servers are started here."""

    arms: tuple[str, ...] = ARMS
    sizes: tuple[str, ...] = tuple(SIZES)
    clients: tuple[int, ...] = (1, 8, 32, 128)
    rates: tuple[float, ...] = (4.0,)
    rounds: int = ROUNDS
    cold: int = 0
    growth: bool = False
    drafts: int | None = None
    url: str | None = None
    model: str = MODEL
    large: bool = False
    name: str = ""

    def ways(self) -> list[Way]:
        """Closed loops, then random arrivals."""
        closed = [Way(min(8 * clients, max(64, CALLS_A_CLIENT * clients)), clients=clients) for clients in self.clients]
        return closed + [Way(max(4, round(3 * rate)), per_second=rate) for rate in self.rates]

    def kinds(self) -> list[Kind]:
        """The kinds of servers that the arms need."""
        arms = [*self.arms, *(cold.ARMS if self.cold else ()), *(growth.ARMS if self.growth else ())]
        return list(dict.fromkeys(SERVER_OF[arm] for arm in arms))

    def steps(self) -> int:
        """How often progress is told."""
        rounds = self.rounds * len(self.arms) * len(self.sizes) * len(self.ways())
        return 1 + rounds + cold.steps(self.cold) + (growth.steps() if self.growth else 0)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to a parser."""
    defaults = Options()
    parser.add_argument("--arms", type=_names(SERVER_OF), default=defaults.arms, metavar="NAME,…", help=", ".join(SERVER_OF))
    parser.add_argument("--sizes", type=_names(SIZES), default=defaults.sizes, metavar="NAME,…", help=", ".join(SIZES))
    parser.add_argument("--clients", type=_numbers, default=defaults.clients, metavar="N,…", help="closed-loop clients")
    parser.add_argument("--rates", type=_rates, default=defaults.rates, metavar="R,…", help="calls a second at random")
    parser.add_argument("--rounds", type=int, default=defaults.rounds, help="rounds of every arm (default: %(default)s)")
    parser.add_argument("--cold", type=int, default=0, metavar="ROUNDS", help="also: neighbours of grammars never seen")
    parser.add_argument("--growth", action="store_true", help="also: up to 1,000 tools, 9,999 keys and 10,000 Routines")
    parser.add_argument("--drafts", type=int, metavar="K", help="drafts a pass of the drafted arm (default: the server's)")
    parser.add_argument(
        "--url",
        help="measure a server that runs, `http://…/v1`, instead of starting some: by default in the arms that any server has",
    )
    parser.add_argument("--model", default=defaults.model, help="the name of its model")
    parser.add_argument("--name", default="", help="in the names of the CSVs, of a run of other arms than the usual ones")
    parser.add_argument("--large", action="store_true", help="a model over a vocabulary of 131,072 tokens, not the demo's")


def defaults() -> dict[str, object]:
    """The options by default, by name."""
    return {name: getattr(Options(), name) for name in Options.__slots__}


def options_of(args: argparse.Namespace) -> Options:
    """The options that were given; `quick` has few of all.

    Raises `ValueError` for arms that one server that runs already can't tell apart, and where no round can be repeated.
    """
    options = Options(**{name: getattr(args, name) for name in Options.__slots__})
    if not re.fullmatch("[a-z0-9_]*", options.name):
        raise ValueError(f"--name {options.name!r}: expected small letters, digits and _")
    if options.rounds < 2:
        raise ValueError(f"--rounds {options.rounds}: there is no interval of fewer than 2")
    if not options.arms or (options.sizes and not options.ways()):
        raise ValueError("--arms, or --clients and --rates: there is nothing to measure")
    if options.url is not None:
        options = replace(options, url=options.url.rstrip("/"), arms=(FREE, REQUIRED) if options.arms == ARMS else options.arms)
        own = [arm for arm in options.arms if arm == ANY_SPELLING or arm in FEW_DRAFTS]
        alike = own or [arm for arm in options.arms if arm in (XGRAMMAR, GUIDANCE)]
        if options.cold or options.growth or options.drafts is not None or own or len(alike) > 1:
            told = " and ".join(alike) or "two"
            raise ValueError(f"--url: one server can't be measured with --cold, --growth or --drafts, or as {told}")
    if args.quick:
        return replace(options, sizes=options.sizes[:1], clients=options.clients[:2], rates=(), rounds=2)
    return options


def describe(options: Options) -> dict[str, str]:
    """What a run's header says of it."""
    asked = {"rounds": str(options.rounds)}
    if options.url is not None:
        asked |= {"model": options.model, "servers": "one that ran already"}
    else:
        drafts = "as many as by default" if options.drafts is None else str(options.drafts)
        asked |= {
            "model": f"{NAME if options.large else 'the demo model'}, random weights in float32, temperature 1, seeded",
            "servers": "vLLM's own, without our patches, for what is not ours; the model in the engine's process, one thread",
            "drafts": f"{drafts}, in tokens a request and pass",
        }
    return asked | {
        "grammars": f"{TURNS} turns of each size over and over; strings of at most {STRING_CHARS} characters, at most "
        f"{MAX_TOKENS} tokens a call",
        "numbers": "middle with a 95% interval from low to high over as many rounds as count says, ratios by pairs of one "
        "round, shares over all calls; growth: p50 with p20 and p80",
    }


def measure(options: Options, seed: int, advance: Advance, tell: Tell) -> None:
    """Measure all that is asked for, and tell of each part as it is done: of a size, cold grammars, growth.

    Of a size that is not measured to its end, the rounds are told that are whole. Raises `EngineError` where a server does not
    start, `RefusedError` where one refuses a request, `TimeoutError`.
    """
    tokenization = model_tokenization(NAME, large_model_path()) if options.large else demo_tokenization()
    asyncio.run(_measure(options, tokenization, seed, advance, tell))


async def _measure(options: Options, tokenization: Tokenization, seed: int, advance: Advance, tell: Tell) -> None:
    async with _servers(options) as servers, session() as http:
        advance("servers are up")
        for size in options.sizes:
            turns = [make_bounded_case(size, SAMPLES, seed + number) for number in range(TURNS)]
            arms = [Arm.of(name, turns, tokenization) for name in options.arms]
            found: dict[tuple[Way, str], list[Cell]] = {}
            done = partial(_advance, advance, size)
            try:
                await measure_rounds(http, servers, arms, options.ways(), options.rounds, f"{seed} {size}", done, found)
            finally:
                if whole := whole_rounds(found):
                    rounds = len(next(iter(whole.values())))
                    said = {} if rounds == options.rounds else {"ended": f"before its end, after {rounds} rounds"}
                    tell(size, list(summarise(size, whole)), said)
        if options.cold:
            tell("cold", await cold.measure_cold(http, servers, tokenization, options.cold, seed, advance), {})
        if options.growth:
            measured, left_out = await growth.measure_growth(http, servers, tokenization, seed, advance)
            tell("growth", measured, {"left out": "; ".join(left_out)} if left_out else {})


def _advance(advance: Advance, size: str, done: str) -> None:
    advance(f"{size}, {done}")


@asynccontextmanager
async def _servers(options: Options) -> AsyncIterator[Mapping[Kind, Server]]:
    if options.url is not None:
        yield {kind: Server(options.url, options.model) for kind in options.kinds()}
        return
    model = large_model_path() if options.large else None
    async with started(options.kinds(), model, options.drafts) as servers:
        yield servers


def _names(known: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    def names(text: str) -> tuple[str, ...]:
        given = tuple(dict.fromkeys(name for name in text.split(",") if name))
        if unknown := [name for name in given if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return given

    return names


def _numbers(text: str) -> tuple[int, ...]:
    numbers = dict.fromkeys(int(number) for number in text.split(",") if number)
    if any(number < 1 for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r}: expected numbers of clients above 0")
    return tuple(numbers)


def _rates(text: str) -> tuple[float, ...]:
    rates = dict.fromkeys(float(number) for number in text.split(",") if number)
    if not all(0 < rate <= MOST_A_SECOND for rate in rates):
        raise argparse.ArgumentTypeError(f"{text!r}: expected calls a second above 0, at most {MOST_A_SECOND}")
    return tuple(rates)
