"""A server of two front ends and two engines: conversations go on at any of them, in every form of a Routine."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from routine_grammar.agent.calls import CheckedCall
from routine_grammar.agent.chat import RoutineChat
from routine_grammar.agent.tools import ToolResult
from routine_grammar.demo.server import model_server
from tests.scale import SCALE
from tests.servers import ONE_CORE

pytestmark = [
    pytest.mark.server,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(SCALE == 1, reason="two engines and two front ends take minutes to start: a drill"),
]

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
PAGES = {"pages": [{"id": f"page {number}", "owner": f"owner {number}"} for number in range(3)]}
MODEL = "routine-demo"


def answer_of(call: CheckedCall) -> ToolResult:
    """What the tools of the example say; the second page can't be read."""
    if call.step.tool == "list_pages":
        return ToolResult(json.dumps(PAGES), PAGES)
    if call.step.tool == "read_page" and call.arguments["id"] == "page 1":
        return ToolResult("no such page", is_error=True)
    return ToolResult("done")


def carried_out(base_url: str, number: int) -> Counter[str]:
    """Carry the example out, every second time streamed; count its steps."""
    client = openai.OpenAI(base_url=base_url, api_key="none")
    described = client.get("/routines/stale_pages", cast_to=object)
    chat = RoutineChat.from_server(described, inputs={"wiki": "garden"})
    done: Counter[str] = Counter()
    while chat.answer is None:
        asked: dict[str, Any] = chat.request(model=MODEL, max_tokens=300, parallel_tool_calls=number % 3 > 0)
        if number % 2:
            with client.chat.completions.stream(**asked) as stream:
                stream.until_done()
                calls = chat.read(stream.get_final_completion())
        else:
            calls = chat.read(client.chat.completions.create(**asked))
        assert len(calls) <= 1 or number % 3 > 0
        for call in calls:
            chat.give(call, answer_of(call))
        done.update(call.step.id for call in calls)
    return done


def test_every_form_is_carried_out_at_any_front_end_and_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ONE_CORE, raising=False)
    for name in ("stale_pages.yaml", "close_round.yaml"):
        shutil.copy(EXAMPLES / name, tmp_path)
    command = [sys.executable, "-m", "routine_grammar.serve", "--api-server-count", "2", "--data-parallel-size", "2"]
    command += ["--routines", str(tmp_path), "--tools", str(EXAMPLES / "wiki_tools.json")]

    async def use() -> None:
        async with model_server(lambda elapsed_s, line: None, command) as base_url:
            with ThreadPoolExecutor(6) as pool:
                loop = asyncio.get_running_loop()
                runs = [loop.run_in_executor(pool, carried_out, base_url, number) for number in range(6)]
                for done in await asyncio.gather(*runs):
                    assert (done["1"], done["1-1_1"], done["1-1_1-1_1"], done["2-1_1"], done["3-1_1"]) == (1, 3, 1, 1, 1)
                    assert done["1-1_1-2_1"] <= 2
                    assert done["2-1_2"] <= 1

    asyncio.run(use())
