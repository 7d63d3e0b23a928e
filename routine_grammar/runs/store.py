"""Runs in a database: their events and values, who carries each out, and what was wished of them.

In: events of runs. Out: runs to carry out, each leased to one worker at a time, and what has happened in them. A worker that
lost its lease can write nothing more. Knows neither models nor tools.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from sqlalchemy import Row, Select, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from routine_grammar.agent.events import (
    Answered,
    Approved,
    Asked,
    Ended,
    Resumed,
    RunEvent,
    event_from_document,
    event_to_document,
)
from routine_grammar.agent.memory import Stored, preview, value_text
from routine_grammar.errors import JournalError, LeaseLostError
from routine_grammar.routine import START, MemoryKey
from routine_grammar.runs.database import (
    events_table,
    now,
    open_database,
    runs_table,
    to_json,
    transaction,
    values_table,
)

RUNNING, WAITING = "running", "waiting"
ENDED = ("done", "failed", "cancelled", "in doubt")
MAX_LISTED = 1_000


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as it stands. `about`: what it was started with. `ended`: its last event, once it is over. Times in seconds."""

    id: str
    owner: str
    routine: str
    status: str
    position: str
    events: int
    created: float
    updated: float
    about: Mapping[str, Any] = field(repr=False)
    ended: Ended | None = None
    is_cancelled: bool = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens in it unless it is resumed."""
        return self.status in ENDED


@dataclass(frozen=True, slots=True)
class KeptEvent:
    """An event with its number in its run, from 1, and its time in seconds."""

    number: int
    at: float
    event: RunEvent


class RunStore:
    """The runs of a database. Use `open`; several processes may have one open at the same time."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._now = now(engine)

    @classmethod
    async def open(cls, url: str) -> Self:
        """Open a database by its URL, as `open_database` does."""
        return cls(await open_database(url))

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    # Beginning and taking runs

    async def create(self, routine: str, about: Mapping[str, Any], values: Sequence[Stored], *, owner: str = "") -> str:
        """Keep a new run, to be taken by any worker; return its id."""
        run = f"run_{secrets.token_hex(12)}"
        row = {
            "id": run,
            "owner": owner,
            "routine": routine,
            "about": to_json(about),
            "status": RUNNING,
            "position": START,
            "created": self._now,
            "updated": self._now,
        }
        async with transaction(self._engine) as connection:
            await connection.execute(insert(runs_table).values(**row))
            await self._put(connection, run, values)
        return run

    async def take(self, worker: str, lease_s: float, most: int, *, run: str | None = None) -> list[str]:
        """Lease runs that nobody carries out; return their ids. With `run`, that one alone."""
        free = (runs_table.c.status == RUNNING) & (runs_table.c.leased_until < self._now)
        if run is not None:
            free &= runs_table.c.id == run
        some = select(runs_table.c.id).where(free).order_by(runs_table.c.created).limit(most).with_for_update(skip_locked=True)
        lease = {"worker": worker, "leased_until": self._now + lease_s}
        async with transaction(self._engine) as connection:
            taken = await connection.execute(
                update(runs_table).where(runs_table.c.id.in_(some)).values(**lease).returning(runs_table.c.id)
            )
            return list(taken.scalars())

    async def renew(self, worker: str, lease_s: float) -> dict[str, bool]:
        """Lease a worker's runs for longer; return those that it still has, each with whether it is to be cancelled."""
        async with transaction(self._engine) as connection:
            kept = await connection.execute(
                update(runs_table)
                .where((runs_table.c.worker == worker) & (runs_table.c.leased_until >= self._now))
                .values(leased_until=self._now + lease_s)
                .returning(runs_table.c.id, runs_table.c.wish)
            )
            return {row.id: bool(row.wish) for row in kept}

    async def release(self, worker: str, run: str) -> None:
        """Give a run back: any worker may take it if it still goes on."""
        async with transaction(self._engine) as connection:
            await connection.execute(update(runs_table).where(_of(run, worker)).values(worker="", leased_until=0.0))

    # What happens in a run

    async def append(self, worker: str, run: str, event: RunEvent, values: Sequence[Stored] = ()) -> None:
        """Keep an event and the values that came with it; raises `LeaseLostError` where the run is another worker's by now."""
        async with transaction(self._engine) as connection:
            if not await self._append(connection, _of(run, worker), run, event):
                raise LeaseLostError(f"run {run}: another worker carries it out")
            await self._put(connection, run, values)

    async def approve(self, run: str, approved: Approved, *, owner: str | None = None) -> None:
        """Keep what a person said of a call; raises `JournalError` where nobody is asked for it."""
        async with transaction(self._engine) as connection:
            record = await self._record(connection, run, owner, lock=True)
            asked = _asked(await self._events(connection, run, 0))
            place = (approved.turn, approved.place)
            if record.is_over or place not in asked:
                told = ", ".join(f"call {number} of turn {turn}" for turn, number in asked) or "none"
                raise JournalError(
                    f"run {run}: call {approved.place} of turn {approved.turn} waits for nobody; of it wait: {told}"
                )
            status = RUNNING if len(asked) == 1 else WAITING
            await self._append(connection, runs_table.c.id == run, run, approved, status)

    async def resume(self, run: str, result: str | None = None, *, owner: str | None = None) -> None:
        """Let a run go on that failed, was cancelled or is in doubt.

        Calls that are in doubt are made again; with `result`, the one that is has had that result. Raises `JournalError` where
        the run can't go on, since it is done or a tool failed in it.
        """
        async with transaction(self._engine) as connection:
            record = await self._record(connection, run, owner, lock=True)
            if not record.is_over or record.status == "done":
                raise JournalError(
                    f"run {run} is {record.status}; only one that failed, was cancelled or is in doubt can be resumed"
                )
            events = [kept.event for kept in await self._events(connection, run, 0)]
            failure = next((event.failure for event in events if isinstance(event, Answered) and event.failure), None)
            if failure:
                raise JournalError(f"run {run} can't be resumed: {failure}")
            if result is not None and record.status != "in doubt":
                raise JournalError(f"run {run} is {record.status}: no call of it waits for a result")
            assert record.ended is not None
            again = Resumed(record.ended.turn, record.status == "in doubt" and result is None, result)
            await self._append(connection, runs_table.c.id == run, run, again, RUNNING, wish="", worker="", leased_until=0.0)

    async def cancel(self, run: str, *, owner: str | None = None) -> RunRecord:
        """Wish that a run ends, or end it at once where it waits for a person; return it as it stands then."""
        async with transaction(self._engine) as connection:
            record = await self._record(connection, run, owner, lock=True)
            if record.status == WAITING:
                ended = Ended("cancelled", 0, record.position, error="it was cancelled")
                await self._append(connection, runs_table.c.id == run, run, ended)
            elif not record.is_over:
                await connection.execute(update(runs_table).where(runs_table.c.id == run).values(wish="cancel"))
            return await self._record(connection, run, owner)

    async def forget(self, older_than_s: float) -> int:
        """Delete the runs that have been over for so long, with their events and values; return how many."""
        old = runs_table.c.status.in_(ENDED) & (runs_table.c.updated < self._now - older_than_s)
        async with transaction(self._engine) as connection:
            gone = list((await connection.execute(delete(runs_table).where(old).returning(runs_table.c.id))).scalars())
            for table in (events_table, values_table):
                for begin in range(0, len(gone), MAX_LISTED):
                    await connection.execute(delete(table).where(table.c.run.in_(gone[begin : begin + MAX_LISTED])))
        return len(gone)

    # What there is

    async def show(self, run: str, *, owner: str | None = None) -> RunRecord:
        """One run; raises `JournalError` where there is none, or it is another owner's."""
        async with transaction(self._engine) as connection:
            return await self._record(connection, run, owner)

    async def list_runs(
        self, *, owner: str | None = None, status: str | None = None, before: float | None = None, most: int = 100
    ) -> list[RunRecord]:
        """The newest runs first, `most` of them and at most 1,000: all, or an owner's, of one status, begun before a time."""
        query = select(runs_table).order_by(runs_table.c.created.desc(), runs_table.c.id).limit(min(most, MAX_LISTED))
        for column, wanted in ((runs_table.c.owner, owner), (runs_table.c.status, status)):
            query = query if wanted is None else query.where(column == wanted)
        query = query if before is None else query.where(runs_table.c.created < before)
        async with transaction(self._engine) as connection:
            return [_record(row) for row in await connection.execute(query)]

    async def events(self, run: str, after: int = 0) -> list[KeptEvent]:
        """The events of a run behind a number."""
        async with transaction(self._engine) as connection:
            return await self._events(connection, run, after)

    async def values(self, run: str) -> list[Stored]:
        """The values of a run; of no other."""
        async with transaction(self._engine) as connection:
            rows = await connection.execute(
                select(values_table).where(values_table.c.run == run).order_by(values_table.c.place)
            )
            return [_stored(row) for row in rows]

    async def _append(
        self, connection: AsyncConnection, which: Any, run: str, event: RunEvent, status: str | None = None, **fields: Any
    ) -> bool:
        """Number and keep an event, and what it makes of the run; whether there was such a run."""
        changes = {"events": runs_table.c.events + 1, "updated": self._now, **_made_of(event), **fields}
        changes |= {} if status is None else {"status": status}
        number = await connection.scalar(update(runs_table).where(which).values(**changes).returning(runs_table.c.events))
        if number is None:
            return False
        document = to_json(event_to_document(event))
        await connection.execute(insert(events_table).values(run=run, number=number, at=self._now, document=document))
        return True

    async def _put(self, connection: AsyncConnection, run: str, values: Sequence[Stored]) -> None:
        if not values:
            return
        rows = [
            {
                "run": run,
                "key": each.key.name,
                "place": each.order,
                "chars": each.chars,
                "type": None if each.key.schema is None else to_json(dict(each.key.schema)),
                "value": to_json(each.key.value),
            }
            for each in values
        ]
        dialect = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(values_table)
        changed = {name: statement.excluded[name] for name in ("chars", "type", "value")}
        await connection.execute(statement.on_conflict_do_update(index_elements=["run", "key"], set_=changed), rows)

    async def _record(self, connection: AsyncConnection, run: str, owner: str | None, *, lock: bool = False) -> RunRecord:
        query: Select[Any] = select(runs_table).where(runs_table.c.id == run)
        if owner is not None:
            query = query.where(runs_table.c.owner == owner)
        row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
        if row is None:
            raise JournalError(f"there is no run {run[:80]!r}")
        return _record(row)

    async def _events(self, connection: AsyncConnection, run: str, after: int) -> list[KeptEvent]:
        query = select(events_table).where((events_table.c.run == run) & (events_table.c.number > after))
        rows = await connection.execute(query.order_by(events_table.c.number))
        return [KeptEvent(row.number, row.at, event_from_document(json.loads(row.document))) for row in rows]


