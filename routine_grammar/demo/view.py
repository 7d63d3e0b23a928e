"""The demo's screen: one block a turn, a line while something is waited for, a summary. What tools said is never markup."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status
from rich.text import Text

from routine_grammar.agent.execution import Finished, TurnTaken
from routine_grammar.agent.tools import ToolResult
from routine_grammar.routine import Routine, header_of
from routine_grammar.routine.positions import place_name

WIDTH = 100
RESULT_LINES = 6
ROWS = 3
LINE_EVERY_S = 10.0
_LABEL_WIDTH = 10


def make_console() -> Console:
    """A console on standard output: as wide as the terminal up to 120 columns, 100 columns where there is none."""
    console = Console(highlight=False, soft_wrap=False)
    console.width = min(console.width, 120) if console.is_terminal else WIDTH
    return console


class Waiting:
    """Shows that something takes its time: a line that moves on a terminal, elsewhere a new line every few seconds."""

    def __init__(self, console: Console, what: str) -> None:
        self._console = console
        self._what = what
        self._status: Status | None = None
        self._said_s = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status = self._console.status(Text(self._what))
            self._status.start()
        else:
            self._console.print(Text(f"{self._what} …"))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._status is not None:
            self._status.stop()

    def update(self, elapsed_s: float, detail: str = "") -> None:
        """Tell how long it has taken, and what the last news is."""
        line = one_line(f"{self._what}, {elapsed_s:.0f} s" + (f": {detail}" if detail else ""), self._console.width - 4)
        if self._status is not None:
            self._status.update(Text(line))
        elif elapsed_s - self._said_s >= LINE_EVERY_S:
            self._said_s = elapsed_s
            self._console.print(Text(line))


def show_beginning(console: Console, routine: Routine, mode: str) -> None:
    """Print what is about to run."""
    console.print()
    console.print(Text(f"{routine.name}: {routine.description}", style="bold"))
    console.print(Text(mode))


def show_turn(console: Console, turn: TurnTaken, forced: int | None) -> None:
    """Print one turn; `forced`: how many of its tokens could not have been others, None where that is not known."""
    options = [*turn.permitted, *(["a final answer"] if turn.may_end else [])]
    width = console.width - _LABEL_WIDTH
    console.print()
    console.print(Text(f"Turn {turn.number}, after {place_name(turn.position)}", style="bold cyan"))
    _show_row(console, "may come", [" or ".join(options)])
    _show_row(console, "keys", _keys(turn))
    said = turn.content.strip().splitlines()
    for made in turn.calls:
        written = [*said, f"{made.call.name} {made.call.text}"]
        _show_row(console, "decoded", [row for line in written for row in wrapped(line, width)], style="green")
        _show_row(console, "step", [f"{header_of(made.step.id)}. {made.step.name}"])
        if made.arguments != made.decoded:
            _show_row(console, "called", wrapped(f"{made.call.name} {_json(made.arguments)}", width))
        _show_row(console, "result", _result_rows(made.result, width), style="red" if made.result.is_error else "")
        said = []
    if turn.token_ids:
        _show_row(console, "tokens", [share(len(turn.token_ids), forced)])


def show_end(
    console: Console, turns: Sequence[TurnTaken], finished: Finished, forced: Sequence[int | None], took_s: float
) -> None:
    """Print the answer, if there is one, and a line that sums up the run."""
    console.print()
    if finished.answer:
        _show_row(console, "answer", finished.answer.strip().splitlines()[:RESULT_LINES])
        console.print()
    tokens = sum(len(turn.token_ids) for turn in turns)
    known = [count for count in forced if count is not None]
    counted = f", {share(tokens, sum(known) if len(known) == len(turns) else None)}" if tokens else ""
    console.print(Text(f"Done: {finished.turns} turns, every call valid{counted}, {took_s:.1f} s", style="bold"))


def share(tokens: int, forced: int | None) -> str:
    """Tell how many tokens there were and how many of them were forced."""
    if forced is None or not tokens:
        return f"{tokens} tokens"
    return f"{tokens} tokens, {forced} of them forced ({100 * forced / tokens:.0f} %)"


def one_line(text: str, width: int) -> str:
    """The text as one line of printable characters, cut to `width` columns."""
    flat = "".join(character if character.isprintable() else " " for character in text)
    cut = Text(flat)
    cut.truncate(max(width, 1), overflow="ellipsis")
    return cut.plain


def wrapped(line: str, width: int) -> list[str]:
    """A line in at most `ROWS` rows of `width` characters, broken between words where it can be."""
    flat = "".join(character if character.isprintable() else " " for character in line[: width * (ROWS + 1)])
    return textwrap.wrap(flat, width, max_lines=ROWS, placeholder="…") or [""]


def _show_row(console: Console, label: str, rows: Iterable[str], style: str = "") -> None:
    """Print rows behind a label, each cut to what the console has room for."""
    for place, row in enumerate(rows):
        shown = one_line(row, console.width - _LABEL_WIDTH)
        console.print(Text.assemble((("" if place else label).ljust(_LABEL_WIDTH), "dim"), (shown, style)))


def _keys(turn: TurnTaken) -> list[str]:
    longest = max((len(key.name) for key in turn.live_keys), default=0)
    return [f"{key.name.ljust(longest)}  {key.preview}" for key in turn.live_keys] or ["none"]


def _result_rows(result: ToolResult, width: int) -> list[str]:
    if result.structured is not None:
        return wrapped(_json(result.structured), width)
    lines = [line for line in result.text.splitlines() if line.strip()] or ["(empty)"]
    more = len(lines) - RESULT_LINES
    return lines[:RESULT_LINES] + ([f"… and {more} more line{'s' if more > 1 else ''}"] if more > 0 else [])


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
