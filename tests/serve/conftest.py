from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from routine_grammar.demo.server import model_server


@pytest.fixture(scope="session")
def base_url() -> Iterator[str]:
    """A real server process with the demo model: its base URL, `…/v1`."""
    started, stop, address = threading.Event(), threading.Event(), list[str]()
    failure: list[BaseException] = []

    async def serve() -> None:
        async with model_server(lambda elapsed_s, line: None) as url:
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
    yield address[0]
    stop.set()
    thread.join()
