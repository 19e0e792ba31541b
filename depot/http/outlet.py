"""A connection's socket while worker threads write to it past the event loop's transport.

Rules kept here:
- The transport has nothing buffered when the threads begin and writes nothing until they are done.
- asyncio does not watch a transport's own descriptor for others, so a duplicate of it is used; it
  is closed on every path.
- What waits in the kernel for a client that does not take it is bounded: without that it would be
  read, checked and copied for hundreds of slow readers, a few MiB for each, before anybody else.
- While the socket is full the event loop waits, not a thread, and only for a client that keeps the
  pace.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from aiohttp import web

from depot.errors import BodyTimeout, TooManyConnections
from depot.http.patience import unsent_bytes
from depot.os_errors import is_shortage
from depot.streams.budget import Budget
from depot.streams.sources import Pace, PaceMeter

_PACE_CHECK_S: Final = 1.0
_WAITING_BYTES: Final = 512 << 10
"""In the kernel, and not on the way yet: enough for a fast client until it is sent more."""


class Outlet:
    """The duplicated socket of one connection.

    Attributes:
        shared: a process that does not answer may have it too, so that to close it says nothing to
            the client.
        sent_bytes: what was sent through it, as far as whoever sends has said.
    """

    def __init__(self, sock: socket.socket, pace: Pace) -> None:
        self.socket = sock
        self.shared = False
        self.sent_bytes = 0
        self._pace = pace

    def is_local(self) -> bool:
        """Tell whether the client is on this machine, and has its address."""
        try:
            ours, theirs = self.socket.getsockname(), self.socket.getpeername()
        except OSError:  # it has ended
            return False
        return isinstance(ours, tuple) and bool(ours[0] == theirs[0])

    def cut(self) -> None:
        """End the connection, whoever has its socket."""
        with suppress(OSError):  # it has ended
            self.socket.shutdown(socket.SHUT_RDWR)

    @asynccontextmanager
    async def granted(self, budget: Budget, most_bytes: int) -> AsyncIterator[int]:
        """Have a step of a budget to send in the block: how many bytes, once it is time.

        What is not sent, however the block ends, is left to others.
        """
        size_bytes = await budget.grant(most_bytes)
        before_bytes = self.sent_bytes
        try:
            yield size_bytes
        finally:
            budget.give_back(size_bytes - (self.sent_bytes - before_bytes))

    async def writable(self) -> None:
        """Wait until the client takes more.

        Raises:
            BodyTimeout: it takes bytes too slowly, or none.
        """
        loop = asyncio.get_running_loop()
        room = asyncio.Event()
        meter = PaceMeter(self._pace, loop.time())
        waiting_bytes = unsent_bytes(self.socket.fileno())
        loop.add_writer(self.socket.fileno(), room.set)
        try:
            while not await _within(min(_PACE_CHECK_S, self._pace.idle_timeout_s), room):
                before_bytes, waiting_bytes = waiting_bytes, unsent_bytes(self.socket.fileno())
                if waiting_bytes < before_bytes:
                    meter.arrived(before_bytes - waiting_bytes, loop.time())
                else:
                    meter.check(loop.time())
        finally:
            loop.remove_writer(self.socket.fileno())


@asynccontextmanager
async def outlet(
    request: web.Request, response: web.StreamResponse, pace: Pace
) -> AsyncIterator[Outlet]:
    """Write the head of a response, and take over the output of its connection.

    Raises:
        ConnectionResetError: the connection is gone.
        BodyTimeout: the client does not take what was written before.
        TooManyConnections: no descriptor is left, and nothing was written.
    """
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client is gone")
    sock = _duplicate(transport)
    limit_waiting(sock)
    out = Outlet(sock, pace)
    try:
        await response.prepare(request)
        await _flush(request, transport, pace)
        yield out
    except BaseException:
        if out.shared:
            out.cut()
        raise
    else:
        if out.shared:
            _end(request, out)
    finally:
        sock.close()


def limit_waiting(sock: socket.socket) -> None:
    """Have a socket call itself full before its buffer is."""
    if sys.platform == "linux":
        with suppress(OSError):  # not TCP
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _WAITING_BYTES)


def _duplicate(transport: asyncio.Transport) -> socket.socket:
    sock: socket.socket = transport.get_extra_info("socket")
    try:
        return sock.dup()
    except OSError as error:
        if is_shortage(error):
            raise TooManyConnections("no descriptor is left for a large answer") from error
        raise


def _end(request: web.Request, out: Outlet) -> None:
    """End a connection after its answer: to close our own descriptor would not."""
    with suppress(OSError):  # it has ended
        out.socket.shutdown(socket.SHUT_WR)
    request.protocol.close()


async def _flush(request: web.Request, transport: asyncio.Transport, pace: Pace) -> None:
    transport.set_write_buffer_limits(high=0)
    try:
        async with asyncio.timeout(pace.idle_timeout_s):
            await request.writer.drain()
    except TimeoutError as error:
        raise BodyTimeout("the client takes nothing") from error
    finally:
        transport.set_write_buffer_limits()


async def _within(timeout_s: float, event: asyncio.Event) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            return await event.wait()
    except TimeoutError:
        return False
