"""What the protocol does with transports that real clients only have in a race."""

from __future__ import annotations

import asyncio
import errno

from aiohttp import web

from depot.errors import TooManyConnections
from depot.http.limits import HttpLimits
from depot.http.protocol import MAX_LINGERING, DepotServer


class ResetTransport(asyncio.Transport):
    """A connection that the client has reset before anybody looked at it."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: asyncio.BaseProtocol | None = None
        self.aborted = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def write(self, data: object) -> None:
        """The kernel takes it, and drops it."""

    def write_eof(self) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    def abort(self) -> None:
        self.aborted = True


async def handler(_: web.BaseRequest) -> web.Response:
    return web.Response()


async def test_refusing_a_client_that_is_gone_leaves_nothing_behind() -> None:
    server = DepotServer(web.Server(handler), HttpLimits())
    for _ in range(MAX_LINGERING + 1):
        transport = ResetTransport()
        server.refuse(transport, TooManyConnections("too many"))
        assert transport.aborted
        assert isinstance(transport.protocol, asyncio.Protocol), "refusals are no longer sent"
        transport.protocol.connection_lost(None)
    assert not server.lingering
