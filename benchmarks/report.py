"""A page on what was measured through servers: `docs/throughput.md`, from the newest results.

In: the CSVs of a folder. Out: tables, each with what was aimed at and whether its interval shows that it was reached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import host_report
from benchmarks.results import Measurement, read_csv, results_of
from benchmarks.serving.arms import ANY_SPELLING, ARMS, FEW_DRAFTS, OURS, PEERS, UNDRAFTED

PAGE = Path(__file__).parent.parent / "docs" / "throughput.md"
SIZES = ("small", "medium", "large")
TOLD = (
    ("calls", "/s", "calls/s"),
    ("tokens a call", "", "tokens a call"),
    ("passes a call", "", "passes a call"),
    ("first token p50", "ms", "first token, ms"),
    ("a token p50", "ms", "a token, ms"),
    ("wait for a piece p99", "ms", "wait p99, ms"),
    ("invalid", "%", "invalid, %"),
    ("cut off", "%", "cut off, %"),
    ("memory", "MiB", "memory, MiB"),
)
_INTRODUCTION = """\
# Throughput through a server

Written by `python -m benchmarks report` from the newest CSVs of `benchmarks/results`, which have every figure; do not edit it.
Measured by `python -m benchmarks serve`: servers of ours and vLLM's own, side by side on one machine, the model so small that
what is not the model shows. Arms take turns within each round, and ratios are those of one round, so that a machine that is
slower for a while is so for both. In brackets: the 95% interval over rounds.

An aim is *reached* where the whole interval lies on its side, *missed* where it lies on the other, else *not resolved*.

What the arms are: `unconstrained` writes as many tokens as a call has, of any kind; `vLLM xgrammar` and `vLLM guidance` get the
same grammar as ours, in their own language; `tool_choice=required` gets the tools alone, as strict ones, and puts white space
where it likes. xgrammar lets forced text be spelled by any tokens, of which a model of random weights takes more than a trained
one would.
"""


@dataclass(frozen=True, slots=True)
class Aim:
    """What a ratio is to be: at least, or at most, `bar`, for these numbers of clients (none: any)."""

    what: str
    arm: str
    metric: str
    bar: float
    is_least: bool
    clients: tuple[int, ...] = ()

    def verdict(self, found: Measurement) -> str:
        """Whether an interval shows that it was reached."""
        reached, missed = (found.low >= self.bar, found.high < self.bar)
        if not self.is_least:
            reached, missed = (found.high <= self.bar, found.low > self.bar)
        return "reached" if reached else "**missed**" if missed else "not resolved"


AIMS = (
    Aim("calls/s without drafts to the better peer's", UNDRAFTED, "calls/s to ", 1.0, True),
    Aim("time a token without drafts to unconstrained", UNDRAFTED, "a token to unconstrained", 1.03, False),
    Aim("calls/s to the better peer's", OURS, "calls/s to ", 2.0, True, (1, 8)),
    Aim("calls/s to the better peer's", OURS, "calls/s to ", 1.3, True, (32,)),
    Aim("calls/s to the better peer's", OURS, "calls/s to ", 1.0, True, (128,)),
    Aim("forward passes a call to the better peer's", OURS, "passes a call to ", 0.5, False),
)
COLD = Aim("neighbours' time a token", OURS, "neighbours' token to beside known grammars", 1.02, False)


def write_pages(folder: Path) -> list[Path]:
    """Write this page, that of the host, and the README's figures; returns the files."""
    PAGE.write_text(page(folder), encoding="utf-8")
    host_report.PAGE.write_text(host_report.page(folder), encoding="utf-8")
    readme = host_report.README
    readme.write_text(host_report.with_figures(readme.read_text(encoding="utf-8"), folder), encoding="utf-8")
    return [PAGE, host_report.PAGE, readme]


def page(folder: Path) -> str:
    """The page on the newest results of a folder, without what it has none of."""
    parts = [_INTRODUCTION]
    for kind, tell in SECTIONS.items():
        for file in results_of(folder, kind)[-1:]:
            parts += tell(*read_csv(file))
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _of_size(size: str, title: str, header: dict[str, str], measured: Sequence[Measurement]) -> Iterator[str]:
    measured = [each for each in measured if each.case.startswith(f"{size}, ")]
    yield f"## {title}\n\n{_told(header)}"
    lines = []
    for aim in AIMS:
        for each in measured:
            clients = _clients(each.case)
            if each.arm == aim.arm and each.metric.startswith(aim.metric) and clients in (aim.clients or (clients,)):
                sign = "≥" if aim.is_least else "≤"
                lines.append([aim.what, str(clients), f"{sign} {aim.bar:g}", _interval(each), aim.verdict(each)])
    yield _table(["aim", "clients", "is to be", "measured", ""], lines)
    yield _failures(measured)
    for case in dict.fromkeys(each.case for each in measured):
        yield f"{case.partition(', ')[2]}:\n\n" + _arms([each for each in measured if each.case == case])


