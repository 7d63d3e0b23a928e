"""The demo's screen: one block a turn, a line while something is waited for, a summary. What tools said is never markup."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from routine_grammar.agent.execution import Finished, TurnTaken
from routine_grammar.agent.tools import ToolResult
from routine_grammar.console import LABEL_WIDTH, RESULT_LINES, first_lines, show_row, wrapped
from routine_grammar.routine import Routine, header_of
from routine_grammar.routine.positions import place_name


def show_beginning(console: Console, routine: Routine, mode: str) -> None:
    """Print what is about to run."""
    console.print()
    console.print(Text(f"{routine.name}: {routine.description}", style="bold"))
    console.print(Text(mode))


def show_turn(console: Console, turn: TurnTaken, forced: int | None) -> None:
    """Print one turn; `forced`: how many of its tokens could not have been others, None where that is not known."""
    options = [*turn.permitted, *(["a final answer"] if turn.may_end else [])]
    width = console.width - LABEL_WIDTH
    console.print()
    console.print(Text(f"Turn {turn.number}, after {place_name(turn.position)}", style="bold cyan"))
    show_row(console, "may come", [" or ".join(options)])
    show_row(console, "keys", _keys(turn))
    said = turn.content.strip().splitlines()
    for made in turn.calls:
        written = [*said, f"{made.call.name} {made.call.text}"]
        show_row(console, "decoded", [row for line in written for row in wrapped(line, width)], style="green")
        show_row(console, "step", [f"{header_of(made.step.id)}. {made.step.name}"])
        if made.arguments != made.decoded:
            show_row(console, "called", wrapped(f"{made.call.name} {_json(made.arguments)}", width))
        show_row(console, "result", _result_rows(made.result, width), style="red" if made.result.is_error else "")
        said = []
    if turn.token_ids:
        show_row(console, "tokens", [share(len(turn.token_ids), forced)])


def show_end(
    console: Console, turns: Sequence[TurnTaken], finished: Finished, forced: Sequence[int | None], took_s: float
) -> None:
    """Print the answer, if there is one, and a line that sums up the run."""
    console.print()
    if finished.answer:
        show_row(console, "answer", finished.answer.strip().splitlines()[:RESULT_LINES])
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


def _keys(turn: TurnTaken) -> list[str]:
    longest = max((len(key.name) for key in turn.live_keys), default=0)
    return [f"{key.name.ljust(longest)}  {key.preview}" for key in turn.live_keys] or ["none"]


def _result_rows(result: ToolResult, width: int) -> list[str]:
    if result.structured is not None:
        return wrapped(_json(result.structured), width)
    return first_lines(result.text)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
