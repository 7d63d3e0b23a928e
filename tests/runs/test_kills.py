"""A worker is killed before and after every event of a run, and another one takes the run up: every effect is counted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from itertools import chain, repeat
from pathlib import Path

import pytest

from routine_grammar.agent.events import Called
from routine_grammar.errors import JournalError
from routine_grammar.runs.store import RunStore
from tests.agent.model_server import model_server
from tests.runs.ledger import answers, effects
from tests.scale import SCALE

pytestmark = pytest.mark.asyncio
EVENTS = (
    14  # of the Routine's run: four turns of what was decided, called and answered, one of them with two calls, and the end
)


def worker(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.runs.ledger", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("after", [0, 1], ids=["before", "after"])
@pytest.mark.parametrize("number", range(1, EVENTS + 1) if SCALE > 1 else (2, 4, 10))
async def test_no_effect_is_lost_or_doubled(url: str, tmp_path: Path, number: int, after: int) -> None:
    ledger = tmp_path / "ledger"
    middle, both = answers("a")
    # Whoever asks again gets the same answer: what was decided and kept is not asked for again.
    played = chain([middle], [middle] if (number, after) == (4, 0) else [], repeat(both))
    with model_server(played, routines=[{"name": "ledger"}]) as server:
        killed = worker(url, server.base_url, ledger, number, after, "a")
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        again = worker(url, server.base_url, ledger, 0, 0)
    assert again.returncode == 0, again.stderr
    status, error = json.loads(again.stdout.splitlines()[-1])
    lines = ledger.read_text().splitlines()
    unrepeatable = [line for line in lines if line.startswith("note")]
    assert len(unrepeatable) == len(set(unrepeatable))  # none doubled
    async with await RunStore.open(url) as store:
        (record,) = await store.list_runs()
        called = [kept.event for kept in await store.events(record.id) if isinstance(kept.event, Called)]
        assert record.status == status
        if status == "in doubt":
            assert "under way when its worker ended" in error
            assert "(note)" in error
            assert set(lines) <= set(effects("a"))
            with pytest.raises(JournalError, match="there is no run"):
                await store.resume("run_0")
            return
    assert status == "done"
    assert set(lines) == set(effects("a"))  # none lost
    assert len(called) >= len(effects("a"))
