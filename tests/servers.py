"""Real server processes for tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from routine_grammar.demo.server import model_server

ONE_CORE = "VLLM_CPU_OMP_THREADS_BIND"  # where it is set, there may be no more than one engine


@contextmanager
def running_server(command: Sequence[str] | None = None) -> Iterator[str]:
    """A server process, the demo's by default: its base URL, `…/v1`. It ends with the block."""
    started, stop, address = threading.Event(), threading.Event(), list[str]()
    failure: list[BaseException] = []

    async def serve() -> None:
        async with model_server(lambda elapsed_s, line: None, command) as url:
            address.append(url)
            started.set()
            await asyncio.to_thread(stop.wait)

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failure.append(error)
            started.set()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    if failure:
        raise failure[0]
    try:
        yield address[0]
    finally:
        stop.set()
        thread.join()
