"""A Routine over tools whose effects can be counted, and a worker that carries it out: `python -m tests.runs.ledger …`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from routine_grammar.agent.events import Ended, RunEvent
from routine_grammar.agent.execution import RunSettings
from routine_grammar.agent.memory import Stored
from routine_grammar.agent.tools import ServerConfig, ToolServers
from routine_grammar.routine import Branch, Constant, Key, Literal, Routine, Source, Step, Variable
from routine_grammar.runs.service import Runs
from routine_grammar.runs.store import RunStore
from tests.agent.model_server import say

SERVER = str(Path(__file__).with_name("ledger_server.py"))
SETTINGS = RunSettings(closing_answer=False, model_timeout_s=30, tool_timeout_s=30)
RUN = Key("memory_input_run")


def step(tool: str, *branches: Branch, **arguments: Source) -> Step:
    return Step("", tool, tool=tool, arguments={"run": RUN, **arguments}, branches=branches)


# Its second turn asks a model; its third has two calls, if the model makes both at once; all others are forced.
ROUTINE = Routine(
    "ledger",
    inputs=(Variable("run", {"type": "string"}),),
    steps=(
        step("look"),
        step(
            "note",
            Branch(parallel=True, steps=(step("note", text=Constant("left")), step("mark", text=Constant("right")))),
            text=Literal(),
        ),
        step("note", text=Key("memory_1_result")),
    ),
)


def answers(run: str) -> list[dict[str, Any]]:
    """What a model says in the Routine's turns that are not forced."""
    return [
        say("", ("note", {"run": "memory_input_run", "text": "middle"})),
        say(
            "",
            ("note", {"run": "memory_input_run", "text": "left"}),
            ("mark", {"run": "memory_input_run", "text": "right"}),
        ),
    ]


def effects(run: str) -> list[str]:
    """What stands in the ledger once a run is done."""
    return [f"look {run}", f"mark {run} right", f"note {run} left", f"note {run} look {run}", f"note {run} middle"]


def ledger_config(ledger: Path) -> ServerConfig:
    return ServerConfig("ledger", sys.executable, (SERVER,), {"LEDGER": str(ledger)})


class DyingStore(RunStore):
    """A store whose process is killed before (0) or after (1) an event is kept."""

    number, after, count = 0, 0, 0

    async def append(self, worker: str, run: str, event: RunEvent, values: Sequence[Stored] = ()) -> None:
        self.count += 1
        is_last = self.count == self.number  # others may be kept meanwhile
        if is_last and not self.after:
            os.kill(os.getpid(), signal.SIGKILL)
        await super().append(worker, run, event, values)
        if is_last and self.after:
            os.kill(os.getpid(), signal.SIGKILL)


async def work(url: str, base_url: str, ledger: Path, number: int, after: int, run: str = "") -> None:
    """Begin a run, or carry out whatever there is, until all are over; print how the last ended."""
    http = DefaultAsyncHttpxClient(trust_env=False)
    async with (
        await DyingStore.open(url) as store,
        ToolServers([ledger_config(ledger)]) as servers,
        AsyncOpenAI(base_url=base_url, api_key="none", http_client=http, max_retries=0) as client,
        Runs(store, servers, client, "m", settings=SETTINGS, lease_s=2.0, look_s=0.1) as runs,
    ):
        store.number, store.after = number, after
        begun = await runs.start(ROUTINE, inputs={"run": run}) if run else (await store.list_runs())[0].id
        async for kept in runs.follow(begun):
            if isinstance(kept.event, Ended):
                print(json.dumps([kept.event.status, kept.event.error]), flush=True)


if __name__ == "__main__":
    database, model, file, at, side, *new = sys.argv[1:]
    asyncio.run(work(database, model, Path(file), int(at), int(side), *new))
