"""Runs carried out of a database: begun, taken up where a worker died, cancelled, approved of, followed.

In: Routines, running tool servers, a model's server, a store. Out: runs that end, each carried out by one worker at a time, and
their events. A call that was under way when a worker died is made again only where MCP marks its tool read-only or idempotent;
else the run ends "in doubt".
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any, Self

from openai import AsyncOpenAI

from routine_grammar.agent.chat import RoutineChat
from routine_grammar.agent.events import Approved, Asked, Ended, RunEvent
from routine_grammar.agent.execution import Finished, Run, RunSettings, check_fit, may_repeat
from routine_grammar.agent.memory import Stored, VariableMemory
from routine_grammar.agent.tools import ToolServers
from routine_grammar.errors import JournalError, LeaseLostError, LostCallError, RoutineGrammarError
from routine_grammar.routine import Routine, Tool, routine_from_document, routine_to_document
from routine_grammar.runs.store import KeptEvent, RunRecord, RunStore

LEASE_S = 15.0
LOOK_S = 1.0
MOST_RUNS = 1_000
_log = logging.getLogger(__name__)


class Runs:
    """Carries out the runs of a store as long as the `async with` block, `most` at once; others wait for their turn.

    Several workers may share a store: a run is leased by one, for `lease_s`, and taken by another where that one has died.
    Leaving gives the runs back, as they are: calls that are under way are cancelled, which leaves them in doubt.
    """

    def __init__(
        self,
        store: RunStore,
        servers: ToolServers,
        client: AsyncOpenAI,
        model: str,
        *,
        settings: RunSettings | None = None,
        lease_s: float = LEASE_S,
        look_s: float = LOOK_S,
        most: int = MOST_RUNS,
    ) -> None:
        self._store = store
        self._servers = servers
        self._client = client
        self._model = model
        self._settings = settings or RunSettings()
        self._lease_s, self._look_s, self._most = lease_s, look_s, most
        self._worker = f"worker_{secrets.token_hex(8)}"
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._cancelled: set[str] = set()
        self._news = asyncio.Event()
        self._changed = asyncio.Condition()
        self._loop: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.create_task(self._look_after(), name="runs")
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._loop is not None
        tasks = [self._loop, *self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def start(self, routine: Routine, *, inputs: Mapping[str, Any] | None = None, task: str = "", owner: str = "") -> str:
        """Begin a run; return its id as soon as it is kept.

        Raises `RoutineError` where the Routine does not fit the tools, `RunError` where the inputs don't fit, `JournalError`.
        """
        check_fit(routine, self._servers.tools)
        chat = RoutineChat(routine, self._servers.tools, inputs=inputs, task=task)
        used = {step.tool for step in routine}
        about = {
            "task": task,
            "document": routine_to_document(routine),
            "tools": [tool.to_mcp() for tool in self._servers.tools if tool.name in used],
            "model": self._model,
            "settings": asdict(self._settings),
        }
        run = await self._store.create(routine.name, about, chat.memory.take_changes(), owner=owner)
        self._news.set()
        return run

    async def cancel(self, run: str, *, owner: str | None = None) -> RunRecord:
        """Have a run end; its worker ends it within a moment."""
        record = await self._store.cancel(run, owner=owner)
        if run in self._tasks and not record.is_over:
            self._stop(run)
        await self._tell()
        return record

    async def approve(
        self, run: str, turn: int, place: int, allowed: bool, *, reason: str = "", owner: str | None = None
    ) -> None:
        """Say whether a call that waits for a person may be made."""
        await self._store.approve(run, Approved(turn, place, allowed, reason), owner=owner)
        self._news.set()
        await self._tell()

    async def resume(self, run: str, *, result: str | None = None, owner: str | None = None) -> None:
        """Let a run that is over go on, as `RunStore.resume` does."""
        await self._store.resume(run, result, owner=owner)
        self._news.set()

    async def follow(self, run: str, *, after: int = 0, owner: str | None = None) -> AsyncIterator[KeptEvent]:
        """Yield the events of a run behind a number as they come, until it is over; raises `JournalError`."""
        while True:
            # In this order: what came between the two looks is told by the next one.
            record = await self._store.show(run, owner=owner)
            events = await self._store.events(run, after)
            for kept in events:
                after = kept.number
                yield kept
            if record.is_over and after >= record.events:
                return
            if not events:
                await self._wait_for_news()

    async def _wait_for_news(self) -> None:
        """Wait until an event of this worker's was kept, or long enough for one of another's."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._look_s):
                async with self._changed:
                    await self._changed.wait()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _look_after(self) -> None:
        """Keep the leases, end what is to be cancelled, drop what others have by now, take what nobody has."""
        while True:
            self._news.clear()
            try:
                await self._look()
            except JournalError:
                _log.exception("the database of runs can't be used")
            with suppress(TimeoutError):
                async with asyncio.timeout(self._look_s):
                    await self._news.wait()

    async def _look(self) -> None:
        kept = await self._store.renew(self._worker, self._lease_s)
        for run in list(self._tasks):
            if run not in kept:
                self._tasks[run].cancel()  # its lease is over: what it writes is refused
            elif kept[run]:
                self._stop(run)
        for run in kept.keys() - self._tasks.keys():
            await self._store.release(self._worker, run)  # its task failed, and so did telling it
        room = self._most - len(self._tasks)
        for run in await self._store.take(self._worker, self._lease_s, room) if room > 0 else ():
            task = asyncio.create_task(self._carry_out(run), name=run)
            self._tasks[run] = task
            task.add_done_callback(partial(self._forget, run))

    def _stop(self, run: str) -> None:
        self._cancelled.add(run)
        self._tasks[run].cancel()

    def _forget(self, run: str, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("run %s", run, exc_info=error)
        self._tasks.pop(run, None)
        self._cancelled.discard(run)
        self._news.set()

    async def _carry_out(self, run: str) -> None:
        """Carry out a run to its end, or until it waits for a person; what goes wrong is its last event."""
        journal = _RunJournal(self._store, self._worker, run, self._tell)
        chat: RoutineChat | None = None
        try:
            record = await self._store.show(run)
            if record.is_cancelled:
                await journal.end("cancelled", None, "it was cancelled")
                return
            chat = await self._chat(record)
            await self._take_turns(run, chat, journal, record)
        except _WaitingError:
            await self._store.release(self._worker, run)
        except LeaseLostError:
            pass
        except LostCallError as error:
            await journal.end("in doubt", chat, str(error))
        except JournalError:
            raise  # nothing can be kept; what was is taken up once the database is back
        except RoutineGrammarError as error:
            await journal.end("failed", chat, str(error))
        except asyncio.CancelledError:
            if run not in self._cancelled:
                with suppress(JournalError):
                    await self._store.release(self._worker, run)
                raise
            await journal.end("cancelled", chat, "it was cancelled")
        except Exception as error:
            _log.exception("run %s", run)
            await journal.end("failed", chat, f"{type(error).__name__}: {error}")

    async def _chat(self, record: RunRecord) -> RoutineChat:
        memory = VariableMemory()
        memory.restore(await self._store.values(record.id))
        routine = routine_from_document(record.about["document"])
        tools = [Tool.from_mcp(tool) for tool in record.about["tools"]]
        return RoutineChat(routine, tools, task=record.about["task"], memory=memory)

    async def _take_turns(self, run: str, chat: RoutineChat, journal: _RunJournal, record: RunRecord) -> None:
        settings = RunSettings(**record.about["settings"])
        carried = Run(
            chat, self._servers, self._client, record.about["model"], settings, journal=journal, approve=_wait_for_a_person
        )
        under_way = carried.restore([kept.event for kept in await self._store.events(run)])
        doubtful = [call for call in under_way if not may_repeat(chat.tools[call.tool])]
        if doubtful:
            told = ", ".join(f"call {call.place} of turn {call.turn} ({call.tool})" for call in doubtful)
            await journal.end("in doubt", chat, f"under way when its worker ended, so that it may have had its effect: {told}")
            return
        while not isinstance(event := await carried.turn(), Finished):
            pass
        done = Ended("done", chat.turns, chat.position, event.end.value, event.answer, event.is_cut_off)
        await journal.write(done, chat.memory.take_changes())


class _WaitingError(Exception):
    """A run waits for a person: its task ends, and the run is taken up once the person has spoken."""


async def _wait_for_a_person(asked: Asked, tool: Tool) -> Approved:
    raise _WaitingError


class _RunJournal:
    """A run's events in a store, written by the worker that has it."""

    def __init__(self, store: RunStore, worker: str, run: str, tell: Any) -> None:
        self._store = store
        self._worker = worker
        self._run = run
        self._tell = tell

    async def write(self, event: RunEvent, changed: Sequence[Stored]) -> None:
        """Keep an event; raises `LeaseLostError` where another worker has the run."""
        await self._store.append(self._worker, self._run, event, changed)
        await self._tell()

    async def end(self, status: str, chat: RoutineChat | None, why: str) -> None:
        """Keep why a run ended early."""
        turn, position = (chat.turns, chat.position) if chat is not None else (0, "start")
        with suppress(LeaseLostError):
            await self.write(Ended(status, turn, position, error=why), ())