def _failures(measured: Sequence[Measurement]) -> str:
    """How many outputs of each arm were invalid, or cut off, in all."""
    told = []
    for arm in (arm for arm in ARMS if any(each.arm == arm for each in measured)):
        shares = [each for each in measured if each.arm == arm and each.metric in ("invalid", "cut off")]
        failed = sum(round(each.middle * each.count / 100) for each in shares)
        told.append(f"{arm} {failed:,} of {sum(each.count for each in shares) // 2:,}")
    return f"Invalid or cut off, of all calls: {'; '.join(told)}."


def _arms(measured: Sequence[Measurement]) -> str:
    """A line for each arm, without the ratios."""
    found = {(each.arm, each.metric, each.unit): each for each in measured}
    lines = []
    for arm in (arm for arm in ARMS if any(each.arm == arm for each in measured)):
        values = [found.get((arm, metric, unit)) for metric, unit, _ in TOLD]
        lines.append([arm, *("–" if value is None else _number(value.middle) for value in values)])
    return _table(["arm", *(label for _, _, label in TOLD)], lines)


def _of_ways(header: dict[str, str], measured: Sequence[Measurement]) -> Iterator[str]:
    yield f"## Spelling, and how many drafts\n\n{_told(header)}"
    yield "Servers of ours that differ in one flag, held against the one with the defaults (canonical spelling, 16 drafts):"
    lines = []
    for each in measured:
        if each.arm in (ANY_SPELLING, *FEW_DRAFTS) and each.unit == "x":
            same = {(one.arm, one.metric): one for one in measured if one.case == each.case}
            passes, accepted = (same.get((each.arm, metric)) for metric in ("passes a call", "drafts accepted"))
            others = ["–" if one is None else _number(one.middle) for one in (passes, accepted)]
            lines.append([each.arm, str(_clients(each.case)), _interval(each), *others])
    yield _table(["server", "clients", "calls/s to the default's", "passes a call", "drafts accepted, %"], lines)


def _of_cold(header: dict[str, str], measured: Sequence[Measurement]) -> Iterator[str]:
    yield f"## Neighbours of grammars never seen\n\n{_told(header)}"
    yield f"{measured[0].case.capitalize()}; what is asked of ours is at most {COLD.bar:g} for the first column."
    lines = []
    for arm in (*PEERS, UNDRAFTED, OURS):
        found = {each.metric: each for each in measured if each.arm == arm}
        token = found[COLD.metric]
        verdict = COLD.verdict(token) if arm in (UNDRAFTED, OURS) else ""
        names = ("neighbours' wait p99 to beside known grammars", "neighbours' token", "its own first token p50")
        lines.append([arm, _interval(token), verdict, *(_interval(found[name]) for name in names)])
    labels = ["neighbours' time a token, to beside known", "", "their wait p99, to beside known", "their time a token, ms"]
    yield _table(["arm", *labels, "the new call's first token, ms"], lines)
    beside = [each for each in measured if each.metric.endswith("without drafts")]
    if beside:
        yield (
            "Streams without a constraint beside calls that are drafted, to beside calls that are not: "
            f"{_interval(beside[0])} of the time a token."
        )


def _of_growth(header: dict[str, str], measured: Sequence[Measurement]) -> Iterator[str]:
    yield f"## Growth\n\n{_told(header)}"
    yield "Milliseconds to the first token, one client; under a grammar that is new, and under one that is known."
    arms = list(dict.fromkeys(each.arm for each in measured))
    lines = []
    for case in dict.fromkeys(each.case for each in measured):
        cells = []
        for arm in arms:
            times = [e for e in measured if (e.case, e.arm) == (case, arm) and e.metric.startswith("first token")]
            cells.append(" / ".join(_number(each.middle) for each in times) or "–")
        lines.append([case, *cells])
    yield _table(["", *arms], lines)
    yield "Routines were each asked for once before, so that they are known; 40 of them were asked for again."
    if "left out" in header:
        yield f"Left out: {header['left out']}."


def _told(header: dict[str, str]) -> str:
    """Where figures come from."""
    versions = ", ".join(each for each in header["versions"].split(", ") if each.split()[0] not in ("numba", "numpy"))
    ended = f" It ended {header['ended']}." if "ended" in header else ""
    return f"{header['date']}, commit {header['commit']}, {header['processor']}; {versions}; {header['model']}.{ended}"


def _clients(case: str) -> int | None:
    """How many closed-loop clients a case has."""
    way = case.partition(", ")[2].split()
    return int(way[0]) if way[1].startswith("client") else None


def _interval(each: Measurement) -> str:
    return f"{_number(each.middle)} [{_number(each.low)}, {_number(each.high)}]"


def _number(value: float) -> str:
    """Four digits, or a whole number: what is near 1 is a ratio."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.{1 if abs(value) >= 10 else 2 if abs(value) >= 2 else 3}f}"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] + ["---:"] * (len(head) - 1), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


SECTIONS: Mapping[str, Callable[[dict[str, str], Sequence[Measurement]], Iterator[str]]] = {
    **{f"serve_{size}": partial(_of_size, size, f"{size.capitalize()} calls") for size in SIZES},
    "serve_131k_medium": partial(_of_size, "medium", "Medium calls, over a vocabulary of 131,072 tokens"),
    "serve_ways_medium": _of_ways,
    "serve_cold": _of_cold,
    "serve_growth": _of_growth,
}
