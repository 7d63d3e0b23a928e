"""Checks of Routines that clients send: one at a time and bounded, in a thread of their own, so that chats don't wait."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar, cast

from routine_grammar.api import problems_of
from routine_grammar.errors import RoutineError, RoutineGrammarError
from routine_grammar.routine.model import Routine
from routine_grammar.routine.tools import Tool

CHECK_LIMIT_S = 20.0
CHECK_WAIT_S = 5.0
_T = TypeVar("_T")


class CheckBusyError(RoutineGrammarError):
    """Another check is still running."""


class CheckTooLongError(RoutineGrammarError):
    """A check takes longer than it may."""


class CheckDesk:
    """Runs one function at a time in its own thread. To be used from one event loop.

    `limit_s`: how long a caller waits for its function; the thread goes on after that, as threads can't be ended, and
    the desk is busy until then. `wait_s`: how long a caller waits for another's.
    """

    def __init__(self, limit_s: float = CHECK_LIMIT_S, wait_s: float = CHECK_WAIT_S) -> None:
        self._limit_s, self._wait_s = limit_s, wait_s
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="routine_check")
        self._running: Future[Any] | None = None

    async def run(self, function: Callable[[], _T]) -> _T:
        """The function's result; raises `CheckBusyError`, `CheckTooLongError`, and what the function raises."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._wait_s
        while self._running is not None and not self._running.done():
            # A caller that goes away must not cancel another's check: `asyncio.wait` leaves what it waits for alone.
            await asyncio.wait((asyncio.wrap_future(self._running),), timeout=max(deadline - loop.time(), 0))
            if loop.time() >= deadline and not self._running.done():
                raise CheckBusyError(f"another Routine is being checked for more than {self._wait_s:g} s: try again later")
        mine = self._running = self._pool.submit(_outcome, function)
        done, _ = await asyncio.wait((asyncio.wrap_future(mine),), timeout=self._limit_s)
        if not done:
            raise CheckTooLongError(f"the check takes more than {self._limit_s:g} s; expected a smaller Routine or tools")
        result, error = done.pop().result()
        if error is not None:
            raise error
        return cast(_T, result)


def _outcome(function: Callable[[], _T]) -> tuple[_T | None, Exception | None]:
    """What a function returns or raises, as a value: nobody may be there any more to hear of an error."""
    try:
        return function(), None
    except Exception as error:
        return None, error


def listed_problems(
    document: dict[str, Any] | str,
    listed: Sequence[dict[str, Any]] | None,
    own: tuple[Tool, ...],
    routines: Iterable[Routine] = (),
) -> list[str]:
    """All problems of a Routine, with the tools that a client listed, or with the server's own. Raises `RoutineError`.

    `routines`: those that its steps may run.
    """
    # A document goes through its text: what reads texts bounds them, and refuses what is no character.
    text = document if isinstance(document, str) else _json_text(document)
    if listed is not None:
        require_characters(_json_text(listed), "tools")
    tools = own if listed is None else tuple(Tool.from_mcp(tool) for tool in listed)
    routine = Routine.parse(text)
    return [str(problem) for problem in problems_of(routine, tools, routines=routines)]


def _json_text(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError as error:
        raise RoutineError("nested too deeply") from error


def require_characters(text: str, where: str) -> None:
    """Raise `RoutineError` for a text that can't be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RoutineError(f"{where}: a text holds half of a surrogate pair, which is no character") from error
