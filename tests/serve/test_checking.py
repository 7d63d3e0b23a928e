"""Checks that clients ask for: one at a time, bounded, and read as strictly as texts are."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import pytest

from routine_grammar.demo.catalogue import demo_routines, demo_tools
from routine_grammar.errors import RoutineError
from routine_grammar.routine import routine_to_document, to_text
from routine_grammar.serve.checking import CheckBusyError, CheckDesk, CheckTooLongError, listed_problems


def test_a_check_that_takes_too_long_is_left_and_a_second_is_told_so() -> None:
    go_on = threading.Event()

    async def use() -> None:
        desk = CheckDesk(limit_s=0.05, wait_s=0.05)
        with pytest.raises(CheckTooLongError, match=r"more than 0\.05 s"):
            await desk.run(go_on.wait)
        with pytest.raises(CheckBusyError, match="another Routine is being checked"):
            await desk.run(lambda: 1)
        go_on.set()
        result = None
        while result is None:
            with contextlib.suppress(CheckBusyError):
                result = await desk.run(lambda: 1)

    try:
        asyncio.run(use())
    finally:
        go_on.set()


def test_checks_wait_for_one_another_and_errors_reach_their_own_caller() -> None:
    running = most = 0

    def count() -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        running -= 1
        return 1

    def fail() -> int:
        raise RoutineError("mine")

    async def use() -> None:
        desk = CheckDesk()
        results = await asyncio.gather(*(desk.run(count if n % 2 else fail) for n in range(8)), return_exceptions=True)
        assert [str(result) for result in results] == ["mine", "1"] * 4

    asyncio.run(use())
    assert most == 1


def test_a_caller_that_goes_away_leaves_the_desk_usable() -> None:
    go_on = threading.Event()

    async def use() -> None:
        desk = CheckDesk(wait_s=30)
        first = asyncio.create_task(desk.run(go_on.wait))
        await asyncio.sleep(0)
        second = asyncio.create_task(desk.run(lambda: 2))
        await asyncio.sleep(0)
        first.cancel()
        go_on.set()
        assert await second == 2

    try:
        asyncio.run(use())
    finally:
        go_on.set()


@pytest.mark.parametrize("whole", [to_text, routine_to_document])
def test_good_routines_have_no_problems_as_text_and_as_document(whole: Any) -> None:
    for routine in demo_routines():
        assert listed_problems(whole(routine), None, demo_tools()) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"description": "\ud800"}, "half of a surrogate pair"),
        ({"description": float("nan")}, "no JSON number"),
    ],
)
def test_documents_are_read_as_strictly_as_texts(change: dict[str, Any], told: str) -> None:
    document = {**routine_to_document(demo_routines()[0]), **change}
    with pytest.raises(RoutineError, match=told):
        listed_problems(document, None, demo_tools())


def test_half_characters_in_tools_are_refused() -> None:
    tool = {"name": "x", "description": "\udc00", "inputSchema": {"type": "object"}}
    with pytest.raises(RoutineError, match="half of a surrogate pair"):
        listed_problems(routine_to_document(demo_routines()[0]), [tool], ())


def test_deep_nesting_is_refused() -> None:
    document: dict[str, Any] = {}
    for _ in range(5000):
        document = {"a": document}
    with pytest.raises(RoutineError, match="nested"):
        listed_problems(document, None, ())


def test_a_routine_may_run_those_that_the_server_offers() -> None:
    known = demo_routines()
    inputs = {variable.name: {"const": 5 if variable.schema == {"type": "integer"} else "x"} for variable in known[0].inputs}
    document = {"name": "x", "steps": [{"name": "Run it", "routine": known[0].name, "arguments": inputs}]}
    assert "unknown routine" in listed_problems(document, None, demo_tools())[0]
    assert listed_problems(document, None, demo_tools(), known) == []
