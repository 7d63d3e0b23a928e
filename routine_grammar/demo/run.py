"""The demo: a real server, real MCP tools and a demo Routine carried out to its end, each turn shown as it happens.

Nothing comes from the network, and nothing outside a temporary folder is changed.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import openai
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from rich.console import Console

from routine_grammar.agent.execution import Finished, RunSettings, TurnTaken, execute
from routine_grammar.agent.tools import ServerConfig, ToolServers
from routine_grammar.api import CompiledRoutine, compile_routine
from routine_grammar.console import Waiting, make_console
from routine_grammar.demo.catalogue import demo_routines
from routine_grammar.demo.repository import throwaway_repository
from routine_grammar.demo.server import model_server
from routine_grammar.demo.view import show_beginning, show_end, show_turn
from routine_grammar.errors import RoutineError, RunError, ToolError
from routine_grammar.masks.vocabulary import Vocabulary
from routine_grammar.routine import MemoryKey, Routine
from routine_grammar.routine.problems import nearest

DEFAULT_ROUTINE = "repository_review"
_SERVERS = {"repository_review": ("git", "time"), "meeting_times": ("time",)}
_MAX_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Model:
    """A served model; `folder` is where its files lie, if the server runs on this machine."""

    name: str
    folder: Path | None

    @property
    def is_demo(self) -> bool:
        """Whether it is the demo model, whose free text is noise."""
        return self.folder is not None and self.folder.name.startswith("demo-model-")


def run_demo(base_url: str | None = None, routine: str = DEFAULT_ROUTINE, console: Console | None = None) -> None:
    """Carry out a demo Routine against the server at `base_url`, or against one started for it, and show every turn.

    Raises `RoutineGrammarError`s, and `KeyboardInterrupt` where it is stopped; all processes it started have ended by then.
    """
    asyncio.run(_demo(_demo_routine(routine), base_url, console or make_console()))


async def _demo(routine: Routine, base_url: str | None, console: Console) -> None:
    stopped = _stop_on_sigterm()
    try:
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="routine_grammar_")))
            servers, inputs = await stack.enter_async_context(_tools(routine, folder))
            url = base_url or await stack.enter_async_context(_own_server(console))
            http = DefaultAsyncHttpxClient(trust_env=base_url is not None)
            key = os.environ.get("OPENAI_API_KEY") or "none"
            client = await stack.enter_async_context(AsyncOpenAI(base_url=url, api_key=key, http_client=http))
            await carry_out(routine, servers, client, inputs, console)
    except asyncio.CancelledError:
        if stopped.is_set():
            raise KeyboardInterrupt from None
        raise


async def carry_out(
    routine: Routine, servers: ToolServers, client: AsyncOpenAI, inputs: Mapping[str, Any], console: Console
) -> None:
    """Carry out a Routine with these tools and show every turn; raises what `execute` raises."""
    model = await _served_model(client)
    counter = _forced_counter(routine, servers, model, console)
    show_beginning(console, routine, f"model {model.name} at {client.base_url}")
    settings = RunSettings(
        closing_answer=not model.is_demo,
        skip_forced=False,  # a demo shows how they are decoded
        token_ids=True,
        request={"max_completion_tokens": _MAX_TOKENS},
    )
    started = time.monotonic()
    turns: list[TurnTaken] = []
    forced: list[int | None] = []
    async for event in execute(routine, servers, client, model.name, inputs=inputs, settings=settings):
        if isinstance(event, Finished):
            show_end(console, turns, event, forced, time.monotonic() - started)
        else:
            turns.append(event)
            forced.append(counter(event))
            show_turn(console, event, forced[-1])


def _forced_counter(
    routine: Routine, servers: ToolServers, model: Model, console: Console
) -> Callable[[TurnTaken], int | None]:
    """Return what counts a turn's forced tokens; without the model's tokenizer at hand it knows none."""
    if model.folder is None or not (model.folder / "tokenizer.json").is_file():
        return lambda event: None
    compiled: CompiledRoutine = compile_routine(routine, servers.tools)
    with Waiting(console, "loading the model's tokenizer") if console.is_terminal else nullcontext():
        vocabulary = _vocabulary(model.folder)

    def count(event: TurnTaken) -> int | None:
        if not event.token_ids:
            return None
        # The server was told the types of the keys, not their values.
        keys = [MemoryKey(key.name, key.schema) for key in event.live_keys]
        return compiled.turn(event.position, keys).matcher(vocabulary).count_forced(event.token_ids)

    return count


def _vocabulary(folder: Path) -> Vocabulary:
    """The vocabulary of a model's folder, with all the tokens that its configuration lets end a text."""
    from transformers import AutoTokenizer

    vocabulary = Vocabulary.from_tokenizer(AutoTokenizer.from_pretrained(folder, local_files_only=True))
    settings = folder / "generation_config.json"
    ends = json.loads(settings.read_text(encoding="utf-8")).get("eos_token_id") if settings.is_file() else None
    more = ends if isinstance(ends, list) else [] if ends is None else [ends]
    return replace(vocabulary, eos=(*vocabulary.eos, *more))


