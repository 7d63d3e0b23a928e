"""Text on a terminal or in a log: rows behind labels, a line while something is waited for. What tools said is never markup."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status
from rich.text import Text

WIDTH = 100
RESULT_LINES = 6
ROWS = 3
LINE_EVERY_S = 10.0
LABEL_WIDTH = 10


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


def show_row(console: Console, label: str, rows: Iterable[str], style: str = "") -> None:
    """Print rows behind a label, each cut to what the console has room for."""
    for place, row in enumerate(rows):
        shown = one_line(row, console.width - LABEL_WIDTH)
        console.print(Text.assemble((("" if place else label).ljust(LABEL_WIDTH), "dim"), (shown, style)))


def first_lines(text: str) -> list[str]:
    """The first lines of a text that are not empty, and how many more there are."""
    lines = [line for line in text.splitlines() if line.strip()] or ["(empty)"]
    more = len(lines) - RESULT_LINES
    return lines[:RESULT_LINES] + ([f"… and {more} more line{'s' if more > 1 else ''}"] if more > 0 else [])
