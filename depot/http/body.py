"""Bodies as blocking sources: read past the HTTP library where that can be done safely.

A large body of known length on a plain socket is taken over: the library's reading is paused, what
it has buffered becomes the source's prefix, and the rest is received straight into the ingest's
blocks by a worker thread. The connection is of no further use to the library, so it is closed after
the answer. Every other body goes through the library, one hop to the event loop a block; so does
one for which there is no descriptor left.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from aiohttp import ClientPayloadError, ClientResponse, StreamReader, web
from aiohttp.base_protocol import BaseProtocol

from depot.errors import BodyTimeout, LengthMismatch, UnsupportedEncoding
from depot.http.limits import HttpLimits
from depot.http.requests import BODY_TAKEN, content_coding
from depot.os_errors import is_shortage
from depot.streams.sources import Pace, SocketSource, Source, StreamSource, ZstdSource

TAKEOVER_FROM_BYTES: Final = 1 << 20
_DRAIN_BLOCK_BYTES: Final = 64 << 10


def decoded_length(request: web.Request) -> int | None:
    """How many bytes of artifact the body announces; None when that is not known.

    Raises:
        UnsupportedEncoding: it has a content coding that is not decoded here.
    """
    return request.content_length if _coding(request) == "identity" else None


@asynccontextmanager
async def request_body(request: web.Request, limits: HttpLimits) -> AsyncIterator[Source]:
    """Give a request's body, decoded, as a source for the block.

    Raises:
        UnsupportedEncoding: see `decoded_length`.
    """
    zstd = _coding(request) == "zstd"
    length_bytes = request.content_length
    transport = request.transport
    taken = None
    if transport is not None and _can_take_over(transport, length_bytes):
        taken = _own_socket(transport)
    if taken is not None:
        assert length_bytes is not None
        source = _take_over(request.content, request.protocol, taken, length_bytes, limits.pace)
        request[BODY_TAKEN] = True
        try:
            yield ZstdSource(source) if zstd else source
        except BaseException:
            await asyncio.to_thread(_drain, source, limits)
            raise
        finally:
            source.close()
    else:
        stream = _stream(request.content, limits.pace, length_bytes)
        yield ZstdSource(stream) if zstd else stream


@asynccontextmanager
async def response_body(
    response: ClientResponse, length_bytes: int | None, pace: Pace
) -> AsyncIterator[Source]:
    """Give a response's body as a source for the block; `length_bytes` None: not known.

    The body must have no content coding. The connection is closed afterwards.
    """
    connection = response.connection
    transport = None if connection is None else connection.transport
    protocol = None if connection is None else connection.protocol
    source: SocketSource | StreamSource
    taken = None
    if transport is not None and protocol is not None and _can_take_over(transport, length_bytes):
        taken = _own_socket(transport)
    if taken is not None:
        assert protocol is not None
        assert length_bytes is not None
        source = _take_over(response.content, protocol, taken, length_bytes, pace)
    else:
        source = _stream(response.content, pace, length_bytes)
    try:
        yield source
    finally:
        source.close()
        response.close()


def _coding(request: web.Request) -> str:
    coding = content_coding(request)
    if coding not in ("identity", "zstd"):
        raise UnsupportedEncoding(
            f"Content-Encoding: expected none, identity or zstd, found {coding[:80]!r}"
        )
    return coding


def _can_take_over(transport: asyncio.BaseTransport, length_bytes: int | None) -> bool:
    return (
        length_bytes is not None
        and length_bytes >= TAKEOVER_FROM_BYTES
        and transport.get_extra_info("sslcontext") is None
        and transport.get_extra_info("socket") is not None
        and not transport.is_closing()
    )


def _own_socket(transport: asyncio.BaseTransport) -> socket.socket | None:
    """A duplicate of a connection's socket; None where no descriptor is left for one."""
    try:
        return socket.socket(fileno=socket.dup(transport.get_extra_info("socket").fileno()))
    except OSError as error:
        if is_shortage(error):
            return None
        raise


def _take_over(
    content: StreamReader,
    protocol: BaseProtocol,
    sock: socket.socket,
    length_bytes: int,
    pace: Pace,
) -> SocketSource:
    # No await between emptying the buffer and pausing: nothing can arrive in between. Reading may
    # let the parser hand on more of what it has, so the buffer is read until it stays empty.
    prefix = bytearray()
    try:
        while not content.at_eof() and (block := content.read_nowait()):
            prefix += block
    except BaseException:  # the body has ended badly already
        sock.close()
        raise
    protocol.pause_reading()
    return SocketSource(sock, bytes(prefix), length_bytes, pace)


def _stream(content: StreamReader, pace: Pace, length_bytes: int | None) -> StreamSource:
    async def read(size_bytes: int) -> bytes:
        try:
            return await content.read(size_bytes)
        except ClientPayloadError as error:
            raise ConnectionResetError(f"the body was broken off: {error}") from error

    return StreamSource(asyncio.get_running_loop(), read, pace, length_bytes)


def _drain(source: SocketSource, limits: HttpLimits) -> None:
    # A socket closed with unread bytes resets the connection, and the refusal with it.
    buffer = memoryview(bytearray(_DRAIN_BLOCK_BYTES))
    left_bytes = limits.refused_drain_bytes
    source.set_pace(Pace(idle_timeout_s=limits.refused_drain_s / 2, min_bytes_per_s=0))
    with suppress(BodyTimeout, LengthMismatch, OSError):
        while left_bytes > 0 and (count := source.readinto(buffer)):
            left_bytes -= count
