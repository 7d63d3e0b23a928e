"""`docs/compatibility.md`, made of what the tests with the mark `feature` said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "compatibility.md"
SEEN = pytest.StashKey[dict["Cell", bool]]()
HEAD = """# Compatibility

What a request under a Routine may use, by the dialect of the model's tool calls, streamed (S) and whole (W). This page is
written by the tests in [tests/serve/test_compatibility.py](../tests/serve/test_compatibility.py), which ask a real server of
each dialect by the official `openai` client: ✓ says that the test of that row passed there, ✗ that it failed.
`make compatibility` runs all of them and writes the page anew; `make test` runs those of {few}, and fails where this
page says anything else.

Each server is as crowded as one can be: an engine with room for few tokens, prompts in chunks, a cache of prefixes, a
reasoning parser, a LoRA adapter, and a chat template of its family's kind, from which the launcher tells the dialect. Every
call that comes back is held against the Routine's graph, its tool's schema and the live keys. The last two rows are of servers
of two front ends and two engines.

"""

Cell = tuple[str, str, str]


def cells_of(item: pytest.Item) -> list[Cell]:
    """The cells that a test backs: of its features, at its dialect and way."""
    params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    dialect = params.get("server") or params.get("scaled_out")
    if dialect is None:
        return []
    return [(name, str(dialect), str(params["way"])) for mark in item.iter_markers("feature") for name in mark.args]


def record(item: pytest.Item, report: pytest.TestReport) -> None:
    """Keep what a test said of its cells."""
    if report.when == "call" or report.failed:
        for cell in cells_of(item):
            seen = item.config.stash.setdefault(SEEN, {})
            seen[cell] = seen.get(cell, True) and report.passed


def page_of(seen: Mapping[Cell, bool], features: Iterable[str], dialects: Iterable[str], few: Iterable[str]) -> str:
    """The page."""
    dialects = list(dialects)
    lines = [f"| | {' | '.join(f'{dialect} {way[0].upper()}' for dialect in dialects for way in WAYS)} |"]
    lines.append("|---|" + ":-:|" * (len(dialects) * len(WAYS)))
    for name in features:
        marks = [seen.get((name, dialect, way)) for dialect in dialects for way in WAYS]
        lines.append(f"| {name} | {' | '.join('' if mark is None else '✓' if mark else '✗' for mark in marks)} |")
    return HEAD.format(few=" and ".join(few)) + "\n".join(lines) + "\n"


def read_page(page: str) -> dict[Cell, bool]:
    """What a page says."""
    listed = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    (_, *columns), _, *rows = listed
    places = [(dialect, "streamed" if way == "S" else "whole") for dialect, way in (column.split() for column in columns)]
    return {(name, *place): mark == "✓" for name, *marks in rows for place, mark in zip(places, marks, strict=True) if mark}


WAYS = ("streamed", "whole")