async def _served_model(client: AsyncOpenAI) -> Model:
    try:
        models = (await client.models.list()).data
    except openai.OpenAIError as error:
        raise RunError(f"no model server answers at {client.base_url}: {error}") from error
    if not models:
        raise RunError(f"the server at {client.base_url} serves no model")
    root = (models[0].model_extra or {}).get("root")
    folder = Path(root) if isinstance(root, str) and Path(root).is_dir() else None
    return Model(models[0].id, folder)


@asynccontextmanager
async def _own_server(console: Console) -> AsyncIterator[str]:
    async with AsyncExitStack() as stack:
        with Waiting(console, "starting the model server on this machine") as waiting:
            url = await stack.enter_async_context(model_server(waiting.update))
        yield url


@asynccontextmanager
async def _tools(routine: Routine, folder: Path) -> AsyncIterator[tuple[ToolServers, dict[str, Any]]]:
    """Start the MCP servers that a demo Routine uses, and make what it works on."""
    require_packages("mcp_server_git", "mcp_server_time")
    configs = [ServerConfig("time", sys.executable, ("-m", "mcp_server_time", "--local-timezone", "Etc/UTC"))]
    inputs: dict[str, Any] = {"first_office": "Europe/Berlin", "second_office": "America/New_York"}
    if "git" in _SERVERS[routine.name]:
        repository = throwaway_repository(folder)
        configs.append(ServerConfig("git", sys.executable, ("-m", "mcp_server_git", "--repository", str(repository))))
        inputs = {"repo_path": str(repository), "narrow_view": 1, "wide_view": 8}
    async with ToolServers(configs) as servers:
        yield servers, inputs


def require_packages(*modules: str) -> None:
    """Raise `ToolError` naming what to install where one of these modules is missing."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        packages = " ".join(module.replace("_", "-") for module in modules)
        raise ToolError(f"the demo's tools are missing ({', '.join(missing)}); install them: pip install {packages}")


def _demo_routine(name: str) -> Routine:
    runnable = {routine.name: routine for routine in demo_routines() if routine.name in _SERVERS}
    if name not in runnable:
        near = nearest(name, runnable)
        hint = f"; did you mean {near!r}?" if near else ""
        raise RoutineError(f"there is no demo of a Routine {name[:80]!r}; there are {', '.join(runnable)}{hint}")
    return runnable[name]


def _stop_on_sigterm() -> asyncio.Event:
    """Cancel the running task at SIGTERM, so that what it started is stopped; the event tells that this was why."""
    stopped = asyncio.Event()
    task = asyncio.current_task()
    assert task is not None

    def stop() -> None:
        stopped.set()
        task.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    return stopped
