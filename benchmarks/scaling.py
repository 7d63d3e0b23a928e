"""How cost grows on the host: with tools, parameters, live keys, the bound of a string, and the vocabulary.

Each point is one grammar, compiled and followed over one call by each arm; strings are plain, which is what peers read fastest.
Out: measurements; an arm that refuses a size, or takes longer than a bound, is left out from there on, and named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.arms import Arm, GuidanceArm, OurArm, XgrammarArm
from benchmarks.compile_and_mask import Times, time_call
from benchmarks.results import Measurement, quantiles
from benchmarks.vocabularies import Tokenization, sized_tokenization
from benchmarks.workload import Case, Size, make_case
from routine_grammar.api import compile_schema
from routine_grammar.errors import GrammarError

AXES = ("tools", "parameters", "keys", "characters", "tokens")
TOOLS = (1, 3, 10, 30, 100, 300, 1_000)
PARAMETERS = (1, 3, 10, 30, 100)
KEYS = (1, 10, 100, 1_000, 9_999)
CHARACTERS = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
TOKENS = (32_768, 65_536, 131_072, 262_144)
MOST_S = 10.0  # of one call
FIRST_MASK, CALL, MEMORY = "text to first mask", "whole call", "memory behind a call"


@dataclass(frozen=True, slots=True)
class Point:
    """A size on one of the axes."""

    axis: str
    number: int
    case: Case
    tokenization: Tokenization


def points(tokenization: Tokenization, *, quick: bool) -> Iterator[Point]:
    """All sizes, one axis after the other; few where it has to be quick."""

    def some(numbers: Sequence[int]) -> Sequence[int]:
        return numbers[:2] if quick else numbers

    for tools in some(TOOLS):
        yield Point("tools", tools, _plain(Size(tools, (3, 6), 8)), tokenization)
    for parameters in some(PARAMETERS):
        yield Point("parameters", parameters, _plain(Size(3, (parameters, parameters), 8)), tokenization)
    for keys in some(KEYS):
        yield Point("keys", keys, _plain(Size(3, (4, 4), keys)), tokenization)
    for characters in some(CHARACTERS):
        yield Point("characters", characters, _bounded(characters), tokenization)
    for tokens in () if quick else TOKENS:
        yield Point("tokens", tokens, _plain(Size(3, (4, 4), 8)), sized_tokenization(tokens))


def _plain(size: Size) -> Case:
    case = make_case(size, 1)
    return case.plain(case.name)


def _bounded(characters: int) -> Case:
    """A string of at most so many characters."""
    schema = {"type": "object", "properties": {"text": {"type": "string", "maxLength": characters}}, "required": ["text"]}
    return Case(f"{characters} characters", compile_schema(schema), ('{"text": "a few words"}'[: 10 + characters],), ())


def count_steps(tokenization: Tokenization, *, quick: bool) -> int:
    """How often `measure` reports."""
    return sum(1 for _ in points(tokenization, quick=quick))


def measure(
    tokenization: Tokenization, rounds: int, advance: Callable[[str], None], *, quick: bool
) -> tuple[list[Measurement], list[str]]:
    """Every size under every arm, arms in turn; and what was left out, and why."""
    measured: list[Measurement] = []
    left_out: dict[tuple[str, str], str] = {}
    arms: list[Arm] = []
    made_for: Tokenization | None = None
    for point in points(tokenization, quick=quick):
        if point.tokenization is not made_for:
            made_for, arms = point.tokenization, [make(point.tokenization) for make in (OurArm, GuidanceArm, XgrammarArm)]
        times: dict[str, list[Times]] = {}
        for number in range(-1, rounds):  # the first round warms up
            for arm in arms:
                if (point.axis, arm.name) in left_out:
                    continue
                told = _time(arm, point, times.setdefault(arm.name, []), is_counted=number >= 0)
                if told:
                    left_out[point.axis, arm.name] = f"{arm.name} from {point.number:,} {point.axis} on ({told})"
        for name, found in times.items():
            if found and (point.axis, name) not in left_out:
                measured += _summarise(f"{point.number} {point.axis}", name, found)
        advance(f"{point.number} {point.axis}")
    return measured, list(left_out.values())


def _time(arm: Arm, point: Point, times: list[Times], *, is_counted: bool) -> str:
    """Time a call; why it can't be, if it can't."""
    try:
        text = arm.text(point.case)
        took = time_call(arm, text, point.tokenization.encode(point.case.samples[0]))
    except (GrammarError, ValueError, RuntimeError, AssertionError) as error:
        return f"refused: {' '.join(str(error).split())[:100]}"
    if took.whole_s > MOST_S:
        return f"a call takes {took.whole_s:.0f} s"
    if is_counted:
        times.append(took)
    return ""


def _summarise(case: str, arm: str, times: Sequence[Times]) -> list[Measurement]:
    found = [
        quantiles(case, arm, FIRST_MASK, "ms", (each.first_mask_s * 1e3 for each in times)),
        quantiles(case, arm, CALL, "ms", (each.whole_s * 1e3 for each in times)),
    ]
    if all(each.nbytes for each in times):
        found.append(quantiles(case, arm, MEMORY, "KiB", (each.nbytes / 1024 for each in times)))
    return found
