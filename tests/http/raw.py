"""A client that speaks HTTP by hand, for what well-behaved ones never do."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from yarl import URL


@dataclass(frozen=True, slots=True)
class Answer:
    """One response, read off the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """`503 NoDataset`, or the status alone when it is a success."""
        return (
            f"{self.status} {self.json()['error_code']}" if self.status >= 400 else str(self.status)
        )


class RawClient:
    """One TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str) -> AsyncIterator[Self]:
        address = URL(url)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        try:
            yield cls(reader, writer)
        finally:
            writer.transport.abort()

    async def send(self, *lines: str, body: bytes = b"") -> None:
        """Send a head, line by line, with Host and the blank line added, and a body."""
        head = "\r\n".join([*lines, "Host: test", "", ""])
        await self.send_bytes(head.encode() + body)

    async def send_bytes(self, content: bytes) -> None:
        self.writer.write(content)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Read a response head: status, and headers by lower-case name."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        status_line, *lines = head.rstrip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return int(status_line.split()[1]), {k.lower(): v for k, v in headers.items()}

    async def answer(self, *, has_body: bool = True) -> Answer:
        """Read a whole response that has a Content-Length or comes in chunks."""
        status, headers = await self.head()
        if has_body and headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, await self.chunks())
        length = int(headers.get("content-length", 0)) if has_body else 0
        return Answer(status, headers, await self.reader.readexactly(length))

    async def chunks(self) -> bytes:
        """Read a body in chunks to its end; raises IncompleteReadError when it is cut short."""
        content = bytearray()
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            content += await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
        assert await self.reader.readexactly(2) == b"\r\n", "trailers"
        return bytes(content)

    def reset(self) -> None:
        """Be gone at once, as a client that crashed: the server's next read or write fails."""
        linger = struct.pack("ii", 1, 0)
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    async def rest(self) -> bytes:
        """Read until the server closes; a reset counts as a close."""
        content = b""
        try:
            while block := await self.reader.read(1 << 16):
                content += block
        except ConnectionResetError:
            pass
        return content
