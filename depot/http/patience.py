"""How long a client may take over an answer: for as long as it keeps the pace.

Progress is what the client's side has acknowledged, not what fitted into the kernel: room in a
large send buffer shows in steps that a slow but honest reader takes minutes for.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from depot.errors import BodyTimeout
from depot.streams.sources import Pace, PaceMeter

_CHECK_S: Final = 1.0


def unsent_bytes(fd: int) -> int:
    """What of the bytes written to a socket its other side has not acknowledged."""
    count = array.array("i", [0])
    try:
        fcntl.ioctl(fd, termios.TIOCOUTQ, count)
    except OSError:
        return 0  # Not every system tells; then only room in the buffer counts as progress.
    return count[0]


@asynccontextmanager
async def patience(request: web.Request, pace: Pace) -> AsyncIterator[None]:
    """Bound the time that the block takes to write an answer through the event loop.

    Raises:
        TimeoutError: the client takes it too slowly, or not at all.
    """
    async with asyncio.timeout(None) as limit:
        watch = _Watch(request, pace, limit)
        try:
            yield
        finally:
            watch.stop()


class _Watch:
    def __init__(self, request: web.Request, pace: Pace, limit: asyncio.Timeout) -> None:
        self._loop = asyncio.get_running_loop()
        self._request = request
        self._limit = limit
        self._meter = PaceMeter(pace, self._loop.time())
        self._check_s = min(_CHECK_S, pace.idle_timeout_s)
        self._taken_bytes = 0
        self._timer = self._loop.call_later(self._check_s, self._look)

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now_s = self._loop.time()
        before_bytes, self._taken_bytes = self._taken_bytes, self._count_taken()
        try:
            if self._taken_bytes > before_bytes:
                self._meter.arrived(self._taken_bytes - before_bytes, now_s)
            else:
                self._meter.check(now_s)
        except BodyTimeout:
            self._limit.reschedule(now_s)
        else:
            self._timer = self._loop.call_later(self._check_s, self._look)

    def _count_taken(self) -> int:
        transport = self._request.transport
        if transport is None or transport.is_closing():
            return self._taken_bytes
        in_kernel_bytes = unsent_bytes(transport.get_extra_info("socket").fileno())
        waiting_bytes = transport.get_write_buffer_size() + in_kernel_bytes
        return self._request.writer.output_size - waiting_bytes
