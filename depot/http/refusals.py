"""Refusals on connections that have no request: over a limit, or with a head that never came.

Rules kept here:
- A connection that is closed with unread bytes is reset, and the client then never sees the answer;
  so what it still sends is taken in and dropped, within bounds of time and bytes.
- No more than `MAX_LINGERING` connections are kept for that; the next ones are just closed (S1).
"""

from __future__ import annotations

import asyncio
from typing import Final
from uuid import uuid4

from depot.errors import DepotError
from depot.http.limits import HttpLimits
from depot.http.problems import problem_bytes

MAX_LINGERING: Final = 64


class Refusals:
    """The refused connections of one server that are still open."""

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._lingering: set[_LastWords] = set()

    @property
    def lingering(self) -> int:
        """How many there are."""
        return len(self._lingering)

    def send(self, transport: asyncio.Transport, error: DepotError) -> None:
        """Answer `error` on a connection, and close it."""
        if len(self._lingering) >= MAX_LINGERING:
            transport.abort()
            return
        _LastWords(transport, error, self._limits, self._lingering)

    def hush(self) -> None:
        """Close every one now."""
        for words in tuple(self._lingering):
            words.abort()


class _LastWords(asyncio.Protocol):
    """Takes over a connection to send one refusal and to read on for a moment."""

    def __init__(
        self,
        transport: asyncio.Transport,
        error: DepotError,
        limits: HttpLimits,
        lingering: set[_LastWords],
    ) -> None:
        self._transport = transport
        self._lingering = lingering
        self._left_bytes = limits.refused_drain_bytes
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(limits.refused_drain_s, transport.abort)
        lingering.add(self)
        transport.set_protocol(self)
        transport.write(problem_bytes(error, uuid4().hex))
        try:
            transport.write_eof()
        except OSError:  # the client is gone already
            transport.abort()

    def abort(self) -> None:
        """Close the connection now."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Drop `data`; close when it is too much."""
        self._left_bytes -= len(data)
        if self._left_bytes <= 0:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._timer.cancel()
        self._lingering.discard(self)