def _of(run: str, worker: str) -> Any:
    return (runs_table.c.id == run) & (runs_table.c.worker == worker)


def _made_of(event: RunEvent) -> dict[str, Any]:
    """What an event makes of its run."""
    if isinstance(event, Ended):
        ended = to_json(event_to_document(event))
        return {"status": event.status, "position": event.position, "ended": ended, "worker": "", "leased_until": 0.0}
    return {"status": WAITING} if isinstance(event, Asked) else {}


def _asked(events: Sequence[KeptEvent]) -> list[tuple[int, int]]:
    """The calls of which a person is asked and has said nothing yet."""
    asked = [(kept.event.turn, kept.event.place) for kept in events if isinstance(kept.event, Asked)]
    said = {(kept.event.turn, kept.event.place) for kept in events if isinstance(kept.event, Approved)}
    return [place for place in dict.fromkeys(asked) if place not in said]


def _record(row: Row[Any]) -> RunRecord:
    ended = None if row.ended is None or row.status not in ENDED else event_from_document(json.loads(row.ended))
    assert ended is None or isinstance(ended, Ended)
    return RunRecord(
        row.id,
        row.owner,
        row.routine,
        row.status,
        row.position,
        row.events,
        row.created,
        row.updated,
        json.loads(row.about),
        ended,
        bool(row.wish),
    )


def _stored(row: Row[Any]) -> Stored:
    value = json.loads(row.value)
    schema = None if row.type is None else json.loads(row.type)
    return Stored(row.place, row.chars, MemoryKey(row.key, schema, value, preview(value_text(value))))
