"""Runs carried out of a database, with real tools of which every effect is counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from routine_grammar.agent.events import Answered, Asked, Called, Decided, Ended, Resumed
from routine_grammar.agent.execution import RunSettings
from routine_grammar.agent.tools import ToolServers
from routine_grammar.errors import JournalError, RoutineError, RunError
from routine_grammar.routine import Constant, Routine, Variable
from routine_grammar.runs.service import Runs
from routine_grammar.runs.store import RunRecord, RunStore
from tests.agent.model_server import model_server
from tests.runs.ledger import ROUTINE, SETTINGS, answers, effects, ledger_config, step

pytestmark = pytest.mark.asyncio
QUICK: dict[str, Any] = {"lease_s": 2.0, "look_s": 0.05}


def of(*steps: Any) -> Routine:
    return Routine("of", inputs=(Variable("run", {"type": "string"}),), steps=steps)


@asynccontextmanager
async def carrying_out(
    store: RunStore, ledger: Path, played: Iterable[dict[str, Any]] = (), settings: RunSettings = SETTINGS, **options: Any
) -> AsyncIterator[Runs]:
    listed = [{"name": name} for name in ("ledger", "of")]
    with model_server(played, routines=listed) as server:
        http = DefaultAsyncHttpxClient(trust_env=False)
        async with (
            ToolServers([ledger_config(ledger)]) as servers,
            AsyncOpenAI(base_url=server.base_url, api_key="none", http_client=http, max_retries=0) as client,
            Runs(store, servers, client, "m", settings=settings, **(QUICK | options)) as runs,
        ):
            yield runs


def lines(ledger: Path) -> list[str]:
    return sorted(ledger.read_text().splitlines()) if ledger.exists() else []


async def ended(runs: Runs, store: RunStore, run: str) -> RunRecord:
    async with asyncio.timeout(60):
        async for _ in runs.follow(run):
            pass
    return await store.show(run)


async def until(store: RunStore, run: str, kind: type) -> Any:
    """The first event of a kind, once it is there."""
    async with asyncio.timeout(30):
        while True:
            for kept in await store.events(run):
                if isinstance(kept.event, kind):
                    return kept.event
            await asyncio.sleep(0.02)


async def test_a_run_is_carried_out_and_followed(store: RunStore, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    async with carrying_out(store, ledger, answers("a")) as runs:
        run = await runs.start(ROUTINE, inputs={"run": "a"}, task="Do it.", owner="me")
        async with asyncio.timeout(60):
            kept = [each async for each in runs.follow(run, owner="me")]
        assert [each.number for each in kept] == list(range(1, len(kept) + 1))
        assert [each async for each in runs.follow(run, after=4)] == kept[4:]
        with pytest.raises(JournalError, match="there is no run"):
            await anext(runs.follow(run, owner="they"))
    kinds = [type(each.event).__name__ for each in kept]
    once = ["Decided", "Called", "Answered"]
    assert kinds[:6] == once * 2
    assert kinds[6] == "Decided"
    assert sorted(kinds[7:11]) == ["Answered", "Answered", "Called", "Called"]
    assert kinds[11:] == [*once, "Ended"]
    assert [each.event.attempts for each in kept if isinstance(each.event, Decided)] == [0, 1, 1, 0]
    assert lines(ledger) == effects("a")
    record = await store.show(run)
    assert (record.status, record.position) == ("done", "3")
    assert {value.key.name: value.key.value for value in await store.values(run)}["memory_3_result"] == "note a look a"


async def test_what_does_not_fit_is_told_before_a_run_begins(store: RunStore, tmp_path: Path) -> None:
    async with carrying_out(store, tmp_path / "ledger") as runs:
        with pytest.raises(RunError, match="no value was given"):
            await runs.start(ROUTINE)
        with pytest.raises(RoutineError, match="lok"):
            await runs.start(of(step("lok")), inputs={"run": "a"})
    assert await store.list_runs() == []


async def test_a_person_is_asked_and_the_run_waits_meanwhile(store: RunStore, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    routine, asking = of(step("look"), step("burn")), replace(SETTINGS, approval="destructive")
    async with carrying_out(store, ledger, settings=asking) as runs:
        yes, no = [await runs.start(routine, inputs={"run": name}) for name in ("yes", "no")]
        asked = [await until(store, run, Asked) for run in (yes, no)]
        assert [(each.turn, each.place, each.tool) for each in asked] == [(2, 0, "burn")] * 2
        assert lines(ledger) == ["look no", "look yes"]
        assert {record.status for record in await store.list_runs()} == {"waiting"}
    async with carrying_out(store, ledger, settings=asking) as runs:  # another process may go on with it
        await runs.approve(yes, 2, 0, allowed=True)
        await runs.approve(no, 2, 0, allowed=False, reason="too hot")
        assert (await ended(runs, store, yes)).status == "done"
        refused = await ended(runs, store, no)
    assert refused.status == "failed"
    assert refused.ended is not None
    assert "did not approve of this call: too hot" in refused.ended.error
    assert lines(ledger) == ["burn yes", "look no", "look yes"]


async def test_a_run_is_cancelled_in_the_middle_of_a_call(store: RunStore, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    async with carrying_out(store, ledger) as runs:
        run = await runs.start(of(step("wait", seconds=Constant(20)), step("look")), inputs={"run": "a"})
        await until(store, run, Called)
        async with asyncio.timeout(10):
            while not lines(ledger):
                await asyncio.sleep(0.02)
        await runs.cancel(run)
        record = await ended(runs, store, run)
        assert record.status == "cancelled"
        with pytest.raises(JournalError, match="only one that failed"):
            await runs.resume((await ended(runs, store, await runs.start(of(step("look")), inputs={"run": "b"}))).id)
        await runs.resume(run)  # nobody knows whether it waited
        assert (await ended(runs, store, run)).status == "in doubt"
        await runs.resume(run, result="it has waited")
        assert (await ended(runs, store, run)).status == "done"
    assert lines(ledger) == ["look a", "look b", "wait a"]
    events = [kept.event for kept in await store.events(run)]
    assert [event.observation for event in events if isinstance(event, Answered)] == ["it has waited", "look a"]
    assert [(event.repeat, event.result) for event in events if isinstance(event, Resumed)] == [
        (False, None),
        (False, "it has waited"),
    ]


async def test_a_call_without_an_answer_is_in_doubt(store: RunStore, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    async with carrying_out(store, ledger, settings=replace(SETTINGS, tool_timeout_s=1)) as runs:
        run = await runs.start(of(step("wait", seconds=Constant(3))), inputs={"run": "a"})
        record = await ended(runs, store, run)
        assert record.status == "in doubt"
        assert record.ended is not None
        assert "did not answer within 1 s" in record.ended.error
    async with carrying_out(store, ledger, settings=replace(SETTINGS, tool_timeout_s=1)) as runs:
        await runs.resume(run)  # made again, as was wished
        assert (await ended(runs, store, run)).status == "in doubt"
    assert lines(ledger) == ["wait a"] * 2


async def test_a_run_goes_on_where_its_worker_left_it(store: RunStore, url: str, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    async with carrying_out(store, ledger, [{"error": {"message": "busy"}, "status": 503}]) as runs:
        run = await runs.start(ROUTINE, inputs={"run": "a"})
        record = await ended(runs, store, run)
        assert record.status == "failed"
        assert record.ended is not None
        assert "busy" in record.ended.error
    async with await RunStore.open(url) as other, carrying_out(other, ledger, answers("a")) as runs:
        await runs.resume(run)
        assert (await ended(runs, other, run)).status == "done"
    assert lines(ledger) == effects("a")


async def test_many_runs_at_once(store: RunStore, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    routine = of(step("look"), step("note", text=Constant("x")))
    async with carrying_out(store, ledger, cycle([]), most=20) as runs:
        begun = await asyncio.gather(*(runs.start(routine, inputs={"run": str(n)}) for n in range(60)))
        async with asyncio.timeout(120):
            assert [(await ended(runs, store, run)).status for run in begun] == ["done"] * 60
    assert lines(ledger) == sorted([f"look {n}" for n in range(60)] + [f"note {n} x" for n in range(60)])
    assert all([isinstance((await store.events(run))[-1].event, Ended) for run in begun[:5]])
