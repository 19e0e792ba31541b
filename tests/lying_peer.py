"""A depot that answers by script, truthfully or not: raw bytes, no HTTP library to keep it honest.

An `Answer` gets the request and the connection. What an answer does not close stays open until the
client hangs up, so a stall is a wait for the client and never a sleep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

from depot.artifact import ArtifactHash


@dataclass(frozen=True, slots=True)
class Request:
    """What the peer was asked, header names in lower case."""

    path: str
    headers: dict[str, str]

    @property
    def offset(self) -> int:
        """First byte of the range asked for."""
        return int(self._range[0])

    @property
    def end(self) -> int | None:
        """Where the range asked for ends; None: with the artifact."""
        return int(self._range[1]) + 1 if self._range[1] else None

    @property
    def _range(self) -> Sequence[str]:
        return self.headers.get("range", "bytes=0-").removeprefix("bytes=").split("-")

    def part(self, content: bytes, most: int | None = None) -> bytes:
        """What was asked for of `content`, as far as that goes; at most `most` bytes."""
        return content[self.offset : self.end][:most]


@dataclass(slots=True)
class Connection:
    """The peer's end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, content: bytes) -> None:
        self.writer.write(content)
        await self.writer.drain()

    async def head(self, status: str, *headers: str) -> None:
        await self.send("\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode())

    async def until_hung_up(self) -> None:
        while await self.reader.read(1024):
            pass

    def reset(self) -> None:
        self.writer.transport.abort()


Answer = Callable[[Request, Connection], Awaitable[None]]


@dataclass(slots=True)
class LyingPeer:
    """A scripted depot on a free port.

    Args:
        script: the answers to the first requests, in turn; the last one goes on for ever.
        host: a loopback address; peers with different ones are different machines.

    Attributes:
        requests: what was asked, in order.
        connections: how many connections were made.
        asked: set anew with each request.
    """

    script: Sequence[Answer]
    host: str = "127.0.0.1"
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    _server: asyncio.Server | None = None
    _serving: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def offsets(self) -> list[int]:
        """From which byte on the artifact was asked for, request by request."""
        return [request.offset for request in self.requests]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = Connection(reader, writer)
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            request = _parse(await reader.readuntil(b"\r\n\r\n"))
            answer = self.script[min(len(self.requests), len(self.script) - 1)]
            self.requests.append(request)
            self.asked.set()
            await answer(request, connection)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client hung up, or the test is over
        finally:
            self._serving.discard(task)
            writer.close()


def _parse(head: bytes) -> Request:
    first, *lines = head.decode().split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return Request(first.split()[1], {name.lower(): value.strip() for name, _, value in pairs})


# ---- answers


def honest(content: bytes, *, etag: bool = True) -> Answer:
    """What a depot of ours answers, ranges included."""
    tag = [f'ETag: "sha256:{ArtifactHash.of(content)}"'] if etag else []

    async def answer(request: Request, connection: Connection) -> None:
        await part_head(request, connection, len(content), *tag)
        await connection.send(request.part(content))

    return answer


async def part_head(request: Request, connection: Connection, total: int, *more: str) -> None:
    """The head of a truthful answer about an artifact of `total` bytes."""
    first, end = request.offset, request.end or total
    length = f"Content-Length: {end - first}"
    if first or request.end:
        span = f"Content-Range: bytes {first}-{end - 1}/{total}"
        await connection.head("206 Partial Content", length, span, *more)
    else:
        await connection.head("200 OK", length, *more)


def no_ranges(content: bytes) -> Answer:
    """The reference depot: the whole, whatever was asked; no ETag, no digest."""

    async def answer(_request: Request, connection: Connection) -> None:
        await connection.head("200 OK", f"Content-Length: {len(content)}")
        await connection.send(content)

    return answer


def chunked(content: bytes) -> Answer:
    """The whole, without saying how long it is."""

    async def answer(_request: Request, connection: Connection) -> None:
        await connection.head("200 OK", "Transfer-Encoding: chunked")
        await connection.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content))

    return answer


def until_closed(content: bytes) -> Answer:
    """The whole, ended by the end of the connection."""

    async def answer(_request: Request, connection: Connection) -> None:
        await connection.head("200 OK", "Connection: close")
        await connection.send(content)

    return answer


def announcing(total: int, content: bytes, *, then_stall: bool = False) -> Answer:
    """Announce an artifact of `total` bytes, send those of `content`, hang up or go silent."""

    async def answer(request: Request, connection: Connection) -> None:
        await part_head(request, connection, total)
        await connection.send(request.part(content))
        if then_stall:
            await connection.until_hung_up()

    return answer


def resetting(content: bytes, after: int) -> Answer:
    """Reset the connection once `after` bytes of the artifact were sent."""

    async def answer(request: Request, connection: Connection) -> None:
        await part_head(request, connection, len(content))
        await connection.send(request.part(content)[: max(after - request.offset, 0)])
        connection.reset()

    return answer


def dripping(content: bytes, pause_s: float) -> Answer:
    """One byte at a time."""

    async def answer(request: Request, connection: Connection) -> None:
        await part_head(request, connection, len(content))
        for index in range(request.offset, len(content)):
            await connection.send(content[index : index + 1])
            await asyncio.sleep(pause_s)

    return answer


def endless(block: bytes = b"\x00" * 65536) -> Answer:
    """Chunks without end."""

    async def answer(_request: Request, connection: Connection) -> None:
        await connection.head("200 OK", "Transfer-Encoding: chunked")
        while True:
            await connection.send(b"%x\r\n%b\r\n" % (len(block), block))

    return answer


def fixed(status: str, *headers: str, body: bytes = b"") -> Answer:
    """These headers and this body, with its length, whatever was asked."""

    async def answer(_request: Request, connection: Connection) -> None:
        await connection.head(status, f"Content-Length: {len(body)}", *headers)
        await connection.send(body)

    return answer


def raw(content: bytes) -> Answer:
    """These bytes, which need not be HTTP."""

    async def answer(_request: Request, connection: Connection) -> None:
        await connection.send(content)

    return answer


def repeating(first: bytes, again: bytes) -> Answer:
    """`first`, and then `again` and again, with short pauses."""

    async def answer(_request: Request, connection: Connection) -> None:
        await connection.send(first)
        while True:
            await connection.send(again)
            await asyncio.sleep(0.01)

    return answer


async def silent(_request: Request, connection: Connection) -> None:
    """Nothing at all."""
    await connection.until_hung_up()


async def hanging_up(_request: Request, connection: Connection) -> None:
    """The end of the connection, without an answer."""
    connection.reset()


def held_back(answer: Answer, until: asyncio.Event) -> Answer:
    """`answer`, once `until` is set."""

    async def wait(request: Request, connection: Connection) -> None:
        await until.wait()
        await answer(request, connection)

    return wait


def paused(content: bytes, after: int, until: asyncio.Event) -> Answer:
    """A truthful answer that pauses after `after` bytes of its body."""

    async def answer(request: Request, connection: Connection) -> None:
        await part_head(request, connection, len(content))
        body = request.part(content)
        await connection.send(body[:after])
        await until.wait()
        await connection.send(body[after:])

    return answer
