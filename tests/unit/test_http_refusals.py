"""Refusals on transports that real clients only have in a race."""

from __future__ import annotations

import asyncio
import errno

from depot.errors import TooManyConnections
from depot.http.limits import HttpLimits
from depot.http.refusals import MAX_LINGERING, Refusals


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


async def test_refusing_a_client_that_is_gone_leaves_nothing_behind() -> None:
    refusals = Refusals(HttpLimits())
    for _ in range(MAX_LINGERING + 1):
        transport = ResetTransport()
        refusals.send(transport, TooManyConnections("too many"))
        assert transport.aborted
        assert isinstance(transport.protocol, asyncio.Protocol), "refusals are no longer sent"
        transport.protocol.connection_lost(None)
    assert not refusals.lingering
