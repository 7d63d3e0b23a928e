"""The servers that are measured: started here, or named by a URL; their counters and the memory of their processes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import aiohttp
import psutil

from routine_grammar.demo.model import demo_model_path
from routine_grammar.demo.server import model_server

MAX_SEQUENCES = 128
MODEL = "benchmark"
# vLLM's counters: tokens decoded, which every server has that counts, tokens proposed, and those of them that were accepted.
_COUNTERS = {
    "decoded": "vllm:generation_tokens_total",
    "drafted": "vllm:spec_decode_num_draft_tokens_total",
    "accepted": "vllm:spec_decode_num_accepted_tokens_total",
}
# One thread each: the models are small, and servers, engines and clients share the processor.
_ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING", "OMP_NUM_THREADS": "1"}
# The model runs in the engine's process: an engine and a worker of its own wait for each other in busy loops, which on few
# cores leave none to the server. Named by its class, since vLLM takes "uni" for "mp" on CPUs.
_EXECUTOR = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
# Of our plugins only the one that lets vLLM start beside packages that its build can't load.
_WITHOUT_OURS = "VLLM_PLUGINS=routine_grammar_environment"
_VLLM = "vllm.entrypoints.launchers.api_server.entry"  # `vllm serve` does not start where only its CPU build is installed
# The messages alone: every arm has the same prompt, also where a request brings its tools.
_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}"
    "{{ '<|im_start|>assistant\n' }}"
)


class Kind(StrEnum):
    """A server by how it was started: vLLM's own with one of its backends, or ours by its drafts."""

    XGRAMMAR = "xgrammar"
    GUIDANCE = "guidance"
    UNDRAFTED = "undrafted"
    DRAFTED = "drafted"
    ANY_SPELLING = "any spelling"
    DRAFTS_4 = "4 drafts"
    DRAFTS_8 = "8 drafts"
    DRAFTS_32 = "32 drafts"
    DRAFTS_64 = "64 drafts"


NUMBERS_OF_DRAFTS = {Kind.DRAFTS_4: 4, Kind.DRAFTS_8: 8, Kind.DRAFTS_32: 32, Kind.DRAFTS_64: 64}


@dataclass(frozen=True, slots=True)
class Server:
    """A server's base URL `…/v1`, the model that it serves, and its first process, where it was started here."""

    url: str
    model: str
    process: int | None = None

    async def counters(self, http: aiohttp.ClientSession) -> dict[str, float]:
        """vLLM's counters, over all engines; without those that the server does not have."""
        async with http.get(f"{self.url.removesuffix('/v1')}/metrics") as response:
            text = await response.text() if response.status == 200 else ""
        found = {}
        for name, metric in _COUNTERS.items():
            values = re.findall(rf"^{re.escape(metric)}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
            if values:
                found[name] = sum(map(float, values))
        return found

    def memory_bytes(self) -> int | None:
        """Memory of all the server's processes, what they share counted once."""
        if self.process is None:
            return None
        first = psutil.Process(self.process)
        return sum(int(process.memory_full_info().pss) for process in (first, *first.children(recursive=True)))


def command(kind: Kind, model: Path | None, drafts: int | None) -> Sequence[str]:
    """What starts a server of a kind; without a model: the demo's. vLLM's own has none of our patches."""
    flags = ["--model", str(model or demo_model_path()), "--served-model-name", MODEL, "--dtype", "float32", "--enforce-eager"]
    flags += ["--distributed-executor-backend", _EXECUTOR]
    flags += ["--chat-template", _TEMPLATE, "--tool-call-parser", "hermes"]
    flags += ["--max-num-seqs", str(MAX_SEQUENCES), "--max-model-len", "4096", "--uvicorn-log-level", "warning"]
    if model is not None:  # whose prompts are longer: a chunk of one, under a seed, ends vLLM's own engine on CPUs
        flags += ["--max-num-batched-tokens", "8192"]
    if kind in (Kind.XGRAMMAR, Kind.GUIDANCE):
        flags += ["--structured-outputs-config", json.dumps({"backend": str(kind)}), "--enable-auto-tool-choice"]
        return ("env", _WITHOUT_OURS, sys.executable, "-m", _VLLM, *flags, "--host", "127.0.0.1")
    if kind is Kind.ANY_SPELLING:
        flags += ["--routine-spelling", "any"]
    if kind is Kind.UNDRAFTED or kind in NUMBERS_OF_DRAFTS:
        flags += ["--routine-drafts", str(NUMBERS_OF_DRAFTS.get(kind, 0))]
    elif drafts is not None:
        flags += ["--routine-drafts", str(drafts)]
    return (sys.executable, "-m", "routine_grammar.serve", *flags)


@asynccontextmanager
async def started(kinds: Sequence[Kind], model: Path | None, drafts: int | None) -> AsyncIterator[Mapping[Kind, Server]]:
    """A server of each kind, all running side by side; raises `EngineError` where one does not start."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    async with AsyncExitStack() as stack:
        starts = [
            asyncio.ensure_future(stack.enter_async_context(model_server(lambda s, line: None, command(kind, model, drafts))))
            for kind in kinds
        ]
        try:
            urls = await asyncio.gather(*starts)
        except BaseException:
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)
            raise
        yield {kind: Server(url, MODEL, _process_of(url)) for kind, url in zip(kinds, urls, strict=True)}


def _process_of(url: str) -> int | None:
    """The first process that was told to listen on a URL's port."""
    (port,) = re.findall(r":(\d+)/", url)
    for child in psutil.Process().children():
        if "--port" in (line := child.cmdline()) and line[line.index("--port") + 1] == port:
            return int(child.pid)
    return None
