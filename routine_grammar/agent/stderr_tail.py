"""The end of what a child process writes to standard error, read as it comes, so that a chatty one never blocks."""

from __future__ import annotations

import asyncio
import os

_TAIL_BYTES = 4096


class StderrTail:
    """What came last on a pipe whose write end, `file`, a process is given."""

    def __init__(self) -> None:
        self._read_end, write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        self.file = os.fdopen(write_end, "w")
        self._tail = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._read_end, self._receive)

    def text(self) -> str:
        """What came last, at most 4 KiB."""
        if not self.file.closed:
            self._receive()
        return self._tail.decode(errors="replace").strip()

    def close(self) -> None:
        """Read what is left; `text` stays."""
        self._receive()
        self._loop.remove_reader(self._read_end)
        self.file.close()
        os.close(self._read_end)

    def _receive(self) -> None:
        # Our own write end stays open, so an empty pipe blocks and never ends.
        try:
            while chunk := os.read(self._read_end, 65536):
                self._tail = (self._tail + chunk)[-_TAIL_BYTES:]
        except BlockingIOError:
            return
