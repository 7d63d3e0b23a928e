"""The demo's own model server: started as a subprocess, waited for, and stopped with all its children."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx

from routine_grammar.errors import EngineError, RoutineGrammarError

START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 10.0
_POLL_S = 0.25
_TAIL_BYTES = 32768
_TAIL_LINES = 25
# What native libraries say when a process ends, whatever the reason.
_NOISE = re.compile(r"^- leaked |^nanobind: |^- \.\.\. skipped|^See https://nanobind|resource_tracker")
_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

Progress = Callable[[float, str], None]


@asynccontextmanager
async def model_server(
    progress: Progress, command: Sequence[str] | None = None, *, start_timeout_s: float = START_TIMEOUT_S
) -> AsyncIterator[str]:
    """Start the model server on a free port of 127.0.0.1; gives its base URL, and stops it at the end of the block.

    `command` (default: this package's server) is started with `--port <n>`. `progress` gets the elapsed seconds and the
    last line of its log, a few times a second. Raises `EngineError` with the end of its log where it does not answer within
    `start_timeout_s`, or ends before the block does.
    """
    port = _free_port()
    command = (*(command or (sys.executable, "-m", "routine_grammar.serve")), "--port", str(port))
    with tempfile.TemporaryDirectory(prefix="routine_grammar_") as folder:
        log = Path(folder) / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            base_url = f"http://127.0.0.1:{port}/v1"
            await _wait_until_ready(process, log, base_url, progress, start_timeout_s)
            try:
                yield base_url
            except RoutineGrammarError as error:
                if process.poll() is None:
                    raise
                what = f"ended with status {process.returncode} ({error})"
                raise EngineError(_failure(what, process, _last_lines(log))) from error
            except Exception as error:
                error.add_note(_failure("was in use", process, _last_lines(log)))
                raise
        finally:
            _stop(process)


async def _wait_until_ready(
    process: subprocess.Popen[bytes], log: Path, base_url: str, progress: Progress, start_timeout_s: float
) -> None:
    started = time.monotonic()
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        while True:
            elapsed = time.monotonic() - started
            lines = _last_lines(log)
            progress(elapsed, lines[-1] if lines else "")
            if process.poll() is not None:
                raise EngineError(_failure(f"ended with status {process.returncode}", process, lines))
            if elapsed > start_timeout_s:
                raise EngineError(_failure(f"did not answer within {start_timeout_s:g} s", process, lines))
            with suppress(httpx.HTTPError):
                if (await client.get(f"{base_url}/models")).status_code in (httpx.codes.OK, httpx.codes.UNAUTHORIZED):
                    return
            await asyncio.sleep(_POLL_S)


def _failure(what: str, process: subprocess.Popen[bytes], lines: Sequence[str]) -> str:
    command = " ".join(str(part) for part in process.args) if isinstance(process.args, tuple) else str(process.args)
    return "\n".join((f"the model server ({command}) {what}; the end of its log:", *(f"  {line}" for line in lines)))


def _last_lines(log: Path) -> list[str]:
    """The last lines of a log that say something, without colours."""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        text = file.read().decode(errors="replace")
    lines = (_ESCAPE_SEQUENCE.sub("", line).strip() for line in text.replace("\r", "\n").splitlines())
    return [line for line in lines if line and not _NOISE.search(line)][-_TAIL_LINES:]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the server's whole process group to end, then end it; also where a second Ctrl-C comes meanwhile."""
    try:
        # Ended by force it leaves its shared memory behind.
        for number in (signal.SIGINT, signal.SIGTERM):
            _signal_group(process, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT_S)
                break
    finally:
        _signal_group(process, signal.SIGKILL)
        process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    # The group has the server's id, and lives on in the server's children when the server itself has ended.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
