"""A source that stops before its first byte until the test decides what it sends."""

from __future__ import annotations

import asyncio
import threading

WAIT_S = 30.0
"""Ends a test that forgot to open a gate; it measures nothing."""


class GatedSource:
    """Says when it is first read, then waits for `send` or `fail`.

    What an ingest asked for before an abort still arrives: the read was under way.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.reading = asyncio.Event()
        self.aborted = False
        self._loop = loop
        self._gate = threading.Event()
        self._left = memoryview(b"")
        self._error: OSError | None = None

    def send(self, content: bytes) -> None:
        """Open the gate: these bytes and the end."""
        self._left = memoryview(content)
        self._gate.set()

    def fail(self, content: bytes, error: OSError) -> None:
        """Open the gate: these bytes and then an error."""
        self._error = error
        self.send(content)

    def readinto(self, buffer: memoryview, /) -> int:
        self._loop.call_soon_threadsafe(self.reading.set)
        assert self._gate.wait(WAIT_S), "nobody opened the gate"
        part, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(part)] = part
        if not part and self._error:
            raise self._error
        return len(part)

    def abort(self) -> None:
        self.aborted = True
