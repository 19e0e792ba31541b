"""What a client leaves of an answer that nobody waits for."""

from __future__ import annotations

import asyncio
import socket

import pytest

from depot.http.leftover import watch_leftover
from depot.streams.sources import Pace

ANSWER = bytes(1 << 20)


class Answering(asyncio.Protocol):
    """Sends more than fits into the sockets, and leaves it to be watched."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(ANSWER)
        assert transport.get_write_buffer_size(), "not enough to leave anything"
        watch_leftover(transport, self._pace)
        transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


@pytest.fixture
def ends() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return ours, theirs


async def answering(sock: socket.socket, pace: Pace) -> Answering:
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(lambda: Answering(pace), sock=sock)
    return protocol


async def test_s2_a_client_that_takes_nothing_is_cut_off(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    protocol = await answering(ours, Pace(idle_timeout_s=0.05, min_bytes_per_s=1))
    async with asyncio.timeout(10):
        await protocol.lost
    theirs.close()


async def test_a_client_that_keeps_the_pace_gets_everything(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    loop = asyncio.get_running_loop()
    protocol = await answering(ours, Pace(idle_timeout_s=0.5, min_bytes_per_s=1))
    received = 0
    while part := await loop.sock_recv(theirs, 64 << 10):
        received += len(part)
        await asyncio.sleep(0.01)  # it takes its time: longer than it may be silent, in all
    assert received == len(ANSWER)
    theirs.close()
    await protocol.lost
