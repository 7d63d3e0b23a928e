"""The store of runs, on SQLite and on a real PostgreSQL: what is written, who may write it, and what others see."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from routine_grammar.agent.calls import ToolCall
from routine_grammar.agent.events import Answered, Approved, Asked, Called, Decided, Ended, Resumed, RunEvent
from routine_grammar.agent.memory import Stored, VariableMemory
from routine_grammar.errors import JournalError, LeaseLostError
from routine_grammar.runs.store import RunStore

pytestmark = pytest.mark.asyncio
DECIDED = Decided(1, "start", ("t",), False, "Thought: \x00", (ToolCall("a", "t", '{"x": 1}'),), "tool_calls", "1", (1, 2), 1)
STRANGE = ["", "\x00", "\ud800", "é\u2028😀", {"a": [1.5, None, True, 10**30]}, [[]], "x" * 100_000]


def stored(**values: Any) -> list[Stored]:
    memory = VariableMemory()
    for name, value in values.items():
        memory.put(f"memory_1_{name}", value, {"type": "string"} if name == "typed" else None)
    return list(memory.take_changes())


async def begun(store: RunStore, **fields: Any) -> str:
    run = await store.create("r", {"task": "t"}, [], **fields)
    assert await store.take("w", 60, 1, run=run) == [run]
    return run


async def test_what_is_written_is_read_back(store: RunStore, url: str) -> None:
    run = await begun(store)
    values = stored(typed="a", **{f"v{number}": value for number, value in enumerate(STRANGE)})
    events: list[RunEvent] = [
        DECIDED,
        Called(1, 0, "t"),
        Answered(1, 0, "shown \ud800\x00", True, "why"),
        Ended("done", 1, "1", "answered", "Yes"),
    ]
    await store.append("w", run, events[0])
    await store.append("w", run, events[1], values)
    await store.append("w", run, events[2])
    await store.append("w", run, events[3])
    async with await RunStore.open(url) as other:
        assert await other.values(run) == values
        kept = await other.events(run)
        assert [each.event for each in kept] == events
        assert [each.number for each in kept] == [1, 2, 3, 4]
        assert sorted(each.at for each in kept) == [each.at for each in kept]
        assert [each.event for each in await other.events(run, 2)] == events[2:]
        record = await other.show(run)
    assert (record.status, record.position, record.events, record.ended) == ("done", "1", 4, events[3])
    assert record.about == {"task": "t"}
    assert record.is_over


async def test_a_value_written_again_keeps_its_place(store: RunStore) -> None:
    run = await begun(store)
    first, second = stored(a=1, b=2)
    await store.append("w", run, DECIDED, [first, second])
    memory = VariableMemory()
    memory.restore([first, second])
    memory.put("memory_1_a", "other")
    await store.append("w", run, DECIDED, memory.take_changes())
    assert [each.key.value for each in await store.values(run)] == ["other", 2]


async def test_no_run_sees_anothers_values_and_no_owner_anothers_runs(store: RunStore) -> None:
    mine, theirs = await begun(store, owner="me"), await begun(store, owner="they")
    await store.append("w", mine, DECIDED, stored(a="mine"))
    assert await store.values(theirs) == []
    assert [record.id for record in await store.list_runs(owner="they")] == [theirs]
    assert {record.id for record in await store.list_runs()} == {mine, theirs}
    for refused in (store.show, store.cancel, store.resume):
        with pytest.raises(JournalError, match="there is no run"):
            await refused(mine, owner="they")
    with pytest.raises(JournalError, match="there is no run"):
        await store.approve(mine, Approved(1, 0, True), owner="they")


async def test_a_run_has_one_worker_at_a_time(store: RunStore, url: str) -> None:
    runs = [await store.create("r", {}, []) for _ in range(20)]
    async with await RunStore.open(url) as other:
        taken = await asyncio.gather(*((store, other)[n % 2].take(f"w{n}", 60, 3) for n in range(10)))
        assert sorted(run for some in taken for run in some) == sorted(runs)
        assert await other.take("late", 60, 100) == []
        owner = next(f"w{n}" for n, some in enumerate(taken) if runs[0] in some)
        await store.release(owner, runs[0])
        assert await other.take("late", 0.0, 100) == [runs[0]]
        assert await other.take("later", 60, 100) == [runs[0]]  # the lease of the one before is over
        with pytest.raises(LeaseLostError):
            await other.append("late", runs[0], DECIDED, stored(a=1))
        assert await other.values(runs[0]) == []
        assert await other.events(runs[0]) == []
        assert await other.renew("late", 60) == {}
        assert await other.renew("later", 60) == {runs[0]: False}


async def test_a_person_is_asked_and_says(store: RunStore) -> None:
    run = await begun(store)
    await store.append("w", run, DECIDED)
    for place in (0, 1):
        await store.append("w", run, Asked(1, place, "t", {"x": 1}))
    assert (await store.show(run)).status == "waiting"
    with pytest.raises(JournalError, match="of it wait: call 0 of turn 1, call 1 of turn 1"):
        await store.approve(run, Approved(1, 2, True))
    await store.approve(run, Approved(1, 1, True))
    assert (await store.show(run)).status == "waiting"
    await store.approve(run, Approved(1, 0, False, "no"))
    assert (await store.show(run)).status == "running"
    with pytest.raises(JournalError, match="of it wait: none"):
        await store.approve(run, Approved(1, 0, True))
    await store.release("w", run)
    assert await store.take("other", 60, 1) == [run]


async def test_runs_are_cancelled_and_resumed(store: RunStore) -> None:
    run = await begun(store)
    assert (await store.cancel(run)).is_cancelled
    assert await store.renew("w", 60) == {run: True}
    with pytest.raises(JournalError, match="is running; only one that"):
        await store.resume(run)
    await store.append("w", run, Ended("cancelled", 0, "start", error="it was cancelled"))
    with pytest.raises(JournalError, match="no call of it waits for a result"):
        await store.resume(run, "done")
    await store.resume(run)
    record = await store.show(run)
    assert (record.status, record.is_cancelled, record.ended) == ("running", False, None)
    assert (await store.events(run))[-1].event == Resumed(0)
    assert await store.take("w", 60, 1) == [run]
    await store.append("w", run, Asked(1, 0, "t"))
    assert (await store.cancel(run)).status == "cancelled"
    other = await begun(store)
    await store.append("w", other, DECIDED)
    await store.append("w", other, Answered(1, 0, "x", True, "the tool failed"))
    await store.append("w", other, Ended("failed", 1, "1", error="the tool failed"))
    with pytest.raises(JournalError, match="can't be resumed: the tool failed"):
        await store.resume(other)


async def test_old_runs_are_forgotten_with_all_they_have(store: RunStore) -> None:
    over, going = await begun(store), await begun(store)
    await store.append("w", over, DECIDED, stored(a=1))
    await store.append("w", over, Ended("done", 1, "1"))
    assert await store.forget(3600) == 0
    assert await store.forget(-1) == 1
    assert (await store.events(over), await store.values(over)) == ([], [])
    assert [record.id for record in await store.list_runs()] == [going]


async def test_databases_that_cant_be_used_are_told(tmp_path: Path, url: str) -> None:
    for bad, why in (
        ("nonsense", "is no database"),
        ("mysql://localhost/x", "database|supported|missing"),
        (f"sqlite:///{tmp_path}/no/such/runs.db", "unable to open"),
        ("postgresql://me:secret@127.0.0.1:1/x", "can't be used"),
    ):
        with pytest.raises(JournalError, match=why) as told:
            await RunStore.open(bad)
        assert "secret" not in str(told.value)
    async with await RunStore.open(url) as store:
        from sqlalchemy import text

        async with store._engine.begin() as connection:
            await connection.execute(text("UPDATE routine_grammar SET value = '7'"))
    with pytest.raises(JournalError, match="of version 7; expected 1"):
        await RunStore.open(url)
