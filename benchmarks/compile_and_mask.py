"""Compile and mask times of every arm, one thread, arms interleaved; all arms must agree before anything is timed.

In: a vocabulary and the cases. Out: measurements, each the median over rounds (or calls) with p20 and p80.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.arms import (
    LLGUIDANCE,
    OURS,
    OURS_COLD,
    OURS_LARK,
    OURS_TREE,
    XGRAMMAR,
    Arm,
    Following,
    GuidanceArm,
    allows,
    make_arms,
)
from benchmarks.results import Measurement, quantiles
from benchmarks.vocabularies import Tokenization
from benchmarks.workload import Case

if TYPE_CHECKING:
    from benchmarks.newest import NewestPeers

POSITIONS_CHECKED = 400  # a case
LONG_S = 0.5  # of a compile: such a grammar is compiled once a round, and not for every sample

Advance = Callable[[str], None]
_STATISTICS: Mapping[str, Callable[[list[float]], float]] = {
    "mean": fmean,
    "p50": lambda values: float(np.percentile(values, 50)),
    "p99": lambda values: float(np.percentile(values, 99)),
}


class DisagreementError(Exception):
    """Two arms don't mean the same: nothing is timed."""


@dataclass
class Times:
    """Seconds of one call: of the compile, of every mask and every accepted token, of all of it."""

    compile_s: float = 0.0
    start_s: float = 0.0  # until the first mask may be asked for
    first_mask_s: float = 0.0  # from the grammar's text on
    whole_s: float = 0.0
    masks_s: list[float] = field(default_factory=list)
    accepts_s: list[float] = field(default_factory=list)
    warm_masks_s: list[float] = field(default_factory=list)
    warm_accepts_s: list[float] = field(default_factory=list)
    nbytes: int = 0  # of the compiled grammar behind the call

    @property
    def masks_in_all_s(self) -> float:
        """Of all masks of the call."""
        return sum(self.masks_s)

    @property
    def accepts_in_all_s(self) -> float:
        """Of all tokens taken in the call."""
        return sum(self.accepts_s)


def measure(
    tokenization: Tokenization,
    cases: Sequence[Case],
    rounds: int,
    advance: Advance,
    newest: NewestPeers | None = None,
) -> list[Measurement]:
    """Check all arms against each other, then time them.

    `newest` are peers in a process of their own, which takes its turn in every round. `advance` is told what was done,
    `count_steps` times. Raises `DisagreementError` where an arm refuses a sample, allows an invalid text, or has other rows
    than the rest.
    """
    arms = make_arms(tokenization)
    tokens = {case.name: [tokenization.encode(text) for text in case.samples] for case in cases}
    for case in cases:
        check_case(case, arms, tokenization)
        if newest is not None:
            newest.check(case)
        advance(f"checked {case.name}")
    times: dict[tuple[str, str], list[list[Times]]] = {}
    for number in range(-1, rounds):  # the first round warms up
        for case in cases:
            parts = [measure_round(case, arms, tokens[case.name], number)]
            if newest is not None:
                parts.insert(number % 2, newest.measure_round(case, number))
            for arm, found in (line for part in parts for line in part.items()):
                if number >= 0:
                    times.setdefault((case.name, arm), []).append(found)
            advance(f"{case.name}, {'warm-up' if number < 0 else f'round {number + 1}'}")
    order = {case.name: place for place, case in enumerate(cases)}
    lines = sorted(times.items(), key=lambda line: order[line[0][0]])
    return [measurement for (case, arm), found in lines for measurement in summarise(case, arm, found)]


def count_steps(cases: Sequence[Case], rounds: int) -> int:
    """How often `measure` reports."""
    return len(cases) * (rounds + 2)


def measure_round(case: Case, arms: Sequence[Arm], tokens: Sequence[Sequence[int]], seed: int) -> dict[str, list[Times]]:
    """Time every sample of a case under every arm, the arms in a random order for every sample."""
    return measure_texts({arm.name: arm.text(case) for arm in arms}, arms, tokens, seed)


def measure_texts(
    texts: Mapping[str, Any], arms: Sequence[Arm], tokens: Sequence[Sequence[int]], seed: int
) -> dict[str, list[Times]]:
    """As `measure_round`, with the grammar as each arm reads it. An arm that takes long to compile it does so once a round."""
    rng = random.Random(seed)
    found: dict[str, list[Times]] = {arm.name: [] for arm in arms}
    for sample in tokens:
        for arm in rng.sample(arms, len(arms)):
            if not found[arm.name] or found[arm.name][-1].compile_s < LONG_S:
                found[arm.name].append(time_call(arm, texts[arm.name], sample))
    return found


