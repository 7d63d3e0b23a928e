"""Embedded use: a plain vLLM server, started as vLLM's users start it, beside which this package is merely installed."""

from __future__ import annotations

import asyncio
import sys

import httpx
import pytest

from routine_grammar.api import CompiledRoutine
from routine_grammar.demo.model import demo_model_path
from routine_grammar.demo.server import model_server

pytestmark = [pytest.mark.server, pytest.mark.filterwarnings("ignore")]


def test_a_plain_server_takes_our_grammars(demo: dict[str, CompiledRoutine], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1"]
    command += ["--model", str(demo_model_path()), "--served-model-name", "m", "--enforce-eager", "--max-model-len", "2048"]
    turn = demo["meeting_times"].turn(None, ["memory_input_first_office", "memory_input_second_office"])
    ask = {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 300}

    async def use() -> None:
        async with model_server(lambda elapsed_s, line: None, command) as url, httpx.AsyncClient(timeout=60) as client:

            async def chat(**changes: object) -> httpx.Response:
                return await client.post(f"{url}/chat/completions", json={**ask, **changes})

            good = await chat(structured_outputs={"grammar": turn.payload})
            assert turn.accepts(good.json()["choices"][0]["message"]["content"])
            for stream in (False, True):
                bad = await chat(structured_outputs={"grammar": "routine_grammar:nonsense"}, stream=stream)
                assert bad.status_code == 400
                assert "malformed grammar text" in bad.text
            refused = await chat(routine={"name": "meeting_times"})
            assert refused.status_code == 400
            assert "is not served here" in refused.text
            assert (await chat(structured_outputs={"choice": ["yes"]})).json()["choices"][0]["message"]["content"] == "yes"

    asyncio.run(use())