def time_call(arm: Arm, text: Any, tokens: Sequence[int]) -> Times:
    """Compile a grammar and follow one sequence, then follow it again over what is computed by now."""
    times = Times()
    begin = perf_counter()
    compiled = arm.compile(text)
    times.compile_s = perf_counter() - begin
    following = compiled.start()
    before_masks_s = perf_counter() - begin
    times.start_s = before_masks_s - times.compile_s
    _follow(following, tokens, times.masks_s, times.accepts_s)
    times.whole_s = perf_counter() - begin
    times.first_mask_s = before_masks_s + times.masks_s[0]
    times.nbytes = compiled.nbytes
    _follow(compiled.start(), tokens, times.warm_masks_s, times.warm_accepts_s)
    return times


def _follow(following: Following, tokens: Sequence[int], masks_s: list[float], accepts_s: list[float]) -> None:
    for token in tokens:
        begin = perf_counter()
        following.fill()
        filled = perf_counter()
        accepted = following.accept(token)
        accepts_s.append(perf_counter() - filled)
        masks_s.append(filled - begin)
        assert accepted


def summarise(case: str, arm: str, rounds: Sequence[Sequence[Times]]) -> list[Measurement]:
    """What is told of an arm in a case: times of calls over all calls, times of tokens by round."""
    calls = [times for found in rounds for times in found]

    def of_calls(metric: str, name: str) -> Measurement:
        return quantiles(case, arm, metric, "ms", (getattr(times, name) * 1e3 for times in calls))

    def of_tokens(metric: str, name: str, statistic: Callable[[list[float]], float]) -> Measurement:
        joined = [[value for times in found for value in getattr(times, name)] for found in rounds]
        return quantiles(case, arm, metric, "µs", (statistic(values) * 1e6 for values in joined))

    measurements = [of_calls("compile", "compile_s"), of_calls("text to first mask", "first_mask_s")]
    if arm not in (OURS_COLD, OURS_TREE, OURS_LARK):  # they differ from ours in how the automaton comes to be
        parts = {"first state": "start_s", "masks": "masks_in_all_s", "tokens taken": "accepts_in_all_s"}
        measurements += [of_calls(f"of a call: {what}", name) for what, name in parts.items()]
        if all(times.nbytes for times in calls):
            measurements.append(quantiles(case, arm, "memory behind a call", "KiB", (times.nbytes / 1024 for times in calls)))
        for lead, masks, accepts in (("", "masks_s", "accepts_s"), ("warm ", "warm_masks_s", "warm_accepts_s")):
            measurements += [of_tokens(f"{lead}mask {name}", masks, statistic) for name, statistic in _STATISTICS.items()]
            measurements.append(of_tokens(f"{lead}accept mean", accepts, fmean))
    return [*measurements, of_calls("whole call", "whole_s")]


def check_case(case: Case, arms: Sequence[Arm], tokenization: Tokenization) -> None:
    """Refuse to time arms that differ: in what they accept, or in a row along a sample.

    llguidance's rows are compared as it makes them without forcing; xgrammar's, and those from Lark text, only in a vocabulary
    where every marker is spelled in bytes, since their texts read a marker's token and its spelling alike.
    """
    compiled = {arm.name: arm.compile(arm.text(case)) for arm in arms}
    for text, expected in [*((text, True) for text in case.samples), *((text, False) for text in case.invalid)]:
        tokens = tokenization.encode(text)
        for name, grammar in compiled.items():
            if allows(grammar.start(), tokens) is not expected:
                raise DisagreementError(f"case {case.name}: {name} {'refuses' if expected else 'allows'} {text!r}")
    if LLGUIDANCE in compiled:
        unforced = GuidanceArm(tokenization, forcing=False)
        compiled[LLGUIDANCE] = unforced.compile(unforced.text(case))
    if tokenization.vocabulary.special:
        for name in (XGRAMMAR, OURS_LARK):
            compiled.pop(name, None)
    checked = 0
    for text in case.samples:
        if checked >= POSITIONS_CHECKED:
            break
        tokens = tokenization.encode(text)
        checked += len(tokens)
        _check_rows(case, {name: grammar.start() for name, grammar in compiled.items()}, tokens)


def _check_rows(case: Case, following: Mapping[str, Following], tokens: Sequence[int]) -> None:
    for place, token in enumerate(tokens):
        rows = {}
        for name, sequence in following.items():
            sequence.fill()
            rows[name] = sequence.row.copy()
            sequence.accept(token)
        for name, row in rows.items():
            if not np.array_equal(row, rows[OURS]):
                differ = np.flatnonzero(np.unpackbits((row ^ rows[OURS]).view(np.uint8), bitorder="little"))
                raise DisagreementError(
                    f"case {case.name}, token {place} of a sample: {name} and {OURS} differ in {len(differ)} tokens, "
                    f"the first being {differ[0]}"
                )
